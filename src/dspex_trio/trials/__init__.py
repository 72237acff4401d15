"""Admission, the road of a trial, its deadline, and the conversion of what goes wrong into failures."""

from dspex_trio.trials.admission import Admission
from dspex_trio.trials.failures import failure_of
from dspex_trio.trials.margin import ReplyMargin
from dspex_trio.trials.road import Trials

__all__ = ["Admission", "ReplyMargin", "Trials", "failure_of"]
