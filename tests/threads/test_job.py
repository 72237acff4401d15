"""What a job promises by itself, without the threads that carry it out."""

import socket
import threading

import pytest

from dspex_trio.threads import Job, JobCancelled
from dspex_trio.threads.ladder.job import shut_down


def in_another_thread(function):
    """A job's code never runs in the thread that made the job."""
    box = []

    def run():
        try:
            box.append(function())
        except BaseException as error:  # noqa: BLE001 - that is what is looked at
            box.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10)
    return box[0]


def test_a_callback_of_a_job_that_is_over_is_called_at_once_and_one_taken_back_is_not():
    job, called = Job(), []
    job.on_cancel(lambda: called.append("first"))
    job.on_cancel(lambda: called.append("taken back"))()
    job.cancel()
    job.on_cancel(lambda: called.append("late"))
    job.cancel()
    assert called == ["first", "late"]


def test_a_callback_that_fails_is_logged_and_the_others_are_called(caplog):
    job, called = Job("j"), []
    job.on_cancel(lambda: 1 / 0)
    job.on_cancel(lambda: called.append("second"))
    job.cancel()
    assert called == ["second"]
    assert "callback of the cancelled job 'j'" in caplog.text


def test_a_job_that_is_over_refuses_new_operations_and_leaves_the_socket_alone():
    """It may be one of another trial's, or of the process, that the job has not used yet."""
    job = Job()
    job.cancel()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        stop = in_another_thread(lambda: job.enter(ours))
        assert (type(stop), stop.rung) == (JobCancelled, "check")
        theirs.send(b"x")
        assert ours.recv(1) == b"x"


def test_an_operation_that_ends_after_the_cancel_takes_its_socket_along():
    """It may be half-read: nobody may get it from a pool and read the rest of this job's reply."""
    job = Job()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        job.enter(ours)
        job.cancel()
        stop = in_another_thread(lambda: job.leave(ours))
        assert (type(stop), stop.rung) == (JobCancelled, "wake")
        assert theirs.recv(1) == b""


def test_a_socket_is_not_woken_once_its_operation_has_ended():
    job = Job()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        job.enter(ours)
        job.leave(ours)
        job.cancel()
        job.wake()
        ours.send(b"x")
        assert theirs.recv(1) == b"x"


def test_a_closed_sockets_number_is_never_shut_down_under_its_next_owner():
    """The number is looked up and used without giving up the GIL, and a close forgets it first."""
    stop = threading.Event()
    current = [socket.socketpair()]

    def close_and_reopen():
        while not stop.is_set():
            pair = current[0]
            pair[0].close()
            pair[1].close()
            # These take the numbers just freed, and must not be touched by anybody.
            innocent = socket.socketpair()
            current[0] = socket.socketpair()
            innocent[0].send(b"x")
            if innocent[1].recv(1) != b"x":
                broken.append(innocent)
            for sock in innocent:
                sock.close()

    broken = []
    thread = threading.Thread(target=close_and_reopen)
    thread.start()
    try:
        for _ in range(20_000):
            shut_down(current[0][0])
    finally:
        stop.set()
        thread.join(10)
    for sock in current[0]:
        sock.close()
    assert broken == []


def test_an_interrupt_on_its_way_stays_the_one_that_it_is():
    """Clean-up code that checks once more must not hide what ended the job."""
    job = Job()
    job.cancel()

    def work():
        try:
            job.woken()
        finally:
            job.check()

    assert in_another_thread(work).rung == "wake"


def test_details_tell_nothing_of_a_job_that_was_not_cancelled():
    job = Job()
    job.ended()
    assert job.details() == {}


@pytest.mark.parametrize(("told", "rung"), [((), "returned"), (("raise",), "raise")])
def test_details_tell_what_ended_the_job(told, rung):
    job = Job()
    job.cancel()
    assert (job.details()["rung"], job.details()["stuck"]) == ("abandon", "true")
    job.ended(*told)
    assert (job.details()["rung"], job.details()["stuck"]) == (rung, "false")
    assert float(job.details()["rung_ms"]) >= 0
