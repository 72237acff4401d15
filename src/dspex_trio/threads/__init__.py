"""Worker threads: slots, jobs that can be cancelled, and threads that are waited for only so long. Knows no DSPy."""

from dspex_trio.threads.ladder.clock import ClockedThread, Parks, ThreadClock, Waiter
from dspex_trio.threads.ladder.fairness import keep_collections_short
from dspex_trio.threads.ladder.interrupt import (
    add_frame_lookup,
    allow_interrupts_in,
    allowing_interrupts_in,
    never_interrupt,
)
from dspex_trio.threads.ladder.into_loop import run_in_loop
from dspex_trio.threads.ladder.job import Job, add_lookup, current_job
from dspex_trio.threads.ladder.runner import StuckThread, Threads, open_threads
from dspex_trio.threads.ladder.slots import Slot, Slots
from dspex_trio.threads.patches.excepthooks import JobCancelled
from dspex_trio.threads.patches.gate import gated_job, left_alone, waits_are_left_alone
from dspex_trio.threads.patches.install import hooks, patches, replaced
from dspex_trio.threads.patches.process_state import ProcessState, put_back_what_programs_change
from dspex_trio.threads.patches.registry import Installed, Patch, PatchState
from dspex_trio.threads.patches.subprocesses import stay_in_group

__all__ = [
    "ClockedThread",
    "Installed",
    "Job",
    "JobCancelled",
    "Parks",
    "Patch",
    "PatchState",
    "ProcessState",
    "Slot",
    "Slots",
    "StuckThread",
    "ThreadClock",
    "Threads",
    "Waiter",
    "add_frame_lookup",
    "add_lookup",
    "allow_interrupts_in",
    "allowing_interrupts_in",
    "current_job",
    "gated_job",
    "hooks",
    "keep_collections_short",
    "left_alone",
    "never_interrupt",
    "open_threads",
    "patches",
    "put_back_what_programs_change",
    "replaced",
    "run_in_loop",
    "stay_in_group",
    "waits_are_left_alone",
]
