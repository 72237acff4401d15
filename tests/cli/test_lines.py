"""The log's lines: in order, from a thread, and never waited for."""

import logging
import os
import threading

import pytest

from dspex_trio.cli.log import writer as module
from dspex_trio.cli.log.handing_over import MAX_RECORDS, HandedOver
from dspex_trio.cli.log.setup import LogLines
from dspex_trio.cli.log.writer import Lines


def note(count):
    return b"%d dropped\n" % count


@pytest.fixture
def pipe():
    """A pipe: its two ends."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


@pytest.fixture
def paused():
    """Starts the thread of `Lines` only when it is told to."""
    bodies = []

    def go():
        threading.Thread(target=bodies.pop(), daemon=True).start()

    go.start = bodies.append
    return go


def test_lines_are_written_in_the_order_in_which_they_came(pipe):
    lines = Lines(pipe[1], note)
    for number in range(100):
        lines.put(b"%d\n" % number)
    assert lines.flush(10)
    assert os.read(pipe[0], 4096).split() == [b"%d" % number for number in range(100)]


def test_nobody_waits_for_a_pipe_that_is_full_and_the_end_waits_no_longer_than_it_is_told(pipe):
    """As a log collector's that stands still; the interpreter is not held meanwhile either."""
    lines = Lines(pipe[1], note)
    for _ in range(3 * module.MAX_WAITING // 65_536):
        lines.put(b"x" * 65_535 + b"\n")
    assert lines._dropped
    assert not lines.flush(0.01)
    with pytest.raises(BlockingIOError):  # what stacks are written to never waits
        os.write(lines.unblocking, b"a stack")
    assert os.get_blocking(pipe[1])  # whoever shares the pipe notices nothing
    os.dup2(os.open(os.devnull, os.O_RDONLY), pipe[0])  # the reader is gone: nothing waits for it any more
    assert lines.flush(10)


def test_what_is_dropped_is_counted_and_told_where_it_is_missing(pipe, paused, monkeypatch):
    monkeypatch.setattr(module, "MAX_WAITING", 8)
    lines = Lines(pipe[1], note, paused.start)
    for text in (b"first\n", b"second\n", b"third\n"):
        lines.put(text)
    paused()
    assert lines.flush(10)
    lines.put(b"fourth\n")
    assert lines.flush(10)
    assert os.read(pipe[0], 4096) == b"first\n2 dropped\nfourth\n"


def test_a_line_alone_is_written_however_long_it_is(pipe, paused, monkeypatch):
    monkeypatch.setattr(module, "MAX_WAITING", 8)
    lines = Lines(pipe[1], note, paused.start)
    lines.put(b"longer than all that may wait\n")
    paused()
    assert lines.flush(10)
    assert os.read(pipe[0], 4096) == b"longer than all that may wait\n"


def test_lines_that_a_full_disk_does_not_take_are_counted_and_raise_nothing():
    target = os.open("/dev/full", os.O_WRONLY)
    try:
        lines = Lines(target, note)
        lines.put(b"one\n")
        lines.put(b"two\n")
        assert lines.flush(10)
        assert lines._dropped == 2
    finally:
        os.close(target)


def test_last_words_come_after_what_was_said_before_even_while_somebody_says_something(pipe):
    """A signal may come while the same thread, or another one, holds the lock."""
    lines = Lines(pipe[1], note)
    lines.put(b"before\n")
    with lines._lock:
        thread = threading.Thread(target=lines.last_words, args=(b"last\n",))
        thread.start()
        thread.join()
    assert lines.flush(10)
    assert os.read(pipe[0], 4096) == b"before\nlast\n"


def test_a_process_that_a_program_forked_writes_by_itself(pipe):
    """It has none of our threads."""
    lines = Lines(pipe[1], note)
    lines._process = -1
    lines.put(b"from a fork\n")
    assert os.read(pipe[0], 4096) == b"from a fork\n"


def test_a_record_that_cannot_be_formatted_is_told_and_raises_nothing(pipe):
    class Odd:
        def __str__(self):
            raise ValueError

    handler = LogLines(pipe[1], logging.Formatter("%(message)s"))
    handler.handle(logging.makeLogRecord({"name": "of.a.library", "msg": "%s", "args": (Odd(),)}))
    assert handler.lines.flush(10)
    told = os.read(pipe[0], 4096).decode()
    assert told == "a record of the logger of.a.library cannot be formatted: <class 'ValueError'>\n"


class Keeps(logging.Handler):
    """Keeps messages; of another thread's, when `let` allows it."""

    def __init__(self):
        super().__init__()
        self.kept = []
        self.came = threading.Semaphore(0)

    def emit(self, record):
        self.kept.append(record.getMessage())
        self.came.release()


class Waits(Keeps):
    def __init__(self):
        super().__init__()
        self.let = threading.Event()
        self.entered = threading.Event()

    def emit(self, record):
        self.entered.set()
        self.let.wait()
        super().emit(record)


@pytest.fixture
def root(monkeypatch):
    """The root logger's handlers, for this test."""
    handlers = []
    monkeypatch.setattr(logging.root, "handlers", handlers)
    return handlers


def record(message):
    return logging.makeLogRecord({"msg": message, "levelno": logging.INFO})


def test_a_handler_on_the_root_logger_that_waits_keeps_nobody_and_gets_all_that_there_is_room_for(root):
    ours, theirs = Keeps(), Waits()
    handed = HandedOver(ours)
    root[:] = [ours, theirs]
    handed.handle(record("0"))
    theirs.entered.wait()
    for number in range(1, MAX_RECORDS + 4):
        handed.handle(record(str(number)))
    theirs.let.set()
    for _ in range(MAX_RECORDS + 1):
        theirs.came.acquire()
    assert theirs.kept == [str(number) for number in range(MAX_RECORDS + 1)]
    handed.handle(record("later"))
    theirs.came.acquire()
    assert theirs.kept[-1] == "later"
    assert ours.kept == ["3 log records were not given to other handlers on the root logger, which take too long"]


def test_a_handler_on_the_root_logger_that_raises_is_told_to_ours_alone(root):
    class Raises(logging.Handler):
        def handle(self, record):
            raise ValueError

    ours, others = Keeps(), Keeps()
    root[:] = [ours, Raises(), others]
    HandedOver(ours).hand_over(record("said"))
    assert others.kept == ["said"]
    assert [each.partition(":")[0] for each in ours.kept] == ["a log handler on the root logger failed"]


def test_where_nobody_else_is_on_the_root_logger_nothing_is_handed_over(root):
    ours = Keeps()
    root[:] = [ours]
    handed = HandedOver(ours)
    handed.handle(record("said"))
    assert not handed._started
    assert ours.kept == []
