"""Take secrets out of text that leaves the worker: failures, traces, logs.

Two ways at once: values that are known to be secret (the operator's API keys, and what lies in environment variables
whose names say so), and shapes that providers give their keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

REDACTED: Final = "[redacted]"

# Anything shorter would take innocent words out of every message.
_SHORTEST_SECRET: Final = 8
_SECRET_NAME: Final = re.compile(
    r"(API|ACCESS|SECRET|PRIVATE).?KEY|TOKEN|PASSWORD|PASSWD|SECRET|CREDENTIALS?$", re.IGNORECASE
)
_SHAPES: Final = re.compile(
    r"\b(?:sk|pk|rk)-[A-Za-z0-9_-]{16,}"  # OpenAI, Anthropic and their imitators
    r"|\bAIza[0-9A-Za-z_-]{30,}"  # Google
    r"|\bgh[pousr]_[A-Za-z0-9]{30,}"  # GitHub
    r"|\bhf_[A-Za-z0-9]{30,}"  # Hugging Face
    r"|\bAKIA[0-9A-Z]{16}\b"  # AWS
    r"|(?<=[Bb]earer )[A-Za-z0-9._~+/=-]{8,}"
    r"|(?<=://)[^/@\s:]+:[^/@\s]+(?=@)"  # user:password in a URL
)


def is_secret_name(name: str) -> bool:
    """Whether a keyword, header or environment variable of that name holds a secret."""
    return _SECRET_NAME.search(name) is not None


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
        known = "|".join(re.escape(secret) for secret in sorted(found, key=len, reverse=True))
        self._pattern = re.compile(f"{known}|{_SHAPES.pattern}") if known else _SHAPES

    def __call__(self, text: str) -> str:
        """`text` without secrets."""
        return self._pattern.sub(REDACTED, text)
