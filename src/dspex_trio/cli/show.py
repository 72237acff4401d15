"""`dspex-trio show`: trial records, listed or one of them in full."""

from __future__ import annotations

import datetime as dt
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

import click

from dspex_trio.cli.outputs import refuse_overwriting
from dspex_trio.observing.records import CannotRead, Recorded, listed, page, read_records, shown

T = TypeVar("T")

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_NARROWEST: Final = 80


def ago(_context: click.Context, _option: click.Parameter, text: str | None) -> dt.timedelta | None:
    """A length of time such as `90s`, `15m`, `1h` or `2d`."""
    if text is None:
        return None
    if (match := re.fullmatch(r"(\d{1,9})([smhd])", text)) is None:
        raise click.BadParameter(f"{text!r} is no time such as 90s, 15m, 1h or 2d")
    return dt.timedelta(seconds=int(match[1]) * _UNITS[match[2]])


def show(
    path: Path, *, trial: str | None, failed: bool, kind: str | None, since: dt.timedelta | None, html: Path | None
) -> None:
    """Print what was asked for."""
    read = path.glob("*") if path.is_dir() else [path]
    refuse_overwriting("--html", html, (("the records in", file) for file in read))
    try:
        found, unreadable = read_records(path, since=None if since is None else dt.datetime.now(dt.UTC) - since)
    except CannotRead as error:
        raise click.ClickException(str(error)) from None
    if unreadable:
        click.echo(f"{unreadable} lines are no records of this version, or were cut off; they are left out", err=True)
    chosen = _chosen(found, trial, failed=failed, kind=kind)
    if html is not None:
        _write(html, _rendered(_only(chosen, trial), page))
        click.echo(f"written to {html}", err=True)
        return
    # Whatever reads a pipe or a file wants all of it.
    width = max(shutil.get_terminal_size().columns, _NARROWEST) if sys.stdout.isatty() else None
    if trial is not None or len(found) == len(chosen) == 1:
        lines = _rendered(_only(chosen, trial), lambda only: list(shown(only, width=width)))
    else:
        lines = list(listed(chosen, width=width))
    for line in lines:
        click.echo(line)


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8", errors="replace")  # JSON can name half a character
    except OSError as error:
        raise click.ClickException(f"{file} cannot be written: {error.strerror or error}") from None


def _rendered(trial: Recorded, render: Callable[[Recorded], T]) -> T:
    """A record is what some file holds: where its parts are not what they should be, that is said in a line."""
    try:
        return render(trial)
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RecursionError) as error:
        raise click.ClickException(
            f"the record of trial {trial.trial_id!r} is damaged ({type(error).__name__}: {error})"
        ) from None


def _chosen(found: Sequence[Recorded], trial: str | None, *, failed: bool, kind: str | None) -> list[Recorded]:
    return [
        each
        for each in found
        if (trial is None or each.trial_id == trial)
        and (not failed or each.failure is not None)
        and (kind is None or each.kind == kind.upper())
    ]


def _only(chosen: Sequence[Recorded], trial: str | None) -> Recorded:
    """The one trial that was asked for; of several with that id, the last."""
    if not chosen:
        raise click.ClickException(f"there is no record of trial {trial!r}" if trial else "there is no such record")
    if trial is None and len(chosen) > 1:
        raise click.ClickException(f"there are {len(chosen)} records; name one by --trial")
    return chosen[-1]
