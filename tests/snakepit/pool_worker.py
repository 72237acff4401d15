"""A Python process of a pool, as the Elixir side has it: started, found, talked to and ended as snakepit does it."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from google.protobuf import any_pb2

from .generations import CORRELATION, V013, V04
from .waiting import alive, free_port, wait_until

SCRIPT = Path(__file__).parents[2] / "src/dspex_trio/snakepit/script/grpc_server.py"
START_SECONDS = 60
TELEMETRY_SECONDS = 5
RUNTIME = {"python_runtime_hash": "0" * 64, "python_version": "3.11.8", "python_platform": "x86_64-pc-linux-gnu"}


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


class Worker:
    """One Python process of the pool, from its start to its end.

    Attributes:
        pid: The worker's. Under 0.4 the pool knows another one: Erlang makes each program that it starts the leader of
            a group, where `setsid` forks, and ends.
        telemetry: The names of the events that came, in 0.13.
        telemetry_ended: The status with which that stream ended.
    """

    def __init__(self, pool, arguments, number):
        self.pool = pool
        self.session_id = f"session_{number}_{time.time_ns() // 1000}" if pool.generation is V013 else "default_session"
        self.heartbeats = Heartbeats()
        self.correlations = itertools.count(1)
        self.ready_file = pool.directory / f"snakepit_ready_{number}"
        self.output = b""
        self.port = 0
        self.channel = None
        self.telemetry = []
        self.telemetry_ended = None
        self._threads = []
        self.popen = self._spawn(arguments)
        self.pid = self.popen.pid
        self._port_closed, self._close_port = os.pipe()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _spawn(self, arguments):
        path = os.pathsep.join(filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))))
        # What snakepit sets for the whole BEAM, and so for its workers.
        env = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", "GRPC_POLL_STRATEGY": "poll"}
        run = ["--snakepit-run-id", self.pool.run_id]
        if self.pool.generation is V04:
            env |= {"PYTHONPATH": path, **self.pool.env}
            address = ["--elixir-address", self.pool.server.address.replace("127.0.0.1", "localhost")]
            command = ["setsid", sys.executable, SCRIPT, *arguments, "--port", free_port(), *address, *run]
        else:
            address = ["--elixir-address", self.pool.server.address]
            marks = ["--snakepit-instance-name", "tests", "--snakepit-instance-token", "token-of-this-pool"]
            command = [sys.executable, SCRIPT, *arguments, "--port", "0", *address, *run, *marks]
            config = {"interval_ms": 2000, "timeout_ms": 10000, "max_missed_heartbeats": 3, "initial_delay_ms": 0}
            policy = {**config, "enabled": True, "dependent": True, **(self.pool.heartbeat_config or {})}
            env |= {
                "PYTHONPATH": path,
                "PYTHONNOUSERSITE": "1",
                "SNAKEPIT_PYTHON": sys.executable,
                "SNAKEPIT_PYTHON_VERSION": "3.11.8",
                "SNAKEPIT_PYTHON_PLATFORM": "x86_64-pc-linux-gnu",
                "SNAKEPIT_PYTHON_RUNTIME_HASH": "0" * 64,
                "SNAKEPIT_PROCESS_GROUP": "1",
                **self.pool.env,
                "SNAKEPIT_READY_FILE": str(self.ready_file),
                "SNAKEPIT_LOG_LEVEL": self.pool.log_level,
                "SNAKEPIT_HEARTBEAT_CONFIG": json.dumps(policy),
            }
        return subprocess.Popen(
            command,
            cwd=SCRIPT.parent,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # as Erlang does
        )

    def _read(self):
        with self.popen.stdout as stdout:
            closed = False
            while not closed:
                readable = select.select([stdout, self._port_closed], [], [])[0]
                closed = self._port_closed in readable
                if stdout in readable:
                    if not (data := os.read(stdout.fileno(), 1 << 20)):
                        return
                    self.output += data

    @property
    def log(self):
        return self.output.decode("utf-8", "replace")

    # ---- the beginning

    def wait_until_ready(self):
        wait_until(lambda: self._found_port() or not self._reader.is_alive(), START_SECONDS)
        assert self.port, f"the worker ended with {self.popen.poll()}:\n{self.log}"

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
                session_id=self.session_id,
                metadata={"elixir_node": "nonode@nohost", "initialized_at": dt.datetime.now(dt.UTC).isoformat()},
                config=pb2.SessionConfig(enable_caching=True, cache_ttl_seconds=60),
            )
            self.stub.InitializeSession(request, timeout=30)
            self._threads = [threading.Thread(target=target) for target in (self._listen, self._watch)]
            for thread in self._threads:
                thread.start()
        else:
            self.pid = self.execute("worker_status")["pid"]

    def _listen(self):
        """The one telemetry stream of a worker, which is told that it is wanted, and has a deadline."""
        pb2 = self.pool.generated.pb2
        controls = iter([pb2.TelemetryControl(toggle=pb2.TelemetryToggle(enabled=True))])
        events = self.stub.StreamTelemetry(controls, timeout=TELEMETRY_SECONDS)
        with suppress(grpc.RpcError):
            for event in events:
                self.telemetry.append(".".join(event.event_parts))
        self.telemetry_ended = events.code()

    def _watch(self):
        """One false, late or failed answer, and the worker is ended; its slot would be lost for good."""
        request = self.pool.generated.pb2.HeartbeatRequest(session_id=self.session_id)
        seen, wait = self.heartbeats, 0.0
        while not seen.stop.wait(wait):
            wait = self.pool.interval
            began = time.monotonic()
            try:
                valid = self.stub.Heartbeat(request, timeout=self.pool.patience).session_valid
            except (grpc.RpcError, ValueError) as error:  # a ValueError says that the pool closed the channel
                seen.missed = "" if seen.stop.is_set() else str(error)
            else:
                seen.missed = "" if valid else "the session is not valid"
                seen.answered += not seen.missed
                seen.slowest = max(seen.slowest, time.monotonic() - began)
            if seen.missed:
                self._end()
                return

    # ---- work

    def request(self, tool, parameters, *, stream=False, correlation_id="", binary=None):
        def encode(value):
            return any_pb2.Any(
                type_url="type.googleapis.com/google.protobuf.StringValue", value=json.dumps(value).encode()
            )

        metadata = {}
        if self.pool.generation is V013:
            metadata = {"correlation_id": correlation_id or self._correlation_id(), **RUNTIME}
        return self.pool.generated.pb2.ExecuteToolRequest(
            session_id=self.session_id,
            tool_name=tool,
            parameters={name: encode(value) for name, value in parameters.items()},
            metadata=metadata,
            binary_parameters=binary or {},
            stream=stream,
        )

    def _correlation_id(self):
        return f"{self.session_id}-{next(self.correlations)}"

    def execute(self, tool, parameters=None, *, timeout=30, correlation_id="", binary=None):
        """Call a tool: `result.value` is JSON, whatever its type says; a failure is an object in `error_message`."""
        correlation_id = correlation_id or self._correlation_id()
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
        """Call a streaming tool: the decoded chunks, but for the final one, whose data 0.4 throws away.

        0.13 puts `is_final` and `_metadata` into the objects that it hands on, and objects of its own around the rest.
        """
        chunks = []
        for chunk in self.stub.ExecuteStreamingTool(self.request(tool, parameters, stream=True), timeout=timeout):
            if chunk.is_final:
                assert not chunk.data
                return chunks
            chunks.append(json.loads(chunk.data))
            assert not isinstance(chunks[-1], dict) or not {"is_final", "_metadata", "data"} & chunks[-1].keys()
        raise AssertionError("there was no final chunk")

    # ---- the end

    def stop(self):
        """The pool ends it: its exit code, -9 where it had to be killed; in 0.4 no other is seen, and this is 0."""
        self.heartbeats.stop.set()
        ended = self._end()
        code = self.wait()
        return code if ended else -signal.SIGKILL

    def _end(self):
        """SIGTERM to the group, then SIGKILL; 0.4, whose own signals miss it, closes the pipes before its sweep.

        Returns whether it ended without the latter.
        """
        if self.pool.generation is V04:
            self._close_pipes()
        if alive(self.pid):
            self.signal(signal.SIGTERM)
            try:
                wait_until(lambda: not alive(self.pid), self.pool.generation.kill_after)
            except AssertionError:
                self.kill()
                return False
        return True

    def kill(self):
        self.signal(signal.SIGKILL)

    def wait(self, seconds=20):
        """Wait for its end: the exit code."""
        wait_until(lambda: not alive(self.pid), seconds)
        code = self.popen.wait(seconds)
        self._forget()
        self._close_pipes(seconds)
        return code

    def signal(self, number):
        """Send a signal as the pool's operator would, who knows which process it is; 0.13 sends it to the group."""
        with suppress(ProcessLookupError):
            (os.killpg if self.pool.generation is V013 else os.kill)(self.pid, number)

    def _close_pipes(self, seconds=20):
        if self._close_port is None:
            return
        os.close(self._close_port)
        self._close_port = None
        self._reader.join(seconds)
        os.close(self._port_closed)
        with suppress(BrokenPipeError):
            self.popen.stdin.close()

    def _forget(self):
        self.heartbeats.stop.set()
        if self.channel is not None:
            self.channel.close()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(20)


def outcome(future):
    """What became of a trial: the kind of outcome and its object."""
    reply = future.result()
    assert reply.success, reply.error_message
    [(kind, found)] = json.loads(reply.result.value).items()
    return kind, found
