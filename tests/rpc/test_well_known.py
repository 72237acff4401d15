"""Public messages of google.protobuf's well-known types, given to generated code whose own live in a private pool."""

import datetime as dt
import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import any_pb2, duration_pb2, empty_pb2, struct_pb2, timestamp_pb2

from dspex_trio.wire.generated import bridge_pb2

ROOT = Path(__file__).parents[2]

PROTO = """
    syntax = "proto3";
    package known;
    import "google/protobuf/any.proto";
    import "google/protobuf/duration.proto";
    import "google/protobuf/empty.proto";
    import "google/protobuf/struct.proto";
    import "google/protobuf/timestamp.proto";
    message Event {
        google.protobuf.Timestamp at = 1;
        google.protobuf.Duration took = 2;
        repeated google.protobuf.Any details = 3;
        map<string, google.protobuf.Value> values = 4;
        google.protobuf.Struct more = 5;
        string text = 6;
        enum Kind { ZERO = 0; ONE = 1; }
        Kind kind = 7;
    }
    message Events { repeated Event events = 1; Event last = 2; google.protobuf.Empty nothing = 3; }
    service Log { rpc Write(Events) returns (google.protobuf.Empty); }
"""

AT = timestamp_pb2.Timestamp(seconds=1, nanos=2)
DETAIL = any_pb2.Any(type_url="x/y", value=b"z")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    where = tmp_path_factory.mktemp("known")
    (where / "known.proto").write_text(PROTO)
    command = [ROOT / "tools" / "generate_protos.py", "--root", where, "--out", where / "known_stubs", "known.proto"]
    subprocess.run([sys.executable, *command], check=True)
    sys.path.insert(0, str(where))
    yield where
    sys.path.remove(str(where))


@pytest.fixture(scope="module")
def known(project):
    assert project
    return importlib.import_module("known_stubs.known_pb2")


def test_a_field_takes_a_public_message(known):
    event = known.Event(at=AT, took=duration_pb2.Duration(seconds=3), details=[DETAIL], text="t", more={"a": 1})
    assert (event.at.seconds, event.at.nanos, event.took.seconds, event.text) == (1, 2, 3, "t")
    assert [(each.type_url, each.value) for each in event.details] == [("x/y", b"z")]
    assert event.more["a"] == 1


def test_a_map_and_a_message_in_a_message_do_too(known):
    value = struct_pb2.Value(number_value=1.5)
    event = known.Event(values={"a": value, "b": struct_pb2.Value(string_value="s")}, more=struct_pb2.Struct())
    assert (event.values["a"].number_value, event.values["b"].string_value) == (1.5, "s")
    events = known.Events(events=[{"at": AT}, event], last={"details": (DETAIL,)}, nothing=empty_pb2.Empty())
    assert (events.events[0].at.nanos, events.last.details[0].value) == (2, b"z")
    assert events.HasField("nothing")


def test_copies_and_merges_take_them(known):
    event = known.Event()
    event.at.CopyFrom(AT)
    event.details.add().MergeFrom(DETAIL)
    event.values["a"].CopyFrom(struct_pb2.Value(bool_value=True))
    assert (event.at.seconds, event.details[0].value, event.values["a"].bool_value) == (1, b"z", True)
    event.at.CopyFrom(known.Event(at={"seconds": 5}).at)
    assert event.at.seconds == 5


def test_what_worked_before_works_still(known):
    event = known.Event(at=dt.datetime.fromtimestamp(7, dt.UTC), kind="ONE")
    assert (event.at.ToSeconds(), event.kind) == (7, 1)
    event.details.add().Pack(AT)
    unpacked = timestamp_pb2.Timestamp()
    assert event.details[0].Unpack(unpacked)
    assert unpacked == AT
    assert known.Event.FromString(event.SerializeToString()) == event


def test_another_type_is_refused_as_ever(known):
    for wrong in (duration_pb2.Duration(), DETAIL, "text"):
        with pytest.raises((TypeError, ValueError)):
            known.Event(at=wrong)
    with pytest.raises(TypeError):
        known.Event().at.CopyFrom(duration_pb2.Duration())
    with pytest.raises(TypeError):
        known.Events(last=AT)
    with pytest.raises(ValueError, match="nowhere"):
        known.Event(nowhere=AT)


def test_the_packages_own_messages_take_them():
    reply = bridge_pb2.PingResponse(message="m", server_time=AT)
    request = bridge_pb2.ExecuteToolRequest(parameters={"a": DETAIL})
    assert (reply.server_time.seconds, reply.message, request.parameters["a"].value) == (1, "m", b"z")


# ---- a strict type checker ---------------------------------------------------------------------------------------

# In place of types-protobuf, with what generated stubs need of it.
STUBS = {
    "message.pyi": """
from typing import Any
from typing_extensions import Self
class Message:
    def CopyFrom(self, other_msg: Self) -> None: ...
    def MergeFrom(self, other_msg: Self) -> None: ...
    def SerializeToString(self) -> bytes: ...
""",
    "descriptor.pyi": "class FileDescriptor: ...",
    "internal/__init__.pyi": "",
    "internal/well_known_types.pyi": "\n".join(
        f"class {name}: ..." for name in ("Any", "Duration", "Timestamp", "Struct", "ListValue")
    ),
    "internal/enum_type_wrapper.pyi": "class EnumTypeWrapper(type): ...",
    "internal/containers.pyi": """
from collections.abc import MutableMapping, Sequence
from typing import TypeVar
K = TypeVar("K")
V = TypeVar("V")
class RepeatedCompositeFieldContainer(Sequence[V]):
    def add(self) -> V: ...
class MessageMap(MutableMapping[K, V]): ...
class ScalarMap(MutableMapping[K, V]): ...
""",
    **{
        f"{module}_pb2.pyi": "from google.protobuf.message import Message\n"
        + "\n".join(f"class {name}(Message): ..." for name in names)
        for module, names in {
            "any": ["Any"], "duration": ["Duration"], "empty": ["Empty"], "timestamp": ["Timestamp"],
            "struct": ["Struct", "Value", "ListValue"],
        }.items()
    },
}  # fmt: skip

USER = """
from google.protobuf.any_pb2 import Any
from google.protobuf.struct_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp

import dspex_trio as dspex
from dspex_trio import rpc
from known_stubs.known_grpc import LogServicer, LogStub
from known_stubs.known_pb2 import Event, Events

class Log(LogServicer):
    pass

def event() -> Event:
    made = Event(at=Timestamp(), details=[Any()], values={"a": Value()}, more={"a": 1}, kind=Event.ONE)
    made.at.CopyFrom(Timestamp())
    made.at.CopyFrom(made.at)
    return made

async def main() -> None:
    async with dspex.open_runtime(dspex.Settings(max_trials=2)) as runtime:
        program = dspex.Program("QA", config_space=(dspex.Binding("temperature", "t"),))
        outcome = await runtime.run_trial(program, {"question": "2+2?"}, watch=lambda event: print(event))
        match outcome:
            case dspex.TrialSuccess(prediction=prediction):
                print(prediction["answer"])
            case dspex.TrialFailure(kind=dspex.FailureKind.LM_ERROR, retry_after=seconds):
                print(seconds)
    async with rpc.open_channel("127.0.0.1:50051") as channel:
        await LogStub(channel).Write(Events(events=[event()], last={"text": "x"}))

def wrong() -> None:
    Event(at=Any())
    event().at.CopyFrom(Any())
    Event(text=1)
"""


@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")
def test_generated_stubs_and_the_public_face_pass_a_strict_type_checker(project, tmp_path):
    """Errors are found in the three lines that are wrong, and nowhere else: not in the stubs either."""
    where = tmp_path / "google" / "protobuf"
    (where / "internal").mkdir(parents=True)
    for package in (where.parent, where):
        (package / "__init__.pyi").touch()
    for name, text in STUBS.items():
        (where / name).write_text(text)
    (tmp_path / "known_stubs").symlink_to(project / "known_stubs")
    (tmp_path / "user.py").write_text(USER)
    cache = ROOT / ".mypy_cache" / "users"
    options = ["--strict", "--config-file=", f"--cache-dir={cache}", "--follow-imports=silent"]
    checked = ["user.py", *sorted(f"known_stubs/{each.name}" for each in (project / "known_stubs").glob("*_pb2.pyi"))]
    found = subprocess.run(
        [sys.executable, "-m", "mypy", *options, *checked, "known_stubs/known_grpc.py"],
        cwd=tmp_path,
        env={"MYPYPATH": f"{tmp_path}:{ROOT / 'src'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not found.stderr
    errors = [line for line in found.stdout.splitlines() if ": error: " in line]
    lines = USER.splitlines()
    wrong = {lines[int(error.split(":")[1]) - 1].strip() for error in errors if error.startswith("user.py")}
    assert wrong == {"Event(at=Any())", "event().at.CopyFrom(Any())", "Event(text=1)"}
    assert [error for error in errors if error.startswith("known_stubs")] == []
