"""Generated from snakepit/bridge/program.proto by tools/generate_protos.py. Do not edit."""

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

from . import program_pb2


class SnakepitBridgeServicer(Servicer):
    """The server's side of `snakepit.bridge.SnakepitBridge`; a method that is not overridden is UNIMPLEMENTED."""

    def ExecuteProgram(self, request: program_pb2.ExecuteProgramRequest, call: Call) -> Reply[program_pb2.ExecuteProgramResponse]:
        raise unimplemented("/snakepit.bridge.SnakepitBridge/ExecuteProgram")

    def StreamProgram(self, request: program_pb2.ExecuteProgramRequest, call: Call) -> AsyncIterator[program_pb2.ProgramEvent]:
        raise unimplemented("/snakepit.bridge.SnakepitBridge/StreamProgram")

    @property
    def service(self) -> Service:
        service = Service("snakepit.bridge.SnakepitBridge")
        service.add("ExecuteProgram", self.ExecuteProgram, UNARY_UNARY, program_pb2.ExecuteProgramRequest, program_pb2.ExecuteProgramResponse)
        service.add("StreamProgram", self.StreamProgram, UNARY_STREAM, program_pb2.ExecuteProgramRequest, program_pb2.ProgramEvent)
        return service


class SnakepitBridgeStub:
    """The client's side of `snakepit.bridge.SnakepitBridge`."""

    def __init__(self, channel: Caller) -> None:
        self.ExecuteProgram = UnaryUnary[program_pb2.ExecuteProgramRequest, program_pb2.ExecuteProgramResponse](channel, "/snakepit.bridge.SnakepitBridge/ExecuteProgram", program_pb2.ExecuteProgramResponse)
        self.StreamProgram = UnaryStream[program_pb2.ExecuteProgramRequest, program_pb2.ProgramEvent](channel, "/snakepit.bridge.SnakepitBridge/StreamProgram", program_pb2.ProgramEvent)
