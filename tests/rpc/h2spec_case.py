"""What a case of h2spec is made of: frames to send, moments to wait for, and what the server must do then."""

import struct
from collections.abc import Callable
from dataclasses import dataclass

from .generated.greeter_pb2 import HelloRequest
from .raw import fields, message

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = range(4)
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR = range(5, 10)

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
UNKNOWN = 0x16
END_STREAM, ACK, END_HEADERS, PADDED = 1, 1, 4, 8
MAX_FRAME_SIZE = 2**14
MAX_CALLS = 10

# A stream for the call that shows that a connection still works; higher than any that a case uses.
LAST_STREAM = 1001


@dataclass(frozen=True)
class Case:
    """One of h2spec's cases.

    Attributes:
        name: Its suite, section and number, as h2spec counts.
        title: What it does.
        steps: What to send on a client: frames, bytes, and functions to await in between.
        expect: What to check afterwards.
        begin: Whether the preface and our SETTINGS are sent first.
    """

    name: str
    title: str
    steps: Callable
    expect: Callable
    begin: bool = True


def frame(kind, payload=b"", *, flags=0, stream=0):
    """Any frame at all, right or wrong."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def block(c, headers=None, before=b"", after=b""):
    """An encoded header block, with representations of our own before and after."""
    return before + c.encoder.encode(fields() if headers is None else headers) + after


def ask(c, headers=None, stream=1, *, flags=END_STREAM | END_HEADERS, **around):
    """A request in one HEADERS frame; without a message, so that the answer is a status."""
    return frame(HEADERS, block(c, headers, **around), flags=flags, stream=stream)


def begun(c, headers=None, stream=1):
    """A request that goes on."""
    return ask(c, headers, stream, flags=END_HEADERS)


def hello(c, name="ada", stream=1, **options):
    """A whole call; the handler of "wait" does not return."""
    return b"".join(
        f.serialize() for f in c.call(stream, HelloRequest(name=name, **options).SerializeToString(), path=SAY_HELLO)
    )


SAY_HELLO = "/greeting.Greeter/SayHello"
COLLECT = "/greeting.Greeter/Collect"


def priority(stream, *, on=0, weight=15, exclusive=False):
    return frame(PRIORITY, struct.pack(">IB", on | exclusive << 31, weight), stream=stream)


def reset(stream, code=CANCEL):
    return frame(RST_STREAM, struct.pack(">I", code), stream=stream)


def settings(*pairs):
    return frame(SETTINGS, b"".join(struct.pack(">HI", *pair) for pair in pairs))


def window(stream, increment):
    return frame(WINDOW_UPDATE, struct.pack(">I", increment), stream=stream)


def ping(data=b"h2spec!!", *, flags=0, stream=0):
    return frame(PING, data, flags=flags, stream=stream)


def goaway(code=NO_ERROR, stream=0):
    return frame(GOAWAY, struct.pack(">II", 0, code), stream=stream)


def continuation(payload, stream=1, *, flags=END_HEADERS):
    return frame(CONTINUATION, payload, flags=flags, stream=stream)


def filler(count=1):
    """Headers to spread over CONTINUATION frames."""
    return [(f"x-dummy{i}", "x" * 20) for i in range(count)]


def grpc_message(size):
    """A message that is so long with its prefix."""
    body = HelloRequest(name="ada", body=bytes(size - 5 - 14)).SerializeToString()
    body += b"\x18\x01" * ((size - 5 - len(body)) // 2)
    return message(body)


def pushing(c, stream=1):
    """A PUSH_PROMISE, that only servers may send."""
    return frame(PUSH_PROMISE, struct.pack(">I", 2) + block(c), flags=END_HEADERS, stream=stream)


# Moments


async def over(c):
    """Wait until the response on stream 1 is complete."""
    assert (await c.reply(1)).ended


async def started(c):
    """Wait for the first headers on stream 1."""
    assert await c.until(lambda: 1 in c.replies and c.replies[1].headers)


def received(size):
    """Wait until so many bytes of data have come on stream 1."""

    async def wait(c):
        assert await c.until(lambda: 1 in c.replies and len(c.replies[1].data) >= size)

    return wait


# Expectations


async def answered(c):
    """A response on stream 1, and a connection that goes on."""
    reply = await c.reply(1)
    assert ":status" in reply.trailers, reply
    assert reply.reset in {None, NO_ERROR}
    await lives(c)


async def lives(c):
    """Nothing was wrong: another call is served."""
    assert await c.works(LAST_STREAM)
    assert not c.goaways


async def ponged(c):
    """The ping was answered, once, and nothing was wrong."""
    assert await c.until(lambda: b"h2spec!!" in c.pongs)
    assert c.pongs == [b"h2spec!!"]
    assert not c.goaways
    assert not c.closed


async def acknowledged(c):
    """Our SETTINGS, the first and the second, were acknowledged."""
    assert await c.until(lambda: sum(f.type == SETTINGS and "ACK" in f.flags for f in c.frames) == 2)
    await lives(c)


async def welcomed(c):
    """The server's first frame is its SETTINGS."""
    assert await c.until(lambda: c.frames)
    assert (c.frames[0].type, c.frames[0].flags.__contains__("ACK")) == (SETTINGS, False)


def sent(*sizes):
    """The DATA frames on stream 1 are of these sizes, and no more come."""

    async def check(c):
        await c.send(ping(b"what now"))
        assert await c.until(lambda: b"what now" in c.pongs)
        assert tuple(len(f.data) for f in c.frames if f.type == DATA and f.stream_id == 1) == sizes
        assert not c.goaways

    return check


def connection_error(*codes):
    """GOAWAY with one of the codes, and then the end."""

    async def check(c):
        await c.until_closed()
        assert c.goaways, "closed without a GOAWAY"
        assert c.goaways[-1][1] in codes, c.goaways

    return check


def stream_error(*codes):
    """RST_STREAM with one of the codes and a connection that goes on; or GOAWAY with one of them, which is allowed."""

    async def check(c):
        assert await c.until(lambda: c.goaways or any(r.reset in codes for r in c.replies.values())), "no error"
        if c.goaways:
            assert c.goaways[-1][1] in codes, c.goaways
            await c.until_closed()
        else:
            await lives(c)

    return check
