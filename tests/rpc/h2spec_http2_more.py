"""h2spec's "http2" suite, from section 6.5 on: settings, windows, header blocks in parts, requests."""

from .h2spec_case import (
    ACK,
    DATA,
    END_STREAM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    PROTOCOL_ERROR,
    SETTINGS,
    WINDOW_UPDATE,
    Case,
    acknowledged,
    answered,
    ask,
    begun,
    block,
    connection_error,
    continuation,
    filler,
    frame,
    goaway,
    hello,
    ping,
    ponged,
    pushing,
    received,
    reset,
    sent,
    settings,
    started,
    stream_error,
    window,
)
from .raw import fields

BROKEN = connection_error(PROTOCOL_ERROR)
TOO_LARGE = connection_error(FRAME_SIZE_ERROR)
OVERFLOWN = connection_error(FLOW_CONTROL_ERROR)
MALFORMED = stream_error(PROTOCOL_ERROR)

ENABLE_PUSH, INITIAL_WINDOW, MAX_FRAME = 2, 4, 5
MOST = 2**31 - 1


def case(name, title, steps, expect):
    return Case(f"http2/{name}", title, steps, expect)


def malformed(name, title, headers):
    return case(f"8.1.2{name}", title, lambda c: [ask(c, headers)], MALFORMED)


CASES = [
    case("6.5/1", "SETTINGS with ACK and a payload", lambda c: [frame(SETTINGS, b"\0", flags=ACK)], TOO_LARGE),
    case("6.5/2", "SETTINGS of a stream", lambda c: [frame(SETTINGS, bytes([0, 3, 0, 0, 0, 9]), stream=1)], BROKEN),
    case("6.5/3", "SETTINGS that is not a multiple of 6 long", lambda c: [frame(SETTINGS, b"\0\3\0")], TOO_LARGE),
    case("6.5.2/1", "ENABLE_PUSH neither 0 nor 1", lambda c: [settings((ENABLE_PUSH, 2))], BROKEN),
    case("6.5.2/2", "INITIAL_WINDOW_SIZE above the maximum", lambda c: [settings((INITIAL_WINDOW, 2**31))], OVERFLOWN),
    case("6.5.2/3", "MAX_FRAME_SIZE below the initial value", lambda c: [settings((MAX_FRAME, 2**14 - 1))], BROKEN),
    case("6.5.2/4", "MAX_FRAME_SIZE above the maximum", lambda c: [settings((MAX_FRAME, 2**24))], BROKEN),
    case("6.5.2/5", "an unknown setting", lambda c: [settings((0xFF, 1)), ping()], ponged),
    case(
        "6.5.3/1",
        "INITIAL_WINDOW_SIZE twice in one frame",
        lambda c: [settings((INITIAL_WINDOW, 100), (INITIAL_WINDOW, 1)), hello(c), received(1)],
        sent(1),
    ),
    case("6.5.3/2", "SETTINGS is acknowledged", lambda c: [settings()], acknowledged),
    case("6.7/1", "PING", lambda c: [ping()], ponged),
    case("6.7/2", "PING with ACK is not answered", lambda c: [ping(b"answered", flags=ACK), ping()], ponged),
    case("6.7/3", "PING of a stream", lambda c: [ping(stream=1)], BROKEN),
    case("6.7/4", "PING that is not 8 bytes long", lambda c: [ping(bytes(6))], TOO_LARGE),
    case("6.8/1", "GOAWAY of a stream", lambda c: [goaway(stream=1)], BROKEN),
    case("6.9/1", "WINDOW_UPDATE of 0", lambda c: [window(0, 0)], BROKEN),
    case("6.9/2", "WINDOW_UPDATE of 0 on a stream", lambda c: [begun(c), window(1, 0)], MALFORMED),
    case("6.9/3", "WINDOW_UPDATE that is not 4 bytes long", lambda c: [frame(WINDOW_UPDATE, b"\0\0\1")], TOO_LARGE),
    case(
        "6.9.1/1",
        "a window of 1 lets 1 byte through",
        lambda c: [settings((INITIAL_WINDOW, 1)), hello(c), received(1)],
        sent(1),
    ),
    case("6.9.1/2", "WINDOW_UPDATE over 2^31-1", lambda c: [window(0, MOST), window(0, MOST)], OVERFLOWN),
    case(
        "6.9.1/3",
        "WINDOW_UPDATE over 2^31-1 on a stream",
        lambda c: [begun(c), window(1, MOST), window(1, MOST)],
        stream_error(FLOW_CONTROL_ERROR),
    ),
    case(
        "6.9.2/1",
        "INITIAL_WINDOW_SIZE changes windows of streams that are open",
        lambda c: [settings((INITIAL_WINDOW, 0)), hello(c), started, settings((INITIAL_WINDOW, 1)), received(1)],
        sent(1),
    ),
    case(
        "6.9.2/2",
        "a window may be negative",
        lambda c: [
            settings((INITIAL_WINDOW, 3)),
            hello(c),
            received(3),
            settings((INITIAL_WINDOW, 2)),
            window(1, 2),
            received(4),
        ],
        sent(3, 1),
    ),
    case("6.9.2/3", "INITIAL_WINDOW_SIZE above the maximum", lambda c: [settings((INITIAL_WINDOW, 2**31))], OVERFLOWN),
    case(
        "6.10/1",
        "several CONTINUATION frames",
        lambda c: [
            ask(c, flags=END_STREAM),
            continuation(block(c, filler()), flags=0),
            continuation(block(c, filler())),
        ],
        answered,
    ),
    case(
        "6.10/2",
        "CONTINUATION, then another frame than CONTINUATION",
        lambda c: [
            ask(c, flags=END_STREAM),
            continuation(block(c, filler()), flags=0),
            frame(DATA, b"test", flags=END_STREAM, stream=1),
        ],
        BROKEN,
    ),
    case(
        "6.10/3",
        "CONTINUATION without a stream",
        lambda c: [ask(c, flags=END_STREAM), continuation(block(c, filler()), stream=0)],
        BROKEN,
    ),
    case("6.10/4", "CONTINUATION after END_HEADERS", lambda c: [ask(c), continuation(block(c, filler()))], BROKEN),
    case(
        "6.10/5",
        "CONTINUATION after a CONTINUATION with END_HEADERS",
        lambda c: [
            ask(c, flags=END_STREAM),
            continuation(block(c, filler())),
            continuation(block(c, filler())),
        ],
        BROKEN,
    ),
    case(
        "6.10/6",
        "CONTINUATION after DATA",
        lambda c: [begun(c), frame(DATA, b"test", stream=1), continuation(block(c, filler()))],
        BROKEN,
    ),
    case("7/1", "GOAWAY with an unknown error code", lambda c: [goaway(0xFF), ping()], ponged),
    case("7/2", "RST_STREAM with an unknown error code", lambda c: [begun(c), reset(1, 0xFF), ping()], ponged),
    case(
        "8.1/1",
        "a second HEADERS frame that does not end the stream",
        lambda c: [begun(c), frame(DATA, b"\0\0\0\0\0", stream=1), begun(c, [("x-test", "ok")])],
        MALFORMED,
    ),
    malformed("/1", "a field name in upper case", fields(**{"X-TEST": "ok"})),
    malformed(".1/1", "an unknown pseudo-header", [(":test", "ok"), *fields()]),
    malformed(".1/2", "a response's pseudo-header", [(":status", "200"), *fields()]),
    case(
        "8.1.2.1/3",
        "a pseudo-header in trailers",
        lambda c: [
            begun(c),
            frame(DATA, b"\0\0\0\0\0", stream=1),
            ask(c, [(":method", "200"), ("x-test", "ok")]),
        ],
        MALFORMED,
    ),
    malformed(".1/4", "a pseudo-header after a regular one", [*fields(drop=[":path"]), (":path", "/")]),
    malformed(".2/1", "a connection-specific field", fields(connection="keep-alive")),
    malformed(".2/2", "TE with anything but trailers", fields(te="trailers, deflate")),
    malformed(".3/1", "an empty :path", fields("")),
    malformed(".3/2", "no :method", fields(drop=[":method"])),
    malformed(".3/3", "no :scheme", fields(drop=[":scheme"])),
    malformed(".3/4", "no :path", fields(drop=[":path"])),
    malformed(".3/5", "two :method", [(":method", "POST"), *fields()]),
    malformed(".3/6", "two :scheme", [(":scheme", "http"), *fields()]),
    malformed(".3/7", "two :path", [(":path", "/"), *fields()]),
    case(
        "8.1.2.6/1",
        "a content-length that the DATA frame does not have",
        lambda c: [begun(c, fields(content_length="1")), frame(DATA, b"\0\0\0\0\0", flags=END_STREAM, stream=1)],
        MALFORMED,
    ),
    case(
        "8.1.2.6/2",
        "a content-length that several DATA frames do not have",
        lambda c: [
            begun(c, fields(content_length="1")),
            frame(DATA, b"\0\0\0", stream=1),
            frame(DATA, b"\0\0", flags=END_STREAM, stream=1),
        ],
        MALFORMED,
    ),
    case("8.2/1", "PUSH_PROMISE", lambda c: [begun(c), pushing(c)], BROKEN),
]
