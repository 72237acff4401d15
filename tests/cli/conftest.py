"""Commands under way, each a process of its own."""

import os
import re
import subprocess
import sys
from functools import partial

import pytest
import trio


class Command:
    """A command under way; what it prints and logs is read line by line, so that nothing has to be polled."""

    def __init__(self, process):
        self.process = process
        self.told = ""

    async def until(self, text):
        with trio.fail_after(60):
            while not (found := re.search(text, self.told)):
                more = await self.process.stdout.receive_some()
                assert more, f"it ended before it said {text!r}:\n{self.told}"
                self.told += more.decode()
        return found

    async def ends(self):
        with trio.fail_after(60):
            async for more in self.process.stdout:
                self.told += more.decode()
            return await self.process.wait()

    async def address(self):
        """Where it serves, once it does."""
        return (await self.until(r"serving \w+ on (127\.0\.0\.1:\d+)"))[1]


@pytest.fixture
def start(tmp_path, nursery):
    """Start a command, beside a module `some_programs`; it is killed at the end of the test if it is still there."""

    async def run(*arguments, module="", **environment):
        (tmp_path / "some_programs.py").write_text(module)
        command = [sys.executable, "-u", "-m", "dspex_trio", *arguments, "--port", "0"]
        run_it = partial(
            trio.run_process,
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            cwd=tmp_path,
            env={**os.environ, **environment},
        )
        return Command(await nursery.start(run_it))

    return run
