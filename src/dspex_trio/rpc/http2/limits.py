"""What an engine is told about its limits."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, rates per second. Their meaning for users is documented in `settings`."""

    max_message_size: int = 16 * 2**20
    max_header_list_size: int = 16 * 2**10
    max_frame_size: int = 2**20
    stream_window: int = 256 * 2**10
    connection_window: int = 4 * 2**20
    max_concurrent_streams: int = 1000
    max_buffered: int = 64 * 2**20
    reset_burst: int = 1000
    reset_rate: float = 500.0
    control_burst: int = 500
    control_rate: float = 50.0

    @property
    def max_header_block(self) -> int:
        """Up to here a header block is decoded, so that only its stream fails; above it the connection ends."""
        return max(4 * self.max_header_list_size, 2**16)
