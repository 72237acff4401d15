"""What signals mean, and how the commands take them and the standard streams they are given, seen from outside."""

import os
import re
import signal
import sys
from contextlib import contextmanager
from functools import partial

import pytest
import trio

import dspex_trio as dspex
from dspex_trio.tasks.signals import SAME_WITHIN, EndSignals, Meaning

PROGRAMS = """
import pathlib, re, threading
import dspy
import dspex_trio as dspex

@dspex.register("Waits")
class Waits(dspy.Module):
    def forward(self):
        pathlib.Path("running").touch()
        threading.Event().wait()

@dspex.register("HoldsTheGil")
class HoldsTheGil(dspy.Module):
    def forward(self):
        pathlib.Path("running").touch()
        try:
            threading.Event().wait()
        except BaseException:
            re.match("(a+)+$", "a" * 64 + "b")
"""


def test_the_same_signal_once_more_is_a_repeat_for_a_moment_and_then_a_second_one():
    """Wrappers pass on what the whole process group has got already."""
    came = EndSignals()
    assert came.came(signal.SIGTERM, 100.0) is Meaning.FIRST
    assert came.came(signal.SIGTERM, 100.0) is Meaning.SAME
    assert came.came(signal.SIGTERM, 99.999 + SAME_WITHIN) is Meaning.SAME
    assert came.came(signal.SIGTERM, 100.001 + SAME_WITHIN) is Meaning.SECOND


def test_another_signal_is_a_second_one_however_soon_it_comes():
    came = EndSignals()
    assert came.came(signal.SIGTERM, 100.0) is Meaning.FIRST
    assert came.came(signal.SIGINT, 100.0) is Meaning.SECOND


async def test_sighup_drains_as_sigterm_does(start):
    command = await start("store")
    await command.address()
    command.process.send_signal(signal.SIGHUP)
    assert await command.ends() == 0, command.told
    assert "SIGHUP: shutting down" in command.told


async def test_sigusr1_tells_where_threads_are_and_which_trials_are_under_way_and_ends_nothing(
    start, nursery, tmp_path
):
    command = await start("serve", "--load", "some_programs", "--grace-seconds", "0.1", module=PROGRAMS)
    address = await command.address()

    async def call():
        async with dspex.open_client(address) as client:
            await client.execute(dspex.Program("Waits"), {}, trial_id="t7", timeout=50)

    nursery.start_soon(call)
    await exists(tmp_path / "running")
    command.process.send_signal(signal.SIGUSR1)
    await command.until("SIGUSR1: under way: t7 of Waits in EXECUTE")
    await command.until("in forward")  # in the executor, which writes its stacks itself
    command.process.send_signal(signal.SIGTERM)
    assert await command.ends() == 0, command.told


async def test_sigusr1_to_a_store_ends_nothing(start):
    command = await start("store")
    await command.address()
    command.process.send_signal(signal.SIGUSR1)
    await command.until("SIGUSR1: under way: nothing")
    command.process.send_signal(signal.SIGTERM)
    assert await command.ends() == 0


async def exists(path):
    with trio.fail_after(60):
        while not path.exists():  # noqa: ASYNC110 - a file of another process is no event of ours
            await trio.sleep(0.02)


@contextmanager
def full_pipe():
    """A pipe that takes nothing any more, as a log collector's that stands still."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, b"x" * 65_536)
    except BlockingIOError:
        os.set_blocking(writer, True)
    try:
        yield writer
    finally:
        os.close(reader)
        os.close(writer)


@pytest.fixture
def run(tmp_path, nursery):
    """Start a command with these standard streams; returns once it is ready."""
    (tmp_path / "some_programs.py").write_text(PROGRAMS)
    ready = tmp_path / "ready"

    async def run(*command, **options):
        starting = partial(
            trio.run_process,
            [*command, "--port", "0", "--ready-file", str(ready)],
            check=False,
            cwd=tmp_path,
            **options,
        )
        process = await nursery.start(starting)
        await exists(ready)
        return process, f"127.0.0.1:{ready.read_text()}"

    return run


async def ends(process):
    with trio.fail_after(60):
        return await process.wait()


PYTHON = (sys.executable, "-m", "dspex_trio")


async def test_a_standard_error_that_nobody_reads_keeps_no_trial_and_no_end(run, nursery):
    """Not the first line of the log can be written."""
    with full_pipe() as stderr:
        process, address = await run(*PYTHON, "serve", "--load", "dspex_trio.demo.programs", stderr=stderr)
        async with dspex.open_client(address) as client:
            program = dspex.Program("dspy.Predict", dspex.Signature("question -> answer"))
            outcome = await client.execute(program, {"question": "?"}, timeout=30)
        assert isinstance(outcome, dspex.TrialFailure)  # it has no language model
        process.send_signal(signal.SIGTERM)
        assert await ends(process) == 0


async def test_a_standard_error_that_nobody_reads_does_not_keep_the_end_by_a_second_signal(run, nursery, tmp_path):
    with full_pipe() as stderr:
        command = (*PYTHON, "serve", "--load", "some_programs", "--grace-seconds", "1000")
        process, address = await run(*command, stderr=stderr)

        async def call():
            async with dspex.open_client(address) as client:
                with pytest.raises(dspex.rpc.RpcError):
                    await client.execute(dspex.Program("Waits"), {}, timeout=500)

        nursery.start_soon(call)
        await exists(tmp_path / "running")
        process.send_signal(signal.SIGINT)  # of two that have come, the system gives the lower one first
        process.send_signal(signal.SIGTERM)
        assert await ends(process) == 128 + signal.SIGTERM


async def test_c_code_and_a_standard_error_that_nobody_reads_do_not_keep_the_process_together(run, nursery, tmp_path):
    """The stacks cannot be written then; the process ends all the same."""
    with full_pipe() as stderr:
        command = (*PYTHON, "serve", "--load", "some_programs", "--grace-seconds", "0.1")
        process, address = await run(*command, stderr=stderr)

        async def call():
            async with dspex.open_client(address) as client:
                with pytest.raises(dspex.rpc.RpcError):
                    await client.execute(dspex.Program("HoldsTheGil"), {}, timeout=500)

        nursery.start_soon(call)
        await exists(tmp_path / "running")
        process.send_signal(signal.SIGTERM)
        assert await ends(process) == 1


@pytest.mark.parametrize(
    "streams",
    ["2>/dev/full", ">&- 2>&- <&-", "2>&-", ">/dev/full"],
    ids=["full disk", "all closed", "closed", "stdout"],
)
async def test_a_store_works_whatever_its_standard_streams_are(run, streams):
    process, _ = await run("sh", "-c", f'exec "$@" {streams}', "sh", *PYTHON, "store")
    process.send_signal(signal.SIGTERM)
    assert await ends(process) == 0


@pytest.mark.parametrize("closed", [True, False])
async def test_a_worker_whose_standard_output_is_closed_or_unread_serves_all_the_same(run, closed, tmp_path):
    """It tells its port there, for snakepit 0.4; that this fails says nothing of the port."""
    log = tmp_path / "log"
    reader, writer = os.pipe()
    os.close(reader)
    with log.open("wb") as stderr:
        command = ("sh", "-c", 'exec "$@" >&-', "sh") if closed else ()
        process, _ = await run(*command, *PYTHON, "worker", stdout=writer, stderr=stderr)
    os.close(writer)
    process.send_signal(signal.SIGTERM)
    assert await ends(process) == 0
    told = log.read_text()
    assert "cannot listen" not in told
    assert "serving a snakepit pool" in told
    assert bool(re.search("cannot print the port on standard output.*Broken pipe", told)) is not closed


@pytest.mark.parametrize("stream", ["stderr", "stdout"])
async def test_a_program_that_closes_a_standard_stream_ends_nothing(start, nursery, stream):
    """The log has a descriptor of its own."""
    module = PROGRAMS + (
        f'@dspex.register("Closes")\nclass Closes(dspy.Module):\n    def forward(self):\n'
        f"        import os, sys\n        sys.{stream}.close(); os.close(dict(stdout=1, stderr=2)['{stream}'])\n"
        f"        return {{}}\n"
    )
    command = await start("serve", "--load", "some_programs", module=module)
    async with dspex.open_client(await command.address()) as client:
        assert isinstance(await client.execute(dspex.Program("Closes"), {}, timeout=30), dspex.TrialSuccess)
    await command.until("of 'Closes': OK")
    command.process.send_signal(signal.SIGTERM)
    assert await command.ends() == 0, command.told


async def test_a_file_of_tls_that_cannot_be_used_is_blamed_and_not_the_port(start, tmp_path):
    (tmp_path / "bad.pem").write_text("nothing")
    for certificate, told in (
        ("absent.pem", "absent.pem.*No such file"),
        ("bad.pem", "TLS files cannot be used.*bad.pem"),
    ):
        command = await start("serve", "--tls-certificate", certificate, "--tls-key", certificate)
        assert await command.ends() in {1, 2}
        assert re.search(told, command.told), command.told
        assert "cannot listen" not in command.told
