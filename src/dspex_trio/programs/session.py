"""A trial's session: what hydration reads of it at once, and `module.session`, which a running program calls."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar, cast

import trio

from dspex_trio.model import (
    MISSING,
    Binding,
    BoundVariable,
    RunInLoop,
    ToolSpec,
    TrialSession,
    Variable,
    VariableSource,
)
from dspex_trio.model.errors import NoVariables, ToolError, TrialError, VariableInvalid, VariableNotFound
from dspex_trio.model.values import plain
from dspex_trio.model.variable_types import check_variable
from dspex_trio.programs.dspy.private import thread_local_overrides

T = TypeVar("T")

MAX_WRITTEN: Final = 1_000
"""The most variables whose writes are kept of one trial."""

MAX_WRITTEN_CHARS: Final = 1024 * 1024
"""The most that their values may take as text; of later ones only the version is kept."""

# A key of DSPy's own settings: it reaches dspy.Parallel's threads, where a ContextVar of ours does not.
SESSION: Final = "_dspex_session"
CACHED_FOR: Final = "_dspex_cached_for"
"""Another one: the session id whose cached replies the trial may be answered from; not there where all share them."""


def current_session() -> ProgramSession:
    """The session of the trial whose program the calling thread runs, in dspy.Parallel's threads too.

    Raises:
        ToolError: The thread runs none, or was started without its program's context.
    """
    if (found := thread_local_overrides.get().get(SESSION)) is None:
        raise ToolError(
            "an Elixir tool, or an asynchronous one, belongs to a running program: it is called from its forward(), "
            "and from threads that the program handed its context to"
        )
    return cast("ProgramSession", found)


def cached_for() -> str | None:
    """The session that replies to the calling thread are cached for; None for no particular one."""
    return cast("str | None", thread_local_overrides.get().get(CACHED_FOR))


def no_loop(_function: Callable[..., Awaitable[T]], /, *_args: Any) -> T:
    """The RunInLoop of a process in which programs cannot call into a loop."""
    raise RuntimeError("programs reach their session through run_in_loop, and were opened without it")


class ProgramSession:
    """A trial's session, for the program's own threads. What is read is read now; nothing is kept.

    Each call waits for the store. When the trial is to end, so does the wait, by what ends every wait of the program.

    Args:
        session: The session.
        run_in_loop: Has a thread of the trial wait for the loop.
        deadline: The trial's, on Trio's clock.
    """

    def __init__(self, session: TrialSession, run_in_loop: RunInLoop, deadline: float) -> None:
        self._session = session
        self._run_in_loop = run_in_loop
        self._deadline = deadline
        self._context: contextvars.Context | None = None
        self._writes = _Writes()

    def __deepcopy__(self, memo: dict[int, Any]) -> ProgramSession:
        return self

    def get(self, name: str, default: Any = MISSING) -> Any:
        """The value of a variable, by name or id; `default` where there is none.

        Raises:
            VariableNotFound: The session or the variable does not exist, and there is no default.
            VariableInvalid: The value cannot be decoded, or does not fit the variable's own declaration.
            StoreUnavailable: The store cannot be reached or does not answer as a store.
        """
        try:
            variable = self._read([name])[name]
        except NoVariables:
            if default is MISSING:
                raise
            return default
        if variable is not None:
            return variable.value
        if default is not MISSING:
            return default
        raise _missing([name])

    def get_many(self, names: Sequence[str]) -> dict[str, Any]:
        """Name → value, of one consistent read where the store can give one; raises as `get` does."""
        return {name: variable.value for name, variable in self.get_variables(names).items()}

    def get_variables(self, names: Sequence[str]) -> dict[str, Variable]:
        """As `get_many`, with version, type and constraints."""
        found = self._read(names)
        if missing := [name for name, variable in found.items() if variable is None]:
            raise _missing(missing)
        return {name: variable for name, variable in found.items() if variable is not None}

    def set(self, name: str, value: Any, *, expected_version: int = 0) -> int:
        """Give a variable its next value; returns its new version. The write is part of the trial's outcome.

        Args:
            name: Its name or id.
            value: The value.
            expected_version: The version that the program read; 0 to write whatever it is now.

        Raises:
            VariableInvalid: The value does not fit the variable's type or constraints, or another version was expected.
            VariableNotFound: The session or the variable does not exist.
            StoreUnavailable: The store cannot be reached; whether it has the value is then unknown.
        """
        with self._writes.of({name: value}) as done:
            version = self.wait_for(partial(self._session.set, name, value, expected_version=expected_version))
            done({name: version})
        return version

    def set_many(self, updates: Mapping[str, Any]) -> dict[str, int]:
        """Set all of these variables or none; returns their new versions. Raises as `set`."""
        with self._writes.of(updates) as done:
            versions = dict(self.wait_for(self._session.set_many, dict(updates)))
            done(versions)
        return versions

    def call_tool(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Call an Elixir tool of the session.

        Raises:
            ToolError: The tool failed, or there is none.
            StoreUnavailable: The store cannot be reached; whether the tool ran is then unknown.
        """
        return self.wait_for(self._session.call_tool, name, arguments)

    # ---- for the runtime

    def begin(self) -> None:
        """The program starts in this thread, whose context is the one that leads to the loop."""
        self._context = contextvars.copy_context()

    def wait_for(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Await `function(*args)` in the loop and return what it does, from any thread of the program's."""
        if self._context is None:
            raise RuntimeError("a program's session can be used while the program runs")
        # dspy.Parallel's threads have no context of the trial's; and one context is one thread's at a time.
        context = self._context.copy()
        return cast("T", context.run(self._run_in_loop, self._in_time, function, *args))

    def written(self) -> dict[str, BoundVariable]:
        """`session:NAME` → what the program wrote last; from any thread."""
        return self._writes.seen()

    def _read(self, names: Sequence[str]) -> Mapping[str, Variable | None]:
        wanted = list(dict.fromkeys(names))
        found = self.wait_for(self._session.get_variables, wanted)
        return {name: None if (seen := found[name]) is None else check_variable(seen) for name in wanted}

    async def _in_time(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        with trio.CancelScope(deadline=self._deadline):
            return await function(*args)
        await trio.sleep_forever()  # the trial ends at the same moment, and ends this wait
        raise AssertionError


def _missing(names: Sequence[str]) -> VariableNotFound:
    return VariableNotFound(f"the session has no variable {', '.join(map(repr, names))}")


class _Writes:
    """What a program wrote, with versions; a write that was not acknowledged has version 0."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._written: dict[str, BoundVariable] = {}
        self._sizes: dict[str, int] = {}
        self._chars = 0

    @contextmanager
    def of(self, updates: Mapping[str, Any]) -> Iterator[Callable[[Mapping[str, int]], None]]:
        """Values are on their way to the store: call what is given with their versions.

        What the store refuses was not written; how anything else ended is not known.
        """
        values = {name: plain(value) for name, value in updates.items()}
        with self._lock:
            before = {name: self._written.get(name) for name in values}
            sent = {name: self._keep(BoundVariable("", name, value)) for name, value in values.items()}

        def done(versions: Mapping[str, int]) -> None:
            with self._lock:
                for name in versions.keys() & values.keys():
                    # Of writes in several threads, the last one in the store is what counts.
                    if (seen := self._written.get(name)) is None or seen.version <= versions[name]:
                        self._keep(BoundVariable("", name, values[name], versions[name]))

        try:
            yield done
        except (VariableInvalid, VariableNotFound):
            with self._lock:
                for name, earlier in before.items():
                    if sent[name] is None or self._written.get(name) is not sent[name]:
                        continue  # another thread wrote it since
                    if earlier is None:
                        del self._written[name]
                        self._chars -= self._sizes.pop(name)
                    else:
                        self._keep(earlier)
            raise

    def seen(self) -> dict[str, BoundVariable]:
        with self._lock:
            return {f"session:{name}": bound for name, bound in self._written.items()}

    def _keep(self, bound: BoundVariable) -> BoundVariable | None:
        name = bound.variable
        if name not in self._written and len(self._written) >= MAX_WRITTEN:
            return None
        self._chars -= self._sizes.get(name, 0)
        size = _chars(bound.value)
        if self._chars + size > MAX_WRITTEN_CHARS:
            bound, size = replace(bound, value=None), 0
        self._chars += size
        self._sizes[name] = size
        self._written[name] = bound
        return bound


def _chars(value: Any) -> int:
    match value:
        case str() | bytes():
            return len(value)
        case list():
            return sum(map(_chars, value)) + len(value)
        case dict():
            return sum(len(key) + _chars(item) for key, item in value.items())
        case int():
            return value.bit_length() // 3
    return 8


# ---- what hydration reads --------------------------------------------------------------------------------------------


async def read_bound(source: VariableSource, bindings: Sequence[Binding]) -> Mapping[str, Variable | None]:
    """Variable → what the store has of it, for all that the bindings name.

    A store that has no variables at all is one where none is there, for bindings that can do without.

    Raises:
        NoVariables: There are none at all, and one of the bindings needs one.
        VariableNotFound, VariableInvalid, StoreUnavailable: As the source says.
    """
    names = list(dict.fromkeys(binding.variable for binding in bindings))
    try:
        return await source.get_variables(names)
    except NoVariables:
        if not all(binding.optional or binding.default is not MISSING for binding in bindings):
            raise
        return dict.fromkeys(names)


async def read_at_once(
    session: TrialSession, bindings: Sequence[Binding], *, tools: bool
) -> tuple[Mapping[str, Variable | None], Sequence[ToolSpec]]:
    """Variables and the list of tools, side by side: as long as the slower of the two takes.

    Raises:
        VariableNotFound, VariableInvalid, StoreUnavailable: As the session says; the first error ends the other read,
            and of errors that come together the tools' is told.
    """
    if not tools:
        return await read_bound(session, bindings), ()
    answers: dict[str, Any] = {"variables": {}}
    errors: dict[str, TrialError] = {}

    async def ask(what: str, question: Callable[[], Awaitable[Any]], scope: trio.CancelScope) -> None:
        try:
            answers[what] = await question()
        except TrialError as error:
            errors[what] = error
            scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, "tools", session.tools, nursery.cancel_scope)
        if bindings:
            read = partial(read_bound, session, bindings)
            nursery.start_soon(ask, "variables", read, nursery.cancel_scope)
    for what in ("tools", "variables"):
        if what in errors:
            raise errors[what]
    return answers["variables"], answers["tools"]
