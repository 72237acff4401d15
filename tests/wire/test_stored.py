import struct

import pytest

from dspex_trio.model import Variable
from dspex_trio.model.errors import ValueNotDecodable, VariableInvalid
from dspex_trio.wire import decode_constraints, decode_variable, encode_variable
from dspex_trio.wire.generated import bridge_pb2


@pytest.mark.parametrize(
    "variable",
    [
        Variable("temperature", "float", 0.5, 3, "var_1", {"min": 0, "max": 2}, {"source": "elixir"}),
        Variable("n", "integer", 10**30, 1),
        Variable("prompt", "string", '{"looks": "like JSON"}', 1),
        Variable("mode", "choice", "[1]", 1, constraints={"choices": ["[1]"]}),
        Variable("cls", "module", "dspy.ReAct", 1),
        Variable("e", "embedding", [0.5, float("inf")], 1),
        Variable("m", "map", {"a": [None, True]}, 1),
        Variable("untyped", "", [1, "a"], 1),
        Variable("nothing", "float", None, 1),
    ],
    ids=lambda variable: variable.name,
)
def test_a_variable_arrives_as_the_store_had_it(variable):
    assert decode_variable(encode_variable(variable)) == variable


def test_an_old_peers_doubled_json_is_unwrapped_where_the_type_is_no_text():
    """The same bytes in a variable that declares text are text."""
    value = {"type_url": "type.googleapis.com/snakepit.string", "value": b'"{\\"a\\": 1}"'}
    assert decode_variable(bridge_pb2.Variable(name="v", type="map", value=value)).value == {"a": 1}
    assert decode_variable(bridge_pb2.Variable(name="v", type="string", value=value)).value == '{"a": 1}'


def test_a_large_tensor_comes_as_bytes_beside_its_description():
    described = b'{"shape": [2, 1], "dtype": "float32", "binary_format": "raw", "type": "tensor"}'
    message = bridge_pb2.Variable(
        name="weights",
        type="tensor",
        value={"type_url": "type.googleapis.com/snakepit.tensor.binary", "value": described},
        binary_value=struct.pack("<2f", 0.5, 1.5),
    )
    assert decode_variable(message).value == [[0.5], [1.5]]


def test_the_description_of_bytes_may_be_the_variables_metadata():
    message = bridge_pb2.Variable(
        name="e",
        type="embedding",
        metadata={"binary_format": "numpy", "dtype": "float64", "shape": "[2]"},
        binary_value=struct.pack("<2d", 0.5, 1.5),
    )
    assert decode_variable(message).value == [0.5, 1.5]


BINARY = "type.googleapis.com/snakepit.tensor.binary"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"value": {"type_url": "type.googleapis.com/snakepit.float", "value": b"x"}}, "the text is no JSON"),
        ({"value": {"type_url": "foo", "value": b"x"}}, "the type 'foo' is unknown"),
        ({"binary_value": b"x"}, "no binary_format says what it is"),
        ({"value": {"type_url": BINARY, "value": b"{}"}}, "announces a binary_value, and there is none"),
        (
            {"value": {"type_url": BINARY, "value": b'{"binary_format": "erlang_binary"}'}, "binary_value": b"\x83l"},
            "'erlang_binary' is not decoded",
        ),
        (
            {"value": {"type_url": BINARY, "value": b'{"binary_format": "pickle"}'}, "binary_value": b"\x80\x04."},
            "'pickle' is not decoded",
        ),
        ({"constraints_json": "{"}, "constraints_json: the text is no JSON"),
        ({"constraints_json": "[]"}, "constraints_json is no JSON object"),
    ],
)
def test_a_variable_that_cannot_be_decoded_is_named(fields, text):
    """Above all: nothing is ever unpickled, whatever the store says it is."""
    with pytest.raises(VariableInvalid, match=f"variable 'v' of type tensor: .*{text}"):
        decode_variable(bridge_pb2.Variable(name="v", type="tensor", **fields))


@pytest.mark.parametrize("text", ["", "null", "{}"])
def test_no_constraints_can_be_said_in_several_ways(text):
    assert decode_constraints(text) == {}


def test_constraints_must_be_an_object():
    with pytest.raises(ValueNotDecodable, match="no JSON object"):
        decode_constraints('"min"')
