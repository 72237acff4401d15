"""What tests of several rooms start."""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest


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
