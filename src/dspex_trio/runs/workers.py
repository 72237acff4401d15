"""Who runs a run's trials: workers at addresses, or one inside this process."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final, Protocol

import trio

from dspex_trio.model import TrialOutcome, Variable
from dspex_trio.model.errors import VariableNotFound
from dspex_trio.runs.plan import Planned
from dspex_trio.runtime.client import Client
from dspex_trio.runtime.embedded import Runtime
from dspex_trio.sessions import SessionContext
from dspex_trio.wire import encode_json

# How long the store may take to take the variables of one trial, in seconds.
_STORE_SECONDS: Final = 10.0
_TYPES: Final[Mapping[type, str]] = {
    bool: "boolean",
    int: "integer",
    float: "float",
    str: "string",
    list: "list",
    dict: "map",
}


class Worker(Protocol):
    """Runs trials.

    Attributes:
        name: What results call it.
    """

    name: str

    async def run(self, trial: Planned, timeout: float) -> TrialOutcome:  # noqa: ASYNC109 - the trial's own
        """Run one trial, whose variables are made first.

        Raises:
            rpc.RpcError: The call failed; nothing is known of what became of the trial.
            StoreUnavailable: Its variables cannot be made.
        """
        ...


class Remote:
    """A worker at an address.

    Args:
        name: The address.
        client: Reaches it.
    """

    def __init__(self, name: str, client: Client) -> None:
        self.name = name
        self._client = client
        self._sessions = _Sessions(client.session)

    async def run(self, trial: Planned, timeout: float) -> TrialOutcome:  # noqa: ASYNC109 - as in Worker
        """Run one trial."""
        session_id = await self._sessions.with_variables_of(trial)
        return await self._client.execute(
            trial.program,
            trial.inputs,
            session_id=session_id,
            timeout=timeout,
            trial_id=trial.id,
            options=trial.options,
            metadata=trial.metadata,
        )


class Embedded:
    """A runtime of this process.

    Args:
        runtime: Runs the trials.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.name = "embedded"
        self._runtime = runtime
        self._sessions = _Sessions(runtime.session)

    async def run(self, trial: Planned, timeout: float) -> TrialOutcome:  # noqa: ASYNC109 - as in Worker
        """Run one trial."""
        session_id = await self._sessions.with_variables_of(trial)
        return await self._runtime.run_trial(
            trial.program,
            trial.inputs,
            session=session_id,
            trial_id=trial.id,
            options=trial.options,
            metadata=trial.metadata,
            deadline=trio.current_time() + timeout,
        )


class _Session(Protocol):
    def __call__(self, session_id: str, /) -> SessionContext: ...


class _Sessions:
    """A session for each set of variables, made when it is first needed and again where the store has lost it."""

    def __init__(self, session: _Session) -> None:
        self._session = session
        self._making: dict[str, trio.Lock] = {}  # those that are being looked at just now

    async def with_variables_of(self, trial: Planned) -> str:
        """The session that holds the variables of a trial.

        Raises TooSlowError where the store does not answer in time.
        """
        if not trial.variables:
            return trial.session
        with trio.fail_after(_STORE_SECONDS):
            return await self._made(trial)

    async def _made(self, trial: Planned) -> str:
        digest = hashlib.sha256(encode_json(dict(sorted(trial.variables.items())))).hexdigest()[:24]
        session = self._session(f"run-{digest}")
        lock = self._making.setdefault(session.session_id, trio.Lock())
        try:
            async with lock:
                await self._make(session, trial.variables)
        finally:
            if not lock.locked():
                self._making.pop(session.session_id, None)
        return session.session_id

    async def _make(self, session: SessionContext, variables: Mapping[str, Any]) -> None:
        """Make the session, and whatever of it is not there or is not as it should be."""
        found: Mapping[str, Variable | None] = {}
        try:
            found = await session.get_variables(tuple(variables))
        except VariableNotFound:
            await session.initialize()
        for name, value in variables.items():
            if (there := found.get(name)) is None:
                await session.register(name, _TYPES[type(value)], value)
            elif type(there.value) is not type(value) or there.value != value:
                await session.set(name, value)  # a program wrote to it, or somebody else did
