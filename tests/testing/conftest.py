import os
import subprocess
import sys

import pytest


@pytest.fixture
def run_pytest(tmp_path):
    """Runs a test file in a process of its own, with these plugins beside the kit's and no others."""

    def run(code, *plugins, options=()):
        (tmp_path / "test_it.py").write_text(code)
        arguments = [each for plugin in ("dspex_trio.testing.plugin", *plugins) for each in ("-p", plugin)]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, *options, "test_it.py"],
            cwd=tmp_path,
            env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.stdout

    return run
