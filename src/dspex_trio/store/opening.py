"""A session store of ours, opened: in memory, or with a file that keeps it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from dspex_trio.sessions import MemoryStore
from dspex_trio.store.journal import open_persistent
from dspex_trio.store.servicer import SessionStore, ToolFunctions


@asynccontextmanager
async def open_store(
    file: Path | None, tools: ToolFunctions, redact: Callable[[str], str]
) -> AsyncIterator[SessionStore]:
    """A store, with stand-ins for Elixir tools.

    Args:
        file: Where it is kept; None keeps it in memory only.
        tools: Stand in for Elixir tools.
        redact: Takes secrets out of what a tool's failure says.

    Raises:
        CannotPersist: The file cannot be used; from the body, in a group, when it cannot be written any more.
    """
    if file is None:
        yield SessionStore(MemoryStore(), tools=tools, redact=redact)
    else:
        async with open_persistent(file) as (memory, journal):
            yield SessionStore(memory, journal=journal, tools=tools, redact=redact)
