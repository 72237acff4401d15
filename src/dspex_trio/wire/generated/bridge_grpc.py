"""Generated from snakepit/bridge/bridge.proto by tools/generate_protos.py. Do not edit."""

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

from . import bridge_pb2


class BridgeServiceServicer(Servicer):
    """The server's side of `snakepit.bridge.BridgeService`; a method that is not overridden is UNIMPLEMENTED."""

    def Ping(self, request: bridge_pb2.PingRequest, call: Call) -> Reply[bridge_pb2.PingResponse]:
        raise unimplemented("/snakepit.bridge.BridgeService/Ping")

    def InitializeSession(self, request: bridge_pb2.InitializeSessionRequest, call: Call) -> Reply[bridge_pb2.InitializeSessionResponse]:
        raise unimplemented("/snakepit.bridge.BridgeService/InitializeSession")

    def CleanupSession(self, request: bridge_pb2.CleanupSessionRequest, call: Call) -> Reply[bridge_pb2.CleanupSessionResponse]:
        raise unimplemented("/snakepit.bridge.BridgeService/CleanupSession")

    def GetSession(self, request: bridge_pb2.GetSessionRequest, call: Call) -> Reply[bridge_pb2.GetSessionResponse]:
        raise unimplemented("/snakepit.bridge.BridgeService/GetSession")

    def Heartbeat(self, request: bridge_pb2.HeartbeatRequest, call: Call) -> Reply[bridge_pb2.HeartbeatResponse]:
        raise unimplemented("/snakepit.bridge.BridgeService/Heartbeat")

    def GetVariable(self, request: bridge_pb2.GetVariableRequest, call: Call) -> Reply[bridge_pb2.GetVariableResponse]:
        raise unimplemented("/snakepit.bridge.BridgeService/GetVariable")

    def SetVariable(self, request: bridge_pb2.SetVariableRequest, call: Call) -> Reply[bridge_pb2.SetVariableResponse]:
        raise unimplemented("/snakepit.bridge.BridgeService/SetVariable")

    def GetVariables(self, request: bridge_pb2.BatchGetVariablesRequest, call: Call) -> Reply[bridge_pb2.BatchGetVariablesResponse]:
        raise unimplemented("/snakepit.bridge.BridgeService/GetVariables")

    def SetVariables(self, request: bridge_pb2.BatchSetVariablesRequest, call: Call) -> Reply[bridge_pb2.BatchSetVariablesResponse]:
        raise unimplemented("/snakepit.bridge.BridgeService/SetVariables")

    def RegisterVariable(self, request: bridge_pb2.RegisterVariableRequest, call: Call) -> Reply[bridge_pb2.RegisterVariableResponse]:
        raise unimplemented("/snakepit.bridge.BridgeService/RegisterVariable")

    def ListVariables(self, request: bridge_pb2.ListVariablesRequest, call: Call) -> Reply[bridge_pb2.ListVariablesResponse]:
        raise unimplemented("/snakepit.bridge.BridgeService/ListVariables")

    def DeleteVariable(self, request: bridge_pb2.DeleteVariableRequest, call: Call) -> Reply[bridge_pb2.DeleteVariableResponse]:
        raise unimplemented("/snakepit.bridge.BridgeService/DeleteVariable")

    def WatchVariables(self, request: bridge_pb2.WatchVariablesRequest, call: Call) -> AsyncIterator[bridge_pb2.VariableUpdate]:
        raise unimplemented("/snakepit.bridge.BridgeService/WatchVariables")

    def ExecuteTool(self, request: bridge_pb2.ExecuteToolRequest, call: Call) -> Reply[bridge_pb2.ExecuteToolResponse]:
        raise unimplemented("/snakepit.bridge.BridgeService/ExecuteTool")

    def ExecuteStreamingTool(self, request: bridge_pb2.ExecuteToolRequest, call: Call) -> AsyncIterator[bridge_pb2.ToolChunk]:
        raise unimplemented("/snakepit.bridge.BridgeService/ExecuteStreamingTool")

    def RegisterTools(self, request: bridge_pb2.RegisterToolsRequest, call: Call) -> Reply[bridge_pb2.RegisterToolsResponse]:
        raise unimplemented("/snakepit.bridge.BridgeService/RegisterTools")

    def GetExposedElixirTools(self, request: bridge_pb2.GetExposedElixirToolsRequest, call: Call) -> Reply[bridge_pb2.GetExposedElixirToolsResponse]:
        raise unimplemented("/snakepit.bridge.BridgeService/GetExposedElixirTools")

    def ExecuteElixirTool(self, request: bridge_pb2.ExecuteElixirToolRequest, call: Call) -> Reply[bridge_pb2.ExecuteElixirToolResponse]:
        raise unimplemented("/snakepit.bridge.BridgeService/ExecuteElixirTool")

    def StreamTelemetry(self, requests: AsyncIterator[bridge_pb2.TelemetryControl], call: Call) -> AsyncIterator[bridge_pb2.TelemetryEvent]:
        raise unimplemented("/snakepit.bridge.BridgeService/StreamTelemetry")

    @property
    def service(self) -> Service:
        service = Service("snakepit.bridge.BridgeService")
        service.add("Ping", self.Ping, UNARY_UNARY, bridge_pb2.PingRequest, bridge_pb2.PingResponse)
        service.add("InitializeSession", self.InitializeSession, UNARY_UNARY, bridge_pb2.InitializeSessionRequest, bridge_pb2.InitializeSessionResponse)
        service.add("CleanupSession", self.CleanupSession, UNARY_UNARY, bridge_pb2.CleanupSessionRequest, bridge_pb2.CleanupSessionResponse)
        service.add("GetSession", self.GetSession, UNARY_UNARY, bridge_pb2.GetSessionRequest, bridge_pb2.GetSessionResponse)
        service.add("Heartbeat", self.Heartbeat, UNARY_UNARY, bridge_pb2.HeartbeatRequest, bridge_pb2.HeartbeatResponse)
        service.add("GetVariable", self.GetVariable, UNARY_UNARY, bridge_pb2.GetVariableRequest, bridge_pb2.GetVariableResponse)
        service.add("SetVariable", self.SetVariable, UNARY_UNARY, bridge_pb2.SetVariableRequest, bridge_pb2.SetVariableResponse)
        service.add("GetVariables", self.GetVariables, UNARY_UNARY, bridge_pb2.BatchGetVariablesRequest, bridge_pb2.BatchGetVariablesResponse)
        service.add("SetVariables", self.SetVariables, UNARY_UNARY, bridge_pb2.BatchSetVariablesRequest, bridge_pb2.BatchSetVariablesResponse)
        service.add("RegisterVariable", self.RegisterVariable, UNARY_UNARY, bridge_pb2.RegisterVariableRequest, bridge_pb2.RegisterVariableResponse)
        service.add("ListVariables", self.ListVariables, UNARY_UNARY, bridge_pb2.ListVariablesRequest, bridge_pb2.ListVariablesResponse)
        service.add("DeleteVariable", self.DeleteVariable, UNARY_UNARY, bridge_pb2.DeleteVariableRequest, bridge_pb2.DeleteVariableResponse)
        service.add("WatchVariables", self.WatchVariables, UNARY_STREAM, bridge_pb2.WatchVariablesRequest, bridge_pb2.VariableUpdate)
        service.add("ExecuteTool", self.ExecuteTool, UNARY_UNARY, bridge_pb2.ExecuteToolRequest, bridge_pb2.ExecuteToolResponse)
        service.add("ExecuteStreamingTool", self.ExecuteStreamingTool, UNARY_STREAM, bridge_pb2.ExecuteToolRequest, bridge_pb2.ToolChunk)
        service.add("RegisterTools", self.RegisterTools, UNARY_UNARY, bridge_pb2.RegisterToolsRequest, bridge_pb2.RegisterToolsResponse)
        service.add("GetExposedElixirTools", self.GetExposedElixirTools, UNARY_UNARY, bridge_pb2.GetExposedElixirToolsRequest, bridge_pb2.GetExposedElixirToolsResponse)
        service.add("ExecuteElixirTool", self.ExecuteElixirTool, UNARY_UNARY, bridge_pb2.ExecuteElixirToolRequest, bridge_pb2.ExecuteElixirToolResponse)
        service.add("StreamTelemetry", self.StreamTelemetry, STREAM_STREAM, bridge_pb2.TelemetryControl, bridge_pb2.TelemetryEvent)
        return service


class BridgeServiceStub:
    """The client's side of `snakepit.bridge.BridgeService`."""

    def __init__(self, channel: Caller) -> None:
        self.Ping = UnaryUnary[bridge_pb2.PingRequest, bridge_pb2.PingResponse](channel, "/snakepit.bridge.BridgeService/Ping", bridge_pb2.PingResponse)
        self.InitializeSession = UnaryUnary[bridge_pb2.InitializeSessionRequest, bridge_pb2.InitializeSessionResponse](channel, "/snakepit.bridge.BridgeService/InitializeSession", bridge_pb2.InitializeSessionResponse)
        self.CleanupSession = UnaryUnary[bridge_pb2.CleanupSessionRequest, bridge_pb2.CleanupSessionResponse](channel, "/snakepit.bridge.BridgeService/CleanupSession", bridge_pb2.CleanupSessionResponse)
        self.GetSession = UnaryUnary[bridge_pb2.GetSessionRequest, bridge_pb2.GetSessionResponse](channel, "/snakepit.bridge.BridgeService/GetSession", bridge_pb2.GetSessionResponse)
        self.Heartbeat = UnaryUnary[bridge_pb2.HeartbeatRequest, bridge_pb2.HeartbeatResponse](channel, "/snakepit.bridge.BridgeService/Heartbeat", bridge_pb2.HeartbeatResponse)
        self.GetVariable = UnaryUnary[bridge_pb2.GetVariableRequest, bridge_pb2.GetVariableResponse](channel, "/snakepit.bridge.BridgeService/GetVariable", bridge_pb2.GetVariableResponse)
        self.SetVariable = UnaryUnary[bridge_pb2.SetVariableRequest, bridge_pb2.SetVariableResponse](channel, "/snakepit.bridge.BridgeService/SetVariable", bridge_pb2.SetVariableResponse)
        self.GetVariables = UnaryUnary[bridge_pb2.BatchGetVariablesRequest, bridge_pb2.BatchGetVariablesResponse](channel, "/snakepit.bridge.BridgeService/GetVariables", bridge_pb2.BatchGetVariablesResponse)
        self.SetVariables = UnaryUnary[bridge_pb2.BatchSetVariablesRequest, bridge_pb2.BatchSetVariablesResponse](channel, "/snakepit.bridge.BridgeService/SetVariables", bridge_pb2.BatchSetVariablesResponse)
        self.RegisterVariable = UnaryUnary[bridge_pb2.RegisterVariableRequest, bridge_pb2.RegisterVariableResponse](channel, "/snakepit.bridge.BridgeService/RegisterVariable", bridge_pb2.RegisterVariableResponse)
        self.ListVariables = UnaryUnary[bridge_pb2.ListVariablesRequest, bridge_pb2.ListVariablesResponse](channel, "/snakepit.bridge.BridgeService/ListVariables", bridge_pb2.ListVariablesResponse)
        self.DeleteVariable = UnaryUnary[bridge_pb2.DeleteVariableRequest, bridge_pb2.DeleteVariableResponse](channel, "/snakepit.bridge.BridgeService/DeleteVariable", bridge_pb2.DeleteVariableResponse)
        self.WatchVariables = UnaryStream[bridge_pb2.WatchVariablesRequest, bridge_pb2.VariableUpdate](channel, "/snakepit.bridge.BridgeService/WatchVariables", bridge_pb2.VariableUpdate)
        self.ExecuteTool = UnaryUnary[bridge_pb2.ExecuteToolRequest, bridge_pb2.ExecuteToolResponse](channel, "/snakepit.bridge.BridgeService/ExecuteTool", bridge_pb2.ExecuteToolResponse)
        self.ExecuteStreamingTool = UnaryStream[bridge_pb2.ExecuteToolRequest, bridge_pb2.ToolChunk](channel, "/snakepit.bridge.BridgeService/ExecuteStreamingTool", bridge_pb2.ToolChunk)
        self.RegisterTools = UnaryUnary[bridge_pb2.RegisterToolsRequest, bridge_pb2.RegisterToolsResponse](channel, "/snakepit.bridge.BridgeService/RegisterTools", bridge_pb2.RegisterToolsResponse)
        self.GetExposedElixirTools = UnaryUnary[bridge_pb2.GetExposedElixirToolsRequest, bridge_pb2.GetExposedElixirToolsResponse](channel, "/snakepit.bridge.BridgeService/GetExposedElixirTools", bridge_pb2.GetExposedElixirToolsResponse)
        self.ExecuteElixirTool = UnaryUnary[bridge_pb2.ExecuteElixirToolRequest, bridge_pb2.ExecuteElixirToolResponse](channel, "/snakepit.bridge.BridgeService/ExecuteElixirTool", bridge_pb2.ExecuteElixirToolResponse)
        self.StreamTelemetry = StreamStream[bridge_pb2.TelemetryControl, bridge_pb2.TelemetryEvent](channel, "/snakepit.bridge.BridgeService/StreamTelemetry", bridge_pb2.TelemetryEvent)
