"""Waits that few programs know: in somebody's Trio loop, for signals, through modules that were executed anew."""

import importlib
import signal
import socket
import sys
import threading

import pytest
import trio

from dspex_trio.threads import Job, Slots, hooks, open_threads

# It may be told before it waits.
STOPPED = {"wake", "check"}


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
    return job.details()


async def test_what_a_thread_waits_for_in_a_trio_loop_is_cancelled_with_it():
    token = trio.lowlevel.current_trio_token()
    ended = []

    def work(started):
        async def forever():
            started()
            try:
                await trio.sleep_forever()
            finally:
                ended.append(True)

        trio.from_thread.run(forever, trio_token=token)

    assert (await cancelled(work))["rung"] in STOPPED
    assert ended == [True]


async def test_what_a_trio_loop_answers_comes_back(threads):
    token = trio.lowlevel.current_trio_token()

    async def double(number):
        await trio.lowlevel.checkpoint()
        return 2 * number

    def work():
        return trio.from_thread.run(double, 21, trio_token=token)

    assert await threads.run(work, job=Job(), slot=Slots(1).acquire_nowait()) == 42


@pytest.mark.skipif(sys.platform != "linux", reason="sigtimedwait")
@pytest.mark.parametrize("name", ["sigwait", "sigwaitinfo"])
async def test_a_wait_for_signals_is_ended(name):
    def work(started):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
        started()
        getattr(signal, name)({signal.SIGUSR2})

    assert (await cancelled(work))["rung"] in STOPPED


@pytest.mark.skipif(sys.platform != "linux", reason="sigtimedwait")
async def test_a_signal_that_comes_is_told_as_ever(threads):
    def work():
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR2)
        one = signal.sigwait([signal.SIGUSR2])
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR2)
        return one, signal.sigwaitinfo({signal.SIGUSR2}).si_signo

    assert await threads.run(work, job=Job(), slot=Slots(1).acquire_nowait()) == (signal.SIGUSR2, signal.SIGUSR2)


@pytest.fixture
def _socket_as_it_was():
    before = dict(vars(socket))
    yield
    vars(socket).clear()
    vars(socket).update(before)


@pytest.mark.usefixtures("_socket_as_it_was")
async def test_a_socket_of_a_module_that_was_executed_anew_is_woken_too():
    def work(started):
        importlib.reload(socket)
        one, other = socket.socketpair()
        with one, other:
            started()
            one.recv(1)

    assert (await cancelled(work))["rung"] in STOPPED


@pytest.mark.usefixtures("_socket_as_it_was")
def test_a_module_that_was_executed_anew_is_as_it_was_when_nobody_needs_it_otherwise():
    lookup = socket.getaddrinfo
    with hooks():
        importlib.reload(socket)
        assert socket.getaddrinfo.__code__ is not lookup.__code__
        assert "recv" in vars(socket.socket)
    assert socket.getaddrinfo.__code__.co_filename == lookup.__code__.co_filename
    assert "recv" not in vars(socket.socket)
    assert importlib.reload.__module__ == "importlib"
    assert not hasattr(importlib.reload, "__wrapped__")
