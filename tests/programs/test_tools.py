"""Elixir tools as DSPy's programs know tools."""

import dspy
import pytest

import dspex_trio as dspex
from dspex_trio.model import ToolParameter, ToolSpec
from dspex_trio.model.errors import InvalidSpec, StoreUnavailable, ToolError, VariableNotFound
from dspex_trio.programs.session import current_session
from dspex_trio.programs.tools import ElixirTool

from .fakes import Source, answers

SEARCH = ToolSpec(
    "search",
    "Search the archive.",
    (
        ToolParameter("query", "string", "What to look for.", required=True),
        ToolParameter("limit", "integer", default=5, constraints={"min": 1, "max": 50}),
        ToolParameter("kind", "string", constraints={"choices": ["book", "film"]}),
    ),
)
CLOCK = ToolSpec("clock", "What time it is.")


def offering(*specs, answer=lambda name, arguments: "found", **variables):
    source = Source(**variables)
    source.offered = list(specs)
    source.answer = answer
    return source


@pytest.fixture
def calls():
    """A program that calls its helper with the inputs as they come, and returns what it answers."""

    @dspex.register("Calls")
    class Calls(dspy.Module):
        def __init__(self, helper):
            super().__init__()
            self.helper = helper

        def forward(self, arguments):
            return {"answer": self.helper(**arguments)}

    return {"python_class": "Calls", "dependencies": {"helper": {"elixir_tool": "search"}}}


def test_what_a_session_says_of_a_tool_is_what_dspy_knows_of_it():
    """DSPy takes for required whatever has no default, so every optional argument has one."""
    tool = ElixirTool(SEARCH)
    assert (tool.name, tool.desc) == ("search", "Search the archive.")
    assert tool.args == {
        "query": {"type": "string", "description": "What to look for."},
        "limit": {"type": "integer", "minimum": 1, "maximum": 50, "default": 5},
        "kind": {"type": ["string", "null"], "enum": ["book", "film", None], "default": None},
    }
    function = tool.format_as_litellm_function_call()["function"]
    assert function["parameters"]["required"] == ["query"]


@pytest.mark.parametrize(
    ("constraints", "kind", "schema"),
    [
        ({"min_length": 1, "max_length": 3}, "list", {"type": "array", "minItems": 1, "maxItems": 3}),
        ({"minLength": 2, "maxLength": 3}, "text", {"type": "string", "minLength": 2, "maxLength": 3}),
        ({"minimum": 0.5}, "FLOAT", {"type": "number", "minimum": 0.5}),
        ({"enum": [1, 2]}, "any", {"enum": [1, 2]}),
        ({"min": "low", "choices": [], "max_length": -1, "$ref": "x", "type": 5}, "map", {"type": "object"}),
    ],
)
def test_constraints_become_schema_as_far_as_they_can_be_checked(constraints, kind, schema):
    """What is odd in them is left out: it would fail every call, and the tool itself checks again."""
    spec = ToolSpec("t", parameters=(ToolParameter("x", kind, required=True, constraints=constraints),))
    assert ElixirTool(spec).args == {"x": schema}


async def test_a_call_gets_to_the_session_with_defaults_for_what_was_left_out(trial, calls):
    source = offering(SEARCH, answer=lambda name, arguments: {"of": [name, arguments]})
    t = trial(source=source, **calls)
    fields = await t.in_worker(arguments={"query": "cats", "kind": None})
    assert fields == {"answer": {"of": ["search", {"query": "cats", "limit": 5}]}}


async def test_a_tool_that_declares_no_arguments_takes_any(trial, calls):
    source = offering(CLOCK, answer=lambda name, arguments: arguments)
    t = trial(source=source, python_class="Calls", dependencies={"helper": {"elixir_tool": "clock"}})
    assert await t.in_worker(arguments={"zone": "UTC"}) == {"answer": {"zone": "UTC"}}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({}, "'search' cannot be called like this: 'query' is missing; it takes query, limit (optional)"),
        ({"query": "x", "page": 2}, "'page' is unexpected"),
        ({"query": 3}, "Arg query is invalid: 3 is not of type 'string'"),
        ({"query": "x", "limit": "5"}, "'5' is not of type 'integer'"),
        ({"query": "x", "limit": True}, "True is not of type 'integer'"),
        ({"query": "x", "limit": 51}, "51 is greater than the maximum of 50"),
        ({"query": "x", "kind": "song"}, "is not one of"),
    ],
)
async def test_a_wrong_call_ends_before_it_leaves(trial, calls, arguments, told):
    source = offering(SEARCH)
    with pytest.raises(ToolError) as caught:
        await trial(source=source, **calls).in_worker(arguments=arguments)
    assert told in str(caught.value)
    assert source.called == []


async def test_what_a_tool_fails_with_is_the_trials_failure_when_the_program_lets_it_out(trial, calls):
    def fail(name, arguments):
        raise ToolError("Elixir tool 'search': index is gone")

    with pytest.raises(ToolError, match="Elixir tool 'search': index is gone"):
        await trial(source=offering(SEARCH, answer=fail), **calls).in_worker(arguments={"query": "x"})


async def test_a_store_that_is_away_during_a_call_is_not_the_tools_fault(trial, calls):
    """So that the caller knows that trying again may help."""

    def away(name, arguments):
        raise StoreUnavailable("Elixir tool 'search': the session store cannot be reached")

    with pytest.raises(StoreUnavailable):
        await trial(source=offering(SEARCH, answer=away), **calls).in_worker(arguments={"query": "x"})


async def test_an_agent_sees_failures_and_goes_on(trial):
    """DSPy shows its agents what went wrong, so that they can try something else."""
    asks = {"next_thought": "t", "next_tool_name": "search", "next_tool_args": {"query": "cats"}}
    wrong = {"next_thought": "t", "next_tool_name": "search", "next_tool_args": {"limit": 2}}
    ends = {"next_thought": "t", "next_tool_name": "finish", "next_tool_args": {}}
    results = iter([ToolError("Elixir tool 'search': busy"), "a cat"])

    def answer(name, arguments):
        if isinstance(result := next(results), Exception):
            raise result
        return result

    source = offering(SEARCH, CLOCK, answer=answer)
    t = trial(
        python_class="dspy.ReAct",
        signature="q -> a",
        dependencies={"tools": [{"elixir_tools": "*"}]},
        model=answers(asks, wrong, asks, ends, {"reasoning": "r", "a": "b"}),
        source=source,
    )
    assert (await t.in_worker(q="?"))["a"] == "b"
    seen = t.recording.trace[-1].inputs["trajectory"]
    assert "Elixir tool 'search': busy" in seen
    assert "'query' is missing" in seen
    assert "a cat" in seen
    assert source.called == [("search", {"query": "cats", "limit": 5})] * 2


async def test_tools_stand_anywhere_in_dependencies_and_beside_others(trial):
    @dspex.tool
    def lookup(topic: str) -> str:
        return topic

    @dspex.register("Takes")
    class Takes(dspy.Module):
        def __init__(self, tools, table, several):
            super().__init__()
            self.kept = {"tools": tools, "table": table, "several": several}

        def forward(self): ...

    t = await trial(
        python_class="Takes",
        dependencies={
            "tools": [{"tool": "lookup"}, {"elixir_tools": "*"}, "text"],
            "table": {"by": {"name": {"elixir_tool": "clock"}}},
            "several": {"elixir_tools": ["clock"]},
        },
        source=offering(SEARCH, CLOCK),
    ).ready()
    kept = t.module.kept
    assert [getattr(tool, "name", tool) for tool in kept["tools"]] == ["lookup", "search", "clock", "text"]
    assert kept["table"]["by"]["name"] is kept["tools"][2]
    assert [tool.name for tool in kept["several"]] == ["clock"]


@pytest.mark.parametrize(
    ("helper", "told"),
    [
        ({"elixir_tool": "seek"}, r"'helper': the session has no Elixir tool 'seek' \(it has: clock, search\)"),
        ({"elixir_tool": 3}, "'helper': an Elixir tool is given by its name"),
        ({"elixir_tools": ["search", "seek"]}, "no Elixir tool 'seek'"),
        ({"elixir_tools": "s*"}, 'elixir_tools takes "\\*"'),
        ([{"elixir_tools": [3]}], r"'helper\[0\]': an Elixir tool is given by its name"),
    ],
)
async def test_a_tool_that_the_session_does_not_have_is_the_specifications_fault(trial, calls, helper, told):
    with pytest.raises(InvalidSpec, match=told):
        await trial(source=offering(SEARCH, CLOCK), python_class="Calls", dependencies={"helper": helper}).ready()


async def test_tools_and_variables_are_asked_for_side_by_side(trial, calls):
    """A store that is far away costs one round trip for both."""
    source = offering(SEARCH, t=0.5)
    t = trial(source=source, config_space=(dspex.Binding("temperature", "t"),), **calls)
    await t.ready()
    assert sorted(source.began[:2]) == ["tools begin", "variables begin"]
    assert sorted(source.began[2:]) == ["tools end", "variables end"], "and the variables are not read again"
    assert t.variables["temperature"].value == 0.5


async def test_a_program_without_elixir_tools_does_not_ask_for_them(trial):
    source = offering(SEARCH, t=0.5)
    await trial(
        python_class="dspy.Predict",
        signature="q -> a",
        config_space=(dspex.Binding("temperature", "t"),),
        source=source,
    ).ready()
    assert source.began == ["variables begin", "variables end"]


async def test_of_reads_that_fail_together_the_tools_failure_is_told(trial, calls):
    class Gone(Source):
        async def tools(self):
            raise VariableNotFound("no session, say the tools")

        async def get_variables(self, identifiers):
            raise VariableNotFound("no session, say the variables")

    with pytest.raises(VariableNotFound, match="say the tools"):
        await trial(source=Gone(), config_space=(dspex.Binding("temperature", "t"),), **calls).ready()


async def test_agents_are_copied_from_a_prototype_while_the_session_offers_the_same_tools(trial):
    """Making an agent takes milliseconds; another description of a tool makes another agent."""
    program = {"python_class": "dspy.ReAct", "signature": "q -> a", "dependencies": {"tools": {"elixir_tools": "*"}}}
    model = answers(a="b")
    first = await trial(source=offering(SEARCH), model=model, **program).ready()
    again = await trial(source=offering(SEARCH), model=model, **program).ready()
    other = await trial(source=offering(SEARCH, CLOCK), model=model, **program).ready()
    assert (len(first.threads.runs), len(again.threads.runs), len(other.threads.runs)) == (1, 0, 1)
    assert "clock" in other.module.tools
    assert "clock" not in again.module.tools


async def test_a_tool_of_a_copied_agent_calls_the_session_of_its_own_trial(trial, calls):
    """One tool object serves all trials."""

    @dspex.register("CallsTwice", reusable=True)
    class CallsTwice(dspy.Module):
        def __init__(self, helper):
            super().__init__()
            self.helper = helper

        def forward(self):
            return {"answer": self.helper(query="x")}

    program = {"python_class": "CallsTwice", "dependencies": {"helper": {"elixir_tool": "search"}}}
    model = answers(a="b")
    for said in ("first", "second"):
        source = offering(SEARCH, answer=lambda name, arguments, said=said: said)
        assert await trial(source=source, model=model, **program).in_worker() == {"answer": said}


def test_outside_of_a_running_program_a_tool_has_no_session():
    with pytest.raises(ToolError, match="belongs to a running program"):
        ElixirTool(CLOCK)()
    with pytest.raises(ToolError, match="belongs to a running program"):
        current_session()
