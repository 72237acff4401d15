"""Runtimes with warm children, which take a while to start: one for many tests, in a thread with its own loop."""

import queue
import sys
import threading
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

import dspex_trio as dspex
from dspex_trio.programs.registry import MODULE_REGISTRY, TOOL_REGISTRY

HERE = Path(__file__).parent
LONG = 60


class Running:
    """A runtime in another thread."""

    def __init__(self, runtime, token):
        self.runtime = runtime
        self._token = token

    def call(self, function, *args, **keywords):
        return trio.from_thread.run(partial(function, *args, **keywords), trio_token=self._token)

    def trial(self, program, inputs, *, seconds=LONG, **options):
        """The outcome of a trial that has so long; so large a margin that it comes before anybody gives up."""
        program = program if isinstance(program, dspex.Program) else dspex.Program(program)

        async def run():
            with trio.fail_after(seconds):
                return await self.runtime.run_trial(program, inputs, **options)

        return self.call(run)

    def does(self, what, **options):
        return self.trial("Does", {"what": what}, **options)


@contextmanager
def running(telemetry=None, **settings):
    """Open a runtime, whose programs are those of `isolated_programs`."""
    opened = queue.Queue()

    async def main():
        closing = trio.Event()
        try:
            given = dspex.Settings(load=("isolated_programs",), **settings)
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
            yield Running(runtime, token)
        finally:
            token.run_sync_soon(closing.set)
    finally:
        thread.join()


@pytest.fixture(scope="module")
def loadable():
    """The programs can be imported, and are not registered any more afterwards."""
    before = dict(MODULE_REGISTRY), dict(TOOL_REGISTRY)
    sys.path.insert(0, str(HERE))
    yield
    sys.path.remove(str(HERE))
    sys.modules.pop("isolated_programs", None)
    for registry, content in zip((MODULE_REGISTRY, TOOL_REGISTRY), before, strict=True):
        registry.clear()
        registry.update(content)


@pytest.fixture(scope="module")
def isolated(loadable):
    with running(isolation="process", max_trials=1, reply_margin_ms=400) as runtime:
        yield runtime


@pytest.fixture(scope="module")
def unisolated(loadable):
    with running(isolate=("AsTheWorkerSays",), max_trials=1, max_trials_per_child=1) as runtime:
        yield runtime
