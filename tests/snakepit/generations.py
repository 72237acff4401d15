"""How snakepit 0.13 and 0.4 treat their workers, and the BridgeServer that each has for them."""

from __future__ import annotations

from dataclasses import dataclass

from ..sessions.peer import Snakepit013, Snakepit04  # noqa: TID252 - tests are no package

CORRELATION = "x-snakepit-correlation-id"


class BridgeServer:
    """Counts what workers ask of Elixir, beside what a store of that generation answers."""

    def __init__(self, pb2):
        super().__init__(pb2)
        self.heartbeats = 0
        self.tools = {}
        self.correlations = set()

    def Heartbeat(self, request, context):
        self.heartbeats += 1
        return super().Heartbeat(request, context)

    def RegisterTools(self, request, context):
        self.tools.setdefault(request.session_id, []).extend(tool.name for tool in request.tools)
        return self._register(request, context)

    def _register(self, request, context):
        return self.pb2.RegisterToolsResponse(success=True)

    def GetVariables(self, request, context):
        self.correlations.update(value for key, value in context.invocation_metadata() if key == CORRELATION)
        return super().GetVariables(request, context)


class BridgeServer04(BridgeServer, Snakepit04):
    pass


class BridgeServer013(BridgeServer, Snakepit013):
    def _register(self, request, context):
        return Snakepit013.RegisterTools(self, request, context)


@dataclass(frozen=True)
class Generation:
    """How a generation of snakepit treats its workers."""

    name: str
    store: type
    kill_after: float
    ready_file: bool


V013 = Generation("v0.13", BridgeServer013, 6.0, ready_file=True)
V04 = Generation("v0.4.3", BridgeServer04, 2.0, ready_file=False)
