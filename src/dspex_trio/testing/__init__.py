"""The public test kit."""

from dspex_trio.testing.clock import VirtualClock

__all__ = ["VirtualClock"]
