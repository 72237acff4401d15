"""Rich status: messages that explain a failure."""

import pytest
import trio
from google.protobuf import descriptor_pb2

from dspex_trio import rpc
from dspex_trio.rpc.generated import error_details_pb2, status_pb2

from .generated.greeter_pb2 import HelloReply, HelloRequest
from .greeter import Greeter, greeting, serving, serving_tcp
from .raw import raw_client
from .test_grpcio import grpcio_client, in_thread

BAD_FIELD = error_details_pb2.BadRequest(
    field_violations=[error_details_pb2.BadRequest.FieldViolation(field="name", description="too long")]
)


class Explaining(Greeter):
    async def SayHello(self, request, call):
        details = [BAD_FIELD, HelloReply(text="a message of ours")]
        raise rpc.RpcError(rpc.StatusCode.INVALID_ARGUMENT, "bad name", details=details, metadata={"hint": "shorter"})


async def test_details_arrive_with_the_error():
    async with greeting(Explaining()) as stub:
        with pytest.raises(rpc.RpcError) as caught:
            await stub.SayHello(HelloRequest())
    known, unknown = caught.value.details
    assert known == BAD_FIELD
    # What only the two ends know stays packed.
    assert unknown.type_url == "type.googleapis.com/greeting.HelloReply"
    assert HelloReply.FromString(unknown.value).text == "a message of ours"
    assert caught.value.metadata.get("hint") == "shorter"


async def test_details_are_where_grpc_status_looks_for_them():
    """`grpc-status-details-bin` holds a google.rpc.Status that repeats code and message."""
    import grpc

    async with serving_tcp(Explaining()) as port, grpcio_client(port) as stub:

        def call():
            with pytest.raises(grpc.RpcError) as caught:
                stub.SayHello(HelloRequest(), timeout=20)
            return dict(caught.value.trailing_metadata())

        trailers = await in_thread(call)
    rich = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    assert (rich.code, rich.message, len(rich.details)) == (3, "bad name", 2)


async def test_details_of_another_descriptor_pool_can_be_sent():
    class Foreign(Greeter):
        async def SayHello(self, request, call):
            detail = descriptor_pb2.FileDescriptorProto(name="f")
            raise rpc.RpcError(rpc.StatusCode.ABORTED, "x", details=[detail])

    async with greeting(Foreign()) as stub:
        with pytest.raises(rpc.RpcError) as caught:
            await stub.SayHello(HelloRequest())
    assert caught.value.details[0].type_url.endswith("google.protobuf.FileDescriptorProto")


async def test_without_details_nothing_is_sent():
    async with serving(Greeter()) as connect, raw_client(connect) as client:
        await client.send(*client.call(1, HelloRequest(name="fail").SerializeToString()))
        reply = await client.reply(1)
    assert reply.status == 5
    assert "grpc-status-details-bin" not in reply.trailers


@pytest.mark.parametrize(
    "text", ["\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n", " spaces ", "100%", ""]
)
async def test_any_text_can_be_a_status_message(text):
    class Saying(Greeter):
        async def SayHello(self, request, call):
            raise rpc.RpcError(rpc.StatusCode.UNKNOWN, text)

    async with greeting(Saying()) as stub:
        with pytest.raises(rpc.RpcError) as caught:
            await stub.SayHello(HelloRequest())
    assert caught.value.message == text


@pytest.mark.parametrize("code", [rpc.StatusCode.OK, 0])
def test_ok_is_not_an_error(code):
    with pytest.raises(ValueError, match="OK is not an error"):
        rpc.RpcError(code)


WRONG = {
    "no message": lambda: rpc.RpcError(rpc.StatusCode.ABORTED, details=["too late"]),
    "no text": lambda: rpc.RpcError(rpc.StatusCode.ABORTED, ZeroDivisionError("a secret")),
    "bytes": lambda: rpc.RpcError(rpc.StatusCode.ABORTED, b"too late"),
    "no key": lambda: rpc.RpcError(rpc.StatusCode.ABORTED, metadata={"Not A Key": "1"}),
    "metadata of the protocol's": lambda: rpc.RpcError(rpc.StatusCode.ABORTED, metadata={"grpc-status": "0"}),
    "two lines": lambda: rpc.RpcError(rpc.StatusCode.ABORTED, metadata=rpc.Metadata([("key", "1\r\nkey2: 2")])),
    "a code that is none": lambda: rpc.RpcError(99),
    "a message that is not complete": lambda: rpc.RpcError(
        # Proto2, whose `name_part` is required.
        rpc.StatusCode.ABORTED,
        details=[descriptor_pb2.UninterpretedOption.NamePart()],
    ),
}


class Mistaken(Greeter):
    async def SayHello(self, request, call):
        if request.name in WRONG:
            make = WRONG[request.name]
            raise make()
        return await super().SayHello(request, call)


@pytest.mark.parametrize("mistake", WRONG)
async def test_an_error_that_cannot_be_sent_is_unknown_and_costs_its_call_alone(mistake, caplog):
    """Found out when the status was to be sent, it ended the connection and every call on it."""
    greeter = Mistaken()
    async with greeting(greeter) as stub, trio.open_nursery() as nursery:
        nursery.start_soon(stub.SayHello, HelloRequest(name="wait"))
        await greeter.entered.wait()
        with pytest.raises(rpc.RpcError, match="the handler failed") as caught:
            await stub.SayHello(HelloRequest(name=mistake))
        assert caught.value.status is rpc.StatusCode.UNKNOWN
        greeter.release.set()
    assert greeter.ended == ["released"]
    assert "the handler of /greeting.Greeter/SayHello failed" in caplog.text


async def test_text_that_has_no_utf_8_is_sent_as_well_as_it_can_be():
    """A file's name may have none; with details, it is to be sent twice."""

    class Saying(Greeter):
        async def SayHello(self, request, call):
            raise rpc.RpcError(rpc.StatusCode.NOT_FOUND, "no file \udcff", details=[BAD_FIELD])

    async with greeting(Saying()) as stub:
        with pytest.raises(rpc.RpcError, match="no file ") as caught:
            await stub.SayHello(HelloRequest())
    assert caught.value.details == (BAD_FIELD,)
