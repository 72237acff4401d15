"""h2spec's "generic" suite: what any HTTP/2 server must accept."""

import hpack

from .h2spec_case import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PADDED,
    Case,
    acknowledged,
    answered,
    ask,
    begun,
    block,
    continuation,
    filler,
    frame,
    goaway,
    grpc_message,
    hello,
    over,
    ping,
    ponged,
    priority,
    reset,
    settings,
    welcomed,
    window,
)
from .raw import PREFACE, fields

USER_AGENT = (b"user-agent", bytes.fromhex("b505b161cc5a93"))
X_TEST = (b"x-test", bytes.fromhex("f2b24a84ff"))
PLAIN_VALUE, CODED_VALUE = b"\x06h2spec", bytes.fromhex("849c48aca4")
INCREMENTAL = 0x40
LITERALS = (("with incremental indexing", INCREMENTAL), ("without indexing", 0x00), ("never indexed", 0x10))
# The index of user-agent in the static table, with the prefix that each kind of literal has.
INDEXED_NAME = {0x40: b"\x7a", 0x00: b"\x0f\x2b", 0x10: b"\x1f\x2b"}


def indexed(representation):
    """Tell our own encoder of an entry that it did not make itself, so that it can go on."""

    async def learn(c):
        c.encoder.header_table.add(*hpack.Decoder().decode(representation, raw=True)[0])

    return learn


def table_of(c, size):
    """A request whose header block begins with a dynamic table size update."""
    c.encoder.header_table_size = size
    return ask(c)


def literals():
    """Every kind of literal representation, with names and values indexed, plain and in Huffman's code."""
    number = 2
    for title, kind in LITERALS:
        for what, representation in (
            ("indexed name", INDEXED_NAME[kind] + PLAIN_VALUE),
            ("indexed name, Huffman", INDEXED_NAME[kind] + CODED_VALUE),
            ("new name", bytes([kind, len(X_TEST[0])]) + X_TEST[0] + PLAIN_VALUE),
            ("new name, Huffman", bytes([kind, 0x80 | len(X_TEST[1])]) + X_TEST[1] + CODED_VALUE),
        ):
            yield Case(
                f"generic/5/{number}",
                f"a literal header field {title} - {what}",
                lambda c, r=representation, k=kind: [ask(c, after=r), *([indexed(r)] if k == INCREMENTAL else [])],
                answered,
            )
            number += 1


CASES = [
    Case("generic/1/1", "a client connection preface", lambda c: [PREFACE, settings()], welcomed, begin=False),
    Case("generic/2/1", "PRIORITY on an idle stream", lambda c: [priority(1), ping()], ponged),
    Case("generic/2/2", "WINDOW_UPDATE on a half-closed (remote) stream", lambda c: [ask(c), window(1, 100)], answered),
    Case("generic/2/3", "PRIORITY on a half-closed (remote) stream", lambda c: [ask(c), priority(1)], answered),
    Case(
        "generic/2/4",
        "RST_STREAM on a half-closed (remote) stream",
        lambda c: [hello(c, "wait"), reset(1), ping()],
        ponged,
    ),
    Case("generic/2/5", "PRIORITY on a closed stream", lambda c: [ask(c), over, priority(1), ping()], ponged),
    Case("generic/3.1/1", "a DATA frame", lambda c: [hello(c)], answered),
    Case(
        "generic/3.1/2",
        "several DATA frames",
        lambda c: [
            begun(c),
            frame(DATA, grpc_message(105)[:50], stream=1),
            frame(DATA, grpc_message(105)[50:], flags=END_STREAM, stream=1),
        ],
        answered,
    ),
    Case(
        "generic/3.1/3",
        "a DATA frame with padding",
        lambda c: [
            begun(c),
            frame(DATA, b"\x06" + grpc_message(105) + bytes(6), flags=END_STREAM | PADDED, stream=1),
        ],
        answered,
    ),
    Case("generic/3.2/1", "a HEADERS frame", lambda c: [ask(c)], answered),
    Case(
        "generic/3.2/2",
        "a HEADERS frame with padding",
        lambda c: [frame(HEADERS, b"\x06" + block(c) + bytes(6), flags=END_STREAM | END_HEADERS | PADDED, stream=1)],
        answered,
    ),
    Case(
        "generic/3.2/3",
        "a HEADERS frame with priority",
        lambda c: [frame(HEADERS, b"\0\0\0\0\x0f" + block(c), flags=END_STREAM | END_HEADERS | 0x20, stream=1)],
        answered,
    ),
    Case("generic/3.3/1", "PRIORITY with priority 1", lambda c: [priority(1, weight=0), ask(c)], answered),
    Case("generic/3.3/2", "PRIORITY with priority 256", lambda c: [priority(1, weight=255), ask(c)], answered),
    Case("generic/3.3/3", "PRIORITY with a dependency", lambda c: [priority(3, on=1), ask(c)], answered),
    Case("generic/3.3/4", "PRIORITY that is exclusive", lambda c: [priority(1, exclusive=True), ask(c)], answered),
    Case("generic/3.3/5", "PRIORITY, then HEADERS on a lower stream", lambda c: [priority(3), ask(c)], answered),
    Case("generic/3.4/1", "RST_STREAM", lambda c: [begun(c), reset(1), ping()], ponged),
    Case("generic/3.5/1", "SETTINGS", lambda c: [settings((3, 100))], acknowledged),
    Case("generic/3.7/1", "PING", lambda c: [ping()], ponged),
    Case("generic/3.8/1", "GOAWAY", lambda c: [goaway(), ping()], ponged),
    Case("generic/3.9/1", "WINDOW_UPDATE for the connection", lambda c: [window(0, 1), ask(c)], answered),
    Case(
        "generic/3.9/2",
        "WINDOW_UPDATE for a stream",
        lambda c: [begun(c), window(1, 1), frame(DATA, flags=END_STREAM, stream=1)],
        answered,
    ),
    Case(
        "generic/3.10/1",
        "a CONTINUATION frame",
        lambda c: [ask(c, flags=END_STREAM), continuation(block(c, filler()))],
        answered,
    ),
    Case(
        "generic/3.10/2",
        "several CONTINUATION frames",
        lambda c: [
            ask(c, flags=END_STREAM),
            continuation(block(c, filler()), flags=0),
            continuation(block(c, filler(5))),
        ],
        answered,
    ),
    Case("generic/4/1", "a GET request", lambda c: [ask(c, fields(**{":method": "GET"}))], answered),
    Case("generic/4/2", "a HEAD request", lambda c: [ask(c, fields(**{":method": "HEAD"}))], answered),
    Case("generic/4/3", "a POST request", lambda c: [hello(c)], answered),
    Case(
        "generic/4/4",
        "a POST request with trailers",
        lambda c: [
            begun(c, fields(trailer="x-test")),
            frame(DATA, grpc_message(105), stream=1),
            ask(c, [("x-test", "ok")]),
        ],
        answered,
    ),
    Case("generic/5/1", "an indexed header field", lambda c: [ask(c, after=b"\xba")], answered),
    *literals(),
    Case("generic/5/14", "a dynamic table size update", lambda c: [table_of(c, 0)], answered),
    Case("generic/5/15", "two dynamic table size updates", lambda c: [ask(c, before=b"\x20\x3f\xe1\x1f")], answered),
]
