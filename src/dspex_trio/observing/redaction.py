"""Take secrets out of text that leaves the worker: failures, traces, logs.

Two ways at once: values that are known to be secret (the operator's API keys, and what lies in environment variables
whose names say so), and shapes that providers give their keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from json.encoder import encode_basestring
from typing import Any, Final

REDACTED: Final = "[redacted]"

# Anything shorter would take innocent words out of every message.
_SHORTEST_SECRET: Final = 8
_SECRET_NAME: Final = re.compile(
    r"(API|ACCESS|SECRET|PRIVATE).?KEY|TOKEN|PASSWORD|PASSWD|SECRET|CREDENTIALS?$", re.IGNORECASE
)
# What a provider's key begins with, and what follows.
_KEYS: Final = (
    *((mark, r"[A-Za-z0-9_-]{16,}") for mark in ("sk-", "pk-", "rk-")),  # OpenAI, Anthropic and their imitators
    ("AIza", r"[0-9A-Za-z_-]{30,}"),  # Google
    ("gh", r"[pousr]_[A-Za-z0-9]{30,}"),  # GitHub
    ("hf_", r"[A-Za-z0-9]{30,}"),  # Hugging Face
    ("AKIA", r"[0-9A-Z]{16}\b"),  # AWS
)
# What stands before a secret and stays, and the secret.
_PREFIXED: Final = (
    ("earer ", r"[A-Za-z0-9._~+/=-]{8,}"),
    ("://", r"[^/@\s:]+:[^/@\s]+(?=@)"),  # user:password in a URL
)
# Each shape begins with its own letters, which most texts do not hold: looking for those costs a hundredth of matching.
_SHAPES: Final = (
    *((mark, re.compile(rf"{mark}(?<!\w{mark}){rest}"), REDACTED) for mark, rest in _KEYS),
    *((mark, re.compile(f"{mark}{rest}"), f"{mark}{REDACTED}") for mark, rest in _PREFIXED),
)
# The same in JSON text in UTF-8, where what stands before a key may be the end of an escape. What follows is never
# escaped, or may be longer then.
_SIGNS: Final = tuple(re.compile(f"{mark}{rest}".encode()) for mark, rest in (*_KEYS, *_PREFIXED))


def is_secret_name(name: str) -> bool:
    """Whether a keyword, header or environment variable of that name holds a secret."""
    return _SECRET_NAME.search(name) is not None


def secrets_in(arguments: Mapping[str, Any]) -> Iterator[str]:
    """The texts among `arguments`, nested ones too, whose names say that they are secret."""
    for name, value in arguments.items():
        if isinstance(value, Mapping):
            yield from secrets_in(value)
        elif isinstance(value, str) and is_secret_name(name):
            yield value


class Redactor:
    """Replaces secrets in text by `[redacted]`.

    Args:
        secrets: Values to take out wherever they occur; ones under eight characters are ignored.
        environment: Its variables whose names say "secret" count as secrets too.
    """

    def __init__(self, secrets: Iterable[str] = (), environment: Mapping[str, str] | None = None) -> None:
        found = {secret for secret in secrets if len(secret) >= _SHORTEST_SECRET}
        for name, value in (environment or {}).items():
            if len(value) >= _SHORTEST_SECRET and is_secret_name(name):
                found.add(value)
        # Longest first, so that a secret which contains another one goes as a whole.
        self._known = sorted(found, key=len, reverse=True)
        # One with lone surrogates, as an environment may have, is in no UTF-8.
        self._escaped = [encode_basestring(secret)[1:-1].encode("utf-8", "surrogatepass") for secret in self._known]

    def with_secrets(self, secrets: Iterable[str]) -> Redactor:
        """One that takes out these too."""
        more = list(secrets)
        return Redactor([*self._known, *more]) if more else self

    def __call__(self, text: str) -> str:
        """`text` without secrets."""
        for secret in self._known:
            if secret in text:
                text = text.replace(secret, REDACTED)
        for mark, shape, left in _SHAPES:
            if mark in text:
                text = shape.sub(left, text)
        return text

    def passes(self, encoded: bytes) -> bool:
        """Whether no text that JSON text in UTF-8 holds, keys included, has a secret in it.

        Takes a hundredth of what it costs to look at each of them. It may say False where there is none, never True
        where there is one, unless something is escaped that need not be.
        """
        return not (any(secret in encoded for secret in self._escaped) or any(sign.search(encoded) for sign in _SIGNS))


def redacted(value: Any, redact: Callable[[str], str]) -> Any:
    """A plain value with its texts redacted, keys too; shares no list or dict with `value`."""
    match value:
        case str():
            return redact(value)
        case list():
            return [redacted(item, redact) for item in value]
        case dict():
            return {redact(key): redacted(item, redact) for key, item in value.items()}
    return value
