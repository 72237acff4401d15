"""A small call over a socket costs each side one write and no turn of its writer."""

from functools import partial

import trio
import trio.testing

from dspex_trio import rpc

from .generated.greeter_grpc import GreeterStub
from .generated.greeter_pb2 import HelloRequest
from .greeter import Greeter, greeting


class Writers(trio.abc.Instrument):
    """Counts the turns of the tasks that write."""

    def __init__(self):
        self.turns = 0

    def before_task_step(self, task):
        self.turns += task.name.endswith(".write")


async def test_calls_one_after_the_other_never_wake_a_writer():
    """A turn of the loop for each would be a good part of what a small call costs, on the server and on the client."""
    writers = Writers()
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(rpc.serve, [Greeter()], host="127.0.0.1", port=0))
        async with rpc.open_channel(f"127.0.0.1:{listeners[0].socket.getsockname()[1]}") as channel:
            stub = GreeterStub(channel)
            await stub.SayHello(HelloRequest(name="first"))  # connects: preface and settings are the writers'
            await trio.testing.wait_all_tasks_blocked()
            trio.lowlevel.add_instrument(writers)
            for _ in range(20):
                await stub.SayHello(HelloRequest(name="small"))
            trio.lowlevel.remove_instrument(writers)
        nursery.cancel_scope.cancel()
    assert writers.turns == 0


async def test_a_call_that_begins_without_a_request_is_known_to_the_server():
    """Its headers leave before there is a message: a server may answer or refuse without waiting for one."""
    greeter = Greeter()
    async with greeting(greeter) as stub, stub.Chat():
        with trio.fail_after(5):
            await greeter.entered.wait()
