"""Many trials from a file: planned, run by workers, their results kept so that an interrupted run goes on."""

from dspex_trio.runs.execution import RunProgress, WorkerRefused, run_trials
from dspex_trio.runs.kept import Kept, compare, of_plan
from dspex_trio.runs.metrics import METRICS, Metric, UnknownMetric, metric_named
from dspex_trio.runs.plan import InvalidPlan, Planned, read_plan
from dspex_trio.runs.results import CannotKeep, Results, open_results
from dspex_trio.runs.summary import Line, export, summarized
from dspex_trio.runs.workers import Embedded, Remote, Worker

__all__ = [
    "METRICS",
    "CannotKeep",
    "Embedded",
    "InvalidPlan",
    "Kept",
    "Line",
    "Metric",
    "Planned",
    "Remote",
    "Results",
    "RunProgress",
    "UnknownMetric",
    "Worker",
    "WorkerRefused",
    "compare",
    "export",
    "metric_named",
    "of_plan",
    "open_results",
    "read_plan",
    "run_trials",
    "summarized",
]
