"""gRPC's interoperability cases against peers that nobody here wrote: `just interop`.

This project's server with the clients of others, this project's channel with their servers, and the channel with a
server that breaks off, pads and says goodbye in the eight ways of gRPC's HTTP/2 cases. Names the peer of each case;
exits with 1 when one was missed.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import click
import interop_channel
import interop_grpcio_client
import trio
from interop_cases import CALL_SECONDS, CASE_SECONDS, CASES, Line, Miss, expect
from interop_channel import caller
from interop_grpcio_client import GrpcioCaller, open_grpcio
from interop_grpcio_server import grpcio_server
from interop_http2 import http2_cases
from interop_node_peer import CLIENT_CANNOT, SERVER_CANNOT, Node, NoNode, find_node
from interop_node_peer import NAME as NODE
from interop_protos import grpcio_code
from interop_raw_client import client_compressed_streaming
from interop_server import OurServer, our_server
from interop_wire import TappedConnector

GRPCIO: Final = f"grpcio {metadata.version('grpcio')}"
# What is said of a case that grpcio alone cannot do or see.
NOTES: Final = {
    "client_compressed_unary": ", which does not tell how a request came: read off the wire",
    "client_compressed_streaming": ", which does not tell how a request came: read off the wire",
    "server_compressed_unary": ", the reply's flag read off the wire",
    "server_compressed_streaming": ", the replies' flags read off the wire",
}
# grpcio's channel compresses all messages of a call or none.
RAW_CLIENT: Final = "raw frames: grpcio's channel cannot compress some requests of a call and not others"
# The content of a frame in the padding cases: gRPC's own, and one that takes a tenth of the time.
FRAMES: Final = 5
QUICK_FRAMES: Final = 50
QUICK_ROUNDS: Final = 5
TOTAL_SECONDS: Final = 170.0

Run = Callable[[], Awaitable[None]]


async def attempt(case: str, peer: str, run: Run) -> Line:
    """Run one case and say what became of it."""
    problem = None
    begun = trio.current_time()
    try:
        with trio.fail_after(CASE_SECONDS):
            await run()
    except Exception as error:  # noqa: BLE001 - whatever goes wrong is a miss, and the next case is to be run
        problem = described(error)
    return Line(case, peer, trio.current_time() - begun, problem)


def described(error: Exception) -> str:
    """An error in one line; of a group, what it is about."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, trio.TooSlowError):
        return f"not done within {CASE_SECONDS:g} seconds"
    return str(error) if isinstance(error, Miss) else f"{type(error).__name__}: {error}"


def report(line: Line) -> Line:
    """Print a case's line."""
    verdict = "ok  " if line.problem is None else "MISS"
    print(f"  {line.case:<28} {verdict} {line.seconds:6.2f} s  {line.peer}", flush=True)
    if line.problem is not None:
        print(f"  {'':<28} {line.problem}", flush=True)
    return line


async def server_cases(code: tuple[Any, Any, Any], rounds: int) -> list[Line]:
    """The cases on this project's server."""
    lines = []
    async with our_server() as server:
        for case in CASES:
            server.service.cancelled = trio.Event()
            if case == "client_compressed_streaming":
                lines.append(report(await attempt(case, RAW_CLIENT, partial(client_compressed_streaming, server.port))))
            else:
                run = partial(grpcio_calls, case, server, code, rounds)
                note = NOTES.get(case, "") if case.startswith("server") else ""
                lines.append(report(await attempt(case, GRPCIO + note, run)))
    return lines


async def grpcio_calls(case: str, server: OurServer, code: tuple[Any, Any, Any], rounds: int) -> None:
    """One case by grpcio's channel, on a connection of its own."""

    def run() -> None:
        with open_grpcio(server.port) as channel:
            cancelled = partial(trio.from_thread.run, server.service.cancelled.wait)
            on = GrpcioCaller(server.port, *code, channel, server.replies_compressed, cancelled, rounds)
            getattr(interop_grpcio_client, case)(on)

    await trio.to_thread.run_sync(run, abandon_on_cancel=True)


async def channel_cases(code: tuple[Any, Any, Any], rounds: int) -> list[Line]:
    """The cases on this project's channel."""
    lines = []
    for case in CASES:
        run = partial(channel_calls, case, code, rounds)
        lines.append(report(await attempt(case, GRPCIO + NOTES.get(case, ""), run)))
    return lines


async def channel_calls(case: str, code: tuple[Any, Any, Any], rounds: int) -> None:
    """One case on a channel of its own, with a grpcio server of its own."""
    taps: list[TappedConnector] = []

    def was_compressed(number: int) -> bool:
        connection = taps[0].connection
        assert connection is not None  # noqa: S101 - it asks about a request that came over it
        return connection.sent.latest.compressed[number]

    with grpcio_server(code, was_compressed) as (port, service):
        taps.append(TappedConnector(port))

        async def server_cancelled() -> None:
            seen = await trio.to_thread.run_sync(service.over.wait, CALL_SECONDS, abandon_on_cancel=True)
            expect(seen, True, "the server's handler was cancelled")

        async with caller(taps[0], rounds, server_cancelled) as on:
            await getattr(interop_channel, case)(on)


async def http2_lines(frame_size: int) -> list[Line]:
    """The cases of a server that does what servers rarely do."""
    return [report(await attempt(case, "raw frames", run)) for case, run in http2_cases(frame_size).items()]


async def node_client_cases(node: Node, rounds: int) -> list[Line]:
    """The cases on this project's server, by grpc-js."""
    lines = []
    for case in CASES:
        if case in CLIENT_CANNOT:
            print(f"  {case:<28} --             {CLIENT_CANNOT[case]}")
            continue
        async with our_server() as server:
            lines.append(report(await attempt(case, NODE, partial(node.client, case, server, rounds))))
    return lines


async def node_server_cases(node: Node, rounds: int) -> list[Line]:
    """The cases on this project's channel, with grpc-js's server."""
    lines = []
    async with node.server() as server:
        for case in CASES:
            if case in SERVER_CANNOT:
                print(f"  {case:<28} --             {SERVER_CANNOT[case]}")
                continue

            async def run(case: str = case) -> None:
                async with caller(TappedConnector(server.port), rounds, server.cancelled) as on:
                    await getattr(interop_channel, case)(on)

            lines.append(report(await attempt(case, NODE, run)))
    return lines


def summary(lines: Sequence[Line]) -> str:
    """How many cases went well."""
    return f"{sum(line.problem is None for line in lines)} of {len(lines)}"


class Sections:
    """What is run, one after the other, and what became of it."""

    def __init__(self) -> None:
        self.lines: dict[str, list[Line]] = {}

    async def run(self, name: str, cases: Callable[[], Awaitable[list[Line]]]) -> None:
        """Run and print one section."""
        print(name)
        self.lines[name] = await cases()
        print(f"{name}: {summary(self.lines[name])}\n")

    @property
    def missed(self) -> list[str]:
        """The cases that did not go well."""
        return [line.case for lines in self.lines.values() for line in lines if line.problem is not None]


async def run_all(sections: Sections, *, rounds: int, quick: bool) -> None:
    """Run every section, those with grpc-js only where it is to be had."""
    with grpcio_code() as code:
        await sections.run("our server, other clients", partial(server_cases, code, rounds))
        await sections.run("our channel, other servers", partial(channel_cases, code, rounds))
        await sections.run("our channel, HTTP/2 cases", partial(http2_lines, QUICK_FRAMES if quick else FRAMES))
    if quick:
        return
    try:
        node = await find_node()
    except NoNode as reason:
        print(f"{NODE}: skipped, {reason}")
        return
    await sections.run("our server, grpc-js's client", partial(node_client_cases, node, rounds))
    await sections.run("our channel, grpc-js's server", partial(node_server_cases, node, rounds))


async def run_in_time(sections: Sections, *, rounds: int, quick: bool) -> bool:
    """Run every section; False if that took too long."""
    with trio.move_on_after(TOTAL_SECONDS) as scope:
        await run_all(sections, rounds=rounds, quick=quick)
    return not scope.cancelled_caught


@click.command(help=__doc__)
@click.option("--rounds", default=100, show_default=True, help="Calls of rpc_soak, channels of channel_soak.")
@click.option("--quick", is_flag=True, help="Short soaks, larger frames, no grpc-js.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write all lines to a file as well.")
def main(rounds: int, json_file: Path | None, *, quick: bool) -> None:
    """Run the command line."""
    logging.basicConfig(level=logging.ERROR)
    logging.getLogger("grpc").setLevel(logging.CRITICAL)  # it logs that UnimplementedCall is not implemented
    sections = Sections()
    in_time = trio.run(partial(run_in_time, sections, rounds=QUICK_ROUNDS if quick else rounds, quick=quick))
    if json_file is not None:
        lines = {name: [asdict(line) for line in lines] for name, lines in sections.lines.items()}
        json_file.write_text(json.dumps(lines))
    if sections.missed:
        sys.exit(f"missed: {', '.join(sections.missed)}")
    if not in_time:
        sys.exit(f"stopped after {TOTAL_SECONDS:g} seconds")


if __name__ == "__main__":
    main()
