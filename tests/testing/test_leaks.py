"""What a block leaves behind is named, with the place that made it; what ends in time is none of it."""

import socket
import threading

import pytest
import trio

from dspex_trio.testing import Leaked, no_leaks


def wait_for_ever(event):
    event.wait()


def test_a_block_that_leaves_nothing_passes():
    with no_leaks():
        thread = threading.Thread(target=len, args=("",))
        thread.start()
        with socket.socket():
            pass
        thread.join()


def test_a_thread_is_told_by_name_with_where_it_is_and_where_it_was_started():
    event = threading.Event()
    thread = threading.Thread(target=wait_for_ever, args=(event,), name="forgotten")
    try:
        with pytest.raises(Leaked) as raised, no_leaks(grace=0):
            thread.start()
    finally:
        event.set()
        thread.join()
    assert "thread 'forgotten'" in str(raised.value)
    assert "in wait_for_ever" in str(raised.value)
    assert "started at:\n" in str(raised.value)
    assert "in test_a_thread_is_told" in str(raised.value)


def test_a_thread_that_is_about_to_end_may_do_so():
    """It ends by something that happens only after the block: no thread is a leak within the grace."""
    event = threading.Event()
    joined = []

    class Ending(threading.Thread):
        def join(self, timeout=None):
            joined.append(timeout)
            event.set()
            super().join()

    with no_leaks():
        Ending(target=event.wait).start()
    assert joined


def test_a_socket_is_told_with_where_it_was_made():
    kept = []

    def keep_one_of_two():
        with no_leaks():
            kept.extend(socket.socketpair())
            kept[0].close()

    with pytest.raises(Leaked, match=r"socket <socket\.socket") as raised:
        keep_one_of_two()
    kept[1].close()
    assert str(raised.value).count("made at:") == 1
    assert "in keep_one_of_two" in str(raised.value)


async def test_a_task_is_told_with_where_it_is():
    async def forgotten():
        await trio.sleep_forever()

    async def leave_one(nursery):
        with no_leaks():
            nursery.start_soon(forgotten)
            await trio.testing.wait_all_tasks_blocked()

    async with trio.open_nursery() as nursery:
        with pytest.raises(Leaked, match=r"task '.*forgotten'") as raised:
            await leave_one(nursery)
        nursery.cancel_scope.cancel()
    assert "in forgotten" in str(raised.value)


async def test_idle_threads_of_trios_cache_are_none():
    with no_leaks():
        await trio.to_thread.run_sync(len, "")


def test_what_else_is_counted_may_not_grow():
    sessions = {"before"}
    with no_leaks(sessions=lambda: len(sessions)):
        sessions.clear()
    with pytest.raises(Leaked, match="sessions: 2, and 0 before"), no_leaks(sessions=lambda: len(sessions)):
        sessions.update("ab")


def test_an_error_of_the_block_comes_out_as_it_is():
    with pytest.raises(KeyError), no_leaks(things=iter([0, 1]).__next__):
        raise KeyError


def test_nothing_stays_patched():
    methods = (threading.Thread.start, socket.socket.__init__)
    with no_leaks():
        assert threading.Thread.start is not methods[0]
    assert (threading.Thread.start, socket.socket.__init__) == methods
