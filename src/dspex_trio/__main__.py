"""`python -m dspex_trio` is `dspex-trio`."""

from dspex_trio.cli import main

if __name__ == "__main__":
    main(prog_name="dspex-trio")
