"""DSPy's list of models and prices, looked up once for each model.

DSPy looks at every LM call. For a model that it does not list, such as a local or a fine-tuned one, it walks the whole
list, twice: a third of the CPU of a small call over HTTP. What it finds depends on the list and the name alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from dspex_trio.programs.dspy.private import model_metadata

_MOST: Final = 256


class ModelInfo:
    """Stands in for DSPy's `model_info`; may be called from any thread.

    Args:
        look_up: DSPy's own.
    """

    def __init__(self, look_up: Callable[..., dict[str, Any]]) -> None:
        self._look_up = look_up
        self._list: object = None
        self._found: dict[tuple[Any, ...], dict[str, Any]] = {}

    def __call__(self, provider: Any, model: Any, *, namespaces: Iterable[str] | None = None) -> dict[str, Any]:
        """What the list says of a model; a copy, but for lists inside, which DSPy only reads."""
        names = None if namespaces is None else tuple(namespaces)
        key = (provider, model, names)
        kept = self._found
        if self._list is not model_metadata._data or len(kept) >= _MOST:  # noqa: SLF001 - None until it is loaded
            kept = self._found = {}
        if (found := kept.get(key)) is None:
            found = self._look_up(provider, model, namespaces=names)
            self._list = model_metadata._data  # noqa: SLF001 - as above
            kept[key] = found
        return dict(found)
