"""Streamed tools against the servicer alone: who sets the pace, and what ends them."""

from contextlib import aclosing

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from dspex_trio import rpc
from dspex_trio.model.errors import ToolError
from dspex_trio.snakepit.bridge import WorkerBridge
from dspex_trio.wire import decode_json, encode_any
from dspex_trio.wire.generated import bridge_pb2


class Counting:
    """Tools of which each counts, as the operator's ones give their values."""

    def __init__(self, upto=1_000_000):
        self.given = 0
        self.ended = False
        self._upto = upto

    async def call(self, name, arguments, take=None):
        try:
            while self.given < self._upto:
                self.given += 1
                await take(encode_any(self.given if name == "counts" else "x" * 2000))
        finally:
            self.ended = True
        if name == "fails":
            raise ToolError("no more")


def stream(tools, name="counts"):
    bridge = WorkerBridge(tools, None, adopted=lambda _: None, redact=str, max_bytes=1000)
    request = bridge_pb2.ExecuteToolRequest(session_id="s", tool_name=name)
    return bridge.ExecuteStreamingTool(request, rpc.Call("/x"))


async def test_a_tool_goes_on_when_its_value_is_taken():
    """However slow the reader is, nothing piles up: one value is on its way, and none waits behind it."""
    tools = Counting()
    async with aclosing(stream(tools)) as chunks:
        for number in range(1, 10):
            chunk = await anext(chunks)
            assert decode_json(chunk.data) == number
            await wait_all_tasks_blocked()
            assert tools.given == number + 1
    assert tools.ended, "who stops reading ends the tool"


async def test_the_chunks_are_numbered_and_an_empty_one_is_final():
    chunks = [chunk async for chunk in stream(Counting(2))]
    assert [(chunk.chunk_id, chunk.data, chunk.is_final) for chunk in chunks] == [
        ("0", b"1", False),
        ("1", b"2", False),
        ("2", b"", True),
    ]


async def test_a_value_that_is_too_large_ends_the_stream_with_a_failure():
    tools = Counting()
    first, final = [chunk async for chunk in stream(tools, "large")]
    assert "the limit is 1000 (--max-message-bytes)" in decode_json(first.data)["error"]["message"]
    assert final.is_final
    assert tools.ended
    assert tools.given == 1


async def test_the_reader_that_is_cancelled_ends_the_tool():
    tools = Counting()
    with trio.CancelScope() as scope:
        async with aclosing(stream(tools)) as chunks:
            await anext(chunks)
            scope.cancel()
            with pytest.raises(trio.Cancelled):
                await anext(chunks)
    assert tools.ended
