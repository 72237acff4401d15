"""Programs whose `forward` is asynchronous run as others do; none is a success without having run."""

import asyncio
import threading

import dspy
import pytest
import trio

import dspex_trio as dspex
from dspex_trio.model import LmStarted
from dspex_trio.model.errors import InvalidInput, InvalidSpec, ProgramError
from dspex_trio.store.elixir_tools import ELIXIR_TOOLS

from .fakes import answers

HOUR = 3600.0


class Asks(dspy.Module):
    def __init__(self):
        super().__init__()
        self.generate = dspy.Predict("question -> answer")


class OnlyAforward(Asks):
    async def aforward(self, question: str):
        return await self.generate.acall(question=question)


class AsyncForward(Asks):
    async def forward(self, question: str):
        return await self.generate.acall(question=question)


class ReturnsCoroutine(Asks):
    def forward(self, question: str):
        return self.generate.acall(question=question)


class ReturnsAwaitable(Asks):
    def forward(self, question: str):
        generate = self.generate

        class Later:
            def __await__(self):
                return generate.acall(question=question).__await__()

        return Later()


class AsyncForwardOfTheInstance(Asks):
    def __init__(self):
        super().__init__()

        async def forward(question: str):
            return await self.generate.acall(question=question)

        self.forward = forward


class AsyncCall(Asks):
    async def __call__(self, question: str):
        return await self.generate.acall(question=question)


SHAPES = [OnlyAforward, AsyncForward, ReturnsCoroutine, ReturnsAwaitable, AsyncForwardOfTheInstance, AsyncCall]


@pytest.mark.parametrize("shape", SHAPES)
async def test_an_asynchronous_program_is_run_and_recorded(trial, shape):
    dspex.register("Shape")(shape)
    t = trial(python_class="Shape", model=answers(answer="42"))
    assert await t.run(question="?") == {"answer": "42"}
    assert t.tree() == [("generate", 1)]


@pytest.mark.parametrize("shape", SHAPES)
async def test_its_inputs_are_checked_before_it_starts(trial, shape):
    dspex.register("Shape")(shape)
    t = trial(python_class="Shape")
    with pytest.raises(InvalidInput, match="'question' is missing"):
        await t.run()
    assert t.recording.trace == ()


async def test_the_language_model_that_it_awaits_itself_is_the_programs_own_call(trial):
    told = []

    @dspex.register("AsksItself")
    class AsksItself(dspy.Module):
        async def forward(self, question: str):
            return {"said": await dspy.settings.lm.acall(question)}

    t = trial(python_class="AsksItself", model=answers(answer="42"), watch=told.append)
    await t.run(question="?")
    [entry] = t.recording.trace
    assert (entry.class_name, len(entry.lm_calls)) == ("AsksItself", 1)
    assert isinstance(told[0], LmStarted)


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_a_generator_is_no_success_since_nothing_of_it_has_run(trial, asynchronous):
    ran = []

    class Yields(dspy.Module):
        def forward(self, question: str):
            ran.append(question)
            yield question

    class AsyncYields(dspy.Module):
        async def forward(self, question: str):
            ran.append(question)
            yield question

    dspex.register("Yields")(AsyncYields if asynchronous else Yields)
    with pytest.raises(ProgramError, match="generator"):
        await trial(python_class="Yields").run(question="?")
    assert ran == []


class Nothing(dspy.Module):
    pass


class ForwardIsNone(dspy.Module):
    forward = None


@pytest.mark.parametrize("shape", [Nothing, ForwardIsNone])
async def test_a_module_that_cannot_be_called_is_told_so(trial, shape):
    dspex.register("Shape")(shape)
    with pytest.raises(InvalidSpec, match="neither forward nor aforward"):
        await trial(python_class="Shape").run()


async def test_forward_runs_where_there_are_both(trial):
    @dspex.register("Both")
    class Both(dspy.Module):
        def forward(self):
            return {"ran": "forward"}

        async def aforward(self):
            return {"ran": "aforward"}

    assert await trial(python_class="Both").run() == {"ran": "forward"}


async def test_each_trial_has_a_loop_of_its_own_which_is_closed_after_it(trial):
    loops = []

    @dspex.register("Loops")
    class Loops(dspy.Module):
        async def forward(self):
            self.task = asyncio.create_task(asyncio.Event().wait())  # left behind
            loops.append(asyncio.get_running_loop())
            return {"done": True}

    for _ in range(2):
        assert await trial(python_class="Loops").in_worker() == {"done": True}
    assert loops[0] is not loops[1]
    assert all(loop.is_closed() for loop in loops)


async def test_what_it_raises_comes_out_as_it_is(trial):
    @dspex.register("Raises")
    class Raises(dspy.Module):
        async def forward(self):
            await asyncio.sleep(0)
            raise LookupError("nothing there")

    with pytest.raises(LookupError, match="nothing there"):
        await trial(python_class="Raises").run()


# ---- tools, and the ladder


@pytest.fixture
async def runtime(virtual_clock):
    settings = dspex.Settings(max_trials=1, max_trial_seconds=1e6)
    async with dspex.open_runtime(settings, lm=answers(answer="42")) as runtime:
        yield runtime


async def test_an_asynchronous_tool_that_is_awaited_leaves_the_programs_loop_free(virtual_clock, runtime):
    """Both calls wait for each other: one at a time they would wait for ever."""
    arrived = trio.Event()
    waiting = []

    @dspex.tool
    async def meet(name: str) -> str:
        """Wait for the other one."""
        waiting.append(name)
        if len(waiting) == 2:
            arrived.set()
        await arrived.wait()
        return name

    @dspex.register("Meets")
    class Meets(dspy.Module):
        def __init__(self, tool):
            super().__init__()
            self.tool = tool

        async def forward(self):
            return {"met": await asyncio.gather(self.tool.acall(name="a"), self.tool.acall(name="b"))}

    outcome = await runtime.run_trial(dspex.Program("Meets", dependencies={"tool": {"tool": "meet"}}), {})
    assert outcome.prediction == {"met": ["a", "b"]}


async def test_a_tool_that_is_awaited_is_refused_without_its_arguments(trial):
    @dspex.tool
    def look(city: str) -> str:
        """Look."""
        return city

    @dspex.register("Looks")
    class Looks(dspy.Module):
        def __init__(self, tool):
            super().__init__()
            self.tool = tool

        async def forward(self, city: str | None = None):
            return {"saw": await self.tool.acall(**({} if city is None else {"city": city}))}

    program = {"python_class": "Looks", "dependencies": {"tool": {"tool": "look"}}}
    assert await trial(**program).run(city="Oslo") == {"saw": "Oslo"}
    with pytest.raises(dspex.TrialError, match="cannot be called like this"):
        await trial(**program).run()


async def test_a_tool_of_the_session_can_be_awaited(virtual_clock, runtime, monkeypatch):
    monkeypatch.setitem(ELIXIR_TOOLS, "search_later", None)  # gone after the test, whoever puts one there
    del ELIXIR_TOOLS["search_later"]

    @dspex.elixir_tool
    def search_later(query: str) -> list[str]:
        """Search."""
        return [f"all about {query}"]

    @dspex.register("Searches")
    class Searches(dspy.Module):
        def __init__(self, search):
            super().__init__()
            self.search = search

        async def forward(self, q: str):
            return {"found": await self.search.acall(query=q)}

    session = runtime.session("s1")
    await session.initialize()
    program = dspex.Program("Searches", dependencies={"search": {"elixir_tool": "search_later"}})
    outcome = await runtime.run_trial(program, {"q": "life"}, session=session)
    assert outcome.prediction == {"found": ["all about life"]}


async def test_at_the_deadline_its_task_is_cancelled_and_may_clean_up(virtual_clock, runtime):
    seen = []

    @dspex.register("Waits")
    class Waits(dspy.Module):
        async def forward(self):
            try:
                await asyncio.Event().wait()
            finally:
                seen.append("cleaned up")
                await asyncio.sleep(0)
                seen.append("whole")

    with trio.fail_after(HOUR):
        outcome = await runtime.run_trial(dspex.Program("Waits"), {})
    assert (outcome.kind.name, outcome.details["rung"], outcome.details["stuck"]) == (
        "DEADLINE_EXCEEDED", "wake", "false",
    )  # fmt: skip
    assert seen == ["cleaned up", "whole"]


async def test_a_tool_in_the_loop_of_the_worker_ends_with_a_program_that_awaits_it(virtual_clock, runtime):
    ended = threading.Event()

    @dspex.tool
    async def hangs() -> str:
        """Never returns."""
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    @dspex.register("Awaits")
    class Awaits(dspy.Module):
        def __init__(self, tool):
            super().__init__()
            self.tool = tool

        async def aforward(self):
            return {"never": await self.tool.acall()}

    program = dspex.Program("Awaits", dependencies={"tool": {"tool": "hangs"}})
    with trio.fail_after(HOUR):
        outcome = await runtime.run_trial(program, {})
    assert (outcome.kind.name, outcome.details["stuck"]) == ("DEADLINE_EXCEEDED", "false")
    assert ended.is_set()
