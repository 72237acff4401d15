"""What happened in a test and when, and a way to say what should have."""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import ndiff
from typing import Any, Final

import trio

# The name is greedy: `fetch:a@b@0.5` is the name `fetch:a@b`.
_EXPECTED: Final = re.compile(r"(?P<name>\S+)@(?P<at>\d+(?:\.(?P<decimals>\d+))?)")
_DECIMALS: Final = 3


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that happened.

    Attributes:
        name: What.
        at: When, in seconds of the timeline's clock since the timeline began.
        data: What else is known of it.
    """

    name: str
    at: float
    data: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """As `expect` takes it."""
        return f"{self.name}@{_shown(self.at, _DECIMALS)}"


class Timeline:
    """Happenings in the order in which they were recorded. Any thread may record.

    Args:
        clock: Tells the time; by default, that of the Trio run in which the timeline is made.

    Raises:
        RuntimeError: It is made outside Trio, without a clock.
    """

    def __init__(self, clock: trio.abc.Clock | None = None) -> None:
        if clock is None:
            try:
                clock = trio.lowlevel.current_clock()
            except RuntimeError:
                raise RuntimeError(
                    "a Timeline needs a clock: make it inside trio.run (in an async test), or give it one, as in "
                    "Timeline(VirtualClock())"
                ) from None
        self._clock = clock
        self._lock = threading.Lock()
        self._happenings: list[Happening] = []
        # A clock that has not been started, as a fixture's, may not be asked yet; a virtual one begins at 0.
        self._origin = clock.current_time() if trio.lowlevel.in_trio_run() else 0.0

    def record(self, name: str, **data: Any) -> None:
        """Something happens now.

        Raises:
            ValueError: The name is empty or has white space in it, so that `expect` could not name it.
        """
        if name.split() != [name]:
            raise ValueError(f"what happens is named by a word without white space; got {name!r}")
        with self._lock:
            self._happenings.append(Happening(name, self._clock.current_time() - self._origin, data))

    @property
    def happenings(self) -> tuple[Happening, ...]:
        """All of them until now."""
        with self._lock:
            return tuple(self._happenings)

    def __str__(self) -> str:
        """A line for each: when, what, and what else is known of it."""
        return "\n".join(
            " ".join([f"{happening.at:10.3f}", happening.name, *(f"{k}={v!r}" for k, v in happening.data.items())])
            for happening in self.happenings
        )

    def expect(self, *expected: str, only: Iterable[str] = ()) -> None:
        """Assert that these happened, in this order and at these times, each as often as it stands here.

        Happenings that are not named here do not count: `expect("SYNC@0.0", "deadline@5.0")` says nothing of HYDRATE.

        Args:
            expected: `name@seconds`, compared to as many decimals as are written: `SYNC@0.1` is also one at 0.1004.
                A name alone may happen at any time.
            only: Names that count too, so that they must not happen where they do not stand in `expected`.

        Raises:
            AssertionError: Something else happened; the text shows the difference.
            ValueError: An expectation cannot be read.
        """
        read = [_read(text) for text in expected]
        counted = {name for name, _ in read} | set(only)
        self._compare(expected, read, counted)

    def expect_exactly(self, *expected: str) -> None:
        """Assert, as `expect` does, that these happened and nothing else."""
        self._compare(expected, [_read(text) for text in expected], None)

    def _compare(
        self, expected: tuple[str, ...], read: list[tuple[str, int | None]], counted: Collection[str] | None
    ) -> None:
        found = [one for one in self.happenings if counted is None or one.name in counted]
        # Each is written as precisely as what is expected of its name, so that no other digits make a difference.
        precision: dict[str, deque[int | None]] = {}
        for name, decimals in read:
            precision.setdefault(name, deque()).append(decimals)
        written = [_written(one, precision.get(one.name)) for one in found]
        if written == list(expected):
            return
        raise AssertionError(
            "\n".join(
                [
                    "what happened (+) is not what was expected (-):",
                    *(line for line in ndiff(list(expected), written) if not line.startswith("?")),
                    "",
                    "all that happened:",
                    str(self) or "nothing",
                ]
            )
        )

    def count(self, name: str) -> int:
        """How often it happened."""
        return sum(happening.name == name for happening in self.happenings)


def _read(text: str) -> tuple[str, int | None]:
    """The name, and to how many decimals its time is told; None if it is not."""
    if (found := _EXPECTED.fullmatch(text)) is not None:
        return found["name"], len(found["decimals"] or "")
    if "@" in text or text.split() != [text]:
        raise ValueError(f"an expectation is 'name@seconds', such as 'SYNC@0.1', or a name alone; got {text!r}")
    return text, None


def _written(happening: Happening, precision: deque[int | None] | None) -> str:
    decimals = precision.popleft() if precision else _DECIMALS
    return happening.name if decimals is None else f"{happening.name}@{_shown(happening.at, decimals)}"


def _shown(at: float, decimals: int) -> str:
    return f"{round(at, 9):.{decimals}f}"  # what sums of floats add in the last digits is no difference
