"""Wait for one of a few things, first come, first served."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import outcome as outcomes
import trio

T = TypeVar("T")


class WaitQueue(Generic[T]):
    """Tasks that wait, the longest waiting first; true while there are any. Belongs to one Trio run."""

    def __init__(self) -> None:
        self._tasks: deque[trio.lowlevel.Task] = deque()

    def __bool__(self) -> bool:
        return bool(self._tasks)

    async def acquire(self, acquire_nowait: Callable[[], T]) -> T:
        """Take what `acquire_nowait` has; on trio.WouldBlock wait for `give`. When cancelled, nothing was taken."""
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            found = acquire_nowait()
        except trio.WouldBlock:
            task = trio.lowlevel.current_task()
            self._tasks.append(task)

            def abort(_: object) -> trio.lowlevel.Abort:
                self._tasks.remove(task)
                return trio.lowlevel.Abort.SUCCEEDED

            given: Any = await trio.lowlevel.wait_task_rescheduled(abort)
            return given  # type: ignore[no-any-return]
        await trio.lowlevel.cancel_shielded_checkpoint()
        return found

    def give(self, value: T) -> None:
        """Wake the first of those that wait; there must be one."""
        trio.lowlevel.reschedule(self._tasks.popleft(), outcomes.Value(value))
