"""A trial that a worker recorded, once more: its program, with the replies that it had, in virtual time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import dspy
import trio

from dspex_trio import rpc
from dspex_trio.interface.arguments import needs_trio
from dspex_trio.model import Program, TrialOutcome, TrialRequest, Variable
from dspex_trio.observing.records import Recorded, read_records
from dspex_trio.programs.registry import TOOL_REGISTRY, not_isolated
from dspex_trio.programs.tools import wants_elixir_tools
from dspex_trio.runtime.observer import margin_rules
from dspex_trio.runtime.settings import Settings
from dspex_trio.store.elixir_tools import ELIXIR_TOOLS, elixir_tool
from dspex_trio.tasks.background import open_background
from dspex_trio.testing.environment import open_tested_runtime, registered_tool
from dspex_trio.testing.replays.comparing import differences
from dspex_trio.testing.replays.playback import Playback, playing
from dspex_trio.testing.replays.recorded import CannotReplay, events_in, failure_in, kind_in, lm_replies, tool_replies
from dspex_trio.testing.scripted.lm import ScriptedLM
from dspex_trio.testing.scripted.store import Fault, FaultyStore
from dspex_trio.testing.scripted.variables import variables_of
from dspex_trio.testing.time.clock import VirtualClock
from dspex_trio.testing.time.timeline import Timeline
from dspex_trio.testing.watching import record_outcome, watching
from dspex_trio.trials.observer import Observer
from dspex_trio.wire import decode_json, encode_json, options_from_json, program_from_json

_SESSION: Final = "replay"
_WRITTEN: Final = "session:"
# What came from the worker's other work, or from the machine.
_OF_THE_WORKER: Final = frozenset({"OVERLOADED", "SHUTTING_DOWN", "WORKER_LOST", "INTERNAL", "BUDGET_EXCEEDED"})
# What ended a thread that computed, or that nothing could wake: no virtual time passes there.
_BUSY: Final = frozenset({"raise", "abandon", "kill"})


@dataclass(frozen=True, slots=True)
class Replayed:
    """A trial that was replayed.

    Attributes:
        record: What the worker recorded.
        outcome: What became of it now.
        differences: A line for each difference between the two outcomes: kind, stage, exception, prediction.
        notes: What else went otherwise, and need not matter: other prompts, calls that were not made.
    """

    record: Mapping[str, Any]
    outcome: TrialOutcome
    differences: tuple[str, ...]
    notes: tuple[str, ...]

    def check(self) -> None:
        """Assert that it came to the same outcome.

        Raises:
            AssertionError: It did not; the text says how it differs, and what may be the reason.
        """
        if self.differences:
            lines = [f"the replay of trial {self.record.get('trial_id')!r} came to another outcome:", *self.differences]
            raise AssertionError("\n".join([*lines, *(f"note: {note}" for note in self.notes)]))


def read_record(path: Path | str, trial_id: str) -> Recorded:
    """The last trial of that id in a file of records, or in the files of a directory.

    Raises:
        CannotRead: There are no records at `path`.
        LookupError: None of them is that trial's.
    """
    found, _ = read_records(Path(path))
    for one in reversed(found):
        if one.trial_id == trial_id:
            return one
    raise LookupError(f"{path} has no record of trial {trial_id!r} (it has {len(found)} others)")


async def replay(
    record: Recorded | Mapping[str, Any],
    *,
    variables: Mapping[str, Any | Variable] | None = None,
    settings: Settings | None = None,
    timeline: Timeline | None = None,
) -> Replayed:
    """Run a recorded trial again: the same program, inputs and variables, under the same deadline.

    Its models and tools answer what they answered, after the same time, in virtual time if the Trio run has a
    `VirtualClock`; no provider is asked and no tool is run. The program's classes must be there: import what registers
    them, or name its module in `settings.load`. One replay at a time in a process.

    Args:
        record: The record; `read_record` finds it.
        variables: More session variables, such as those that the program itself reads while it runs: the record has
            those that its parameters were bound to.
        settings: The worker's. Models, isolation, store and records are not taken from them.
        timeline: Told what happens.

    Raises:
        CannotReplay: The record lacks what is needed, or the trial ended by something that is not in it.
        InvalidSpec: The program in it cannot be read.
    """
    needs_trio("replay")
    found: Mapping[str, Any] = record.record if isinstance(record, Recorded) else record
    of_models, of_tools = lm_replies(found), tool_replies(found)
    in_a_call = any(reply.hangs for reply in of_models) or any(reply.hangs for reply in of_tools)
    around = _circumstances(found, in_a_call=in_a_call)
    playback = Playback(of_models, of_tools)
    outcome = await _run(
        found, around, playback, more=variables or {}, settings=settings or Settings(), timeline=timeline
    )
    return Replayed(found, outcome, tuple(differences(found, outcome)), playback.notes)


def replay_sync(record: Recorded | Mapping[str, Any], **options: Any) -> Replayed:
    """As `replay`, for a plain test function: in a Trio run of its own, in virtual time."""
    clock = VirtualClock()
    return trio.run(partial(replay, record, **options), clock=clock, instruments=[clock])


@dataclass(frozen=True, slots=True)
class _Circumstances:
    """What a trial met from outside.

    Attributes:
        seconds: The time that it had.
        cancelled_after: When its caller went away, in seconds after it arrived.
        fault: What befell its store.
        budget: The setting that ended it, and its seconds.
    """

    seconds: float
    cancelled_after: float = math.inf
    fault: Fault | None = None
    budget: Mapping[str, float] | None = None


def _circumstances(record: Mapping[str, Any], *, in_a_call: bool) -> _Circumstances:
    """Those of a record, in which the trial ended while a model or a tool was still asked, or not."""
    given = record.get("time_ms")
    seconds = math.inf if given is None else float(given) / 1e3
    failure, kind = failure_in(record), kind_in(record)
    if failure is None:
        return _Circumstances(seconds)
    stage, details = str(failure["stage"]).removeprefix("STAGE_"), failure.get("details", {})
    if kind in _OF_THE_WORKER or stage == "ADMISSION":
        raise CannotReplay(f"the trial ended as {kind} in {stage}: that was the worker's doing, not the program's")
    # A thread that was in a call is called abandoned where the answer did not wait for it to end.
    if details.get("rung") in _BUSY - ({"abandon"} if in_a_call else set()):
        raise CannotReplay(
            f"the program was computing, or waiting for what cannot be woken, when its trial ended "
            f"(rung {details['rung']}): virtual time does not pass there"
        )
    if kind == "VARIABLE_INVALID":
        raise CannotReplay("a variable was refused, and the record does not have its value")
    budget = details.get("budget", "")
    timings = failure.get("timings", {})
    began = any(event["stage"] == "STAGE_EXECUTE" for event in events_in(record, "stage"))
    if kind == "STORE_UNAVAILABLE" and began:
        raise CannotReplay("the store failed while the program ran, and the record has no calls of the program to it")
    store_fails = kind == "STORE_UNAVAILABLE"
    store_hangs = kind == "DEADLINE_EXCEEDED" and stage in {"SESSION", "SYNC"}
    return _Circumstances(
        seconds,
        cancelled_after=float(timings["total_ms"]) / 1e3 if kind == "CANCELLED" else math.inf,
        fault=Fault(status=rpc.StatusCode.UNAVAILABLE) if store_fails else Fault(hang=True) if store_hangs else None,
        budget={budget: float(timings[f"{stage.lower()}_ms"]) / 1e3} if budget else None,
    )


async def _run(
    record: Mapping[str, Any],
    around: _Circumstances,
    playback: Playback,
    *,
    more: Mapping[str, Any],
    settings: Settings,
    timeline: Timeline | None,
) -> TrialOutcome:
    program = program_from_json(record["program"])
    store = None if around.fault is None else FaultyStore(around.fault)
    # The runtime takes it off; the record is without it.
    margin = min(margin_rules(settings).margin(around.seconds), around.seconds)
    own_margin = {"reply_margin_ms": margin * 1e3, "reply_margin_share": 0.0}
    settings = settings.model_copy(update={**_OWN, **own_margin, **(around.budget or {})})
    kept = _Kept()
    with ExitStack() as stack:
        stack.enter_context(not_isolated())
        stack.enter_context(playing(playback))
        stack.enter_context(_stand_ins(program, record))
        async with (
            open_tested_runtime(settings, lm=_model(record), store=store, observers=[kept]) as runtime,
            open_background() as nursery,
        ):
            playback.live = True
            session = runtime.session(_SESSION)
            variables = variables_of({**_variables(record), **more})
            if store is None:
                await session.initialize()
                for one in variables:
                    about = {"constraints": one.constraints, "metadata": one.metadata}
                    await session.register(one.name, one.type, one.value, **about)
            with trio.CancelScope() as caller:
                nursery.start_soon(_leave, caller, around.cancelled_after)
                await runtime.run_trial(
                    program,
                    _plain(record["inputs"]),
                    session=session if record.get("session_id") or variables else "",
                    trial_id=record["trial_id"],
                    options=replace(options_from_json(record.get("options")), max_trace_bytes=0),
                    metadata=record.get("metadata", {}),
                    deadline=trio.current_time() + around.seconds + margin,
                    watch=None if timeline is None else watching(timeline),
                )
    assert kept.outcome is not None  # noqa: S101 - observers are told of every trial
    if timeline is not None:
        record_outcome(timeline, kept.outcome)
    return kept.outcome


_OWN: Final[Mapping[str, Any]] = {
    "lm": None,
    "isolation": "thread",
    "isolate": (),
    "store": "embedded",
    "persist": None,
    "variables_tool": None,
    "record": None,
    "otel": False,
}
"""Settings that a replay has of its own."""


async def _leave(caller: trio.CancelScope, seconds: float) -> None:
    """Cancel a caller so late. No deadline of a scope's: that would be the trial's deadline too."""
    await trio.sleep(seconds)
    caller.cancel()


class _Kept(Observer):
    """Keeps the outcome, also where nobody is answered."""

    def __init__(self) -> None:
        self.outcome: TrialOutcome | None = None

    def on_outcome(self, request: TrialRequest, outcome: TrialOutcome) -> None:  # noqa: ARG002 - there is one
        self.outcome = outcome


def _model(record: Mapping[str, Any]) -> dspy.BaseLM | None:
    """What programs ask that name no model. It is never asked; but what DSPy knows of it decides how it would be."""
    name = record.get("worker", {}).get("lm")
    if name is None:  # by a version that did not say
        name = next((reply.model for reply in lm_replies(record)), "")
    if not name:
        return None
    return dspy.LM(name) if "/" in name else ScriptedLM(model=name)


def _variables(record: Mapping[str, Any]) -> dict[str, Any]:
    """The session variables that parameters were bound to, and those that the program wrote."""
    failure = failure_in(record)
    bound = (record["outcome"]["success"] if failure is None else failure).get("variables", {})
    read = {each["variable"]: each["value"] for path, each in bound.items() if not path.startswith(_WRITTEN)}
    defaults = {each["variable"] for each in bound.values() if each["from_default"]}
    written = {each["variable"]: each["value"] for path, each in bound.items() if path.startswith(_WRITTEN)}
    return _plain({**written, **{name: value for name, value in read.items() if name not in defaults}})


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as they were, of their JSON form."""
    found: dict[str, Any] = decode_json(encode_json(dict(values)))
    return found


@contextmanager
def _stand_ins(program: Program, record: Mapping[str, Any]) -> Iterator[None]:
    """Tools that are not there, so that the program can be made; none of them is ever run."""

    def stand_in(**arguments: Any) -> Any:
        raise AssertionError(arguments)

    called = {str(each["tool"]) for each in events_in(record, "tool_started")}
    named = set(_named_tools(program.dependencies))
    with ExitStack() as stack:
        for name in sorted(named - TOOL_REGISTRY.keys()):
            stack.enter_context(registered_tool(name, stand_in))
        if wants_elixir_tools(program.dependencies):
            elixir = (called | set(_named_tools(program.dependencies, "elixir_tool"))) - named - ELIXIR_TOOLS.keys()
            for name in sorted(elixir):
                elixir_tool(name=name)(stand_in)
                stack.callback(ELIXIR_TOOLS.pop, name)
        yield


def _named_tools(value: Any, key: str = "tool") -> Iterator[str]:
    """The names in `{"tool": "name"}`, at any depth."""
    match value:
        case dict() as items if items.keys() == {key} and isinstance(items[key], str):
            yield items[key]
        case dict() as items:
            for item in items.values():
                yield from _named_tools(item, key)
        case list() as several:
            for item in several:
                yield from _named_tools(item, key)
