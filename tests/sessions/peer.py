"""Stores as snakepit 0.4 and 0.13 are, made with grpcio: nothing of ours in them.

They answer in the words, the statuses and the encodings of snakepit's own bridge server.
"""

from __future__ import annotations

import importlib
import itertools
import json
import re
import sys
import threading
from concurrent import futures
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import grpc
from google.protobuf import any_pb2, timestamp_pb2
from grpc_tools import protoc

ROOT = Path(__file__).parents[2]


def generate(out):
    """The modules that protoc and grpcio's plugin make of our protos."""
    bundled = importlib.resources.files("grpc_tools") / "_proto"
    arguments = [f"-I{ROOT / 'protos'}", f"-I{bundled}", f"--python_out={out}", f"--grpc_python_out={out}"]
    assert protoc.main(["protoc", *arguments, "snakepit/bridge/bridge.proto"]) == 0
    sys.path.insert(0, str(out))
    try:
        return SimpleNamespace(
            pb2=importlib.import_module("snakepit.bridge.bridge_pb2"),
            grpc=importlib.import_module("snakepit.bridge.bridge_pb2_grpc"),
        )
    finally:
        sys.path.remove(str(out))


class Snakepit:
    """What both generations have: sessions."""

    def __init__(self, pb2):
        self.pb2 = pb2
        self.sessions = {}

    def _session(self, request, context):
        if request.session_id not in self.sessions:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Session not found: {request.session_id}")
        return self.sessions[request.session_id]

    def Ping(self, request, context):
        return self.pb2.PingResponse(message=f"pong: {request.message}")

    def CleanupSession(self, request, context):
        self.sessions.pop(request.session_id, None)
        return self.pb2.CleanupSessionResponse(success=True, resources_cleaned=1)

    def GetSession(self, request, context):
        self._session(request, context)
        return self.pb2.GetSessionResponse(session_id=request.session_id)

    def Heartbeat(self, request, context):
        return self.pb2.HeartbeatResponse(session_valid=request.session_id in self.sessions)


def _number(value):
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be a number")  # noqa: TRY004
    return float(value)


def _whole(value):
    if isinstance(value, bool) or not isinstance(value, int | float) or int(value) != value:
        raise ValueError("must be an integer")
    return int(value)


def _text(value):
    if not isinstance(value, str):
        raise ValueError("must be a string")  # noqa: TRY004
    return value


def _embedding(value):
    if not isinstance(value, list) or not all(isinstance(item, int | float) for item in value):
        raise ValueError("must be a list of numbers")
    return [float(item) for item in value]


def _tensor(value):
    if not isinstance(value, dict) or not {"shape", "data"} <= value.keys():
        raise ValueError("invalid tensor format")
    return value


def _boolean(value):
    if not isinstance(value, bool):
        raise ValueError("must be a boolean")  # noqa: TRY004
    return value


class Snakepit04(Snakepit):
    """Variables as snakepit 0.4 has them.

    Versions count the writes after the registration, so they begin at 0. Registering a name again replaces the
    variable. `expected_version` is not looked at. A pattern is a regular expression that is found anywhere, with `.*`
    in the place of each `*`. There are no maps and lists, and no watching.
    """

    TYPES: ClassVar = {
        "float": _number,
        "integer": _whole,
        "string": _text,
        "boolean": _boolean,
        "choice": _text,
        "module": _text,
        "embedding": _embedding,
        "tensor": _tensor,
    }

    def __init__(self, pb2):
        super().__init__(pb2)
        self.held = threading.Event()
        self.held.set()
        self._arrived = threading.Semaphore(0)
        self._ids = itertools.count(1)

    def wait_for_call(self):
        """Block until a read has arrived while reads are held."""
        assert self._arrived.acquire(timeout=20)

    def _hold(self):
        if not self.held.is_set():
            self._arrived.release()
            self.held.wait(20)

    def _find(self, request, context):
        session = self._session(request, context)
        for name, variable in session.items():
            if request.variable_identifier in (name, variable["id"]):
                return variable
        return context.abort(grpc.StatusCode.NOT_FOUND, f"Variable not found: {request.variable_identifier}")

    def _encode(self, variable):
        return self.pb2.Variable(
            id=variable["id"],
            name=variable["name"],
            type=variable["type"],
            value=any_pb2.Any(
                type_url=f"type.googleapis.com/snakepit.{variable['type']}",
                value=json.dumps(variable["value"]).encode(),
            ),
            constraints_json=json.dumps(variable["constraints"]),
            metadata=variable["metadata"],
            last_updated_at=timestamp_pb2.Timestamp(seconds=-576_460_751),  # the BEAM's monotonic clock
            version=variable["version"],
            optimization_status=self.pb2.OptimizationStatus(optimizing=False),
        )

    def _decode(self, message, kind, constraints):
        """The value; ValueError says that it has another type, RuntimeError that it does not meet a constraint."""
        if kind not in self.TYPES:
            raise RuntimeError(f"Unknown type: :{kind}")
        sent = message.type_url.rpartition("snakepit.")[2]
        if sent not in {*self.TYPES, "map", "list"}:
            raise RuntimeError("unknown_type")
        value = self.TYPES[kind](json.loads(message.value))
        if kind in ("float", "integer"):
            if "min" in constraints and value < constraints["min"]:
                raise RuntimeError(f"value {value} is below minimum {constraints['min']}")
            if "max" in constraints and value > constraints["max"]:
                raise RuntimeError(f"value {value} is above maximum {constraints['max']}")
        if kind == "choice" and constraints.get("choices") and value not in constraints["choices"]:
            raise RuntimeError(f"must be one of: {', '.join(constraints['choices'])}")
        return value

    def _checked(self, context, message, kind, constraints):
        try:
            return self._decode(message, kind, constraints)
        except ValueError as error:
            return context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"Validation failed: {error}")
        except RuntimeError as error:
            return context.abort(grpc.StatusCode.INTERNAL, str(error))

    def InitializeSession(self, request, context):
        if request.session_id in self.sessions:
            context.abort(grpc.StatusCode.ALREADY_EXISTS, f"Session already exists: {request.session_id}")
        self.sessions[request.session_id] = {}
        return self.pb2.InitializeSessionResponse(success=True)

    def RegisterVariable(self, request, context):
        session = self._session(request, context)
        constraints = json.loads(request.constraints_json or "{}")
        value = self._checked(context, request.initial_value, request.type, constraints)
        variable = {
            "id": f"var_{request.name}_{next(self._ids)}",
            "name": request.name,
            "type": request.type,
            "value": value,
            "constraints": constraints,
            "metadata": {"source": "elixir", "created_by": "session_store", **request.metadata},
            "version": 0,
        }
        session[request.name] = variable
        return self.pb2.RegisterVariableResponse(success=True, variable_id=variable["id"])

    def GetVariable(self, request, context):
        self._hold()
        return self.pb2.GetVariableResponse(variable=self._encode(self._find(request, context)))

    def GetVariables(self, request, context):
        self._hold()
        session = self._session(request, context)
        by_any = {**session, **{variable["id"]: variable for variable in session.values()}}
        found = {name: self._encode(by_any[name]) for name in request.variable_identifiers if name in by_any}
        missing = [name for name in request.variable_identifiers if name not in by_any]
        return self.pb2.BatchGetVariablesResponse(variables=found, missing_variables=missing)

    def SetVariable(self, request, context):
        variable = self._find(request, context)
        variable["value"] = self._checked(context, request.value, variable["type"], variable["constraints"])
        variable["version"] += 1
        return self.pb2.SetVariableResponse(success=True, new_version=variable["version"])

    def SetVariables(self, request, context):
        if request.session_id not in self.sessions:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "session_not_found")
        session = self.sessions[request.session_id]
        values, errors = {}, {}
        for name, message in request.updates.items():
            if name not in session:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"Variable not found: {name}")
            try:
                values[name] = self._decode(message, session[name]["type"], session[name]["constraints"])
            except ValueError as error:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            except RuntimeError as error:
                errors[name] = str(error)
        if errors and request.atomic:
            return self.pb2.BatchSetVariablesResponse(success=False, errors=errors)
        for name, value in values.items():
            session[name]["value"] = value
            session[name]["version"] += 1
        versions = {name: session[name]["version"] for name in values}
        return self.pb2.BatchSetVariablesResponse(success=not errors, errors=errors, new_versions=versions)

    def ListVariables(self, request, context):
        pattern = re.compile(request.pattern.replace("*", ".*"))
        session = self._session(request, context)
        return self.pb2.ListVariablesResponse(
            variables=[self._encode(v) for n, v in session.items() if pattern.search(n)]
        )

    def DeleteVariable(self, request, context):
        variable = self._find(request, context)
        del self.sessions[request.session_id][variable["name"]]
        return self.pb2.DeleteVariableResponse(success=True)


class Inspected:
    """A tool's result that is no JSON on the Elixir side: what `inspect/1` makes of it travels."""

    def __init__(self, text):
        self.text = text


class Snakepit013(Snakepit):
    """Tools as snakepit 0.13 has them; it has no variables.

    Attributes:
        tools: Tool name → a function of its parameters. It returns JSON, bytes (a binary result) or Inspected.
        specs: Tool name → what a ToolSpec takes. Tools without are not exposed to Python, and can be called.
        calls: The tool calls that came: name and parameters.
        registered: Session and tool name of the Python tools that were registered.
    """

    def __init__(self, pb2):
        super().__init__(pb2)
        self.tools = {}
        self.specs = {}
        self.calls = []
        self.registered = set()

    def InitializeSession(self, request, context):
        self.sessions.setdefault(request.session_id, {})
        return self.pb2.InitializeSessionResponse(success=True)

    def GetExposedElixirTools(self, request, context):
        if request.session_id not in self.sessions:
            return self.pb2.GetExposedElixirToolsResponse()
        specs = [self.pb2.ToolSpec(name=name, **spec) for name, spec in self.specs.items()]
        return self.pb2.GetExposedElixirToolsResponse(tools=specs)

    def ExecuteElixirTool(self, request, context):
        try:
            result = self._execute(request)
        except LookupError as error:
            return self.pb2.ExecuteElixirToolResponse(success=False, error_message=error.args[0])
        except Exception as error:  # noqa: BLE001 - a tool may raise anything
            text = f'{{:tool_execution_failed, %RuntimeError{{message: "{error}"}}}}'
            return self.pb2.ExecuteElixirToolResponse(success=False, error_message=text)
        binary = result if isinstance(result, bytes) else b""
        text = "{}" if binary else result.text if isinstance(result, Inspected) else json.dumps(result)
        return self.pb2.ExecuteElixirToolResponse(
            success=True,
            result=any_pb2.Any(type_url="type.googleapis.com/google.protobuf.StringValue", value=text.encode()),
            binary_result=binary,
            metadata={"execution_time": "0"},
        )

    def _execute(self, request):
        if request.session_id not in self.sessions:
            raise LookupError("not_found")
        if request.tool_name not in self.tools:
            raise LookupError(f'{{:tool_not_found, "{request.session_id}", "{request.tool_name}"}}')
        parameters = {}
        for name, value in request.parameters.items():
            try:
                parameters[name] = json.loads(value.value)
            except ValueError:  # a packed StringValue, say
                where = "" if value.type_url.endswith("StringValue") else f" ({value.type_url})"
                told = f"unexpected byte at position 0: {value.value[:1]!r}"
                raise LookupError(f"Invalid parameter {name}{where}: {told}") from None
        self.calls.append((request.tool_name, parameters))
        return self.tools[request.tool_name](parameters)

    def RegisterTools(self, request, context):
        if request.session_id not in self.sessions:
            return self.pb2.RegisterToolsResponse(success=False, error_message="not_found")
        names = [tool.name for tool in request.tools]
        for name in names:
            if (request.session_id, name) in self.registered:
                return self.pb2.RegisterToolsResponse(success=False, error_message=f'{{:duplicate_tool, "{name}"}}')
        self.registered.update((request.session_id, name) for name in names)
        return self.pb2.RegisterToolsResponse(
            success=True, tool_ids={name: f"{request.session_id}:{name}" for name in names}
        )


def make_store(generated, *, generation=Snakepit04, without=()):
    """A store of Snakepit04 or Snakepit013; `without` names calls that it does not have."""
    missing = {name: getattr(generated.grpc.BridgeServiceServicer, name) for name in without}
    return type("Store", (generation, generated.grpc.BridgeServiceServicer), missing)(generated.pb2)


class Server:
    """A grpcio server around a store, which can go away and come back on the same port."""

    def __init__(self, generated, store):
        self._generated = generated
        self.store = store
        self.port = 0
        self.start()

    def start(self):
        self._server = grpc.server(futures.ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        self._generated.grpc.add_BridgeServiceServicer_to_server(self.store, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        assert self.port
        self._server.start()

    def stop(self):
        self._server.stop(0).wait(10)

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"
