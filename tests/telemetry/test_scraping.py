"""Metrics at a port, as Prometheus reads them."""

import re
from functools import partial

import pytest
import trio
from dspy.utils import DummyLM
from prometheus_client.parser import text_string_to_metric_families

import dspex_trio as dspex
from dspex_trio.observing.telemetry.scrape import MAX_CONNECTIONS, open_scraping

PREDICT = {"python_class": "dspy.Predict", "signature": "question -> answer"}


async def get(port, path="/metrics", method="GET", headers=""):
    """Status, headers and body of one request."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        await stream.send_all(f"{method} {path} HTTP/1.1\r\nHost: here\r\n{headers}\r\n".encode())
        answer = b"".join([data async for data in stream]).decode()
    head, _, body = answer.partition("\r\n\r\n")
    return int(head.split()[1]), head, body


@pytest.fixture
def port_of(caplog):
    """The port at which metrics are served, as the log says it."""
    caplog.set_level("INFO")
    return lambda: int(re.search(r"metrics are served at http://127\.0\.0\.1:(\d+)/metrics", caplog.text)[1])


async def test_a_server_tells_prometheus_of_its_trials(port_of, nursery):
    """Read by Prometheus's own client."""
    lm = DummyLM([{"answer": "yes"}] * 3)
    [listener] = await nursery.start(partial(dspex.serve, dspex.Settings(port=0, metrics_port=0), lm=lm))
    async with dspex.open_client(f"127.0.0.1:{listener.socket.getsockname()[1]}") as client:
        for _ in range(3):
            await client.execute(PREDICT, {"question": "?"})
        await client.execute({"python_class": "no.such.Class"}, {})
    status, head, body = await get(port_of())
    nursery.cancel_scope.cancel()
    assert status == 200
    assert "text/plain" in head
    found = {family.name: family for family in text_string_to_metric_families(body)}
    ended = {sample.labels["dspex_outcome"]: sample.value for sample in found["dspex_trials"].samples}
    assert ended == {"success": 3.0, "failure": 1.0}
    assert found["dspex_trial_duration_seconds"].type == "histogram"
    assert found["dspex_trial_active"].type == "gauge"
    [calls] = [sample for sample in found["dspex_lm_calls"].samples if sample.name.endswith("_total")]
    assert (calls.labels["dspex_lm_answered_by"], calls.value) == ("provider", 3.0)
    counts = [
        sample
        for sample in found["rpc_server_call_duration_seconds"].samples
        if sample.name.endswith("_count") and sample.labels["rpc_method"].endswith("/ExecuteProgram")
    ]
    assert [(sample.labels["rpc_response_status_code"], sample.value) for sample in counts] == [("OK", 4.0)]


async def test_another_process_provider_is_left_alone_and_two_servers_have_metrics_of_their_own(caplog, nursery):
    """Nothing is registered in Prometheus's registry of the process."""
    caplog.set_level("INFO")
    for _ in range(2):
        await nursery.start(partial(dspex.serve, dspex.Settings(port=0, metrics_port=0)))
    ports = [int(port) for port in re.findall(r"metrics are served at http://127\.0\.0\.1:(\d+)/", caplog.text)]
    assert [(await get(port))[0] for port in ports] == [200, 200]
    nursery.cancel_scope.cancel()
    from prometheus_client import REGISTRY, generate_latest

    assert b"dspex" not in generate_latest(REGISTRY)


async def test_other_paths_and_methods_are_refused():
    async with open_scraping("127.0.0.1", 0, lambda _accept: ("text/plain", b"m 1\n")) as port:
        assert (await get(port))[::2] == (200, "m 1\n")
        assert (await get(port, "/metrics?x=1"))[0] == 200
        assert (await get(port, "/"))[0] == 404
        assert (await get(port, method="DELETE"))[0] == 405


async def test_what_is_asked_for_is_what_comes():
    kinds = []

    def text(accept):
        kinds.append(accept)
        return accept or "text/plain", b""

    async with open_scraping("127.0.0.1", 0, text) as port:
        _, head, _ = await get(port, headers="Accept: application/openmetrics-text; version=1.0.0\r\n")
    assert kinds == ["application/openmetrics-text; version=1.0.0"]
    assert "Content-Type: application/openmetrics-text" in head


async def test_nonsense_and_silence_keep_nobody_else_from_scraping():
    async with open_scraping("127.0.0.1", 0, lambda _accept: ("text/plain", b"m 1\n")) as port:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            await stream.send_all(b"\x16\x03\x01 no HTTP\r\n\r\n")
            assert await stream.receive_some() == b""
        silent = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(MAX_CONNECTIONS - 1)]
        assert (await get(port))[0] == 200
        for stream in silent:
            await stream.aclose()


async def test_more_than_so_many_connections_are_closed_at_once():
    async with open_scraping("127.0.0.1", 0, lambda _accept: ("text/plain", b"m 1\n")) as port:
        silent = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(MAX_CONNECTIONS)]
        refused = await trio.open_tcp_stream("127.0.0.1", port)
        assert await refused.receive_some() == b""
        for stream in (*silent, refused):
            await stream.aclose()


async def test_a_port_that_is_taken_is_said_with_its_setting():
    async with open_scraping("127.0.0.1", 0, lambda _accept: ("text/plain", b"")) as port:
        with pytest.raises(dspex.InvalidSettings, match=f"metrics_port: cannot listen on 127.0.0.1:{port}"):
            async with open_scraping("127.0.0.1", port, lambda _accept: ("text/plain", b"")):
                pass
