"""OpenTelemetry's conventions for generative AI: what spans and metrics say of a call of a language model or a tool."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from dspex_trio.model import LmCall
from dspex_trio.wire import json_text, read_json

Value: TypeAlias = str | int | float | bool | Sequence[str]

CHAT: Final = "chat"
EXECUTE_TOOL: Final = "execute_tool"

# How DSPy (as litellm) names a provider → how the conventions do; others are called as DSPy calls them.
_PROVIDERS: Final[Mapping[str, str]] = {
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "cohere_chat": "cohere",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "moonshot": "moonshot_ai",
    "text-completion-openai": "openai",
    "vertex_ai": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}
_UNKNOWN: Final = "_OTHER"
# How DSPy names what the answer is to be like → how the conventions do, where they differ.
_SAMPLING: Final[Mapping[str, str]] = {"max_completion_tokens": "max_tokens", "n": "choice.count"}


def asked(model: str) -> dict[str, Value]:
    """Of a call that begins: what is asked of whom."""
    provider, separator, name = model.partition("/")
    return {
        "gen_ai.operation.name": CHAT,
        "gen_ai.provider.name": _PROVIDERS.get(provider, provider) if separator else _UNKNOWN,
        "gen_ai.request.model": name if separator else model,
    }


def asked_for(sampling: Mapping[str, float]) -> dict[str, Value]:
    """Of a call that begins: how the answer is to be drawn."""
    return {f"gen_ai.request.{_SAMPLING.get(name, name)}": value for name, value in sampling.items()}


def answered(call: LmCall) -> dict[str, Value]:
    """Of a call that has ended: the answer, as far as there is one, without its text."""
    usage = call.usage
    told: dict[str, Value] = {}
    if usage.total_tokens:
        told["gen_ai.usage.input_tokens"] = usage.prompt_tokens
        told["gen_ai.usage.output_tokens"] = usage.completion_tokens
    if usage.cached_tokens:
        told["gen_ai.usage.cache_read.input_tokens"] = usage.cached_tokens
    if usage.reasoning_tokens:
        told["gen_ai.usage.reasoning.output_tokens"] = usage.reasoning_tokens
    response = _response(call.response_json)
    if reasons := list(_finish_reasons(response)):
        told["gen_ai.response.finish_reasons"] = reasons
    for key in ("id", "model"):
        if isinstance(said := response.get(key), str) and said:
            told[f"gen_ai.response.{key}"] = said
    return told


def content(call: LmCall) -> dict[str, Value]:
    """Prompts and replies, for those who want them in spans: JSON in the conventions' form of messages."""
    told: dict[str, Value] = {}
    if call.messages_json:
        told["gen_ai.input.messages"] = dumped([_message(each) for each in _loaded(call.messages_json, [])])
    outputs = _loaded(call.response_json, {}).get("outputs") or []
    if outputs:
        reasons = [*_finish_reasons(_response(call.response_json)), *["stop"] * len(outputs)]
        told["gen_ai.output.messages"] = dumped(
            [
                {**_message({"role": "assistant", "content": output}), "finish_reason": reason}
                for output, reason in zip(outputs, reasons, strict=False)
            ]
        )
    return told


def dumped(value: Any) -> str:
    """A value as a span may carry it: its JSON."""
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except ValueError:  # an integer of more digits than Python writes
        return json_text(value)


def _message(message: Any) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        return {"role": "user", "parts": [{"type": "text", "content": _text(message)}]}
    said = message.get("content")
    parts = said if isinstance(said, list) else [] if said is None else [said]
    return {
        "role": str(message.get("role", "user")),
        "parts": [{"type": "text", "content": _text(part)} for part in parts],
    }


def _text(part: Any) -> str:
    match part:
        case str():
            return part
        case {"text": str(text)}:
            return text
    return dumped(part)


def _response(text: str) -> Mapping[str, Any]:
    response = _loaded(text, {}).get("response")
    return response if isinstance(response, Mapping) else {}


def _finish_reasons(response: Mapping[str, Any]) -> Iterator[str]:
    """Of DSPy's own responses, and of those that litellm makes."""
    choices = response.get("choices")
    for choice in choices if isinstance(choices, list) else [response]:
        if isinstance(choice, Mapping) and isinstance(reason := choice.get("finish_reason"), str):
            yield reason


def _loaded(text: str, default: Any) -> Any:
    try:
        found = read_json(text) if text else default
    except ValueError:
        return default
    return found if isinstance(found, type(default)) else default
