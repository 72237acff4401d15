"""`just bench` must not rot: its arithmetic, its counting link, and one run of everything with hardly any trials."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import trio

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture(scope="module", autouse=True)
def tools_importable():
    sys.path.insert(0, str(TOOLS))
    yield
    sys.path.remove(str(TOOLS))


def frame(kind, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, 4]) + (1).to_bytes(4, "big") + payload


async def test_the_slow_link_counts_calls_however_the_bytes_are_cut(nursery):
    """It reads HTTP/2 frame headers out of a byte stream; a header split between two reads must not be missed."""
    measure = importlib.import_module("bench_store")
    sent = (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4) + frame(1, b"head") + frame(0, b"\x01" * 300) + frame(1, b"more")
    )
    for cut in (7, 24, 33, len(sent)):
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        received = bytearray()
        done = trio.Event()

        async def store(stream, received=received, done=done):
            async for data in stream:
                received.extend(data)
            done.set()

        nursery.start_soon(trio.serve_listeners, store, listeners)
        link = measure.SlowLink(listeners[0].socket.getsockname()[1])
        async with await trio.open_tcp_stream("127.0.0.1", await nursery.start(link.serve)) as worker:
            for start in range(0, min(len(sent), 40), cut):
                await worker.send_all(sent[start : min(start + cut, 40)])
            await worker.send_all(sent[40:])
            await worker.send_eof()
            await done.wait()
        assert bytes(received) == sent
        assert link.calls == 2
    nursery.cancel_scope.cancel()


def test_a_ratio_compares_with_the_same_rounds_bare_call():
    """A machine that slows down in one round must not show as a slower worker."""
    bench = importlib.import_module("bench")
    bare, served = bench.Case("http", "bare", 0, 1), bench.Case("http", "server", 3, 1)
    batches = {
        bare: [bench.Batch(10, 0.01, 0.02), bench.Batch(10, 0.1, 0.2), bench.Batch(10, 0.01, 0.02)],
        served: [bench.Batch(10, 0.02, 0.04), bench.Batch(10, 0.2, 0.4), bench.Batch(10, 0.02, 0.04)],
    }
    assert bench.trial_row(served, batches) == (
        "HTTP",
        "ExecuteProgram",
        "3",
        "1",
        "2.00",
        "2.00",
        "2.00-2.00",
        "250",
        "0.50",
    )


def test_the_whole_benchmark_runs(tmp_path):
    file = tmp_path / "bench.json"
    finished = subprocess.run(
        [sys.executable, str(TOOLS / "bench.py"), "--smoke", "--json", str(file)],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    found = json.loads(file.read_text())
    assert {(case["lm"], case["way"]) for case in found["trials"]} == {
        ("http", way) for way in ("bare", "runtime", "server", "recorded")
    }
    assert {(each["how"], each["variables"]): each["calls"] for each in found["syncs"]} == {
        ("one batch", 0): 0,
        ("one batch", 1): 1,
        ("one batch", 16): 1,
        ("one batch", 32): 1,
        ("concurrent", 0): 0,
        ("concurrent", 1): 1,
        ("concurrent", 16): 16,
        ("concurrent", 32): 32,
    }
    assert "32 variables, concurrent: sync" in finished.stdout
    assert found["deadlines"]["kinds"] == {"DEADLINE_EXCEEDED": 8}
    assert "HTTP   ExecuteProgram" in finished.stdout
    assert "x the CPU of an unrecorded trial" in finished.stdout
    assert str(Path.home()) not in file.read_text()
