"""Worker threads: slots, jobs that can be told to end, and threads that are waited for only so long. Knows no DSPy."""

from dspex_trio.threads.child_process import ChildFailed, ChildLost
from dspex_trio.threads.clock import ClockedThread, Parks, ThreadClock, Waiter
from dspex_trio.threads.fairness import keep_collections_short
from dspex_trio.threads.gate import gated_job, left_alone, waits_are_left_alone
from dspex_trio.threads.hop import run_in_loop
from dspex_trio.threads.job import Job, JobCancelled, add_lookup, current_job
from dspex_trio.threads.process_state import ProcessState, put_back_what_programs_change
from dspex_trio.threads.processes import Processes, open_processes
from dspex_trio.threads.raising import add_frame_lookup, carries_programs, keep_whole
from dspex_trio.threads.runner import StuckThread, Threads, open_threads
from dspex_trio.threads.seam import hooks, replaced
from dspex_trio.threads.slots import Slot, Slots
from dspex_trio.threads.subprocesses import stay_in_group

__all__ = [
    "ChildFailed",
    "ChildLost",
    "ClockedThread",
    "Job",
    "JobCancelled",
    "Parks",
    "ProcessState",
    "Processes",
    "Slot",
    "Slots",
    "StuckThread",
    "ThreadClock",
    "Threads",
    "Waiter",
    "add_frame_lookup",
    "add_lookup",
    "carries_programs",
    "current_job",
    "gated_job",
    "hooks",
    "keep_collections_short",
    "keep_whole",
    "left_alone",
    "open_processes",
    "open_threads",
    "put_back_what_programs_change",
    "replaced",
    "run_in_loop",
    "stay_in_group",
    "waits_are_left_alone",
]
