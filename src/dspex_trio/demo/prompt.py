"""Reads a chat prompt as DSPy's ChatAdapter and JSONAdapter write it: what is given, what is asked for, which tools."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_HEADER = re.compile(r"^\[\[ ## (\w+) ## \]\]", re.MULTILINE)
_FIELD = re.compile(r"^\d+\. `(\w+)` \((.+?)\):", re.MULTILINE)
_TOOL = re.compile(
    r"^\s*\(\d+\) (\w+)(?:, whose description is <desc>(.*?)</desc>)?\. It takes arguments (\{.*\})\.$", re.MULTILINE
)
_REMINDER = re.compile(r"^Respond with (?:the corresponding output fields|a JSON object)", re.MULTILINE)
_STEP = re.compile(r"^(thought|tool_name|tool_args|observation)_(\d+)$")


class NotUnderstood(ValueError):
    """The messages are no prompt of a DSPy adapter that this model knows."""


@dataclass(frozen=True, slots=True)
class OutputField:
    """An output field and its type, as the prompt writes it (`str`, `int`, `Literal['a', 'b']`)."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that the prompt offers; `arguments` maps each name to its JSON schema."""

    name: str
    description: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Step:
    """One turn of an agent: the tool it called, with what, and what came back."""

    tool: str
    arguments: str
    observation: str


@dataclass(frozen=True, slots=True)
class Task:
    """What a prompt asks for.

    Attributes:
        given: Input field → its text, in order.
        wanted: Output fields, in order.
        objective: The signature's instructions.
        tools: The tools on offer, for an agent's turn.
        as_json: Whether the reply is to be a JSON object instead of sections.
        steps: What an agent did so far.
    """

    given: Mapping[str, str]
    wanted: tuple[OutputField, ...]
    objective: str
    tools: tuple[Tool, ...] = ()
    as_json: bool = False
    steps: tuple[Step, ...] = ()

    @property
    def question(self) -> str:
        """The text that asks: the field `question` or `query`, else the last that ends in `?`, else the last."""
        for name in ("question", "query"):
            if name in self.given:
                return self.given[name]
        plain = [text for name, text in self.given.items() if name != "trajectory"]
        return next((text for text in reversed(plain) if text.rstrip().endswith("?")), plain[-1] if plain else "")

    @property
    def passages(self) -> str:
        """Everything that may hold the answer: the other inputs, and what the tools brought."""
        question = self.question
        texts = [text for name, text in self.given.items() if name != "trajectory" and text != question]
        texts += [step.observation for step in self.steps if step.tool != "finish"]
        return "\n\n".join(texts)


def read_prompt(messages: Sequence[Mapping[str, Any]]) -> Task:
    """Read the system message's declarations and the last user message's values.

    Raises NotUnderstood when either is not there.
    """
    system = "\n\n".join(_text(message) for message in messages if message.get("role") in ("system", "developer"))
    user = next((_text(message) for message in reversed(messages) if message.get("role") == "user"), "")
    head, marker, tail = system.partition("Your output fields are:")
    if not marker:
        raise NotUnderstood("the system message does not declare fields as DSPy's ChatAdapter or JSONAdapter does")
    declared, _, rest = tail.partition("All interactions will be structured")
    wanted = tuple(OutputField(name, kind) for name, kind in _FIELD.findall(declared))
    if not wanted:
        raise NotUnderstood("the system message declares no output fields")
    _, _, objective = rest.rpartition("your objective is:")
    given = _sections(user, [name for name, _ in _FIELD.findall(head)])
    return Task(
        given=given,
        wanted=wanted,
        objective="\n".join(line.strip() for line in objective.strip().splitlines()),
        tools=tuple(_tools(objective)),
        as_json="Outputs will be a JSON object" in rest,
        steps=tuple(_steps(given.get("trajectory", ""))),
    )


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "\n".join(part.get("text", "") for part in content if isinstance(part, Mapping))


def _sections(text: str, names: Sequence[str]) -> dict[str, str]:
    """Field → its text, up to the reminder at the end."""
    reminders = [*_REMINDER.finditer(text)]
    return _split(text[: reminders[-1].start()] if reminders else text, names.__contains__)


def _split(text: str, is_name: Callable[[str], object]) -> dict[str, str]:
    """Header → what follows it. A header that is no name belongs to the text it stands in, as in a trajectory."""
    headers = [found for found in _HEADER.finditer(text) if is_name(found[1])]
    ends = [*(found.start() for found in headers[1:]), len(text)]
    return {found[1]: text[found.end() : end].strip() for found, end in zip(headers, ends, strict=False)}


def _tools(objective: str) -> list[Tool]:
    tools = []
    for name, description, arguments in _TOOL.findall(objective):
        try:
            schema = ast.literal_eval(arguments)  # DSPy writes a Python literal
        except (ValueError, SyntaxError):
            schema = {}
        tools.append(Tool(name, description, schema if isinstance(schema, dict) else {}))
    return tools


def _steps(trajectory: str) -> list[Step]:
    parts = _split(trajectory, _STEP.match)
    count = sum(name.startswith("tool_name_") for name in parts)
    return [
        Step(*(parts.get(f"{part}_{index}", "") for part in ("tool_name", "tool_args", "observation")))
        for index in range(count)
    ]
