"""`serve`: a runtime behind gRPC, with health, reflection, TLS, a token, and an orderly end."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from types import NoneType
from typing import TYPE_CHECKING, Any, Final

import trio

from dspex_trio import rpc
from dspex_trio.interface.arguments import check_telemetry, check_type, needs_trio
from dspex_trio.model.errors import WorkerStuck
from dspex_trio.observing.telemetry import open_metrics
from dspex_trio.rpc.server.listeners import reachable
from dspex_trio.runtime.embedded import Runtime, open_runtime
from dspex_trio.runtime.settings import InvalidSettings, Settings

if TYPE_CHECKING:
    import dspy

    from dspex_trio.observing.telemetry.providers import Telemetry

logger: Final = logging.getLogger(__name__)

# Once the last trial has ended, replies may leave as long as there is grace, in seconds: at least so long that they
# can, and at most so long that somebody who only watches does not keep the worker.
_LAST_REPLIES: Final = (0.25, 1.0)


async def serve(  # noqa: ASYNC128 - serve_runtime tells when it has started
    settings: Settings | None = None,
    *,
    lm: dspy.BaseLM | None = None,
    telemetry: Telemetry | None = None,
    stopping: trio.Event | None = None,
    on_open: Callable[[Runtime], object] = lambda _runtime: None,
    task_status: trio.TaskStatus[list[rpc.Listener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve trials over gRPC until cancelled, or until `stopping` is set and what is running has ended.

    Beside the program service (and the store, if it is embedded) it serves `grpc.health.v1` and server reflection. When
    `stopping` is set, health turns NOT_SERVING, no new trials are taken, running ones get `settings.grace_seconds` and
    then end as SHUTTING_DOWN, and connections close once the last reply has left. It ends in the same way, with
    liveness NOT_SERVING too, when too many threads are stuck.

    Args:
        settings: What the operator chose.
        lm: A ready language model for programs that name none.
        telemetry: Where spans and metrics go; by default as the settings `otel` and `metrics_port` say.
        stopping: Set it to end in an orderly way.
        on_open: Given the runtime once it is open, before anything is served.
        task_status: `started` gets the listeners once trials can be run; health and reflection answer before that.

    Raises:
        OSError: The port cannot be bound, or a TLS file cannot be read.
        RuntimeError, TypeError: As `open_runtime` says.
        CannotLoad, UnsupportedDspy: As `open_runtime` says.
        InvalidSettings: As `open_runtime` says; or metrics cannot be served, or a TLS file cannot be used.
        WorkerStuck: Threads of `settings.max_stuck_threads` trials could not be ended; the orderly end is over.
    """
    needs_trio("serve")
    check_type("settings", settings, (Settings, NoneType), "a dspex.Settings")
    check_telemetry(telemetry)
    check_type("stopping", stopping, (trio.Event, NoneType), "a trio.Event")
    settings = settings or Settings()
    async with (
        open_metrics(settings, telemetry) as measured,
        open_runtime(
            settings, lm=lm, telemetry=measured, front=lm is None and settings.isolation != "thread", wait=False
        ) as runtime,
    ):
        on_open(runtime)
        await serve_runtime(runtime, runtime.servicers, stopping=stopping, task_status=task_status)


async def serve_runtime(
    runtime: Runtime,
    servicers: Iterable[rpc.Servicer],
    *,
    stopping: trio.Event | None = None,
    listeners: Sequence[trio.abc.Listener[Any]] | None = None,
    interceptors: Sequence[rpc.Interceptor] = (),
    patience: Callable[[rpc.Call], float] | None = None,
    task_status: trio.TaskStatus[list[rpc.Listener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """As `serve`, with a runtime that is open, for these servicers in place of its own.

    Args:
        runtime: Where trials run.
        servicers: What to serve.
        stopping: Set it to end in an orderly way.
        listeners: Where to serve, in place of the settings' host and port.
        interceptors: Functions around each call that carries the token, if there is one; inside of its span.
        patience: How many times its `grpc-timeout` the caller of a call really waits; see `rpc.serve`.
        task_status: `started` gets the listeners once the server answers.
    """
    async with trio.open_nursery() as nursery:
        served = tuple(servicers)
        drain = rpc.Drain()
        health = rpc.Health(rpc.service_names(served))
        token = [] if runtime.settings.token is None else [rpc.bearer_token(runtime.settings.token)]
        seen = [] if runtime.telemetry is None else [runtime.telemetry.calls()]
        around = [*seen, *token, *interceptors]
        serving = partial(
            _serve_calls,
            runtime.settings,
            served,
            health,
            drain,
            listeners=listeners,
            interceptors=around,
            patience=patience,
        )
        health.set_ready(False)
        bound: list[rpc.Listener] = await nursery.start(serving)
        for warning in warnings_about(reachable(bound), runtime.settings):
            logger.warning("%s", warning)
        await runtime.ready()
        health.set_ready(True)
        task_status.started(bound)
        stuck = await _until_it_ends(runtime, stopping if stopping is not None else trio.Event())
        if stuck is not None:
            health.set_alive(False)
        health.shut_down()
        grace = runtime.settings.grace_seconds
        grace_ends = trio.current_time() + grace
        await runtime.drain(grace)
        least, most = _LAST_REPLIES
        drain.start(max(least, min(grace_ends - trio.current_time(), most)))
    if stuck is not None:
        raise stuck


def warnings_about(addresses: Sequence[str], settings: Settings) -> Iterator[str]:
    """What a server says that listens where other machines may reach it, without a token or TLS."""
    if not addresses:
        return
    where = ", ".join(addresses)
    if settings.token is None and settings.tls_client_ca is None:
        yield (
            f"whoever reaches {where} may run programs here with this worker's keys: set a token (DSPEX_TRIO_TOKEN) or "
            f"--tls-client-ca, or listen on 127.0.0.1"
        )
    if settings.tls_certificate is None:
        yield (
            f"what is sent to and from {where} can be read and changed on its way, a token too: set --tls-certificate "
            f"and --tls-key, or have something in front that does TLS"
        )


async def _until_it_ends(runtime: Runtime, stopping: trio.Event) -> WorkerStuck | None:
    """Wait until somebody says that it is to end, or until it must: then the error says why."""
    stuck = None
    async with trio.open_nursery() as nursery:

        async def watch() -> None:
            nonlocal stuck
            stuck = await runtime.until_stuck()
            nursery.cancel_scope.cancel()

        nursery.start_soon(watch)
        await stopping.wait()
        nursery.cancel_scope.cancel()
    return stuck


async def _serve_calls(  # noqa: ASYNC128 - rpc.serve tells when it has started
    settings: Settings,
    servicers: tuple[rpc.Servicer, ...],
    health: rpc.Health,
    drain: rpc.Drain,
    *,
    listeners: Sequence[trio.abc.Listener[Any]] | None,
    interceptors: Sequence[rpc.Interceptor],
    patience: Callable[[rpc.Call], float] | None,
    task_status: trio.TaskStatus[list[rpc.Listener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    await rpc.serve(
        [*servicers, health, *rpc.reflection(servicers)],
        host=settings.host,
        port=settings.port,
        listeners=listeners,
        tls=_tls(settings),
        settings=rpc.ServerSettings(
            max_message_size=settings.max_message_bytes,
            max_response_size=settings.max_message_bytes,
            max_connections=settings.max_connections,
            max_connections_per_peer=settings.max_connections_per_peer,
            first_call_timeout=settings.first_call_timeout,
            max_undelivered_bytes=settings.max_undelivered_bytes,
            undelivered_timeout=settings.undelivered_timeout,
        ),
        interceptors=interceptors,
        drain=drain,
        patience=patience,
        task_status=task_status,
    )


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    try:
        return rpc.server_tls(settings.tls_certificate, settings.tls_key, client_ca=settings.tls_client_ca)
    except OSError as error:  # which names no file
        files = ", ".join(
            str(each) for each in (settings.tls_certificate, settings.tls_key, settings.tls_client_ca) if each
        )
        raise InvalidSettings(f"the TLS files cannot be used ({files}): {error}") from error
