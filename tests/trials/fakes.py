"""Stand-ins for the rooms around the road: they do what the Protocols say, on the loop, under virtual time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import trio

from dspex_trio.model import BoundVariable, Prediction, Program, Recording, TraceEntry, TrialRequest
from dspex_trio.trials import Admission, InThreads, Trials


class FakeSlot:
    def __init__(self, slots):
        self._slots = slots

    def release(self):
        self._slots.semaphore.release()


class FakeSlots:
    """trio.Semaphore is first come, first served, as slots are."""

    def __init__(self, capacity=1):
        self.capacity = capacity
        self.semaphore = trio.Semaphore(capacity, max_value=capacity)

    def acquire_nowait(self):
        self.semaphore.acquire_nowait()
        return FakeSlot(self)

    async def acquire(self):
        await self.semaphore.acquire()
        return FakeSlot(self)


class FakeJob:
    def __init__(self):
        self.stopped_by = {}

    def check(self):
        pass

    def time_left(self):
        return math.inf

    def on_cancel(self, callback):
        return lambda: None

    def details(self):
        return self.stopped_by


class FakeExecutor:
    """Runs "blocking" work on the loop: a function that returns an awaitable is awaited."""

    def job(self, name, request=None):
        return FakeJob()

    def watching(self, tell):
        return nullcontext()

    async def run(self, function, /, *args, job, slot):
        try:
            result = function(*args)
            return await result if hasattr(result, "__await__") else result
        except trio.Cancelled:
            job.stopped_by = {"rung": "wake", "rung_ms": "0.3", "stuck": "false"}
            raise


@dataclass
class FakeProgram:
    run: Callable[[Mapping[str, Any]], Any]
    variables: Any = field(default_factory=dict)
    trace: tuple[TraceEntry, ...] = ()
    truncated: bool = False

    async def sync_variables(self):
        found = self.variables() if callable(self.variables) else self.variables
        return await found if hasattr(found, "__await__") else found

    def call(self, inputs, interrupt):
        return self.run(inputs)

    def recording(self):
        return Recording(trace=self.trace, truncated=self.truncated)


class FakeLoader:
    """Hydrates what the test gives it: a program, an exception, or something to await first."""

    def __init__(self, program):
        self.program = program

    async def hydrate(self, request, source, run_in_thread):
        program = self.program
        if callable(program):
            program = await run_in_thread(program)
        if isinstance(program, BaseException):
            raise program
        return program


def answers(**fields):
    return FakeProgram(lambda _inputs: Prediction(fields))


def raises(error):
    def run(_inputs):
        raise error

    return FakeProgram(run)


def sleeps(seconds, **fields):
    async def run(_inputs):
        await trio.sleep(seconds)
        return Prediction(fields)

    return FakeProgram(run)


class Told:
    """An observer that keeps what it is told."""

    def __init__(self):
        self.outcomes = []
        self.late_ends = []

    def begins(self, request):
        return request

    def on_outcome(self, request, outcome):
        self.outcomes.append(outcome)

    def on_late_end(self, request, details):
        self.late_ends.append((request, details))


class FakeSession:
    def __init__(self, why_away=None):
        self.why_away = why_away

    def away(self, since):
        return self.why_away if since <= trio.current_time() - 1 else None


def trials(program, *, capacity=1, max_queue=8, max_wait=math.inf, why_away=None, budgets=None, runner=None, **more):
    session, executor = FakeSession(why_away), FakeExecutor()
    return Trials(
        runner=runner
        or InThreads(
            loader=FakeLoader(program), sources=lambda _session_id: session, executor=executor, budgets=budgets
        ),
        job=executor.job,
        admission=Admission(FakeSlots(capacity), max_queue, max_wait=max_wait),
        away=lambda _session_id, since: session.away(since),
        **more,
    )


def request(*, seconds=math.inf, trial_id="t1", config_space=(), **inputs):
    now = trio.current_time()
    return TrialRequest(
        program=Program(python_class="Fake", config_space=config_space),
        inputs=inputs,
        trial_id=trial_id,
        arrived=now,
        deadline=now + seconds,
    )


def bound(parameter, value):
    return BoundVariable(parameter=parameter, variable=parameter, value=value, version=1)


__all__ = ["FakeProgram", "FakeSlots", "Told", "answers", "bound", "raises", "request", "sleeps", "trials"]
