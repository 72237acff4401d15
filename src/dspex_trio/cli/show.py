"""`dspex-trio show`: trial records, listed or one of them in full."""

from __future__ import annotations

import datetime as dt
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from dspex_trio.observe import CannotRead, Recorded, listed, page, read_records, shown

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_NARROWEST: Final = 80
# A log file has no width; a line longer than this is of no use in one either.
_WIDTH_OF_A_FILE: Final = 200


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
    try:
        found, unreadable = read_records(path)
    except CannotRead as error:
        raise click.ClickException(str(error)) from None
    if unreadable:
        click.echo(f"{unreadable} lines are no records of this version, or were cut off; they are left out", err=True)
    chosen = _chosen(found, trial, failed=failed, kind=kind, since=since)
    if html is not None:
        _write(html, page(_only(chosen, trial)))
        click.echo(f"written to {html}", err=True)
        return
    width = shutil.get_terminal_size((_WIDTH_OF_A_FILE, 0)).columns
    if trial is not None or len(found) == len(chosen) == 1:
        lines = shown(_only(chosen, trial), width=max(width, _NARROWEST))
    else:
        lines = listed(chosen, width=max(width, _NARROWEST))
    for line in lines:
        click.echo(line)


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8", errors="replace")  # JSON can name half a character
    except OSError as error:
        raise click.ClickException(f"{file} cannot be written: {error.strerror or error}") from None


def _chosen(
    found: Sequence[Recorded], trial: str | None, *, failed: bool, kind: str | None, since: dt.timedelta | None
) -> list[Recorded]:
    earliest = dt.datetime.now(dt.UTC) - since if since is not None else None
    return [
        each
        for each in found
        if (trial is None or each.trial_id == trial)
        and (not failed or each.failure is not None)
        and (kind is None or each.kind == kind.upper())
        and (earliest is None or each.ended_at >= earliest)
    ]


def _only(chosen: Sequence[Recorded], trial: str | None) -> Recorded:
    """The one trial that was asked for; of several with that id, the last."""
    if not chosen:
        raise click.ClickException(f"there is no record of trial {trial!r}" if trial else "there is no such record")
    if trial is None and len(chosen) > 1:
        raise click.ClickException(f"there are {len(chosen)} records; name one by --trial")
    return chosen[-1]
