import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspex_trio.model import MISSING, Binding, Field, LanguageModel, Program, Signature, TrialOptions, TrialRequest
from dspex_trio.model.errors import InvalidInput, InvalidSpec, TrialError
from dspex_trio.wire import decode_request, encode_request, program_from_json, program_to_json, seconds_of
from dspex_trio.wire.generated import any_pb2, program_pb2

from .strategies import plain_values, same, text

FULL = Program(
    name="qa",
    description="answers questions",
    python_class="dspy.ChainOfThought",
    signature=Signature(
        inputs=(Field("question"), Field("context", "list[str]", "what is known")),
        outputs=(Field("answer", "float"),),
        instructions="Be brief.",
        name="QA",
    ),
    config_space=(
        Binding("temperature", "temperature"),
        Binding("generate.instructions", "style", optional=True),
        Binding("max_tokens", "tokens", default=[100, "x"]),
        Binding("top_p", "p", default=None),
    ),
    dependencies={"tools": [{"tool": "search"}], "n": 3},
    parameters={"temperature": 0.5, "demos": [{"question": "?"}]},
    state={"predict": {"demos": [10**30]}},
    lm=LanguageModel("openai/gpt-4o-mini", {"temperature": 0.0}),
)
MINIMAL = Program("dspy.Predict", signature=Signature(text="question -> answer"))


@pytest.mark.parametrize("program", [FULL, MINIMAL, Program("MyClass"), Program("A", lm=LanguageModel("m"), state={})])
def test_a_request_arrives_as_it_was_sent(program):
    request = TrialRequest(
        program=program,
        inputs={"question": "why?", "context": ['{"a": 1}', None], "n": 2**80},
        session_id="s1",
        trial_id="t1",
        metadata={"generation": "7"},
        options=TrialOptions(omit_trace=True, omit_prompts=True, max_trace_bytes=1000, no_cache=True),
    )
    assert decode_request(encode_request(request)) == request


names = text.filter(bool)


@given(
    st.builds(
        TrialRequest,
        program=st.builds(
            Program,
            python_class=names,
            dependencies=st.dictionaries(text, plain_values, max_size=3),
            parameters=st.dictionaries(text, plain_values, max_size=3),
            config_space=st.lists(
                st.builds(Binding, names, names, st.booleans(), st.just(MISSING) | plain_values),
                max_size=3,
                unique_by=lambda binding: binding.parameter,
            ).map(tuple),
        ),
        inputs=st.dictionaries(text, plain_values, max_size=4),
        session_id=text,
    )
)
def test_any_request_arrives_as_it_was_sent(request):
    found = decode_request(encode_request(request))
    assert same(dict(found.inputs), dict(request.inputs))
    assert found.program == request.program


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [(None, float("inf")), (1.5, 1.5), (0, 0), (-3, 0), (1e-9, 1e-9), (float("inf"), float("inf"))],
)
def test_a_timeout_of_zero_is_not_the_same_as_none(timeout, seconds):
    assert seconds_of(encode_request(TrialRequest(MINIMAL, {}), timeout=timeout)) == seconds


def any_of(url, raw):
    return any_pb2.Any(type_url=url, value=raw)


UNKNOWN = any_of("type.googleapis.com/foo.Bar", b"x")


def spec(**fields):
    return program_pb2.ProgramSpecification(**{"python_class": "dspy.Predict", **fields})


@pytest.mark.parametrize(
    ("program", "text"),
    [
        (program_pb2.ProgramSpecification(), "python_class is empty; it takes a registered name or a dotted path"),
        (
            spec(dependencies={"tools": UNKNOWN}),
            "dependencies.tools cannot be decoded: the type 'type.googleapis.com/foo",
        ),
        (spec(parameters={"p": UNKNOWN}), "parameters.p cannot be decoded"),
        (spec(lm={"model": "m", "params": {"top_p": UNKNOWN}}), "lm.params.top_p cannot be decoded"),
        (spec(lm={}), "lm.model is empty"),
        (spec(state_json=b"{"), "state_json cannot be decoded: the text is no JSON"),
        (spec(state_json=b"[]"), "state_json is no JSON object"),
        (spec(signature={}), "signature is empty"),
        (spec(signature={"text": "  "}), "signature is empty"),
        (spec(signature={"fields": {"inputs": [{"type": "str"}]}}), "a field without a name"),
        (
            spec(signature={"fields": {"inputs": [{"name": "a"}], "outputs": [{"name": "a"}]}}),
            "field 'a' more than once",
        ),
        (spec(config_space=[{"parameter": "t"}]), "a binding without variable"),
        (
            spec(config_space=[{"parameter": f"p{n}", "variable": "v"} for n in range(1001)]),
            "config_space has 1001 entries; a program may have 1000",
        ),
        (
            spec(parameters={f"p{n}": any_of("type.googleapis.com/snakepit.integer", b"1") for n in range(1001)}),
            "parameters has 1001 entries; a program may have 1000",
        ),
        (spec(config_space=[{"variable": "t"}]), "a binding without parameter"),
        (spec(config_space=[{"parameter": "t", "variable": "a"}] * 2), "binds the parameter 't' more than once"),
        (
            spec(config_space=[{"parameter": "t", "variable": "a", "default": UNKNOWN}]),
            "config_space default of 't' cannot be decoded",
        ),
    ],
)
def test_a_specification_that_cannot_be_read_names_the_field(program, text):
    message = program_pb2.ExecuteProgramRequest(program_spec=program, trial_id="t9")
    with pytest.raises(InvalidSpec, match=text):
        decode_request(message)
    assert message.trial_id == "t9"


def test_a_class_may_come_from_a_variable_alone():
    message = program_pb2.ExecuteProgramRequest(
        program_spec={"config_space": [{"parameter": "python_class", "variable": "strategy"}]}
    )
    assert decode_request(message).program.python_class == ""


def test_an_input_that_cannot_be_decoded_is_named():
    message = program_pb2.ExecuteProgramRequest(program_spec=spec(), inputs={"question": UNKNOWN})
    with pytest.raises(InvalidInput, match="input 'question' cannot be decoded: the type"):
        decode_request(message)


def test_an_input_without_a_json_form_is_refused_where_it_is_sent():
    with pytest.raises(InvalidInput, match=r"callback\[0\]: function cannot be expressed as JSON"):
        encode_request(TrialRequest(MINIMAL, {"callback": [lambda: 1]}))


@given(st.binary(max_size=300))
def test_no_bytes_that_parse_raise_anything_but_a_trials_error(raw):
    try:
        message = program_pb2.ExecuteProgramRequest.FromString(raw)
    except Exception:  # noqa: BLE001 - the rpc layer's business
        return
    with contextlib.suppress(TrialError):
        decode_request(message)


# ---- the JSON form --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", [MINIMAL, Program("MyClass"), Program("A", lm=LanguageModel("m"), state={})])
def test_the_json_form_of_a_program_reads_back(program):
    assert program_from_json(program_to_json(program)) == program


def test_the_json_form_is_what_the_elixir_side_holds():
    program = program_from_json(
        {
            "name": "qa",
            "description": None,
            "python_class": "dspy.ChainOfThought",
            "signature": {
                "inputs": ["question", {"name": "context", "type": "list[str]"}],
                "outputs": {"answer": "float", "why": {"description": "reasons"}},
                "instructions": "Be brief.",
            },
            "config_space": {"temperature": "t", "top_p": {"variable": "p", "default": 1.0}},
            "dependencies": {"n": 3},
            "lm": {"model": "m", "params": {"seed": 1}},
            "parameters": {"max_tokens": 10},
            "state": {"predict": {}},
        }
    )
    assert program == Program(
        name="qa",
        python_class="dspy.ChainOfThought",
        signature=Signature(
            inputs=(Field("question"), Field("context", "list[str]")),
            outputs=(Field("answer", "float"), Field("why", "str", "reasons")),
            instructions="Be brief.",
        ),
        config_space=(Binding("temperature", "t"), Binding("top_p", "p", default=1.0)),
        dependencies={"n": 3},
        lm=LanguageModel("m", {"seed": 1}),
        parameters={"max_tokens": 10},
        state={"predict": {}},
    )


@pytest.mark.parametrize(
    ("json", "text"),
    [
        (
            {"python_clas": "A"},
            "program_spec has no key 'python_clas'; did you mean python_class\\? the keys are name,",
        ),
        ({"python_class": "A", "api_key": "x"}, "program_spec has no key 'api_key'; the keys are"),
        ({"python_class": 3}, "program_spec.python_class is 3; it takes text"),
        ({}, "python_class is empty"),
        ([], r"program_spec is \[\]; it takes an object with name, python_class"),
        (
            {"python_class": "A", "signature": 3},
            'signature is 3; it takes text such as "question -> answer", or an object',
        ),
        ({"python_class": "A", "signature": {"input": []}}, "signature has no key 'input'; did you mean inputs"),
        ({"python_class": "A", "signature": {"inputs": "q"}}, "signature.inputs is 'q'; it takes a list of fields"),
        ({"python_class": "A", "signature": {"inputs": [3]}}, r"signature.inputs\[0\] is 3; it takes an object"),
        ({"python_class": "A", "signature": {"inputs": {"q": 3}}}, "signature.inputs.q is 3"),
        ({"python_class": "A", "signature": {"inputs": [{"name": "q", "typ": "str"}]}}, "did you mean type"),
        ({"python_class": "A", "config_space": "t"}, "config_space is 't'; it takes a list of bindings"),
        ({"python_class": "A", "config_space": [{"parameter": "a"}]}, "a binding without variable"),
        ({"python_class": "A", "config_space": {"a": 3}}, "config_space.a is 3; it takes an object with parameter"),
        (
            {"python_class": "A", "config_space": {"a": {"variable": "b", "optional": 1}}},
            "optional is 1; it takes true or",
        ),
        ({"python_class": "A", "dependencies": []}, r"dependencies is \[\]; it takes an object"),
        ({"python_class": "A", "parameters": {1: 2}}, "parameters is {1: 2}; it takes an object"),
        ({"python_class": "A", "state": "x"}, "state is 'x'; it takes an object"),
        ({"python_class": "A", "lm": 3}, "lm is 3; it takes the model's name, or an object with model, params"),
        ({"python_class": "A", "lm": {"params": {}}}, "lm.model is empty"),
        ({"python_class": "A", "lm": {"model": "m", "api_base": "x"}}, "lm has no key 'api_base'"),
    ],
)
def test_json_that_is_no_program_is_refused_with_what_would_be_right(json, text):
    with pytest.raises(InvalidSpec, match=text):
        program_from_json(json)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=10,
)
keys = st.sampled_from(sorted(program_to_json(FULL))) | text


@given(st.dictionaries(keys, json_values, max_size=5) | json_values)
def test_no_json_raises_anything_else(json):
    with contextlib.suppress(InvalidSpec):
        program_from_json(json)
