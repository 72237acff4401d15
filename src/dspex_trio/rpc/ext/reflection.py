"""Server reflection, v1 and v1alpha: tools such as grpcurl ask it what a server can do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from google.protobuf.descriptor_pool import DescriptorPool

from dspex_trio.rpc.generated import (
    reflection_v1_grpc,
    reflection_v1_pb2,
    reflection_v1alpha_grpc,
    reflection_v1alpha_pb2,
)
from dspex_trio.rpc.server.call import Call
from dspex_trio.rpc.server.service import Servicer
from dspex_trio.rpc.status import StatusCode


def reflection(servicers: Iterable[Servicer]) -> list[Servicer]:
    """Servicers that describe others, and themselves; to be served together with them."""
    described = list(servicers)
    v1, v1alpha = _ReflectionV1(), _ReflectionV1Alpha()
    index = _Index([*described, v1, v1alpha])
    v1.index = v1alpha.index = index
    return [v1, v1alpha]


class _Index:
    """What is to be known about some services, wherever their descriptors are kept."""

    def __init__(self, servicers: Iterable[Servicer]) -> None:
        self.services: list[str] = []
        self._pools: list[DescriptorPool] = []
        for servicer in servicers:
            service = servicer.service
            self.services.append(service.name)
            for method in service.methods.values():
                pool = method.signature.request_type.DESCRIPTOR.file.pool
                if pool not in self._pools:
                    self._pools.append(pool)
        self.services.sort()

    def find(self, look: Callable[[DescriptorPool], Any]) -> Any:
        """What the first pool that knows it answers; raises KeyError."""
        for pool in self._pools:
            try:
                return look(pool)
            except KeyError:
                continue
        raise KeyError

    def file_of(self, symbol: str) -> Any:
        """The file that declares a name; raises KeyError."""
        try:
            return self.find(lambda pool: pool.FindFileContainingSymbol(symbol))
        except KeyError:
            # Not every protobuf runtime finds methods and fields; what they are in, all of them find.
            parent, _, name = symbol.rpartition(".")
            return self.find(lambda pool: _file_of_member(pool, parent, name))


def _file_of_member(pool: DescriptorPool, parent: str, name: str) -> Any:
    """The file that declares a method or a field; raises KeyError."""
    try:
        descriptor = pool.FindServiceByName(parent)
        descriptor.methods_by_name[name]
    except KeyError:
        descriptor = pool.FindMessageTypeByName(parent)
        descriptor.fields_by_name[name]
    return descriptor.file


class _ReflectionV1(reflection_v1_grpc.ServerReflectionServicer):
    index: _Index

    async def ServerReflectionInfo(  # noqa: N802
        self,
        requests: AsyncIterator[reflection_v1_pb2.ServerReflectionRequest],
        call: Call,  # noqa: ARG002
    ) -> AsyncIterator[reflection_v1_pb2.ServerReflectionResponse]:
        sent: set[str] = set()
        async for request in requests:
            yield _answer(self.index, request, reflection_v1_pb2.ServerReflectionResponse, sent)


class _ReflectionV1Alpha(reflection_v1alpha_grpc.ServerReflectionServicer):
    index: _Index

    async def ServerReflectionInfo(  # noqa: N802
        self,
        requests: AsyncIterator[reflection_v1alpha_pb2.ServerReflectionRequest],
        call: Call,  # noqa: ARG002
    ) -> AsyncIterator[reflection_v1alpha_pb2.ServerReflectionResponse]:
        sent: set[str] = set()
        async for request in requests:
            yield _answer(self.index, request, reflection_v1alpha_pb2.ServerReflectionResponse, sent)


def _answer(index: _Index, request: Any, response_type: type[Any], sent: set[str]) -> Any:
    response = response_type(valid_host=request.host, original_request=request)
    try:
        match request.WhichOneof("message_request"):
            case "list_services":
                for name in index.services:
                    response.list_services_response.service.add(name=name)
            case "file_by_filename":
                _add_files(response, index.find(lambda pool: pool.FindFileByName(request.file_by_filename)), sent)
            case "file_containing_symbol":
                _add_files(response, index.file_of(request.file_containing_symbol), sent)
            case "file_containing_extension":
                wanted = request.file_containing_extension
                _add_files(response, index.find(lambda pool: _extension_file(pool, wanted)), sent)
            case "all_extension_numbers_of_type":
                _add_extensions(response, index, request.all_extension_numbers_of_type)
            case _:
                response.error_response.error_code = int(StatusCode.INVALID_ARGUMENT)
                response.error_response.error_message = "the request asks for nothing"
    except KeyError:
        response.error_response.error_code = int(StatusCode.NOT_FOUND)
        response.error_response.error_message = "not known here"
    return response


def _extension_file(pool: DescriptorPool, wanted: Any) -> Any:
    message = pool.FindMessageTypeByName(wanted.containing_type)
    return pool.FindExtensionByNumber(message, wanted.extension_number).file


def _add_extensions(response: Any, index: _Index, name: str) -> None:
    def numbers(pool: DescriptorPool) -> list[int]:
        return [extension.number for extension in pool.FindAllExtensions(pool.FindMessageTypeByName(name))]

    found = index.find(numbers)
    response.all_extension_numbers_response.base_type_name = name
    response.all_extension_numbers_response.extension_number.extend(sorted(found))


def _add_files(response: Any, file: Any, sent: set[str]) -> None:
    """Add the file, always, and what it imports, unless that was sent on this call before."""
    response.file_descriptor_response.file_descriptor_proto.append(file.serialized_pb)
    sent.add(file.name)
    waiting = list(file.dependencies)
    while waiting:
        dependency = waiting.pop()
        if dependency.name not in sent:
            sent.add(dependency.name)
            response.file_descriptor_response.file_descriptor_proto.append(dependency.serialized_pb)
            waiting += dependency.dependencies
