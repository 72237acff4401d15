import os
import subprocess
import sys

import pytest


@pytest.fixture
def run_pytest(tmp_path, preloaded):
    """Runs a test file in a process of its own, with these plugins beside the kit's and no others: what it said.

    The process is a `fresh` one where it matters that nothing is imported yet.
    """

    def run(code, *plugins, options=(), fresh=False):
        (tmp_path / "test_it.py").write_text(code)
        named = [each for plugin in ("dspex_trio.testing.plugin", *plugins) for each in ("-p", plugin)]
        arguments = ["-m", "pytest", "-q", "-p", "no:cacheprovider", *named, *options, "test_it.py"]
        environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        if not fresh:
            return preloaded(arguments, tmp_path, environment).stdout
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.stdout

    return run
