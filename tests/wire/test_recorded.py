"""What stores, pools and their Python sides put on the wire (recorded.jsonl), and what it means.

Each line was made with protoc's own Python code as the sources of snakepit 0.4 and 0.13 make it, with none of ours.
"""

import json
from pathlib import Path

import pytest

from dspex_trio.model.errors import ValueNotDecodable, VariableInvalid
from dspex_trio.wire import decode_any, decode_tool_result, decode_variable
from dspex_trio.wire.generated import any_pb2, bridge_pb2

from .strategies import same

RECORDED = [json.loads(line) for line in Path(__file__).with_name("recorded.jsonl").read_text("utf-8").splitlines()]


def decoded(message, raw):
    match message:
        case "variable":
            return decode_variable(bridge_pb2.Variable.FromString(raw)).value
        case "any":
            return decode_any(any_pb2.Any.FromString(raw))
        case "result":
            reply = bridge_pb2.ExecuteElixirToolResponse.FromString(raw)
            return decode_tool_result(reply.result, reply.binary_result)


def meant(value):
    match value:
        case {"$float": name}:
            return float(name)
        case {"$bytes": text}:
            return bytes.fromhex(text)
        case list():
            return [meant(item) for item in value]
    return value


@pytest.mark.parametrize("line", RECORDED, ids=lambda line: line["what"])
def test_a_recorded_encoding_means_what_its_sender_meant(line):
    raw = bytes.fromhex(line["hex"])
    if "error" in line:
        with pytest.raises((ValueNotDecodable, VariableInvalid), match=line["error"]):
            decoded(line["message"], raw)
    else:
        assert same(decoded(line["message"], raw), meant(line["value"]))


def test_the_rest_of_a_variable_is_read_too():
    variable = decode_variable(bridge_pb2.Variable.FromString(bytes.fromhex(RECORDED[0]["hex"])))
    assert (variable.name, variable.type, variable.version) == ("temp", "float", 3)
    assert variable.constraints == {"min": 0.0, "max": 2.0}
    assert variable.metadata == {"source": "elixir", "created_by": "session_store"}
