"""Descriptions of where tasks and threads are."""

from __future__ import annotations

import itertools
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Final

import trio

_FRAMES: Final = 6


def tasks() -> Iterator[trio.lowlevel.Task]:
    """Those of the current run; none outside of one."""
    if not trio.lowlevel.in_trio_run() or (root := trio.lowlevel.current_root_task()) is None:
        return
    waiting = [root]
    while waiting:
        task = waiting.pop()
        yield task
        waiting.extend(child for nursery in task.child_nurseries for child in nursery.child_tasks)


def where_it_waits(task: trio.lowlevel.Task) -> str:
    """The innermost frames of a task that are not Trio's own, formatted; empty where all of them are."""
    frames = [(frame, line) for frame, line in task.iter_await_frames() if not _is_trios(frame.f_code.co_filename)]
    summary = traceback.StackSummary.extract(iter(frames[-_FRAMES:]))
    return "".join(summary.format())


def _is_trios(file: str) -> bool:
    return Path(file).is_relative_to(Path(trio.__file__).parent)


def stack(frame: FrameType) -> str:
    """The innermost frames of a stack, formatted."""
    innermost = itertools.islice(traceback.walk_stack(frame), _FRAMES)
    summary = traceback.StackSummary.extract(innermost)
    summary.reverse()
    return "".join(summary.format())
