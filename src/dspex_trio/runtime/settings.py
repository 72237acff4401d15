"""The settings of a runtime: arguments over environment (`DSPEX_TRIO_*`) over a TOML file over defaults."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from dspex_trio.model.errors import Stage
from dspex_trio.observing.redaction import Redactor, secrets_in

ENVIRONMENT_PREFIX = "DSPEX_TRIO_"


# What these hold is not shown.
_SECRETS: Final = frozenset({"lm_args", "token"})


class InvalidSettings(ValueError):
    """A setting cannot be used; the text names it, where it can be set, and what is wrong."""


def _words(value: Any) -> Any:
    """In the environment, several names are separated by commas."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _json_object(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise ValueError(f"is no JSON object: {error}") from error


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)]
LmArguments = Annotated[dict[str, Any], NoDecode, BeforeValidator(_json_object)]


class Settings(BaseSettings):
    """Everything an operator can choose. Immutable; unknown names are errors.

    Each is `--name-with-dashes` on the command line and `DSPEX_TRIO_NAME` in the environment; what it means stands in
    its description.
    """

    model_config = SettingsConfigDict(env_prefix=ENVIRONMENT_PREFIX, frozen=True, extra="forbid")

    host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address to listen on: a name, an IPv4 or IPv6 address, or `unix:/path` for a UNIX socket, which "
        "only its owner may connect to. Anything but loopback wants TLS and a token.",
    )
    port: int = Field(default=50051, ge=0, le=65535, description="Port to listen on; 0 takes any free one.")
    ready_file: Path | None = Field(
        default=None,
        description="File that gets the decimal port, or the address of a UNIX socket, by rename, once the server "
        "answers.",
    )
    tls_certificate: Path | None = Field(
        default=None, description="PEM file with the server's certificate chain; makes the port TLS."
    )
    tls_key: Path | None = Field(default=None, description="PEM file with the certificate's private key.")
    tls_client_ca: Path | None = Field(
        default=None, description="PEM file with the roots of clients' certificates; only such clients are served."
    )
    token: str | None = Field(
        default=None,
        min_length=8,
        repr=False,
        description="Bearer token that every call but health checks must carry. Better set in the environment.",
    )
    store: str = Field(
        default="embedded",
        pattern=r"^(embedded|.+:\d+|unix:.+)$",
        description="Where session variables live: `embedded`, or HOST:PORT of a store that runs elsewhere.",
    )
    persist: Path | None = Field(
        default=None, description="File that keeps the embedded store; without one it is in memory only."
    )
    variables_tool: str | None = Field(
        default=None,
        min_length=1,
        description="Elixir tool that reads variables, for a store without variable calls (snakepit 0.13): it is "
        'called with `{"names": […]}` and answers an object, name → value.',
    )
    load: Names = Field(
        default=(), description="Python modules to import at the start; they register programs and tools."
    )
    allow_import: Names = Field(
        default=(),
        description="Dotted prefixes, beside DSPy's programs and the loaded modules, under which a program's class may "
        "lie; such a module is imported when a request names it.",
    )
    allow_lm_arg: Names = Field(
        default=(),
        description="Keywords of the language model that requests may set although they could send the key elsewhere.",
    )
    allow_model: Names = Field(
        default=(),
        description="Models that requests may name beside those of the provider of `lm`: `anthropic/*`, for example. "
        "`*` stands for any characters but `/`, `**` for any.",
    )
    lm: str | None = Field(
        default=None, description="The language model of programs that name none, as `dspy.LM` takes it."
    )
    lm_args: LmArguments = Field(
        default_factory=dict, repr=False, description="Keywords for `dspy.LM`, such as `api_base` or `temperature`."
    )
    max_trials: int = Field(default=8, ge=1, description="Trials that run at the same time; each holds a thread.")
    max_queue: int = Field(
        default=64, ge=0, description="Trials that may wait for a slot; one more is OVERLOADED at once."
    )
    max_trial_seconds: float = Field(default=600.0, gt=0, description="The most time any trial gets, in seconds.")
    queue_timeout: float | None = Field(
        default=None, gt=0, description="The most that a trial waits for a slot, in seconds; then it is OVERLOADED."
    )
    hydrate_timeout: float | None = Field(
        default=None, gt=0, description="The most that a program's construction may take, in seconds."
    )
    sync_timeout: float | None = Field(
        default=None, gt=0, description="The most that reading a trial's variables may take, in seconds."
    )
    execute_timeout: float | None = Field(
        default=None, gt=0, description="The most that a program may run, in seconds."
    )
    max_message_bytes: int = Field(
        default=16 * 1024 * 1024, ge=1024, lt=2**31, description="The largest request or response, in bytes."
    )
    max_connections: int = Field(
        default=1000,
        ge=1,
        description="Connections at once, or three quarters of the files that the process may have open. For one more "
        "the idlest leaves that has made no call yet (with a token: none that carried it).",
    )
    max_connections_per_peer: int = Field(
        default=500, ge=1, description="Of these, connections from one IP address; in the same way."
    )
    first_call_timeout: float = Field(
        default=30.0,
        gt=0,
        description="The time for a connection's first call (with a token: the first that carries it), in seconds; "
        "then it is closed.",
    )
    max_undelivered_bytes: int = Field(
        default=256 * 1024 * 1024,
        ge=1024,
        description="The most bytes of replies that wait for callers that read slowly; beyond, the call is "
        "RESOURCE_EXHAUSTED whose caller has read nothing for the longest time. At least `max_message_bytes`.",
    )
    undelivered_timeout: float = Field(
        default=30.0,
        gt=0,
        description="A call whose caller reads nothing of a reply for so long is RESOURCE_EXHAUSTED, in seconds.",
    )
    max_sessions: int = Field(
        default=1024, ge=1, description="Session contexts kept at once; the longest unused one goes first."
    )
    session_idle_seconds: float = Field(
        default=300.0, gt=0, description="A session context unused for so long is dropped."
    )
    reply_margin_ms: float = Field(
        default=10.0,
        ge=0,
        le=1000,
        description="The least that is taken off the caller's time so that the failure arrives before its own timer. "
        "It grows with the time given and with how late answers have been.",
    )
    reply_margin_share: float = Field(
        default=0.02,
        ge=0,
        le=0.5,
        description="The part of the caller's time that is taken off where that is more than `reply_margin_ms`.",
    )
    reply_margin_share_ms: float = Field(
        default=500.0, ge=0, le=60_000, description="The most that `reply_margin_share` comes to."
    )
    switch_interval_ms: float = Field(
        default=0.1,
        ge=0.05,
        le=5,
        description="How long a computing thread keeps the interpreter when another one wants it; Python's own is 5. "
        "It is 1 while none has computed for a second, unless this is more.",
    )
    raise_in_threads: bool = Field(
        default=True,
        description="Whether a program that neither asks nor waits is ended by an exception raised into its thread.",
    )
    isolation: Literal["thread", "executor", "process"] = Field(
        default="thread",
        description="Where programs run: `thread`, in threads of the process that keeps the deadlines; `executor`, in "
        "executor processes that several trials share; `process`, each trial in an executor process of its own. The "
        "commands serve, worker and run take executor if nothing is said, open_runtime takes thread.",
    )
    executors: int | None = Field(
        default=None, ge=1, description="Executor processes; by default one for each core, and no more than trials."
    )
    executor_grace_seconds: float = Field(
        default=2.0,
        gt=0,
        description="An executor that gives no sign of life for so long while one of its trials is past its deadline "
        "is killed and replaced, in seconds.",
    )
    max_executor_memory_mb: int | None = Field(
        default=None,
        ge=64,
        description="An executor whose own memory grows above this, in MiB, is replaced once its trials have ended.",
    )
    isolate: Names = Field(
        default=(), description="Programs, as `python_class` names them, that run in child processes in any case."
    )
    max_trials_per_child: int = Field(
        default=0,
        ge=0,
        description="A child process is replaced after so many trials; 0 keeps it. With 1 no trial finds what another "
        "one left in its process.",
    )
    max_stuck_threads: int | None = Field(
        default=None,
        ge=1,
        description="Trials whose threads cannot be ended, until the worker ends itself to be replaced; by default as "
        "many as `max_trials`.",
    )
    grace_seconds: float = Field(
        default=5.0, ge=0, description="How long running trials may go on after SIGTERM or SIGINT, in seconds."
    )
    record: Path | None = Field(
        default=None, description="Directory that gets a record of every trial, a file of JSON lines for each day."
    )
    otel: bool = Field(
        default=False,
        description="Whether spans and metrics go to OpenTelemetry (`pip install dspex-trio[otel]`); where to is said "
        "by the `OTEL_*` variables.",
    )
    otel_content: bool = Field(
        default=False,
        description="Whether prompts and replies, and what tools are given and return, stand in the spans.",
    )
    metrics_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="Port that serves the metrics as Prometheus reads them, at /metrics; 0 takes any free one. Needs "
        "the same extra.",
    )
    metrics_host: str = Field(
        default="127.0.0.1",
        description="Address to listen on for `metrics_port`; whoever can reach it can read the metrics.",
    )
    allow_repr: bool = Field(
        default=False,
        description="Whether an object in a prediction that is no JSON is shown by its `repr`, cut and redacted.",
    )
    memory_cache: bool = Field(
        default=True, description="DSPy's cache in memory, salted by endpoint and, without `shared_cache`, by session."
    )
    disk_cache: bool = Field(
        default=False, description="DSPy's cache on disk, shared by all processes of the user; salted in the same way."
    )
    shared_cache: bool = Field(
        default=False,
        description="Whether a session is answered from what others have asked, too; time and cost then tell that they "
        "have.",
    )

    def stage_budgets(self) -> dict[Stage, float]:
        """The most that each stage may take, in seconds; those without a limit are left out."""
        found = {
            Stage.HYDRATE: self.hydrate_timeout,
            Stage.SYNC: self.sync_timeout,
            Stage.EXECUTE: self.execute_timeout,
        }
        return {stage: seconds for stage, seconds in found.items() if seconds is not None}

    def redactor(self) -> Redactor:
        """Takes what is secret here out of text."""
        return Redactor([*secrets_in(self.lm_args), self.token or ""], os.environ)

    @classmethod
    def load_from(cls, arguments: Mapping[str, Any], config_file: Path | None = None) -> Self:
        """Put the sources together: `arguments` win over the environment, it over `config_file`, it over the defaults.

        Args:
            arguments: Setting → value, of those that were really given.
            config_file: A TOML file whose top-level keys are settings.

        Raises:
            InvalidSettings: A value is wrong, a name is unknown, or the file cannot be read.
        """
        if config_file is not None and not config_file.is_file():
            raise InvalidSettings(f"--config {config_file}: there is no such file")

        class FromSources(cls):  # type: ignore[valid-type, misc]
            @classmethod
            def settings_customise_sources(
                cls,
                settings_cls: type[BaseSettings],
                init_settings: PydanticBaseSettingsSource,
                env_settings: PydanticBaseSettingsSource,
                **_others: PydanticBaseSettingsSource,
            ) -> tuple[PydanticBaseSettingsSource, ...]:
                file = (TomlConfigSettingsSource(settings_cls, config_file),) if config_file is not None else ()
                return (init_settings, env_settings, *file)

        try:
            found = FromSources(**arguments)
        except ValidationError as error:
            raise InvalidSettings(_explain(error)) from None
        except (SettingsError, ValueError) as error:
            raise InvalidSettings(f"the settings cannot be read: {error}") from error
        return cls.model_construct(_fields_set=found.model_fields_set, **dict(found))

    @model_validator(mode="after")
    def _certificate_with_key(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key go together")
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise ValueError("tls_client_ca needs tls_certificate and tls_key")
        return self

    @model_validator(mode="after")
    def _room_for_one_reply(self) -> Self:
        if self.max_undelivered_bytes < self.max_message_bytes:
            raise ValueError("max_undelivered_bytes must be at least max_message_bytes, or no large reply would arrive")
        return self

    @model_validator(mode="after")
    def _children_can_be_killed(self) -> Self:
        if (self.isolation == "process" or self.isolate) and not hasattr(os, "killpg"):
            raise ValueError("isolation in child processes needs process groups, which this system has not")
        return self

    @model_validator(mode="after")
    def _own_store_to_persist(self) -> Self:
        if self.persist is not None and self.store != "embedded":
            raise ValueError("persist is for the embedded store; another store keeps its own sessions")
        return self

    @field_validator("allow_import")
    @classmethod
    def _not_of_dspy(cls, prefixes: tuple[str, ...]) -> tuple[str, ...]:
        for prefix in prefixes:
            if prefix.partition(".")[0] == "dspy":
                raise ValueError(
                    "DSPy's own programs are allowed, and no module of it is imported because a request names it; "
                    "import another one at the start, with --load"
                )
        return prefixes

    @field_validator("allow_model")
    @classmethod
    def _model_patterns(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            if not pattern.isprintable() or " " in pattern:
                raise ValueError(f"{pattern!r} is no model's name, such as openai/gpt-4o-mini, and no pattern of names")
        return patterns

    @field_validator("store")
    @classmethod
    def _address_of_a_store(cls, store: str) -> str:
        if store != "embedded":
            from dspex_trio.rpc.client.target import addresses  # noqa: PLC0415 - the commands' help needs no gRPC

            addresses(store)
        return store

    @field_validator("load")
    @classmethod
    def _module_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not all(part.isidentifier() for part in name.split(".")):
                raise ValueError(f"{name!r} is no module name; give it as in an import, such as my_package.programs")
        return names


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors(include_url=False):
        name = str(problem["loc"][0]) if problem["loc"] else "settings"
        if not problem["loc"]:
            lines.append(problem["msg"].removeprefix("Value error, "))
        elif problem["type"] == "extra_forbidden":
            lines.append(f"{name}: there is no such setting")
        else:
            spelled = f"--{name.replace('_', '-')}, {ENVIRONMENT_PREFIX}{name.upper()}"
            got = "" if name in _SECRETS else f"; got {problem['input']!r}"  # it may hold a key
            lines.append(f"{name} ({spelled}): {problem['msg'].removeprefix('Value error, ')}{got}")
    return "\n".join(lines)
