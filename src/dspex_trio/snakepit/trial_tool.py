"""The tool `execute_program`: a trial whose program, inputs and outcome are JSON objects."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import trio

from dspex_trio.model import Program, ToolParameter, ToolSpec, TrialOptions, TrialOutcome, Watch
from dspex_trio.model.errors import InvalidInput, InvalidSpec, Stage, TrialError
from dspex_trio.model.variable_types import show
from dspex_trio.observing import correlation
from dspex_trio.runtime.embedded import Runtime
from dspex_trio.runtime.settings import Settings
from dspex_trio.trials import failure_of
from dspex_trio.wire import (
    decode_outcome,
    encode_json,
    encode_outcome,
    options_from_json,
    outcome_to_json,
    program_from_json,
)

EXECUTE_PROGRAM: Final = "execute_program"

SPEC: Final = ToolSpec(
    name=EXECUTE_PROGRAM,
    description='Runs one trial; answers {"success": …} or {"failure": …}',
    parameters=(
        ToolParameter("program_spec", "map", "the program", required=True),
        ToolParameter("inputs", "map", "input field → value"),
        ToolParameter("session_id", "string", "the session whose variables the program is bound to"),
        ToolParameter("timeout_ms", "float", "the trial's time, from its arrival"),
        ToolParameter("trial_id", "string", "the caller's name for the trial"),
        ToolParameter("options", "map", "omit_trace, omit_prompts, max_trace_bytes, no_cache"),
        ToolParameter("metadata", "map", "text → text, for logs and records"),
    ),
    streams=True,
)
_PARAMETERS: Final = tuple(each.name for each in SPEC.parameters)

# What a message holds beside the JSON text.
_SLACK: Final = 4096
# JSON text is at most six times as long as what it quotes.
_CUTS: Final = 4


@dataclass(frozen=True, slots=True)
class _TrialArguments:
    program: Program
    inputs: Mapping[str, Any]
    session_id: str
    timeout: float
    options: TrialOptions
    metadata: Mapping[str, str]


class TrialTool:
    """Executes trials for callers that speak JSON.

    Args:
        runtime: Where they run.
        max_bytes: The longest JSON text of an outcome.
    """

    def __init__(self, runtime: Runtime, max_bytes: int) -> None:
        self._runtime = runtime
        self._max_bytes = max_bytes

    async def __call__(
        self, arguments: Mapping[str, Any], watch: Watch | None = None, *, deadline: float = math.inf
    ) -> bytes:
        """Run one trial to its outcome, as JSON text that fits into a reply.

        The earliest of `timeout_ms`, `deadline` (on Trio's clock), the enclosing scope's deadline and the worker's
        maximum is its deadline. Whatever is wrong with the arguments is a failure of the trial.
        """
        arrived = trio.current_time()
        trial_id = _text(arguments, "trial_id")
        try:
            asked = _read(arguments)
        except TrialError as error:
            redact = self._runtime.redact
            return self._encode(failure_of(error, Stage.HYDRATE, redact=redact, trial_id=trial_id), TrialOptions())
        outcome = await self._runtime.run_trial(
            asked.program,
            asked.inputs,
            session=asked.session_id,
            trial_id=trial_id,
            options=asked.options,
            metadata=asked.metadata,
            deadline=min(deadline, arrived + asked.timeout),
            watch=watch,
        )
        return self._encode(outcome, asked.options)

    def _encode(self, outcome: TrialOutcome, options: TrialOptions) -> bytes:
        room = limit = self._max_bytes
        text = encode_json(outcome_to_json(outcome))
        if len(text) <= limit and not options.max_trace_bytes:
            return text
        for _ in range(_CUTS):
            # Cut like any other reply; its JSON form may be several times as long.
            cut = encode_outcome(outcome, max_bytes=room, max_trace_bytes=options.max_trace_bytes)
            text = encode_json(outcome_to_json(decode_outcome(cut)))
            if len(text) <= limit:
                break
            room //= 2
        return text


def room_for_json(settings: Settings) -> int:
    """How many bytes of a message may be JSON text."""
    return settings.max_message_bytes - min(_SLACK, settings.max_message_bytes // 4)


def _read(arguments: Mapping[str, Any]) -> _TrialArguments:
    for name in arguments:
        if name not in _PARAMETERS and name != correlation.METADATA_KEY:
            close = difflib.get_close_matches(name, _PARAMETERS, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise InvalidSpec(
                f"{EXECUTE_PROGRAM} has no parameter {name[:100]!r}; {hint}it takes {', '.join(_PARAMETERS)}"
            )
    spec, inputs = arguments.get("program_spec"), arguments.get("inputs")
    if not isinstance(spec, Mapping):
        raise InvalidSpec(f"program_spec is {show(spec)}; it takes an object with at least python_class")
    if inputs is not None and not isinstance(inputs, Mapping):
        raise InvalidInput(f"inputs is {show(inputs)}; it takes an object of input field and value")
    return _TrialArguments(
        program=program_from_json(spec),
        inputs=inputs or {},
        session_id=_text(arguments, "session_id"),
        timeout=_seconds(arguments.get("timeout_ms")),
        options=options_from_json(arguments.get("options")),
        metadata=_metadata(arguments.get("metadata")),
    )


def _text(arguments: Mapping[str, Any], name: str) -> str:
    """A parameter that is text; Elixir's atoms and integers arrive as text and numbers."""
    value = arguments.get(name)
    return "" if value is None else value if isinstance(value, str) else show(value)


def _seconds(value: Any) -> float:
    if value is None:
        return math.inf
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:  # noqa: PLR0124 - NaN
        raise InvalidSpec(f"timeout_ms is {show(value)}; it takes a number of milliseconds")
    return min(value, 1e15) / 1e3  # an integer may be too large for a float


def _metadata(value: Any) -> Mapping[str, str]:
    if value is not None and not isinstance(value, Mapping):
        raise InvalidSpec(f"metadata is {show(value)}; it takes an object of text and text")
    given = {str(name): each if isinstance(each, str) else show(each) for name, each in (value or {}).items()}
    return correlation.noted(given)
