"""When something that is read now has arrived, at the earliest: while the loop was busy, it lay in the kernel."""

from __future__ import annotations

import trio

# A wait for I/O that took longer has waited, so that nothing lay there before it, in seconds.
_WAITED = 0.0002


class Arrivals(trio.abc.Instrument):
    """Knows when the loop last looked for what has arrived.

    A busy loop reads requests late, and would give them more time than their callers do. What was not there when the
    loop looked the last time but one cannot have arrived before that.
    """

    def __init__(self) -> None:
        self._following = False
        self._looked = self._earliest = self._before = trio.current_time()

    async def follow(self) -> None:
        """Follow the loop until cancelled; where time is not the real one, everything arrives when it is read."""
        if type(trio.lowlevel.current_clock()).__name__ != "SystemClock":
            return
        self._following = True
        trio.lowlevel.add_instrument(self)
        try:
            await trio.sleep_forever()
        finally:
            self._following = False
            trio.lowlevel.remove_instrument(self)

    def before_io_wait(self, timeout: float) -> None:  # noqa: ARG002 - as Trio calls it
        """The loop is about to look."""
        self._before = trio.current_time()

    def after_io_wait(self, timeout: float) -> None:  # noqa: ARG002 - as Trio calls it
        """It has looked, and reads what was there."""
        now = trio.current_time()
        self._earliest = now if now - self._before > _WAITED else self._looked
        self._looked = now

    def earliest(self) -> float:
        """When what is read in this turn of the loop arrived at the earliest, on Trio's clock."""
        return self._earliest if self._following else trio.current_time()
