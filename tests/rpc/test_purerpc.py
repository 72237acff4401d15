"""Services that were written for purerpc run on our server unchanged."""

import purerpc
import pytest

from dspex_trio import rpc

from .generated.greeter_grpc import GreeterStub
from .generated.greeter_pb2 import HelloReply, HelloRequest
from .greeter import serving


class GreeterServicer(purerpc.Servicer):
    """As purerpc's plugin generates it and its users fill it in."""

    async def SayHello(self, input_message):
        if input_message.name == "nobody":
            raise purerpc.NotFoundError("nobody")
        return HelloReply(text=f"hello {input_message.name}")

    async def Watch(self, input_message, request):
        for number in range(input_message.times):
            yield HelloReply(text=f"{request.metadata.get('k')} {number}")

    @property
    def service(self):
        service = purerpc.Service("greeting.Greeter")
        for name, cardinality in (("SayHello", "UNARY_UNARY"), ("Watch", "UNARY_STREAM")):
            signature = purerpc.RPCSignature(purerpc.Cardinality[cardinality], HelloRequest, HelloReply)
            service.add_method(name, getattr(self, name), signature)
        return service


async def test_a_servicer_of_purerpcs_is_served():
    async with serving(GreeterServicer()) as target, rpc.open_channel(target) as channel:
        stub = GreeterStub(channel)
        assert (await stub.SayHello(HelloRequest(name="ada"))).text == "hello ada"
        async with stub.Watch(HelloRequest(times=2), metadata={"k": "v"}) as replies:
            assert [reply.text async for reply in replies] == ["v 0", "v 1"]
        with pytest.raises(rpc.RpcError, match="nobody") as caught:
            await stub.SayHello(HelloRequest(name="nobody"))
    assert caught.value.status is rpc.StatusCode.NOT_FOUND
