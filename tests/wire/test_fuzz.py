"""`just fuzz-decoders` must not rot: what is known to be hostile in small, and some cases of one seed."""

import importlib
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"
CASES = 600


@pytest.fixture(scope="module")
def fuzzer():
    sys.path.insert(0, str(TOOLS))
    try:
        yield importlib.import_module("fuzz_decoders")
    finally:
        sys.path.remove(str(TOOLS))


def test_no_case_raises_anything_but_the_decoders_own_error(fuzzer):
    for index in range(CASES):
        target, raw = fuzzer.make_case(1, index)
        try:
            target.run(raw)
        except target.errors:
            continue


def test_every_valid_input_is_taken(fuzzer):
    """Else nothing would be fuzzed but the first check."""
    for target in fuzzer.TARGETS:
        taken = 0
        for seed in target.seeds:
            try:
                target.run(seed)
            except target.errors:
                continue
            taken += 1
        assert taken >= len(target.seeds) / 2, target.name


def test_a_case_is_the_same_each_time(fuzzer):
    assert [fuzzer.make_case(7, index)[1] for index in range(50)] == [fuzzer.make_case(7, i)[1] for i in range(50)]


def test_a_problem_is_found_and_told(fuzzer):
    def run(raw):
        raise KeyError(raw)

    broken = fuzzer.Target("broken", run, (ValueError,), [b""])
    assert "KeyError: b'x'" in fuzzer.problem_of(broken, b"x")
    assert fuzzer.problem_of(fuzzer.Target("fine", run, (KeyError,), [b""]), b"x") is None


def test_a_timeout_that_is_no_number_is_refused(fuzzer):
    """A packed NaN would be a deadline that never comes and never is far."""
    from google.protobuf import wrappers_pb2

    from dspex_trio.model.errors import InvalidSpec
    from dspex_trio.wire.generated import bridge_pb2

    target = next(each for each in fuzzer.TARGETS if each.name == "execute_program")
    request = bridge_pb2.ExecuteToolRequest.FromString(target.seeds[2])
    request.parameters["timeout_ms"].value = wrappers_pb2.DoubleValue(value=float("nan")).SerializeToString()
    with pytest.raises(InvalidSpec, match="timeout_ms is nan"):
        target.run(request.SerializeToString())


def test_text_that_utf8_cannot_carry_is_replaced_in_requests():
    """A file of trials may hold it as an escape."""
    from dspex_trio.model import Program, TrialRequest
    from dspex_trio.wire import decode_request, encode_request, program_from_json

    odd = "\ud800"
    program = program_from_json(
        {"python_class": odd, "config_space": {odd: odd}, "signature": odd, "parameters": {odd: odd}, "lm": odd}
    )
    again = decode_request(encode_request(TrialRequest(program, {odd: odd}, session_id=odd, metadata={odd: odd})))
    assert isinstance(again.program, Program)
    assert again.program.python_class == "\ufffd"
    assert again.inputs == again.metadata == {"\ufffd": "\ufffd"}
