"""Turn an exception into a TrialFailure: its kind, its stage, its text, and the tree of what is behind it."""

from __future__ import annotations

import logging
import secrets
import traceback
from collections.abc import Callable, Iterator
from typing import Final

from dspex_trio.errors import InternalError, LmError, ProgramError, Stage, ToolError, TrialError
from dspex_trio.model import Cause, TrialFailure

logger = logging.getLogger(__name__)

MAX_MESSAGE_CHARS: Final = 16_384
MAX_TRACEBACK_CHARS: Final = 32_768
MAX_CAUSES: Final = 32

# These say whose fault it was; the exception that the caller wants to see is the one they were raised from.
_WRAPPERS: Final = (LmError, ToolError, ProgramError)


def failure_of(error: BaseException, stage: Stage, *, redact: Callable[[str], str], trial_id: str = "") -> TrialFailure:
    """Describe `error`, raised while the trial was in `stage`.

    An error that is no TrialError is a fault of ours: it is logged under an id, and the caller gets the id in place of
    the details.
    """
    if not isinstance(error, TrialError):
        error = _internal(error, stage, trial_id)
    told = error.__cause__ if isinstance(error, _WRAPPERS) and error.__cause__ is not None else error
    describe = _Describer(redact)
    details = {"error_id": error.error_id} if isinstance(error, _LoggedInternalError) else {}
    return TrialFailure(
        kind=error.kind,
        stage=error.stage if error.stage is not None else stage,
        error_type=type_name(told),
        error_message=describe.message(told),
        traceback=describe.traceback(told),
        retryable=error.retryable,
        retry_after=error.retry_after,
        causes=describe.causes(told),
        trial_id=trial_id,
        details=details,
    )


def type_name(error: BaseException) -> str:
    """The qualified name of an exception's type; builtins without their module, as Python prints them."""
    cls = type(error)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


class _LoggedInternalError(InternalError):
    """Stands in for a fault of ours that the log describes."""

    def __init__(self, error_id: str) -> None:
        super().__init__(f"internal error {error_id}; the worker's log has the details under this id")
        self.error_id = error_id


def _internal(error: BaseException, stage: Stage, trial_id: str) -> _LoggedInternalError:
    error_id = secrets.token_hex(6)
    logger.error("internal error %s in stage %s of trial %r", error_id, stage.name, trial_id, exc_info=error)
    return _LoggedInternalError(error_id)


class _Describer:
    """Describes exceptions: bounded in size, safe against cycles and against a `__str__` that raises."""

    def __init__(self, redact: Callable[[str], str]) -> None:
        self._redact = redact
        self._left = MAX_CAUSES
        self._seen: set[int] = set()

    def message(self, error: BaseException) -> str:
        try:
            text = str(error)
        except BaseException as broken:  # noqa: ASYNC103, BLE001 - any __str__, exiting ones too
            text = f"<its text cannot be had: __str__ raised {type_name(broken)}>"
        return _cut(self._redact(text), MAX_MESSAGE_CHARS)

    def traceback(self, error: BaseException) -> str:
        if error.__traceback__ is None:
            return ""
        try:
            lines = traceback.format_exception(type(error), error, error.__traceback__, chain=False)
        except BaseException:  # noqa: ASYNC103, BLE001 - format_exception calls the exception's own code too
            lines = traceback.format_tb(error.__traceback__)
        return _cut(self._redact("".join(lines)), MAX_TRACEBACK_CHARS)

    def causes(self, error: BaseException) -> tuple[Cause, ...]:
        self._seen.add(id(error))
        return tuple(self._cause(behind, relation) for behind, relation in _behind(error) if self._takes(behind))

    def _takes(self, error: BaseException) -> bool:
        if id(error) in self._seen or self._left == 0:
            return False
        self._left -= 1
        return True

    def _cause(self, error: BaseException, relation: str) -> Cause:
        return Cause(
            error_type=type_name(error),
            error_message=self.message(error),
            traceback=self.traceback(error),
            relation=relation,
            causes=self.causes(error),
        )


def _behind(error: BaseException) -> Iterator[tuple[BaseException, str]]:
    if error.__cause__ is not None:
        yield error.__cause__, "cause"
    elif error.__context__ is not None and not error.__suppress_context__:
        yield error.__context__, "context"
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield member, "member"


def _cut(text: str, limit: int) -> str:
    """Keep both ends: what it is stands at the start, where it broke at the end."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"
