"""A store's records as protobuf messages."""

from __future__ import annotations

import weakref

from dspex_trio.store.records import Change, Record
from dspex_trio.wire import encode_variable
from dspex_trio.wire.generated import bridge_pb2, timestamp_pb2


class StoredMessages:
    """Makes messages of records, each once: a variable is read far more often than it is written."""

    def __init__(self) -> None:
        self._variables: weakref.WeakKeyDictionary[Record, bridge_pb2.Variable] = weakref.WeakKeyDictionary()

    def variable(self, record: Record) -> bridge_pb2.Variable:
        """A variable; the message is not the caller's to change."""
        message = self._variables.get(record)
        if message is None:
            message = self._variables[record] = encode_variable(record.variable)
            message.last_updated_at.CopyFrom(timestamp(record.updated_at))
            if record.variable.metadata.get("source", "").lower() == "python":
                message.source = bridge_pb2.Variable.PYTHON
        return message

    def update(self, change: Change) -> bridge_pb2.VariableUpdate:
        """A change, for who watches."""
        variable = change.record.variable
        return bridge_pb2.VariableUpdate(
            variable_id=variable.id,
            variable=self.variable(change.record),
            update_source=variable.metadata.get("source", ""),
            update_metadata=variable.metadata,
            timestamp=timestamp(change.record.updated_at),
            update_type=change.kind,
        )


def timestamp(seconds: float) -> timestamp_pb2.Timestamp:
    """A time in seconds since the epoch."""
    whole, nanos = divmod(round(seconds * 1e9), 10**9)
    return timestamp_pb2.Timestamp(seconds=whole, nanos=nanos)
