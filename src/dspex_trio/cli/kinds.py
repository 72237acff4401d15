"""An option that takes any number of kinds of failure, none of them for all."""

from __future__ import annotations

import click

from dspex_trio.model.errors import FailureKind

KINDS_OPTION = "--retry-failed"
_ALL = "ALL"


class KindsCommand(click.Command):
    """A command with `KINDS_OPTION`: the kinds that follow it are its own, and nothing else is."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does, which knows only options that take a number of values that is always the same."""
        return super().parse_args(ctx, _joined(args))


def failure_kinds(_context: click.Context, _option: click.Parameter, text: str | None) -> frozenset[FailureKind]:
    """The kinds that a text names, with commas between them."""
    if text is None:
        return frozenset()
    if text == _ALL:
        return frozenset(FailureKind)
    names = [name.strip().upper() for name in text.split(",") if name.strip()]
    if unknown := [name for name in names if name not in FailureKind.__members__]:
        known = ", ".join(FailureKind.__members__)
        raise click.BadParameter(f"{unknown[0]!r} is no kind of failure; there are {known}")
    return frozenset(FailureKind[name] for name in names)


def _joined(args: list[str]) -> list[str]:
    found: list[str] = []
    kinds: list[str] | None = None
    for at, arg in enumerate(args):
        if kinds is not None:
            if all(name.upper() in FailureKind.__members__ for name in arg.split(",")):
                kinds.append(arg)
                continue
            found.append(f"{KINDS_OPTION}={','.join(kinds) or _ALL}")
            kinds = None
        if arg == "--":
            return found + args[at:]
        if arg == KINDS_OPTION:
            kinds = []
        else:
            found.append(arg)
    return found if kinds is None else [*found, f"{KINDS_OPTION}={','.join(kinds) or _ALL}"]
