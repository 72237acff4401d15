"""Calls of Elixir tools: what is repeated, and whose fault a status is."""

import pytest
import trio

from dspex_trio.model import MISSING, ToolParameter, ToolSpec
from dspex_trio.model.errors import StoreUnavailable, ToolError, VariableNotFound
from dspex_trio.wire import encode_any
from dspex_trio.wire.generated import bridge_pb2

from .fakes import NEVER, UNAVAILABLE, UNIMPLEMENTED, ScriptedStore, status


def answering(**reply):
    return lambda request: bridge_pb2.ExecuteElixirToolResponse(**reply)


async def test_a_call_that_broke_is_not_repeated():
    """It may have run; a tool that sends a mail must not send two."""
    store = ScriptedStore(ExecuteElixirTool=UNAVAILABLE)
    with pytest.raises(StoreUnavailable, match=r"Elixir tool 'mail': .* cannot be reached: connection refused") as info:
        await store.session().call_tool("mail", {})
    assert info.value.retryable
    assert store.calls == ["ExecuteElixirTool"]


@pytest.mark.parametrize("code", ["NOT_FOUND", "INVALID_ARGUMENT", "INTERNAL", "UNKNOWN", "RESOURCE_EXHAUSTED"])
async def test_any_status_but_those_of_the_way_to_the_store_is_the_tools(code):
    store = ScriptedStore(ExecuteElixirTool=status(code, "no such tool"))
    with pytest.raises(ToolError, match=r"^Elixir tool 'x': no such tool$"):
        await store.session().call_tool("x", {})


async def test_a_status_without_text_is_named():
    with pytest.raises(ToolError, match=r"^Elixir tool 'x': INTERNAL$"):
        await ScriptedStore(ExecuteElixirTool=status("INTERNAL")).session().call_tool("x", {})


async def test_a_store_without_tools_is_named_as_that():
    store = ScriptedStore(ExecuteElixirTool=UNIMPLEMENTED, GetExposedElixirTools=UNIMPLEMENTED)
    with pytest.raises(StoreUnavailable, match="does not have the call"):
        await store.session().call_tool("x", {})
    with pytest.raises(StoreUnavailable, match="does not have the call"):
        await store.session().tools()


async def test_a_stores_own_deadline_exceeded_is_our_deadline(virtual_clock):
    """It travelled along; the trial ends as what it is."""
    store = ScriptedStore(ExecuteElixirTool=status("DEADLINE_EXCEEDED"))
    with trio.move_on_after(2) as scope:
        await store.session().call_tool("x", {})
    assert scope.cancelled_caught


async def test_a_call_that_is_cancelled_leaves_nothing_behind(virtual_clock):
    store = ScriptedStore(ExecuteElixirTool=NEVER)
    with trio.move_on_after(1):
        await store.session().call_tool("x", {})
    assert store.running == 0


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        ({"success": False}, "it failed, and does not say why"),
        ({"success": True, "result": {"type_url": "x", "value": b"y"}}, "its answer cannot be decoded"),
    ],
)
async def test_an_answer_that_is_none_is_the_tools_failure(reply, told):
    with pytest.raises(ToolError, match=f"^Elixir tool 'x': {told}"):
        await ScriptedStore(ExecuteElixirTool=answering(**reply)).session().call_tool("x", {})


async def test_an_argument_without_a_json_form_is_refused_before_it_is_sent():
    store = ScriptedStore()
    with pytest.raises(ToolError, match="Elixir tool 'x': argument when"):
        await store.session().call_tool("x", {"when": object()})
    assert store.calls == []


async def test_the_list_of_tools_is_asked_for_again_while_the_store_restarts(virtual_clock):
    """A question may be repeated."""
    tool = bridge_pb2.ToolSpec(name="search", description="Search.")
    tool.parameters.add(name="limit", type="integer", default_value=encode_any(5), validation_json='{"min": 1}')
    tool.parameters.add(name="odd", default_value={"type_url": "x", "value": b"y"}, validation_json="[1")
    tool.parameters.add(name="q", type="string", required=True, default_value=encode_any("?"))
    found = bridge_pb2.GetExposedElixirToolsResponse(tools=[tool])
    store = ScriptedStore(GetExposedElixirTools=[UNAVAILABLE, lambda request: found])
    assert await store.session().tools() == [
        ToolSpec(
            "search",
            "Search.",
            (
                ToolParameter("limit", "integer", default=5, constraints={"min": 1}),
                ToolParameter("odd", default=MISSING),
                ToolParameter("q", "string", required=True),
            ),
        )
    ], "and what cannot be read of a description is left out"


async def test_without_a_session_there_is_nobody_to_ask():
    store = ScriptedStore()
    with pytest.raises(VariableNotFound, match="no session is named"):
        await store.session("").tools()
    assert store.calls == []
