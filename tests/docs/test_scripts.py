"""The shell scripts of the docs do what they are there for."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
[SCRIPT] = [
    code
    for code in re.findall(r"(?ms)^```bash\n(#!/bin/bash\n.*?)^```", (ROOT / "docs/snakepit.md").read_text())
    if "script_path" in code
]


@pytest.fixture
def stand_in(tmp_path):
    """The script that stands in for the Python of a pool with snakepit's own adapter."""
    path = tmp_path / "python"
    path.write_text(SCRIPT.replace("/srv/venv/bin/python", sys.executable))
    path.chmod(0o755)

    def run(*arguments):
        done = subprocess.run(
            [path, *arguments], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False
        )
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.mark.parametrize("name", ["grpc_server.py", "grpc_server_threaded.py"])
def test_snakepits_own_script_becomes_the_worker(stand_in, name):
    code, told, log = stand_in(f"/app/priv/python/{name}", "--health-check", "--adapter", "any.Adapter")
    assert (code, told) == (0, "everything that a worker needs is here\n"), log


def test_everything_else_that_a_pool_asks_its_python_is_answered_by_python(stand_in):
    """Snakepit 0.13 asks for the version, and whether grpc can be imported, before it starts anything."""
    assert stand_in("-c", "import sys; print(sys.version_info[0])") == (0, "3\n", "")
    assert stand_in("-c", "import no_such_module")[0] == 1
