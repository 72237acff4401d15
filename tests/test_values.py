import collections
import dataclasses
import datetime as dt
import decimal
import enum
import json
import math
import pathlib
import types
import uuid
from typing import NamedTuple

import dspy
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspex_trio.model.values import MARKER, MAX_DEPTH, MAX_NODES, MAX_WARNINGS, plain


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Loud(str):
    """A str whose own conversions must not be asked."""

    __slots__ = ()

    def __str__(self):
        raise AssertionError

    __repr__ = __str__


class Person(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    name: str
    born: dt.date | None = None


class Names(pydantic.RootModel[list[str]]):
    pass


@dataclasses.dataclass
class Point:
    x: int
    where: pathlib.PurePosixPath


@dataclasses.dataclass(slots=True)
class Slotted:
    x: int
    never_set: int = dataclasses.field(init=False)


class Pair(NamedTuple):
    a: int
    b: int


UID = uuid.UUID(int=7)


@pytest.mark.parametrize(
    ("value", "made"),
    [
        ((1, [2, {"a": (3,)}]), [1, [2, {"a": [3]}]]),
        (Pair(1, 2), [1, 2]),
        (collections.deque([1]), [1]),
        (range(3), [0, 1, 2]),
        ({True: "a"}, {"true": "a"}),
        ({3, 1, "b", "a", None, (2, 1)}, [None, 1, 3, "a", "b", [2, 1]]),
        (frozenset({0.5, -math.inf}), [-math.inf, 0.5]),
        ({"k": 1}.keys(), ["k"]),
        (types.MappingProxyType({"a": 1}), {"a": 1}),
        (collections.OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (
            {1: "a", None: "b", 0.5: "d", Colour.RED: "e", (1, "x"): "f", b"g": "h"},
            {"1": "a", "null": "b", "0.5": "d", "red": "e", '[1, "x"]': "f", "g": "h"},
        ),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        (Loud("text"), "text"),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"ab"), b"ab"),
        (dt.datetime(2026, 1, 2, 3, 4, tzinfo=dt.UTC), "2026-01-02T03:04:00+00:00"),
        (dt.date(2026, 1, 2), "2026-01-02"),
        (dt.time(3, 4), "03:04:00"),
        (dt.timedelta(days=1, seconds=2), "P1DT2S"),
        (decimal.Decimal("1.10"), "1.10"),
        (UID, str(UID)),
        (pathlib.PurePosixPath("/a/b"), "/a/b"),
        (Person(name="Ada", born=dt.date(1815, 12, 10), note="x"), {"name": "Ada", "born": "1815-12-10", "note": "x"}),
        (Names(["a"]), ["a"]),
        (Point(1, pathlib.PurePosixPath("x")), {"x": 1, "where": "x"}),
        (Slotted(1), {"x": 1}),
    ],
    ids=lambda part: type(part).__name__,
)
def test_standard_values_become_what_json_can_say(value, made):
    warnings = []
    assert plain({"v": value}, warnings=warnings) == {"v": made}
    assert warnings == []


@pytest.mark.parametrize("value", [None, True, 1, 2**70, 1.5, math.inf, "x", b"y"])
def test_plain_values_are_themselves(value):
    assert plain(value) is value


def double(x: int) -> int:
    """Twice x."""
    return 2 * x


@pytest.mark.parametrize(
    ("value", "made"),
    [
        (dspy.Image("https://example.org/a.png"), {"$type": "dspy.Image", "url": "https://example.org/a.png"}),
        (dspy.Audio(data="AAAA", audio_format="wav"), {"$type": "dspy.Audio", "data": "AAAA", "audio_format": "wav"}),
        (dspy.History(messages=[{"q": "1"}]), {"$type": "dspy.History", "messages": [{"q": "1"}]}),
        (dspy.Code["java"](code="x"), {"$type": "dspy.Code", "code": "x", "language": "java"}),
        (
            dspy.ToolCalls.from_dict_list([{"name": "add", "args": {"x": 1}}]),
            {
                "$type": "dspy.ToolCalls",
                "tool_calls": [{"$type": "dspy.ToolCalls.ToolCall", "id": None, "name": "add", "args": {"x": 1}}],
                "tool_call_results": None,
            },
        ),
        (dspy.Example(a=1, b={2}, dspy_uuid="u").with_inputs("a"), {"a": 1, "b": [2]}),
        (dspy.Prediction(answer="x", score=0.5), {"answer": "x", "score": 0.5}),
    ],
    ids=lambda part: type(part).__name__,
)
def test_dspys_own_types_are_walked_and_tagged(value, made):
    """They dump themselves as opaque text, which no reader could take apart."""
    warnings = []
    assert plain([value], warnings=warnings) == [made]
    assert warnings == []


def test_a_tool_is_described_without_its_code():
    made = plain(dspy.Tool(double))
    assert made["$type"] == "dspy.Tool"
    assert (made["name"], made["desc"], made["args"]) == ("double", "Twice x.", {"x": {"type": "integer"}})
    assert "func" not in made


class Array:
    """Stands in for a library that is not installed here; `plain` goes by package and class name."""

    def __init__(self, content, size=1):
        self.content, self.size = content, size

    def tolist(self):
        return self.content

    item = to_dicts = tolist


def foreign(package, name, value):
    return type(name, (Array,), {"__module__": f"{package}.core"})(value)


@pytest.mark.parametrize(
    ("value", "made"),
    [
        (foreign("numpy", "ndarray", [[1.0, 2.0]]), [[1.0, 2.0]]),
        (foreign("numpy", "generic", 3), 3),
        (foreign("pandas", "Series", ["a"]), ["a"]),
        (foreign("polars", "DataFrame", [{"a": 1}]), [{"a": 1}]),
    ],
)
def test_arrays_and_frames_are_known_by_their_shape(value, made):
    assert plain(value) == made


def test_what_numpy_itself_makes_is_read():
    numpy = pytest.importorskip("numpy")
    nanoseconds = numpy.datetime64("2020-01-01T00:00:00.123456789")
    made = plain(
        {
            "scalars": [numpy.float32(0.5), numpy.int64(2**40), numpy.bool_(True), numpy.str_("x"), numpy.bytes_(b"y")],
            "times": [nanoseconds, numpy.datetime64("NaT"), numpy.timedelta64(5, "s"), numpy.timedelta64(5, "ns")],
            "arrays": [numpy.array([[1, 2]]), numpy.array(3), numpy.array([None, "a"]), numpy.ones((0, 3))],
            "arrays of times": [numpy.array([[nanoseconds]]), numpy.array(nanoseconds)],
            numpy.int64(1): numpy.longdouble(1) / 4,
        }
    )
    assert made == {
        "scalars": [0.5, 2**40, True, "x", b"y"],
        "times": ["2020-01-01T00:00:00.123456789", None, "PT5S", "PT0S"],
        "arrays": [[[1, 2]], 3, [None, "a"], []],
        "arrays of times": [[["2020-01-01T00:00:00.123456789"]], "2020-01-01T00:00:00.123456789"],
        "1": 0.25,
    }


def test_what_pandas_itself_makes_is_read():
    pandas = pytest.importorskip("pandas")
    time = pandas.Timestamp("2020-01-01", tz="UTC")
    made = plain(
        [
            pandas.DataFrame({"a": [1, 2], 3: [time, pandas.NaT]}),
            pandas.Series(["x", pandas.NA], dtype="string"),
            pandas.Index([1, 2]),
            pandas.Categorical(["x", "y"]),
            pandas.Timedelta(1, "s"),
            pandas.array([1, None], dtype="Int64"),
        ]
    )
    assert made == [
        [{"a": 1, "3": "2020-01-01T00:00:00+00:00"}, {"a": 2, "3": None}],
        ["x", None],
        [1, 2],
        ["x", "y"],
        "PT1S",
        [1, None],
    ]


def test_an_array_is_not_unfolded_beyond_the_limit():
    warnings = []
    huge = type("ndarray", (Array,), {"__module__": "numpy"})([], size=MAX_NODES + 1)
    assert plain(huge, warnings=warnings) == {MARKER: True, "__type__": "numpy.ndarray"}
    assert warnings == [f"value: numpy.ndarray has more than {MAX_NODES} parts"]


def test_what_has_no_plain_form_is_marked_and_named():
    warnings = []
    made = plain({"answer": [1, object()], "f": double}, warnings=warnings, path="prediction")
    assert made["answer"][1] == {MARKER: True, "__type__": "object"}
    assert warnings == [
        "prediction.answer[1]: object cannot be expressed as JSON",
        "prediction.f: function cannot be expressed as JSON",
    ]


class Talkative:
    def __repr__(self):
        return "key=sk-" + "a" * 40 + "x" * 1000


class Broken:
    def __repr__(self):
        raise RuntimeError


def test_a_repr_is_asked_for_only_when_allowed_and_is_redacted_and_cut():
    """Reprs run a program's code and hold what nobody meant to send."""
    assert "__repr__" not in plain(Talkative())
    shown = plain(Talkative(), allow_repr=True)["__repr__"]
    assert shown.startswith("key=[redacted]")
    assert len(shown) <= 501
    assert plain(Broken(), allow_repr=True)["__repr__"] == "<its __repr__ raised RuntimeError>"


class Hostile(collections.UserDict):
    def items(self):
        raise RuntimeError


def test_a_class_that_raises_while_it_is_read_is_marked():
    warnings = []
    assert plain({"a": Hostile(), "b": 1}, warnings=warnings)["b"] == 1
    assert (
        warnings == ["a: test_values.Hostile raised RuntimeError while it was read"]
        or "raised RuntimeError" in warnings[0]
    )


def test_cycles_and_depth_end_in_a_marker():
    loop = {"a": 1}
    loop["self"] = loop
    warnings = []
    assert plain(loop, warnings=warnings) == {"a": 1, "self": {MARKER: True, "__type__": "dict"}}
    assert warnings == ["self: dict refers to itself"]
    deep = inner = []
    for _ in range(5000):
        inner.append([])
        inner = inner[0]
    warnings.clear()
    plain(deep, warnings=warnings)
    assert len(warnings) == 1
    assert f"more than {MAX_DEPTH} levels" in warnings[0]


def test_the_same_object_twice_is_no_cycle():
    shared = [1]
    assert plain([shared, shared]) == [[1], [1]]


def test_warnings_are_limited_in_number():
    warnings = []
    plain([object()] * 1000, warnings=warnings)
    assert len(warnings) == MAX_WARNINGS + 1
    assert "left out" in warnings[-1]


def test_keys_that_are_written_alike_are_reported():
    warnings = []
    assert plain({1: "a", "1": "b"}, warnings=warnings) == {"1": "b"}
    assert warnings == ["value: two keys are written '1' alike; the later one stays"]


def test_later_changes_do_not_show():
    """A trace is recorded while the program still works on the same lists."""
    original = {"a": [1]}
    made = plain(original)
    original["a"].append(2)
    assert made == {"a": [1]}


def plain_only(value):
    if type(value) is dict:
        return all(type(key) is str and plain_only(item) for key, item in value.items())
    if type(value) is list:
        return all(map(plain_only, value))
    return value is None or type(value) in (bool, int, float, str, bytes)


hashable = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.tuples(st.integers())
anything = st.recursive(
    hashable | st.complex_numbers() | st.datetimes() | st.decimals() | st.just(object()) | st.functions(),
    lambda inner: st.lists(inner) | st.dictionaries(hashable, inner) | st.sets(hashable) | st.tuples(inner),
    max_leaves=20,
)


@given(anything)
def test_anything_at_all_becomes_plain(value):
    assert plain_only(plain(value))


@given(st.sets(hashable))
def test_a_set_is_always_written_the_same_way(members):
    order = sorted(members, key=repr)
    assert written(set(order)) == written(dict.fromkeys(reversed(order)).keys())


def written(items):
    return json.dumps(plain(items), default=bytes.hex)
