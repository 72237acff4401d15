"""Sessions and their variables: the client of a session store, and the core of the store in memory."""

from dspex_trio.sessions.calling import VersionConflict
from dspex_trio.sessions.changes import VariableChange
from dspex_trio.sessions.context import SessionContext
from dspex_trio.sessions.link import STORE_CHANNEL, ElixirToolsElsewhere, Store
from dspex_trio.sessions.sessions import Sessions
from dspex_trio.store.memory import MemoryStore
from dspex_trio.store.place import CannotPersist
from dspex_trio.store.records import StoreLimits

__all__ = [
    "STORE_CHANNEL",
    "CannotPersist",
    "ElixirToolsElsewhere",
    "MemoryStore",
    "SessionContext",
    "Sessions",
    "Store",
    "StoreLimits",
    "VariableChange",
    "VersionConflict",
]
