"""What the fixtures are made of, for whoever makes the same things: each takes the test's clock or timeline."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from dspex_trio.testing.clock import VirtualClock
from dspex_trio.testing.lm import ScriptedLM
from dspex_trio.testing.store import FaultyStore
from dspex_trio.testing.systems import System, system
from dspex_trio.testing.timeline import Timeline


@contextmanager
def scripted_lm() -> Iterator[ScriptedLM]:
    """A language model to whose script the block adds replies.

    Raises:
        AssertionError: The block was left, and some of its calls had no reply.
    """
    lm = ScriptedLM()
    yield lm
    lm.script.check()


def session_store(clock: VirtualClock) -> FaultyStore:
    """A session store whose sessions age on `clock`; the block adds variables and faults."""
    return FaultyStore(clock=clock)


@asynccontextmanager
async def trial_system(timeline: Timeline, lm: ScriptedLM, store: FaultyStore) -> AsyncIterator[System]:
    """A whole system, whose programs ask `lm` and whose session `test` is in `store`."""
    async with system(lm=lm, store=store, timeline=timeline) as made:
        yield made
