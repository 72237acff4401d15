"""Progress events of a watched program: its LM calls, its tools' calls, its output."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import WrapperDescriptorType
from typing import Any, Final

import dspy

from dspex_trio.model import LmCall, LmFinished, LmStarted, ToolFinished, ToolStarted, Watch
from dspex_trio.model.values import type_name
from dspex_trio.programs.record import lm_errors
from dspex_trio.programs.record.entries import plain_fields
from dspex_trio.programs.record.streaming import OutputStream, streamed_to

_PLAIN: Final = frozenset({str, int, float, bool, bytes, type(None)})
_SAMPLING: Final = (
    *("temperature", "top_p", "top_k", "max_tokens", "max_completion_tokens", "n", "seed"),
    *("frequency_penalty", "presence_penalty"),
)
NOT_STREAMED: Final = "dspex_trio.NotStreamed"
"""The `error_type` of an LM call that was made again without streaming, since the provider does not stream it."""
# The most characters of a provider's error message that an event carries.
_MOST_SAID: Final = 4_096


class ProgramWatch:
    """Sends events of one program to a watch, from any thread of the program.

    Args:
        watch: Receives the events.
        redact: Takes secrets out of the events.
        stream_output: Whether output is sent while it arrives.
    """

    def __init__(self, watch: Watch, redact: Callable[[str], str], *, stream_output: bool) -> None:
        self._watch = watch
        self._redact = redact
        self._stream_output = stream_output
        self._calls = itertools.count(1)

    @contextmanager
    def lm(
        self,
        module: Any,
        name: str,
        lm: dspy.BaseLM,
        question: Mapping[str, Any],
        *,
        answer: Callable[..., LmCall],
        lost: Callable[[], object],
        said: Callable[[], str],
    ) -> Iterator[None]:
        """An LM is called, and its output streamed where that is wanted and can be.

        Args:
            module: Who asks; None for the program's own code.
            name: Its dotted name inside the program.
            lm: Who is asked.
            question: The keywords of the call.
            answer: Gives the call as it is recorded, once it has ended; `free` if it is known to cost nothing.
            lost: Called when a reply that may be billed was given up.
            said: Gives what the last attempt of the call that failed has said.
        """
        number = 0

        def started() -> None:
            nonlocal number
            number = next(self._calls)
            self._watch(LmStarted(number, name, lm.model, _sampling({**lm.kwargs, **question})))

        def asked_again(error: Exception) -> None:
            """The provider does not stream: report that as a failed call of its own."""
            free = lm_errors.is_free(error)
            if not free:
                lost()
            text = f"asked again without streaming, after {self._redact(lm_errors.said(error))[:_MOST_SAID]}"
            self._watch(LmFinished(number, answer(free=free), NOT_STREAMED, text))
            started()

        started()
        failed: dict[str, Any] = {}
        try:
            if not self._stream_output:
                yield
                return
            with streamed_to(partial(OutputStream, module, name, self._watch, self._redact, asked_again)):
                yield
        except BaseException as error:
            failed = {"error_type": self._redact(type_name(type(error)))}
            if isinstance(error, dspy.LMError):
                failed |= self._said_by(error)
            elif not isinstance(error, Exception):  # the trial's end
                failed["error_message"] = self._redact(said())[:_MOST_SAID]
            raise
        finally:
            self._watch(LmFinished(number, answer(), **failed))

    def _said_by(self, error: dspy.LMError) -> dict[str, Any]:
        """What an error of DSPy's own says; the text of any other is code of the program's."""
        return {
            "error_message": self._redact(error.message)[:_MOST_SAID],
            "status": error.status or 0,
            "retry_after": error.retry_after,
        }

    @contextmanager
    def tool(self, tool: str, arguments: Mapping[str, Any]) -> Iterator[Callable[[Any], Any]]:
        """A tool is called; what is yielded is to be given its result, and returns it."""
        number, began = next(self._calls), time.monotonic()
        self._watch(ToolStarted(number, tool, plain_fields(arguments, self._redact)))
        told: dict[str, Any] = {}
        error_type = error_message = ""

        def answered(result: Any) -> Any:
            told.update(plain_fields({"result": result}, self._redact))
            return result

        try:
            yield answered
        except BaseException as error:
            error_type = self._redact(type_name(type(error)))
            error_message = self._redact(_text(error))[:_MOST_SAID]
            raise
        finally:
            took = (time.monotonic() - began) * 1e3
            self._watch(ToolFinished(number, told.get("result"), error_type, took, error_message))


def _sampling(arguments: Mapping[str, Any]) -> dict[str, float]:
    return {name: arguments[name] for name in _SAMPLING if type(arguments.get(name)) in (int, float)}


def _text(error: BaseException) -> str:
    """What an exception says, if none of its class's or its arguments' own code is needed to know it."""
    builtin = isinstance(type(error).__str__, WrapperDescriptorType)
    return str(error) if builtin and all(type(each) in _PLAIN for each in error.args) else ""
