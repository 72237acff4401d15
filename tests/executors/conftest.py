"""A runtime whose programs run in two executors: one for many tests."""

import queue
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

import dspex_trio as dspex
from dspex_trio.programs.registry import MODULE_REGISTRY, TOOL_REGISTRY
from dspex_trio.store.elixir_tools import ELIXIR_TOOLS

from ..isolation.conftest import Running  # noqa: TID252 - tests are no package

HERE = Path(__file__).parent
LOADED = ("isolated_programs", "front_programs")
PLACES = (str(HERE), str(HERE.parent / "isolation"))


class Front(Running):
    """A runtime with executors, in another thread."""

    @property
    def fleet(self):
        return self.runtime._programs._fleet

    def pids(self):
        async def pids():
            return self.fleet.pids()

        return self.call(pids)

    def until(self, true, seconds=30):
        """Wait until something is so, which processes have to do first."""

        async def wait():
            with trio.fail_after(seconds):
                while not true():  # noqa: ASYNC110 - other processes set no events
                    await trio.sleep(0.01)

        self.call(wait)

    def until_whole(self):
        """Wait until all executors are there and all slots free."""
        self.until(lambda: self.fleet.free == self.fleet.capacity)


@contextmanager
def open_front(telemetry=None, **settings):
    opened = queue.Queue()

    async def main():
        closing = trio.Event()
        try:
            given = dspex.Settings(**{"load": LOADED, "isolation": "executor", "executors": 2, **settings})
            async with dspex.open_runtime(given, telemetry=telemetry) as runtime:
                opened.put((runtime, trio.lowlevel.current_trio_token(), closing))
                await closing.wait()
        except BaseException as error:
            opened.put(error)
            raise

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    try:
        found = opened.get()
        if isinstance(found, BaseException):
            raise found
        runtime, token, closing = found
        try:
            yield Front(runtime, token)
        finally:
            token.run_sync_soon(closing.set)
    finally:
        thread.join()


@pytest.fixture(scope="module")
def loadable():
    """The programs can be imported, and are not registered any more afterwards."""
    registries = (MODULE_REGISTRY, TOOL_REGISTRY, ELIXIR_TOOLS)
    before = [dict(registry) for registry in registries]
    sys.path[:0] = PLACES
    yield
    for place in PLACES:
        sys.path.remove(place)
    for name in LOADED:
        sys.modules.pop(name, None)
    for registry, content in zip(registries, before, strict=True):
        registry.clear()
        registry.update(content)


@pytest.fixture(scope="module")
def shared_front(loadable):
    with open_front(max_trials=4, executor_grace_seconds=0.5, max_stuck_threads=8, reply_margin_ms=400) as front:
        yield front


@pytest.fixture
def front(shared_front):
    """The front, whole before the test and after it."""
    shared_front.until_whole()
    yield shared_front
    shared_front.until_whole()


@pytest.fixture(scope="module")
def in_threads(loadable):
    with open_front(isolation="thread", executors=None, max_trials=1) as runtime:
        yield runtime
