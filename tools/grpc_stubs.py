"""Typed servicers and stubs for the services of one proto file."""

from __future__ import annotations

import keyword
from collections.abc import Iterator

from google.protobuf import descriptor_pb2

IMPORTS = """
from collections.abc import AsyncIterator

from dspex_trio.rpc.server.call import Call
from dspex_trio.rpc.server.service import (
    STREAM_STREAM,
    STREAM_UNARY,
    UNARY_STREAM,
    UNARY_UNARY,
    Reply,
    Service,
    Servicer,
    unimplemented,
)
from dspex_trio.rpc.client.stubs import Caller, StreamStream, StreamUnary, UnaryStream, UnaryUnary
"""


def service_module(
    header: str,
    file: descriptor_pb2.FileDescriptorProto,
    files: list[descriptor_pb2.FileDescriptorProto],
    names: dict[str, str],
) -> str:
    """The module of a file's services.

    Args:
        header: The docstring, with `{source}`.
        file: The file.
        files: It and all that it imports.
        names: The module of each of them, without `_pb2`.
    """
    types = dict(_types(files, names))
    used = sorted({types[name].split(".")[0] for service in file.service for name in _used(service)})
    lines = [header.format(source=file.name), IMPORTS.strip(), "", *(f"from . import {module}" for module in used)]
    for service in file.service:
        full_name = f"{file.package}.{service.name}" if file.package else service.name
        lines += ["", "", *_servicer(service, full_name, types), "", "", *_stub(service, full_name, types)]
    return "\n".join(lines) + "\n"


def _used(service: descriptor_pb2.ServiceDescriptorProto) -> Iterator[str]:
    for method in service.method:
        yield method.input_type
        yield method.output_type


def _types(files: list[descriptor_pb2.FileDescriptorProto], names: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Every message's full name and how Python says it."""
    for file in files:
        prefix = f".{file.package}" if file.package else ""
        yield from _nested(file.message_type, prefix, f"{names[file.name]}_pb2")


def _nested(messages: object, prefix: str, path: str) -> Iterator[tuple[str, str]]:
    for message in messages:  # type: ignore[attr-defined] # protobuf's repeated field
        yield f"{prefix}.{message.name}", f"{path}.{message.name}"
        yield from _nested(message.nested_type, f"{prefix}.{message.name}", f"{path}.{message.name}")


def _python_name(method: descriptor_pb2.MethodDescriptorProto) -> str:
    """The method's name, unless Python or a servicer has another use for it."""
    name: str = method.name
    return name + "_" if keyword.iskeyword(name) or name == "service" or name.startswith("__") else name


def _cardinality(method: descriptor_pb2.MethodDescriptorProto) -> str:
    return f"{'STREAM' if method.client_streaming else 'UNARY'}_{'STREAM' if method.server_streaming else 'UNARY'}"


def _servicer(service: descriptor_pb2.ServiceDescriptorProto, full_name: str, types: dict[str, str]) -> Iterator[str]:
    yield f"class {service.name}Servicer(Servicer):"
    yield f'    """The server\'s side of `{full_name}`; a method that is not overridden is UNIMPLEMENTED."""'
    for method in service.method:
        request, reply = types[method.input_type], types[method.output_type]
        argument = f"requests: AsyncIterator[{request}]" if method.client_streaming else f"request: {request}"
        yield ""
        # An `async def` with a `yield` in it is, for a type checker, a plain function that returns an iterator.
        if method.server_streaming:
            yield f"    def {_python_name(method)}(self, {argument}, call: Call) -> AsyncIterator[{reply}]:"
        elif method.client_streaming:
            yield f"    async def {_python_name(method)}(self, {argument}, call: Call) -> {reply}:"
        else:
            yield f"    def {_python_name(method)}(self, {argument}, call: Call) -> Reply[{reply}]:"
        yield f'        raise unimplemented("/{full_name}/{method.name}")'
    yield ""
    yield "    @property"
    yield "    def service(self) -> Service:"
    yield f'        service = Service("{full_name}")'
    for method in service.method:
        yield (
            f'        service.add("{method.name}", self.{_python_name(method)}, {_cardinality(method)}, '
            f"{types[method.input_type]}, {types[method.output_type]})"
        )
    yield "        return service"


def _stub(service: descriptor_pb2.ServiceDescriptorProto, full_name: str, types: dict[str, str]) -> Iterator[str]:
    yield f"class {service.name}Stub:"
    yield f'    """The client\'s side of `{full_name}`."""'
    yield ""
    yield "    def __init__(self, channel: Caller) -> None:"
    if not service.method:
        yield "        pass"
    for method in service.method:
        kind = "".join(word.title() for word in _cardinality(method).split("_"))
        request, reply = types[method.input_type], types[method.output_type]
        yield (
            f"        self.{_python_name(method)} = {kind}[{request}, {reply}]"
            f'(channel, "/{full_name}/{method.name}", {reply})'
        )
