"""Turn an exception into a TrialFailure: its kind, its stage, its text, and the tree of what is behind it."""

from __future__ import annotations

import logging
import secrets
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, cast

from dspex_trio.model import Cause, TrialFailure
from dspex_trio.model.errors import FailureKind, LmError, ProgramError, Stage, ToolError, TrialError
from dspex_trio.model.values import type_name

logger = logging.getLogger(__name__)

MAX_TYPE_CHARS: Final = 1_024
MAX_MESSAGE_CHARS: Final = 16_384
MAX_TRACEBACK_CHARS: Final = 32_768
MAX_CAUSES: Final = 32

# These say whose fault it was; the exception that the caller wants to see is the one they were raised from.
_WRAPPERS: Final = (LmError, ToolError, ProgramError)

# An exception's own attributes, whatever its class makes of their names; typeshed says nothing of what they are.
_own: Final = cast("Mapping[str, Any]", {**vars(BaseException), **vars(BaseExceptionGroup)})
_cause_of: Final[Callable[[BaseException], BaseException | None]] = _own["__cause__"].__get__
_context_of: Final[Callable[[BaseException], BaseException | None]] = _own["__context__"].__get__
_suppresses_context: Final[Callable[[BaseException], bool]] = _own["__suppress_context__"].__get__
_traceback_of: Final[Callable[[BaseException], TracebackType | None]] = _own["__traceback__"].__get__
_members_of: Final[Callable[[BaseException], tuple[BaseException, ...]]] = _own["exceptions"].__get__


@dataclass(frozen=True, slots=True)
class Description:
    """All that a failure says of an exception, as plain values: nothing of the program's is left in it.

    Attributes:
        kind: Of the failure that the caller gets; None for a fault of ours.
        stage: The stage to report, wherever it was found; None for the stage that the trial is in.
    """

    kind: FailureKind | None
    stage: Stage | None
    retryable: bool
    retry_after: float | None
    error_type: str
    message: str
    traceback: str
    causes: tuple[Cause, ...]


class Described(Exception):
    """Takes the place of an exception that was described where it was raised."""

    def __init__(self, description: Description) -> None:
        super().__init__(description.error_type)
        self.description = description


def describe(
    error: BaseException, redact: Callable[[str], str], check: Callable[[], object] = lambda: None
) -> Description:
    """Say all that there is to say about `error`.

    That runs code of the program's, such as its exceptions' `__str__`, which may take as long as it likes and raise
    what it likes: where there is any, call this in the program's own thread. `check` raises what is to come out of
    there when the trial is over.
    """
    known = error if isinstance(error, TrialError) else None
    reported = (isinstance(error, _WRAPPERS) and _cause_of(error)) or error
    describer = _Describer(redact, check)
    return Description(
        kind=known.kind if known else None,
        stage=known.stage if known else None,
        retryable=known.retryable if known else False,
        retry_after=known.retry_after if known else None,
        error_type=describer.type_of(reported),
        message=describer.message(reported, known.note if known else ""),
        traceback=describer.traceback(reported),
        causes=describer.causes(reported),
    )


def failure_of(error: BaseException, stage: Stage, *, redact: Callable[[str], str], trial_id: str = "") -> TrialFailure:
    """Make a failure of `error`, raised while the trial was in `stage`.

    An error that is no TrialError is a fault of ours: it is logged under an id, and the caller gets the id in place of
    the details.
    """
    found = error.description if isinstance(error, Described) else describe(error, redact)
    if found.kind is None:
        return _internal(found, stage, trial_id)
    return TrialFailure(
        kind=found.kind,
        stage=found.stage if found.stage is not None else stage,
        error_type=found.error_type,
        error_message=found.message,
        traceback=found.traceback,
        retryable=found.retryable,
        retry_after=found.retry_after,
        causes=found.causes,
        trial_id=trial_id,
    )


def _internal(found: Description, stage: Stage, trial_id: str) -> TrialFailure:
    error_id = secrets.token_hex(6)
    logger.error(
        "internal error %s in stage %s of trial %.200r\n%s", error_id, stage.name, trial_id, "".join(_tracebacks(found))
    )
    return TrialFailure(
        kind=FailureKind.INTERNAL,
        stage=stage,
        error_type="dspex_trio.model.errors.InternalError",
        error_message=f"internal error {error_id}; the worker's log has the details under this id",
        trial_id=trial_id,
        details={"error_id": error_id},
    )


def _tracebacks(found: Description | Cause) -> Iterator[str]:
    """The tracebacks of an exception and of those behind it, which come first."""
    for cause in found.causes:
        yield from _tracebacks(cause)
    yield found.traceback


class _Describer:
    """Describes exceptions: bounded in size, safe against cycles and against a `__str__` that raises."""

    def __init__(self, redact: Callable[[str], str], check: Callable[[], object]) -> None:
        self._redact = redact
        self._check = check
        self._left = MAX_CAUSES
        self._seen: set[int] = set()

    def type_of(self, error: BaseException) -> str:
        """The type's name: a program may make one up of whatever it holds."""
        return _cut(self._redact(type_name(type(error))), MAX_TYPE_CHARS)

    def message(self, error: BaseException, note: str = "") -> str:
        try:
            text = str(error)
        except BaseException as broken:  # noqa: ASYNC103, BLE001 - any __str__, exiting ones too
            self._check()
            text = f"<its text cannot be had: __str__ raised {type_name(type(broken))}>"
        return _cut(self._redact(f"{text}\n{note}" if note else text), MAX_MESSAGE_CHARS)

    def traceback(self, error: BaseException) -> str:
        if (where := _traceback_of(error)) is None:
            return ""
        try:
            lines = traceback.format_exception(type(error), error, where, chain=False)
        except BaseException:  # noqa: ASYNC103, BLE001 - format_exception calls the exception's own code too
            self._check()
            lines = traceback.format_tb(where)
        return _cut(self._redact("".join(lines)), MAX_TRACEBACK_CHARS)

    def causes(self, error: BaseException) -> tuple[Cause, ...]:
        self._seen.add(id(error))
        found = []
        for behind, relation in _behind(error):
            if self._takes(behind):
                found.append(self._cause(behind, relation))  # not in a comprehension: that is one more frame of ours
        return tuple(found)

    def _takes(self, error: BaseException) -> bool:
        if id(error) in self._seen or self._left == 0:
            return False
        self._left -= 1
        return True

    def _cause(self, error: BaseException, relation: str) -> Cause:
        return Cause(
            error_type=self.type_of(error),
            error_message=self.message(error),
            traceback=self.traceback(error),
            relation=relation,
            causes=self.causes(error),
        )


def _behind(error: BaseException) -> Iterator[tuple[BaseException, str]]:
    if (cause := _cause_of(error)) is not None:
        yield cause, "cause"
    elif (context := _context_of(error)) is not None and not _suppresses_context(error):
        yield context, "context"
    if isinstance(error, BaseExceptionGroup):
        for member in _members_of(error):
            yield member, "member"


def _cut(text: str, limit: int) -> str:
    """Keep both ends: what it is stands at the start, where it broke at the end."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"


DESCRIBERS: Final = (describe, *(getattr(_Describer, name) for name in ("message", "traceback", "causes", "_cause")))
"""What calls a program's code to describe its exceptions."""
