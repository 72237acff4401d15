"""What can go wrong with a trial: the failure kinds, the stages, and one exception class per kind.

A class carries the kind, the stage it belongs to wherever it is found, and whether trying again may help; an instance
carries the text. The enum numbers are those of `program.proto`.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import ClassVar

from dspex_trio.interface.named import NamedNumber


class Stage(NamedNumber):
    """The stage of a trial in which something happened."""

    ADMISSION = 1
    SESSION = 2
    HYDRATE = 3
    SYNC = 4
    EXECUTE = 5
    SERIALIZE = 6


class FailureKind(NamedNumber):
    """Why a trial failed, in terms that a caller can act on."""

    DEADLINE_EXCEEDED = 1
    CANCELLED = 2
    INVALID_SPEC = 3
    CLASS_NOT_FOUND = 4
    IMPORT_NOT_ALLOWED = 5
    VARIABLE_NOT_FOUND = 6
    VARIABLE_INVALID = 7
    STORE_UNAVAILABLE = 8
    INVALID_INPUT = 9
    LM_ERROR = 10
    TOOL_ERROR = 11
    PROGRAM_ERROR = 12
    SERIALIZATION_ERROR = 13
    OVERLOADED = 14
    SHUTTING_DOWN = 15
    BUDGET_EXCEEDED = 16
    WORKER_LOST = 17
    INTERNAL = 18


class TrialError(Exception):
    """Root of every error that ends a trial as a failure of a known kind.

    Attributes:
        kind: The failure kind that the caller gets.
        retryable: Whether the same trial may succeed later, elsewhere or on another try.
        stage: The stage to report wherever the error is found; None means the stage that the trial was in.
        retry_after: Seconds after which another try makes sense, if that is known.
        note: What is to be known beside the text of the exception that this one was raised from.
    """

    kind: ClassVar[FailureKind] = FailureKind.INTERNAL
    stage: ClassVar[Stage | None] = None
    retryable: bool = False

    def __init__(
        self, message: str, *, retryable: bool | None = None, retry_after: float | None = None, note: str = ""
    ) -> None:
        super().__init__(message)
        if retryable is not None:
            self.retryable = retryable
        self.retry_after = retry_after
        self.note = note


class InvalidSpec(TrialError):
    """The program specification cannot be carried out as written."""

    kind = FailureKind.INVALID_SPEC
    stage = Stage.HYDRATE


class ClassNotFound(TrialError):
    """No registered class has that name, or the module under an allowed prefix has no such class."""

    kind = FailureKind.CLASS_NOT_FOUND
    stage = Stage.HYDRATE


class ImportNotAllowed(TrialError):
    """A dotted name lies under no prefix that the operator allowed; nothing was imported."""

    kind = FailureKind.IMPORT_NOT_ALLOWED
    stage = Stage.HYDRATE


class VariableNotFound(TrialError):
    """A required variable, or the whole session, is not in the store."""

    kind = FailureKind.VARIABLE_NOT_FOUND
    stage = Stage.SYNC


class NoVariables(VariableNotFound):
    """The worker is configured with a store that has no variables at all; no variable will ever be found in it."""


class VariableInvalid(TrialError):
    """A variable's value cannot be decoded, or does not fit its type, its constraints or the parameter."""

    kind = FailureKind.VARIABLE_INVALID
    stage = Stage.SYNC


class StoreUnavailable(TrialError):
    """The session store cannot be reached, or does not answer as a store."""

    kind = FailureKind.STORE_UNAVAILABLE
    stage = Stage.SYNC
    retryable = True


class InvalidInput(TrialError):
    """An input is missing, unexpected, undecodable or of the wrong type."""

    kind = FailureKind.INVALID_INPUT
    stage = Stage.EXECUTE


class UnreadableRequest(InvalidInput):
    """The request is no message of its type; its caller is answered with a status, not with a failure."""


class LmError(TrialError):
    """The language model's provider, or the layer in front of it, failed."""

    kind = FailureKind.LM_ERROR


class ToolError(TrialError):
    """A tool failed and the program let the failure through."""

    kind = FailureKind.TOOL_ERROR


class ProgramError(TrialError):
    """The program's own code raised."""

    kind = FailureKind.PROGRAM_ERROR


class SerializationFailed(TrialError):
    """The outcome is over the message limit even without its trace."""

    kind = FailureKind.SERIALIZATION_ERROR
    stage = Stage.SERIALIZE


class DeadlineExceeded(TrialError):
    """The trial's deadline passed."""

    kind = FailureKind.DEADLINE_EXCEEDED


class TrialCancelled(TrialError):
    """The caller went away, or the operator cancelled the trial."""

    kind = FailureKind.CANCELLED


class Overloaded(TrialError):
    """No slot: the queue is full, the wait cannot fit, or too many threads are stuck."""

    kind = FailureKind.OVERLOADED
    stage = Stage.ADMISSION
    retryable = True


class ShuttingDown(TrialError):
    """The worker is draining: it takes no new trials, or the grace of a running one is over."""

    kind = FailureKind.SHUTTING_DOWN
    retryable = True


class WorkerLost(TrialError):
    """The isolated process that ran the program ended before it answered."""

    kind = FailureKind.WORKER_LOST
    retryable = True


class InternalError(TrialError):
    """A fault of ours; it is logged under the id that the message carries."""

    kind = FailureKind.INTERNAL


class WorkerStuck(Exception):
    """So many threads ignore that their trials are over that the process must be replaced."""


class ValueNotDecodable(ValueError):
    """A value on the wire cannot be decoded; the code that reads it adds which input or variable it was."""


class UnsupportedDspy(ImportError):
    """The installed DSPy lacks something that this version relies on."""

    @classmethod
    def because(cls, what: str) -> UnsupportedDspy:
        """Say what is missing, and which versions have it."""
        return cls(f"this dspy ({version('dspy')}) {what}; dspex_trio needs dspy>=3.4,<3.5")
