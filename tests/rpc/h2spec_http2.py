"""h2spec's "http2" suite, up to section 6.4: connections, frames, streams; the rest is in `h2spec_http2_more`."""

from .h2spec_case import (
    COMPRESSION_ERROR,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_SIZE_ERROR,
    HEADERS,
    MAX_CALLS,
    MAX_FRAME_SIZE,
    PADDED,
    PRIORITY,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    RST_STREAM,
    STREAM_CLOSED,
    UNKNOWN,
    Case,
    answered,
    ask,
    begun,
    block,
    connection_error,
    continuation,
    filler,
    frame,
    grpc_message,
    hello,
    over,
    ping,
    ponged,
    priority,
    reset,
    settings,
    stream_error,
    welcomed,
    window,
)
from .raw import PREFACE

BROKEN = connection_error(PROTOCOL_ERROR)
TOO_LARGE = connection_error(FRAME_SIZE_ERROR)
CLOSED = stream_error(STREAM_CLOSED)
CLOSED_OR_BROKEN = stream_error(STREAM_CLOSED, PROTOCOL_ERROR)


def some_data(stream=1):
    return frame(DATA, b"test", flags=END_STREAM, stream=stream)


def case(name, title, steps, expect, **options):
    return Case(f"http2/{name}", title, steps, expect, **options)


CASES = [
    case("3.5/1", "a client connection preface", lambda c: [PREFACE, settings()], welcomed, begin=False),
    case("3.5/2", "an invalid preface", lambda c: [b"INVALID CONNECTION PREFACE\r\n\r\n"], BROKEN, begin=False),
    case("4.1/1", "a frame of unknown type", lambda c: [frame(UNKNOWN, bytes(8)), ping()], ponged),
    case("4.1/2", "a frame with undefined flags", lambda c: [ping(flags=0x16)], ponged),
    case("4.1/3", "a frame with the reserved bit", lambda c: [ping(stream=2**31)], ponged),
    case(
        "4.2/1",
        "a DATA frame of 2^14 bytes",
        lambda c: [begun(c), frame(DATA, grpc_message(MAX_FRAME_SIZE), flags=END_STREAM, stream=1)],
        answered,
    ),
    case(
        "4.2/2",
        "a DATA frame over SETTINGS_MAX_FRAME_SIZE",
        lambda c: [begun(c), frame(DATA, bytes(MAX_FRAME_SIZE + 1), flags=END_STREAM, stream=1)],
        stream_error(FRAME_SIZE_ERROR),
    ),
    case(
        "4.2/3",
        "a HEADERS frame over SETTINGS_MAX_FRAME_SIZE",
        lambda c: [ask(c, after=b"\x00\x01x\x01y" * (MAX_FRAME_SIZE // 5))],
        TOO_LARGE,
    ),
    case(
        "4.3/1",
        "an invalid header block",
        lambda c: [frame(HEADERS, b"\x40", flags=END_STREAM | END_HEADERS, stream=1)],
        connection_error(COMPRESSION_ERROR),
    ),
    case(
        "4.3/2",
        "PRIORITY within a header block",
        lambda c: [ask(c, flags=0), priority(1), continuation(block(c, filler()))],
        BROKEN,
    ),
    case(
        "4.3/3",
        "HEADERS of another stream within a header block",
        lambda c: [ask(c, flags=0), ask(c, stream=3), continuation(block(c, filler()))],
        BROKEN,
    ),
    case("5.1/1", "idle: DATA", lambda c: [some_data()], BROKEN),
    case("5.1/2", "idle: RST_STREAM", lambda c: [reset(1)], BROKEN),
    case("5.1/3", "idle: WINDOW_UPDATE", lambda c: [window(1, 100)], BROKEN),
    case("5.1/4", "idle: CONTINUATION", lambda c: [continuation(block(c))], BROKEN),
    case("5.1/5", "half-closed (remote): DATA", lambda c: [hello(c, "wait"), some_data()], CLOSED),
    case("5.1/6", "half-closed (remote): HEADERS", lambda c: [hello(c, "wait"), ask(c)], CLOSED),
    case(
        "5.1/7",
        "half-closed (remote): CONTINUATION",
        lambda c: [hello(c, "wait"), continuation(block(c))],
        CLOSED_OR_BROKEN,
    ),
    case("5.1/8", "closed: DATA after RST_STREAM", lambda c: [begun(c), reset(1), some_data()], CLOSED),
    case("5.1/9", "closed: HEADERS after RST_STREAM", lambda c: [begun(c), reset(1), ask(c)], CLOSED),
    case(
        "5.1/10",
        "closed: CONTINUATION after RST_STREAM",
        lambda c: [begun(c), reset(1), continuation(block(c, filler()))],
        CLOSED_OR_BROKEN,
    ),
    case("5.1/11", "closed: DATA", lambda c: [ask(c), over, some_data()], CLOSED),
    case("5.1/12", "closed: HEADERS", lambda c: [ask(c), over, ask(c)], connection_error(STREAM_CLOSED)),
    case(
        "5.1/13",
        "closed: CONTINUATION",
        lambda c: [ask(c), over, continuation(block(c, filler()))],
        connection_error(STREAM_CLOSED, PROTOCOL_ERROR),
    ),
    case("5.1.1/1", "an even stream identifier", lambda c: [ask(c, stream=2)], BROKEN),
    case("5.1.1/2", "a stream identifier lower than the last", lambda c: [ask(c, stream=5), ask(c, stream=3)], BROKEN),
    case(
        "5.1.2/1",
        "more streams than SETTINGS_MAX_CONCURRENT_STREAMS",
        lambda c: [begun(c, stream=2 * i + 1) for i in range(MAX_CALLS + 1)] + [reset(1)],
        stream_error(PROTOCOL_ERROR, REFUSED_STREAM),
    ),
    case(
        "5.3.1/1",
        "HEADERS that depends on itself",
        lambda c: [frame(HEADERS, b"\0\0\0\1\x0f" + block(c), flags=END_STREAM | END_HEADERS | 0x20, stream=1)],
        stream_error(PROTOCOL_ERROR),
    ),
    case("5.3.1/2", "PRIORITY that depends on itself", lambda c: [priority(1, on=1)], stream_error(PROTOCOL_ERROR)),
    case("5.4.1/1", "an invalid PING: the connection is closed", lambda c: [ping(stream=1)], BROKEN),
    case("5.4.1/2", "an invalid PING: a GOAWAY comes first", lambda c: [ping(stream=1)], BROKEN),
    case("5.5/1", "an unknown extension frame", lambda c: [frame(UNKNOWN, bytes(8)), ping()], ponged),
    case(
        "5.5/2",
        "an unknown extension frame within a header block",
        lambda c: [ask(c, flags=END_STREAM), frame(UNKNOWN, bytes(8)), continuation(block(c, filler()))],
        BROKEN,
    ),
    case("6.1/1", "DATA without a stream", lambda c: [some_data(0)], BROKEN),
    case("6.1/2", "DATA on a stream that is not open", lambda c: [hello(c, "wait"), some_data()], CLOSED),
    case(
        "6.1/3",
        "DATA with invalid padding",
        lambda c: [begun(c), frame(DATA, b"\x09test", flags=END_STREAM | PADDED, stream=1)],
        BROKEN,
    ),
    case(
        "6.2/1",
        "HEADERS without END_HEADERS, then PRIORITY",
        lambda c: [ask(c, flags=END_STREAM), priority(1)],
        BROKEN,
    ),
    case(
        "6.2/2",
        "HEADERS without END_HEADERS, then HEADERS of another stream",
        lambda c: [ask(c, flags=END_STREAM), ask(c, stream=3)],
        BROKEN,
    ),
    case("6.2/3", "HEADERS without a stream", lambda c: [ask(c, stream=0)], BROKEN),
    case(
        "6.2/4",
        "HEADERS with invalid padding",
        lambda c: [frame(HEADERS, b"\xff" + block(c), flags=END_STREAM | END_HEADERS | PADDED, stream=1)],
        BROKEN,
    ),
    case("6.3/1", "PRIORITY without a stream", lambda c: [priority(0)], BROKEN),
    case(
        "6.3/2",
        "PRIORITY that is not 5 bytes long",
        lambda c: [frame(PRIORITY, bytes(4), stream=1)],
        stream_error(FRAME_SIZE_ERROR),
    ),
    case("6.4/1", "RST_STREAM without a stream", lambda c: [reset(0)], BROKEN),
    case("6.4/2", "RST_STREAM on an idle stream", lambda c: [reset(1)], BROKEN),
    case(
        "6.4/3",
        "RST_STREAM that is not 4 bytes long",
        lambda c: [begun(c), frame(RST_STREAM, bytes(3), stream=1)],
        TOO_LARGE,
    ),
]
