"""The messages and services of grpc.testing: this project's generated code, and grpcio's, made when it is needed."""

from __future__ import annotations

import contextlib
import importlib
import sys
import tempfile
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import grpc

RPC_TESTS: Final = Path(__file__).resolve().parent.parent / "tests" / "rpc"
PROTOS: Final = RPC_TESTS / "protos"
FILES: Final = ("grpc/testing/empty.proto", "grpc/testing/messages.proto", "grpc/testing/test.proto")

sys.path.insert(0, str(RPC_TESTS))

from generated import empty_testing_pb2 as empty  # noqa: E402 - found on the path that was just added
from generated import messages_pb2 as messages  # noqa: E402
from generated import test_grpc as services  # noqa: E402

__all__ = ["FILES", "PROTOS", "empty", "grpcio_code", "messages", "services"]


@contextlib.contextmanager
def grpcio_code() -> Iterator[tuple[types.ModuleType, types.ModuleType, types.ModuleType]]:
    """What grpcio's own generator makes of the same files: empty, messages and services.

    The modules live in a directory that is gone at the end of the block; they stay usable.
    """
    protoc = importlib.import_module("grpc_tools.protoc")
    with tempfile.TemporaryDirectory() as out:
        command = ["protoc", f"-I{PROTOS}", f"--python_out={out}", f"--grpc_python_out={out}", *FILES]
        if protoc.main(command) != 0:
            sys.exit("protoc failed; its message is above")
        # The generated modules call themselves grpc.testing.*, after the proto package: a part of grpcio's own package.
        grpc.__path__.append(str(Path(out) / "grpc"))
        try:
            found = [importlib.import_module(f"grpc.testing.{name}") for name in ("empty_pb2", "messages_pb2")]
            yield found[0], found[1], importlib.import_module("grpc.testing.test_pb2_grpc")
        finally:
            grpc.__path__.remove(str(Path(out) / "grpc"))
