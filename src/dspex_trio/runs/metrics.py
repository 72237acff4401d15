"""How good a prediction is: what was expected against what came."""

from __future__ import annotations

import copy
import hashlib
import importlib
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
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
    except KeyboardInterrupt:
        raise
    except (ImportError, AttributeError) as error:
        raise UnknownMetric(f"metric {name!r}: {error}") from None
    except BaseException as error:  # noqa: BLE001 - somebody's module, which may exit too; nothing runs yet
        raise UnknownMetric(f"metric {name!r}: importing {module} raised {_described(error)}") from None  # noqa: ASYNC104 - nothing is awaited here
    if not callable(metric):
        raise UnknownMetric(f"metric {name!r} is no function")
    return metric


def is_ours(metric: Metric) -> bool:
    """Whether it is one of `METRICS`, which always return."""
    return any(metric is each for each in METRICS.values())


def source_of(metric: Metric) -> Path | None:
    """The file that a metric of somebody's stands in, if it is known."""
    module = sys.modules.get(str(getattr(metric, "__module__", "")))
    file = getattr(module, "__file__", None)
    return Path(file) if file else None


def about(metric: Metric) -> dict[str, str]:
    """What results say of who scored them: `metric`, and `metric_digest`, which changes with the file it stands in."""
    for name, each in METRICS.items():
        if metric is each:
            return {"metric": name, "metric_digest": ""}
    name = getattr(metric, "__qualname__", type(metric).__qualname__)
    digest = ""
    if (file := source_of(metric)) is not None:
        try:
            digest = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
        except OSError:  # in an archive
            digest = ""
    return {"metric": f"{getattr(metric, '__module__', '')}:{name}", "metric_digest": digest}


def score(metric: Metric, expected: Mapping[str, Any], prediction: Mapping[str, Any]) -> dict[str, Any]:
    """`score`; or null, and `metric_error`, where the metric fails. To be called in a thread of its own.

    Nothing that a metric raises comes out of here, SystemExit neither: it is the metric's failure, not the run's.
    """
    try:
        found = float(metric(copy.deepcopy(dict(expected)), prediction))
    except BaseException as error:  # noqa: BLE001, ASYNC103 - as above; in a thread nothing is Cancelled
        return {"score": None, "metric_error": _described(error)}  # noqa: ASYNC104 - as above
    if not math.isfinite(found):
        return {"score": None, "metric_error": f"{found} is no score"}
    return {"score": found}


def _described(error: BaseException) -> str:
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001, ASYNC103 - any __str__, exiting ones too
        text = "its text cannot be had"
    return f"{type(error).__name__}: {text}"


def _stripped(value: Any) -> Any:
    return value.strip() if isinstance(value, str) else value


def _occurs(expected: Any, value: Any) -> bool:
    if isinstance(expected, str) and isinstance(value, str):
        return expected.strip().casefold() in value.casefold()
    return bool(expected == value)
