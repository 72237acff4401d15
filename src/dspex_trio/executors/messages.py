"""What travels between a front and its executor processes: both sides' forms of it, as bytes."""

from __future__ import annotations

import enum
import json
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, replace
from typing import Any, Final

from dspex_trio import rpc
from dspex_trio.model import (
    BoundVariable,
    Cost,
    Recording,
    TrialEvent,
    TrialFailure,
    TrialOptions,
    TrialOutcome,
    TrialRequest,
)
from dspex_trio.model.errors import FailureKind, Stage, UnreadableRequest
from dspex_trio.observing.records.records import RecordLine
from dspex_trio.wire import (
    decode_event,
    decode_json,
    decode_outcome,
    encode_event,
    encode_json,
    encode_outcome,
    encode_request,
)
from dspex_trio.wire.generated import any_pb2
from dspex_trio.wire.generated.program_pb2 import ExecuteProgramRequest, ExecuteProgramResponse, ProgramEvent
from dspex_trio.wire.jsontext import text_of
from dspex_trio.wire.replies import encode_reply as encode_reply_message
from dspex_trio.wire.replies import in_brief
from dspex_trio.wire.reply_decoding import decode_cost

_TERMS: Final = struct.Struct("!cdddQ???")
_LENGTH: Final = struct.Struct("!I")
_RECORD: Final = struct.Struct("!QdQ")
_PROGRESS: Final = struct.Struct("!B")
_EVENT: Final = 0  # in place of a stage


@dataclass(frozen=True, slots=True)
class Opening:
    """What a child is opened with.

    Attributes:
        settings: The operator's, for `Settings`; those that differ in children are changed already.
        path: Its module search path.
        homes: Module → the programs and tools that are registered there.
        log_level: The least level that it logs.
        slots: How many trials it runs at once.
        records: Whether it makes trial records, for the front to write.
    """

    settings: Mapping[str, Any]
    path: list[str]
    homes: Mapping[str, list[str]]
    log_level: int
    slots: int = 1
    records: bool = False

    def to_bytes(self) -> bytes:
        """For `from_bytes`."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Opening:
        """What `to_bytes` was called on."""
        return cls(**json.loads(data))


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What an executor offers, for a front that imports none of it.

    Attributes:
        programs: The registered programs, as `programs.catalogue.describe` describes each.
        tools: The registered tools: serialised ToolSpecs, in base64.
        stand_ins: The functions that stand in for Elixir tools, likewise.
        isolated: Registered programs and classes that ask for a process of their own.
    """

    programs: list[dict[str, Any]] = field(default_factory=list)
    tools: list[str] = field(default_factory=list)
    stand_ins: list[str] = field(default_factory=list)
    isolated: list[str] = field(default_factory=list)

    def to_bytes(self) -> bytes:
        """For `from_bytes`."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Catalogue:
        """What `to_bytes` was called on."""
        return cls(**json.loads(data))


@dataclass(frozen=True, slots=True)
class LogLine:
    """One entry of a child's log."""

    level: int
    logger: str
    text: str

    def to_bytes(self) -> bytes:
        """For `from_bytes`."""
        return json.dumps([self.level, self.logger, self.text]).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> LogLine:
        """What `to_bytes` was called on."""
        return cls(*json.loads(data))


# ---- requests


class Kind(enum.Enum):
    """What a request to an executor asks for."""

    TRIAL = b"t"  # an ExecuteProgramRequest
    TOOL = b"c"  # an operator's tool: its name, and its arguments as JSON
    STAND_IN = b"e"  # a function that stands in for an Elixir tool: the same


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of a request.

    Attributes:
        seconds: How long it has from now; may be infinite.
        patience: How many seconds its threads get to end when it is over.
        waited: For how many seconds it has been under way.
        tag: By what the front knows it.
        watched: Whether events are wanted before the outcome.
        streamed: Whether that includes the output as it is generated.
        alone: Whether the process runs nothing else, and is killed where something of the request goes on after it.
    """

    seconds: float
    patience: float
    waited: float = 0.0
    tag: int = 0
    watched: bool = False
    streamed: bool = False
    alone: bool = False


def encode_asked(kind: Kind, terms: Terms, data: bytes) -> bytes:
    """A request to an executor."""
    return _TERMS.pack(kind.value, *astuple(terms)) + data


def decode_asked(data: bytes) -> tuple[Kind, Terms, bytes]:
    """What `encode_asked` was given."""
    kind, *terms = _TERMS.unpack_from(data)
    return Kind(kind), Terms(*terms), data[_TERMS.size :]


def encoded_request(request: TrialRequest) -> bytes:
    """A trial as an executor takes it: as it came, if it came encoded, with the metadata that was added since.

    Raises:
        InvalidInput, InvalidSpec: A value has no JSON form; the text names it.
    """
    if not request.encoded:
        return bytes(encode_request(request).SerializeToString())
    # Messages merge when they are concatenated; of a map's entries with one key the last one counts.
    added = ExecuteProgramRequest(trial_id=text_of(request.trial_id))
    for name, value in request.metadata.items():
        added.metadata[text_of(name)] = text_of(value)
    return b"".join((request.encoded, added.SerializeToString()))


def encode_tool_call(name: str, arguments: Mapping[str, Any]) -> bytes:
    """A call of an operator's tool."""
    return encode_json([name, arguments])


def decode_tool_call(data: bytes) -> tuple[str, dict[str, Any]]:
    """What `encode_tool_call` was given."""
    name, arguments = decode_json(data)
    return name, arguments


# ---- answers, and reports before them


def encode_ending(outcome: TrialOutcome, options: TrialOptions, max_bytes: int, clock: Callable[[], float]) -> bytes:
    """An outcome: first in brief, without values, for a process that passes it on; then the whole reply."""
    brief = encode_outcome(in_brief(outcome), max_bytes=1 << 31).SerializeToString()
    reply = encode_reply_message(outcome, options, max_bytes, clock).SerializeToString()
    return b"".join((_LENGTH.pack(len(brief)), brief, reply))


def encode_unreadable() -> bytes:
    """In place of an outcome: the request is no message at all."""
    return b""


def decode_ending(data: bytes) -> TrialOutcome:
    """The outcome that `encode_ending` was given, in brief, with the encoded reply in it.

    Raises:
        UnreadableRequest: The request was no message.
    """
    if not data:
        raise UnreadableRequest("the request is no ExecuteProgramRequest")
    (length,) = _LENGTH.unpack_from(data)
    end = _LENGTH.size + length
    outcome = decode_outcome(ExecuteProgramResponse.FromString(data[_LENGTH.size : end]))
    return replace(outcome, reply=data[end:])


def encode_progress(
    stage: Stage,
    max_bytes: int = 1 << 31,
    news: Recording | None = None,
    variables: Mapping[str, BoundVariable] | None = None,
) -> bytes:
    """Where the trial is, with what was recorded since the last time, cut to fit, and the variables it has."""
    if news is None and variables is None:
        return _PROGRESS.pack(stage)
    news = news or Recording()
    # A failure has a place for each of them, and is never sent as one.
    seen = TrialFailure(
        kind=FailureKind.INTERNAL,
        stage=stage,
        error_type="",
        error_message="",
        partial_trace=news.trace,
        cost=news.cost,
        variables={**(variables or {}), **news.written},
    )
    return b"".join((_PROGRESS.pack(stage), encode_outcome(seen, max_bytes=max_bytes).SerializeToString()))


def encode_told(event: TrialEvent) -> bytes:
    """An event for the trial's watch; sent as progress is."""
    return b"".join((_PROGRESS.pack(_EVENT), encode_event(event, 0).SerializeToString()))


def decode_progress(data: bytes) -> tuple[Stage, bytes] | TrialEvent:
    """The stage and the encoded news of it, empty if there is none; or an event."""
    if data[0] == _EVENT:
        return decode_event(ProgramEvent.FromString(data[_PROGRESS.size :]))
    return Stage(data[0]), data[_PROGRESS.size :]


def merged(news: Iterable[bytes], *, cost_known: bool) -> Recording:
    """All the news of a trial as one recording, whose values stay encoded."""
    message = ExecuteProgramResponse()
    known = True
    for each in news:
        message.MergeFromString(each)
        known = message.failure.cost.known
        message.failure.cost.known = False  # which does not travel, so that merging would keep what was true before
    if not message.HasField("failure"):
        return Recording(cost=Cost(known=cost_known))
    cost = replace(decode_cost(message.failure.cost), known=known and cost_known)
    return Recording(cost=cost, pushed=bytes(message.SerializeToString()))


_RESULT: Final = struct.pack("!I", 0xFFFFFFFF)  # in place of a brief outcome's length


TAKE: Final = "/take"
"""What an executor calls in place of a method of the store, with one value that a tool has yielded."""


def encode_tool_result(value: any_pb2.Any) -> bytes:
    """What an operator's tool returned; what it raised is an ending."""
    return _RESULT + bytes(value.SerializeToString())


def decode_tool_result(data: bytes) -> any_pb2.Any | TrialOutcome:
    """What the tool returned, encoded; or how the call ended without that."""
    if data.startswith(_RESULT):
        result: any_pb2.Any = any_pb2.Any.FromString(data[_LENGTH.size :])
        return result
    return decode_ending(data)


def encode_records(lines: Sequence[RecordLine]) -> bytes:
    """Lines of trial records, for the front to write."""
    return b"".join(_RECORD.pack(line.tag, line.ended_at, len(line.text)) + line.text for line in lines)


def decode_records(data: bytes) -> Iterator[RecordLine]:
    """What `encode_records` was given."""
    place = 0
    while place < len(data):
        tag, ended_at, length = _RECORD.unpack_from(data, place)
        place += _RECORD.size + length
        yield RecordLine(tag, ended_at, data[place - length : place])


# ---- calls of the session store


def encode_call(path: str, request: bytes) -> bytes:
    """A call of the session store."""
    return path.encode() + b"\0" + request


def decode_call(data: bytes) -> tuple[str, bytes]:
    """The path and the request."""
    path, _, request = data.partition(b"\0")
    return path.decode(), request


def encode_reply(reply: bytes | rpc.RpcError) -> bytes:
    """What the store answered, or the status that it answered with."""
    if isinstance(reply, rpc.RpcError):
        return bytes([reply.status]) + reply.message.encode("utf-8", "replace")
    return bytes([rpc.StatusCode.OK]) + reply


def decode_reply(data: bytes) -> bytes:
    """What the store answered.

    Raises:
        RpcError: A status.
    """
    if data[0] != rpc.StatusCode.OK:
        raise rpc.RpcError(rpc.StatusCode.from_wire(data[0]), data[1:].decode("utf-8", "replace"))
    return data[1:]
