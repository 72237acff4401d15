"""What the fixtures are made of, also where `schedules` makes them: each takes others, by their names."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from dspex_trio.testing.scripted.lm import ScriptedLM
from dspex_trio.testing.scripted.store import FaultyStore
from dspex_trio.testing.systems import System, system
from dspex_trio.testing.time.clock import VirtualClock
from dspex_trio.testing.time.timeline import Timeline


@contextmanager
def scripted_lm() -> Iterator[ScriptedLM]:
    """A language model to whose script the block adds replies.

    Raises:
        AssertionError: The block was left, and some of its calls had no reply.
    """
    lm = ScriptedLM()
    yield lm
    lm.script.check()


def session_store(virtual_clock: VirtualClock) -> FaultyStore:
    """A session store whose sessions age on the clock; the block adds variables and faults."""
    return FaultyStore(clock=virtual_clock)


@asynccontextmanager
async def trial_system(
    timeline: Timeline, scripted_lm: ScriptedLM, session_store: FaultyStore
) -> AsyncIterator[System]:
    """A whole system, whose programs ask `scripted_lm` and whose session `test` is in `session_store`."""
    async with system(lm=scripted_lm, store=session_store, timeline=timeline) as made:
        yield made
