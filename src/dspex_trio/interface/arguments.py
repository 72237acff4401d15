"""What the public face is called with, and where from: refused at once, with a text that says what would be right."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from typing import Any, Final

import trio

_TELEMETRY: Final = ("trials", "calls", "channel")


def check_type(name: str, value: object, wanted: type | tuple[type, ...], says: str) -> None:
    """Refuse what is of another type, before something fails far from here.

    Args:
        name: The argument's.
        value: What was given.
        wanted: The types that it may have.
        says: What it is, in words: "a dspex.Settings".

    Raises:
        TypeError: It has none of them.
    """
    if not isinstance(value, wanted):
        raise TypeError(f"{name} is {says}; got {kind_of(value)}")


def kind_of(value: object) -> str:
    """What a value is, for an error: its type, or which class it is itself. Its own code is not asked."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return "None" if value is None else f"a value of type {type(value).__name__}"


def check_texts(name: str, value: object) -> None:
    """Refuse what is no mapping of text to text.

    Raises:
        TypeError: It is none; names the entry.
    """
    check_type(name, value, Mapping, "a mapping of text to text")
    for key, text in value.items():  # type: ignore[attr-defined]
        check_type(f"a key of {name}", key, str, "text")
        check_type(f"{name}[{key!r}]", text, str, "text")


def check_callback(name: str, callback: object, *arguments: str) -> None:
    """Refuse what cannot be called with so many arguments, or would have to be awaited.

    Raises:
        TypeError: It is so.
    """
    says = f"a function of {len(arguments)} argument{'s' * (len(arguments) > 1)}, ({', '.join(arguments)})"
    if not callable(callback):
        raise TypeError(f"{name} is {says}; got {kind_of(callback)}")
    if inspect.iscoroutinefunction(callback) or inspect.iscoroutinefunction(getattr(callback, "__call__", None)):  # noqa: B004 - whether that is async
        raise TypeError(f"{name} is {says}, which is called and not awaited; got an async function")
    try:
        signature = inspect.signature(callback)
    except (TypeError, ValueError):  # some of C's functions do not tell theirs
        return
    try:
        signature.bind(*arguments)
    except TypeError as error:
        raise TypeError(f"{name} is {says}; the one that was given takes {signature}: {error}") from None


def check_telemetry(telemetry: object) -> None:
    """Refuse what is no `dspex.Telemetry`, without importing OpenTelemetry.

    Raises:
        TypeError: It is neither that nor None.
    """
    if telemetry is not None and not all(callable(getattr(telemetry, name, None)) for name in _TELEMETRY):
        raise TypeError(f"telemetry is a dspex.Telemetry; got {kind_of(telemetry)}")


def needs_trio(what: str) -> None:
    """Refuse to go on where no Trio runs: everything below waits, and ends, by Trio's rules.

    Raises:
        RuntimeError: No Trio runs in this thread; says what does.
    """
    if trio.lowlevel.in_trio_run():
        return
    raise RuntimeError(
        f"needs Trio: {what} was called {_where()}. Run it by trio.run(main), or by anyio.run(main, "
        "backend='trio'), if need be in a thread of its own; in guest mode Trio runs inside of another loop"
    )


def _where() -> str:
    asyncio: Any = sys.modules.get("asyncio")
    if asyncio is None:
        return "outside of it"
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return "outside of it"
    return "under asyncio"
