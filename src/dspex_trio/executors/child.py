"""The executor's side: trials and tools in a process of their own, with the same stages and the same ladder as in one.

`prepare` runs once in a warm parent; `open_executor` in each child. What happens in a trial is reported to the front at
once, so that the front can answer without the executor.
"""

from __future__ import annotations

import base64
import importlib
import json
import logging
import math
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import cache, partial
from typing import Any, Final

import trio
from google.protobuf.message import DecodeError

from dspex_trio import rpc, threads
from dspex_trio.children import CAN_FORK
from dspex_trio.children.child import Answer, Parent, Request, has_children
from dspex_trio.executors.messages import (
    TAKE,
    Catalogue,
    Kind,
    LogLine,
    Opening,
    Terms,
    decode_asked,
    decode_reply,
    decode_tool_call,
    encode_call,
    encode_ending,
    encode_progress,
    encode_records,
    encode_told,
    encode_tool_result,
    encode_unreadable,
)
from dspex_trio.executors.store import ThroughFront
from dspex_trio.model import (
    BoundVariable,
    Cost,
    HydratedProgram,
    Interrupt,
    Prediction,
    ProgramLoader,
    Recording,
    RunInThread,
    StageStarted,
    ToolSpec,
    TrialEvent,
    TrialFailure,
    TrialOptions,
    TrialOutcome,
    TrialRequest,
    TrialSession,
)
from dspex_trio.model.errors import SerializationFailed, Stage, ToolError, TrialCancelled, TrialError
from dspex_trio.model.values import plain, type_name
from dspex_trio.observing.libraries import log_what_is_printed
from dspex_trio.observing.records.records import RecordLine, Records, open_records
from dspex_trio.observing.telemetry import NEVER_INTERRUPTED, continuing, export_as_child, no_context
from dspex_trio.programs import catalogue, open_programs
from dspex_trio.programs.yielding_tools import STREAMED
from dspex_trio.runtime.assembly import Executor, open_programs_and_threads, program_settings
from dspex_trio.runtime.settings import Settings
from dspex_trio.sessions import Sessions
from dspex_trio.store.elixir_tools import ELIXIR_TOOLS, StandIns
from dspex_trio.tasks.background import open_background
from dspex_trio.threads.patches.subprocesses import stay_in_group
from dspex_trio.trials import Admission, Described, InThreads, LatenessWatch, Trials, failure_of
from dspex_trio.trials.admission import Slot
from dspex_trio.trials.contained import contained, raising_as
from dspex_trio.trials.observer import Observer
from dspex_trio.trials.work import Work
from dspex_trio.wire import decode_request, encode_any, encode_tool_spec
from dspex_trio.wire.anys import encoding
from dspex_trio.wire.generated import any_pb2
from dspex_trio.wire.generated.bridge_grpc import BridgeServiceStub
from dspex_trio.wire.generated.program_pb2 import ExecuteProgramRequest

logger: Final = logging.getLogger(__name__)

# So many lines of an executor's log a second go to the front's, and so many characters of each.
_MAX_LINES: Final = 1_000
_MAX_CHARS: Final = 16_384
# In a warm parent: what `prepare` keeps open for the children that are forked from it.
_kept_open: Final = AsyncExitStack()
_current: Final[ContextVar[_Trial]] = ContextVar("dspex_trio.executors.trial")
"""What this task, or a thread that it started, works for."""


def prepare(data: bytes) -> None:
    """In a warm parent: prepare DSPy and import what children need, in the order in which one process does it.

    Raises:
        CannotLoad, UnsupportedDspy: As `open_runtime` says.
    """
    opening = Opening.from_bytes(data)
    sys.path[:] = opening.path
    settings = _settings_of(opening)
    _kept_open.enter_context(threads.hooks())
    _kept_open.enter_context(open_programs(program_settings(settings)))
    _import_others(opening.homes, settings.load)


def _settings_of(opening: Opening) -> Settings:
    shares = {"max_trials": opening.slots, "max_queue": opening.slots}
    return _parsed(json.dumps({**opening.settings, **dict.fromkeys(shares, 1)})).model_copy(update=shares)


@cache  # filled in a warm parent: parsing takes as long as all the rest of opening a child
def _parsed(settings: str) -> Settings:
    return Settings(**json.loads(settings))


@asynccontextmanager
async def open_executor(data: bytes, parent: Parent) -> AsyncIterator[tuple[Answer, bytes]]:
    """What answers the front's requests, and the catalogue of what there is; made for `children`.

    Raises:
        CannotLoad, UnsupportedDspy: As `open_runtime` says.
    """
    opening = Opening.from_bytes(data)
    sys.path[:] = opening.path
    logging.basicConfig(handlers=[_ToFront(parent)], format="%(message)s", level=opening.log_level, force=True)
    log_what_is_printed()
    settings = _settings_of(opening)
    _import_others(opening.homes, settings.load)
    redact = settings.redactor()
    store = BridgeServiceStub(ThroughFront(partial(_ask_front, settings.max_message_bytes)))
    sessions = Sessions(store, where=settings.store, variables_tool=settings.variables_tool)
    async with AsyncExitStack() as stack:
        stack.enter_context(threads.never_interrupt(*NEVER_INTERRUPTED if settings.otel else ()))
        await stack.enter_async_context(export_as_child(settings))
        loader, workers = await stack.enter_async_context(
            open_programs_and_threads(settings, redact, _patience, on_late_end=_job_ended_late)
        )
        background = await stack.enter_async_context(open_background())
        lateness = LatenessWatch(workers.loop_was_late)
        background.start_soon(lateness.run)
        records = None
        if opening.records:
            records = await stack.enter_async_context(
                open_records(
                    None,
                    redact=redact,
                    late_since=lateness.worst_since,
                    lm=settings.lm or "",
                    write=partial(_note_records, parent, settings.max_message_bytes),
                )
            )
        stack.enter_context(threads.allowing_interrupts_in(_Program.call))
        executor = Executor(workers, _Job, on_abandoned=_abandoned)
        trials = Trials(
            runner=InThreads(
                loader=_Loader(loader),
                sources=sessions.context,
                executor=executor,
                redact=redact,
                budgets=settings.stage_budgets(),
            ),
            job=executor.job,
            admission=Admission(threads.Slots(opening.slots), opening.slots),
            away=lambda session_id, since: sessions.context(session_id).away(since),
            redact=redact,
            observer=_Observer(records),
            lateness=lateness,
        )
        threads.keep_collections_short()
        threads.put_back_what_programs_change()
        if not CAN_FORK:  # else the warm parent kills what is left of an executor, in whatever group
            stay_in_group()
        answering = _Answering(trials, executor, StandIns(workers), settings, redact)
        yield answering.answer, _catalogue().to_bytes()


async def _ask_front(max_bytes: int, data: bytes) -> bytes:
    """Make a call of the front, on behalf of the trial that runs in the calling task."""
    if len(data) > max_bytes:
        text = f"the request has {len(data)} bytes, more than {max_bytes} (--max-message-bytes)"
        raise rpc.RpcError(rpc.StatusCode.RESOURCE_EXHAUSTED, text)
    return await _current.get().asked.call(data)


class _Answering:
    """Answers requests, several at once."""

    def __init__(
        self,
        trials: Trials,
        executor: Executor,
        stand_ins: StandIns,
        settings: Settings,
        redact: Callable[[str], str],
    ) -> None:
        self._trials = trials
        self._executor = executor
        self._stand_ins = stand_ins
        self._max_bytes = settings.max_message_bytes
        self._redact = redact
        self._continued: Callable[[Mapping[str, str]], AbstractContextManager[None]]
        self._continued = continuing if settings.otel else no_context

    async def answer(self, asked: Request) -> bytes:
        """Answer one."""
        kind, terms, data = decode_asked(asked.data)
        asked.data = b""
        trial = _Trial(asked, terms, self._max_bytes)
        _current.set(trial)
        try:
            match kind:
                case Kind.TRIAL:
                    return await self._program(trial, data)
                case Kind.TOOL:
                    return await self._tool(trial, data)
                case Kind.STAND_IN:
                    return await self._stand_in(trial, data)
        except TrialError as error:
            stage = Stage.HYDRATE if kind is Kind.TRIAL else Stage.EXECUTE
            failure = failure_of(error, stage, redact=self._redact, trial_id=trial.trial_id)
            return encode_ending(failure, TrialOptions(), self._max_bytes, trio.current_time)

    async def _program(self, trial: _Trial, data: bytes) -> bytes:
        now, terms = trio.current_time(), trial.terms
        try:
            message = ExecuteProgramRequest.FromString(data)
        except DecodeError:
            return encode_unreadable()
        trial.trial_id = message.trial_id
        request = replace(
            decode_request(message),
            arrived=now - terms.waited,
            deadline=now + terms.seconds,
            watch=trial.tell if terms.watched else None,
            stream_output=terms.streamed,
        )
        trial.enter(Stage.SESSION)
        with trial.asked.scope, self._continued(request.metadata):
            await self._trials.run(request)
        return encode_ending(trial.outcome(), request.options, self._max_bytes, trio.current_time)

    async def _tool(self, trial: _Trial, data: bytes) -> bytes:
        name, arguments = decode_tool_call(data)
        deadline = trio.current_time() + trial.terms.seconds

        async def call(work: Work, slot: Slot) -> Any:
            take = encoding(partial(_give, trial)) if trial.terms.watched else None
            function = catalogue.tool_function(name, threads.run_in_loop, take)
            if function is None:
                raise ToolError(f"there is no tool {name!r}")
            todo = (work.job, self._redact, raising_as, ToolError, partial(function, **arguments))
            return await self._executor.run(contained, *todo, job=work.job, slot=slot)

        try:
            with trial.asked.scope:
                returned = await self._trials.in_slot(name, deadline, call)
                if returned is STREAMED:
                    return encode_tool_result(any_pb2.Any(type_url=TAKE))
                return self._result(returned)
        except Described as error:
            failure = failure_of(error, Stage.EXECUTE, redact=self._redact)
            return encode_ending(failure, TrialOptions(), self._max_bytes, trio.current_time)
        raise TrialCancelled("the caller went away")

    def _result(self, value: Any) -> bytes:
        result = encode_any(plain(value))
        if (size := len(result.value)) > self._max_bytes:
            limit = f"{self._max_bytes} (--max-message-bytes)"
            raise SerializationFailed(f"the result has {size} bytes, and the limit is {limit}")
        return encode_tool_result(result)

    async def _stand_in(self, trial: _Trial, data: bytes) -> bytes:
        name, arguments = decode_tool_call(data)
        with trial.asked.scope:
            try:
                return self._result(await self._stand_ins.call(name, arguments))
            except Exception as error:  # noqa: BLE001 - what a tool raises is its answer
                failure = failure_of(
                    ToolError(f"{type_name(type(error))}: {error}"), Stage.EXECUTE, redact=self._redact
                )
                return encode_ending(failure, TrialOptions(), self._max_bytes, trio.current_time)
        raise TrialCancelled("the caller went away")


async def _give(trial: _Trial, value: any_pb2.Any) -> None:
    """Give a value that a tool has yielded to its caller; returns once the next one can be taken."""
    decode_reply(await trial.asked.call(encode_call(TAKE, value.SerializeToString())))


def _note_records(parent: Parent, max_bytes: int, lines: Iterable[RecordLine]) -> None:
    """Have the front write records, each in a frame of its own."""
    for line in lines:
        if len(line.text) <= max_bytes:
            parent.note(encode_records([line]))
        else:
            logger.warning("a trial is not recorded: its record has %d bytes", len(line.text))


def _import_others(homes: Mapping[str, list[str]], loaded: tuple[str, ...]) -> None:
    """Import where programs and tools are registered, beside the modules that the operator named."""
    for module, names in homes.items():
        if module in loaded or module in sys.modules:
            continue
        try:
            importlib.import_module(module)
        except Exception as error:  # noqa: BLE001 - a trial that needs it fails with the reason
            logger.info("%s: %s cannot be imported into a child process: %s", ", ".join(names), module, error)


def _catalogue() -> Catalogue:
    """What is registered here."""
    return Catalogue(
        programs=catalogue.programs(),
        tools=_encoded(catalogue.tool_specs()),
        stand_ins=_encoded(tool.spec for tool in ELIXIR_TOOLS.values()),
        isolated=catalogue.isolated(),
    )


def _encoded(specs: Iterable[ToolSpec]) -> list[str]:
    return [base64.b64encode(encode_tool_spec(spec).SerializeToString()).decode() for spec in specs]


class _ToFront(logging.Handler):
    """Logs through the front."""

    def __init__(self, parent: Parent) -> None:
        super().__init__()
        self._parent = parent
        self._began = -math.inf
        self._lines = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Send one entry, cut if it is long; none where there were too many within a second, which are counted."""
        try:
            now = time.monotonic()
            if now >= self._began + 1:
                dropped, self._began, self._lines = self._lines - _MAX_LINES, now, 0
                if dropped > 0:
                    text = f"{dropped} lines were dropped: an executor may log {_MAX_LINES} a second"
                    self._parent.log(LogLine(logging.WARNING, __name__, text).to_bytes())
            self._lines += 1
            if self._lines <= _MAX_LINES:
                text = self.format(record)
                text = text if len(text) <= _MAX_CHARS else f"{text[:_MAX_CHARS]}… ({len(text)} characters)"
                self._parent.log(LogLine(record.levelno, record.name, text).to_bytes())
        except Exception:  # noqa: BLE001 - as logging itself does
            self.handleError(record)


class _Trial:
    """One request while it is answered: what is reported to the front, and how it ended.

    Attributes:
        asked: The request.
        terms: Its terms.
        trial_id: The caller's name for the trial.
    """

    def __init__(self, asked: Request, terms: Terms, max_bytes: int) -> None:
        self.asked = asked
        self.terms = terms
        self._max_bytes = max_bytes
        self.trial_id = ""
        self._lock = threading.Lock()
        self._outcome: TrialOutcome | None = None
        self._program: HydratedProgram | None = None
        self._reported = 0
        self._cost = Cost()
        self._written: Mapping[str, BoundVariable] = {}

    def enter(self, stage: Stage, variables: Mapping[str, BoundVariable] | None = None) -> None:
        """It enters a stage, with variables that are known since."""
        self._report(encode_progress(stage, self._max_bytes, variables=variables))

    def tell(self, event: TrialEvent) -> None:
        """Report an event to its watch, except stages, which the front derives from progress."""
        if not isinstance(event, StageStarted):
            self._report(encode_told(event))

    def _report(self, data: bytes) -> None:
        if len(data) <= self._max_bytes + _MAX_CHARS:  # else the front, which keeps no more, would end the connection
            self.asked.report(data)

    def running(self, program: HydratedProgram | None) -> None:
        """Its program runs now, or no more."""
        with self._lock:
            self._program = program

    def checked(self) -> None:
        """A step of the program, in any of its threads: report what was recorded since the last one."""
        with self._lock:
            if self._program is None:
                return
            seen = self._program.recording()
            ended = [entry for entry in seen.trace if entry.inputs or entry.outputs]  # not what may still go on
            if len(ended) == self._reported and seen.cost == self._cost and seen.written == self._written:
                return
            news = replace(seen, trace=tuple(ended[self._reported :]))
            self._reported, self._cost, self._written = len(ended), seen.cost, seen.written
            self._report(encode_progress(Stage.EXECUTE, self._max_bytes, news))

    def ended(self, outcome: TrialOutcome) -> None:
        """The trial has ended, perhaps cancelled."""
        self.running(None)
        if self.terms.alone and isinstance(outcome, TrialFailure) and "rung" in outcome.details and has_children():
            # The program was stopped, but a process of its own goes on: only a kill ends all of it.
            outcome = replace(outcome, details={**outcome.details, "stuck": "true"})
        self._outcome = outcome

    def outcome(self) -> TrialOutcome:
        """How it ended."""
        assert self._outcome is not None, "the trial is under way"  # noqa: S101 - our own bug, never the user's
        return self._outcome


class _Observer(Observer):
    """Keeps outcomes, and makes records of them."""

    def __init__(self, records: Records | None) -> None:
        self._records = records

    def begins(self, request: TrialRequest) -> TrialRequest:
        """A trial arrives."""
        return request if self._records is None else self._records.begins(request)

    def on_outcome(self, request: TrialRequest, outcome: TrialOutcome) -> None:
        """A trial has ended."""
        trial = _current.get()
        trial.ended(outcome)
        if self._records is not None:
            self._records.trial_ended(request, trial.outcome(), tag=trial.terms.tag)


class _Job(threads.Job):
    """A job that reports progress whenever its code checks it, which programs do at every step."""

    __slots__ = ("trial",)

    def __init__(self, name: str, _request: TrialRequest | None) -> None:
        super().__init__(name)
        self.trial = _current.get()

    def check(self) -> None:
        """Report progress, then raise JobCancelled if the job is cancelled."""
        self.trial.checked()
        super().check()


def _patience(job: threads.Job) -> float:
    """How long an answer may wait for the job's threads, as set by the front, in seconds."""
    return job.trial.terms.patience if isinstance(job, _Job) else 0.0


def _abandoned(job: Any) -> None:
    """The threads of a job are not waited for any longer: its slot is taken until they end."""
    job.trial.asked.hold()


def _job_ended_late(job: threads.Job) -> None:
    """The threads of a job that was abandoned have ended."""
    if isinstance(job, _Job):
        details = {**job.details(), "abandoned_ms": f"{job.ignoring_for() * 1e3:.1f}"}
        job.trial.asked.freed(json.dumps(details).encode())


class _Loader:
    """A ProgramLoader whose programs report their stages."""

    def __init__(self, loader: ProgramLoader) -> None:
        self._loader = loader

    async def hydrate(
        self, request: TrialRequest, session: TrialSession, run_in_thread: RunInThread
    ) -> HydratedProgram:
        """Report HYDRATE, then hydrate."""
        trial = _current.get()
        trial.enter(Stage.HYDRATE)
        return _Program(trial, await self._loader.hydrate(request, session, run_in_thread))


class _Program:
    """A HydratedProgram that reports its stages."""

    def __init__(self, trial: _Trial, program: HydratedProgram) -> None:
        self._trial = trial
        self._program = program

    async def sync_variables(self) -> Mapping[str, BoundVariable]:
        """Report SYNC, fetch the variables, and report EXECUTE with them."""
        self._trial.enter(Stage.SYNC)
        variables = await self._program.sync_variables()
        self._trial.enter(Stage.EXECUTE, variables)
        return variables

    def call(self, inputs: Mapping[str, Any], interrupt: Interrupt) -> Prediction:
        """Run the program, then report SERIALIZE."""
        self._trial.running(self._program)
        prediction = self._program.call(inputs, interrupt)
        self._trial.enter(Stage.SERIALIZE)
        return prediction

    def recording(self) -> Recording:
        """The program's recording."""
        return self._program.recording()
