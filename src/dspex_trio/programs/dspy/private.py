"""Every private name of DSPy that is used here, in one place, so that a DSPy without one is told from the start."""

from __future__ import annotations

import sys
from typing import Any

import dspy

from dspex_trio.model.errors import UnsupportedDspy

try:
    import dspy.clients
    from dspy._vendor.lm15.result import StreamAccumulator
    from dspy._vendor.lm15.serde import response_from_dict, response_to_dict
    from dspy._vendor.lm15.transports import AsyncTransportResponse, ReadError, TransportResponse
    from dspy.adapters import _legacy_type_markers as type_markers
    from dspy.adapters import base as adapter_base
    from dspy.adapters import chat_adapter, xml_adapter
    from dspy.adapters._legacy_type_markers import _split_legacy_custom_type_text_to_blocks as blocks_of
    from dspy.adapters.types import base_type
    from dspy.adapters.types import tool as tool_module
    from dspy.adapters.types.base_type import CUSTOM_TYPE_END_IDENTIFIER as CUSTOM_TYPE_END
    from dspy.adapters.types.base_type import CUSTOM_TYPE_START_IDENTIFIER as CUSTOM_TYPE_START
    from dspy.clients import base_lm, capabilities, costs, execution, model_metadata
    from dspy.clients._http import finite_seconds, retry_after_seconds
    from dspy.clients.backend_selection import select_backend
    from dspy.clients.cache import Cache
    from dspy.clients.call_result import CallResult, attributes
    from dspy.clients.engines.lifecycle import closing_stream
    from dspy.clients.engines.litellm_engine import LiteLLMEngine
    from dspy.clients.engines.litellm_errors import to_lm15_error
    from dspy.clients.engines.stream_guard import checked_stream
    from dspy.clients.engines.streaming import ListenerBridge
    from dspy.dsp.utils.settings import thread_local_overrides
    from dspy.lm15 import LM15Error, Response
    from dspy.utils import parallelizer
    from dspy.utils.constants import IS_TYPE_UNDEFINED
    from dspy.utils.usage_tracker import UsageTracker
except ImportError as error:
    raise UnsupportedDspy.because(f"lacks a name: {error}") from error

dspy_settings = sys.modules[type(dspy.settings).__module__]
"""The module `dspy.dsp.utils.settings`, whose name inside its package may mean the object."""

lm_module = sys.modules[dspy.LM.__module__]

__all__ = [
    "CUSTOM_TYPE_END",
    "CUSTOM_TYPE_START",
    "IS_TYPE_UNDEFINED",
    "AsyncTransportResponse",
    "Cache",
    "CallResult",
    "LM15Error",
    "ListenerBridge",
    "LiteLLMEngine",
    "ReadError",
    "Response",
    "StreamAccumulator",
    "TransportResponse",
    "UnsupportedDspy",
    "UsageTracker",
    "adapter_base",
    "attributes",
    "base_lm",
    "base_type",
    "blocks_of",
    "capabilities",
    "chat_adapter",
    "check_names",
    "checked_stream",
    "closing_stream",
    "costs",
    "dspy_settings",
    "execution",
    "finite_seconds",
    "is_parallel_worker",
    "lm_module",
    "model_metadata",
    "parallelizer",
    "response_from_dict",
    "response_to_dict",
    "retry_after_seconds",
    "select_backend",
    "thread_local_overrides",
    "to_lm15_error",
    "tool_module",
    "type_markers",
    "xml_adapter",
]


def check_names() -> None:
    """Raise UnsupportedDspy, naming it, if an attribute that is changed or read here is gone."""
    relied_on: list[tuple[object, str]] = [
        (base_lm, "GLOBAL_HISTORY"),
        (dspy_settings, "config_owner_thread_id"),
        (dspy, "_cache_lock"),
        (dspy.clients, "DISK_CACHE_DIR"),
        (dspy.clients, "DISK_CACHE_LIMIT"),
        (dspy.BaseLM, "__call__"),
        (dspy.BaseLM, "acall"),
        (dspy.BaseLM, "copy"),
        (dspy.Tool, "__call__"),
        (dspy.Tool, "acall"),
        (dspy.PythonInterpreter, "_health_check"),
        (dspy.ProgramOfThought, "_interpreter_context"),
        (dspy.RLM, "_interpreter_context"),
        (parallelizer.ParallelExecutor, "execute"),
        (dspy.Predict("a -> b"), "stage"),
        (Cache, "cache_key"),
        (parallelizer, "tqdm"),
        (parallelizer, "ThreadPoolExecutor"),
        (costs, "model_info"),
        (capabilities, "model_info"),
        (model_metadata, "_data"),
        (UsageTracker, "add_usage"),
        (type_markers, "CUSTOM_TYPE_START_IDENTIFIER"),
        (type_markers, "CUSTOM_TYPE_END_IDENTIFIER"),
        (adapter_base, "_expand_legacy_custom_type_markers_in_chat_message"),
        (chat_adapter, "parse_value"),
        (xml_adapter, "parse_value"),
        (execution, "_attempt"),
        (execution, "_aattempt"),
        (execution, "_delay"),
        (execution, "execute"),
        (execution, "aexecute"),
        (lm_module, "_get_stream_completion_fn"),
        (lm_module, "_get_litellm"),
    ]
    missing = [
        f"{getattr(owner, '__name__', type(owner).__name__)}.{name}"
        for owner, name in relied_on
        if not hasattr(owner, name)
    ]
    if not any(is_parallel_worker(code) for code in _codes(parallelizer.ParallelExecutor._execute_parallel)):  # noqa: SLF001
        missing.append("ParallelExecutor's worker")
    if missing:
        raise UnsupportedDspy.because(f"lacks {', '.join(missing)}")


def is_parallel_worker(code: Any) -> bool:
    """Whether it is the code that dspy.Parallel's own threads run; `parent_overrides` are their settings."""
    return (
        code.co_name == "worker"
        and code.co_filename == parallelizer.__file__
        and "parent_overrides" in code.co_varnames[: code.co_argcount]
    )


def _codes(function: Any) -> list[Any]:
    return [constant for constant in function.__code__.co_consts if hasattr(constant, "co_varnames")]
