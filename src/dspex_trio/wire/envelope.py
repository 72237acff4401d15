"""A request as a front takes it: what names and places the trial is read, everything else stays as it came."""

from __future__ import annotations

from typing import Final

from dspex_trio.model import Binding, Program, TrialOptions, TrialRequest
from dspex_trio.wire.generated.envelope_pb2 import TrialEnvelope
from dspex_trio.wire.generated.program_pb2 import ExecuteProgramRequest, ProgramEvent

# The field `response` of ProgramEvent, as a length-delimited field begins.
_RESPONSE: Final = bytes([ProgramEvent.DESCRIPTOR.fields_by_name["response"].number << 3 | 2])


class EncodedRequest:
    """An ExecuteProgramRequest of which only the envelope is read; takes the message's place in a service.

    Attributes:
        envelope: What was read.
        trial_id, timeout: As the message's.
    """

    DESCRIPTOR = ExecuteProgramRequest.DESCRIPTOR

    def __init__(self, data: bytes) -> None:
        self.envelope = TrialEnvelope.FromString(data)
        self._data = data
        self.trial_id: str = self.envelope.trial_id
        self.timeout = self.envelope.timeout

    @classmethod
    def FromString(cls, data: bytes) -> EncodedRequest:  # noqa: N802 - as a message's
        """Read one; raises DecodeError as a message does."""
        return cls(data)

    def HasField(self, name: str) -> bool:  # noqa: N802 - as a message's
        """Whether a field of the envelope is set."""
        return bool(self.envelope.HasField(name))

    def trial(self) -> TrialRequest:
        """The trial, for whoever passes it on; without arrival and deadline, which are the server's to fix."""
        envelope = self.envelope
        program, options = envelope.program_spec, envelope.options
        return TrialRequest(
            program=Program(
                python_class=program.python_class,
                name=program.name,
                config_space=tuple(Binding(each.parameter, each.variable) for each in program.config_space),
            ),
            inputs={},
            session_id=envelope.session_id,
            trial_id=envelope.trial_id,
            metadata=dict(envelope.metadata),
            options=TrialOptions(
                omit_trace=options.omit_trace,
                omit_prompts=options.omit_prompts,
                max_trace_bytes=options.max_trace_bytes,
                no_cache=options.no_cache,
            ),
            encoded=self._data,
        )


class Encoded:
    """A reply that is encoded already; takes a message's place in a service."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def SerializeToString(self) -> bytes:  # noqa: N802 - as a message's
        """The reply."""
        return self._data


def event_with(reply: bytes, at_ms: float) -> Encoded:
    """The last ProgramEvent of a trial, of its encoded response."""
    length = len(reply)
    prefix = bytearray()
    while length > 0x7F:  # noqa: PLR2004 - a varint's digits have seven bits
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    prefix.append(length)
    return Encoded(b"".join((_RESPONSE, prefix, reply, ProgramEvent(at_ms=at_ms).SerializeToString())))
