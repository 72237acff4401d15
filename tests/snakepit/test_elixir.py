"""The worker's side towards Elixir, under virtual time."""

import trio
from trio.testing import wait_all_tasks_blocked

from dspex_trio import rpc
from dspex_trio.snakepit.elixir import CONTACT_SECONDS, Elixir
from dspex_trio.snakepit.pool import HeartbeatPolicy
from dspex_trio.wire.generated import bridge_pb2


class FakeBridge:
    """Answers, or not; remembers what it was asked."""

    def __init__(self):
        self.asked = []
        self.status = None
        self.delay = 0.0
        self.registered = bridge_pb2.RegisterToolsResponse(success=True)
        self.beat = bridge_pb2.HeartbeatResponse(session_valid=True)

    async def _answer(self, reply, request):
        self.asked.append((trio.current_time(), request))
        await trio.sleep(self.delay)
        if self.status is not None:
            raise rpc.RpcError(self.status, "as the test wants it")
        return reply

    async def Ping(self, request, *, wait_for_ready):
        return await self._answer(bridge_pb2.PingResponse(), request)

    async def InitializeSession(self, request, *, wait_for_ready):
        return await self._answer(bridge_pb2.InitializeSessionResponse(), request)

    async def RegisterTools(self, request, *, wait_for_ready):
        return await self._answer(self.registered, request)

    async def Heartbeat(self, request):
        return await self._answer(self.beat, request)

    def times_of(self, kind):
        return [at for at, request in self.asked if isinstance(request, kind)]


NO_HEARTBEATS = HeartbeatPolicy(enabled=False)


def elixir(bridge, policy=NO_HEARTBEATS, lost=lambda: None):
    tools = [bridge_pb2.ToolRegistration(name="ping")]
    return Elixir(bridge, worker_id="w1", tools=tools, policy=policy, lost=lost)


async def test_every_session_is_made_known_once_with_the_tools(virtual_clock, nursery):
    bridge = FakeBridge()
    ours = elixir(bridge)
    ours.adopt("s1")
    nursery.start_soon(ours.run)
    await wait_all_tasks_blocked()
    ours.adopt("s1")
    ours.adopt("s2")
    ours.adopt("")
    await wait_all_tasks_blocked()

    _, *requests = [request for _, request in bridge.asked]
    assert [type(request).__name__ for request in requests] == ["InitializeSessionRequest", "RegisterToolsRequest"] * 2
    assert [request.session_id for request in requests] == ["s1", "s1", "s2", "s2"]
    assert [tool.name for tool in requests[1].tools] == ["ping"]
    nursery.cancel_scope.cancel()


async def test_a_session_and_tools_that_elixir_has_already_are_no_news(virtual_clock, nursery, caplog):
    """0.4 answers ALREADY_EXISTS, 0.13 that a tool is a duplicate: so it is for every worker but the first."""
    bridge = FakeBridge()
    bridge.registered = bridge_pb2.RegisterToolsResponse(success=False, error_message='{:duplicate_tool, "ping"}')
    ours = elixir(bridge)
    nursery.start_soon(ours.run)
    ours.adopt("s1")
    await wait_all_tasks_blocked()
    assert not caplog.records
    bridge.registered = bridge_pb2.RegisterToolsResponse(success=False, error_message="not_found")
    ours.adopt("s2")
    await wait_all_tasks_blocked()
    assert "does not take the worker's tools: not_found" in caplog.text
    nursery.cancel_scope.cancel()


async def test_tools_that_elixir_would_not_take_do_not_keep_the_others_from_it(virtual_clock, nursery, caplog):
    """It takes all tools of a call or none, and names of at most 64 letters, digits, `_`, `-` and `.`."""
    bridge = FakeBridge()
    names = ["ping", "_private", "two words", "a" * 65, "a" * 64, "x.y-z_1", "größe", ""]
    tools = [bridge_pb2.ToolRegistration(name=name) for name in names]
    ours = Elixir(bridge, worker_id="w1", tools=tools, policy=NO_HEARTBEATS, lost=lambda: None)
    nursery.start_soon(ours.run)
    ours.adopt("s1")
    await wait_all_tasks_blocked()
    [registered] = [request for _, request in bridge.asked if isinstance(request, bridge_pb2.RegisterToolsRequest)]
    assert [tool.name for tool in registered.tools] == ["ping", "a" * 64, "x.y-z_1"]
    [line] = [record.getMessage() for record in caplog.records]
    assert "'_private', 'two words'" in line
    nursery.cancel_scope.cancel()


async def test_a_session_that_elixir_has_lost_is_made_known_again_with_the_tools(virtual_clock, nursery):
    """A session store that was restarted over there knows nobody; snakepit's own worker makes it one with each call."""
    bridge = FakeBridge()
    ours = elixir(bridge, HeartbeatPolicy(interval_ms=1000))
    ours.adopt("s1")
    ours.adopt("s2")
    nursery.start_soon(ours.run)
    await trio.sleep(2.5)
    assert len(bridge.times_of(bridge_pb2.RegisterToolsRequest)) == 2
    bridge.beat = bridge_pb2.HeartbeatResponse(session_valid=False)
    await trio.sleep(1)
    bridge.beat = bridge_pb2.HeartbeatResponse(session_valid=True)
    await trio.sleep(2)
    again = [request.session_id for _, request in bridge.asked if isinstance(request, bridge_pb2.RegisterToolsRequest)]
    assert again == ["s1", "s2", "s1", "s2"]
    assert bridge.times_of(bridge_pb2.InitializeSessionRequest)[-2:] == [3.0, 3.0]
    nursery.cancel_scope.cancel()


async def test_a_session_that_is_being_made_known_is_not_taken_for_lost(virtual_clock, nursery):
    """Elixir looks for it before it is told, and its answer arrives after that."""
    bridge = FakeBridge()
    bridge.beat = bridge_pb2.HeartbeatResponse(session_valid=False)
    bridge.delay = 0.8
    ours = elixir(bridge, HeartbeatPolicy(initial_delay_ms=1000, interval_ms=1000, timeout_ms=1000))
    ours.adopt("s1")
    nursery.start_soon(ours.run)
    await trio.sleep(1.9)  # asked for contact until 0.8, made known until 2.4, and asked about at 1.8
    bridge.delay = 0.7
    await trio.sleep(0.8)
    bridge.beat = bridge_pb2.HeartbeatResponse(session_valid=True)
    await trio.sleep(5)
    assert len(bridge.times_of(bridge_pb2.HeartbeatRequest)) > 3
    assert len(bridge.times_of(bridge_pb2.RegisterToolsRequest)) == 1
    nursery.cancel_scope.cancel()


async def test_a_session_that_elixir_never_takes_is_not_offered_without_end(virtual_clock, nursery):
    """A limit on sessions over there is answered once for each heartbeat at the most."""
    bridge = FakeBridge()
    bridge.beat = bridge_pb2.HeartbeatResponse(session_valid=False)
    ours = elixir(bridge, HeartbeatPolicy(interval_ms=1000))
    ours.adopt("s1")
    nursery.start_soon(ours.run)
    await trio.sleep(10.5)
    assert len(bridge.times_of(bridge_pb2.InitializeSessionRequest)) <= 12
    assert ours.contact.missed == 0
    nursery.cancel_scope.cancel()


async def test_an_elixir_that_goes_away_is_asked_again(virtual_clock, nursery):
    bridge = FakeBridge()
    bridge.status = rpc.StatusCode.UNAVAILABLE
    ours = elixir(bridge)
    nursery.start_soon(ours.run)
    ours.adopt("s1")
    await trio.sleep(2)
    assert ours.contact.answered is None
    bridge.status = None
    await trio.sleep(1)
    assert ours.contact.answered is not None
    assert bridge.times_of(bridge_pb2.RegisterToolsRequest)
    nursery.cancel_scope.cancel()


async def test_heartbeats_come_at_their_interval_for_the_pools_first_session(virtual_clock, nursery):
    bridge = FakeBridge()
    policy = HeartbeatPolicy(initial_delay_ms=500, interval_ms=2000)
    ours = elixir(bridge, policy)
    ours.adopt("s1")
    ours.adopt("s2")
    nursery.start_soon(ours.run)
    await trio.sleep(5)
    assert bridge.times_of(bridge_pb2.HeartbeatRequest) == [0.5, 2.5, 4.5]
    assert {request.session_id for _, request in bridge.asked if isinstance(request, bridge_pb2.HeartbeatRequest)} == {
        "s1"
    }
    nursery.cancel_scope.cancel()


async def test_elixir_is_lost_after_so_many_missed_in_a_row(virtual_clock):
    """Late answers are missed ones; an answer in between begins the count anew; a status is an answer."""
    bridge, lost = FakeBridge(), trio.Event()
    policy = HeartbeatPolicy(interval_ms=1000, timeout_ms=500, max_missed_heartbeats=2)
    ours = elixir(bridge, policy, lost.set)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.run)
        await trio.sleep(0.9)
        bridge.delay = 100
        await trio.sleep(1)
        assert ours.contact.missed == 1
        bridge.delay, bridge.status = 0, rpc.StatusCode.UNIMPLEMENTED
        await trio.sleep(1.5)
        assert ours.contact.missed == 0
        bridge.status = rpc.StatusCode.UNAVAILABLE
        await lost.wait()
        assert ours.contact.missed == 2


async def test_an_independent_worker_goes_on_asking(virtual_clock, nursery):
    bridge, lost = FakeBridge(), trio.Event()
    ours = elixir(bridge, HeartbeatPolicy(interval_ms=1000, max_missed_heartbeats=2, dependent=False), lost.set)
    nursery.start_soon(ours.run)
    await wait_all_tasks_blocked()
    bridge.status = rpc.StatusCode.UNAVAILABLE
    await trio.sleep(10.5)
    assert ours.contact.missed == 10
    assert not lost.is_set()
    nursery.cancel_scope.cancel()


async def test_an_elixir_that_never_answers_is_lost(virtual_clock):
    bridge, lost = FakeBridge(), trio.Event()
    bridge.delay = 10_000
    await elixir(bridge, HeartbeatPolicy(), lost.set).run()
    assert lost.is_set()
    assert trio.current_time() == CONTACT_SECONDS
