"""`dspex-trio worker`: the command that a snakepit pool starts."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from dspex_trio.cli.ending import Ending
from dspex_trio.cli.log.setup import LogFormat, set_up_logging
from dspex_trio.cli.options import (
    LOG_LEVELS,
    config_option,
    in_executors,
    load_settings,
    log_format_option,
    run,
    setting_options,
)
from dspex_trio.cli.process import StartupError
from dspex_trio.observing.redaction import secrets_in
from dspex_trio.runtime.settings import InvalidSettings
from dspex_trio.snakepit import guards
from dspex_trio.snakepit.pool import Pool
from dspex_trio.snakepit.settings import WorkerSettings

logger: Final = logging.getLogger("dspex_trio")


class ElixirLost(click.ClickException):
    """Elixir is gone, and the worker depends on it. Exits with EX_SOFTWARE, so that a pool starts another."""

    exit_code = 70


EXIT_CODES: Final = """\b
Exit codes:
  0          it was told to end, and did
  1          it could not start, or its end took longer than the grace
  2          the command line or a setting is wrong
  70         Elixir did not answer any more
  75         too many threads ignore that their trials are over: start it anew
  129, 130, 143   a second SIGHUP, SIGINT or SIGTERM ended it at once
"""

_POOL_OPTIONS: Final = (
    click.option("--elixir-address", metavar="HOST:PORT", help="Where Elixir's BridgeServer listens."),
    click.option("--snakepit-run-id", help="The pool's run, by which it finds its orphans."),
    click.option("--snakepit-instance-name", help="For the pool alone.", expose_value=False),
    click.option("--snakepit-instance-token", help="For the pool alone.", expose_value=False),
    click.option("--adapter", help="Of snakepit's own worker; it means nothing here.", expose_value=False),
    click.option("--heartbeat-enabled", "enabled", flag_value=True, default=None, help="Send heartbeats to Elixir."),
    click.option("--heartbeat-interval-ms", "interval_ms", type=click.IntRange(0), help="Time between them."),
    click.option("--heartbeat-timeout-ms", "timeout_ms", type=click.IntRange(0), help="Time for an answer."),
    click.option(
        "--heartbeat-max-missed", "max_missed_heartbeats", type=click.IntRange(0), help="So many, and it ends."
    ),
    click.option("--heartbeat-initial-delay-ms", "initial_delay_ms", type=click.IntRange(0), help="Time to the first."),
    click.option(
        "--heartbeat-dependent/--heartbeat-independent",
        "dependent",
        default=None,
        help="Whether it ends without Elixir.",
    ),
)
_POOL_NAMES: Final = (
    "elixir_address",
    "snakepit_run_id",
    "enabled",
    "interval_ms",
    "timeout_ms",
    "max_missed_heartbeats",
    "initial_delay_ms",
    "dependent",
)


def _pool_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_POOL_OPTIONS):
        command = option(command)
    return command


@click.command(epilog=EXIT_CODES, context_settings={"ignore_unknown_options": True})
@_pool_options
@partial(setting_options, of=WorkerSettings)
@config_option
@click.option("--log-level", type=click.Choice([*LOG_LEVELS, "none"]), help="[default: SNAKEPIT_LOG_LEVEL, else info]")
@log_format_option
@click.option("--health-check", is_flag=True, help="Load everything that is needed, say so, and exit.")
@click.argument("others", nargs=-1, type=click.UNPROCESSED)
def worker(
    config_file: Path | None,
    *,
    log_level: str | None,
    log_format: LogFormat,
    others: tuple[str, ...],
    health_check: bool,
    **options: Any,
) -> None:
    """Run a worker of a snakepit pool.

    It takes the arguments and the environment that a pool gives its Python process, beside the options of
    `dspex-trio serve`. Unless --store says otherwise, sessions live in Elixir, at --elixir-address. Unknown arguments
    are ignored.
    """
    pool = Pool.found({name: options.pop(name) for name in _POOL_NAMES}, os.environ)
    try:
        settings = in_executors(load_settings(WorkerSettings, options, config_file)).for_pool(pool)
    except InvalidSettings as error:
        raise click.UsageError(str(error)) from None
    level = log_level or pool.log_level
    known = level if level in LOG_LEVELS else "critical" if level == "none" else "info"
    lines = set_up_logging(known, [*secrets_in(settings.lm_args), settings.token or ""], log_format)
    if flags := [each.partition("=")[0] for each in others if each.startswith("-")]:
        logger.info("arguments that mean nothing here are ignored: %s", ", ".join(flags))
    ending = Ending(settings.seconds_to_end(pool), lines, with_stdin=_ends_with_stdin(pool))
    if not health_check and (pool.run_id or not guards.may_outlive_parent()):
        guards.end_with_parent(partial(ending.end, "the parent ended"))  # the imports below take seconds
    from dspex_trio.cli.worker_process import check_health, prepare, work

    try:
        if health_check:
            check_health(settings)
            click.echo("everything that a worker needs is here")
            return
    except StartupError as error:
        raise click.ClickException(str(error)) from None
    prepare(pool, ending)
    run(ending, partial(work, settings, pool))


def _ends_with_stdin(pool: Pool) -> bool:
    """Whether the end of standard input is that of whoever started this; without a pool, nobody may have held it."""
    if not guards.stdin_is_held():
        return False
    return bool(pool.run_id) or not (guards.may_outlive_parent() or guards.stdin_has_ended())
