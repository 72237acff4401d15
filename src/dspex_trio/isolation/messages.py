"""What travels between a worker and the child processes of its isolated trials: both sides' forms of it, as bytes."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from dspex_trio import rpc
from dspex_trio.errors import FailureKind, Stage
from dspex_trio.generated.program_pb2 import ExecuteProgramRequest, ExecuteProgramResponse, ProgramEvent
from dspex_trio.model import BoundVariable, Recording, TrialEvent, TrialFailure, TrialOutcome, TrialRequest
from dspex_trio.wire import decode_event, decode_outcome, decode_request, encode_event, encode_outcome, encode_request

_TERMS: Final = struct.Struct("!dd?")
_PROGRESS: Final = struct.Struct("!B")
_EVENT: Final = 0  # in place of a stage


@dataclass(frozen=True, slots=True)
class Opening:
    """What a child is opened with.

    Attributes:
        settings: The worker's, for `Settings`.
        path: Its module search path.
        homes: Module → the programs and tools that are registered there.
        log_level: The least level that it logs.
    """

    settings: Mapping[str, Any]
    path: list[str]
    homes: Mapping[str, list[str]]
    log_level: int

    def to_bytes(self) -> bytes:
        """For `from_bytes`."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Opening:
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


# ---- trials


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms a trial is handed over.

    Attributes:
        seconds: How long it has.
        patience: How many seconds its threads get to end when it is over.
        watched: Whether somebody wants to know what happens on the way.
    """

    seconds: float
    patience: float
    watched: bool


def encode_trial(request: TrialRequest, terms: Terms) -> bytes:
    """A trial.

    Raises:
        InvalidInput, InvalidSpec: A value has no JSON form; the text names it.
    """
    head = _TERMS.pack(terms.seconds, terms.patience, terms.watched)
    return b"".join((head, encode_request(request).SerializeToString()))


def decode_trial(data: bytes) -> tuple[TrialRequest, Terms]:
    """The trial, without arrival and deadline."""
    request = ExecuteProgramRequest.FromString(data[_TERMS.size :])
    return decode_request(request), Terms(*_TERMS.unpack_from(data))


def encode_ending(outcome: TrialOutcome, *, max_bytes: int, max_trace_bytes: int) -> bytes:
    """An outcome; one that is too long as `encode_outcome` says."""
    message = encode_outcome(outcome, max_bytes=max_bytes, max_trace_bytes=max_trace_bytes)
    return bytes(message.SerializeToString())


def decode_ending(data: bytes) -> TrialOutcome:
    """The outcome that `encode_ending` was given."""
    return decode_outcome(ExecuteProgramResponse.FromString(data))


def encode_progress(
    stage: Stage, news: Recording | None = None, variables: Mapping[str, BoundVariable] | None = None
) -> bytes:
    """Where the trial is, with what was recorded since the last time, and the variables it has."""
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
    return b"".join((_PROGRESS.pack(stage), encode_outcome(seen, max_bytes=1 << 31).SerializeToString()))


def encode_told(event: TrialEvent) -> bytes:
    """What whoever watches the trial is told; travels as progress does."""
    return b"".join((_PROGRESS.pack(_EVENT), encode_event(event, 0).SerializeToString()))


def decode_progress(data: bytes) -> tuple[Stage, bytes] | TrialEvent:
    """Where the trial is, and the rest for `decode_news`, empty if there is none; or an event."""
    if data[0] == _EVENT:
        return decode_event(ProgramEvent.FromString(data[_PROGRESS.size :]))
    return Stage(data[0]), data[_PROGRESS.size :]


def decode_news(data: bytes) -> tuple[Recording, Mapping[str, BoundVariable]]:
    """What was recorded since the last time, and the variables."""
    seen = decode_ending(data)
    assert isinstance(seen, TrialFailure)  # noqa: S101 - see encode_progress
    return Recording(seen.partial_trace, seen.cost), seen.variables


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
