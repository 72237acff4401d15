"""A worker in a process of its own, and a grpcio client made from `protos/` by protoc: nothing of ours in it."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest
from google.protobuf import any_pb2
from grpc_tools import protoc

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
START_SECONDS = 60


@pytest.fixture(scope="session")
def peer(tmp_path_factory):
    """The generated modules of grpcio, imported beside ours: both hold `snakepit.bridge` in one process."""
    out = tmp_path_factory.mktemp("grpcio")
    bundled = importlib.resources.files("grpc_tools") / "_proto"
    for name in ("program", "bridge"):
        arguments = [f"-I{ROOT / 'protos'}", f"-I{bundled}", f"--python_out={out}", f"--grpc_python_out={out}"]
        assert protoc.main(["protoc", *arguments, f"snakepit/bridge/{name}.proto"]) == 0
    sys.path.insert(0, str(out))
    try:
        modules = {
            name: importlib.import_module(f"snakepit.bridge.{name}")
            for name in ("program_pb2", "program_pb2_grpc", "bridge_pb2", "bridge_pb2_grpc")
        }
    finally:
        sys.path.remove(str(out))
    return SimpleNamespace(**modules)


class Process:
    """A `dspex-trio` command as a child process, from its ready file to its end."""

    def __init__(self, directory, *arguments, env=None):
        self.ready = directory / "ready"
        self.log = directory / "log"
        with self.log.open("wb") as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "dspex_trio", *arguments, "--port", "0", "--ready-file", self.ready],
                cwd=HERE,
                env={**os.environ, **(env or {})},
                stdout=log,
                stderr=log,
            )
        self.port = self._wait_until_ready()

    def _wait_until_ready(self):
        deadline = time.monotonic() + START_SECONDS
        while not self.ready.exists():
            if self.popen.poll() is not None or time.monotonic() > deadline:
                self.popen.kill()
                pytest.fail(f"the process did not become ready:\n{self.log.read_text()}")
            time.sleep(0.02)  # a file of another process can only be polled
        return int(self.ready.read_text())

    def stop(self, number=signal.SIGTERM):
        self.popen.send_signal(number)
        return self.popen.wait(20)

    def kill(self):
        self.popen.kill()
        self.popen.wait(20)


@pytest.fixture(scope="session")
def start(tmp_path_factory):
    """Start `dspex-trio` commands; whatever still runs at the end of the session is killed."""
    started = []

    def run(*arguments, env=None):
        process = Process(tmp_path_factory.mktemp(arguments[0]), *arguments, env=env)
        started.append(process)
        return process

    yield run
    for process in started:
        if process.popen.poll() is None:
            process.kill()


@pytest.fixture(scope="session", params=["thread", "process"])
def worker(start, request):
    """What a trial answers does not depend on where its program runs."""
    how = ["--isolation", request.param]
    # Fewer children, which take a while to start, and room for a hop more on a busy machine.
    how += ["--max-trials", "4"] if request.param == "thread" else ["--max-trials", "2", "--reply-margin-ms", "100"]
    process = start("serve", "--load", "e2e_programs", "--allow-import", "e2e_raises_on_import", *how)
    yield process
    assert process.stop() == 0, process.log.read_text()


@pytest.fixture(scope="session")
def channel(worker):
    with grpc.insecure_channel(
        f"127.0.0.1:{worker.port}", options=[("grpc.max_receive_message_length", 64 << 20)]
    ) as channel:
        yield channel


@pytest.fixture(scope="session")
def execute(peer, channel):
    """Run one trial: `execute(python_class=…, inputs={…})` → the success or failure message."""
    pb = peer.program_pb2
    stub = peer.program_pb2_grpc.SnakepitBridgeStub(channel)

    def run(*, inputs=None, session="", grpc_timeout=30, trial_timeout=None, trial_id="", spec=None, **fields):
        request = pb.ExecuteProgramRequest(
            session_id=session,
            trial_id=trial_id,
            program_spec=spec or program(pb, **fields),
            inputs={name: pack(value) for name, value in (inputs or {}).items()},
        )
        if trial_timeout is not None:
            request.timeout.FromNanoseconds(int(trial_timeout * 1e9))
        response = stub.ExecuteProgram(request, timeout=grpc_timeout)
        return getattr(response, response.WhichOneof("result"))

    return run


@pytest.fixture(scope="session")
def store(peer, channel):
    return peer.bridge_pb2_grpc.BridgeServiceStub(channel)


def pack(value):
    """A plain value as snakepit encodes every parameter: bare JSON under StringValue's name."""
    if isinstance(value, any_pb2.Any):
        return value
    return any_pb2.Any(type_url="type.googleapis.com/google.protobuf.StringValue", value=json.dumps(value).encode())


def unpack(message):
    return json.loads(message.value)


def program(pb, *, signature=None, bind=(), dependencies=None, parameters=None, lm=None, state=None, **fields):
    spec = pb.ProgramSpecification(**fields)
    if isinstance(signature, str):
        spec.signature.text = signature
    elif signature is not None:
        spec.signature.CopyFrom(signature)
    for binding in bind:
        if isinstance(binding, tuple):
            spec.config_space.add(parameter=binding[0], variable=binding[1])
        else:
            spec.config_space.append(binding)
    for name, value in (dependencies or {}).items():
        spec.dependencies[name].CopyFrom(pack(value))
    for name, value in (parameters or {}).items():
        spec.parameters[name].CopyFrom(pack(value))
    if lm is not None:
        spec.lm.model = lm[0]
        for name, value in lm[1].items():
            spec.lm.params[name].CopyFrom(pack(value))
    if state is not None:
        spec.state_json = state
    return spec
