"""Text that a terminal, a log or a page shows as it is: nothing in it steers, hides or forges."""

from __future__ import annotations

import re
from typing import Final

# C0, DEL and C1 with NEL; the separators of lines and paragraphs; what turns, hides or joins text; half characters.
# Zero-width joiners stay: emoji, Persian and Indic scripts are written with them.
_STEERING: Final = (
    "\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028\u2029\u202a-\u202e\u2060-\u206f\ud800-\udfff\ufeff"
    "\ufff9-\ufffb\U000e0000-\U000e007f"
)
_IN_A_LINE: Final = re.compile(f"[{_STEERING}]")
_IN_LINES: Final = re.compile(f"(?![\n\t])[{_STEERING}]")
_IN_UTF8: Final = re.compile(
    b"\x7f|\xc2[\x80-\x9f\xad]|\xd8\x9c|\xe1\xa0\x8e|\xe2\x80[\x8b\x8e\x8f\xa8-\xae]|\xe2\x81[\xa0-\xaf]|\xef\xbb\xbf"
    b"|\xef\xbf[\xb9-\xbb]|\xf3\xa0[\x80\x81][\x80-\xbf]"
)


def printable(text: str, *, lines: bool = False) -> str:
    r"""`text` with every character that would steer a terminal or forge a line as its escape, such as `\x1b`.

    Args:
        text: Whatever somebody sent.
        lines: Whether line feeds and tabs stay.
    """
    if text.isascii() and text.isprintable():
        return text
    return (_IN_LINES if lines else _IN_A_LINE).sub(lambda found: _escape(found[0]), text)


def printable_json(encoded: bytes) -> bytes:
    r"""JSON text in UTF-8, for a line of a file or a log, with those characters as JSON's own escapes: `\u2028`.

    JSON lets them stand in strings as they are, and has no others of them anywhere; only the text's readers trip.
    """
    if encoded.isascii() and b"\x7f" not in encoded:
        return encoded
    return _IN_UTF8.sub(lambda found: _json_escape(found[0].decode()), encoded)


def _escape(character: str) -> str:
    return character.encode("ascii", "backslashreplace").decode() if character > "\x7f" else repr(character)[1:-1]


def _json_escape(character: str) -> bytes:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2)).encode()
