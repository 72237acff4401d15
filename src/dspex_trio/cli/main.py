"""The commands and their options."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import click

from dspex_trio.cli.ending import Ending
from dspex_trio.cli.kinds import KINDS_OPTION, KindsCommand, failure_kinds
from dspex_trio.cli.log.setup import LogFormat, set_up_logging
from dspex_trio.cli.options import (
    config_option,
    end_with_stdin_option,
    in_executors,
    lm_arguments_option,
    load_settings,
    log_format_option,
    log_level_from,
    log_level_option,
    run,
    setting_options,
)
from dspex_trio.cli.process import open_standard_streams
from dspex_trio.cli.show import ago
from dspex_trio.cli.store_commands import store
from dspex_trio.cli.worker import worker
from dspex_trio.observing.redaction import secrets_in
from dspex_trio.runtime.settings import Settings

EXIT_CODES = """\b
Exit codes:
  0          it was told to end, and did
  1          it could not start, or its end took longer than the grace
  2          the command line or a setting is wrong
  75         too many threads ignore that their trials are over: start it anew
  129, 130, 143   a second SIGHUP, SIGINT or SIGTERM ended it at once
"""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="dspex-trio", prog_name="dspex-trio")
def main() -> None:
    """Run DSPy trials over gRPC, with deadlines that stop the work."""
    open_standard_streams()


@main.command(epilog=EXIT_CODES)
@setting_options
@config_option
@end_with_stdin_option
@log_level_option
@log_format_option
def serve(
    config_file: Path | None, log_level: str, log_format: LogFormat, *, end_with_stdin: bool, **options: Any
) -> None:
    """Run a worker: execute trials that arrive over gRPC.

    Every option can also be set in the environment (DSPEX_TRIO_MAX_TRIALS=4) or in the TOML file (max_trials = 4).
    SIGTERM, SIGINT and SIGHUP let running trials end for the grace period, and half a second later the process is gone;
    a second one ends it at once. SIGUSR1 logs what is under way.
    """
    settings = in_executors(load_settings(Settings, options, config_file))
    lines = set_up_logging(log_level, [*secrets_in(settings.lm_args), settings.token or ""], log_format)
    ending = Ending(settings.grace_seconds, lines, with_stdin=end_with_stdin)
    from dspex_trio.cli.serve import serve_worker

    run(ending, partial(serve_worker, settings))


main.add_command(store)


@main.command()
@click.option("--lm", metavar="MODEL", help="A real language model in place of the local one.")
@lm_arguments_option
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
@click.option(
    "--patches",
    is_flag=True,
    help="List instead what an open runtime changes in its process, why, and whether that is in place.",
)
def check(*, as_json: bool, patches: bool) -> None:
    """Prove that deadlines stop the work on the versions installed here.

    Trials outlive their deadline in every way that is known, against a provider on loopback that never answers. Takes
    about twenty seconds; exits with 1 where something does not end.
    """
    import trio

    from dspex_trio.cli.check import check as run_check
    from dspex_trio.cli.check import check_patches

    if patches:
        sys.exit(check_patches(as_json=as_json))
    sys.exit(trio.run(partial(run_check, as_json=as_json)))


main.add_command(worker)


@main.command()
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@click.option("--trial", metavar="ID", help="Show this trial in full.")
@click.option("--failed", is_flag=True, help="List failures only.")
@click.option("--kind", metavar="KIND", help="List trials that ended so: OK, DEADLINE_EXCEEDED, LM_ERROR, …")
@click.option("--since", callback=ago, metavar="TIME", help="List trials that ended within the last 90s, 15m, 1h, 2d.")
@click.option("--html", metavar="FILE", type=click.Path(path_type=Path), help="Write the trial as one page to FILE.")
def show(path: Path, **options: Any) -> None:
    """Show trial records: those of a directory that was given to --record, or of one of its files."""
    from dspex_trio.cli.show import show as show_records

    show_records(path, **options)


@main.command("run", cls=KindsCommand)
@click.argument("trials", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--results", type=click.Path(path_type=Path), help="Where results go.  [default: TRIALS.results.jsonl]")
@click.option(
    "--program", type=click.Path(path_type=Path, exists=True), help="JSON of the program of trials that name none."
)
@click.option(
    "--sweep", multiple=True, metavar="VARIABLE=VALUE,VALUE", help="Run every trial with every value.  May be repeated."
)
@click.option(
    "--worker",
    multiple=True,
    metavar="HOST:PORT",
    help="Who runs the trials; without it, this process.  May be repeated.",
)
@click.option("--token", envvar="DSPEX_TRIO_TOKEN", help="Bearer token of the workers. Better set in the environment.")
@click.option(
    "--concurrency", type=click.IntRange(1), default=8, show_default=True, help="Trials at once on each worker."
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=600.0,
    show_default=True,
    help="Seconds for each trial.",
)
@click.option(
    "--retries", type=click.IntRange(0), default=3, show_default=True, help="More tries where another may help."
)
@click.option(
    KINDS_OPTION,
    metavar="[KIND…]",
    callback=failure_kinds,
    help="Run trials again whose result is a failure: of these kinds, or of any.",
)
@click.option("--metric", metavar="NAME", help="exact_match, contains, or module:function of yours.")
@click.option(
    "--metric-timeout",
    type=click.FloatRange(0, min_open=True),
    default=600.0,
    show_default=True,
    help="Seconds for the metric of each trial.",
)
@click.option("--export", type=click.Path(path_type=Path), help="Write the results as a table: .csv or .parquet.")
@click.option("--lm", metavar="MODEL", help="Without --worker: the language model of programs that name none.")
@lm_arguments_option
@click.option(
    "--load",
    multiple=True,
    metavar="MODULE",
    help="Without --worker: modules that register programs.  May be repeated.",
)
@config_option
@log_level_from("warning")  # progress is told otherwise
@log_format_option
def run_file(
    trials: Path,
    *,
    results: Path | None,
    config_file: Path | None,
    lm: str | None,
    lm_args: dict[str, Any] | None,
    load: tuple[str, ...],
    log_level: str,
    log_format: LogFormat,
    **options: Any,
) -> None:
    """Run the trials of a file, one JSON object a line, and keep their results.

    An interrupted run goes on where it stopped when it is started again. Exits with 0 when every trial has ended, well
    or badly; with 1 when some did not, because their worker could not be reached; with 130 when it was interrupted.
    """
    from dspex_trio.cli.run import RunArguments
    from dspex_trio.cli.run import run as run_trials

    settings = in_executors(load_settings(Settings, {"lm": lm, "lm_args": lm_args, "load": load}, config_file))
    secrets = [*secrets_in(settings.lm_args), settings.token or "", options["token"] or ""]
    lines = set_up_logging(log_level, secrets, log_format)
    kept = results or trials.with_name(f"{trials.name}.results.jsonl")
    sys.exit(run_trials(RunArguments(trials, kept, config=config_file, **options), settings, lines))
