import os
import subprocess
import sys

import pytest

PROGRAM = """
import logging
from dspex_trio.cli.log.setup import set_up_logging
set_up_logging("info", ["a-secret-of-the-settings"])
import {library}
logging.getLogger({logger!r}).warning("the key is %s", "a-secret-of-the-settings")
"""


@pytest.mark.parametrize(("library", "logger"), [("litellm", "LiteLLM"), ("dspy", "dspy.some.module")])
def test_a_library_with_a_handler_of_its_own_tells_no_secrets_and_nothing_twice(library, logger):
    """Both print what they log themselves, as they are imported."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(library=library, logger=logger)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
    )
    told = done.stdout + done.stderr
    assert "a-secret-of-the-settings" not in told
    assert told.count("the key is [redacted]") == 1
