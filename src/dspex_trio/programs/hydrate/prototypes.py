"""Constructed programs kept for copying, by the content of their specification."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from dspex_trio.model import Program, ToolSpec
from dspex_trio.wire import json_text

Built = TypeVar("Built")


class Prototypes(Generic[Built]):
    """A bounded map; the longest unused goes first. May be used from any thread.

    Args:
        limit: How many are kept.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Built] = OrderedDict()

    @staticmethod
    def key(program: Program, elixir_tools: Sequence[ToolSpec] = ()) -> str | None:
        """What an instance depends on: all but parameters, bindings and the language model, which copies get.

        None where the content is more than JSON can tell apart, such as an object of an embedding program: then the
        same text need not mean the same thing.
        """
        if not (_is_json(program.dependencies) and _is_json(program.state)):
            return None
        about = [program.python_class, repr(program.signature), program.dependencies, program.state]
        return json_text([*about, repr(elixir_tools)] if elixir_tools else about)

    def get(self, key: str | None) -> Built | None:
        """What is kept under that key."""
        if key is None:
            return None
        with self._lock:
            if (found := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
            return found

    def keep(self, key: str, built: Built) -> None:
        """Keep it, in place of what was kept longest without being used."""
        with self._lock:
            self._kept[key] = built
            while len(self._kept) > self._limit:
                self._kept.popitem(last=False)


def _is_json(value: Any) -> bool:
    kind = type(value)
    if kind is dict:
        return all(type(key) is str and _is_json(item) for key, item in value.items())
    if kind is list:
        return all(map(_is_json, value))
    return value is None or kind in {str, int, float, bool}
