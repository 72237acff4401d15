"""The standard health service: who serves, who does not, and the difference between alive and ready."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Final

import trio

from dspex_trio.rpc.generated.health_grpc import HealthServicer
from dspex_trio.rpc.generated.health_pb2 import (
    HealthCheckRequest,
    HealthCheckResponse,
    HealthListRequest,
    HealthListResponse,
)
from dspex_trio.rpc.server.call import Call
from dspex_trio.rpc.status import RpcError, StatusCode

# Names to probe for. The empty name, the server as a whole, says the same as readiness.
LIVENESS: Final = "liveness"
READINESS: Final = "readiness"

_SERVING: Final = HealthCheckResponse.SERVING
_NOT_SERVING: Final = HealthCheckResponse.NOT_SERVING
_SERVICE_UNKNOWN: Final = HealthCheckResponse.SERVICE_UNKNOWN


class Health(HealthServicer):
    """`grpc.health.v1.Health` with Check, Watch and List.

    All services are SERVING at first. A process that should get no more calls is not ready; one that should be replaced
    is not alive. Give `shut_down` to `Drain.before`, so that probes see NOT_SERVING before anything else happens.

    Args:
        services: Full names of the services to report on.
    """

    def __init__(self, services: Iterable[str] = ()) -> None:
        self._serving = dict.fromkeys(["", READINESS, LIVENESS, *services], True)
        self._shut_down = False
        self._changed = trio.Event()

    def set(self, service: str, *, serving: bool) -> None:
        """Say whether one service is serving; ignored once `shut_down` was called, except for liveness."""
        if not self._shut_down or service == LIVENESS:
            self._serving[service] = serving
            self._tell()

    def set_ready(self, ready: bool) -> None:  # noqa: FBT001 - the name says what it means
        """Say whether the process should get calls: readiness, the server as a whole, and every service."""
        if not self._shut_down:
            self._serving.update(dict.fromkeys(self._serving.keys() - {LIVENESS}, ready))
            self._tell()

    def set_alive(self, alive: bool) -> None:  # noqa: FBT001 - as above
        """Say whether the process should go on at all."""
        self.set(LIVENESS, serving=alive)

    def shut_down(self) -> None:
        """Everything but liveness is NOT_SERVING from now on; watchers are told and their calls end."""
        self.set_ready(False)
        self._shut_down = True
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def _response(self, service: str) -> HealthCheckResponse:
        serving = self._serving.get(service)
        if serving is None:
            return HealthCheckResponse(status=_SERVICE_UNKNOWN)
        return HealthCheckResponse(status=_SERVING if serving else _NOT_SERVING)

    def Check(self, request: HealthCheckRequest, call: Call) -> HealthCheckResponse:  # noqa: ARG002, N802
        """The state of one service."""
        if request.service not in self._serving:
            raise RpcError(StatusCode.NOT_FOUND, "the service is not known here")
        return self._response(request.service)

    def List(self, request: HealthListRequest, call: Call) -> HealthListResponse:  # noqa: ARG002, N802
        """The states of all services."""
        return HealthListResponse(statuses={name: self._response(name) for name in self._serving})

    async def Watch(  # noqa: N802
        self,
        request: HealthCheckRequest,
        call: Call,  # noqa: ARG002
    ) -> AsyncIterator[HealthCheckResponse]:
        """The state of one service now and whenever it changes; ends when the server shuts down."""
        last = None
        while True:
            # Taken before the state is looked at, so that a change while the caller is slow is not missed.
            changed = self._changed
            response = self._response(request.service)
            if response.status != last:
                last = response.status
                yield response
            if self._shut_down:
                raise RpcError(StatusCode.UNAVAILABLE, "the server is shutting down")
            await changed.wait()
