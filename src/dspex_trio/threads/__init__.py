"""Worker threads: slots, jobs that can be told to end, and threads that are waited for only so long. Knows no DSPy."""

from dspex_trio.threads.job import Job, JobCancelled
from dspex_trio.threads.runner import StuckThread, Threads
from dspex_trio.threads.slots import Slot, Slots

__all__ = ["Job", "JobCancelled", "Slot", "Slots", "StuckThread", "Threads"]
