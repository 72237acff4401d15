"""A script gives each call its reply, in whatever thread, and knows afterwards which calls there were."""

import threading

import pytest

from dspex_trio.model import Usage
from dspex_trio.testing import Answer, Drip, Hang, NoReply, Refusal, Script, Token
from dspex_trio.testing.scripted.replies import tokens_of, usage_of

CHAT = "The output has [[ ## answer ## ]] and [[ ## score ## ]]."


def ask(script, prompt="?", predictor=""):
    _, reply = script.ask([{"role": "user", "content": prompt}], model="m", predictor=predictor)
    return reply.text


def test_replies_come_one_after_another_and_then_there_are_none():
    script = Script("one", {"answer": "two"}, Answer("three"))
    assert ask(script) == "one"
    assert script.unused == 2
    assert script.ask([], model="m")[1].fields == {"answer": "two"}
    assert ask(script) == "three"
    with pytest.raises(NoReply, match=r"no reply for call 4 of model 'm': .* used up"):
        ask(script, "the last question")
    with pytest.raises(AssertionError, match=r"call 4 of model 'm', at .*the last question"):
        script.check()


def test_a_call_is_answered_by_its_number_then_its_prompt_then_its_predictor_then_the_sequence():
    script = Script(
        "sequence",
        calls={1: "first"},
        prompts={"weather": ["rain", "sun"]},
        predictors={"judge": "yes", "write": ["once"]},
        default="whatever",
    )
    assert ask(script, "the weather?", "judge") == "first"
    assert ask(script, "the weather?", "judge") == "rain"
    assert [ask(script, "?", "judge"), ask(script, "?", "judge")] == ["yes", "yes"], "a single one is for all calls"
    assert [ask(script, "?", "write"), ask(script, "?", "write")] == ["once", "whatever"]
    assert [ask(script, "?", "other"), ask(script, "?", "other")] == ["sequence", "whatever"]
    assert ask(script, "weather") == "sun"
    script.check()


def test_what_is_used_up_says_which_key_it_was():
    script = Script("for others", predictors={"write": ["once"]}, prompts={"weather": []})
    ask(script, predictor="write")
    with pytest.raises(NoReply, match=r"\(predictor 'write'\): those of predictor 'write' are used up"):
        ask(script, predictor="write")
    with pytest.raises(NoReply, match="those for prompts with 'weather' are used up"):
        ask(script, "weather?")


def test_replies_are_added_where_they_are_wanted():
    script = Script()
    script.add("a", "b")
    script.add("c", predictor="write")
    script.add("d", prompt="weather")
    assert [ask(script), ask(script, predictor="write"), ask(script, "weather"), ask(script)] == ["a", "c", "d", "b"]
    assert script.unused == 0


def test_it_remembers_what_was_asked():
    script = Script("a")
    messages = [{"role": "system", "content": "be kind"}, {"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    asked, reply = script.ask(messages, model="m", predictor="p", arguments={"temperature": 0.3}, as_json=True)
    assert script.asked == (asked,)
    assert (asked.number, asked.model, asked.predictor, asked.arguments) == (1, "m", "p", {"temperature": 0.3})
    assert asked.prompt == "be kind\nhi"
    assert asked.reply is reply


def test_every_thread_gets_a_reply_of_its_own():
    script = Script(*map(str, range(400)))
    got = []

    def work():
        got.extend(ask(script) for _ in range(100))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(int, got)) == list(range(400))
    assert [asked.number for asked in script.asked] == list(range(1, 401))


@pytest.mark.parametrize(
    ("prompt", "as_json", "text"),
    [
        (CHAT, False, '[[ ## answer ## ]]\nyes\n\n[[ ## score ## ]]\n{"of": 3}\n\n[[ ## completed ## ]]'),
        (CHAT, True, '{"answer": "yes", "score": {"of": 3}}'),
        ("Inputs have [[ ## question ## ]]; answer in JSON", False, '{"answer": "yes", "score": {"of": 3}}'),
        ("wrapped in `<answer>`", False, '<answer>\nyes\n</answer>\n\n<score>\n{"of": 3}\n</score>'),
    ],
)
def test_fields_are_written_as_the_prompt_asks(prompt, as_json, text):
    tokens = tokens_of(Answer(fields={"answer": "yes", "score": {"of": 3}}), prompt, as_json=as_json)
    assert "".join(token.text for token in tokens) == text


def test_a_text_is_streamed_word_by_word_and_tokens_as_they_are():
    assert tokens_of(Answer("so it\nis ", pause=2), "") == [Token("so ", 2), Token("it\n", 2), Token("is ", 2)]
    assert tokens_of(Answer(tokens=["a", Token("b", 3)]), "") == [Token("a"), Token("b", 3)]


def test_usage_is_counted_unless_it_is_given():
    assert usage_of(Answer(), "one two", "three") == Usage(2, 1, 3)
    assert usage_of(Answer(usage=Usage(9)), "one two", "three") == Usage(9)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Answer("a", fields={"answer": "b"}), "a text, or fields, or tokens"),
        (lambda: Answer("a", delay=float("inf")), "a Hang never answers"),
        (lambda: Token("a", -1), "delay is in seconds"),
        (lambda: Refusal(200), "from 400 to 599"),
        (lambda: Refusal(429, retry_after=-1), "retry_after"),
        (lambda: Drip(every=0), "takes its time"),
    ],
)
def test_what_makes_no_sense_is_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_what_is_no_reply_is_refused():
    with pytest.raises(TypeError, match="got int"):
        Script(3)


def test_a_hang_is_a_reply():
    assert Script(Hang()).ask([], model="m")[1] == Hang()
