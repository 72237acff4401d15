"""Children are started by a warm parent that may be slow, refuse, or be gone, for some who do not wait for the end."""

import os
import signal
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from dspex_trio.children import ChildLost, Exchange
from dspex_trio.children.exchange import MAX_CALLS
from dspex_trio.children.forking import CAN_FORK, open_starter
from dspex_trio.children.opening import open_child
from dspex_trio.tasks.background import open_background

pytestmark = pytest.mark.skipif(not CAN_FORK, reason="children are not forked on this system")

CHILD = """
import os, time
from contextlib import asynccontextmanager
from pathlib import Path
from dspex_trio.children.frames import CALL, FREED, NUMBER

def prepare(opening):
    if opening and Path(opening.decode()).exists():
        raise ValueError("not now")

def prepare_without_room(opening):
    real, left = os.fork, [1]
    def fork():
        if left:
            left.pop()
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return real()
    os.fork = fork

@asynccontextmanager
async def open_answering(opening, parent):
    async def answer(request):
        match request.data:
            case b"pid":
                return str(os.getpid()).encode()
            case b"end before the answer":
                request.hold()
                request.freed(b"it has ended")
            case b"go on":
                request.hold()
            case b"be over without an answer":
                parent.send(FREED, request.number, b"")
            case b"close the connection":
                os.close(parent._connection.fileno())
                time.sleep(600)
            case b"call and never read":
                for number in range(300):
                    parent.send(CALL, request.number, NUMBER.pack(number) + b"?")
                    time.sleep(0.001)  # not all of them at once
                time.sleep(600)
        return b"answer"
    yield answer, b""
"""


class Site:
    def __init__(self, starter, nursery):
        self.starter = starter
        self._nursery = nursery

    async def child(self):
        child, _ = await open_child(self.starter, self._nursery, b"", max_bytes=1 << 20, on_log=print)
        return child


@pytest.fixture
def open_site(tmp_path, monkeypatch):
    (tmp_path / "starting_child.py").write_text(CHILD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    @asynccontextmanager
    async def opened(prepare="prepare", opening=bytes):
        functions = f"starting_child:{prepare}", "starting_child:open_answering"
        async with open_starter(*functions, opening) as starter, open_background() as nursery:
            await starter.prepared()
            yield Site(starter, nursery)

    return opened


async def answer_of(child, request, reply=None):
    exchange = Exchange()
    number = child.begin(request, exchange)
    assert number
    with trio.fail_after(30):
        async with exchange.replying(reply, lambda call, data: child.reply(number, call, data), child.kill):
            await exchange.done.wait()
    return exchange.answer()


async def test_children_go_to_who_asked_for_them_though_others_gave_up(open_site):
    """Wherever those were cancelled: before they had asked, while they waited, with the answer on its way."""
    async with open_site() as site:
        for steps in range(12):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(site.child)
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            child = await site.child()
            assert int(await answer_of(child, b"pid")) == child.started.pid
            child.kill()
        with trio.fail_after(30):  # and those that nobody wanted end
            while len(children_of(site.starter.pid)) > 0:  # noqa: ASYNC110 - other processes set no events
                await trio.sleep(0.01)


def children_of(pid):
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


async def test_who_waits_for_a_child_when_the_warm_parent_is_lost_gets_an_error_or_a_child_of_its_own(open_site):
    """With a queue of others behind; none of them gets a child that another asked for."""
    got, lost = [], []

    async def ask(site):
        try:
            child = await site.child()
        except ChildLost:
            lost.append(1)
        else:
            got.append((child, child.started.pid))

    async with open_site() as site:
        async with trio.open_nursery() as nursery:
            os.kill(site.starter.pid, signal.SIGSTOP)
            for _ in range(4):
                nursery.start_soon(ask, site)
            await trio.testing.wait_all_tasks_blocked()
            os.kill(site.starter.pid, signal.SIGKILL)
        assert len(lost) + len(got) == 4
        assert lost
        for child, pid in [*got, *[(child, child.started.pid) for child in [await site.child(), await site.child()]]]:
            assert int(await answer_of(child, b"pid")) == pid


async def test_who_waits_while_the_next_warm_parent_fails_waits_for_the_one_after_that(open_site, tmp_path, caplog):
    refusing = tmp_path / "refusing"
    async with open_site(opening=lambda: str(refusing).encode()) as site:
        refusing.touch()
        os.kill(site.starter.pid, signal.SIGKILL)
        with trio.fail_after(60):
            while site.starter.pid is not None:  # noqa: ASYNC110 - other processes set no events
                await trio.sleep(0.001)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(site.child)
                while not caplog.records:  # noqa: ASYNC110 - as above
                    await trio.sleep(0.01)
                refusing.unlink()
    assert "the warm parent cannot be started again" in caplog.text
    assert "not now" in caplog.text


async def test_a_fork_that_the_system_refuses_is_told_and_costs_nobody_else(open_site):
    """As it does when a program has forked up to the limit."""
    async with open_site("prepare_without_room") as site:
        warm = site.starter.pid
        with pytest.raises(ChildLost, match=r"no process can be forked: .*Resource temporarily unavailable"):
            await site.child()
        child = await site.child()
        assert int(await answer_of(child, b"pid")) == child.started.pid
        assert site.starter.pid == warm


@pytest.mark.parametrize("refused", ["socketpair", "pidfd_open"])
async def test_no_room_for_a_file_is_told_and_costs_nobody_else(open_site, monkeypatch, refused):
    def fails(*_):
        raise OSError(24, "Too many open files")

    async with open_site() as site:
        with monkeypatch.context() as patched:
            patched.setattr(
                f"dspex_trio.children.forking.{'socket' if refused == 'socketpair' else 'os'}.{refused}", fails
            )
            with pytest.raises(ChildLost):
                await site.child()
        child = await site.child()
        assert int(await answer_of(child, b"pid")) == child.started.pid


# ---- answers


async def test_what_ends_before_the_answer_does_not_swallow_it(open_site):
    """Threads end when they like, also between the moment when they are given up and the answer that says so."""
    seen = []
    async with open_site() as site:
        child = await site.child()
        exchange = Exchange(on_freed=lambda data: seen.append((data, exchange.done.is_set(), exchange.held)))
        child.begin(b"end before the answer", exchange)
        with trio.fail_after(30):
            await exchange.done.wait()
        assert exchange.answer() == b"answer"
        await trio.testing.wait_all_tasks_blocked()
        assert seen == [(b"it has ended", True, False)]
        assert child.open_exchanges == 0


async def test_an_answer_says_itself_that_something_goes_on(open_site):
    async with open_site() as site:
        child = await site.child()
        exchange = Exchange()
        child.begin(b"go on", exchange)
        with trio.fail_after(30):
            await exchange.done.wait()
        assert (exchange.held, exchange.freed, child.open_exchanges) == (True, False, 1)


async def test_an_end_without_an_answer_costs_the_child(open_site):
    async with open_site() as site:
        with pytest.raises(ChildLost, match="cannot be understood: ValueError: exchange 2 is over without an answer"):
            await answer_of(await site.child(), b"be over without an answer")


async def test_a_child_that_closed_its_connection_gets_nothing_more(open_site):
    async with open_site() as site:
        child = await site.child()
        child.begin(b"close the connection", Exchange())
        with trio.fail_after(30):
            while not child.ending:  # noqa: ASYNC110 - other processes set no events
                await trio.sleep(0.01)
        assert child.begin(b"pid", Exchange()) == 0
        with trio.fail_after(30):
            await child.gone.wait()


async def test_replies_that_a_child_does_not_read_count_as_calls(open_site):
    """Else they would pile up in this process."""

    async def reply(_data):
        await trio.lowlevel.checkpoint()
        return bytes(64 << 10)

    async with open_site() as site:
        with pytest.raises(ChildLost, match=f"more than {MAX_CALLS} calls"):
            await answer_of(await site.child(), b"call and never read", reply)
