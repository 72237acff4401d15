"""What our functions do to a stream is what h2's table of transitions does, wherever they are used."""

import copy
import itertools

import pytest
from h2.exceptions import ProtocolError
from h2.stream import H2StreamStateMachine, StreamInputs, StreamState

from dspex_trio.rpc.http2 import h2_streams

INPUTS = [
    StreamInputs.SEND_HEADERS,
    StreamInputs.RECV_HEADERS,
    StreamInputs.SEND_DATA,
    StreamInputs.RECV_DATA,
    StreamInputs.SEND_END_STREAM,
    StreamInputs.RECV_END_STREAM,
    StreamInputs.SEND_RST_STREAM,
    StreamInputs.RECV_RST_STREAM,
]


def reached():
    """Every stream that comes of up to six inputs, by its fields; those that h2 has closed for an error are none."""
    found = {}
    begun = [H2StreamStateMachine(1)]
    for _ in range(6):
        grown = []
        for machine, what in itertools.product(begun, INPUTS):
            one = copy.copy(machine)
            try:
                one.process_input(what)
            except ProtocolError:
                continue
            if repr(vars(one)) not in found:
                found[repr(vars(one))] = one
                grown.append(one)
        begun = grown
    return list(found.values())


STREAMS = reached()


def new_streams():
    return [H2StreamStateMachine(1)]


def that(holds):
    return lambda: [machine for machine in STREAMS if holds(machine)]


def response_may_come(machine):
    """A client's stream, as the engine sees to; a second end of headers is refused before."""
    return machine.client and h2_streams.receives(machine) and not machine.trailers_received


CASES = {
    "request_sent": (StreamInputs.SEND_HEADERS, new_streams),
    "request_received": (StreamInputs.RECV_HEADERS, new_streams),
    "response_sent": (StreamInputs.SEND_HEADERS, that(lambda machine: machine.client is False)),
    "response_received": (StreamInputs.RECV_HEADERS, that(response_may_come)),
    "data_sent": (StreamInputs.SEND_DATA, that(lambda _: True)),
    "end_sent": (StreamInputs.SEND_END_STREAM, that(lambda _: True)),
    "end_received": (StreamInputs.RECV_END_STREAM, that(h2_streams.receives)),
}


def outcome(act, machine):
    one = copy.copy(machine)
    try:
        act(one)
    except ProtocolError as error:
        return type(error), vars(one)
    return None, vars(one)


@pytest.mark.parametrize("name", CASES)
def test_it_does_what_h2_does(name):
    what, streams = CASES[name]
    before = streams()
    assert before
    for machine in before:
        ours = outcome(getattr(h2_streams, name), machine)
        assert ours == outcome(lambda one: one.process_input(what), machine), vars(machine)


def test_a_stream_receives_where_h2_takes_data():
    for machine in that(lambda machine: machine.headers_received)():  # before them it is no question of states
        taken, _ = outcome(lambda one: one.process_input(StreamInputs.RECV_DATA), machine)
        assert h2_streams.receives(machine) is (taken is None), vars(machine)


def test_trailers_are_told_from_headers():
    machine = H2StreamStateMachine(1)
    h2_streams.request_sent(machine)
    assert [h2_streams.response_received(machine) for _ in range(2)] == [False, True]
    assert {machine.state for machine in STREAMS} > {StreamState.OPEN, StreamState.CLOSED}
