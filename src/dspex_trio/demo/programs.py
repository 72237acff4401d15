"""What a user would write: two tools and two modules of their own, loaded by `--load dspex_trio.demo.programs`."""

from __future__ import annotations

import ast
import json
import operator
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import dspy

import dspex_trio as dspex
from dspex_trio.demo.words import Word, same, sentences, words

_OPERATIONS: dict[type[ast.AST], Callable[..., float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
}


@dspex.tool
def lookup(topic: str) -> str:
    """Look up the article about a topic in a small encyclopedia."""
    asked = _meaningful(topic)
    articles = [(_in_common(asked, title), _in_common(asked, text), text) for title, text in _encyclopedia().items()]
    in_title, in_text, article = max(articles)
    return article if in_title or in_text else "Nothing found."


@dspex.tool
def calculator(expression: str) -> str:
    """Calculate an arithmetic expression, such as 17 * (3 + 4)."""
    result = _evaluated(ast.parse(expression, mode="eval").body)
    return str(int(result)) if float(result).is_integer() else str(result)


class UnsupportedAnswer(LookupError):
    """The model's answer does not stand in the context."""


@dspex.register("CitedAnswer")
class CitedAnswer(dspy.Module):  # type: ignore[misc] # mypy does not look into dspy
    """Answers from the context and quotes the sentence that says so.

    Attributes:
        strict: Whether an answer that the context does not hold is an error; otherwise its quote is empty.
    """

    def __init__(self) -> None:
        super().__init__()
        self.strict = False
        self.answer = dspy.ChainOfThought("context, question -> answer")

    def forward(self, context: str, question: str) -> dspy.Prediction:
        """Answer `question` from `context`; raises UnsupportedAnswer when strict."""
        found = self.answer(context=context, question=question)
        quote = next((each for each in sentences(context) if found.answer.lower() in each.lower()), "")
        if not quote and self.strict:
            raise UnsupportedAnswer(f"the context does not say {found.answer!r}")
        return dspy.Prediction(answer=found.answer, quote=quote)


@dspex.register("Deliberation")
class Deliberation(dspy.Module):  # type: ignore[misc] # mypy does not look into dspy
    """Asks for several drafts and answers what most of them say.

    Attributes:
        drafts: How many.
    """

    def __init__(self) -> None:
        super().__init__()
        self.drafts = 3
        self.draft = dspy.Predict("context, question, draft_number: int -> answer")

    def forward(self, context: str, question: str) -> dspy.Prediction:
        """Answer `question` from `context`."""
        drafts = [self.draft(context=context, question=question, draft_number=n).answer for n in range(self.drafts)]
        (answer, votes), *_ = Counter(drafts).most_common(1)
        return dspy.Prediction(answer=answer, votes=votes)


@cache
def _encyclopedia() -> dict[str, str]:
    articles: dict[str, str] = json.loads(Path(__file__).with_name("encyclopedia.json").read_text(encoding="utf-8"))
    return articles


def _meaningful(text: str) -> list[Word]:
    return [word for word in words(text) if word.carries]


def _in_common(asked: list[Word], text: str) -> int:
    return sum(any(same(word.stem, other.stem) for other in _meaningful(text)) for word in asked)


def _evaluated(node: Any) -> float:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return number
        case ast.UnaryOp(op=sign, operand=operand) if type(sign) in _OPERATIONS:
            return _OPERATIONS[type(sign)](_evaluated(operand))
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _OPERATIONS:
            return _OPERATIONS[type(sign)](_evaluated(left), _evaluated(right))
    raise ValueError("only numbers, + - * / and brackets can be calculated")
