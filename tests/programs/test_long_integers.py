"""Integers of more digits than Python itself writes, wherever what a trial holds becomes text."""

from dspex_trio.model import Program
from dspex_trio.observing.telemetry.gen_ai import dumped
from dspex_trio.programs.hydrate.prototypes import Prototypes
from dspex_trio.programs.record.entries import messages_json
from dspex_trio.wire import read_json

LONG = {"n": 10**5000}


def test_a_prompt_is_recorded_with_them():
    """A tool's arguments may be any integer; recording them is no reason for a trial to fail."""
    assert read_json(messages_json({"messages": [LONG]})) == [LONG]


def test_instances_of_programs_are_told_apart_by_them():
    keys = {Prototypes.key(Program("dspy.Predict", dependencies={"n": 10**5000 + more})) for more in (0, 1)}
    assert len(keys) == 2


def test_a_span_carries_them():
    assert read_json(dumped(LONG)) == LONG
