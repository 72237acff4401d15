"""Which models a request may name: a strict form, and the operator's providers and patterns.

A model's name chooses more than a model. LiteLLM reads the provider from it, and with that whose key is sent; for some
providers also a route, an endpoint or even a host (`bedrock/agentcore/arn:…`). So a request's word is not enough.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Any, Final

from dspex_trio.model.lm_arguments import Refused

_MAX_LENGTH: Final = 256
_TAG: Final = r":[A-Za-z0-9][A-Za-z0-9._-]*"
_LAST: Final = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_FORM: Final = re.compile(
    # Only the last part may have dots: what stands before it is then no host.
    rf"(?:[A-Za-z0-9][A-Za-z0-9_-]*/)*"
    # A tag, or two as Bedrock has them (`…-v1:0:48k`); or a fine-tuned model, `ft:base:organisation:suffix:id`.
    rf"(?:(?!(?:arn|ft):){_LAST}(?:{_TAG}){{0,2}}|ft:{_LAST}(?::[A-Za-z0-9._-]*){{0,3}})",
    re.ASCII | re.IGNORECASE,
)

# Their further parts (`openrouter/anthropic/claude-sonnet-4`) are text for one and the same address.
_SAME_ADDRESS: Final = frozenset(
    {"cerebras", "deepinfra", "fireworks_ai", "groq", "hosted_vllm", "litellm_proxy", "lm_studio", "nebius", "novita"}
    | {"nvidia_nim", "openai", "openrouter", "together_ai", "vercel_ai_gateway"}
)
# The name is that of an endpoint or an agent, each with an owner of its own.
_ENDPOINTS: Final = frozenset(
    {"a2a", "a2a_agent", "baseten", "langflow", "langgraph", "predibase", "ragflow", "triton", "watsonx_agent"}
    | {"sagemaker", "sagemaker_chat", "sagemaker_nova"}
)
# LiteLLM sends `azure/` with one of these to OpenAI (`is_non_openai_azure_model`).
_NOT_AZURES: Final = re.compile(
    r"command|c4ai|mistral|mixtral|ministral|codestral|open-m|open-codestral|pixtral|magistral"
)


class ModelNames:
    """Decides which models requests may name.

    Args:
        patterns: What the operator allows. `*` stands for any characters but `/`, `**` for any at all.
    """

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        self._literal = frozenset(pattern for pattern in patterns if "*" not in pattern)
        self._patterns = tuple(map(_compiled, (pattern for pattern in patterns if "*" in pattern)))

    def check(self, name: Any, configured: Collection[str]) -> str:
        """`name`, if a request may name it.

        Args:
            name: What the request says.
            configured: The names of the models that the operator configured.

        Raises:
            Refused: It may not, or this is no model's name; the text says which rule it breaks, and the setting.
        """
        if isinstance(name, str) and (name in configured or name in self._literal):
            return name  # the operator's own words, whatever they look like
        if not isinstance(name, str) or len(name) > _MAX_LENGTH or ".." in name or not _FORM.fullmatch(name):
            raise Refused(
                "takes the name of a model, such as 'openai/gpt-4o-mini' or 'ollama/llama3:8b' (letters, digits, '_' "
                "and '-' in parts separated by '/'; in the last one '.', too, and a ':tag'), and no address and no ARN"
            )
        if any(pattern.fullmatch(name) for pattern in self._patterns):
            return name
        if any(_same_provider(name, own) for own in configured):
            return name
        raise Refused(f"{_allowed_by(configured)}; the operator can allow it with --allow-model {name}")


def _compiled(pattern: str) -> re.Pattern[str]:
    parts = {"**": ".*", "*": "[^/]*"}
    return re.compile("".join(parts.get(part, re.escape(part)) for part in re.split(r"(\*\*|\*)", pattern)))


def _same_provider(name: str, own: str) -> bool:
    """Whether it is another model of the same provider, with the same key at the same address."""
    route, _, model = name.rpartition("/")
    own_route, _, _ = own.rpartition("/")
    provider, own_provider = name.partition("/")[0], own.partition("/")[0]
    if not route or not own_route or provider != own_provider or provider in _ENDPOINTS or model.startswith("ft:"):
        return False
    if provider == "azure" and _NOT_AZURES.match(model):
        return False
    return route == own_route or provider in _SAME_ADDRESS


def _allowed_by(configured: Collection[str]) -> str:
    if not configured:
        return "takes only a model that the operator allowed, and he named none by --lm"
    own = ", ".join(sorted(map(repr, configured)))
    return f"takes only the operator's model ({own}) and others of its provider that go the same way"
