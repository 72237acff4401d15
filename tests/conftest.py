"""What tests of several rooms start."""

import json
import logging
import subprocess
import sys
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from dspex_trio.cli.log.setup import OF_THE_LOOP


@pytest.fixture(autouse=True)
def logging_as_it_was():
    """A command that a test runs in this process sets up logging for all of it, as for one that is its own."""
    root, hooks = list(logging.root.handlers), (threading.excepthook, sys.unraisablehook)
    yield
    if logging.getLogger("dspex_trio").propagate:
        return
    for name in OF_THE_LOOP:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    logging.root.handlers[:] = root
    logging.captureWarnings(capture=False)
    threading.excepthook, sys.unraisablehook = hooks


@pytest.fixture(scope="session")
def preloaded():
    """`preloaded(arguments, cwd, env)`: what `subprocess.run` gives of `python *arguments`, with DSPy imported already.

    In a process of its own that is like a new one otherwise; what is to see the imports themselves starts `python`.
    """
    command = [sys.executable, "-W", "error::RuntimeWarning", Path(__file__).with_name("preloaded.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def run(arguments, cwd, env, *, seconds=120):
            with TemporaryDirectory() as directory:
                files = [Path(directory, name) for name in ("stdout", "stderr")]
                job = {"arguments": [*map(str, arguments)], "cwd": str(cwd), "env": env, "seconds": seconds}
                process.stdin.write(json.dumps({**job, "output": [*map(str, files)]}) + "\n")
                process.stdin.flush()
                code = process.stdout.readline()
                assert code, f"{command} has ended"
                return subprocess.CompletedProcess(arguments, int(code), *(file.read_text() for file in files))

        yield run
        process.stdin.close()
