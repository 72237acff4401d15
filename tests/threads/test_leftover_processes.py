"""Processes that a job has started end with it, and so does what they have started; nobody else's do."""

import asyncio
import os
import select
import subprocess
import sys
import threading
import weakref

import pytest
import trio

from dspex_trio.threads import Job, Slots, open_threads
from dspex_trio.threads.patches import subprocesses as room

WAITS = f"{sys.executable} -c 'import time; print(1, flush=True); time.sleep(600)'"


@pytest.fixture
def pipe():
    """The reading end is at its end when all are gone that have inherited the writing end."""
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    yield reading, writing
    os.close(reading)
    try:
        os.close(writing)
    except OSError:
        return


def gone(reading):
    """Whether all are gone that could write; they have half a minute for it."""
    while select.select([reading], [], [], 30)[0]:
        if not os.read(reading, 1000):
            return True
    return False


async def cancelled(work):
    """Run `work(started)` as a job and cancel it when it has called `started`."""
    job, started = Job(), trio.Event()
    token = trio.lowlevel.current_trio_token()
    async with open_threads(patience=lambda _job: 10, may_raise=False) as threads, trio.open_nursery() as nursery:

        async def run():
            await threads.run(work, lambda: token.run_sync_soon(started.set), job=job, slot=Slots(1).acquire_nowait())

        nursery.start_soon(run)
        await started.wait()
        nursery.cancel_scope.cancel()
    return job


def talks(process):
    assert process.stdout.readline() == b"1\n"


def left_behind(started, writing):
    process = subprocess.Popen(["/bin/sh", "-c", f"exec {WAITS}"], stdout=subprocess.PIPE, pass_fds=[writing])
    talks(process)
    started()
    threading.Event().wait()


def of_a_shell(started, writing):
    process = subprocess.Popen(f"{WAITS} & wait", shell=True, stdout=subprocess.PIPE, pass_fds=[writing])  # noqa: S602
    talks(process)
    started()
    process.wait()


def of_a_shell_that_has_ended(started, writing):
    process = subprocess.Popen(f"{WAITS} &", shell=True, stdout=subprocess.PIPE, pass_fds=[writing])  # noqa: S602
    talks(process)
    process.wait()
    started()
    threading.Event().wait()


def of_asyncio(started, writing):
    async def main():
        process = await asyncio.create_subprocess_exec(
            "sh", "-c", f"{WAITS} & wait", stdout=subprocess.PIPE, pass_fds=[writing]
        )
        await until_cancelled(process, started)

    asyncio.run(main())


def of_the_shell_of_asyncio(started, writing):
    async def main():
        process = await asyncio.create_subprocess_shell(f"{WAITS} & wait", stdout=subprocess.PIPE, pass_fds=[writing])
        await until_cancelled(process, started)

    asyncio.run(main())


async def until_cancelled(process, started):
    """Wait for a process whose shell asyncio then ends, and no more."""
    try:
        assert await process.stdout.readline() == b"1\n"
        started()
        await process.wait()
    finally:
        process._transport.close()


def in_a_session_of_its_own(started, writing):
    process = subprocess.Popen(
        ["/bin/sh", "-c", f"exec {WAITS}"], stdout=subprocess.PIPE, pass_fds=[writing], start_new_session=True
    )
    talks(process)
    started()
    process.wait()


@pytest.mark.usefixtures("collected_here")
@pytest.mark.parametrize(
    "work",
    [left_behind, of_a_shell, of_a_shell_that_has_ended, of_asyncio, of_the_shell_of_asyncio, in_a_session_of_its_own],
)
@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_process_and_what_it_started_end_with_the_job(pipe, work):
    reading, writing = pipe
    await cancelled(lambda started: work(started, writing))
    os.close(writing)
    assert await trio.to_thread.run_sync(gone, reading)
    for thread in threading.enumerate():
        if thread.name.startswith("waitpid-"):  # asyncio's, which holds the process
            await trio.to_thread.run_sync(thread.join)


@pytest.fixture
def _one_group(monkeypatch):
    """As in a process that somebody ends together with what programs have started."""
    monkeypatch.setattr(room, "_stays_in_group", [])
    room.stay_in_group()


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
@pytest.mark.usefixtures("_one_group", "collected_here")
@pytest.mark.parametrize("work", [left_behind, of_a_shell])
@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_so_they_do_where_all_stay_in_one_group(pipe, work):
    reading, writing = pipe
    await cancelled(lambda started: work(started, writing))
    os.close(writing)
    assert await trio.to_thread.run_sync(gone, reading)


@pytest.mark.usefixtures("_one_group")
async def test_there_they_have_no_group_of_their_own(threads):
    def work():
        run = ["/bin/sh", "-c", "ps -o pgid= -p $$"]
        return int(subprocess.run(run, capture_output=True, check=True).stdout)

    assert await threads.run(work, job=Job(), slot=Slots(1).acquire_nowait()) == os.getpgrp()


async def test_os_system_ends_with_the_job(pipe):
    reading, writing = pipe

    def work(started):
        waiting = threading.Thread(target=lambda: (os.read(reading, 1), started()))
        waiting.start()
        os.system(f"echo 1 >/dev/fd/{writing}; {WAITS} >/dev/null")  # noqa: S605

    job = await cancelled(work)
    os.close(writing)
    assert job.details()["rung"] == "wake"
    assert await trio.to_thread.run_sync(gone, reading)


async def test_os_system_says_what_it_always_says(threads):
    def work():
        return os.system("exit 3"), os.system("kill -9 $$")  # noqa: S605, S607

    inside = await threads.run(work, job=Job(), slot=Slots(1).acquire_nowait())
    assert inside == await trio.to_thread.run_sync(work)
    assert [os.waitstatus_to_exitcode(status) for status in inside] == [3, -9]


async def test_what_a_job_that_ends_by_itself_has_started_goes_on(threads):
    def work():
        return subprocess.Popen(["/bin/sh", "-c", "read line"], stdin=subprocess.PIPE)

    process = await threads.run(work, job=Job(), slot=Slots(1).acquire_nowait())
    assert process.poll() is None
    with process:
        process.stdin.close()
    assert process.returncode == 1


async def test_a_program_that_decides_on_groups_itself_is_let(threads):
    def work():
        run = ["/bin/sh", "-c", "ps -o pgid= -o sid= -p $$"]
        how = ({}, {"start_new_session": True}, {"preexec_fn": os.setsid}, {"process_group": os.getpgrp()})
        return [subprocess.run(run, capture_output=True, check=True, **each).stdout.split() for each in how]

    own, session, setsid, ours = await threads.run(work, job=Job(), slot=Slots(1).acquire_nowait())
    assert own[0] != own[1]
    assert session[0] == session[1]
    assert setsid[0] == setsid[1]
    assert int(ours[0]) == os.getpgrp()


def test_the_number_of_a_process_that_is_gone_may_be_somebody_elses():
    """This very process's, for one."""
    room._end(weakref.ref(type("Collected", (), {})()), os.getpid(), leads=True)
    assert room._exists(os.getpid())
