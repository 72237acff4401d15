"""gRPC's interoperability test cases: their names, what they send and what they expect.

The procedures are those of gRPC's own description of them, doc/interop-test-descriptions.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

CASES: Final = (
    "empty_unary",
    "large_unary",
    "client_compressed_unary",
    "server_compressed_unary",
    "client_streaming",
    "client_compressed_streaming",
    "server_streaming",
    "server_compressed_streaming",
    "ping_pong",
    "empty_stream",
    "custom_metadata",
    "status_code_and_message",
    "special_status_message",
    "unimplemented_method",
    "unimplemented_service",
    "cancel_after_begin",
    "cancel_after_first_response",
    "timeout_on_sleeping_server",
    "rpc_soak",
    "channel_soak",
)

LARGE_REQUEST: Final = 271828
LARGE_RESPONSE: Final = 314159
REQUEST_SIZES: Final = (27182, 8, 1828, 45904)
RESPONSE_SIZES: Final = (31415, 9, 2653, 58979)
COMPRESSED_REQUESTS: Final = ((27182, True), (45904, False))
COMPRESSED_RESPONSES: Final = ((31415, True), (92653, False))
INITIAL: Final = ("x-grpc-test-echo-initial", "test_initial_metadata_value")
TRAILING: Final = ("x-grpc-test-echo-trailing-bin", b"\xab\xab\xab")
STATUS: Final = (2, "test status message")
SPECIAL_MESSAGE: Final = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP \U0001f608\t\n"
SLEEPING_TIMEOUT: Final = 0.001
# The most time for one case, and for one call of a soak.
CASE_SECONDS: Final = 60.0
CALL_SECONDS: Final = 20.0
# How much of a value is printed.
_SHORT: Final = 200


class Miss(Exception):
    """A case did not go as it should."""


@dataclass(frozen=True, slots=True)
class Line:
    """What is reported of one case: who was at the other end, how long it took, what was amiss, if anything."""

    case: str
    peer: str
    seconds: float
    problem: str | None = None


def expect(got: object, wanted: object, what: str) -> None:
    """Raise Miss unless the two are equal."""
    if got != wanted:
        raise Miss(f"{what}: expected {_short(wanted)}, got {_short(got)}")


def expect_zeros(payload: Any, size: int) -> None:
    """Raise Miss unless a payload has so many bytes, all zero."""
    expect(len(payload.body), size, "size of the payload")
    expect(any(payload.body), False, "a byte that is not zero")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHORT else f"{text[:_SHORT]}…"


def large(pb: Any, **fields: Any) -> Any:
    """The request of large_unary, with more fields; `pb` is the module of the messages, ours or grpcio's."""
    return pb.SimpleRequest(response_size=LARGE_RESPONSE, payload=pb.Payload(body=bytes(LARGE_REQUEST)), **fields)


def inputs(pb: Any) -> list[Any]:
    """The requests of client_streaming."""
    return [pb.StreamingInputCallRequest(payload=pb.Payload(body=bytes(size))) for size in REQUEST_SIZES]


def compressed_inputs(pb: Any) -> list[tuple[Any, bool]]:
    """The requests of client_compressed_streaming, and whether each is to be compressed."""
    return [
        (
            pb.StreamingInputCallRequest(
                payload=pb.Payload(body=bytes(size)), expect_compressed=pb.BoolValue(value=compressed)
            ),
            compressed,
        )
        for size, compressed in COMPRESSED_REQUESTS
    ]


def probe(pb: Any) -> Any:
    """What client_compressed_streaming sends uncompressed first: a server that does not look would take it."""
    return pb.StreamingInputCallRequest(
        payload=pb.Payload(body=bytes(27182)), expect_compressed=pb.BoolValue(value=True)
    )


def outputs(pb: Any) -> Any:
    """The request of server_streaming."""
    parameters = [pb.ResponseParameters(size=size) for size in RESPONSE_SIZES]
    return pb.StreamingOutputCallRequest(response_parameters=parameters)


def compressed_outputs(pb: Any) -> Any:
    """The request of server_compressed_streaming."""
    parameters = [
        pb.ResponseParameters(size=size, compressed=pb.BoolValue(value=compressed))
        for size, compressed in COMPRESSED_RESPONSES
    ]
    return pb.StreamingOutputCallRequest(response_parameters=parameters)


def pings(pb: Any) -> list[Any]:
    """The requests of ping_pong."""
    return [ping(pb, size, reply) for size, reply in zip(REQUEST_SIZES, RESPONSE_SIZES, strict=True)]


def ping(pb: Any, size: int, *replies: int) -> Any:
    """A request that asks for replies of some sizes."""
    return pb.StreamingOutputCallRequest(
        payload=pb.Payload(body=bytes(size)),
        response_parameters=[pb.ResponseParameters(size=reply) for reply in replies],
    )


def echo_status(pb: Any, message: str) -> Any:
    """A status that the server is to answer with."""
    return pb.EchoStatus(code=STATUS[0], message=message)
