import datetime as dt
import enum
import uuid
from decimal import Decimal

import dspy
import pydantic
import pytest
from dspy.utils import DummyLM

import dspex_trio as dspex
from dspex_trio.model import Signature
from dspex_trio.model.errors import InvalidInput
from dspex_trio.model.values import plain
from dspex_trio.programs.hydrate.classes import ImportPolicy
from dspex_trio.programs.hydrate.fields import FieldType
from dspex_trio.programs.hydrate.signatures import make_signature
from dspex_trio.programs.inputs import inputs_of
from dspex_trio.wire import decode_any, encode_any

PIXEL = "data:image/gif;base64,R0lGODlhAQABAIAAAAUEBAAAACwAAAAAAQABAAACAkQBADs="


def of(text):
    signature = make_signature(Signature(text), ImportPolicy())
    return inputs_of(dspy.Predict(signature), signature)


@pytest.mark.parametrize(
    ("kind", "value", "taken"),
    [
        ("str", "text", "text"),
        ("int", 3, 3),
        ("int", "3", 3),
        ("int", 3.0, 3),
        ("int", 10**30, 10**30),
        ("float", 3, 3.0),
        ("bool", True, True),
        ("list[str]", ["a"], ["a"]),
        ("dict[str, int]", {"a": 1}, {"a": 1}),
        ("Literal['yes', 'no']", "yes", "yes"),
        ("Optional[int]", None, None),
        ("int | str", "x", "x"),
        ("list[int] | None", [1], [1]),
        ("tuple[int, str]", [1, "a"], (1, "a")),
        ("set[int]", [1, 1], {1}),
        ("bytes", b"raw", b"raw"),
        ("Optional[bool]", True, True),
        ("Literal[True, 'maybe']", True, True),
        ("float", 2**53, 2.0**53),
        ("Any", object, object),
    ],
)
def test_json_becomes_what_the_signature_declares(kind, value, taken):
    checked = of(f"x: {kind} -> answer").check({"x": value})
    assert checked == {"x": taken}
    assert type(checked["x"]) is type(taken)


@pytest.mark.parametrize(
    "value",
    [
        dspy.Image("https://example.org/a.png"),
        dspy.Audio(data="AAAA", audio_format="wav"),
        dspy.History(messages=[{"q": "1"}]),
        dspy.Code["java"](code="x"),
        dspy.ToolCalls.from_dict_list([{"name": "add", "args": {"x": 1}}]),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_what_a_prediction_says_of_dspys_types_can_be_given_back(value, wrapped):
    """One program's output is the next one's input; the tag says what it is, and is no part of it."""
    cls = type(value)
    field = FieldType(list[cls] | None if wrapped else cls)
    sent = plain([value] if wrapped else value)
    assert plain(field.convert(decode_any(encode_any(sent)))) == sent


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("str", 5),
        ("str", True),
        ("str", None),
        ("int", "three"),
        ("int", 3.5),
        ("int", True),
        ("float", "hot"),
        ("bool", "maybe"),
        ("list[str]", "text"),
        ("list[int]", [1, "b"]),
        ("dict[str, int]", {"a": "b"}),
        ("Literal['yes', 'no']", "maybe"),
        ("dspy.Image", 3),
        ("dspy.History", "hello"),
        ("dspy.Audio", 5),
        ("Optional[int]", True),
        ("int | str", False),
        ("Literal[1, 2]", True),
        ("float", 2**53 + 1),
    ],
)
def test_a_mismatch_names_the_field_what_it_takes_and_what_came(kind, value):
    with pytest.raises(InvalidInput) as caught:
        of(f"x: {kind} -> answer").check({"x": value})
    told = str(caught.value)
    assert told.startswith("input 'x' takes ")
    assert repr(value) in told
    assert f"{type(value).__name__} came" in told


def test_a_field_without_a_written_type_takes_anything():
    """DSPy says `str` for it, and then takes whatever comes; so do its users."""
    assert of("question -> answer").check({"question": [1, {"a": None}]}) == {"question": [1, {"a": None}]}


def test_missing_and_unexpected_inputs_are_named_with_what_there_is():
    inputs = of("question, n: int -> answer")
    with pytest.raises(InvalidInput, match=r"^input 'n' is missing; the program takes question, n: int$"):
        inputs.check({"question": "?"})
    with pytest.raises(InvalidInput, match=r"^input 'extra' is unexpected; the program takes question, n: int$"):
        inputs.check({"question": "?", "n": 1, "extra": 1})


def test_what_may_be_none_may_be_left_out():
    assert of("q, hint: Optional[str] -> a").check({"q": "?"}) == {"q": "?", "hint": None}


def test_an_image_comes_as_an_address_or_as_data_or_as_an_object():
    inputs = of("picture: dspy.Image -> caption")
    for value in ("https://example.org/cat.png", {"url": "https://example.org/cat.png"}):
        assert inputs.check({"picture": value})["picture"].url == "https://example.org/cat.png"
    assert inputs.check({"picture": PIXEL})["picture"].url == PIXEL


def test_bare_base64_of_an_image_is_an_image():
    """It cannot be an address; the first bytes say which kind it is."""
    inputs = of("picture: dspy.Image -> caption")
    for start, kind in {"iVBORw0KGgo=": "png", "/9j/4AAQ": "jpeg", "R0lGODlh": "gif", "UklGRg==": "webp"}.items():
        assert inputs.check({"picture": start})["picture"].url == f"data:image/{kind};base64,{start}"


def test_audio_comes_as_a_data_url_or_as_an_object_and_never_from_elsewhere():
    inputs = of("sound: dspy.Audio -> text")
    for value in ("data:audio/wav;base64,UklGRg==", {"data": "UklGRg==", "audio_format": "wav"}):
        sound = inputs.check({"sound": value})["sound"]
        assert (sound.data, sound.audio_format) == ("UklGRg==", "wav")
    for value in ("https://example.org/a.wav", "/etc/hostname"):
        with pytest.raises(InvalidInput, match="must be data URIs"):
            inputs.check({"sound": value})


@pytest.mark.parametrize(
    ("kind", "value", "wrap"),
    [
        ("Optional[dspy.Image]", PIXEL, lambda image: image),
        ("dspy.Image | None", PIXEL, lambda image: image),
        ("list[dspy.Image]", [PIXEL], lambda image: [image]),
        ("dict[str, dspy.Image]", {"a": PIXEL}, lambda image: {"a": image}),
        ("tuple[str, dspy.Image]", ["a", PIXEL], lambda image: ("a", image)),
    ],
)
def test_short_forms_stand_wherever_their_type_does(kind, value, wrap):
    checked = of(f"x: {kind} -> a").check({"x": value})
    assert checked == {"x": wrap(dspy.Image(PIXEL))}


def test_a_history_that_may_be_left_out_comes_as_its_messages_too():
    messages = [{"question": "a", "answer": "b"}]
    assert of("history: Optional[dspy.History] -> a").check({"history": messages})["history"].messages == messages


def test_a_history_comes_as_its_messages():
    messages = [{"question": "a", "answer": "b"}]
    for value in (messages, {"messages": messages}):
        assert of("history: dspy.History, q -> a").check({"history": value, "q": "?"})["history"].messages == messages


def test_a_local_file_is_not_read_for_an_image(tmp_path):
    """A request names addresses; what lies on the worker's disk is none of its business."""
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    for value in (str(secret), f"file://{secret}", {"url": str(secret)}):
        try:
            taken = of("picture: dspy.Image -> caption").check({"picture": value})["picture"]
        except InvalidInput:
            continue
        assert "c2VjcmV0" not in taken.url


class Colour(enum.Enum):
    RED = "red"


class Person(pydantic.BaseModel):
    name: str
    born: dt.date | None = None


def test_models_enums_dates_and_constraints_of_a_programs_own_signature():
    class Typed(dspy.Signature):
        people: list[Person] = dspy.InputField()
        colour: Colour = dspy.InputField()
        since: dt.date = dspy.InputField()
        share: float = dspy.InputField(ge=0, le=1)
        note: str = dspy.InputField(default="none")
        answer: str = dspy.OutputField()

    inputs = inputs_of(dspy.Predict(Typed), None)
    good = {"people": [{"name": "Ada", "born": "1815-12-10"}], "colour": "red", "since": "2024-05-01", "share": 0.5}
    checked = inputs.check(good)
    assert checked["people"] == [Person(name="Ada", born=dt.date(1815, 12, 10))]
    assert (checked["colour"], checked["since"]) == (Colour.RED, dt.date(2024, 5, 1))
    assert "note" not in checked, "the signature's default is DSPy's to fill in"
    for wrong in ({"people": [{"nom": "Ada"}]}, {"colour": "blue"}, {"since": "soon"}, {"share": 1.5}):
        with pytest.raises(InvalidInput, match=f"input '{next(iter(wrong))}' takes"):
            inputs.check({**good, **wrong})


OF_STANDARD_LIBRARY = [
    ("date", "2024-01-31", dt.date(2024, 1, 31)),
    ("time", "12:30:00", dt.time(12, 30)),
    ("datetime", "2024-01-31T12:30:00", dt.datetime(2024, 1, 31, 12, 30)),  # noqa: DTZ001 - without a zone, as given
    ("timedelta", "P1DT2H", dt.timedelta(days=1, hours=2)),
    ("Decimal", "1.10", Decimal("1.10")),
    ("UUID", "12345678-1234-5678-1234-567812345678", uuid.UUID("12345678-1234-5678-1234-567812345678")),
]


@pytest.mark.parametrize(("kind", "written", "value"), OF_STANDARD_LIBRARY)
def test_dates_times_decimals_and_uuids_travel_both_ways_as_text(kind, written, value):
    sent = decode_any(encode_any(plain(value)))
    assert sent == written
    assert of(f"q: {kind} -> a").check({"q": sent}) == {"q": value}
    assert of(f"q: list[{kind} | None] -> a").check({"q": [sent, None]}) == {"q": [value, None]}
    for wrong in (True, "soon", [sent]):
        with pytest.raises(InvalidInput, match=f"input 'q' takes {kind}, but a "):
            of(f"q: {kind} -> a").check({"q": wrong})


@pytest.mark.parametrize(("kind", "written", "value"), OF_STANDARD_LIBRARY)
def test_a_models_answer_of_such_a_type_is_one(kind, written, value):
    predict = dspy.Predict(make_signature(Signature(f"q -> a: {kind}"), ImportPolicy()))
    with dspy.context(lm=DummyLM([{"a": written}])):
        answer = predict(q="?").a
    assert answer == value
    assert type(answer) is type(value)


# ---- modules that are called with what their forward takes ----------------------------------------------------------


def test_forwards_parameters_say_what_a_module_takes():
    class Mine(dspy.Module):
        def forward(self, question: str, limit: int = 3, hint=None, *, loud: bool = False): ...

    inputs = inputs_of(Mine(), None)
    assert inputs.check({"question": "?"}) == {"question": "?", "hint": None}
    assert inputs.check({"question": "?", "limit": "4", "hint": 1, "loud": True})["limit"] == 4
    with pytest.raises(InvalidInput, match="input 'loud' takes bool"):
        inputs.check({"question": "?", "loud": "very"})
    with pytest.raises(InvalidInput, match="input 'question' is missing; the program takes question: str, limit: int"):
        inputs.check({})


def test_forwards_parameters_without_annotation_have_the_types_of_the_signatures_fields():
    class Mine(dspy.Module):
        def __init__(self, signature):
            super().__init__()
            self.generate = dspy.Predict(signature)

        def forward(self, n, extra: str = "x"): ...

    signature = make_signature(Signature("n: int, unused -> a"), ImportPolicy())
    inputs = inputs_of(Mine(signature), signature)
    assert inputs.check({"n": 1, "extra": "y"}) == {"n": 1, "extra": "y"}
    with pytest.raises(InvalidInput, match="input 'n' takes int"):
        inputs.check({"n": "one"})
    with pytest.raises(InvalidInput, match="input 'unused' is unexpected"):
        inputs.check({"n": 1, "unused": 2})


def test_annotations_that_cannot_be_resolved_are_no_types():
    class Mine(dspy.Module):
        def forward(self, question: "OnlyForTypeCheckers"): ...  # noqa: F821

    assert inputs_of(Mine(), None).check({"question": 5}) == {"question": 5}


def test_a_type_that_pydantic_knows_nothing_of_takes_its_instances():
    class Opaque: ...

    class Mine(dspy.Module):
        def forward(self, thing: Opaque): ...

    thing = Opaque()
    assert inputs_of(Mine(), None).check({"thing": thing}) == {"thing": thing}
    with pytest.raises(InvalidInput, match="input 'thing' takes Opaque"):
        inputs_of(Mine(), None).check({"thing": "x"})


@pytest.mark.parametrize("name", ["config", "lm", "signature", "new_signature", "demos", "_trace"])
async def test_what_a_predictor_takes_for_itself_never_comes_from_a_request(trial, name):
    """A program that hands on whatever it is given would let a request set the address of the provider."""

    @dspex.register("HandsOn")
    class HandsOn(dspy.Module):
        def __init__(self):
            super().__init__()
            self.generate = dspy.Predict("question -> answer")

        def forward(self, **inputs):
            return self.generate(**inputs)

    assert await trial(python_class="HandsOn").run(question="?") == {"answer": "yes"}
    t = await trial(python_class="HandsOn").ready()
    with pytest.raises(InvalidInput, match=f"input '{name}' is unexpected; the program takes any others"):
        t.call(question="?", **{name: {"api_base": "http://evil"}})


def test_an_input_named_self_is_refused_where_any_others_are_taken():
    """Passed on as a keyword it would collide with the module itself, which looks like the program's own error."""

    class Takes(dspy.Module):
        def forward(self, **inputs):
            return inputs

    with pytest.raises(InvalidInput, match="input 'self' is unexpected"):
        inputs_of(Takes(), None).check({"self": 1})


async def test_inputs_are_checked_before_the_program_starts(trial):
    t = await trial(python_class="dspy.Predict", signature="n: int -> answer").ready()
    with pytest.raises(InvalidInput):
        t.call(n="one")
    assert t.interrupt.checks == 0
    assert t.recording.trace == ()
