"""What a watched program does, told as it happens: its LM calls, its tools' calls, its output."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from dspex_trio.model import LmCall, LmFinished, LmStarted, ToolFinished, ToolStarted, Watch
from dspex_trio.programs.entries import plain_fields
from dspex_trio.programs.streaming import OutputStream, streamed_to
from dspex_trio.values import type_name


class Told:
    """Tells a watch of one program, in whatever thread of it.

    Args:
        watch: Who is told.
        redact: Takes secrets out of what is told.
        stream_output: Whether output is told while it comes.
    """

    def __init__(self, watch: Watch, redact: Callable[[str], str], *, stream_output: bool) -> None:
        self._watch = watch
        self._redact = redact
        self._stream_output = stream_output
        self._calls = itertools.count(1)

    @contextmanager
    def lm(self, module: Any, name: str, model: str, answer: Callable[[], LmCall]) -> Iterator[None]:
        """An LM is called, and its output streamed where that is wanted and can be.

        Args:
            module: Who asks; None for the program's own code.
            name: Its dotted name inside the program.
            model: What is asked.
            answer: Gives the call as it is recorded, once it has ended.
        """
        number = next(self._calls)
        self._watch(LmStarted(number, name, model))
        error_type = ""
        try:
            if not self._stream_output:
                yield
                return
            with streamed_to(partial(OutputStream, module, name, self._watch, self._redact)):
                yield
        except BaseException as error:
            error_type = type_name(type(error))
            raise
        finally:
            self._watch(LmFinished(number, answer(), error_type))

    @contextmanager
    def tool(self, tool: str, arguments: Mapping[str, Any]) -> Iterator[Callable[[Any], Any]]:
        """A tool is called; what is yielded is to be given its result, and returns it."""
        number, began = next(self._calls), time.monotonic()
        self._watch(ToolStarted(number, tool, plain_fields(arguments, self._redact)))
        told: dict[str, Any] = {}
        error_type = ""

        def answered(result: Any) -> Any:
            told.update(plain_fields({"result": result}, self._redact))
            return result

        try:
            yield answered
        except BaseException as error:
            error_type = type_name(type(error))
            raise
        finally:
            self._watch(ToolFinished(number, told.get("result"), error_type, (time.monotonic() - began) * 1e3))
