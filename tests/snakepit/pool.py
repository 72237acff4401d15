"""The Elixir side of a snakepit pool, made with grpcio: nothing of ours in it.

It starts workers, finds out where they listen, talks to them and ends them as snakepit 0.13 and 0.4 do.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from google.protobuf import any_pb2

from ..sessions.peer import Server, Snakepit013, Snakepit04, make_store  # noqa: TID252 - tests are no package

SCRIPT = Path(__file__).parents[2] / "src/dspex_trio/snakepit/script/grpc_server.py"
START_SECONDS = 60
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


class ToolFailed(Exception):
    """A tool's `success=false`, with the object that its message holds."""

    def __init__(self, message):
        super().__init__(message)
        self.problem = json.loads(message)


@dataclass
class Heartbeats:
    """What the pool's monitor of one worker has seen; one miss and the worker is killed."""

    answered: int = 0
    slowest: float = 0.0
    missed: str = ""
    stop: threading.Event = field(default_factory=threading.Event)


class Pool:
    """Some workers and their BridgeServer.

    Args:
        generated: The modules that protoc made.
        directory: For ready files.
        generation: V013 or V04.
        arguments: The adapter's, for every worker.
        env: The adapter's environment.
        heartbeat_config: What 0.13 hands on of its policy; None for its defaults.
        interval: Seconds between the pool's heartbeats; 2 in snakepit.
    """

    def __init__(
        self, generated, directory, generation=V013, *, arguments=(), env=None, heartbeat_config=None, interval=2.0
    ):
        self.generated = generated
        self.directory = directory
        self.generation = generation
        self.arguments = list(arguments)
        self.env = env or {}
        self.heartbeat_config = heartbeat_config
        self.interval = interval
        self.server = Server(generated, make_store(generated, generation=generation.store))
        self.run_id = f"run{os.getpid()}"
        self.workers = []

    @property
    def store(self):
        return self.server.store

    def start(self, *, arguments=None, wait=True):
        """Start one more worker; without `wait` it need not become ready."""
        worker = Worker(self, self.arguments if arguments is None else arguments, len(self.workers))
        self.workers.append(worker)
        if wait:
            worker.wait_until_ready()
            worker.connect()
        return worker

    def stop(self):
        for worker in self.workers:
            worker.stop()
        self.server.stop()


class Worker:
    """One Python process of the pool, from its start to its end."""

    def __init__(self, pool, arguments, number):
        self.pool = pool
        self.session_id = f"session_{number}_{time.time_ns() // 1000}" if pool.generation is V013 else "default_session"
        self.heartbeats = Heartbeats()
        self.correlations = itertools.count(1)
        self.ready_file = pool.directory / f"snakepit_ready_{number}"
        self.output = b""
        self.port = 0
        self.channel = None
        self._monitor = None
        self.popen = self._spawn(arguments)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _spawn(self, arguments):
        path = os.pathsep.join(filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))))
        env = {**os.environ, "PYTHONPATH": path, **self.pool.env}
        address = ["--elixir-address", self.pool.server.address.replace("127.0.0.1", "localhost")]
        run = ["--snakepit-run-id", self.pool.run_id]
        if self.pool.generation is V04:
            command = ["setsid", sys.executable, SCRIPT, *arguments, "--port", "0", *address, *run]
        else:
            marks = ["--snakepit-instance-name", "tests", "--snakepit-instance-token", "token-of-this-pool"]
            command = [sys.executable, SCRIPT, *arguments, "--port", "0", *address, *run, *marks]
            config = {"interval_ms": 2000, "timeout_ms": 10000, "max_missed_heartbeats": 3, "initial_delay_ms": 0}
            env |= {
                "SNAKEPIT_READY_FILE": str(self.ready_file),
                "SNAKEPIT_LOG_LEVEL": "info",
                "SNAKEPIT_PROCESS_GROUP": "1",
                "SNAKEPIT_HEARTBEAT_CONFIG": json.dumps(
                    {**config, "enabled": True, "dependent": True, **(self.pool.heartbeat_config or {})}
                ),
                "OMP_NUM_THREADS": "1",
            }
        return subprocess.Popen(
            command, cwd=SCRIPT.parent, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def _read(self):
        with self.popen.stdout as stdout:
            while data := stdout.read1(65536):
                self.output += data

    @property
    def pid(self):
        return self.popen.pid

    @property
    def log(self):
        return self.output.decode("utf-8", "replace")

    # ---- the beginning

    def wait_until_ready(self):
        wait_until(lambda: self._found_port() or self.popen.poll() is not None, START_SECONDS)
        assert self.port, f"the worker ended with {self.popen.returncode}:\n{self.log}"

    def _found_port(self):
        if not self.pool.generation.ready_file:
            found = re.search(rb"GRPC_READY:(\d+)\n", self.output)
            self.port = int(found[1]) if found else 0
        elif self.ready_file.exists():
            self.port = int(self.ready_file.read_text())
            self.ready_file.unlink()
        return self.port

    def connect(self):
        """One connection, a Ping, the worker's session, and the monitor that kills: each as the generation does it."""
        pb2 = self.pool.generated.pb2
        self.channel = grpc.insecure_channel(
            f"localhost:{self.port}", options=[("grpc.max_receive_message_length", 64 << 20)]
        )
        self.stub = self.pool.generated.grpc.BridgeServiceStub(self.channel)
        assert self.stub.Ping(pb2.PingRequest(message="connection_test"), timeout=30).message
        if self.pool.generation is V013:
            request = pb2.InitializeSessionRequest(
                session_id=self.session_id, metadata={"elixir_node": "nonode@nohost"}
            )
            self.stub.InitializeSession(request, timeout=30)
            self._monitor = threading.Thread(target=self._watch)
            self._monitor.start()

    def _watch(self):
        """One false, late or failed answer, and the worker is killed; its slot would be lost for good."""
        request = self.pool.generated.pb2.HeartbeatRequest(session_id=self.session_id)
        seen = self.heartbeats
        while not seen.stop.wait(self.pool.interval):
            began = time.monotonic()
            try:
                valid = self.stub.Heartbeat(request, timeout=1).session_valid
            except grpc.RpcError as error:
                seen.missed = "" if seen.stop.is_set() else str(error)
            else:
                seen.missed = "" if valid else "the session is not valid"
                seen.answered += not seen.missed
                seen.slowest = max(seen.slowest, time.monotonic() - began)
            if seen.missed:
                self.kill()
                return

    # ---- work

    def request(self, tool, parameters, *, stream=False, correlation_id="", binary=None):
        def encode(value):
            return any_pb2.Any(
                type_url="type.googleapis.com/google.protobuf.StringValue", value=json.dumps(value).encode()
            )

        return self.pool.generated.pb2.ExecuteToolRequest(
            session_id=self.session_id,
            tool_name=tool,
            parameters={name: encode(value) for name, value in parameters.items()},
            metadata={"correlation_id": correlation_id} if correlation_id else {},
            binary_parameters=binary or {},
            stream=stream,
        )

    def execute(self, tool, parameters=None, *, timeout=30, correlation_id="", binary=None):
        """Call a tool: `result.value` is JSON, whatever its type says; a failure is an object in `error_message`."""
        correlation_id = correlation_id or f"{self.session_id}-{next(self.correlations)}"
        request = self.request(tool, parameters or {}, correlation_id=correlation_id, binary=binary)
        reply = self.stub.ExecuteTool(request, timeout=timeout, metadata=[(CORRELATION, correlation_id)])
        if not reply.success:
            raise ToolFailed(reply.error_message)
        return json.loads(reply.result.value)

    def trial(self, python_class, inputs=None, *, timeout=30, **parameters):
        """`execute_program`, in the background: a future of its outcome."""
        spec = python_class if isinstance(python_class, dict) else {"python_class": python_class}
        request = self.request("execute_program", {"program_spec": spec, "inputs": inputs or {}, **parameters})
        return self.stub.ExecuteTool.future(request, timeout=timeout)

    def stream(self, tool, parameters, *, timeout=30):
        """Call a streaming tool: the decoded chunks, the way 0.4 reads them: what comes with the final one is lost."""
        chunks = []
        for chunk in self.stub.ExecuteStreamingTool(self.request(tool, parameters, stream=True), timeout=timeout):
            if chunk.is_final:
                return chunks
            chunks.append(json.loads(chunk.data))
        raise AssertionError("there was no final chunk")

    # ---- the end

    def stop(self):
        """SIGTERM, to the group in 0.13, then SIGKILL; the exit code, negative for a signal."""
        self._forget()
        if self.popen.poll() is None:
            self._signal(signal.SIGTERM)
            try:
                self.popen.wait(self.pool.generation.kill_after)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.wait()

    def kill(self):
        self._signal(signal.SIGKILL)

    def wait(self, seconds=20):
        """Wait for its end: the exit code."""
        code = self.popen.wait(seconds)
        self._forget()
        self._reader.join(seconds)
        self.popen.stdin.close()
        return code

    def _signal(self, number):
        try:
            (os.killpg if self.pool.generation is V013 else os.kill)(self.pid, number)
        except ProcessLookupError:
            return

    def _forget(self):
        self.heartbeats.stop.set()
        if self._monitor is not None and self._monitor is not threading.current_thread():
            self._monitor.join(20)
        if self.channel is not None:
            self.channel.close()


def outcome(future):
    """What became of a trial: the kind of outcome and its object."""
    reply = future.result()
    assert reply.success, reply.error_message
    [(kind, found)] = json.loads(reply.result.value).items()
    return kind, found


def alive(pid):
    """Whether a process runs; one that ended and that nobody asked about does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition, seconds=20):
    """Wait for something that another process does; that can only be polled."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


def wait_until_gone(pids):
    """Wait for the end of processes that are not children of this one."""
    wait_until(lambda: not any(map(alive, pids)))
