import datetime as dt
import sys
import typing
import uuid
from decimal import Decimal
from types import ModuleType

import dspy
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspex_trio.model import Field, Signature
from dspex_trio.model.errors import ImportNotAllowed, InvalidSpec
from dspex_trio.programs.hydrate.classes import ImportPolicy
from dspex_trio.programs.hydrate.signatures import make_signature

ONLY_DSPY = ImportPolicy()


def make(signature, loaded=()):
    given = Signature(signature) if isinstance(signature, str) else signature
    return make_signature(given, ImportPolicy(loaded), loaded)


def types(made):
    return {name: info.annotation for name, info in made.fields.items()}


@pytest.mark.parametrize(
    "text",
    [
        "question -> answer",
        "question->answer",
        "context: list[str], question: str -> answer: str, score: float",
        "a: int, b: bool, c: dict[str, int] -> d: list[dict[str, float]]",
        'q -> verdict: Literal["yes", "no"], certain: bool',
        "q: Optional[str] -> a: int | None",
        "image: dspy.Image, history: dspy.History -> caption",
        "q: tuple[int, str] -> a: list",
        "q: Union[int, str], r: Any -> a: List[str]",
    ],
)
def test_text_means_what_it_means_to_dspy(text):
    """The same fields, types, prompts and defaults as DSPy's own parser gives."""
    ours, theirs = make(text), dspy.Signature(text)
    assert list(ours.input_fields) == list(theirs.input_fields)
    assert list(ours.output_fields) == list(theirs.output_fields)
    assert types(ours) == types(theirs)
    assert ours.instructions == theirs.instructions
    assert [info.json_schema_extra for info in ours.fields.values()] == [
        info.json_schema_extra for info in theirs.fields.values()
    ]


def test_fields_have_types_by_python_or_json_name_descriptions_instructions_and_a_name():
    made = make(
        Signature(
            inputs=(Field("count", "integer", "how many"), Field("tags", "list[string]"), Field("options", "object")),
            outputs=(Field("mean", "number"), Field("image", "dspy.Image"), Field("good", "boolean")),
            instructions="Count them.",
            name="Counting",
        )
    )
    assert types(made) == {
        "count": int, "tags": list[str], "options": dict, "mean": float, "image": dspy.Image, "good": bool,
    }  # fmt: skip
    assert made.instructions == "Count them."
    assert made.__name__ == "Counting"
    assert made.fields["count"].json_schema_extra["desc"] == "how many"


def test_types_of_loaded_modules_may_be_named_with_and_without_their_module(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "typed_programs.py").write_text("import pydantic\nclass Place(pydantic.BaseModel):\n    name: str\n")
    import typed_programs

    try:
        loaded = ("typed_programs",)
        for text in ("q -> a: Place", "q -> a: typed_programs.Place"):
            assert types(make(text, loaded))["a"] is typed_programs.Place
        assert types(make("q -> a: list[Place]", loaded))["a"] == list[typed_programs.Place]
    finally:
        del sys.modules["typed_programs"]


@pytest.mark.parametrize("text", ["q: evil_module.T -> a", "q -> a: list[os.PathLike]", "q: 'subprocess.Popen' -> a"])
def test_a_dotted_type_under_no_allowed_prefix_is_refused_and_not_imported(text, tmp_path, monkeypatch):
    """DSPy's own parser would import the module that the request names."""
    (tmp_path / "evil_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportNotAllowed):
        make(text)
    assert "evil_module" not in sys.modules


def test_an_allowed_prefix_is_no_reason_to_import_for_a_type(tmp_path, monkeypatch):
    (tmp_path / "not_yet_imported.py").write_text("class T: ...")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InvalidSpec, match=r"no type 'not_yet_imported\.T' in the modules of this worker"):
        make_signature(Signature("q: not_yet_imported.T -> a"), ImportPolicy(importable=("not_yet_imported",)))
    assert "not_yet_imported" not in sys.modules


@pytest.mark.parametrize("kind", [dt.date, dt.time, dt.timedelta, dt.datetime, Decimal, uuid.UUID])
def test_dates_times_decimals_and_uuids_are_named_with_and_without_their_module(kind):
    for name in (kind.__name__, f"{kind.__module__}.{kind.__name__}"):
        made = make(f"q: {name}, r: list[{name} | None] -> a: dict[str, {name}]")
        assert types(made) == {"q": kind, "r": list[kind | None], "a": dict[str, kind]}


@pytest.mark.parametrize("name", ["datetime", "datetime.tzinfo", "uuid.getnode", "decimal.Context", "uuid.os.PathLike"])
def test_nothing_else_of_their_modules_is_a_type(name):
    if name == "datetime":
        assert types(make("q: datetime -> a"))["q"] is dt.datetime, "the class, since a module is no type"
        return
    with pytest.raises(ImportNotAllowed):
        make(f"q: {name} -> a")


def test_a_loaded_modules_own_type_of_that_name_wins(monkeypatch):
    loaded = ModuleType("own_types")
    loaded.time = type("time", (pydantic.BaseModel,), {"__module__": "own_types"})
    monkeypatch.setitem(sys.modules, "own_types", loaded)
    assert types(make("q: time -> a", ("own_types",)))["q"] is loaded.time
    assert types(make("q: time -> a"))["q"] is dt.time


def deep(levels):
    return "list[" * (levels - 1) + "str" + "]" * (levels - 1)


LARGEST = [
    " | ".join(["int"] * 100),
    " | ".join(f"Literal[{i}]" for i in range(100)),
    "Union[" + ", ".join(["int"] * 99) + "]",
    "Literal[" + ", ".join(map(str, range(5_000))) + "]",
    deep(20),
]
TOO_LARGE = [
    " | ".join(["int"] * 101),
    " | ".join(["int"] * 2_000),
    " | ".join(f"list[Literal[{i}]]" for i in range(2_000)),
    " | ".join(["'int | int | int'"] * 34),
    "'" + " | ".join(["int"] * 101) + "'",
    "Union[" + ", ".join(["int"] * 2_000) + "]",
    "tuple[" + ", ".join(["int"] * 2_000) + "]",
    deep(21),
    deep(90),
    "list[" * 15 + f"'{deep(8)}'" + "]" * 15,
    "Optional[" * 40 + "int" + "]" * 40,
    "a" + ".b" * 60,
]


@pytest.mark.parametrize("text", LARGEST, ids=lambda text: text[:30])
def test_the_largest_type_is_taken(text):
    assert make(f"q: {text} -> a: {text}").output_fields


@pytest.mark.parametrize("text", TOO_LARGE, ids=lambda text: text[:30])
def test_a_larger_or_deeper_type_is_refused_with_the_limit(text):
    """DSPy and pydantic walk types by recursion, and would end it as a fault of the worker."""
    for signature in (f"q: {text} -> a", Signature(inputs=(Field("q", text),), outputs=(Field("a"),))):
        with pytest.raises(InvalidSpec) as caught:
            make(signature)
        assert str(caught.value) == "field 'q': the type is too large; 100 types, 20 levels deep, are the most"


@pytest.mark.parametrize(
    "text",
    ["int | " * 100_000 + "int", "Literal[" + "-" * 900 + "1]", f"Literal[0x{'f' * 5_000}]", f"0x{'f' * 5_000}",
     "list[" + "f(k=" * 150 + "1" + ")" * 150 + "]", "[" * 150 + "]" * 150, "lambda: " * 300 + "1"],
    ids=lambda text: text[:30],
)  # fmt: skip
def test_a_type_that_python_itself_cannot_bear_is_refused(text):
    for signature in (f"q: {text} -> a", Signature(inputs=(Field("q", text),), outputs=(Field("a"),))):
        with pytest.raises(InvalidSpec) as caught:
            make(signature)
        assert len(str(caught.value)) < 500


def test_a_lazy_module_is_not_asked_for_a_type_that_it_would_import(monkeypatch):
    lazy = ModuleType("lazy_types")
    lazy.__getattr__ = lambda name: pytest.fail(f"imported {name}")
    monkeypatch.setitem(sys.modules, "lazy_types", lazy)
    for text in ("q: lazy_types.T -> a", "q: T -> a"):
        with pytest.raises(InvalidSpec, match=r"type '(lazy_types\.)?T'"):
            make(text, ("lazy_types",))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("question", "exactly one '->'"),
        ("a -> b -> c", "exactly one '->'"),
        ("question ->", "no output field"),
        ("a: -> b", "cannot be read near"),
        ("a b -> c", "cannot be read near"),
        ("1a -> b", "cannot be read near"),
        ("a=3 -> b", "may only list fields"),
        ("*a -> b", "may only list fields"),
        ("a, a -> b", "two fields named 'a'"),
        ("class -> a", "cannot be read near"),
        ("a -> a", "two fields named 'a'"),
        ("config -> a", "an input cannot be named 'config'"),
        ("lm -> a", "an input cannot be named 'lm'"),
        ("self -> a", "cannot be named 'self'"),
        ("instance -> a", "cannot be named 'instance'"),
        ("q: Nope -> a", "unknown type 'Nope'"),
        ("q: 5 -> a", "'5' is no type"),
        ("q: [str] -> a", "is no type"),
        ("q: int[str] -> a", "is no type"),
        ("q: Literal[1.5] -> a", "cannot hold 1.5"),
        ("q: Literal[f()] -> a", "is no literal"),
        ("q: Optional -> a", "DSPy refuses the signature"),
        ("q: Predict -> a", "DSPy refuses the signature"),
        ("q: f() -> a", "is no type"),
        ("q: __import__('os').system -> a", "lies under no prefix"),
        ("q -> model_config", "model_config"),
        ("q -> _hidden", "_hidden"),
        ("q: list[" * 300 + "str" + "]" * 300 + " -> a", ""),
        ("q, " * 30_000 + "z -> a", "fields"),
    ],
)
def test_what_is_no_signature_is_refused_with_what_is_wrong(text, told):
    with pytest.raises((InvalidSpec, ImportNotAllowed)) as caught:
        make(text)
    assert told in str(caught.value)
    assert len(str(caught.value)) < 2_000


def test_a_signature_needs_an_output():
    with pytest.raises(InvalidSpec, match="no output field"):
        make(Signature(inputs=(Field("q"),)))


@pytest.mark.parametrize("name", ["", "a b", "a.b", "1", "class", "a; import os", "model_fields", "_a"])
def test_a_field_is_named_by_an_identifier(name):
    with pytest.raises(InvalidSpec, match="cannot be the name of a signature field"):
        make(Signature(inputs=(Field(name),), outputs=(Field("a"),)))


@given(st.text(st.sampled_from("abq,:->[]|'\" .()*=int strliedspy\n"), max_size=60))
def test_any_text_makes_a_signature_or_one_of_two_errors(text):
    try:
        made = make_signature(Signature(text), ONLY_DSPY)
    except (InvalidSpec, ImportNotAllowed):
        return
    assert made.output_fields
    assert typing.get_type_hints(made) is not None
