"""A store as snakepit 0.4 is one, made with grpcio: nothing of ours in it. It answers in its own words and statuses."""

from __future__ import annotations

import importlib
import json
import re
import sys
import threading
from concurrent import futures
from pathlib import Path
from types import SimpleNamespace

import grpc
from google.protobuf import any_pb2
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


class Snakepit04:
    """The calls as snakepit 0.4 answers them; `make_store` joins them with the generated servicer."""

    def __init__(self, pb2):
        self.pb2 = pb2
        self.sessions = {}
        self.held = threading.Event()
        self.held.set()
        self._arrived = threading.Semaphore(0)

    def wait_for_call(self):
        """Block until a read has arrived while reads are held."""
        assert self._arrived.acquire(timeout=20)

    def _hold(self):
        if not self.held.is_set():
            self._arrived.release()
            self.held.wait(20)

    def _session(self, request, context):
        if request.session_id not in self.sessions:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Session not found: {request.session_id}")
        return self.sessions[request.session_id]

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
            version=variable["version"],
            optimization_status=self.pb2.OptimizationStatus(optimizing=False),
        )

    def _decode(self, message, kind, constraints):
        value = json.loads(message.value)
        if kind == "float":
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError('{:validation_failed, "must be a number"}')
            value = float(value)
            if "max" in constraints and value > constraints["max"]:
                raise RuntimeError(f"must be <= {constraints['max']}")
        return value

    def _checked(self, context, message, kind, constraints):
        try:
            return self._decode(message, kind, constraints)
        except ValueError as error:
            return context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"Validation failed: {error}")
        except RuntimeError as error:
            return context.abort(grpc.StatusCode.INTERNAL, str(error))

    def Ping(self, request, context):
        return self.pb2.PingResponse(message=f"pong: {request.message}")

    def InitializeSession(self, request, context):
        if request.session_id in self.sessions:
            context.abort(grpc.StatusCode.ALREADY_EXISTS, f"Session already exists: {request.session_id}")
        self.sessions[request.session_id] = {}
        return self.pb2.InitializeSessionResponse(success=True)

    def CleanupSession(self, request, context):
        self.sessions.pop(request.session_id, None)
        return self.pb2.CleanupSessionResponse(success=True, resources_cleaned=1)

    def GetSession(self, request, context):
        self._session(request, context)
        return self.pb2.GetSessionResponse(session_id=request.session_id)

    def RegisterVariable(self, request, context):
        session = self._session(request, context)
        if request.name in session:
            context.abort(grpc.StatusCode.INTERNAL, "already_exists: constraint")
        constraints = json.loads(request.constraints_json or "{}")
        value = self._checked(context, request.initial_value, request.type, constraints)
        variable = {
            "id": f"var_{request.name}_{len(session)}",
            "name": request.name,
            "type": request.type,
            "value": value,
            "constraints": constraints,
            "metadata": dict(request.metadata),
            "version": 1,
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
        session = self._session(request, context)
        values, errors = {}, {}
        for name, message in request.updates.items():
            if name not in session:
                errors[name] = "not_found"
                continue
            try:
                values[name] = self._decode(message, session[name]["type"], session[name]["constraints"])
            except (ValueError, RuntimeError) as error:
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
            variables=[self._encode(v) for n, v in session.items() if pattern.match(n)]
        )

    def DeleteVariable(self, request, context):
        variable = self._find(request, context)
        del self.sessions[request.session_id][variable["name"]]
        return self.pb2.DeleteVariableResponse(success=True)


def make_store(generated, *, without=()):
    """A store; `without` names calls that it does not have."""
    missing = {name: getattr(generated.grpc.BridgeServiceServicer, name) for name in without}
    return type("Store", (Snakepit04, generated.grpc.BridgeServiceServicer), missing)(generated.pb2)


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
