import dspy
import pytest

import dspex_trio as dspex
from dspex_trio.model.errors import ToolError
from dspex_trio.programs import MODULE_REGISTRY
from dspex_trio.programs.registry import TOOL_REGISTRY, is_reusable


def test_a_registered_class_is_found_by_its_name_and_stays_what_it_was():
    class Mine(dspy.Module):
        pass

    assert dspex.register("Mine")(Mine) is Mine
    assert dspex.get_module_class("Mine") is Mine
    assert MODULE_REGISTRY["Mine"] is Mine


@pytest.mark.parametrize("thing", [int, dspy.Example, dspy.Predict("a -> b"), "Predict", None])
def test_only_module_subclasses_can_be_registered(thing):
    with pytest.raises(TypeError, match=r"^Only dspy\.Module subclasses can be registered\.$"):
        dspex.register("Thing")(thing)
    assert "Thing" not in MODULE_REGISTRY


def test_a_name_is_registered_once():
    dspex.register("Twice")(dspy.Predict)
    with pytest.raises(ValueError, match=r"^Module 'Twice' is already registered\.$"):
        dspex.register("Twice")(dspy.ReAct)
    assert dspex.get_module_class("Twice") is dspy.Predict


def test_an_unknown_name_is_a_key_error():
    with pytest.raises(KeyError) as caught:
        dspex.get_module_class("Nobody")
    assert caught.value.args == ("No dspy.Module registered with name 'Nobody'.",)


def test_only_dspys_own_classes_and_those_promised_are_reusable():
    """A class whose tools close over `self` would make every copy work on the first instance's state."""

    class Mine(dspy.Module):
        pass

    class Promised(dspy.Module):
        pass

    dspex.register("Mine")(Mine)
    dspex.register("Promised", reusable=True)(Promised)
    assert [is_reusable(cls) for cls in (dspy.Predict, dspy.ReAct, Mine, Promised)] == [True, True, False, True]


def test_a_tool_is_registered_bare_or_under_another_name():
    @dspex.tool
    def lookup(topic: str) -> str:
        """Look a topic up."""
        return topic.upper()

    @dspex.tool(name="search", description="Search the web.")
    def find(query: str, limit: int = 3) -> str:
        return query * limit

    assert lookup("a") == "A", "the decorator leaves the function as it is"
    assert (TOOL_REGISTRY["lookup"].desc, set(TOOL_REGISTRY["lookup"].args)) == ("Look a topic up.", {"topic"})
    search = TOOL_REGISTRY["search"]
    assert (search.name, search.desc, search(query="a")) == ("search", "Search the web.", "aaa")
    with pytest.raises(ValueError, match="'search' is already registered"):
        dspex.tool(name="search")(lookup)


def test_a_tool_refuses_a_call_without_its_required_arguments():
    """DSPy would run the function and show the model whatever Python says."""

    @dspex.tool
    def divide(by: int) -> float:
        return 1 / by

    with pytest.raises(ValueError, match="tool 'divide' cannot be called like this: missing a required argument: 'by'"):
        TOOL_REGISTRY["divide"]()


def test_an_asynchronous_tool_is_one_of_a_running_program():
    """There is no loop to run it in anywhere else; its schema is that of the function."""

    @dspex.tool
    async def fetch(url: str) -> str:
        """Fetch it."""
        return url

    tool = TOOL_REGISTRY["fetch"]
    assert (tool.name, tool.desc, tool.args) == ("fetch", "Fetch it.", {"url": {"type": "string"}})
    with pytest.raises(ToolError, match="belongs to a running program"):
        tool(url="x")
