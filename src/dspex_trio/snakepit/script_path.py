"""`python -m dspex_trio.snakepit.script_path` prints where grpc_server.py lies."""

from __future__ import annotations

from pathlib import Path
from typing import Final

SCRIPT: Final = Path(__file__).with_name("script") / "grpc_server.py"
"""It has a directory of its own: Python puts a script's directory in front of everything that can be imported."""

if __name__ == "__main__":
    print(SCRIPT)  # noqa: T201 - that is its purpose
