"""A timeline tells what happened when, and says in plain words where that is not what was expected."""

import threading

import pytest
import trio

from dspex_trio.testing import Timeline, VirtualClock


async def test_what_happened_is_compared_by_order_and_time(virtual_clock):
    timeline = Timeline()
    timeline.record("SYNC")
    await trio.sleep(0.1)
    timeline.record("EXECUTE")
    await trio.sleep(4.9)
    timeline.record("deadline", kind="DEADLINE_EXCEEDED")
    timeline.expect("SYNC@0.0", "EXECUTE@0.1", "deadline@5.0")
    timeline.expect_exactly("SYNC", "EXECUTE@0.10", "deadline@5")


async def test_time_begins_with_the_timeline(virtual_clock):
    await trio.sleep(100)
    timeline = Timeline()
    await trio.sleep(1)
    timeline.record("later")
    timeline.expect_exactly("later@1.000")


async def test_what_is_not_named_does_not_count_unless_it_is_asked_for(virtual_clock):
    timeline = Timeline()
    for name in ("HYDRATE", "SYNC", "retry"):
        timeline.record(name)
    timeline.expect("SYNC@0.0")
    with pytest.raises(AssertionError, match=r"\+ retry@0\.000"):
        timeline.expect("SYNC@0.0", only=["retry"])
    with pytest.raises(AssertionError):
        timeline.expect_exactly("SYNC@0.0")


@pytest.mark.parametrize(
    ("expected", "line"),
    [
        (["a@0.0", "b@3.0"], "- b@3.0\n+ b@2.0"),
        (["a@0.0", "b@2.0", "c@4.0"], "- c@4.0"),
        (["b@2.0", "a@0.0"], "+ a@0.0\n  b@2.0\n- a@0.0"),
        (["a@0.0", "a@0.0", "b@2.0"], "- a@0.0"),
    ],
)
async def test_the_difference_can_be_read(virtual_clock, expected, line):
    """A wrong time, one that is missing, a wrong order and a wrong number are told each as what they are."""
    timeline = Timeline()
    timeline.record("a", why="because")
    await trio.sleep(2)
    timeline.record("b")
    with pytest.raises(AssertionError) as raised:
        timeline.expect(*expected)
    assert line in str(raised.value)
    assert "0.000 a why='because'" in str(raised.value)


@pytest.mark.parametrize("text", ["SYNC@", "SYNC@soon", "@1.0", "", "SYNC @1.0", "SYNC@-1"])
async def test_an_expectation_that_cannot_be_read_is_said_to_be_one(virtual_clock, text):
    """Else a slip of the pen would look like something that did not happen."""
    with pytest.raises(ValueError, match="an expectation is 'name@seconds'"):
        Timeline().expect(text)


@pytest.mark.parametrize("name", ["", "two words", "line\n"])
async def test_a_name_that_could_not_be_expected_is_refused(virtual_clock, name):
    with pytest.raises(ValueError, match="a word without white space"):
        Timeline().record(name)


async def test_a_name_may_hold_what_separates_it_from_its_time(virtual_clock):
    timeline = Timeline()
    timeline.record("fetch:a@b")
    timeline.expect("fetch:a@b@0.0")


async def test_nothing_is_expected_of_nothing(virtual_clock):
    Timeline().expect_exactly()
    with pytest.raises(AssertionError, match="all that happened:\nnothing"):
        Timeline().expect("a")


async def test_threads_record_too(virtual_clock):
    timeline = Timeline()
    threads = [threading.Thread(target=timeline.record, args=("thread",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert timeline.count("thread") == 8


def test_outside_trio_it_says_what_it_needs():
    with pytest.raises(RuntimeError, match="make it inside"):
        Timeline()


def test_a_clock_may_be_given_before_it_runs():
    """As a fixture does, which is made before the test's own run."""
    virtual_clock = VirtualClock()
    timeline = Timeline(virtual_clock)

    async def main():
        await trio.sleep(3)
        timeline.record("late")

    trio.run(main, clock=virtual_clock, instruments=[virtual_clock])
    timeline.expect_exactly("late@3.0")
