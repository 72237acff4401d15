"""What an operator decides about programs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from dspex_trio.model import LanguageModel

# Keywords that change what is asked of the model, not where the request goes or who pays.
SAMPLING: Final = frozenset(
    [
        "temperature",
        "max_tokens",
        "max_completion_tokens",
        "top_p",
        "top_k",
        "min_p",
        "n",
        "stop",
        "seed",
        "presence_penalty",
        "frequency_penalty",
        "repetition_penalty",
        "logprobs",
        "top_logprobs",
        "logit_bias",
        "reasoning_effort",
        "verbosity",
        "response_format",
        "rollout_id",
        "parallel_tool_calls",
        "tool_choice",
        "thinking",
        "model_type",
    ]
)

_FORBIDDEN: Final = re.compile(
    r"^api_|base|url|header|^engine$|^async_engine$|provider|callbacks|timeout|num_retries|^cache|model_list|key|token$|"
    r"client|endpoint|host|proxy|organization|project",
    re.IGNORECASE,
)
_HARMLESS: Final = SAMPLING | {"model"}


def is_forbidden_lm_argument(name: str) -> bool:
    """Whether a request may not set this keyword: it could send the worker's key elsewhere or change how it is used."""
    return name not in _HARMLESS and _FORBIDDEN.search(name) is not None


@dataclass(frozen=True, slots=True)
class ProgramSettings:
    """What an operator decides about programs.

    Attributes:
        lm: The language model of programs that name none; its params are the operator's and unrestricted.
        load: Modules to import at the start.
        allow_import: Dotted prefixes, beside `dspy` and the loaded modules, under which a class may lie.
        allow_lm_arg: Keywords of the language model that a request may set although they are forbidden by default.
        memory_cache: Whether DSPy caches replies in memory.
        disk_cache: Whether DSPy caches replies on disk.
        max_prototypes: How many constructed programs are kept for cloning.
        max_lms: How many language models are kept; each holds its provider's connections.
    """

    lm: LanguageModel | None = None
    load: tuple[str, ...] = ()
    allow_import: tuple[str, ...] = ()
    allow_lm_arg: tuple[str, ...] = ()
    memory_cache: bool = True
    disk_cache: bool = False
    max_prototypes: int = 256
    max_lms: int = 64

    def may_set(self, name: str) -> bool:
        """Whether a request may set this keyword of the language model."""
        return name in SAMPLING or name in self.allow_lm_arg


def refused_lm_argument(settings: ProgramSettings, arguments: Mapping[str, Any]) -> str | None:
    """Why these keywords of a request's language model are refused; None if they are not."""
    for name in arguments:
        if settings.may_set(name):
            continue
        if is_forbidden_lm_argument(name):
            return (
                f"a request may not set the language-model argument {name!r}: it decides where the worker's key is sent "
                f"or how it is used (the operator can allow it with --allow-lm-arg {name})"
            )
        return (
            f"{name!r} is no language-model argument a request can set; known are {', '.join(sorted(SAMPLING))} "
            f"(the operator can allow others with --allow-lm-arg {name})"
        )
    return None
