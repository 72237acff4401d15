"""What the demo's model does with tools: compute what is arithmetic, look up what is named, then finish."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from dspex_trio.demo.extract import ENOUGH, answers
from dspex_trio.demo.prompt import Task, Tool
from dspex_trio.demo.words import count_tokens, words

FINISH: Final = "finish"
SHORT: Final = 4
"""A tool that answers in so few tokens has answered the question itself."""
_OPERATORS: Final = (
    (r"\bmultiplied by\b|\btimes\b", "*"),
    (r"\bdivided by\b", "/"),
    (r"\bplus\b", "+"),
    (r"\bminus\b", "-"),
    (r"\bpercent of\b|% of\b", "/ 100 *"),
)
_NUMBER: Final = r"\d+(?:\.\d+)?"
_EXPRESSION: Final = re.compile(rf"\(*{_NUMBER}\)*(?:\s*[-+*/]\s*\(*{_NUMBER}\)*)+")
_COMPUTES: Final = ("calculate", "compute", "arithmetic", "expression")
_FINDS: Final = ("look", "search", "find", "encyclopedia", "article", "retrieve")


@dataclass(frozen=True, slots=True)
class Move:
    """An agent's next turn."""

    thought: str
    tool: str
    arguments: Mapping[str, Any]


def short_observation(task: Task) -> str:
    """What the last tool brought, if that is so short that it is the answer; else empty."""
    observed = [step.observation for step in task.steps if step.tool != FINISH]
    if observed and 0 < count_tokens(observed[-1]) <= SHORT:
        return observed[-1]
    return ""


def next_step(task: Task) -> Move:
    """Decide from the question and from what the tools brought until now."""
    if short_observation(task):
        return Move("The tool has answered the question.", FINISH, {})
    seen = answers(task.question, task.passages)
    if seen and seen[0].support >= ENOUGH:
        return Move(f"This says enough: {seen[0].sentence!r}", FINISH, {})
    tried = {(step.tool, step.arguments) for step in task.steps}
    for thought, tool, text in _ideas(task):
        arguments = _filled(tool, text)
        if arguments and (tool.name, json.dumps(arguments)) not in tried:
            return Move(thought, tool.name, arguments)
    return Move("I have nothing left to try.", FINISH, {})


def arithmetic_in(question: str) -> str:
    """The arithmetic expression of a question, words like `times` written as signs; empty without one."""
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", question)
    for pattern, sign in _OPERATORS:
        text = re.sub(pattern, sign, text, flags=re.IGNORECASE)
    found = _EXPRESSION.search(text)
    return " ".join(found[0].split()) if found else ""


def _ideas(task: Task) -> Iterator[tuple[str, Tool, str]]:
    expression = arithmetic_in(task.question)
    if expression:
        for tool in _tools_that(task, _COMPUTES):
            yield f"I have to work out {expression}.", tool, expression
    for topic in _topics(task.question):
        for tool in _tools_that(task, _FINDS):
            yield f"I need to know more about {topic}.", tool, topic


def _tools_that(task: Task, purposes: tuple[str, ...]) -> list[Tool]:
    """The tools whose name or description speaks of one of the purposes."""
    return [
        tool
        for tool in task.tools
        if tool.name != FINISH
        and any(re.search(rf"\b{purpose}", f"{tool.name} {tool.description}", re.IGNORECASE) for purpose in purposes)
    ]


def _topics(question: str) -> list[str]:
    """What the question is about: its names, longest first, then its other words, longest first."""
    spelled = words(question)
    names, run = [], []
    for word in [*spelled[1:], None]:
        if word is not None and word.text[0].isupper():
            run.append(word.text)
        elif run:
            names.append(" ".join(run))
            run = []
    rest = [word.text for word in spelled if word.carries and not any(word.text in name for name in names)]
    return sorted(names, key=len, reverse=True) + sorted(rest, key=len, reverse=True)


def _filled(tool: Tool, text: str) -> dict[str, Any]:
    """The tool's first text argument set to `text`; empty if it has none."""
    name = next((name for name, schema in tool.arguments.items() if _takes_text(schema)), None)
    return {name: text} if name is not None else {}


def _takes_text(schema: Any) -> bool:
    return isinstance(schema, Mapping) and schema.get("type", "string") == "string"
