"""Options that commands share, and what is made of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from dspex_trio.cli.ending import Ending
from dspex_trio.cli.log.setup import LOG_FORMATS
from dspex_trio.cli.outputs import refuse_ready_file
from dspex_trio.cli.process import StartupError, first_error, json_or_text
from dspex_trio.runtime.settings import InvalidSettings, Settings

SettingsT = TypeVar("SettingsT", bound=Settings)

_FILES = ("tls_certificate", "tls_key", "tls_client_ca", "persist")
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


lm_arguments_option = click.option(
    "--lm-arg",
    "lm_args",
    metavar="KEY=VALUE",
    multiple=True,
    callback=_lm_arguments,
    help="A keyword for dspy.LM; JSON where it parses as JSON, else text.  May be repeated.",
)
log_format_option = click.option(
    "--log-format",
    type=click.Choice(LOG_FORMATS),
    default="auto",
    show_default=True,
    help="text for people, json for machines; auto: the one on a terminal, the other elsewhere.",
)


def log_level_from(default: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The option for the least that is logged."""
    return click.option("--log-level", type=click.Choice(LOG_LEVELS), default=default, show_default=True)


log_level_option = log_level_from("info")
end_with_stdin_option = click.option(
    "--end-with-stdin",
    is_flag=True,
    help="End as on SIGTERM when standard input does, as when whoever holds its other end is gone.",
)


def setting_options(command: Callable[..., Any], of: type[Settings] = Settings) -> Callable[..., Any]:
    """An option for each setting, with its description and default; what is not given stays unset."""
    for name, field in reversed(of.model_fields.items()):
        if name == "lm_args":
            command = lm_arguments_option(command)
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


def connection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The settings about connections, for a command that has no others of `Settings`."""
    for name, least in (
        ("undelivered_timeout", click.FloatRange(0, min_open=True)),
        ("max_undelivered_bytes", click.IntRange(64 * 2**20)),
        ("first_call_timeout", click.FloatRange(0, min_open=True)),
        ("max_connections_per_peer", click.IntRange(1)),
        ("max_connections", click.IntRange(1)),
    ):
        field = Settings.model_fields[name]
        flag = f"--{name.replace('_', '-')}"
        told = click.option(flag, type=least, default=field.default, show_default=True, help=field.description)
        command = told(command)
    return command


config_option = click.option(
    "--config", "config_file", type=click.Path(path_type=Path), help="A TOML file with settings."
)


def load_settings(of: type[SettingsT], options: Mapping[str, Any], config_file: Path | None) -> SettingsT:
    """The settings of that kind: options that were given, over the other sources."""
    try:
        settings = of.load_from({k: v for k, v in options.items() if v not in (None, ())}, config_file)
    except InvalidSettings as error:
        raise click.UsageError(str(error)) from None
    read = [(f"--{name.replace('_', '-')}", getattr(settings, name)) for name in _FILES]
    refuse_ready_file(settings.ready_file, [("--config", config_file), *read])
    return settings


def in_executors(settings: SettingsT) -> SettingsT:
    """The settings of a process of ours, where programs run in executors unless the operator said otherwise."""
    if "isolation" in settings.model_fields_set or not hasattr(os, "killpg"):
        return settings
    return settings.model_copy(update={"isolation": "executor"})


def run(ending: Ending, serve: Callable[..., Any]) -> None:
    """Run a server on Trio until it ends, and the process with it."""
    try:
        ending.run(serve)
    except* StartupError as group:
        raise click.ClickException(str(first_error(group))) from None
