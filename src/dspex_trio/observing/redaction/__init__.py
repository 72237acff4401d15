"""Take secrets out of text that leaves the worker: failures, traces, logs, records, telemetry.

Three ways at once: values that are known to be secret (the operator's API keys, and what lies in environment variables
whose names say so), shapes that providers give their keys, and what stands behind words such as `Authorization:`. What
could steer a reader's terminal or forge a line is escaped (`printable`). SECURITY.md has the sheet.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from json.encoder import encode_basestring
from typing import Any, Final
from urllib.parse import quote, unquote

from dspex_trio.observing.redaction.names import is_secret_name
from dspex_trio.observing.redaction.printable import printable, printable_json
from dspex_trio.observing.redaction.shapes import GROUPS, REDACTED

__all__ = ["REDACTED", "Redactor", "is_secret_name", "printable", "printable_json", "redacted", "secrets_in"]

# Anything shorter would take innocent words out of every message.
_SHORTEST_SECRET: Final = 8
# What a variable with the name of a secret may say instead of one.
_NO_SECRETS: Final = frozenset({"disabled", "required", "optional", "anonymous", "undefined", "changeme"})
_PASSWORD_IN_URL: Final = re.compile(r"://[^/\s:@]*:([^/\s]+)@")


def secrets_in(arguments: Mapping[str, Any]) -> Iterator[str]:
    """The texts among `arguments`, nested ones too, whose names say that they are secret."""
    for name, value in arguments.items():
        yield from _secrets_of(value, named=is_secret_name(name))


def _secrets_of(value: Any, *, named: bool) -> Iterator[str]:
    if isinstance(value, str):
        if named:
            yield value
    elif isinstance(value, Mapping):
        yield from secrets_in(value)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _secrets_of(item, named=named)


class Redactor:
    """Replaces secrets in text by `[redacted]`.

    Args:
        secrets: Values to take out wherever they occur; ones under eight characters are ignored.
        environment: Its variables whose names say "secret" count as secrets too, and so do passwords in its URLs.
    """

    def __init__(self, secrets: Iterable[str] = (), environment: Mapping[str, str] | None = None) -> None:
        given = {*secrets, *_secrets_of_environment(environment or {})}
        found = {secret for secret in given if len(secret) >= _SHORTEST_SECRET}
        self._given = found
        # As they stand in JSON text, and in URLs.
        spelled = {form for secret in found for form in (secret, encode_basestring(secret)[1:-1], _quoted(secret))}
        # Longest first, so that a secret which contains another one goes as a whole.
        self._known = sorted(spelled, key=len, reverse=True)
        # One with lone surrogates, as an environment may have, is in no UTF-8.
        self._escaped = [encode_basestring(secret)[1:-1].encode("utf-8", "surrogatepass") for secret in self._known]

    def with_secrets(self, secrets: Iterable[str]) -> Redactor:
        """One that takes out these too."""
        more = list(secrets)
        return Redactor([*self._given, *more]) if more else self

    def __call__(self, text: str) -> str:
        """`text` without secrets."""
        if len(text) < _SHORTEST_SECRET:
            return text
        for secret in self._known:
            if secret in text:
                text = text.replace(secret, REDACTED)
        for group in GROUPS:
            if group.hint.search(text):
                for shape in group.shapes:
                    text = shape.pattern.sub(shape.left, text)
        return text

    def passes(self, encoded: bytes) -> bool:
        """Whether no text that JSON text in UTF-8 holds, keys included, has a secret in it.

        Takes a hundredth of what it costs to look at each of them. It may say False where there is none, never True
        where there is one, unless something is escaped that need not be.
        """
        return not (
            any(secret in encoded for secret in self._escaped)
            or any(
                group.sign.search(encoded) and any(shape.sign.search(encoded) for shape in group.shapes)
                for group in GROUPS
            )
        )


def _secrets_of_environment(environment: Mapping[str, str]) -> Iterator[str]:
    for name, value in environment.items():
        if is_secret_name(name):
            if value.casefold() not in _NO_SECRETS:
                yield value
        elif "://" in value:
            for password in _PASSWORD_IN_URL.findall(value):
                yield password
                yield unquote(password)


def _quoted(secret: str) -> str:
    return quote(secret, safe="", errors="surrogatepass")


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
