"""The Protocols between the packages: what a trial's lifecycle needs of programs, sessions and threads."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from dspex_trio.model.outcomes import Prediction, Recording
from dspex_trio.model.specification import TrialRequest
from dspex_trio.model.tools import ToolSpec
from dspex_trio.model.variables import BoundVariable, Variable

T = TypeVar("T")


class VariableSource(Protocol):
    """Where a trial's session variables come from."""

    async def get_variables(self, identifiers: Sequence[str]) -> Mapping[str, Variable | None]:
        """Read all of them at once, by name or id; every value is read from the store after the call began.

        Args:
            identifiers: Names or ids, each once.

        Returns:
            Identifier → variable; None for one that the store does not have.

        Raises:
            VariableNotFound: The store does not have the session.
            NoVariables: The store does not have variables at all.
            VariableInvalid: A value cannot be decoded.
            StoreUnavailable: The store cannot be reached or does not answer as a store.
        """
        ...


class TrialSession(VariableSource, Protocol):
    """A trial's session, as its program reaches it. All of it raises StoreUnavailable as `get_variables` does."""

    def away(self, since: float) -> str | None:
        """Why the store could not be reached at some time since then, on Trio's clock; None if it could."""
        ...

    async def set(self, identifier: str, value: Any, *, expected_version: int = 0) -> int:
        """Give a variable its next value; returns its new version.

        Raises:
            VariableInvalid: The value does not fit the variable, or another version was expected.
            VariableNotFound: The session or the variable is not in the store.
        """
        ...

    async def set_many(self, updates: Mapping[str, Any]) -> Mapping[str, int]:
        """Set all of these variables or none; returns their new versions. Raises as `set`."""
        ...

    async def tools(self) -> Sequence[ToolSpec]:
        """The tools that the session offers.

        Raises:
            VariableNotFound: The store does not have the session.
        """
        ...

    async def call_tool(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Call one of them with plain values; never repeated.

        Raises:
            ToolError: The tool failed, or there is none; the text is the tool's.
        """
        ...


class HydratedProgram(Protocol):
    """A program instance made for one trial, with its parameters bound to variables."""

    async def sync_variables(self) -> Mapping[str, BoundVariable]:
        """Fetch every bound variable, check and apply it; returns parameter path → what was applied.

        Raises what `VariableSource.get_variables` raises, and VariableInvalid for a value that its parameter refuses.
        """
        ...

    def call(self, inputs: Mapping[str, Any], interrupt: Interrupt) -> Prediction:
        """Run the program on `inputs`; blocking, for a worker thread.

        `interrupt` is checked at every LM call, tool call and predictor end, in whatever thread of the program.

        Raises InvalidInput before the program starts, LmError and ToolError for what those layers raised, and whatever
        else the program's code raises, as it is.
        """
        ...

    def recording(self) -> Recording:
        """What was seen until now; may be called from any thread, also while the program runs."""
        ...


class Interrupt(Protocol):
    """How running code learns, from any of its threads, that its trial is over."""

    def check(self) -> None:
        """Return at once, or raise a BaseException that ends the program."""
        ...

    def time_left(self) -> float:
        """Seconds until the trial's deadline, or that of the stage that it is in; infinite where there is none."""
        ...

    def on_cancel(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Have `callback` called when the trial is to end (at once if it already is); returns a way to take it back.

        The callback must not block: it runs on the loop's thread.
        """
        ...


class ProgramLoader(Protocol):
    """Makes instances from specifications."""

    async def hydrate(
        self, request: TrialRequest, session: TrialSession, run_in_thread: RunInThread
    ) -> HydratedProgram:
        """Resolve, construct and bind the program of `request`.

        User code (imports, constructors) runs through `run_in_thread`, in the trial's own slot.

        Raises:
            InvalidSpec, ClassNotFound, ImportNotAllowed: The specification is at fault.
            ProgramError: The program's own code raised on import or in its constructor.
            VariableNotFound, VariableInvalid, StoreUnavailable: A variable picks a class, or the session has the tools.
        """
        ...


class RunInThread(Protocol):
    """Runs blocking code in the trial's worker thread and returns what it returns; cancellation stops it."""

    def __call__(self, function: Callable[..., Any], /, *args: Any) -> Awaitable[Any]:
        """Run `function(*args)`."""
        ...


class RunInLoop(Protocol):
    """Has a trial's thread wait for something asynchronous; when the trial is to end, so does the wait."""

    def __call__(self, function: Callable[..., Awaitable[T]], /, *args: Any) -> T:
        """Run `await function(*args)` on the loop and return what it returns; for threads of the trial alone."""
        ...
