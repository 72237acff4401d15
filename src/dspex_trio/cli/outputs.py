"""Refuse to write over what is read: found out before anything is done, by the file and not by its name."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import click

from dspex_trio.cli.process import beside


def refuse_overwriting(option: str, output: Path | None, inputs: Iterable[tuple[str, Path | None]]) -> None:
    """Refuse an output that is one of the inputs: by the same path or another, a symbolic link or a hard one.

    Args:
        option: What the output was given to.
        output: The file that will be written; None for none.
        inputs: What each input was given to, and its file; None for none.

    Raises:
        click.ClickException: It is one of them.
    """
    if output is None:
        return
    for name, given in inputs:
        if given is not None and _is_same(output, given):
            raise click.ClickException(
                f"{option} {output} would be written over {name} {given}: it is the same file. Choose another one"
            )


def refuse_ready_file(ready_file: Path | None, inputs: Iterable[tuple[str, Path | None]]) -> None:
    """Refuse a ready file that is one of the inputs, or whose first place is.

    Raises:
        click.ClickException: It is.
    """
    if ready_file is not None:
        known = list(inputs)
        for each in (ready_file, beside(ready_file)):
            refuse_overwriting("--ready-file", each, known)


def refuse_unwritable(option: str, output: Path | None) -> None:
    """Refuse an output for which there is no place.

    Raises:
        click.ClickException: It is a directory, or there is no directory that it could be in.
    """
    if output is None:
        return
    if output.is_dir():
        raise click.ClickException(f"{option} {output} is a directory")
    if not output.parent.is_dir():
        raise click.ClickException(f"{option} {output}: there is no directory {output.parent}")


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there yet
        return os.path.normcase(os.path.realpath(one)) == os.path.normcase(os.path.realpath(other))
