"""Sessions and their variables: the client of a session store."""

from dspex_trio.sessions.calling import VersionConflict
from dspex_trio.sessions.changes import VariableChange
from dspex_trio.sessions.context import SessionContext
from dspex_trio.sessions.link import STORE_CHANNEL, ElixirToolsElsewhere, Store
from dspex_trio.sessions.sessions import Sessions

__all__ = [
    "STORE_CHANNEL",
    "ElixirToolsElsewhere",
    "SessionContext",
    "Sessions",
    "Store",
    "VariableChange",
    "VersionConflict",
]
