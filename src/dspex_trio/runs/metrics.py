"""How good a prediction is: what was expected against what came."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

Metric: TypeAlias = Callable[[Mapping[str, Any], Mapping[str, Any]], float]
"""`metric(expected, prediction)` → a score, by custom from 0 to 1; True and False count as 1 and 0."""


class UnknownMetric(ValueError):
    """There is no such metric; says which there are."""


def exact_match(expected: Mapping[str, Any], prediction: Mapping[str, Any]) -> float:
    """1 where every expected field has its value; texts may differ in surrounding space."""
    return float(
        all(name in prediction and _stripped(prediction[name]) == _stripped(value) for name, value in expected.items())
    )


def contains(expected: Mapping[str, Any], prediction: Mapping[str, Any]) -> float:
    """1 where every expected text occurs in its field, in any case; what is no text has to be equal."""
    return float(all(name in prediction and _occurs(value, prediction[name]) for name, value in expected.items()))


METRICS: Final[Mapping[str, Metric]] = {"exact_match": exact_match, "contains": contains}


def metric_named(name: str) -> Metric:
    """A metric of ours by its name, or a function of yours as `module:function`.

    Raises:
        UnknownMetric: There is none.
    """
    if (found := METRICS.get(name)) is not None:
        return found
    module, colon, function = name.partition(":")
    if not colon:
        raise UnknownMetric(f"there is no metric {name!r}; there are {', '.join(METRICS)}, and module:function")
    try:
        metric: Metric = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UnknownMetric(f"metric {name!r}: {error}") from None
    return metric


def _stripped(value: Any) -> Any:
    return value.strip() if isinstance(value, str) else value


def _occurs(expected: Any, value: Any) -> bool:
    if isinstance(expected, str) and isinstance(value, str):
        return expected.strip().casefold() in value.casefold()
    return bool(expected == value)
