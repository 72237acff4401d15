"""The store of `just bench` that is 5 ms away, in a process of its own: its CPU must not stand in the worker's way.

It says `{"ready": PORT}` once it can answer; each line of standard input, `{"batch": true}` or false, says whether it
has batch reads, as snakepit's first stores have not, and is answered with itself. It ends with its standard input.
"""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from typing import Final

import trio

from dspex_trio import rpc
from dspex_trio.sessions import MemoryStore
from dspex_trio.store.servicer import SessionStore
from dspex_trio.wire.generated import bridge_pb2

SESSION: Final = "bench"


class Store(SessionStore):
    """A store that can be told to have no batch reads."""

    batch = True

    async def GetVariables(  # noqa: N802
        self, request: bridge_pb2.BatchGetVariablesRequest, call: rpc.Call
    ) -> bridge_pb2.BatchGetVariablesResponse:
        if not self.batch:
            raise rpc.RpcError(rpc.StatusCode.UNIMPLEMENTED, "this store has no batches")
        return await super().GetVariables(request, call)


async def main() -> None:
    """Serve as many variables as the first argument says, until standard input ends."""
    memory = MemoryStore()
    memory.initialize(SESSION)
    for number in range(int(sys.argv[1])):
        memory.register(SESSION, f"v{number}", "float", number / 2)
    store = Store(memory)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(rpc.serve, [store], host="127.0.0.1", port=0))
        print(json.dumps({"ready": listeners[0].socket.getsockname()[1]}), flush=True)
        async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as lines:
            async for line in lines:  # the next one is written when this one is answered
                store.batch = json.loads(line)["batch"]
                print(json.dumps({"batch": store.batch}), flush=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
