import pytest
import trio

from dspex_trio.observing.correlation import correlated
from dspex_trio.snakepit.telemetry import MAX_WAITING, START, STOP, ToolTelemetry
from dspex_trio.wire.generated import bridge_pb2


def told(listener):
    found = []
    while True:
        try:
            found.append(".".join(listener.events.receive_nowait().event_parts))
        except trio.WouldBlock:
            return found


def tell(telemetry):
    telemetry.tell(START, {"count": 1}, {"tool": "ping"})
    telemetry.tell(STOP, {"count": 1, "duration": 5}, {"tool": "ping"})


async def test_an_event_holds_what_snakepit_reads():
    telemetry = ToolTelemetry()
    with telemetry.listening() as listener, correlated("c-1"):
        tell(telemetry)
        event = listener.events.receive_nowait()
    assert list(event.event_parts) == ["tool", "execution", "start"]
    assert event.measurements["count"].int_value == 1
    assert event.metadata == {"tool": "ping"}
    assert event.correlation_id == "c-1"
    assert event.timestamp_ns > 0


@pytest.mark.parametrize(
    ("control", "left"),
    [
        ({"toggle": bridge_pb2.TelemetryToggle(enabled=False)}, []),
        ({"toggle": bridge_pb2.TelemetryToggle(enabled=True)}, [START, STOP]),
        ({"filter": bridge_pb2.TelemetryEventFilter(allow=["*.stop"])}, [STOP]),
        ({"filter": bridge_pb2.TelemetryEventFilter(deny=["*.stop"])}, [START]),
        ({"sampling": bridge_pb2.TelemetrySamplingUpdate(sampling_rate=0.0)}, []),
        ({"sampling": bridge_pb2.TelemetrySamplingUpdate(sampling_rate=0.0, event_patterns=["*.start"])}, [STOP]),
        ({"sampling": bridge_pb2.TelemetrySamplingUpdate(sampling_rate=1.0)}, [START, STOP]),
    ],
)
async def test_a_listener_hears_what_it_asked_for(control, left):
    telemetry = ToolTelemetry()
    with telemetry.listening() as listener:
        listener.control(bridge_pb2.TelemetryControl(**control))
        tell(telemetry)
        assert told(listener) == left


async def test_a_listener_that_does_not_read_holds_up_nobody_and_costs_no_more():
    telemetry = ToolTelemetry()
    with telemetry.listening() as listener:
        for _ in range(MAX_WAITING):
            tell(telemetry)
        assert len(told(listener)) == MAX_WAITING


async def test_listeners_end_with_the_worker():
    telemetry = ToolTelemetry()
    with telemetry.listening() as listener:
        tell(telemetry)
        telemetry.end()
        assert [".".join(event.event_parts) async for event in listener.events] == [START, STOP]
    tell(telemetry)


async def test_a_listener_that_has_not_read_its_end_yet_disturbs_nobody():
    """Its reader may be slow; what goes on meanwhile is a trial that must be answered."""
    telemetry = ToolTelemetry()
    with telemetry.listening() as listener:
        tell(telemetry)
        listener.end()
        tell(telemetry)
        telemetry.end()
        assert [".".join(event.event_parts) async for event in listener.events] == [START, STOP]
