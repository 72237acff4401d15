"""What is left of trials for people to look at: records."""

from dspex_trio.observe.records import CannotRecord, Records, open_records

__all__ = ["CannotRecord", "Records", "open_records"]
