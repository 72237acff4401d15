"""Keywords of a language model: which ones a request may set, and which values each takes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from dspex_trio.model.variable_types import show


class Refused(ValueError):
    """A parameter does not take this value; the text says what it would take."""


def anything(value: Any) -> Any:
    """Any value."""
    return value


def number(low: float = -math.inf, high: float = math.inf) -> Callable[[Any], Any]:
    """A check for numbers; NaN is none."""

    def check(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            least = "" if low == -math.inf else f" of at least {low:g}"
            most = "" if high == math.inf else f" and at most {high:g}"
            raise Refused(f"takes a number{least}{most}")
        return value

    return check


def whole(low: float = -math.inf) -> Callable[[Any], Any]:
    """A check for whole numbers; a float that is one becomes one."""

    def check(value: Any) -> Any:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise Refused("takes a whole number" if low == -math.inf else f"takes a whole number of at least {low:g}")
        return value

    return check


def text(value: Any) -> Any:
    """A text with something in it."""
    if not isinstance(value, str) or not value:
        raise Refused("takes a text that is not empty")
    return value


def boolean(value: Any) -> Any:
    """True or false."""
    if not isinstance(value, bool):
        raise Refused("takes true or false")
    return value


def _texts(value: Any) -> Any:
    if isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, str) for item in value)):
        return value
    raise Refused("takes a text or a list of texts")


def _model_type(value: Any) -> Any:
    if value not in {"chat", "text", "responses"}:
        raise Refused("takes 'chat', 'text' or 'responses'")
    return value


SAMPLING: Final[Mapping[str, Callable[[Any], Any]]] = {
    "temperature": number(0, 10),
    "max_tokens": whole(1),
    "max_completion_tokens": whole(1),
    "top_p": number(0, 1),
    "top_k": whole(0),
    "min_p": number(0, 1),
    "n": whole(1),
    "stop": _texts,
    "seed": whole(),
    "presence_penalty": number(-10, 10),
    "frequency_penalty": number(-10, 10),
    "repetition_penalty": number(0, 10),
    "logprobs": anything,
    "top_logprobs": whole(0),
    "logit_bias": anything,
    "reasoning_effort": text,
    "verbosity": text,
    "response_format": anything,
    "rollout_id": whole(),
    "parallel_tool_calls": boolean,
    "tool_choice": anything,
    "thinking": anything,
    "model_type": _model_type,
}
"""Keyword → check, of those that change what is asked of the model, not where the request goes or who pays."""

_FORBIDDEN: Final = re.compile(
    r"^api_|base|url|header|^engine$|^async_engine$|provider|callbacks|timeout|num_retries|^cache|model_list|key|token$|"
    r"client|endpoint|host|prox|organization|project|credential|secret|password|^lm$|^extra_",
    re.IGNORECASE,
)


def is_forbidden(name: str) -> bool:
    """Whether a keyword could send the worker's key elsewhere or change how it is used."""
    return name not in SAMPLING and name != "model" and _FORBIDDEN.search(name) is not None


def why_forbidden(name: str) -> str:
    """The error text for a forbidden keyword."""
    return (
        f"the language-model argument {name!r} decides where the worker's key is sent or how it is used; a request may "
        f"not set it (the operator can allow it with --allow-lm-arg {name})"
    )


def refusal(arguments: Mapping[str, Any], allowed: Collection[str]) -> str | None:
    """Why these keywords of a request's language model are refused; None if they are not.

    Args:
        arguments: Keyword → value.
        allowed: Keywords that the operator allows beside the sampling ones; any value goes.
    """
    for name, value in arguments.items():
        if name in allowed:
            continue
        if name in SAMPLING:
            try:
                SAMPLING[name](value)
            except Refused as refused:
                return f"the language-model argument {name!r} {refused}; got {show(value)}"
        elif is_forbidden(name):
            return why_forbidden(name)
        else:
            return (
                f"{name!r} is no language-model argument a request can set; known are {', '.join(sorted(SAMPLING))} "
                f"(the operator can allow others with --allow-lm-arg {name})"
            )
    return None
