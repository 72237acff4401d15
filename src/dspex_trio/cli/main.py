"""The commands and their options."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from dspex_trio.cli.ending import Ending
from dspex_trio.cli.process import (
    StartupError,
    announce,
    first_error,
    json_or_text,
    set_up_logging,
)
from dspex_trio.config import InvalidSettings, Settings
from dspex_trio.redaction import secrets_in

LOG_LEVELS = ("debug", "info", "warning", "error")


def _lm_arguments(
    _context: click.Context, _option: click.Parameter, pairs: tuple[str, ...]
) -> dict[str, object] | None:
    found: dict[str, object] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier():
            raise click.BadParameter(f"{key!r} is not KEY=VALUE, such as temperature=0.2")
        found[key] = json_or_text(value)
    return found or None


_lm_arguments_option = click.option(
    "--lm-arg",
    "lm_args",
    metavar="KEY=VALUE",
    multiple=True,
    callback=_lm_arguments,
    help="A keyword for dspy.LM; JSON where it parses as JSON, else text.  May be repeated.",
)
_log_level_option = click.option("--log-level", type=click.Choice(LOG_LEVELS), default="info", show_default=True)
_end_with_stdin_option = click.option(
    "--end-with-stdin",
    is_flag=True,
    help="End as on SIGTERM when standard input does, as when whoever holds its other end is gone.",
)
STORE_GRACE = 1.0
EXIT_CODES = """\b
Exit codes:
  0          it was told to end, and did
  1          it could not start, or its end took longer than the grace
  2          the command line or a setting is wrong
  75         too many threads ignore that their trials are over: start it anew
  130, 143   a second SIGINT or SIGTERM ended it at once
"""


def _setting_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """An option for each setting, with its description and default; what is not given stays unset."""
    for name, field in reversed(Settings.model_fields.items()):
        if name == "lm_args":
            command = _lm_arguments_option(command)
            continue
        default = field.get_default(call_default_factory=True)
        several = isinstance(default, tuple)
        told = "  May be repeated." if several else "" if default is None else f"  [default: {default}]"
        flag = name.replace("_", "-")
        command = click.option(
            f"--{flag}/--no-{flag}" if isinstance(default, bool) else f"--{flag}",
            name,
            type=type(default) if isinstance(default, (int, float)) else str,
            default=None,
            multiple=several,
            help=f"{field.description}{told}",
        )(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="dspex-trio", prog_name="dspex-trio")
def main() -> None:
    """Run DSPy trials over gRPC, with deadlines that stop the work."""


@main.command(epilog=EXIT_CODES)
@_setting_options
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="A TOML file with settings.")
@_end_with_stdin_option
@_log_level_option
def serve(config_file: Path | None, log_level: str, *, end_with_stdin: bool, **options: Any) -> None:
    """Run a worker: execute trials that arrive over gRPC.

    Every option can also be set in the environment (DSPEX_TRIO_MAX_TRIALS=4) or in the TOML file (max_trials = 4).
    SIGTERM and SIGINT let running trials end for the grace period, and half a second later the process is gone; a
    second one ends it at once.
    """
    try:
        settings = Settings.load_from({k: v for k, v in options.items() if v not in (None, ())}, config_file)
    except InvalidSettings as error:
        raise click.UsageError(str(error)) from None
    set_up_logging(log_level, [*secrets_in(settings.lm_args), settings.token or ""])
    ending = Ending(settings.grace_seconds, with_stdin=end_with_stdin)
    from dspex_trio.cli.serve import serve_worker

    _run(ending, partial(serve_worker, settings))


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=50052,
    show_default=True,
    help="Port to listen on; 0 takes any free one.",
)
@click.option(
    "--ready-file", type=click.Path(path_type=Path), help="File that gets the decimal port once the server answers."
)
@click.option(
    "--persist", type=click.Path(path_type=Path), help="File that keeps the store; without one it is in memory only."
)
@click.option("--load", multiple=True, help="Python module that registers Elixir tools.  May be repeated.")
@_end_with_stdin_option
@_log_level_option
def store(
    host: str, port: int, ready_file: Path | None, log_level: str, *, end_with_stdin: bool, **options: Any
) -> None:
    """Run a stand-alone session store."""
    set_up_logging(log_level)
    ending = Ending(STORE_GRACE, with_stdin=end_with_stdin)
    from dspex_trio.cli.store import serve_store

    _run(ending, partial(serve_store, host, port, partial(announce, ready_file), **options))


@main.command()
@click.option("--lm", metavar="MODEL", help="A real language model in place of the local one.")
@_lm_arguments_option
@click.option(
    "--trials", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Run these trials instead."
)
def demo(**options: Any) -> None:
    """Run real trials end to end on this machine and show what became of them.

    Without --lm a small local model answers, over HTTP on loopback.
    """
    import trio

    from dspex_trio.demo.run import run_demo

    sys.exit(trio.run(partial(run_demo, **options)))


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def check(*, as_json: bool) -> None:
    """Prove that deadlines stop the work on the versions installed here.

    Trials outlive their deadline in every way that is known, against a provider on loopback that never answers. Takes
    about twenty seconds; exits with 1 where something does not end.
    """
    import trio

    from dspex_trio.cli.check import check as run_check

    sys.exit(trio.run(partial(run_check, as_json=as_json)))


def _run(ending: Ending, serve: Callable[..., Any]) -> None:
    try:
        ending.run(serve)
    except* StartupError as group:
        raise click.ClickException(str(first_error(group))) from None
