"""A scripted tool looks like the real one, answers what it is told to, and knows how it was called."""

import dspy
import pytest
import trio

import dspex_trio as dspex
from dspex_trio.testing import (
    Fails,
    Hang,
    Returns,
    ScriptedLM,
    ScriptedTool,
    Timeline,
    TrialEnvironment,
    VirtualClock,
)


def search(word: str, most: int = 3) -> list[str]:
    """Search for a word."""
    raise AssertionError("the real one")


LOOK_UP = {"next_thought": "look", "next_tool_name": "search", "next_tool_args": {"word": "trio"}}
FINISH = {"next_thought": "done", "next_tool_name": "finish", "next_tool_args": {}}
ANSWER = {"reasoning": "r", "answer": "a"}
AGENT = {
    "python_class": "dspy.ReAct",
    "signature": "question -> answer",
    "dependencies": {"tools": [{"tool": "search"}]},
}


def in_virtual_time(main):
    clock = VirtualClock()
    timeline = Timeline(clock)
    return trio.run(main, timeline, clock=clock, instruments=[clock]), timeline


def test_an_agent_calls_it_as_the_real_one():
    tool = ScriptedTool(search, ["nursery"], LookupError("nothing there"))
    lm = ScriptedLM(LOOK_UP, LOOK_UP, FINISH, ANSWER)
    outcome = TrialEnvironment(lm=lm, tools={"search": tool.function}).run_sync(AGENT, question="?")
    assert outcome.prediction["answer"] == "a"
    assert [call.arguments for call in tool.calls] == [{"word": "trio"}, {"word": "trio"}]
    assert tool.calls[0].result == Returns(["nursery"])
    trajectory = outcome.prediction["trajectory"]
    assert "nursery" in str(trajectory["observation_0"])
    assert "nothing there" in trajectory["observation_1"]
    described = str(lm.asked[0].messages)
    assert "Search for a word." in described
    assert "most" in described


def test_delays_are_virtual_and_a_hang_ends_with_the_deadline():
    async def main(timeline):
        tool = ScriptedTool(search, Returns(["x"], delay=60), Fails(LookupError("no"), delay=60), Hang())
        environment = TrialEnvironment(
            lm=ScriptedLM(LOOK_UP, LOOK_UP, LOOK_UP), tools={"search": tool.function}, timeout=300, timeline=timeline
        )
        outcome = await environment.run(AGENT, question="?")
        return outcome, tool

    (outcome, tool), timeline = in_virtual_time(main)
    assert (outcome.kind.name, outcome.details["rung"]) == ("DEADLINE_EXCEEDED", "wake")
    assert [call.at for call in tool.calls] == [0.0, 60.0, 120.0]
    timeline.expect("tool_finished@60.0", "tool_finished@120.0", "tool_finished@300.0", "deadline@300.0")


def test_a_call_without_a_result_fails_and_says_so():
    class Calls(dspy.Module):
        def __init__(self):
            super().__init__()
            self.tool = dspy.Tool(tool.function)

        def forward(self):
            return self.tool(word="trio")

    tool = ScriptedTool(search)
    outcome = TrialEnvironment().run_sync(Calls)
    assert outcome.kind.name == "TOOL_ERROR"
    assert "the tool 'search' has no result for call 1" in outcome.error_message
    assert tool.calls[0].result is None


def test_a_default_answers_every_other_call_and_results_may_be_left():
    tool = ScriptedTool(search, "first", default="others")
    assert tool.unused == 1
    assert [tool.function("a"), tool.function(word="b", most=2), tool.function("c")] == ["first", "others", "others"]
    assert [call.arguments for call in tool.calls] == [{"word": "a"}, {"word": "b", "most": 2}, {"word": "c"}]
    assert tool.unused == 0


def test_it_takes_what_the_real_one_takes():
    tool = ScriptedTool(search, "x")
    with pytest.raises(TypeError, match="missing a required argument: 'word'"):
        tool.function()
    with pytest.raises(ValueError, match="a Hang never answers"):
        Returns(1, delay=float("inf"))


def test_a_registered_tool_can_be_scripted_too():
    tool = ScriptedTool(search, ["x"])
    dspex.tool(name="tests.search")(tool.function)
    try:
        program = {**AGENT, "dependencies": {"tools": [{"tool": "tests.search"}]}}
        step = {**LOOK_UP, "next_tool_name": "tests.search"}
        outcome = TrialEnvironment(lm=ScriptedLM(step, FINISH, ANSWER)).run_sync(program, question="?")
    finally:
        from dspex_trio.programs.registry import TOOL_REGISTRY

        del TOOL_REGISTRY["tests.search"]
    assert isinstance(outcome, dspex.TrialSuccess)
    assert len(tool.calls) == 1
