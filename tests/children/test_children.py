"""Child processes: whatever runs in one can be killed, and what became of it is told."""

import json
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from dspex_trio.children import ChildFailed, ChildLost, forking, open_children
from dspex_trio.children.forking import CAN_FORK, open_starter
from dspex_trio.children.starting import exit_reason

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the tests wait for processes by pidfd")

CHILD = """
import ctypes, json, os, re, signal, subprocess, sys, threading, time
from contextlib import asynccontextmanager
import trio

def prepare(opening):
    pass

@asynccontextmanager
async def open_answering(opening, parent):
    async def answer(request):
        with request.scope:
            return await answered(json.loads(request.data), request, parent)
        return b"stopped"
    yield answer, b""

async def answered(asked, request, parent):
    match asked:
        case ["echo", value]:
            return json.dumps(value).encode()
        case ["pid"]:
            return str(os.getpid()).encode()
        case ["report and hang"]:
            request.report(b"one")
            request.report(b"two")
            time.sleep(600)
        case ["report and wait"]:
            request.report(b"waiting")
            await trio.sleep_forever()
        case ["hang in C without letting go of the GIL"]:
            request.report(b"begun")
            re.match("(a+)+b", "a" * 64)
        case ["have a child of its own and hang"]:
            request.report(str(subprocess.Popen(["sleep", "600"]).pid).encode())
            time.sleep(600)
        case ["fork and exit"]:
            if (pid := os.fork()) == 0:
                request.report(b"nobody hears this")
                time.sleep(600)
            request.report(str(pid).encode())
            os._exit(4)
        case ["close every descriptor"]:
            os.closerange(3, 1000)
            request.report(b"nobody hears this")
        case ["call", *calls]:
            replies = {}
            async def call(name):
                replies[name] = (await request.call(name.encode())).decode()
            async with trio.open_nursery() as nursery:
                for name in calls:
                    nursery.start_soon(call, name)
            return json.dumps([replies[name] for name in calls]).encode()
        case ["call too often"]:
            async with trio.open_nursery() as nursery:
                for _ in range(300):
                    nursery.start_soon(request.call, b"?")
        case ["log", text]:
            parent.log(text.encode())
            return b""
        case ["raise"]:
            raise ValueError("about this")
        case ["exit at once"]:
            os._exit(3)
        case ["crash"]:
            ctypes.string_at(0)
        case ["be killed"]:
            os.kill(os.getpid(), signal.SIGKILL)
        case ["print"]:
            print("to standard output", flush=True)
            return sys.stdin.read().encode()
        case ["many bytes", count]:
            return b"x" * count
"""


FUNCTION = "child_of_test:open_answering"


PREPARE = "child_of_test:prepare"


@pytest.fixture(params=["forked", "spawned"])
def start(request, tmp_path, monkeypatch):
    """Opens children that are started in one way or the other."""
    if request.param == "forked" and not CAN_FORK:
        pytest.skip("children are spawned on this system")
    (tmp_path / "child_of_test.py").write_text(CHILD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("dspex_trio.children.forking.CAN_FORK", request.param == "forked")

    @asynccontextmanager
    async def started(function=FUNCTION, *, prepare=PREPARE, opening=bytes, **options):
        async with (
            open_starter(prepare, function, opening) as starter,
            open_children(starter, opening, **options) as children,
        ):
            yield children

    return started


@pytest.fixture
async def one(start):
    async with start(count=1, warm=1, max_bytes=1_000_000) as one:
        yield one


async def ask(processes, *request, **options):
    return await processes.run(json.dumps(request).encode(), **options)


async def ended(pid):
    """Wait until the process is gone, for ten seconds at most."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        with trio.fail_after(10):
            await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)


async def test_a_child_answers_and_is_used_again(one):
    assert json.loads(await ask(one, "echo", ["ä", 1, None])) == ["ä", 1, None]
    assert await ask(one, "pid") == await ask(one, "pid")
    assert len(await ask(one, "many bytes", 1_000_000)) == 1_000_000


async def test_the_function_is_opened_before_the_child_is_used(start, tmp_path):
    (tmp_path / "warmed.py").write_text(
        "from contextlib import asynccontextmanager\n"
        "@asynccontextmanager\n"
        "async def opening(opening, parent):\n"
        "    async def answer(request):\n"
        "        return opening + b',' + request.data\n"
        "    yield answer, b''\n"
    )
    async with start("warmed:opening", opening=lambda: b"warm", count=1, warm=1) as processes:
        await processes.ready()
        assert await processes.run(b"request") == b"warm,request"


async def test_a_cancelled_request_kills_its_child_and_what_it_reported_is_kept(one):
    pid, reports, kills = int(await ask(one, "pid")), [], []
    with trio.CancelScope() as scope:

        def report(data):
            reports.append(data)
            if data == b"two":
                scope.cancel()

        await ask(one, "report and hang", on_report=report, on_kill=kills.append)
    assert scope.cancelled_caught
    assert reports == [b"one", b"two"]
    assert len(kills) == 1
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert int(await ask(one, "pid")) != pid


async def test_code_that_keeps_the_gil_is_killed_too(one):
    """Nothing inside its process could end it."""
    with trio.CancelScope() as scope:
        await ask(one, "hang in C without letting go of the GIL", on_report=lambda _data: scope.cancel())
    assert scope.cancelled_caught
    assert json.loads(await ask(one, "echo", 1)) == 1


async def test_the_processes_that_a_child_started_are_killed_with_it(one):
    pids = []
    with trio.CancelScope() as scope:

        def report(data):
            pids.append(int(data))
            scope.cancel()

        await ask(one, "have a child of its own and hang", on_report=report)
    await ended(pids[0])


async def test_a_child_that_is_lost_tells_how_and_is_replaced(one):
    for request, reason in {
        "exit at once": "exit code 3",
        "crash": "SIGSEGV",
        "be killed": "SIGKILL, most often sent by the kernel when memory runs out",
    }.items():
        with pytest.raises(ChildLost, match=reason):
            await ask(one, request)
    assert json.loads(await ask(one, "echo", 1)) == 1


async def test_a_child_is_lost_and_its_processes_ended_though_one_of_them_holds_its_socket(one):
    """A fork shares every descriptor, so that the end of the socket tells nothing of the end of the child."""
    pids = []
    with pytest.raises(ChildLost, match="exit code 4"):
        await ask(one, "fork and exit", on_report=pids.append)
    await ended(int(pids[0]))


async def test_what_the_function_raises_comes_as_text_and_the_child_goes_on(one):
    pid = await ask(one, "pid")
    with pytest.raises(ChildFailed, match="ValueError: about this"):
        await ask(one, "raise")
    assert await ask(one, "pid") == pid


async def test_a_child_that_sends_too_much_is_killed(one):
    with pytest.raises(ChildLost, match="sent 1000001 bytes, more than 1000000"):
        await ask(one, "many bytes", 1_000_001)
    assert json.loads(await ask(one, "echo", 1)) == 1


async def test_a_request_is_told_when_no_child_can_be_started(start, tmp_path):
    (tmp_path / "broken.py").write_text("1 / 0\n")
    async with start("broken:f", count=1, warm=1) as processes:
        with pytest.raises(ChildLost, match=r"no child process can be started: .*\n(.*\n)*ZeroDivisionError"):
            await processes.run(b"")


async def test_a_request_is_told_when_there_is_nothing_to_open_a_child_with(start):
    def fails():
        raise ValueError("this has no JSON form")

    async with start(count=1, warm=1, opening=fails) as processes:
        with pytest.raises(ChildLost, match="no child process can be started: this has no JSON form"):
            await processes.ready()


async def test_a_child_that_died_idle_is_not_used(one):
    pid = int(await ask(one, "pid"))
    os.kill(pid, signal.SIGKILL)
    await ended(pid)
    assert int(await ask(one, "pid")) != pid


async def test_children_are_gone_when_they_are_closed(start):
    async with start(count=2, warm=2) as processes:
        pid = int(await ask(processes, "pid"))
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(ChildLost, match="closed"):
        await ask(processes, "pid")


async def test_the_childs_standard_output_is_not_the_workers(one, capfd):
    """Whoever started the worker may read that; what programs print goes to standard error."""
    assert await ask(one, "print") == b""
    out, err = capfd.readouterr()
    assert (out, err) == ("", "to standard output\n")


async def test_a_child_that_ends_its_work_when_it_is_told_stays(one):
    """Only what does not end is killed: a new child takes its time to start."""
    pid, answers, kills = await ask(one, "pid"), [], []

    def may_stay(answer):
        answers.append(answer)
        return True

    with trio.CancelScope() as scope:
        await ask(
            one,
            "report and wait",
            patience=60,
            may_stay=may_stay,
            on_kill=kills.append,
            on_report=lambda _data: scope.cancel(),
        )
    assert scope.cancelled_caught
    assert (answers, kills) == ([b"stopped"], [])
    assert await ask(one, "pid") == pid


async def test_a_child_whose_answer_says_so_is_replaced(one):
    pid, kills = await ask(one, "pid"), []

    assert await ask(one, "echo", 1, may_stay=lambda answer: answer != b"1", patience=60, on_kill=kills.append) == b"1"
    assert len(kills) == 1
    assert await ask(one, "pid") != pid


async def test_a_child_asks_its_parent_side_by_side_while_it_answers(one):
    """Each reply waits for the other call: they would never come one after the other."""
    both = trio.Event()
    waiting = []

    async def reply(call):
        waiting.append(call)
        if len(waiting) == 2:
            both.set()
        await both.wait()
        return b"re: " + call

    assert json.loads(await ask(one, "call", "this", "that", on_call=reply)) == ["re: this", "re: that"]


async def test_a_call_that_is_not_replied_to_ends_with_its_request(one):
    with trio.CancelScope() as scope:

        async def never(_call):
            scope.cancel()
            await trio.sleep_forever()

        await ask(one, "call", "this", on_call=never, patience=60)
    assert scope.cancelled_caught
    assert json.loads(await ask(one, "echo", 1)) == 1


async def test_a_child_with_too_many_calls_at_once_is_killed(one):
    async def never(_call):
        await trio.sleep_forever()

    with pytest.raises(ChildLost, match="more than 256 calls at once"):
        await ask(one, "call too often", on_call=never)


async def test_a_child_that_cuts_itself_off_is_lost(one):
    with pytest.raises(ChildLost, match="exit code"):
        await ask(one, "close every descriptor")
    assert json.loads(await ask(one, "echo", 1)) == 1


def unreadable(data):
    raise ValueError(data)


@pytest.mark.parametrize(
    ("what", "said"), [("report and wait", "on_report"), ("echo", "may_stay"), ("log", "on_log")], ids=lambda each: each
)
async def test_a_child_that_says_what_cannot_be_understood_is_lost_alone(what, said, start):
    """As one does whose program wrote to a descriptor that was not its own."""
    logging = {"on_log": unreadable} if said == "on_log" else {}
    asking = {} if logging else {said: unreadable}
    async with start(count=1, warm=1, **logging) as processes:
        pid = await ask(processes, "pid")
        with pytest.raises(ChildLost, match="cannot be understood: ValueError"):
            await ask(processes, what, *([] if what == "report and wait" else ["text"]), **asking)
        assert await ask(processes, "pid") != pid


async def test_what_children_log_reaches_the_parent(start):
    logged = []
    async with start(count=1, warm=1, on_log=logged.append) as processes:
        await ask(processes, "log", "a line")
    assert logged == [b"a line"]


async def test_a_child_is_replaced_after_so_many_answers(start):
    async with start(count=1, warm=1, max_answers=2) as processes:
        await processes.ready()
        first, second, third = [await ask(processes, "pid") for _ in range(3)]
    assert first == second != third


async def test_a_child_is_started_when_a_request_finds_none_free(start):
    async with start(count=2, warm=0) as processes:
        reported = trio.Event()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def wait():
                    await ask(processes, "report and wait", on_report=lambda _data: reported.set())

                nursery.start_soon(wait)
                await reported.wait()
                assert json.loads(await ask(processes, "echo", 1)) == 1
                scope.cancel()


PARENT = """
import json, sys, trio
from dspex_trio.children import forking, open_children
forking.CAN_FORK = sys.argv[2] == "True"

async def main():
    async with (
        forking.open_starter("child_of_test:prepare", "child_of_test:open_answering", bytes) as starter,
        open_children(starter, bytes, count=1, warm=1) as processes,
    ):
        print(int(await processes.run(b'["pid"]')), flush=True)
        await processes.run(json.dumps([sys.argv[1]]).encode(), on_report=lambda data: print(data, flush=True))

trio.run(main)
"""


@pytest.mark.parametrize("what", ["report and hang", "hang in C without letting go of the GIL"])
async def test_a_child_ends_with_its_parent(start, what):
    """However that ends: SIGKILL leaves it no time to say goodbye."""

    def start_and_kill():
        command = [sys.executable, "-c", PARENT, what, str(forking.CAN_FORK)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
            pid = int(parent.stdout.readline())
            assert parent.stdout.readline()  # it is busy
            parent.kill()
        return pid

    await ended(await trio.to_thread.run_sync(start_and_kill))


@pytest.mark.parametrize(
    ("code", "text"), [(0, "exit code 0"), (7, "exit code 7"), (-11, "SIGSEGV"), (-9, "memory"), (-200, "signal 200")]
)
def test_an_exit_code_in_words(code, text):
    assert text in exit_reason(code)
