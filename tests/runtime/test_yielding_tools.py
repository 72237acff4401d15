"""Tools that yield, in programs: a call gives the list of the values, and closes the generator whatever happens."""

import functools
import threading

import dspy
import pytest
import trio
from dspy.utils import DummyLM

import dspex_trio as dspex
from dspex_trio.programs import yielding_tools as yielding
from dspex_trio.programs.registry import MODULE_REGISTRY, TOOL_REGISTRY


@pytest.fixture(autouse=True)
def registered():
    """Classes and tools that a test registers are gone afterwards."""
    before = [(registry, dict(registry)) for registry in (MODULE_REGISTRY, TOOL_REGISTRY)]
    yield
    for registry, content in before:
        registry.clear()
        registry.update(content)


@pytest.fixture
async def run():
    """What becomes of a program that calls the tool of that name."""

    @dspex.register("Calls")
    class Calls(dspy.Module):
        def __init__(self, helper):
            super().__init__()
            self.helper = helper

        def forward(self, n: int):
            return {"answer": self.helper(n=n)}

    async with dspex.open_runtime(dspex.Settings(max_trials=2, reply_margin_ms=200)) as runtime:

        async def run(tool, n=3, **options):
            program = {"python_class": "Calls", "dependencies": {"helper": {"tool": tool}}}
            return await runtime.run_trial(program, {"n": n}, **options)

        yield run


def numbers(n: int):
    """Counts."""
    for number in range(n):
        yield {"i": number}


async def numbers_later(n: int):
    """Counts on the loop."""
    for number in range(n):
        await trio.lowlevel.checkpoint()
        yield {"i": number}


def hands_one_on(n: int):
    """No generator by itself."""
    return numbers(n)


class Counts:
    def __call__(self, n: int):
        """Counts too."""
        yield from numbers(n)


@pytest.mark.parametrize("function", [numbers, numbers_later, hands_one_on, Counts(), functools.partial(numbers)])
async def test_a_call_gives_the_list_of_what_a_tool_yields(run, function):
    dspex.tool(name="numbers")(function)
    outcome = await run("numbers")
    assert isinstance(outcome, dspex.TrialSuccess), outcome
    assert outcome.prediction["answer"] == [{"i": 0}, {"i": 1}, {"i": 2}]


def test_a_tool_that_yields_is_described_like_any_other():
    for function in (numbers, Counts()):
        dspex.tool(function)
    assert TOOL_REGISTRY["numbers"].args == TOOL_REGISTRY["Counts"].args == {"n": {"type": "integer"}}
    assert TOOL_REGISTRY["numbers"].desc == "Counts."


@pytest.mark.parametrize("function", [numbers, numbers_later])
async def test_a_tool_that_yields_without_end_is_an_error_of_the_tool(run, function, monkeypatch):
    monkeypatch.setattr(yielding, "MAX_YIELDED", 2)
    dspex.tool(name="numbers")(function)
    assert (await run("numbers", 2)).prediction["answer"] == [{"i": 0}, {"i": 1}]
    outcome = await run("numbers", 3)
    assert outcome.kind.name == "TOOL_ERROR"
    assert "yields more than 2 values, which only a stream can take" in outcome.error_message


async def test_what_it_raises_is_an_error_of_the_tool(run):
    @dspex.tool
    def breaks(n: int):
        """Breaks off."""
        yield n
        raise LookupError("nothing more")

    outcome = await run("breaks")
    assert (outcome.kind.name, outcome.error_type) == ("TOOL_ERROR", "LookupError")


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_the_end_of_a_trial_closes_the_generator(run, asynchronous):
    begun, closed = threading.Event(), threading.Event()

    def waits(n: int):
        """Yields once."""
        try:
            yield n
            begun.set()
            threading.Event().wait(60)
        finally:
            closed.set()

    async def waits_later(n: int):
        """Yields once."""
        try:
            yield n
            begun.set()
            await trio.sleep_forever()
        finally:
            closed.set()

    dspex.tool(name="yields_once")(waits_later if asynchronous else waits)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, "yields_once")
        await trio.to_thread.run_sync(begun.wait, 60)
        nursery.cancel_scope.cancel()
    assert await trio.to_thread.run_sync(closed.wait, 60)


async def test_react_shows_its_model_the_list():
    dspex.tool(numbers)
    lm = DummyLM(
        [
            {"next_thought": "count", "next_tool_name": "numbers", "next_tool_args": {"n": 2}},
            {"next_thought": "done", "next_tool_name": "finish", "next_tool_args": {}},
            {"reasoning": "counted", "answer": "2"},
        ]
    )
    program = {
        "python_class": "dspy.ReAct",
        "signature": "q -> answer",
        "dependencies": {"tools": [{"tool": "numbers"}]},
    }
    async with dspex.open_runtime(lm=lm) as runtime:
        outcome = await runtime.run_trial(program, {"q": "?"})
    assert isinstance(outcome, dspex.TrialSuccess), outcome
    assert outcome.prediction["trajectory"]["observation_0"] == [{"i": 0}, {"i": 1}]


def test_a_stand_in_for_an_elixir_tool_that_yields_is_refused():
    for function in (numbers, numbers_later):
        with pytest.raises(TypeError, match="yields, and such a tool answers once: return a list"):
            dspex.elixir_tool(function)
