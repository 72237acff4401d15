"""The client of client_compressed_streaming, frame by frame: one request is compressed and the next is not."""

from __future__ import annotations

import gzip
from typing import Final

import trio
from interop_cases import compressed_inputs, expect, probe
from interop_protos import messages
from interop_raw import RawConnection, message

_FIELDS: Final = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/grpc.testing.TestService/StreamingInputCall"),
    (":authority", "localhost"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
    ("grpc-encoding", "gzip"),
)


async def client_compressed_streaming(port: int) -> None:
    """The server looks, and takes requests of both kinds on one call."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        client = RawConnection(stream)
        await client.begin(client=True)
        expect(await _call(client, 1, message(probe(messages).SerializeToString())), "3", "status of the probe")
        body = b""
        for request, compressed in compressed_inputs(messages):
            data = request.SerializeToString()
            body += message(gzip.compress(data) if compressed else data, compressed=compressed)
        expect(await _call(client, 3, body), "0", "status")
        reply = messages.StreamingInputCallResponse.FromString(bytes(client.bodies[3][len(message(b"")) :]))
        expect(reply.aggregated_payload_size, 73086, "aggregated size")


async def _call(client: RawConnection, stream_id: int, body: bytes) -> str | None:
    await client.send_headers(stream_id, *_FIELDS)
    await client.send_data(stream_id, body, end=True)
    while stream_id not in client.ended:
        await client.receive()
    return client.headers[stream_id].get("grpc-status")
