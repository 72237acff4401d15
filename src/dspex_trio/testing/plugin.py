"""The kit's fixtures for pytest. It is loaded with every pytest run, so it imports nothing until a fixture is used."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from dspex_trio.testing.scripted.lm import ScriptedLM
    from dspex_trio.testing.scripted.store import FaultyStore
    from dspex_trio.testing.systems import System
    from dspex_trio.testing.time.clock import VirtualClock
    from dspex_trio.testing.time.timeline import Timeline


def pytest_addoption(parser: pytest.Parser) -> None:
    """Which schedules to run."""
    group = parser.getgroup("dspex_trio")
    group.addoption("--dspex-seeds", type=int, metavar="N", help="run tests of @schedules under N schedules each")
    group.addoption("--dspex-seed", type=int, metavar="K", help="run tests of @schedules under that of seed K alone")


@pytest.fixture
def virtual_clock(request: pytest.FixtureRequest) -> Iterator[VirtualClock]:
    """The test runs in virtual time, which knows of worker threads.

    pytest-trio finds the clock by itself, among the arguments of the test function and nowhere else. With anyio's
    plugin, hand it on: `anyio_backend` returns `("trio", {"clock": virtual_clock, "instruments": [virtual_clock]})`.
    Fails where no Trio run has taken it.
    """
    from dspex_trio.testing.time.clock import VirtualClock  # noqa: PLC0415 - not before it is used

    test = request.function
    handed_on = "virtual_clock" in inspect.signature(test).parameters
    if request.node.get_closest_marker("trio") is None:  # which trio_mode gives to all, also to those of anyio's plugin
        handed_on = handed_on or "anyio_backend" in request.fixturenames
    if inspect.iscoroutinefunction(test) and not handed_on:
        # Else the test would wait in real time.
        pytest.fail(
            f"{test.__name__} is to name virtual_clock among its arguments: pytest-trio takes a clock from there "
            "alone, and not from what another fixture, such as timeline, asks for",
            pytrace=False,
        )
    taken: set[str] = set()

    class Watched(VirtualClock):
        def start_clock(self) -> None:
            taken.add("clock")
            super().start_clock()

        def before_run(self) -> None:
            taken.add("instrument")
            super().before_run()

    yield Watched()
    if taken == {"clock", "instrument"}:
        return
    if taken:
        why = f"it was given to Trio as {taken.pop()} alone; it is to be both clock and instrument"
    elif inspect.iscoroutinefunction(test):
        why = (
            "what ran this test did not hand it to Trio; pytest-trio does (trio_mode = true, or @pytest.mark.trio), "
            "and anyio's plugin with a fixture anyio_backend that returns "
            '("trio", {"clock": virtual_clock, "instruments": [virtual_clock]})'
        )
    else:
        why = (
            "this test is a plain function: make it `async def`, or give the clock to trio.run as clock and as "
            "instrument; TrialEnvironment.run_sync has a clock of its own"
        )
    pytest.fail(f"virtual_clock was not installed: {why}", pytrace=False)


@pytest.fixture
def timeline(virtual_clock: VirtualClock) -> Timeline:
    """What happened in the test and when, in the time of `virtual_clock`, which the test names beside it."""
    from dspex_trio.testing.time.timeline import Timeline  # noqa: PLC0415 - not before it is used

    return Timeline(virtual_clock)


@pytest.fixture
def scripted_lm() -> Iterator[ScriptedLM]:
    """A language model that answers what the test adds to its script; fails where a call had no reply."""
    from dspex_trio.testing.building import scripted_lm  # noqa: PLC0415 - not before it is used

    with scripted_lm() as lm:
        yield lm


@pytest.fixture
def session_store(virtual_clock: VirtualClock) -> FaultyStore:
    """A session store, in memory, to which the test adds variables and faults; in the time of `virtual_clock`."""
    from dspex_trio.testing.building import session_store  # noqa: PLC0415 - not before it is used

    return session_store(virtual_clock)


@pytest.fixture
async def trial_system(
    timeline: Timeline, scripted_lm: ScriptedLM, session_store: FaultyStore
) -> AsyncIterator[System]:
    """Store, worker and client in memory, in the time of `virtual_clock`, which the test names beside it.

    Programs ask `scripted_lm`; the session `test` is in `session_store`; `timeline` is told.
    """
    from dspex_trio.testing.building import trial_system  # noqa: PLC0415 - not before it is used

    async with trial_system(timeline, scripted_lm, session_store) as system:
        yield system
