"""Prompts are made by DSPy's own adapters, so that a change of its format shows here."""

import json

import dspy
import pytest

from dspex_trio.demo.agent import arithmetic_in, next_step
from dspex_trio.demo.prompt import NotUnderstood, read_prompt
from dspex_trio.demo.reader import Sampling, thinking_seconds, write_reply

CONTEXT = "The violin has four strings.\n\nThe cello was first described by Silvestro Ganassi in 1542."
GREEDY = Sampling()


def prompt(signature, adapter=None, demos=(), **inputs):
    signature = dspy.Signature(signature) if isinstance(signature, str) else signature
    return (adapter or dspy.ChatAdapter()).format(signature, list(demos), inputs)


def look_up(topic: str, most: int = 3) -> str:
    """Search the library for a topic."""
    return topic


def calculate(expression: str) -> str:
    """Compute an expression."""
    return expression


def agent_task(question, trajectory, tools=(look_up, calculate)):
    react = dspy.ReAct("question -> answer", tools=list(tools))
    given = {"question": question, "trajectory": react._format_trajectory(trajectory)}
    return read_prompt(dspy.ChatAdapter().format(react.react.signature, [], given))


@pytest.mark.parametrize("adapter", [dspy.ChatAdapter(), dspy.JSONAdapter()])
def test_what_is_given_and_wanted_is_read_from_both_adapters(adapter):
    messages = prompt("context, question -> reasoning, answer: int", adapter, context=CONTEXT, question="How many?")
    task = read_prompt(messages)
    assert dict(task.given) == {"context": CONTEXT, "question": "How many?"}
    assert [(wanted.name, wanted.type) for wanted in task.wanted] == [("reasoning", "str"), ("answer", "int")]
    assert task.as_json == isinstance(adapter, dspy.JSONAdapter)


@pytest.mark.parametrize("adapter", [dspy.ChatAdapter(), dspy.JSONAdapter()])
def test_the_adapter_that_wrote_the_prompt_can_read_the_reply(adapter):
    signature = dspy.Signature("context, question -> reasoning, answer, count: int, sure: bool, names: list[str]")
    question = "How many strings does the violin have?"
    task = read_prompt(adapter.format(signature, [], {"context": CONTEXT, "question": question}))
    fields = adapter.parse(signature, write_reply(task, GREEDY).text)
    assert (fields["answer"], fields["count"], fields["sure"]) == ("four", 4, True)
    assert "The violin has four strings." in fields["reasoning"]


def test_demos_do_not_count_as_the_question():
    demos = [{"context": "It is 1999.", "question": "Which year?", "answer": "1999"}]
    messages = prompt("context, question -> answer", demos=demos, context=CONTEXT, question="Who described the cello?")
    assert "Silvestro Ganassi" in write_reply(read_prompt(messages), GREEDY).text


def test_what_no_adapter_wrote_is_refused():
    with pytest.raises(NotUnderstood):
        read_prompt([{"role": "user", "content": "hello"}])


def test_max_tokens_cuts_the_reply_and_says_so():
    task = read_prompt(prompt("context, question -> answer", context=CONTEXT, question="Who described the cello?"))
    cut = write_reply(task, Sampling(max_tokens=4))
    whole = write_reply(task, GREEDY)
    assert (cut.finish_reason, cut.completion_tokens, whole.finish_reason) == ("length", 4, "stop")
    assert whole.text.startswith(cut.text)


def test_stop_ends_the_reply_before_it():
    task = read_prompt(prompt("context, question -> answer", context=CONTEXT, question="Who described the cello?"))
    assert write_reply(task, Sampling(stop=("[[ ## completed",))).text.rstrip().endswith("Silvestro Ganassi")


def test_temperature_samples_repeatably_and_zero_does_not():
    text = "The path leads from Alba to Bern, from Bern to Como and from Como to Davos."
    task = read_prompt(prompt("context, question -> answer", context=text, question="Where does the path lead?"))
    cold = {write_reply(task, Sampling(seed=seed)).text for seed in range(30)}
    hot = [write_reply(task, Sampling(temperature=2.0, seed=seed)).text for seed in range(30)]
    again = [write_reply(task, Sampling(temperature=2.0, seed=seed)).text for seed in range(30)]
    assert len(cold) == 1
    assert len(set(hot)) > 1
    assert hot == again


@pytest.mark.parametrize(
    ("instructions", "answer"),
    [
        ("Answer in capital letters.", "SILVESTRO GANASSI"),
        ("Answer with a whole sentence.", "The cello was first described by Silvestro Ganassi in 1542."),
    ],
)
def test_instructions_change_the_answer(instructions, answer):
    signature = dspy.Signature("context, question -> answer", instructions)
    task = read_prompt(prompt(signature, context=CONTEXT, question="Who described the cello?"))
    assert dspy.ChatAdapter().parse(signature, write_reply(task, GREEDY).text) == {"answer": answer}


def test_instructions_can_ask_for_time_to_think():
    signature = dspy.Signature("question -> answer", "Think for 2.5 seconds before you answer.")
    assert thinking_seconds(read_prompt(prompt(signature, question="Why?"))) == 2.5
    assert thinking_seconds(read_prompt(prompt("question -> answer", question="Think for 9 seconds?"))) == 0.0


def test_an_option_is_chosen_by_what_was_given():
    signature = dspy.Signature("text -> mood: Literal['angry', 'happy']")
    task = read_prompt(prompt(signature, text="I was so happy about it."))
    assert dspy.ChatAdapter().parse(signature, write_reply(task, GREEDY).text) == {"mood": "happy"}


def test_an_enumeration_is_given_as_a_list():
    signature = dspy.Signature("context, question -> countries: list[str]")
    text = "The Rhine flows through Switzerland, Germany and the Netherlands. The Po flows through Italy alone."
    task = read_prompt(prompt(signature, context=text, question="Through which countries does the Po flow?"))
    assert dspy.ChatAdapter().parse(signature, write_reply(task, GREEDY).text) == {"countries": ["Italy"]}


@pytest.mark.parametrize(
    ("question", "expression"),
    [
        ("What is 17 times 24?", "17 * 24"),
        ("How much is 1,200 divided by 8 plus 5?", "1200 / 8 + 5"),
        ("What is (3 + 4) * 2?", "(3 + 4) * 2"),
        ("Who won in 1998?", ""),
    ],
)
def test_arithmetic_is_found_in_questions(question, expression):
    assert arithmetic_in(question) == expression


def test_the_agent_computes_what_is_arithmetic_and_looks_up_what_is_named():
    assert next_step(agent_task("What is 6 times 7?", {})).arguments == {"expression": "6 * 7"}
    move = next_step(agent_task("Who founded the town of New Haven?", {}))
    assert (move.tool, move.arguments) == ("look_up", {"topic": "New Haven"})


def test_the_agent_finishes_once_a_tool_has_said_enough():
    trajectory = {
        "thought_0": "…",
        "tool_name_0": "look_up",
        "tool_args_0": {"topic": "New Haven"},
        "observation_0": "New Haven is a town that was founded by John Davenport.",
    }
    task = agent_task("Who founded New Haven?", trajectory)
    assert next_step(task).tool == "finish"
    assert json.loads(write_reply(task, GREEDY).text.split("[[ ## next_tool_args ## ]]")[1].split("[[")[0]) == {}


def test_the_agent_does_not_try_the_same_thing_twice_and_gives_up_in_the_end():
    trajectory, tried = {}, []
    for turn in range(20):
        move = next_step(agent_task("Who founded New Haven?", trajectory))
        if move.tool == "finish":
            break
        tried.append(json.dumps(move.arguments))
        trajectory |= {
            f"thought_{turn}": move.thought,
            f"tool_name_{turn}": move.tool,
            f"tool_args_{turn}": dict(move.arguments),
            f"observation_{turn}": "There is nothing to be found under that.",
        }
    assert move.tool == "finish"
    assert len(tried) == len(set(tried)) > 1
