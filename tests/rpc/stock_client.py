"""Purerpc's own client, in a process of its own, doing what a test asks for. Started by test_rows_missing.py.

    python -m rpc.stock_client PORT cancel|deadline|lost|again

Prints a line for each call that has ended.
"""

import sys

import purerpc
import trio
from purerpc import Cardinality, Client, RPCSignature

from .generated.greeter_pb2 import HelloReply, HelloRequest


async def calls(port, what):
    signature = RPCSignature(Cardinality.UNARY_UNARY, HelloRequest, HelloReply)
    async with purerpc.insecure_channel("127.0.0.1", port) as channel:
        hello = Client("greeting.Greeter", channel).get_method_stub("SayHello", signature)
        for _ in range(2 if what == "again" else 1):
            with trio.CancelScope() as scope:
                if what == "deadline":
                    scope.deadline = trio.current_time() + 5
                elif what == "cancel":
                    scope.deadline = trio.current_time() + 0.2
                try:
                    await hello(HelloRequest())
                except Exception as error:  # noqa: BLE001 - whatever it is, the call has ended
                    sys.stdout.write(f"{type(error).__name__}\n")
                else:
                    sys.stdout.write("ok\n")
                sys.stdout.flush()
        await trio.sleep_forever()  # a process that ends closes its connection, which is no RST_STREAM


if __name__ == "__main__":
    trio.run(calls, int(sys.argv[1]), sys.argv[2])
