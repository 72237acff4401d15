"""A process that has imported what takes seconds to import, and runs each Python program that it is told in a fork.

A line of JSON on standard input for each, as `tests/conftest.py` writes them; a line with its exit code comes back.
"""

import faulthandler
import gc
import json
import os
import runpy
import sys
from pathlib import Path

import dspy  # noqa: F401 - imported for the forks
import pytest  # noqa: F401
import trio  # noqa: F401

import dspex_trio.executors.child
import dspex_trio.runtime.serving
import dspex_trio.testing.systems  # noqa: F401


def run(job):
    """Be `python *arguments`, as `-m module …` or `script …`."""
    os.chdir(job["cwd"])
    os.environ.clear()
    os.environ.update(job["env"])
    stdout, stderr = (Path(file).open("w") for file in job["output"])  # noqa: SIM115 - as long as the process
    nothing = os.open(os.devnull, os.O_RDONLY)
    for file, standard in (nothing, 0), (stdout.fileno(), 1), (stderr.fileno(), 2):
        os.dup2(file, standard)
    faulthandler.dump_traceback_later(job["seconds"], exit=True, file=stderr)
    sys.path[1:1] = filter(None, job["env"].get("PYTHONPATH", "").split(os.pathsep))
    first, *rest = job["arguments"]
    if first == "-m":
        sys.argv, sys.path[0] = rest, job["cwd"]
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = [first, *rest], str(Path(first).parent)
        runpy.run_path(first, run_name="__main__")


def main():
    gc.freeze()
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            run(json.loads(line))
            return
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}\n")
        sys.stdout.flush()


main()
