"""A trial's progress events and its outcome, recorded on a timeline by a `watch`."""

from __future__ import annotations

from typing import assert_never

from dspex_trio.model import (
    EventsDropped,
    LmFinished,
    LmStarted,
    OutputChunk,
    StageStarted,
    ToolFinished,
    ToolStarted,
    TrialEvent,
    TrialOutcome,
    TrialSuccess,
    Watch,
)
from dspex_trio.model.errors import FailureKind
from dspex_trio.testing.time.timeline import Timeline


def watching(timeline: Timeline) -> Watch:
    """A `watch` for `Runtime.run_trial` (or an `on_event`, less its second argument) that records on `timeline`.

    Stages are recorded by their names (`ADMISSION`, `SESSION`, `HYDRATE`, `SYNC`, `EXECUTE`, `SERIALIZE`), calls as
    `lm_started`, `lm_finished`, `tool_started` and `tool_finished`, streamed text as `output`. It may be called in any
    thread.
    """

    def watch(event: TrialEvent) -> None:
        match event:
            case StageStarted(stage):
                timeline.record(stage.name)
            case LmStarted(call, predictor, model):
                timeline.record("lm_started", call=call, predictor=predictor, model=model)
            case LmFinished(call, _, error_type):
                timeline.record("lm_finished", call=call, **({"error_type": error_type} if error_type else {}))
            case ToolStarted(call, tool, arguments):
                timeline.record("tool_started", call=call, tool=tool, arguments=arguments)
            case ToolFinished(call, result, error_type, _):
                timeline.record(
                    "tool_finished", call=call, **({"error_type": error_type} if error_type else {"result": result})
                )
            case OutputChunk(predictor, field, text, _):
                timeline.record("output", predictor=predictor, field=field, text=text)
            case EventsDropped(count):
                timeline.record("events_dropped", count=count)
            case _:
                assert_never(event)

    return watch


def record_outcome(timeline: Timeline, outcome: TrialOutcome) -> None:
    """Record it as `success`, `deadline`, or the failure's kind in lower case, such as `variable_not_found`.

    A failure whose threads had to be stopped is preceded by the step of the ladder that did it: `rung:check`,
    `rung:wake`, …
    """
    if isinstance(outcome, TrialSuccess):
        timeline.record("success")
        return
    if rung := outcome.details.get("rung"):
        timeline.record(f"rung:{rung}")
    name = "deadline" if outcome.kind is FailureKind.DEADLINE_EXCEEDED else outcome.kind.name.lower()
    timeline.record(name, stage=outcome.stage.name, error_type=outcome.error_type)
