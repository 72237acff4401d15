"""What is left of trials for people to look at: records, written by workers and read back."""

from dspex_trio.observing.records.page import page
from dspex_trio.observing.records.reading import CannotRead, Recorded, read_records
from dspex_trio.observing.records.records import CannotRecord, Records, open_records
from dspex_trio.observing.records.terminal import listed, shown

__all__ = [
    "CannotRead",
    "CannotRecord",
    "Recorded",
    "Records",
    "listed",
    "open_records",
    "page",
    "read_records",
    "shown",
]
