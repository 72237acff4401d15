import os

import pytest
import trio

from dspex_trio.demo.children import DemoProcessFailed, run_child

OBEDIENT = """
import pathlib, signal, sys, threading
ready = pathlib.Path(sys.argv[sys.argv.index("--ready-file") + 1])
signal.signal(signal.SIGTERM, lambda *_: (print("going", flush=True), sys.exit(0)))
aside = ready.with_suffix(".tmp")
aside.write_text("4711")
aside.replace(ready)
threading.Event().wait()
"""
DIES = "import sys; print('no such thing'); sys.exit(3)"


@pytest.fixture
def module(tmp_path):
    """Make a module of that source, and give what a child needs to import it."""

    def run(source):
        (tmp_path / "some_child.py").write_text(source)
        return ["some_child"], {"PYTHONPATH": str(tmp_path)}

    return run


async def test_a_child_is_there_once_it_is_ready_and_gone_with_its_scope(module, tmp_path):
    arguments, environment = module(OBEDIENT)
    async with trio.open_nursery() as nursery:

        async def run(task_status):
            await run_child("child", arguments, tmp_path, environment=environment, task_status=task_status)

        child = await nursery.start(run)
        assert (child.port, child.address) == (4711, "127.0.0.1:4711")
        os.kill(child.pid, 0)  # it is there
        nursery.cancel_scope.cancel()
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)
    assert child.log.read_text() == "going\n"


async def test_a_child_that_never_gets_ready_is_reported_with_its_log(module, tmp_path):
    arguments, environment = module(DIES)
    with pytest.RaisesGroup(DemoProcessFailed, flatten_subgroups=True) as caught:
        async with trio.open_nursery() as nursery:

            async def run(task_status):
                await run_child("store", arguments, tmp_path, environment=environment, task_status=task_status)

            await nursery.start(run)
    message = str(caught.value.exceptions[0])
    assert "the store did not get ready" in message
    assert "no such thing" in message


async def test_a_child_that_ends_before_its_time_is_an_error(module, tmp_path):
    """A worker that dies in the middle of the demo must not look like trials that failed."""
    arguments, environment = module(OBEDIENT.replace("threading.Event().wait()", "sys.exit(9)"))
    with pytest.RaisesGroup(DemoProcessFailed, flatten_subgroups=True) as caught:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: run_child("worker", arguments, tmp_path, environment=environment))
    (error,) = caught.value.exceptions
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    assert "the worker " in str(error)
