"""What ordinary frames do to a stream of h2's, without its table of transitions.

A call is six to eight of these, and h2 looks each up by two enums and makes a list and an event of it. Only what is
allowed is done here; the rest is h2's to refuse. The tests hold each of these functions against h2's own table.
"""

from __future__ import annotations

from typing import Any, Final

from h2.stream import StreamClosedBy, StreamInputs, StreamState

_OPEN: Final = StreamState.OPEN
_HALF_CLOSED_LOCAL: Final = StreamState.HALF_CLOSED_LOCAL
_HALF_CLOSED_REMOTE: Final = StreamState.HALF_CLOSED_REMOTE
_CLOSED: Final = StreamState.CLOSED


def receives(machine: Any) -> bool:
    """Whether a stream takes data, and a response its headers."""
    return machine.state is _OPEN or machine.state is _HALF_CLOSED_LOCAL


def request_sent(machine: Any) -> None:
    """The headers of a new stream were sent."""
    machine.client = machine.headers_sent = True
    machine.state = _OPEN


def request_received(machine: Any) -> None:
    """The headers of a new stream came."""
    machine.client, machine.headers_received = False, True
    machine.state = _OPEN


def response_sent(machine: Any) -> None:
    """A response's headers were sent, or its trailers."""
    if machine.trailers_sent or not (machine.state is _OPEN or machine.state is _HALF_CLOSED_REMOTE):
        machine.process_input(StreamInputs.SEND_HEADERS)
    elif machine.headers_sent:
        machine.trailers_sent = True
    else:
        machine.headers_sent = True


def response_received(machine: Any) -> bool:
    """A response's headers came, or its trailers, to a stream that `receives`; returns whether it was the trailers."""
    trailers = bool(machine.headers_received)
    if trailers:
        machine.trailers_received = True
    else:
        machine.headers_received = True
    return trailers


def data_sent(machine: Any) -> None:
    """Data was sent."""
    if not (machine.state is _OPEN or machine.state is _HALF_CLOSED_REMOTE):
        machine.process_input(StreamInputs.SEND_DATA)


def end_sent(machine: Any) -> None:
    """What was sent is the last."""
    if machine.state is _OPEN:
        machine.state = _HALF_CLOSED_LOCAL
    elif machine.state is _HALF_CLOSED_REMOTE:
        machine.state = _CLOSED
        machine.stream_closed_by = StreamClosedBy.SEND_END_STREAM
    else:
        machine.process_input(StreamInputs.SEND_END_STREAM)


def end_received(machine: Any) -> None:
    """What came to a stream that `receives` is the last."""
    if machine.state is _OPEN:
        machine.state = _HALF_CLOSED_REMOTE
    else:
        machine.state = _CLOSED
        machine.stream_closed_by = StreamClosedBy.RECV_END_STREAM
