"""What tests of several rooms start."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def preloaded():
    """`preloaded(arguments, cwd, env)` → (exit code, output) of `python *arguments`, DSPy and the rest being imported.

    In a process of its own that is like a new one otherwise; what is to see the imports themselves starts `python`.
    """
    command = [sys.executable, "-W", "error::RuntimeWarning", Path(__file__).with_name("preloaded.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def run(arguments, cwd, env, *, seconds=120):
            output = Path(cwd, "output.txt")
            output.unlink(missing_ok=True)
            job = {"arguments": [*map(str, arguments)], "cwd": str(cwd), "env": env, "seconds": seconds}
            process.stdin.write(json.dumps({**job, "output": str(output)}) + "\n")
            process.stdin.flush()
            code = process.stdout.readline()
            assert code, f"{command} has ended"
            return int(code), output.read_text()

        yield run
        process.stdin.close()
