"""The pending changes of a session's watcher: at most one for each variable."""

from __future__ import annotations

import trio

from dspex_trio.store.memory import MemoryStore
from dspex_trio.store.records import Change, NotStored
from dspex_trio.wire.generated import bridge_pb2


class Watch:
    """The changes that one WatchVariables call waits for.

    Of a variable that changes faster than its watcher reads, the last change stays: so no buffer grows.

    Attributes:
        ended: Whether the session is gone.
        changed: Set when there is something to take.
        stop: To be called when the watcher goes.
    """

    def __init__(self, memory: MemoryStore, request: bridge_pb2.WatchVariablesRequest) -> None:
        """Begin to watch; raises NotStored without the session or a named variable, Full with too many watchers."""
        self.ended = False
        self.changed = trio.Event()
        self._pending: dict[str, Change] = {}
        named = memory.get_many(request.session_id, request.variable_identifiers)
        for identifier, record in named.items():
            if record is None:
                raise NotStored(f"Variable not found: {identifier}")
        # By name, so that a variable that is deleted and registered again is still the one that was meant.
        self._names = {record.variable.name for record in named.values() if record is not None}
        if request.include_initial_values:
            for record in memory.list(request.session_id):
                self._add_change(Change("initial", record))
        self.stop = memory.watch(request.session_id, self._add_change)

    def take(self) -> list[Change]:
        """The changes since the last call."""
        changes = list(self._pending.values())
        self._pending.clear()
        self.changed = trio.Event()
        return changes

    def _add_change(self, change: Change | None) -> None:
        if change is None:
            self.ended = True
        elif not self._names or change.record.variable.name in self._names:
            self._pending.pop(change.record.variable.name, None)  # it moves to the end
            self._pending[change.record.variable.name] = change
        self.changed.set()
