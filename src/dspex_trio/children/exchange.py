"""One request to a child, and everything that the child says about it until it has answered."""

from __future__ import annotations

import contextvars
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

# A child may wait for so many of its calls in one exchange at once.
MAX_CALLS = 256


class ChildLost(Exception):
    """The child ended before it answered; says how: an exit code, or a signal such as a crash or the OOM killer's."""


class ChildFailed(Exception):
    """The child's function raised; the child goes on.

    Attributes:
        error_type: The qualified type of what it raised.
        message: Its text.
        traceback: Its traceback, as text; also the text of this exception.
    """

    def __init__(self, error_type: str, message: str, traceback: str) -> None:
        super().__init__(traceback)
        self.error_type = error_type
        self.message = message
        self.traceback = traceback

    @classmethod
    def from_bytes(cls, data: bytes) -> ChildFailed:
        """What `frames.failure` was given."""
        error_type, message, traceback = (part.decode("utf-8", "replace") for part in data.split(b"\0", 2))
        return cls(error_type, message, traceback)


class Exchange:
    """One request to a child.

    Args:
        on_report: Called with what the child reports before its answer.
        on_freed: Called once nothing of the request runs in the child any more, with what the child says about it;
            with empty bytes if the child is gone.

    Attributes:
        done: Set once there is an answer, or never will be one.
        held: Whether something of it goes on in the child after the answer.
        freed: Whether `on_freed` was called.
    """

    def __init__(
        self,
        on_report: Callable[[bytes], None] = lambda _data: None,
        on_freed: Callable[[bytes], None] = lambda _data: None,
    ) -> None:
        self.done = trio.Event()
        self.held = self.freed = False
        self.on_report = on_report
        self.on_call: Callable[[bytes], None] = lambda _data: None
        self._on_freed = on_freed
        self._answer: bytes | Exception | None = None

    def end(self, answer: bytes | Exception) -> None:
        """Give the answer; a second one is ignored."""
        if not self.done.is_set():
            self._answer = answer
            self.done.set()

    def free(self, data: bytes = b"") -> None:
        """Nothing of the request runs any more; a second call is ignored."""
        if not self.freed:
            self.freed = True
            self._on_freed(data)

    def answer(self) -> bytes:
        """The answer, once it is done.

        Raises:
            ChildFailed, ChildLost: There is none.
        """
        assert self._answer is not None, "the exchange is under way"  # noqa: S101 - our own bug, never the user's
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer

    def take_answer(self) -> bytes:
        """As `answer`, and let go of it: an exchange and who waits for it may hold each other until a collection."""
        answer = self.answer()
        self._answer = b""
        return answer

    @asynccontextmanager
    async def replying(
        self,
        reply: Callable[[bytes], Awaitable[bytes]] | None,
        post: Callable[[bytes, bytes], Awaitable[None]],
        too_many: Callable[[str], None],
    ) -> AsyncIterator[None]:
        """Reply to the child's calls while the block runs; calls that are still open then are cancelled.

        Args:
            reply: Replies to one call; must not raise. Runs in a copy of this task's context.
            post: Sends a reply, and waits until it is read: the number of the call, and the data.
            too_many: Told when the child makes more than `MAX_CALLS` calls at once.
        """
        if reply is None:
            yield
            return

        async def take(data: bytes) -> None:
            await post(data[:8], await reply(data[8:]))

        context = contextvars.copy_context()  # a call arrives in the task that reads from the child

        async with trio.open_nursery() as nursery:

            def on_call(data: bytes) -> None:
                if len(nursery.child_tasks) >= MAX_CALLS:
                    too_many(f"it made more than {MAX_CALLS} calls at once")
                else:
                    context.run(nursery.start_soon, take, data)

            self.on_call = on_call
            try:
                yield
            finally:
                self.on_call = lambda _data: None
                nursery.cancel_scope.cancel()
