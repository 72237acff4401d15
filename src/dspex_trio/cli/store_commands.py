"""`dspex-trio store` and the commands below it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from dspex_trio.cli.ending import Ending
from dspex_trio.cli.log.setup import LogFormat, set_up_logging
from dspex_trio.cli.options import connection_options, end_with_stdin_option, log_format_option, log_level_option, run
from dspex_trio.cli.outputs import refuse_ready_file
from dspex_trio.cli.process import announce

STORE_GRACE: Final = 1.0

_persist_option = click.option(
    "--persist",
    type=click.Path(path_type=Path),
    envvar="DSPEX_TRIO_PERSIST",
    help="File that keeps the store, as --persist of the store and of `serve`.",
)
_overwrite_option = click.option("--overwrite", is_flag=True, help="Put it in the place of a file that is there.")


@click.group(invoke_without_command=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on, or unix:/path.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=50052,
    show_default=True,
    help="Port to listen on; 0 takes any free one.",
)
@click.option(
    "--ready-file",
    type=click.Path(path_type=Path),
    help="File that gets the decimal port once the server answers, or the address of a UNIX socket.",
)
@click.option(
    "--persist", type=click.Path(path_type=Path), help="File that keeps the store; without one it is in memory only."
)
@click.option("--load", multiple=True, help="Python module that registers Elixir tools.  May be repeated.")
@connection_options
@end_with_stdin_option
@log_level_option
@log_format_option
@click.pass_context
def store(
    context: click.Context,
    /,
    host: str,
    port: int,
    *,
    ready_file: Path | None,
    persist: Path | None,
    load: tuple[str, ...],
    log_level: str,
    log_format: LogFormat,
    end_with_stdin: bool,
    **limits: Any,
) -> None:
    """Run a stand-alone session store, or copy and check the file of one."""
    if context.invoked_subcommand is not None:
        return
    refuse_ready_file(ready_file, [("--persist", persist)])
    ending = Ending(STORE_GRACE, set_up_logging(log_level, log_format=log_format), with_stdin=end_with_stdin)
    from dspex_trio.cli.store import serve_store

    announced = partial(announce, ready_file)
    run(ending, partial(serve_store, host, port, announced, persist=persist, load=load, limits=limits))


@store.command()
@click.argument("file", type=click.Path(path_type=Path))
@_persist_option
@_overwrite_option
@click.pass_context
def backup(context: click.Context, /, file: Path, persist: Path | None, *, overwrite: bool) -> None:
    """Copy the store's file to FILE, also while a store or a worker uses it.

    FILE is the store as it was at one moment, and it is there at once or not at all.
    """
    _copy(_persist(context, persist), file, overwrite=overwrite)


@store.command()
@click.argument("file", type=click.Path(path_type=Path))
@_persist_option
@_overwrite_option
@click.pass_context
def restore(context: click.Context, /, file: Path, persist: Path | None, *, overwrite: bool) -> None:
    """Make the store's file of FILE, a backup. No store may be using it."""
    _copy(file, _persist(context, persist), overwrite=overwrite)


@store.command("check")
@click.argument("file", type=click.Path(path_type=Path))
def check_file(file: Path) -> None:
    """Read all of FILE, a store's file or a backup, and say whether it is whole."""
    from dspex_trio.store.copies import check_file as check
    from dspex_trio.store.place import CannotPersist

    try:
        found = check(file)
    except CannotPersist as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{file} is whole: {found.sessions} sessions, {found.variables} variables, layout {found.layout}")


def _persist(context: click.Context, given: Path | None) -> Path:
    """The store's file, which may be said before the name of the command, too."""
    path = given if context.parent is None else given or context.parent.params["persist"]
    if path is None:
        raise click.UsageError("say which file the store has: --persist FILE")
    return Path(path)


def _copy(source: Path, target: Path, *, overwrite: bool) -> None:
    from dspex_trio.store.copies import copy_store
    from dspex_trio.store.place import CannotPersist

    try:
        copied = copy_store(source, target, overwrite=overwrite)
    except CannotPersist as error:
        hint = " (--overwrite replaces it)" if "exists already" in str(error) else ""
        raise click.ClickException(f"{error}{hint}") from None
    click.echo(f"{target} holds {copied.sessions} sessions and {copied.variables} variables")
