"""Trial records: a line of JSON for each trial, in a file for each day, written without holding anybody up."""

from __future__ import annotations

import datetime as dt
import io
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import trio

from dspex_trio.model import (
    LmCall,
    LmFinished,
    StageStarted,
    ToolFinished,
    ToolStarted,
    TrialEvent,
    TrialOutcome,
    TrialRequest,
    TrialSuccess,
    Watch,
)
from dspex_trio.model.errors import FailureKind
from dspex_trio.model.events import characters, characters_in
from dspex_trio.observing.records.record import ending_of, record_of
from dspex_trio.observing.redaction import Redactor
from dspex_trio.tasks.background import open_background
from dspex_trio.wire import decode_request, in_full
from dspex_trio.wire.generated.program_pb2 import ExecuteProgramRequest

logger: Final = logging.getLogger(__name__)

MAX_WAITING: Final = 1_000
"""The most records that wait to be written; beyond them, new ones are dropped and counted."""
MAX_WAITING_CHARS: Final = 64 * 1024 * 1024
"""And the most characters of inputs, prompts and replies in them; a single larger one is taken when none waits."""
GATHER_SECONDS: Final = 0.1
"""How long a record waits for others to be written with it: a thread and a file for each would cost more than it."""
MAX_EVENTS: Final = 10_000
"""The most stages, tool calls and failed LM calls that are kept of one trial."""
MAX_EVENT_CHARS: Final = 16 * 1024 * 1024
"""And the most characters of arguments and results in them."""
# How long the record of a trial may be on its way from the process that answered it, in seconds.
_EXPECTED_SECONDS: Final = 30.0
# How long the last records may take to be written when everything ends, in seconds.
_FAREWELL: Final = 5.0
_DAY: Final = 24 * 60 * 60
_STAGES: Final = (StageStarted,)
_KEPT: Final = (*_STAGES, ToolStarted, ToolFinished, LmFinished)


@dataclass(frozen=True, slots=True)
class RecordLine:
    """One record as it is written.

    Attributes:
        tag: Identifies the trial to the process that makes its record and to the one that writes it.
        ended_at: When the trial ended, in seconds since the epoch.
        text: A line of JSON.
    """

    tag: int
    ended_at: float
    text: bytes


class CannotRecord(OSError):
    """The directory cannot be written to; says which and why."""


@asynccontextmanager
async def open_records(
    directory: Path | None,
    *,
    redact: Redactor = Redactor(),  # noqa: B008 - it never changes
    late_since: Callable[[float], float] = lambda _time: 0.0,
    on_dropped: Callable[[int], None] = lambda _count: None,
    lm: str = "",
    write: Callable[[Sequence[RecordLine]], None] | None = None,
    in_executors: bool = False,
) -> AsyncIterator[Records]:
    """Write records to `directory` until the block ends; the last ones are written then, in five seconds at most.

    Args:
        directory: Made if it is not there. Files are called `trials-2026-01-31.jsonl`, by the day in UTC. None where
            `write` takes the records.
        redact: Takes secrets out of text.
        late_since: How late the loop has been since a time of Trio's clock, in seconds.
        on_dropped: Called with how many records were lost since the last call.
        lm: The language model of programs that name none.
        write: Takes lines in place of the directory, in a thread; may raise OSError.
        in_executors: Whether the process that answers a trial makes its record too: see `Records.add_line`.

    Raises:
        CannotRecord: Nothing can be written there.
    """
    if directory is not None:
        try:
            await trio.to_thread.run_sync(_prepare, directory)
        except OSError as error:
            raise CannotRecord(f"records cannot be written to {directory}: {error}") from None
        write = partial(_write_to, directory)
    assert write is not None, "records go to a directory or to a function"  # noqa: S101 - our own bug
    records = Records(write, redact, late_since, on_dropped, lm, in_executors=in_executors)
    async with open_background() as nursery:
        nursery.start_soon(records._write_all)  # noqa: SLF001 - the other half of this class
        try:
            yield records
        finally:
            with trio.move_on_after(_FAREWELL, shield=True):
                await records._finish()  # noqa: SLF001 - as above
            records._stop()  # noqa: SLF001 - as above


def _prepare(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    with _opened(_file(directory, time.time())):
        pass


def _opened(file: Path) -> io.FileIO:
    """The file, to be added to; for its owner alone, since it holds prompts and replies."""
    return io.FileIO(file, "ab+", opener=lambda path, flags: os.open(path, flags, 0o600))


def _file(directory: Path, seconds: float) -> Path:
    return directory / f"trials-{dt.datetime.fromtimestamp(seconds, dt.UTC):%Y-%m-%d}.jsonl"


def _write_to(directory: Path, lines: Sequence[RecordLine]) -> None:
    by_day: dict[float, list[bytes]] = {}
    for line in lines:
        by_day.setdefault(line.ended_at // _DAY, []).append(line.text + b"\n")
    for day, texts in by_day.items():
        _append(_file(directory, day * _DAY), b"".join(texts))


def _append(file: Path, text: bytes) -> None:
    with _opened(file) as target:
        if target.seek(0, os.SEEK_END):
            target.seek(-1, os.SEEK_END)
            if target.read(1) != b"\n":  # a worker was killed while it wrote, or the disk was full: a line of its own
                text = b"\n" + text
        # As a rule one write, so that lines of several workers which share the directory do not mix.
        while text:
            text = text[target.write(text) :]


class Records:
    """Writes trial records in the background; made by `open_records`.

    Attributes:
        dropped: How many records were lost: because they came faster than they could be written, or because the disk
            did not take them.
    """

    def __init__(
        self,
        write: Callable[[Sequence[RecordLine]], None],
        redact: Redactor,
        late_since: Callable[[float], float],
        on_dropped: Callable[[int], None],
        lm: str,
        *,
        in_executors: bool,
    ) -> None:
        self.dropped = 0
        self._on_dropped = on_dropped
        self._reported = 0
        self._write_lines = write
        self._redact = redact
        self._late_since = late_since
        self._lm = lm
        self._in_executors = in_executors
        self._expected: dict[int, tuple[float, TrialRequest, TrialOutcome]] = {}
        self._early: dict[int, RecordLine] = {}
        self._put, self._take = trio.open_memory_channel[_Line](MAX_WAITING)
        self._chars = self._under_way = 0
        self._writing = trio.CancelScope(shield=True)  # what is there when all is cancelled is written all the same
        self._written = trio.Event()
        self._gathering = trio.lowlevel.ParkingLot()
        self._limiter = trio.CapacityLimiter(1)

    def begins(self, request: TrialRequest) -> TrialRequest:
        """The request, watched for what its record needs."""
        if self._in_executors:
            return request
        streams = request.watch is not None and request.stream_output
        return replace(request, watch=_Watcher(request), stream_output=streams)

    def trial_ended(self, request: TrialRequest, outcome: TrialOutcome, *, tag: int = 0) -> None:
        """Record a trial whose request went through `begins`; never blocks. The line gets the tag."""
        ended_at = time.time()
        if self._in_executors and (outcome.reply or _unanswered(outcome)):
            self._expect(ended_at, request, outcome)
            return
        self._record(ended_at, request, outcome, tag)

    def add_line(self, line: RecordLine) -> None:
        """Another process has made the record of a trial: it is written if that process gave the trial's answer."""
        if self._expected.pop(line.tag, None) is not None:
            self._enqueue(_Line(line.ended_at, len(line.text), lambda: line.text))
            return
        self._early[line.tag] = line
        if len(self._early) > MAX_WAITING:
            del self._early[next(iter(self._early))]

    def _expect(self, ended_at: float, request: TrialRequest, outcome: TrialOutcome) -> None:
        self._expected[request.key] = (ended_at, request, outcome)
        if (line := self._early.pop(request.key, None)) is not None:
            self.add_line(line)
        # One whose process was lost meanwhile is recorded with what is known here.
        while self._expected and next(iter(self._expected.values()))[0] < ended_at - _EXPECTED_SECONDS:
            self._make_do()

    def _make_do(self) -> None:
        ended_at, request, outcome = self._expected.pop(next(iter(self._expected)))
        self._record(ended_at, request, outcome, 0)

    def _record(self, ended_at: float, request: TrialRequest, outcome: TrialOutcome, tag: int) -> None:
        late = self._late_since(request.arrived)
        events, chars = [], 0
        if isinstance(request.watch, _Watcher):
            events, chars = list(request.watch.events), request.watch.chars

        def text() -> bytes:
            whole = in_full(outcome, request.options, MAX_WAITING_CHARS)
            return record_of(
                _whole(request), whole, events, ended_at=ended_at, loop_late=late, lm=self._lm, redact=self._redact
            )

        self._enqueue(_Line(ended_at, chars + _characters(request, outcome), text, tag))

    def thread_ended(self, trial_id: str, details: Mapping[str, str]) -> None:
        """Record that a thread has ended after its trial had been answered; never blocks."""
        ended_at = time.time()
        self._enqueue(_Line(ended_at, 0, lambda: ending_of(trial_id, details, ended_at=ended_at)))

    def _enqueue(self, line: _Line) -> None:
        if self._chars and self._chars + line.chars > MAX_WAITING_CHARS:
            self.dropped += 1
            return
        try:
            self._put.send_nowait(line)
        except (trio.WouldBlock, trio.ClosedResourceError, trio.BrokenResourceError):
            self.dropped += 1
        else:
            self._chars += line.chars
            if self._enough():
                self._gathering.unpark_all()

    def _enough(self) -> bool:
        """Whether what is there is to be written now: the bounds are near, or no more will come."""
        waiting = self._take.statistics()
        return (
            waiting.open_send_channels == 0
            or waiting.current_buffer_used > MAX_WAITING // 2
            or self._chars > MAX_WAITING_CHARS // 2
        )

    async def _write_all(self) -> None:
        with self._writing:
            async for line in self._take:
                self._under_way = 1
                if not self._enough():
                    with trio.move_on_after(GATHER_SECONDS):
                        await self._gathering.park()
                lines = [line]
                while len(lines) < MAX_WAITING:
                    try:
                        lines.append(self._take.receive_nowait())
                    except (trio.WouldBlock, trio.EndOfChannel):
                        break
                self._under_way = len(lines)
                # Left to itself when the farewell is over: a disk that hangs may do so for ever.
                await trio.to_thread.run_sync(self._write, lines, limiter=self._limiter, abandon_on_cancel=True)
                self._under_way = 0
                self._chars -= sum(each.chars for each in lines)
                self._tell_of_losses()
        self._written.set()

    async def _finish(self) -> None:
        while self._expected:
            self._make_do()
        self._put.close()
        self._gathering.unpark_all()
        await self._written.wait()

    def _stop(self) -> None:
        self._writing.cancel()
        self.dropped += self._under_way + self._take.statistics().current_buffer_used
        self._tell_of_losses()

    def _write(self, lines: Sequence[_Line]) -> None:
        """In a thread: JSON of long prompts takes a while, and so may a disk."""
        made: list[RecordLine] = []
        for line in lines:
            try:
                made.append(RecordLine(line.tag, line.ended_at, line.text()))
            except Exception:
                self.dropped += 1
                logger.exception("a trial cannot be recorded")
        try:
            self._write_lines(made)
        except OSError as error:
            self.dropped += len(made)
            logger.error("records cannot be written: %s", error)  # noqa: TRY400 - no bug of ours

    def _tell_of_losses(self) -> None:
        if self.dropped > self._reported:
            logger.warning("%d trial records were dropped, %d in all", self.dropped - self._reported, self.dropped)
            self._on_dropped(self.dropped - self._reported)
            self._reported = self.dropped


@dataclass(frozen=True, slots=True)
class _Line:
    """What is to be written: when it ended, about how much memory it holds, and its text, which takes a while."""

    ended_at: float
    chars: int
    text: Callable[[], bytes]
    tag: int = 0


def _unanswered(outcome: TrialOutcome) -> bool:
    """Whether there was no reply, so that only the executor knows the outcome."""
    return not isinstance(outcome, TrialSuccess) and outcome.kind is FailureKind.CANCELLED


def _whole(request: TrialRequest) -> TrialRequest:
    """The request with its program and its inputs, where they came encoded and were passed on like that."""
    if not request.encoded:
        return request
    decoded = decode_request(ExecuteProgramRequest.FromString(request.encoded))
    return replace(request, program=decoded.program, inputs=decoded.inputs)


def _characters(request: TrialRequest, outcome: TrialOutcome) -> int:
    if isinstance(outcome, TrialSuccess):
        trace, result = outcome.trace, characters_in(outcome.prediction)
    else:
        trace, result = outcome.partial_trace, len(outcome.error_message)
    calls = (call for entry in trace for call in entry.lm_calls)
    return characters_in(request.inputs) + result + sum(len(c.messages_json) + len(c.response_json) for c in calls)


class _Watcher:
    """Keeps the events of one trial that its record needs, and passes all of them on to the next watch."""

    def __init__(self, request: TrialRequest) -> None:
        self.events: list[tuple[float, TrialEvent]] = []
        self.chars = 0
        self._kept = _STAGES if request.options.omit_trace else _KEPT
        self._next: Watch | None = request.watch
        self._arrived = request.arrived
        self._clock = trio.lowlevel.current_clock()

    def __call__(self, event: TrialEvent) -> None:
        if isinstance(event, self._kept) and len(self.events) < MAX_EVENTS:
            self._keep(event)
        if self._next is not None:
            self._next(event)

    def _keep(self, event: TrialEvent) -> None:
        if isinstance(event, LmFinished):
            if not event.error_type:
                return
            # What was asked stands in the trace.
            event = replace(event, lm_call=LmCall(event.lm_call.model, started_ms=event.lm_call.started_ms))
        chars = self.chars + characters(event)
        if chars <= MAX_EVENT_CHARS:
            self.chars = chars
            self.events.append(((self._clock.current_time() - self._arrived) * 1e3, event))
