"""Admission, the lifecycle of a trial, its deadline, and the conversion of what goes wrong into failures."""

from dspex_trio.trials.admission import Admission
from dspex_trio.trials.contained import INTERRUPTIBLE
from dspex_trio.trials.failures import Described, failure_of
from dspex_trio.trials.lateness import LatenessWatch, LoopLateness
from dspex_trio.trials.lifecycle import TrialRunner, Trials
from dspex_trio.trials.margin import MarginRules, ReplyMargin, TrialDeadline
from dspex_trio.trials.observer import Observer, TrialLog
from dspex_trio.trials.pipeline import InThreads
from dspex_trio.trials.stuck import StuckLimit
from dspex_trio.trials.work import UnderWay

__all__ = [
    "INTERRUPTIBLE",
    "Admission",
    "Described",
    "InThreads",
    "LatenessWatch",
    "LoopLateness",
    "MarginRules",
    "Observer",
    "ReplyMargin",
    "StuckLimit",
    "TrialDeadline",
    "TrialLog",
    "TrialRunner",
    "Trials",
    "UnderWay",
    "failure_of",
]
