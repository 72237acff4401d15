"""What may stand in headers: nothing that somebody behind us, or a log, could take for a header of its own."""

import pytest

from dspex_trio import rpc
from dspex_trio.rpc.client.stubs import UnaryUnary
from dspex_trio.rpc.http2.headers import MalformedHeaders, parse_request

from .generated.greeter_pb2 import HelloReply, HelloRequest
from .greeter import Greeter, greeting, serving
from .raw import fields, raw_client

PROTOCOL_ERROR = 1
CONTROLS = [*range(0x20), 0x7F]
PSEUDO = [":authority", ":path", ":method", ":scheme"]


def request(name, value):
    """The fields of a good request, but for one of them."""
    return [(key.encode(), value if key == name else text.encode()) for key, text in fields(user_agent="a client")]


@pytest.mark.parametrize("name", PSEUDO)
@pytest.mark.parametrize("byte", [*CONTROLS, 0x20, 0x80, 0xA0, 0xFF])
def test_no_pseudo_header_of_a_request_holds_a_byte_that_is_not_visible_ascii(name, byte):
    with pytest.raises(MalformedHeaders, match=name):
        parse_request(request(name, b"/a" + bytes([byte]) + b"b"))


@pytest.mark.parametrize("name", [":path", ":method", ":scheme"])
def test_no_pseudo_header_that_must_be_there_is_empty(name):
    with pytest.raises(MalformedHeaders, match="missing or empty"):
        parse_request(request(name, b""))


@pytest.mark.parametrize("byte", [byte for byte in CONTROLS if byte != 0x09])
def test_no_field_holds_a_control_character(byte):
    with pytest.raises(MalformedHeaders, match="user-agent"):
        parse_request(request("user-agent", b"a" + bytes([byte]) + b"b"))


def test_a_field_may_hold_a_tab_and_letters_of_any_script():
    head = parse_request(request("user-agent", "ein\tKünstler".encode()))
    assert head.metadata.get("user-agent") == "ein\tKünstler"


async def test_a_line_break_in_the_authority_ends_its_stream_and_no_other():
    greeter = Greeter()
    async with serving(greeter) as target, raw_client(target) as client:
        headers = [(key, "evil\r\nx: y" if key == ":authority" else value) for key, value in fields()]
        await client.send(client.headers(1, headers), client.data(1, bytes(5), end=True))
        assert await client.reset_of(1) == PROTOCOL_ERROR
        assert await client.works(3)
    assert len(greeter.calls) == 1


@pytest.mark.parametrize("path", ["/a\r\nx: y", "/a b", "/ä", "", "a/b", "/a\0"])
async def test_a_path_that_cannot_be_sent_is_refused_before_it_is(path):
    greeter = Greeter()
    async with serving(greeter) as target, rpc.open_channel(target) as channel:
        wrong = UnaryUnary[HelloRequest, HelloReply](channel, path, HelloReply)
        with pytest.raises(ValueError, match="printable ASCII"):
            await wrong(HelloRequest())
        right = UnaryUnary[HelloRequest, HelloReply](channel, "/greeting.Greeter/SayHello", HelloReply)
        assert (await right(HelloRequest(name="a"))).text == "hello a"


@pytest.mark.parametrize("authority", ["a\r\nx: y", "a b", "", "ä", "a\x7f"])
def test_an_authority_that_cannot_be_sent_is_refused(authority):
    with pytest.raises(ValueError, match="authority"):
        rpc.ChannelSettings(authority=authority)


@pytest.mark.parametrize("agent", ["a\r\nx: y", " a", "a ", "ä", "a\tb"])
def test_a_user_agent_that_cannot_be_sent_is_refused(agent):
    with pytest.raises(ValueError, match="user_agent"):
        rpc.ChannelSettings(user_agent=agent)


CONNECTIONS_OWN = [
    "connection",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
]


@pytest.mark.parametrize("key", CONNECTIONS_OWN)
async def test_the_fields_of_a_connection_are_no_metadata_of_either_side(key):
    """Sent, they cost a client its call at the best: RFC 9113 makes a message with one of them malformed."""
    call = rpc.Call("/a.B/C")
    with pytest.raises(ValueError, match=f"'{key}' belongs to the protocol and cannot be sent"):
        call.set_initial_metadata({key: "close"})
    with pytest.raises(ValueError, match="cannot be sent"):
        call.set_trailing_metadata({key: "close"})
    with pytest.raises(ValueError, match="cannot be sent"):
        rpc.RpcError(rpc.StatusCode.ABORTED, metadata={key: "close"})
    greeter = Greeter()
    async with greeting(greeter) as stub:
        with pytest.raises(ValueError, match="cannot be sent"):
            await stub.SayHello(HelloRequest(), metadata={key: "close"})
    assert not greeter.calls
