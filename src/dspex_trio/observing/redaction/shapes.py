"""What secrets look like in text: how providers' keys begin, and what stands before other secrets.

Every pattern takes time in proportion to the text, whatever that is: a repetition without a limit either ends its
pattern or gives nothing back, and does not run over a place where the next attempt begins.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import re
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

REDACTED: Final = "[redacted]"


class Shape(NamedTuple):
    """One row of the sheet.

    Attributes:
        mark: What every text with such a secret holds.
        pattern: Finds the secrets.
        left: What takes their place.
        sign: Finds at least them in JSON text in UTF-8.
    """

    mark: str
    pattern: re.Pattern[str]
    left: str | Callable[[re.Match[str]], str]
    sign: re.Pattern[bytes]


# How a key begins, and what follows. It stands at the start of a word.
_KEYS: Final = (
    # OpenAI, Anthropic and their imitators.
    *((mark, r"[A-Za-z0-9_-]{16,}") for mark in ("sk-", "pk-", "rk-", "csk-", "xai-", "pplx-", "nvapi-", "tvly-")),
    *((f"{mark}_{mode}_", r"[A-Za-z0-9]{10,}") for mark in ("sk", "pk", "rk") for mode in ("live", "test")),  # Stripe
    ("whsec_", r"[A-Za-z0-9+/=]{16,}"),
    ("gsk_", r"[A-Za-z0-9]{20,}"),  # Groq
    ("fw_", r"[A-Za-z0-9]{20,}"),  # Fireworks
    ("r8_", r"[A-Za-z0-9]{30,}"),  # Replicate
    ("hf_", r"[A-Za-z0-9]{30,}"),  # Hugging Face
    *((f"lsv2_{kind}_", r"[0-9a-f]{20,}(?:_[0-9a-f]+)?") for kind in ("pt", "sk")),  # LangSmith
    ("dapi", r"[0-9a-f]{32}"),  # Databricks
    ("AIza", r"[0-9A-Za-z_-]{30,}"),  # Google
    ("ya29.", r"[0-9A-Za-z_-]{20,}"),
    ("GOCSPX-", r"[0-9A-Za-z_-]{20,}"),
    *((mark, r"[0-9A-Z]{16}(?![0-9A-Za-z])") for mark in ("AKIA", "ASIA")),  # AWS
    *((f"gh{letter}_", r"[A-Za-z0-9]{30,}") for letter in "pousr"),  # GitHub
    ("github_pat_", r"[A-Za-z0-9_]{20,}"),
    *((mark, r"[A-Za-z0-9_-]{16,}(?:\.[a-z0-9]{2,12}){0,3}") for mark in ("glpat-", "gldt-", "glrt-", "glptt-")),
    *((f"xox{letter}-", r"[A-Za-z0-9-]{10,}") for letter in "abceoprs"),  # Slack
    ("xapp-", r"[A-Za-z0-9-]{10,}"),
    ("SG.", r"[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{16,}"),  # SendGrid
    ("npm_", r"[A-Za-z0-9]{30,}"),
    ("pypi-", r"[A-Za-z0-9_-]{50,}"),
    ("dop_v1_", r"[0-9a-f]{32,}"),  # DigitalOcean
    ("shpat_", r"[0-9a-f]{32}"),  # Shopify
    ("ATATT3", r"[A-Za-z0-9_=-]{30,}"),  # Atlassian
    # A JSON Web Token. Its first part is the base64 of ASCII text, which has a `-` or `_` for `>`, `?` and `~` alone.
    ("eyJ", r"[A-Za-z0-9]{8,}+\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]+){0,3}"),
)
# A word starts there, or what stands before is the end of an escape, in JSON text or a repr: `\nsk-…`.
_STARTS: Final = r"(?:(?<!\w{0})|(?<=\\[bfnrtv]{0})|(?<=\\x[0-9a-f]{{2}}{0})|(?<=\\u[0-9a-fA-F]{{4}}{0}))"

# Between a name and its value: `: `, `=`, `": "`, `', b'`, and the same in JSON text.
_IS: Final = r"\\{0,3}[\"']?[ ]?[:=,][ ]?b?\\{0,3}[\"']?"
_SCHEMES: Final = r"(?i:Basic|Bearer|Token|ApiKey|Bot|Digest|Key|Negotiate|NTLM)[ ]"
_VALUE_CHARACTER: Final = r"[^\s;&,()\[\]{}'\"<>\\]"
# A value in a connection string, a query or a list of settings; not code, as in `password=self.password`.
_VALUE: Final = (
    r"(?!(?:self|cls|os|config|settings|args|env)\.|(?:None|True|False|null|password|str)\b|[A-Za-z_.]{1,60}[(\[,)]|/)"
    + _VALUE_CHARACTER
    + "{6,}"
)
_ASSIGNED: Final = (
    *("assword=", "ASSWORD=", "asswd=", "ASSWD=", "pwd=", "_PWD=", "Pwd="),
    *("pi_key=", "PI_KEY=", "pi-key=", "pikey=", "piKey=", "ccess_key=", "CCESS_KEY=", "ccessKey=", "ccountKey="),
    *(
        "ecret_key=",
        "ECRET_KEY=",
        "lient_secret=",
        "_SECRET=",
        "ccess_token=",
        "efresh_token=",
        "uth_token=",
        "_TOKEN=",
    ),
    *("?token=", "&token=", "?key=", "&key=", "?sig=", "&sig=", "-Signature=", "-Security-Token="),
)
# What stands before a secret and stays, and the secret.
_PREFIXED: Final = (
    # An opaque token rather than an English word: with a digit, a capital or a sign in it, or very long.
    ("earer ", "", r"(?:(?=[a-z]{0,40}[A-Z0-9._~+/=-][A-Za-z0-9])[A-Za-z0-9._~+/=-]{8,}|[A-Za-z0-9._~+/=-]{17,})"),
    ("uthorization", rf"{_IS}(?:{_SCHEMES}|(?=[^\s\"',\\]{{16}}))", r"(?!\[)[^\s\"',\\]{8,}"),
    ("ookie", _IS, r"[\w.-]{1,64}=[^\s\"'\\,;]{4,}(?:;[ ]?[\w.-]{1,64}=[^\s\"'\\,;]+)*"),
    ("-api-key", _IS, r"[^\s\"',\\]{8,}"),
    ("-Api-Key", _IS, r"[^\s\"',\\]{8,}"),
    # user:password, :password or a long token in a URL.
    ("://", "", r"(?:[^/\s:@\"'<>\\]*:[^/\s\"'<>\\]+|[^/\s:@\"'<>\\]{20,})(?=@)"),
    ("hooks.slack.com/", r"(?:services|workflows|triggers)/", r"[A-Za-z0-9/]{16,}"),
    *((mark, "", _VALUE) for mark in _ASSIGNED),
)
_BASIC: Final = r"asic ([A-Za-z0-9+/_-]{8,})={0,2}"
_PEM_SPACE: Final = r"(?:\s|\\+[nrt])"
_PEM: Final = (
    rf"-----BEGIN [A-Z0-9 ]{{0,30}}PRIVATE KEY(?: BLOCK)?-----{_PEM_SPACE}*+"
    rf"(?:[A-Z][A-Za-z-]{{0,30}}: [^\n\\]{{0,200}}{_PEM_SPACE}++){{0,4}}[A-Za-z0-9+/=]{{16,}}+"
    rf"(?:[A-Za-z0-9+/=]|{_PEM_SPACE})*+(?:-----END [A-Z ]{{1,40}}-----)?"
)


def _of_basic(found: re.Match[str]) -> str:
    """HTTP's `user:password` in base64; any other word behind `Basic` stays."""
    text = found[1]
    try:
        decoded = base64.b64decode(
            text + "=" * (-len(text) % 4), altchars=b"-_" if "-" in text or "_" in text else None
        )
        is_pair = ":" in decoded.decode()
    except (binascii.Error, UnicodeDecodeError):
        is_pair = False
    return f"asic {REDACTED}" if is_pair else found[0]


def _sheet() -> Iterator[Shape]:
    for mark, rest in _KEYS:
        start = re.escape(mark)
        text = start + _STARTS.format(start) + rest
        yield Shape(mark, re.compile(text), REDACTED, re.compile(text.encode(), re.ASCII))
    for mark, before, secret in _PREFIXED:
        text = f"({re.escape(mark)}{before}){secret}"
        yield Shape(mark, re.compile(text), rf"\1{REDACTED}", re.compile(text.encode()))
    yield Shape("asic ", re.compile(_BASIC), _of_basic, re.compile(_BASIC.encode()))
    yield Shape("-----BEGIN ", re.compile(_PEM), REDACTED, re.compile(b"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY"))


class Group(NamedTuple):
    """Shapes that one look at a text rules out together.

    Attributes:
        hint: Finds something in every text with a secret of one of these shapes.
        sign: The same in JSON text in UTF-8.
        shapes: Those.
    """

    hint: re.Pattern[str]
    sign: re.Pattern[bytes]
    shapes: tuple[Shape, ...]


# How many marks end, and what follows them all.
_ENDS: Final = (("-", "[A-Za-z0-9_-]{10}"), ("_", "[A-Za-z0-9+/=]{10}"), ("=", _VALUE_CHARACTER + "{6}"))


def _group(ending: str, follows: str, shapes: list[Shape]) -> Group:
    """Looks for what the marks end with and for what follows, then back: most text has few of those places."""
    by_length: dict[int, list[str]] = {}
    for shape in shapes:
        by_length.setdefault(len(shape.mark), []).append(re.escape(shape.mark))
    before = "|".join(f"(?<={'|'.join(marks)})" for marks in by_length.values())
    hint = f"{ending}(?={follows})(?:{before})"
    return Group(re.compile(hint), re.compile(hint.encode()), tuple(shapes))


def _groups() -> Iterator[Group]:
    left = list(SHEET)
    for ending, follows in _ENDS:
        yield _group(ending, follows, [shape for shape in left if shape.mark.endswith(ending)])
        left = [shape for shape in left if not shape.mark.endswith(ending)]
    for first, shapes in itertools.groupby(sorted(left, key=lambda shape: shape.mark), lambda shape: shape.mark[0]):
        found = tuple(shapes)
        hint = f"{re.escape(first)}(?:{'|'.join(re.escape(shape.mark[1:]) for shape in found)})"
        yield Group(re.compile(hint), re.compile(hint.encode()), found)


SHEET: Final = tuple(_sheet())
GROUPS: Final = tuple(_groups())
