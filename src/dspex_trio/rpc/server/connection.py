"""One connection of a server: its calls, its limits in time, its end."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import trio

from dspex_trio.rpc.client.keepalive import end_when_idle, end_when_old, keep_alive
from dspex_trio.rpc.http2.events import (
    Event,
    GoawayReceived,
    GoodbyeSaid,
    MessageReceived,
    PingAnswered,
    PingReceived,
    RequestEnded,
    RequestStarted,
    ResponseEnded,
    ResponseStarted,
    SettingsChanged,
    StreamFailed,
    StreamReset,
    WindowOpened,
)
from dspex_trio.rpc.http2.interface import ErrorCode, ServerEngine
from dspex_trio.rpc.http2.server_engine import H2ServerEngine
from dspex_trio.rpc.server.arrivals import Arrivals
from dspex_trio.rpc.server.call import Call
from dspex_trio.rpc.server.call_handling import ServerCall, respond, respond_at_once
from dspex_trio.rpc.server.deadlines import Deadline, DeadlineWatch, margin_of
from dspex_trio.rpc.server.interceptors import Interceptor
from dspex_trio.rpc.server.service import Route
from dspex_trio.rpc.server.undelivered import Undelivered
from dspex_trio.rpc.settings import ServerSettings
from dspex_trio.rpc.status import Status, StatusCode
from dspex_trio.rpc.transport import Connection, log

_SHUTTING_DOWN: Final = Status(StatusCode.UNAVAILABLE, "the server is shutting down")
_TOO_LATE: Final = Status(StatusCode.DEADLINE_EXCEEDED, "the deadline was exceeded")
_MAX_PING_STRIKES: Final = 3
# For the last bytes of an evicted connection, in seconds: meanwhile there is one more than allowed.
_EVICTION: Final = 0.1
# A thousand handlers that begin or clean up at once would hold up everybody.
_CALLS_PER_TURN: Final = 8
_DRAIN_PING: Final = b"draining"
# How long a client may take to answer the ping between the two GOAWAYs before the second is sent regardless.
_ROUND_TRIP: Final = 1.0


class ServerConnection(Connection[ServerEngine]):
    """One client.

    Args:
        stream: Any Trio stream, after TLS's handshake.
        peer: How handlers see the client.
        certificate: The client's certificate under mutual TLS.
        routes: Methods by path.
        interceptors: What runs around each call.
        settings: Limits.
        watch: The server's deadlines.
        arrivals: When what is read has arrived.
        undelivered: The server's replies that wait for their readers.
        patience: As `serve` says.

    Attributes:
        known: Whether it has made a call that was let in, or shown a certificate.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        *,
        peer: str,
        certificate: bytes | None,
        routes: Mapping[str, Route],
        interceptors: Sequence[Interceptor],
        settings: ServerSettings,
        watch: DeadlineWatch,
        arrivals: Arrivals,
        undelivered: Undelivered,
        patience: Callable[[Call], float] | None = None,
    ) -> None:
        super().__init__(
            stream,
            H2ServerEngine(settings.limits()),
            output_buffer=settings.output_buffer,
            close_timeout=settings.close_timeout,
        )
        self._peer = peer
        self._certificate = certificate
        self._routes = routes
        self._interceptors = interceptors
        self._settings = settings
        self._watch = watch
        self._arrivals = arrivals
        self._undelivered = undelivered
        self._write_watch: Deadline | None = None
        self._patience = patience
        self._live: dict[int, ServerCall] = {}  # until the handler has ended, so that a slot is really free
        self._begun: deque[tuple[ServerCall, Route]] = deque()  # of these, those whose handlers are not started yet
        self._answered: dict[int, Callable[[], object]] = {}  # the latest calls whose handlers asked for `on_given_up`
        self._tasks: trio.Nursery | None = None
        self._calls: trio.Nursery | None = None
        self._reading = trio.CancelScope()
        self._last_allowed: int | None = None  # set by the second GOAWAY
        self._draining = False
        self._grace = math.inf
        self._pong = trio.Event()
        self._idle_or_busy = trio.lowlevel.ParkingLot()
        self._ping_strikes = 0
        self._last_ping = -math.inf
        self.known = certificate is not None
        self._first_call: Deadline | None = None

    @property
    def calls(self) -> int:
        """How many handlers are running."""
        return len(self._live)

    async def calls_changed(self) -> None:
        """Wait until the first call begins or the last one ends."""
        await self._idle_or_busy.park()

    async def run(self) -> None:
        """Serve until the client leaves, breaks the rules, or is drained; when cancelled, calls get UNAVAILABLE."""
        self._reading.deadline = trio.current_time() + self._settings.handshake_timeout
        if not self.known and self._settings.first_call_timeout < math.inf:
            until = trio.current_time() + self._settings.first_call_timeout
            self._first_call = self._watch.add(until, self._end_stranger)
        try:
            async with trio.open_nursery() as tasks:
                self._tasks = tasks
                tasks.start_soon(self.write)
                self._start_upkeep(tasks)
                try:
                    await self._serve_calls()
                finally:
                    self._tasks = None  # a drain that begins now finds nothing left to say goodbye to
                    self._say_farewell()
                    self.close()
                    tasks.cancel_scope.cancel()  # all but the writer, which is shielded until it is done
        finally:
            for timer in (self._first_call, self._write_watch):
                if timer is not None:
                    timer.cancel()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 2 * self.close_timeout):
                await self.hang_up()
            self.engine.close()

    def _start_upkeep(self, tasks: trio.Nursery) -> None:
        settings = self._settings
        if settings.keepalive_time < math.inf:
            tasks.start_soon(self._keep_alive)
        if settings.max_connection_idle < math.inf:
            tasks.start_soon(end_when_idle, self, settings.max_connection_idle)
        if settings.max_connection_age < math.inf:
            shake = random.uniform(-1, 1)  # noqa: S311 - no secret
            tasks.start_soon(end_when_old, self, settings, shake)

    async def _keep_alive(self) -> None:
        await keep_alive(self, self._settings.keepalive_time, self._settings.keepalive_timeout)
        log.info("a client does not answer pings")
        self._reading.cancel()

    async def _serve_calls(self) -> None:
        async with trio.open_nursery() as self._calls:
            if self._draining:  # since before this connection was accepted
                self._draining = False
                self.drain(self._grace)
            try:
                with self._reading:
                    await self.read()
                await self._abandon_calls()
                self._calls.cancel_scope.cancel()
            finally:
                self._start_handlers(len(self._begun))  # a drain that ended before their turn came: they are answered

    async def _abandon_calls(self) -> None:
        """Nobody is there to be answered: the client left, or a drain has seen the last call end."""
        for number, call in enumerate(tuple(self._live.values()), start=1):
            call.abandon()
            if number % _CALLS_PER_TURN == 0:
                await trio.lowlevel.checkpoint()

    def on_broken(self) -> None:
        """The client cannot be written to: it is gone."""
        self._reading.cancel()

    def on_writing(self) -> None:
        """Have the write looked at once in a while: a timer for each would be a good part of its cost."""
        if self._write_watch is None and self._settings.undelivered_timeout < math.inf:
            self._write_watch = self._watch.add(
                trio.current_time() + self._settings.undelivered_timeout, self._check_writing
            )

    def _check_writing(self) -> None:
        """End the connection of a client that has taken nothing of a write for too long."""
        self._write_watch = None
        if not self.writing:
            return
        until = self.wrote_at + self._settings.undelivered_timeout
        if until > trio.current_time():
            self._write_watch = self._watch.add(until, self._check_writing)
            return
        log.info("a connection is closed: its peer has read nothing for %g s", self._settings.undelivered_timeout)
        self.give_up_writing()

    def on_event(self, event: Event) -> None:  # noqa: C901 - one case for each event
        """Act on one event."""
        match event:
            case RequestStarted():
                self._start_call(event)
            case SettingsChanged() | WindowOpened(0):
                self._reading.deadline = math.inf  # it speaks HTTP/2
                self.window_grew()
            case MessageReceived() | RequestEnded() | WindowOpened() | StreamReset() | StreamFailed():
                call = self._live.get(event.stream_id)
                if call is not None:
                    _tell(call, event)
                elif isinstance(event, StreamReset) and event.error_code == ErrorCode.CANCEL:
                    self._cancelled_late(event.stream_id)
            case PingAnswered(data):
                if data == _DRAIN_PING:
                    self._pong.set()
            case PingReceived():
                self._check_ping()
            case GoodbyeSaid(last):
                self._goodbye_said(last)
            case GoawayReceived() | ResponseStarted() | ResponseEnded():
                pass

    def _start_call(self, event: RequestStarted) -> None:
        assert self._calls is not None  # noqa: S101 - events come from `read`, within the nursery
        stream_id, head = event.stream_id, event.head
        if not self.engine.is_open(stream_id):
            return  # what came in the same breath has ended it already
        over = len(self._live) >= self._settings.max_concurrent_calls
        if over or (self._last_allowed is not None and stream_id > self._last_allowed):
            self.engine.refuse(stream_id)
            return
        route = self._routes.get(head.path)
        if route is None:
            text = f"the method {head.path[:200]!r} is not known here"
            self.engine.send_status(stream_id, Status(StatusCode.UNIMPLEMENTED, text))
            return
        arrived = self._arrivals.earliest()
        deadline = math.inf if head.timeout is None else arrived + head.timeout
        if head.timeout == 0:
            self.engine.send_status(stream_id, _TOO_LATE)  # it is past already
            return
        context = Call(
            head.path,
            metadata=head.metadata,
            peer=self._peer,
            authority=head.authority,
            arrived=arrived,
            deadline=deadline,
            peer_certificate=self._certificate,
            accepts=head.accept_encoding,
        )
        context.compression = self._settings.compression
        margin = 0.0
        if head.timeout is not None:
            margin = margin_of(head.timeout, self._settings.deadline_margin)
            if self._patience is not None:
                deadline += head.timeout * (self._patience(context) - 1)
        call = ServerCall(
            self,
            stream_id,
            context,
            self._settings.max_response_size,
            deadline=deadline,
            patience=deadline - margin,
            streaming=route.stream_out,
            handled=self._handled,
            undelivered=self._undelivered,
        )
        context.respond_with(call)
        if not self._live:
            self._idle_or_busy.unpark_all()
        self._live[stream_id] = call
        self._begun.append((call, route))

    async def after_events(self) -> None:
        """Ask the handlers of the calls that came in one read and were not given up in it, a few at a time."""
        tasks = self._start_handlers(_CALLS_PER_TURN)
        while self._begun:
            self.push()
            if tasks:  # one turn in which those run, and one in which their replies leave while the next ones run
                await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            tasks = self._start_handlers(_CALLS_PER_TURN)

    def _start_handlers(self, most: int) -> int:
        """Returns how many tasks were started for it."""
        tasks = 0
        assert self._calls is not None  # noqa: S101 - as above
        while self._begun and most > 0:
            call, route = self._begun.popleft()
            if call.gone:  # it was reset, or its client left: to start a task and cancel it is what floods are made of
                self._forget(call)
                continue
            most -= 1
            # A task, its scope and its deadline are a good part of what a small call costs.
            if route.plain and not self._interceptors and (status := respond_at_once(call, route)) is not None:
                self._end(call, status)
            else:
                self._calls.start_soon(self._serve_call, call, call.new_scope(), route)
                tasks += 1
        return tasks

    def _end(self, call: ServerCall, status: Status) -> None:
        self._forget(call)
        call.finish(status)
        if call.call.on_given_up is not None and not call.gone:
            self._answered[call.stream_id] = call.call.on_given_up
            if len(self._answered) > self._settings.max_concurrent_calls:
                del self._answered[next(iter(self._answered))]

    def _cancelled_late(self, stream_id: int) -> None:
        """A caller cancels what was answered: the answer was under way when its own timer fired."""
        on_given_up = self._answered.pop(stream_id, None)
        if on_given_up is not None:
            on_given_up()

    def _forget(self, call: ServerCall) -> None:
        del self._live[call.stream_id]
        call.call.respond_with(None)  # or the two would wait for the garbage collector
        self._last_ping, self._ping_strikes = -math.inf, 0  # clients measure the round trip when a reply has come
        if not self._live:
            self._idle_or_busy.unpark_all()

    def _handled(self, call: Call) -> None:
        """A handler is asked: whoever calls is none of those that only hold a place."""
        if not self.known and not call.anonymous:
            self.known = True
            if self._first_call is not None:
                self._first_call.cancel()

    def _end_stranger(self) -> None:
        self.drain(trio.current_time() + self.close_timeout)

    def evict(self) -> None:
        """End now: its place is wanted."""
        self.close_timeout = min(self.close_timeout, _EVICTION)
        self._say_farewell()
        self._reading.cancel()

    async def _serve_call(self, call: ServerCall, scope: trio.CancelScope, route: Route) -> None:
        expiry = None
        if call.deadline < math.inf:
            expiry = self._watch.add(call.deadline, call.expire)
        status = _SHUTTING_DOWN  # what a caller is told if this task is cancelled from outside
        try:
            with scope:
                status = await respond(call, route, self._interceptors)
            if scope.cancelled_caught:
                status = call.cancelled_status()
        finally:
            if expiry is not None:
                expiry.cancel()
            self._end(call, status)
            if self._live:
                self.wake()
            else:
                self.push()

    def drain(self, deadline: float) -> None:
        """Say goodbye in two steps; end when the calls have, or at a time on Trio's clock. May be called again."""
        self._grace = min(self._grace, deadline)
        already, self._draining = self._draining, True
        if self._calls is not None and self._tasks is not None:
            self._calls.cancel_scope.deadline = self._grace
            if not already:
                self._tasks.start_soon(self._say_goodbye)

    def _check_ping(self) -> None:
        """Count pings that come too often for keepalive while nothing is going on (gRPC A8)."""
        now = trio.current_time()
        soon = now < self._last_ping + self._settings.min_ping_interval and not self._live
        self._last_ping = now
        self._ping_strikes = self._ping_strikes + 1 if soon else 0
        if self._ping_strikes >= _MAX_PING_STRIKES:
            self._say_farewell(ErrorCode.ENHANCE_YOUR_CALM, b"too_many_pings")
            self._reading.cancel()

    def _say_farewell(self, error_code: int = ErrorCode.NO_ERROR, debug: bytes = b"") -> None:
        """Name the last call that counts, once, unless the engine has done so when the client broke the rules."""
        if self._last_allowed is None and not self.engine.failed:
            self._last_allowed = self.engine.highest_peer_stream
            self.engine.goaway(self._last_allowed, error_code, debug)
            self.wake()

    def _goodbye_said(self, last: int) -> None:
        self._last_allowed = last
        if self._tasks is not None:
            self._tasks.start_soon(self._end_with_calls)

    async def _say_goodbye(self) -> None:
        """The two-phase GOAWAY (RFC 9113, 6.8): calls that cross with the first one are served."""
        if self._last_allowed is None:  # a second one may not take back what the first one has said
            self.engine.goaway()
            self.engine.ping(_DRAIN_PING)
            self.wake()
            with trio.move_on_after(_ROUND_TRIP):
                await self._pong.wait()
            self._say_farewell()
        await self._end_with_calls()

    async def _end_with_calls(self) -> None:
        while self._live:
            await self.calls_changed()
        self._reading.cancel()


def _tell(call: ServerCall, event: MessageReceived | RequestEnded | WindowOpened | StreamReset | StreamFailed) -> None:
    match event:
        case MessageReceived(_, data, size):
            call.deliver(data, size)
        case RequestEnded():
            call.end_input()
        case WindowOpened():
            call.window_opened()
        case StreamReset() | StreamFailed():
            call.abandon()
