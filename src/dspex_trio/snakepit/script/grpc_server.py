#!/usr/bin/env python3
"""`dspex-trio worker` under the name that a snakepit pool's sweeps for orphans look for."""

import sys

from dspex_trio.cli import main

if __name__ == "__main__":
    main(["worker", *sys.argv[1:]], prog_name="dspex-trio")
