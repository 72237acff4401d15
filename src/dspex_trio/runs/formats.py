"""What a file that holds no trials looks like, so that the error can say it."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Final

_MAGIC: Final = {
    b"\x1f\x8b": "gzip; unpack it first",
    b"PAR1": "Parquet",
    b"ARROW1": "Arrow (Feather)",
    b"PK\x03\x04": "a ZIP archive or an Excel file",
    b"BZh": "bzip2; unpack it first",
    b"\xfd7zXZ\x00": "xz; unpack it first",
    b"\x28\xb5\x2f\xfd": "zstd; unpack it first",
    b"SQLite format 3\x00": "an SQLite database",
    b"\xff\xfe": "UTF-16; save it as UTF-8",
    b"\xfe\xff": "UTF-16; save it as UTF-8",
}
_SEPARATORS: Final = {",": "CSV", "\t": "TSV", ";": "CSV with semicolons"}
_LOOKED_AT: Final = 4 * 1024 * 1024
"""Characters that are read on to see where JSON that begins in a line ends."""


def looks_like(line: str | bytes, following: Iterable[str | bytes], *, first: bool) -> str | None:
    """What a line that is no JSON belongs to; None if that cannot be told.

    Args:
        line: The line.
        following: Those after it, of which some may be taken.
        first: Whether it is the first line that says anything, where headings and magic numbers stand.
    """
    raw = line.encode(errors="replace") if isinstance(line, str) else line
    if first:
        for magic, name in _MAGIC.items():
            if raw.startswith(magic):
                return name
        if b"\x00" in raw[:200]:
            return "UTF-16 or something binary; save it as UTF-8"
    text = raw.decode("utf-8-sig", errors="replace")
    if text.lstrip()[:1] in ("{", "["):
        return _json_over_lines(text, following)
    if not first:
        return None
    for separator, name in _SEPARATORS.items():
        with suppress(csv.Error):
            if len(next(csv.reader([text], delimiter=separator), ())) > 1:
                return name
    return None


def _json_over_lines(text: str, following: Iterable[str | bytes]) -> str | None:
    """JSON that begins in one line and ends in another; None where it does not end."""
    more = (each if isinstance(each, str) else each.decode(errors="replace") for each in following)
    whole = "".join(itertools.chain([text], _some(more))).lstrip()
    try:
        found, end = json.JSONDecoder(parse_int=float).raw_decode(whole)
    except (ValueError, RecursionError):
        return None
    if end <= len(text.strip()):  # it is something after it that is wrong
        return None
    return "a JSON array" if isinstance(found, list) else "JSON that goes over several lines (pretty-printed)"


def _some(lines: Iterable[str]) -> Iterator[str]:
    left = _LOOKED_AT
    for line in lines:
        yield line
        if (left := left - len(line)) < 0:
            return
