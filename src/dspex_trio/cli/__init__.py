"""The command line: `dspex-trio` and `python -m dspex_trio`."""

from dspex_trio.cli.main import main

__all__ = ["main"]
