"""@grpc/grpc-js as the client and as the server of the cases, each in a process of Node's."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import trio
from interop_cases import CALL_SECONDS, Miss, expect
from interop_protos import PROTOS
from interop_server import OurServer

_SCRIPTS: Final = Path(__file__).resolve().parent / "interop_node"
_PACKAGES: Final = ("@grpc/grpc-js@1.14.7", "@grpc/proto-loader@0.8.1")
# Beside the other tools of development; `just` makes and git ignores that folder.
_INSTALLED: Final = Path(__file__).resolve().parent.parent / ".venv" / "interop-node"
_INSTALL_SECONDS: Final = 40.0
# Without a network it should be known soon that there is none.
_NPM_OPTIONS: Final = ("--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=0", "--fetch-timeout=10000")

NAME: Final = _PACKAGES[0].replace("@1", " 1")
# What grpc-js has no way to do.
CLIENT_CANNOT: Final = {"client_compressed_streaming": "its channel cannot leave some requests of a call uncompressed"}
SERVER_CANNOT: Final = {
    "client_compressed_unary": "its server does not tell how a request came",
    "client_compressed_streaming": "its server does not tell how a request came",
    "server_compressed_unary": "its server does not compress",
    "server_compressed_streaming": "its server does not compress",
}
_FLAGS: Final[Mapping[str, list[list[bool]]]] = {
    "server_compressed_unary": [[True], [False]],
    "server_compressed_streaming": [[True, False]],
}


class NoNode(Exception):
    """Node or its packages are not to be had here."""


@dataclass(frozen=True, slots=True)
class Node:
    """Where Node is, with grpc-js."""

    program: str
    modules: Path

    async def client(self, case: str, server: OurServer, rounds: int) -> None:
        """One case by grpc-js's channel."""
        command = [self.program, str(_SCRIPTS / "client.cjs"), str(PROTOS), str(server.port), case, str(rounds)]
        run = partial(trio.run_process, capture_stdout=True, capture_stderr=True, check=False, env=self._environment)
        done = await run(command)
        if done.returncode != 0:
            raise Miss(done.stderr.decode(errors="replace").strip() or f"node ended with {done.returncode}")
        if case in _FLAGS:
            assert server.listener.connection is not None  # noqa: S101 - calls were made
            sent = server.listener.connection.sent
            expect([call.compressed for call in sent.calls.values()], _FLAGS[case], "compressed-flags of the replies")
        if case == "cancel_after_first_response":
            with trio.fail_after(CALL_SECONDS):
                await server.service.cancelled.wait()

    @asynccontextmanager
    async def server(self) -> AsyncIterator[NodeServer]:
        """Run grpc-js's server."""
        command = [self.program, str(_SCRIPTS / "server.cjs"), str(PROTOS)]
        async with trio.open_nursery() as nursery:
            start = partial(trio.run_process, stdout=subprocess.PIPE, check=False, env=self._environment)
            process = await nursery.start(start, command)
            try:
                with trio.fail_after(CALL_SECONDS):
                    port = int(await _line(process.stdout))
                yield NodeServer(port, process.stdout)
            finally:
                nursery.cancel_scope.cancel()

    @property
    def _environment(self) -> dict[str, str]:
        # Without a PATH: nothing else is started.
        return {"NODE_PATH": str(self.modules)}


@dataclass(frozen=True, slots=True)
class NodeServer:
    """grpc-js's server, which says "cancelled" when a handler was."""

    port: int
    output: trio.abc.ReceiveStream

    async def cancelled(self) -> None:
        """Wait until the server has seen a cancellation."""
        expect(await _line(self.output), "cancelled", "what the server says")


async def _line(stream: trio.abc.ReceiveStream) -> str:
    text = b""
    while not text.endswith(b"\n"):
        data = await stream.receive_some(1)
        if not data:
            raise Miss("node's server ended")
        text += data
    return text.decode().strip()


async def find_node() -> Node:
    """Node with grpc-js, installed by npm the first time.

    Raises:
        NoNode: With the reason.
    """
    program, npm = shutil.which("node"), shutil.which("npm")
    if program is None:
        raise NoNode("node is not installed")
    modules = _INSTALLED / "node_modules"
    if all((modules / package.rpartition("@")[0] / "package.json").exists() for package in _PACKAGES):
        return Node(program, modules)
    if npm is None:
        raise NoNode("npm is not installed")
    command = [npm, "install", "--prefix", str(_INSTALLED), *_NPM_OPTIONS, *_PACKAGES]
    with trio.move_on_after(_INSTALL_SECONDS):
        done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
        if done.returncode == 0:
            return Node(program, modules)
    raise NoNode(f"npm cannot install {_PACKAGES[0]}")
