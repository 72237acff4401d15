"""What an engine is told about its limits."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Sizes in bytes, rates per second. Their meanings and their defaults are those of `settings`."""

    max_message_size: int
    max_header_list_size: int
    max_frame_size: int
    stream_window: int
    connection_window: int
    max_concurrent_streams: int
    max_buffered: int
    reset_burst: int
    reset_rate: float
    control_burst: int
    control_rate: float

    @property
    def max_header_block(self) -> int:
        """Up to here a header block is read, if only to be forgotten, so that its stream alone fails.

        Above it a server takes no more calls on the connection, and a client's connection ends.
        """
        return max(16 * self.max_header_list_size, 2**18)
