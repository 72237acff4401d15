"""Tests under many schedules of their tasks and threads, each of which a number brings back."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack, contextmanager
from dataclasses import dataclass
from functools import partial, wraps
from importlib import import_module
from itertools import zip_longest
from typing import Any, Final, Protocol, TypeVar

import trio

from dspex_trio.tasks.background import open_background
from dspex_trio.testing.time.clock import VirtualClock
from dspex_trio.testing.time.timeline import Timeline

T = TypeVar("T")

# How many entries of a log are shown.
_SHOWN: Final = 40


class NotReplayable(AssertionError):
    """The same seed gave two schedules; the text shows where they part."""


class Endless(AssertionError):
    """A schedule came to a point from which nothing can happen any more, or did not come to an end."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """What became of one.

    Attributes:
        seed: Brings it back.
        log: Steps of tasks, turns of threads and jumps of time, in their order.
        error: What the test raised.
        result: What it returned.
    """

    seed: int
    log: tuple[str, ...]
    error: BaseException | None = None
    result: Any = None


class _Pytest(Protocol):
    """What is needed of `pytest.FixtureRequest`."""

    config: Any
    node: Any


def run_schedule(test: Callable[..., Awaitable[Any]], seed: int, **arguments: Any) -> Schedule:
    """Run `await test(**arguments)` in virtual time, its tasks and threads taking turns by the seed.

    Of its parameters, those that have the name of one of the kit's fixtures are made for the run where they are not
    given.

    Raises:
        RuntimeError: This version of Trio cannot be told the order of its tasks; or it runs already.
    """
    __tracebackhide__ = True
    clock = VirtualClock(seed)
    main = partial(_guarded, partial(_with_fixtures, test, clock, arguments), clock, _name(test))
    try:
        result = trio.run(main, clock=clock, instruments=[clock])
    except Exception as error:  # noqa: BLE001 - it is a value here
        return Schedule(seed, clock.log, error=error)
    return Schedule(seed, clock.log, result=result)


MADE: Final = frozenset({"virtual_clock", "timeline", "scripted_lm", "session_store", "trial_system"})
"""The parameters of a test that are made for each schedule."""

# Which of them know of trials, and so are not imported before one is used.
_OF_TRIALS: Final = "dspex_trio.testing.building"


async def _with_fixtures(test: Callable[..., Awaitable[T]], clock: VirtualClock, arguments: Mapping[str, Any]) -> T:
    """Run a test with what its parameters ask for, each of which may ask for others."""
    parts = {"virtual_clock": clock, **arguments}
    async with AsyncExitStack() as stack:

        async def add(name: str) -> None:
            make = Timeline if name == "timeline" else getattr(import_module(_OF_TRIALS), name)
            part = make(**await arguments_of(make))
            if isinstance(part, AbstractAsyncContextManager):
                part = await stack.enter_async_context(part)
            elif isinstance(part, AbstractContextManager):
                part = stack.enter_context(part)
            parts[name] = part

        async def arguments_of(function: Callable[..., Any]) -> dict[str, Any]:
            names = inspect.signature(function).parameters.keys()
            for name in names & MADE:
                if name not in parts:
                    await add(name)
            return {name: parts[name] for name in names & parts.keys()}

        return await test(**{**arguments, **await arguments_of(test)})
    raise AssertionError("no part keeps what a test raised")


def _name(test: Callable[..., Any]) -> str:
    return getattr(test.func if isinstance(test, partial) else test, "__name__", "test")


async def _guarded(test: Callable[[], Awaitable[T]], clock: VirtualClock, name: str) -> T:
    __tracebackhide__ = True
    trio.lowlevel.current_task().name = name
    why = ""

    async def stop() -> None:
        nonlocal why
        why = await clock.wait_for_deadlock()
        scope.cancel()
        clock.give_up()

    async with open_background() as nursery:
        with trio.CancelScope() as scope:
            nursery.start_soon(stop)
            try:
                return await test()
            except BaseException:
                if why:
                    raise Endless(why) from None  # noqa: ASYNC104 - nobody outside waits for the cancel: it was ours
                raise
    raise Endless(why)


def schedules(
    count: int = 100, *, first_seed: int = 0, replayed: int = 1
) -> Callable[[Callable[..., Awaitable[Any]]], Callable[..., None]]:
    """Make an async test into one that runs under so many schedules, and fails as its first failing schedule does.

    The error says its seed, and the command that runs that schedule alone. One run comes before them all, so that a
    schedule does the same in a new process, which imports modules and fills caches first. Under pytest,
    `--dspex-seeds` runs another number of them, and `--dspex-seed` the one. What a test is given by the kit's own
    fixtures is made for each schedule; other fixtures are made once, and must not be async: they would belong to
    another run of Trio.

    Args:
        count: How many schedules.
        first_seed: The seed of the first one; each next one has the next number.
        replayed: So many of them are run twice, to see that they are the same both times.

    Raises:
        NotReplayable: One was not: what the test does depends on something else, such as real time or addresses.
        Endless: All of its tasks and threads wait for each other, or it takes more than a million steps.
    """

    def decorate(test: Callable[..., Awaitable[Any]]) -> Callable[..., None]:
        signature = inspect.signature(test)

        @wraps(test)
        def run(*self: Any, **arguments: Any) -> None:
            __tracebackhide__ = True
            request = arguments.get("request")
            if "request" not in signature.parameters:
                arguments.pop("request", None)
            seeds, twice = _selected_seeds(request, range(first_seed, first_seed + count), replayed)
            run_seed = partial(run_schedule, partial(test, *self), **arguments)
            cold = run_seed(seed=seeds[0])
            with _without_garbage():
                for number, seed in enumerate(seeds):
                    _run_one(partial(run_seed, seed=seed), request, number < twice)
                    gc.collect()
            if cold.error is not None:
                cold.error.add_note(_COLD)
                raise cold.error

        given = [parameter for name, parameter in signature.parameters.items() if name not in MADE]
        if "request" not in signature.parameters:
            given.append(inspect.Parameter("request", inspect.Parameter.KEYWORD_ONLY))
        vars(run)["__signature__"] = signature.replace(parameters=given, return_annotation=None)
        return run

    return decorate


_COLD: Final = (
    "in the first schedule of all, and in none after it: it depends on what a process does once, "
    "such as importing a module or filling a cache"
)


def _selected_seeds(request: _Pytest | None, seeds: Sequence[int], replayed: int) -> tuple[Sequence[int], int]:
    if request is None:
        return seeds, replayed
    if (seed := request.config.getoption("dspex_seed")) is not None:
        return [seed], 1
    if (count := request.config.getoption("dspex_seeds")) is not None:
        return range(seeds[0], seeds[0] + count), replayed
    return seeds, replayed


def _run_one(run: Callable[[], Schedule], request: _Pytest | None, twice: bool) -> None:  # noqa: FBT001 - internal
    __tracebackhide__ = True
    schedule = run()
    again = run() if twice or schedule.error is not None else schedule
    if (difference := _difference(schedule, again)) and schedule.error is None:
        raise NotReplayable(f"seed {schedule.seed} gave two schedules; {difference}")
    if schedule.error is None:
        return
    schedule.error.add_note(_failure_note(schedule, difference, request))
    raise schedule.error


def _difference(one: Schedule, other: Schedule) -> str:
    for number, (first, second) in enumerate(zip_longest(one.log, other.log, fillvalue="nothing more")):
        if first != second:
            before = "".join(f"\n    {entry}" for entry in one.log[max(number - 5, 0) : number])
            return f"after {number} entries that are the same, the last of them{before}\n  comes {first}, or {second}"
    if type(one.error) is not type(other.error):
        return f"the logs are the same, but one ended with {one.error!r}, the other one with {other.error!r}"
    return ""


def _failure_note(schedule: Schedule, difference: str, request: _Pytest | None) -> str:
    how = f"run_schedule(…, {schedule.seed})"
    if request is not None:
        how = f"pytest {str(request.node.nodeid)!r} --dspex-seed {schedule.seed}"
    same = (
        "it does the same when it is run again" if not difference else f"run again, it went another way: {difference}"
    )
    tail = "".join(f"\n    {entry}" for entry in schedule.log[-_SHOWN:])
    return f"in the schedule of seed {schedule.seed}; {same}:\n  {how}\n  its last steps:{tail}"


@contextmanager
def _without_garbage() -> Iterator[None]:
    """What there is already is no garbage: to look for some after every schedule is cheap then."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
