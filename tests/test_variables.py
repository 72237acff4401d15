import math

import pytest

from dspex_trio.model import Variable
from dspex_trio.model.errors import VariableInvalid
from dspex_trio.model.variable_types import TYPES, check_constraints, check_value, check_variable, show


@pytest.mark.parametrize(
    ("kind", "value", "held"),
    [
        ("float", 0.5, 0.5),
        ("float", 1, 1.0),
        ("float", math.nan, math.nan),
        ("integer", 3, 3),
        ("integer", 3.0, 3),
        ("integer", 10**50, 10**50),
        ("string", "", ""),
        ("boolean", True, True),
        ("choice", "a", "a"),
        ("choice", 3, 3),
        ("module", "dspy.Predict", "dspy.Predict"),
        ("embedding", [1, 0.5], [1.0, 0.5]),
        ("tensor", [[1, 2], [3, 4]], [[1, 2], [3, 4]]),
        ("tensor", {"shape": [2, 2], "data": [1, 2, 3, 4]}, {"shape": [2, 2], "data": [1, 2, 3, 4]}),
        ("tensor", {"shape": [2, 1], "data": [[1], [2]]}, {"shape": [2, 1], "data": [[1], [2]]}),
        ("map", {}, {}),
        ("list", [1, "a"], [1, "a"]),
        ("", object, object),
    ],
)
def test_a_value_is_held_as_its_type_says(kind, value, held):
    found = check_value(kind, value, {})
    assert type(found) is type(held)
    assert found == held or found != found  # noqa: PLR0124 - NaN


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("float", True),
        ("float", "0.5"),
        ("float", None),
        ("float", 2**53 + 1),
        ("float", 10**400),
        ("integer", True),
        ("integer", 0.5),
        ("integer", math.inf),
        ("integer", "3"),
        ("string", 3),
        ("string", None),
        ("boolean", 1),
        ("boolean", "true"),
        ("choice", ["a"]),
        ("module", ""),
        ("embedding", [1, "a"]),
        ("embedding", [True]),
        ("embedding", "ab"),
        ("tensor", [[1, 2], [3]]),
        ("tensor", [["a"]]),
        ("tensor", {"shape": [3], "data": [1, 2]}),
        ("tensor", {"data": [1]}),
        ("tensor", 3),
        ("tensor", {"shape": [1] * 33, "data": [1]}),
        ("tensor", {"shape": [0, 10**4000], "data": []}),
        ("map", []),
        ("list", {}),
        ("list", "abc"),
    ],
)
def test_a_value_of_another_type_is_refused_by_name(kind, value):
    """Nothing is rounded, parsed or truncated to make it fit."""
    with pytest.raises(ValueError, match=f"no {kind}: it takes"):
        check_value(kind, value, {})


def test_an_unknown_type_is_refused_and_the_known_ones_named():
    with pytest.raises(ValueError, match=f"'decimal' is no type of a variable; the types are {', '.join(TYPES)}"):
        check_value("decimal", 1, {})


@pytest.mark.parametrize(
    ("kind", "value", "constraints"),
    [
        ("float", 0.5, {"min": 0, "max": 1}),
        ("float", 0, {"min": 0.0, "max": None}),
        ("integer", 10**30, {"min": 10**30, "max": 10**30}),
        ("choice", "a", {"choices": ["a", "b"]}),
        ("choice", "z", {"choices": []}),
        ("choice", 1, {"enum": [1.0]}),
        ("module", "ReAct", {"allowed_modules": ["ReAct"]}),
        ("string", "abc", {"min_length": 3, "max_length": 3, "pattern": "^a.c$"}),
        ("string", "xxabcxx", {"pattern": "abc"}),
        ("embedding", [1, 2], {"dimensions": 2}),
        ("tensor", [[1, 2]], {"shape": [1, 2]}),
        ("tensor", {"shape": [1, 2], "data": [1, 2]}, {"shape": [1, 2]}),
        ("list", [1], {"min_length": 1, "colour": "the store's own affair"}),
        ("float", 0.5, {"pattern": "is for text", "choices": [0.5]}),
    ],
)
def test_constraints_that_are_met_say_nothing(kind, value, constraints):
    check_value(kind, value, constraints)


@pytest.mark.parametrize(
    ("kind", "value", "constraints", "text"),
    [
        ("float", -0.1, {"min": 0}, "-0.1 does not meet the constraint min of this float: the least is 0"),
        ("float", 3, {"max": 2}, "3.0 does not meet the constraint max of this float: the most is 2"),
        ("float", math.nan, {"min": 0}, "constraint min"),
        ("choice", "c", {"choices": ["a", "b"]}, "the choices are 'a', 'b'"),
        ("choice", True, {"choices": [1]}, "the choices are 1"),
        ("choice", "c", {"enum": ["a"]}, "constraint enum"),
        ("module", "os.system", {"allowed_modules": ["ReAct"]}, "constraint allowed_modules"),
        ("string", "ab", {"min_length": 3}, "its length is 2, the least is 3"),
        ("string", "abcd", {"max_length": 3}, "its length is 4, the most is 3"),
        ("string", "xyz", {"pattern": "^a"}, "it must match \\^a"),
        ("string", "x" * 200_000, {"pattern": "x"}, "at most 100000 characters"),
        ("embedding", [1.0], {"dimensions": 2}, "it has 1 dimensions, not 2"),
        ("tensor", [[1]], {"shape": [2, 2]}, r"its shape is \[1, 1\], not \[2, 2\]"),
        ("float", 1.0, {"min": "0"}, "the constraint min of this float is '0'; it takes a number"),
        ("string", "a", {"pattern": "("}, "it takes a regular expression"),
        ("string", "a", {"pattern": "a" * 2000}, "at most 1000 characters"),
        ("choice", "a", {"choices": "abc"}, "it takes a list"),
    ],
)
def test_constraints_that_are_not_met_are_named_with_what_they_ask(kind, value, constraints, text):
    with pytest.raises(ValueError, match=text):
        check_value(kind, value, constraints)


@pytest.mark.parametrize(
    "constraints",
    [{"min": True}, {"max": "1"}, {"pattern": "["}, {"min_length": -1}, {"shape": [1.5]}, {"dimensions": "3"}],
)
def test_constraints_that_no_value_could_meet_are_refused_when_they_are_declared(constraints):
    with pytest.raises(ValueError, match=f"the constraint {next(iter(constraints))} of this float"):
        check_constraints("float", constraints)


def test_the_variable_is_named_and_its_value_coerced():
    assert check_variable(Variable("temperature", "float", 1)).value == 1.0
    with pytest.raises(VariableInvalid, match="variable 'temperature': 'hot' is no float"):
        check_variable(Variable("temperature", "float", "hot"))


def test_a_pattern_takes_time_in_proportion_to_the_text():
    """Python's own engine would need longer than the universe for this one, with the interpreter locked."""
    with pytest.raises(ValueError, match="it must match"):
        check_value("string", "a" * 99_999 + "b", {"pattern": "^(a+)+$"})


@pytest.mark.parametrize("pattern", ["(?=a)a", r"(a)\1", r"\w{1000}", "(", "a" * 2000])
def test_a_pattern_that_only_the_store_can_match_is_left_to_it(pattern):
    """Where the store is ours, such a pattern cannot be declared."""
    assert check_variable(Variable("v", "string", "x", constraints={"pattern": pattern})).value == "x"
    with pytest.raises(VariableInvalid, match="constraint max_length"):
        check_variable(Variable("v", "string", "xyz", constraints={"pattern": pattern, "max_length": 2}))
    with pytest.raises(ValueError, match="without look-around"):
        check_constraints("string", {"pattern": pattern})


def test_any_value_can_be_shown_in_a_message():
    """Python refuses to write out integers of more than 4,300 digits."""
    for value in (10**5000, [10**5000], list(range(1000)), "x" * 1000, {"k": 10**5000}):
        assert len(show(value)) <= 80
