"""A client that says whatever a test wants it to say, frame by frame, and believes nothing."""

import struct
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import hpack
import trio
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from dspex_trio import rpc

from .generated.greeter_grpc import GreeterStub

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SAY_HELLO = "/greeting.Greeter/SayHello"


def message(body=b"", flag=0):
    """One length-prefixed message."""
    return struct.pack(">BI", flag, len(body)) + body


def fields(path=SAY_HELLO, *, drop=(), add=(), **change):
    """The headers of a good request, or of one that is wrong in the way that is asked for."""
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    headers.update({key.replace("_", "-"): value for key, value in change.items()})
    return [(key, value) for key, value in headers.items() if key not in drop] + list(add)


@dataclass
class Reply:
    """All that came on one stream."""

    headers: list = field(default_factory=list)
    data: bytes = b""
    trailers: dict = field(default_factory=dict)
    reset: int | None = None
    ended: bool = False

    @property
    def status(self):
        return int(self.trailers.get("grpc-status", -1))


class RawClient:
    """A connection, its frames, and what they add up to."""

    def __init__(self, stream):
        self.stream = stream
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self.replies = {}
        self.goaways = []
        self.frames = []
        self.pongs = []
        self.pinged = []  # when
        self.closed = False
        self._buffer = b""
        self.answer_pings = True

    async def begin(self, settings=None, window=2**30):
        """Send the preface, our settings and a large connection window."""
        frame = SettingsFrame(0)
        frame.settings = settings or {}
        update = WindowUpdateFrame(0)
        update.window_increment = window
        await self.send(PREFACE, frame, update)

    async def send(self, *parts):
        """Send frames or bytes."""
        await self.stream.send_all(b"".join(p if isinstance(p, bytes) else p.serialize() for p in parts))

    def headers(self, stream_id, headers, *, end=False, end_headers=True):
        frame = HeadersFrame(stream_id)
        short = sum(len(value) for _, value in headers) < 10_000
        frame.data = self.encoder.encode(headers, huffman=short)  # hpack takes the square of the time for long ones
        if end_headers:
            frame.flags.add("END_HEADERS")
        if end:
            frame.flags.add("END_STREAM")
        return frame

    def data(self, stream_id, data=b"", *, end=False):
        frame = DataFrame(stream_id)
        frame.data = data
        if end:
            frame.flags.add("END_STREAM")
        return frame

    def reset(self, stream_id, code=8):
        frame = RstStreamFrame(stream_id)
        frame.error_code = code
        return frame

    def ping(self, data=b"12345678"):
        frame = PingFrame(0)
        frame.opaque_data = data
        return frame

    def window(self, stream_id, increment):
        frame = WindowUpdateFrame(stream_id)
        frame.window_increment = increment
        return frame

    def goaway(self, last=0, code=0):
        return GoAwayFrame(0, last_stream_id=last, error_code=code)

    def call(self, stream_id, body=b"", **change):
        """The frames of a whole unary call."""
        return self.headers(stream_id, fields(**change)), self.data(stream_id, message(body), end=True)

    async def receive(self):
        """Read once and take in what came; False at the end."""
        try:
            data = await self.stream.receive_some(65536)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            data = b""
        if not data:
            self.closed = True
            return False
        self._buffer += data
        while len(self._buffer) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(self._buffer[:9]))
            if len(self._buffer) < 9 + length:
                break
            frame.parse_body(memoryview(self._buffer[9 : 9 + length]))
            self._buffer = self._buffer[9 + length :]
            self.frames.append(frame)
            await self._take(frame)
        return True

    async def _take(self, frame):
        reply = self.replies.setdefault(frame.stream_id, Reply()) if frame.stream_id else None
        match frame:
            case HeadersFrame():
                found = [
                    tuple(part if isinstance(part, str) else part.decode() for part in one)
                    for one in self.decoder.decode(frame.data)
                ]
                reply.headers += found
                reply.trailers.update(found)
            case DataFrame():
                reply.data += frame.data
            case RstStreamFrame():
                reply.reset = frame.error_code
            case GoAwayFrame():
                self.goaways.append((frame.last_stream_id, frame.error_code))
            case PingFrame():
                if "ACK" in frame.flags:
                    self.pongs.append(frame.opaque_data)
                    return
                self.pinged.append(trio.current_time())
                if self.answer_pings:
                    answer = self.ping(frame.opaque_data)
                    answer.flags.add("ACK")
                    await self.send(answer)
        if reply is not None and "END_STREAM" in frame.flags:
            reply.ended = True

    async def until(self, condition):
        """Read until something is true or the server has closed; returns whether it became true."""
        while not condition():
            if not await self.receive():
                return condition()
        return True

    async def reply(self, stream_id):
        """What came on a stream, once it has ended or was reset."""
        await self.until(
            lambda: (
                stream_id in self.replies
                and (self.replies[stream_id].ended or self.replies[stream_id].reset is not None)
            )
        )
        return self.replies.get(stream_id, Reply())

    async def reset_of(self, stream_id):
        """The code with which the other side reset a stream, once it has."""
        await self.until(lambda: stream_id in self.replies and self.replies[stream_id].reset is not None)
        return self.replies[stream_id].reset

    async def until_closed(self):
        """Read until the server closes."""
        while await self.receive():
            pass

    async def works(self, stream_id):
        """Whether another call on this connection is served."""
        await self.send(*self.call(stream_id))
        return (await self.reply(stream_id)).status == 0


class RawServer(RawClient):
    """A server that says whatever a test wants it to say to our channel."""

    async def begin(self, settings=None):
        """Send our settings; throw away the client's preface."""
        frame = SettingsFrame(0)
        frame.settings = settings or {}
        await self.send(frame)
        preface = b""
        while len(preface) < len(PREFACE):
            preface += await self.stream.receive_some(len(PREFACE) - len(preface))
        assert preface == PREFACE

    async def request(self, stream_id):
        """The headers of a call, once they have come."""
        await self.until(lambda: stream_id in self.replies and self.replies[stream_id].headers)
        return self.replies[stream_id].trailers

    async def answer(self, stream_id, *bodies, status=0):
        """A whole response."""
        frames = [self.headers(stream_id, [(":status", "200"), ("content-type", "application/grpc")])]
        frames += [self.data(stream_id, message(body)) for body in bodies]
        await self.send(*frames, self.headers(stream_id, [("grpc-status", str(status))], end=True))


@asynccontextmanager
async def raw_servers(**settings):
    """A stub, and a channel of the connections that it makes, each as a RawServer that has said hello."""
    outgoing, incoming = trio.open_memory_channel(16)
    listener, connect = rpc.memory_link()

    async def accept(stream):
        server = RawServer(stream)
        await server.begin()
        await outgoing.send(server)
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, accept, [listener])
        async with rpc.open_channel(connect, settings=rpc.ChannelSettings(**settings)) as channel:
            yield GreeterStub(channel), incoming
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def raw_client(target, **options):
    """Connect to a port, or to a connector's other end, and say the first words."""
    stream = await trio.open_tcp_stream("127.0.0.1", target) if isinstance(target, int) else await target()
    async with stream:
        client = RawClient(stream)
        await client.begin(**options)
        yield client
