"""Trace, usage and cost are what the provider really served. `just check-books` does it a thousand times."""

from .books import KINDS, differences, run_all

TRIALS = 5 * len(KINDS)


async def test_trace_usage_and_cost_of_mixed_concurrent_trials_equal_the_providers_books():
    ran, books = await run_all(TRIALS, 16, 1)
    assert len(ran) == TRIALS
    assert differences(ran, books) == []


async def test_a_wrong_entry_in_the_books_is_found():
    """The comparison can fail."""
    ran, books = await run_all(len(KINDS), 8, 1)
    billed = [entry for entry in books.entries if entry.serial is not None and entry.asker.startswith("t")]
    billed[0].completion += 1
    assert any("usage" in each for each in differences(ran, books))
    billed[0].completion -= 1
    books.entries.remove(billed[1])
    assert any("answers" in each for each in differences(ran, books))
