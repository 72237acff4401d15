"""Calls to the store: retried while there is time, and their statuses turned into our errors, once."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, TypeVar

import trio

from dspex_trio import rpc
from dspex_trio.model.errors import NoVariables, StoreUnavailable, TrialError, VariableInvalid, VariableNotFound
from dspex_trio.sessions.link import ConnectionState

T = TypeVar("T")

FIRST_DELAY: Final = 0.02
LONGEST_DELAY: Final = 0.25
"""Seconds between tries. They cost nothing while the channel knows that it has no connection, and the store may be back
for a moment only."""

LONGEST_TURN: Final = 0.05
"""Seconds until the last of those that waited for a connection ask."""

LAST_ROOM: Final = 0.1
MOST_ROOM: Final = 0.5
"""Seconds before the deadline at which the last try is over, so that the caller learns why: a tenth of all the time,
between these two. A process full of trials that wait for their store may be late itself."""

_JITTER: Final = 0.2

# What a call that we did not cancel ends with when the connection breaks, or when a server shuts down under it.
_AWAY: Final = frozenset({rpc.StatusCode.UNAVAILABLE, rpc.StatusCode.CANCELLED})

_INVALID: Final = frozenset(
    {
        rpc.StatusCode.INVALID_ARGUMENT,
        rpc.StatusCode.ALREADY_EXISTS,
        rpc.StatusCode.RESOURCE_EXHAUSTED,
        rpc.StatusCode.FAILED_PRECONDITION,
    }
)


_NOT_FOUND: Final = re.compile(r"(session_not_found|(Session|Variable) not found)")
_SNAKEPIT_REFUSES: Final = (
    "must ",
    "constraint",
    "is below minimum",
    "is above maximum",
    "unknown type",  # of a variable
    "unknown_type",  # of a value, such as None
    "doesn't match",
    "invalid tensor",
    "locked_for_optimization",
)


class VersionConflict(VariableInvalid):
    """A variable has another version than its writer expected: somebody else wrote it in between."""


class StoreCalls:
    """How one store is called.

    Args:
        where: The store's address, for messages.
        patience: The most seconds to go on trying a store that cannot be reached; the enclosing deadline may end it
            earlier.
        on_lost: Called when the store could not be reached: another one may come in its place.
        link: What is known of the connection to it, if anything is.
    """

    def __init__(
        self,
        where: str,
        patience: float,
        on_lost: Callable[[], None] = lambda: None,
        link: ConnectionState | None = None,
    ) -> None:
        self.where = where
        self._patience = patience
        self._on_lost = on_lost
        self._link = link
        self._lost, self._lost_at = "", -math.inf

    def away(self, since: float) -> str | None:
        """Why the store could not be reached at some time since then, on Trio's clock; None if nobody knows that."""
        if self._link is not None and self._link.failure is not None:
            return self._unreachable(self._link.failure)
        return (
            f"the session store at {self.where} could not be reached: {self._lost}" if self._lost_at > since else None
        )

    def _lose(self, error: rpc.RpcError) -> None:
        self._lost, self._lost_at = error.message, trio.current_time()
        self._on_lost()

    def _unreachable(self, why: str) -> str:
        return f"the session store at {self.where} cannot be reached: {why}"

    async def reading(self, attempt: Callable[[], Awaitable[T]], *, variables: bool = False) -> T:
        """Make a call that may be repeated; a store that cannot be reached is tried again while there is time.

        Args:
            attempt: Makes the call.
            variables: Whether it is one of the calls about variables, which some stores do not have.

        Raises:
            NoVariables: The store does not have that call about variables.
            StoreUnavailable: The deadline or the patience leaves no room for another try, or the store answers with a
                status that means nothing here.
            VariableNotFound: The session or the variable is not in the store.
        """
        now = trio.current_time()
        give_up = min(trio.current_effective_deadline(), now + self._patience)
        give_up -= min(max(LAST_ROOM, (give_up - now) / 10), MOST_ROOM)
        lost: rpc.RpcError | None = None
        for delay in delays():
            # The first call has all the time there is. Once the store was seen to be away, a try that hangs ends early
            # enough to say so.
            with trio.CancelScope(deadline=math.inf if lost is None else give_up):
                try:
                    return await attempt()
                except rpc.RpcError as error:
                    if error.status not in _AWAY:
                        raise await self.to_trial_error(error, variables=variables) from error
                    lost = error
            if lost is None:
                raise AssertionError("a scope without a deadline was cancelled")
            self._lose(lost)
            left = give_up - trio.current_time()
            if left <= FIRST_DELAY:
                raise await self.to_trial_error(lost) from lost
            if self._link is None or self._link.failure is None:
                await trio.sleep(min(delay, left / 2))
                continue
            # Hundreds may wait for the store, and each try costs processor time that its restart needs.
            with trio.CancelScope(deadline=give_up) as waiting:
                await self._link.connected()
                self._lose(lost)  # until now
                # Those with the least time left ask first.
                await trio.sleep(min(LONGEST_TURN, max(0.0, give_up - trio.current_time()) / 50))
            if waiting.cancelled_caught:
                raise await self.to_trial_error(lost) from lost
        raise AssertionError("delays are endless")

    async def writing(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Make a call that must not be repeated: whether the store carried it out is unknown when the connection broke.

        Raises:
            NoVariables: The store does not have that call.
            VariableInvalid: The store refuses the value, the type or a constraint.
            VersionConflict: The variable has another version than expected.
            VariableNotFound: The session or the variable is not in the store.
            StoreUnavailable: The store cannot be reached or does not answer as a store.
        """
        try:
            return await attempt()
        except rpc.RpcError as error:
            raise await self.to_trial_error(error, write=True, variables=True) from error

    def no_variables(self, what: str) -> NoVariables:
        """The error for a store without variables, which says what the operator can do."""
        return NoVariables(
            f"the session store at {self.where} {what}. That is a matter of configuration: name a store that has "
            f"variables (--store HOST:PORT, such as that of `dspex-trio store`), or an Elixir tool that reads them "
            f"(--variables-tool NAME)"
        )

    async def to_trial_error(self, error: rpc.RpcError, *, write: bool = False, variables: bool = False) -> TrialError:
        """The trial's error for a status of the store.

        A store's DEADLINE_EXCEEDED is our own deadline, which travelled along: the call waits for that to pass, so that
        the trial ends as what it is.
        """
        if error.status in _AWAY:
            self._lose(error)
        match error.status:
            case status if status is rpc.StatusCode.NOT_FOUND or (write and _is_missing(error)):
                return VariableNotFound(f"{error.message or 'not found'} (session store at {self.where})")
            case rpc.StatusCode.UNAVAILABLE | rpc.StatusCode.CANCELLED:
                return StoreUnavailable(self._unreachable(error.message))
            case rpc.StatusCode.UNIMPLEMENTED:
                what = f"does not have the call: {error.message}"
                text = f"the session store at {self.where} {what}"
                return self.no_variables(what) if variables else StoreUnavailable(text, retryable=False)
            case rpc.StatusCode.DEADLINE_EXCEEDED:
                await _own_deadline()
            case rpc.StatusCode.ABORTED if write:
                return VersionConflict(error.message)
            case status if write and (status in _INVALID or _is_constraint(error)):
                return VariableInvalid(error.message)
        return StoreUnavailable(f"the session store at {self.where} answers {error}")


def delays() -> Iterator[float]:
    """Seconds between tries: doubling, with jitter so that the trials that wait do not come back as one."""
    delay = FIRST_DELAY
    while True:
        yield delay * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311
        delay = min(delay * 2, LONGEST_DELAY)


async def _own_deadline() -> None:
    deadline = trio.current_effective_deadline()
    if deadline < float("inf"):
        await trio.sleep_until(deadline)


def _is_missing(error: rpc.RpcError) -> bool:
    """Snakepit 0.4 answers INVALID_ARGUMENT to a batch that names what is not there."""
    return error.status is rpc.StatusCode.INVALID_ARGUMENT and _NOT_FOUND.match(error.message) is not None


def _is_constraint(error: rpc.RpcError) -> bool:
    """Snakepit 0.4 answers INTERNAL where a value, a type or a constraint is wrong."""
    text = error.message.lower()
    return error.status is rpc.StatusCode.INTERNAL and any(sign in text for sign in _SNAKEPIT_REFUSES)
