"""Every module can be imported where POSIX's own modules are missing, as on Windows."""

import subprocess
import sys

POSIX = ("fcntl", "grp", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty")
PROGRAM = """
import importlib, pkgutil, sys
for name in sys.argv[1].split(","):
    sys.modules[name] = None  # importing it fails from now on
import dspex_trio
found = [each.name for each in pkgutil.walk_packages(dspex_trio.__path__, "dspex_trio.")]
assert "dspex_trio.cli.run" in found and "dspex_trio.testing.plugin" in found
for name in found:
    if not name.endswith(("__main__", "grpc_server")):  # these run
        importlib.import_module(name)
"""


def test_no_module_needs_what_windows_has_not_to_be_imported():
    """`run` could not start there, for a lock that it takes much later."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, ",".join(POSIX)], check=False, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
