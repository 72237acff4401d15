"""The commands and their options."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from dspex_trio.cli.process import StartupError, announce, json_or_text, run_until_signalled, set_up_logging

LOG_LEVELS = ("debug", "info", "warning", "error")


def _lm_arguments(
    _context: click.Context, _option: click.Parameter, pairs: tuple[str, ...]
) -> dict[str, object] | None:
    found: dict[str, object] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier():
            raise click.BadParameter(f"{pair!r} is not KEY=VALUE, such as temperature=0.2")
        found[key] = json_or_text(value)
    return found or None


def _lm_options(command: Callable[..., Any]) -> Callable[..., Any]:
    command = click.option(
        "--lm-arg",
        "lm_args",
        metavar="KEY=VALUE",
        multiple=True,
        callback=_lm_arguments,
        help="A keyword for dspy.LM; JSON where it parses as JSON, else text. May be repeated.",
    )(command)
    return click.option("--lm", metavar="MODEL", help="The language model of programs that name none.")(command)


def _server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    command = click.option("--log-level", type=click.Choice(LOG_LEVELS), default="info", show_default=True)(command)
    command = click.option(
        "--ready-file", type=click.Path(path_type=Path), help="Gets the decimal port once the server answers."
    )(command)
    command = click.option("--port", type=int, help="Port to listen on; 0 takes any free one.  [default: 50051]")(
        command
    )
    return click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")(command)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(metadata.version("dspex-trio"), prog_name="dspex-trio")
def main() -> None:
    """Run DSPy trials over gRPC, with deadlines that stop the work."""


@main.command()
@_server_options
@click.option("--store", metavar="embedded|HOST:PORT", help="Where session variables live.  [default: embedded]")
@click.option("--load", metavar="MODULE", multiple=True, help="Import MODULE at the start. May be repeated.")
@click.option(
    "--allow-import", metavar="PREFIX", multiple=True, help="Allow program classes under PREFIX. May be repeated."
)
@click.option(
    "--allow-lm-arg", metavar="NAME", multiple=True, help="Let requests set this LM keyword. May be repeated."
)
@_lm_options
@click.option("--max-trials", type=int, metavar="N", help="Trials at the same time.  [default: 8]")
@click.option("--max-queue", type=int, metavar="N", help="Trials that may wait.  [default: 64]")
@click.option("--max-trial-seconds", type=float, metavar="S", help="The most time a trial gets.  [default: 600]")
@click.option("--grace-seconds", type=float, metavar="S", help="For running trials, after a signal.  [default: 5]")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="A TOML file with settings.")
def serve(config_file: Path | None, log_level: str, **options: Any) -> None:
    """Run a worker: execute trials that arrive over gRPC.

    Every option can also be set in the environment (DSPEX_TRIO_MAX_TRIALS=4) or in the TOML file (max_trials = 4).
    SIGTERM and SIGINT let running trials end for the grace period; a second one ends at once.
    """
    from dspex_trio.config import InvalidSettings, Settings

    set_up_logging(log_level)
    try:
        settings = Settings.load_from({k: v for k, v in options.items() if v not in (None, ())}, config_file)
    except InvalidSettings as error:
        raise click.UsageError(str(error)) from None
    from dspex_trio.cli.serve import serve_worker

    _run(partial(serve_worker, settings))


@main.command()
@_server_options
def store(host: str | None, port: int | None, ready_file: Path | None, log_level: str) -> None:
    """Run a stand-alone session store, in memory."""
    from dspex_trio.cli.store import serve_store

    set_up_logging(log_level)
    _run(partial(serve_store, host or "127.0.0.1", 50052 if port is None else port, partial(announce, ready_file)))


@main.command()
@_lm_options
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


def _run(serve: Callable[..., Any]) -> None:
    try:
        run_until_signalled(serve)
    except* StartupError as group:
        raise click.ClickException(str(group.exceptions[0])) from None
