"""The demo's language model: reads a DSPy prompt, finds the answer in it, and writes the reply that it asks for.

It is small and honest: everything it says is computed from the prompt. Temperature samples among the candidate answers,
`max_tokens` and `stop` cut the reply, and of instructions it understands capital letters, whole sentences, and
"think for N seconds".
"""

from __future__ import annotations

import ast
import json
import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from dspex_trio.demo.agent import next_step, short_observation
from dspex_trio.demo.extract import AnswerKind, Candidate, answers, holds, kind_of, number_in
from dspex_trio.demo.prompt import OutputField, Task
from dspex_trio.demo.words import count_tokens, cut_tokens, same, words

UNKNOWN: Final = "unknown"
SUPPORT: Final = 0.35
"""Below this share of the question's weight, a sentence does not count as an answer."""
CANDIDATES: Final = 5
"""How many of the best answers sampling chooses among."""
SHARPNESS: Final = 4.0
"""How much a better score counts when sampling at temperature 1."""
REASONING: Final = frozenset({"reasoning", "rationale", "thought", "next_thought"})


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a reply is drawn and cut.

    Attributes:
        temperature: 0 takes the best answer; more samples among the best, by their score.
        max_tokens: The most tokens of the reply; None for no limit.
        stop: Texts before which the reply ends.
        seed: Makes sampling repeatable together with the prompt.
    """

    temperature: float = 0.0
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int = 0

    def reseeded(self, seed: int) -> Sampling:
        """The same, drawn with another seed."""
        return replace(self, seed=seed)


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model says; `finish_reason` is `stop`, or `length` when `max_tokens` cut it."""

    text: str
    finish_reason: str
    completion_tokens: int


def thinking_seconds(task: Task) -> float:
    """How long the instructions ask to think: `Think for 30 seconds`; 0 when they do not."""
    found = re.search(r"\bthink for (\d+(?:\.\d+)?) seconds?\b", task.objective, re.IGNORECASE)
    return float(found[1]) if found else 0.0


def write_reply(task: Task, sampling: Sampling) -> Reply:
    """Answer the task in the form that it asks for."""
    answer = _choose(task, sampling)
    values = {wanted.name: _value(wanted, task, answer) for wanted in task.wanted}
    if {"next_tool_name", "next_tool_args"} <= values.keys():
        step = next_step(task)
        values |= {"next_thought": step.thought, "next_tool_name": step.tool, "next_tool_args": dict(step.arguments)}
    if task.as_json:
        text = json.dumps(values, ensure_ascii=False)
    else:
        sections = [f"[[ ## {name} ## ]]\n{_spelled(value)}" for name, value in values.items()]
        text = "\n\n".join([*sections, "[[ ## completed ## ]]"])
    return _cut(text, sampling)


def _choose(task: Task, sampling: Sampling) -> Candidate | None:
    """The answer to give: the best one, or one sampled among the best."""
    kind = kind_of(task.question)
    if kind is AnswerKind.THING and any(
        wanted.type in ("int", "float") for wanted in task.wanted if wanted.name != "confidence"
    ):
        kind = AnswerKind.COUNT
    observed = short_observation(task)
    if observed:
        return Candidate(observed, observed, kind, 1.0, 1.0)
    best = [each for each in answers(task.question, task.passages, kind) if each.support >= SUPPORT][:CANDIDATES]
    if not best:
        return None
    if sampling.temperature <= 0:
        return best[0]
    odds = [math.exp(SHARPNESS * (each.score - best[0].score) / sampling.temperature) for each in best]
    dice = random.Random(f"{sampling.seed} {task.question} {task.passages}")  # noqa: S311 - repeatable on purpose
    return dice.choices(best, odds)[0]


def _value(wanted: OutputField, task: Task, answer: Candidate | None) -> Any:  # noqa: PLR0911 - one line a type
    if wanted.name in REASONING:
        return _reasoning(answer)
    if wanted.name == "confidence":
        return round(min(answer.support, 1.0), 2) if answer else 0.0
    if wanted.type == "bool":
        return holds(task.question, task.passages)
    if wanted.type in ("int", "float"):
        number = number_in(answer.text) if answer else None
        if number is None:
            return UNKNOWN
        return int(number) if wanted.type == "int" else number
    if wanted.type.startswith("list"):
        return _enumerated(answer) if answer else []
    if wanted.type.startswith("Literal["):
        return _option(wanted.type, task)
    return _styled(task, answer) if answer else UNKNOWN


def _reasoning(answer: Candidate | None) -> str:
    if answer is None:
        return "No sentence of what I was given says enough about the question."
    return f"The question asks for {answer.kind.value}. What fits best is: {answer.sentence!r} It says {answer.text!r}."


def _styled(task: Task, answer: Candidate) -> str:
    asked = task.objective.lower()
    text = answer.sentence if re.search(r"\b(?:whole|full|complete) sentence\b", asked) else answer.text
    return text.upper() if "capital letters" in asked else text


def _enumerated(answer: Candidate) -> list[str]:
    """The members of the enumeration that the answer belongs to: `Peru, Colombia and Brazil`."""
    item = r"(?:[A-Z][\w'-]*(?: [A-Z][\w'-]*)*|[a-z][\w'-]*)"
    for found in re.finditer(rf"{item}(?:, {item})*(?:,? (?:and|or) {item})", answer.sentence):
        if answer.text in found[0]:
            return re.split(r",? (?:and|or) |, ", found[0])
    return [answer.text]


def _option(literal: str, task: Task) -> Any:
    """The option that shares most words with what was given; the first one when none does."""
    options = ast.literal_eval(literal.removeprefix("Literal"))
    given = [word for text in task.given.values() for word in words(text) if word.carries]
    return max(options, key=lambda option: sum(same(a.stem, b.stem) for a in words(str(option)) for b in given))


def _spelled(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _cut(text: str, sampling: Sampling) -> Reply:
    starts = [start for start in (text.find(stop) for stop in sampling.stop if stop) if start >= 0]
    text = text[: min(starts, default=len(text))]
    if sampling.max_tokens is None or count_tokens(text) <= sampling.max_tokens:
        return Reply(text, "stop", count_tokens(text))
    return Reply(cut_tokens(text, sampling.max_tokens), "length", sampling.max_tokens)


def prompt_tokens(messages: Sequence[dict[str, Any]]) -> int:
    """How many tokens the messages are for this model."""
    return sum(count_tokens(json.dumps(message.get("content") or "", ensure_ascii=False)) for message in messages)
