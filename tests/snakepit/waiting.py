"""Waiting for what other processes do, which can only be polled."""

import socket
import time
from pathlib import Path


def alive(pid):
    """Whether a process runs; one that ended and that nobody asked about does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def free_port():
    """A port that nobody listens on at this moment; 0.4 hands them out by counting."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return str(listener.getsockname()[1])


def wait_until(condition, seconds=20):
    """Wait for something that another process does; that can only be polled."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


def wait_until_gone(pids):
    """Wait for the end of processes that are not children of this one."""
    wait_until(lambda: not any(map(alive, pids)))
