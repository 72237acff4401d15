"""`just bench-rpc` must not rot: its arithmetic, its raw client's honesty, and one run of it with hardly any calls."""

import importlib
import json
import socket
import struct
import subprocess
import sys
import threading
from contextlib import closing, contextmanager
from pathlib import Path

import hpack
import pytest
from hyperframe.frame import DataFrame, Frame, HeadersFrame, SettingsFrame, WindowUpdateFrame

TOOLS = Path(__file__).parents[2] / "tools"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@pytest.fixture(scope="module", autouse=True)
def tools_importable():
    sys.path.insert(0, str(TOOLS))
    yield
    sys.path.remove(str(TOOLS))


def batch(calls, cpu_s):
    measure = importlib.import_module("bench_rpc_measure")
    return measure.Batch(calls, 0, cpu_s, 1.0, (1000,) * calls)


def lost():
    measure = importlib.import_module("bench_rpc_measure")
    return measure.Batch(0, 10, 0.0, 0.0, (), "the server closed the connection")


def case(client="raw", at_once=16):
    measure, shapes = importlib.import_module("bench_rpc_measure"), importlib.import_module("bench_rpc_shapes")
    return measure.Case(client, shapes.SHAPES[0], at_once)


def test_a_ratio_compares_batches_of_the_same_round_that_both_have_calls():
    """A slow round must not show as a slow server, nor a connection that a server lost as a fast one."""
    bench = importlib.import_module("bench_rpc")
    ours = [batch(10, 0.01), batch(10, 0.1), batch(10, 0.01), lost()]
    stock = [batch(10, 0.02), batch(10, 0.2), lost(), batch(10, 0.02)]
    assert bench.ratios(ours, stock) == pytest.approx([0.5, 0.5])


def test_goals_are_judged_by_the_raw_client_and_named_with_their_spread():
    """The figures that the project promises are printed beside what was found, met or not."""
    bench = importlib.import_module("bench_rpc")
    servers = {"dspex_trio": [batch(10, 0.004)], "purerpc": [batch(10, 0.01)], "grpc.aio": [batch(10, 0.005)]}
    said = list(bench.goals({case(): servers, case("grpcio"): servers}))
    assert said == [
        "small unary, 16 at once, raw client: 0.40 (0.40-0.40) x purerpc (goal: at most 0.45, met)",
        "small unary, 16 at once, raw client: 0.80 (0.80-0.80) x grpc.aio (goal: at most 0.75, MISSED)",
        "small unary, 16 at once, grpcio client: 0.40 (0.40-0.40) x purerpc (no goal is set for this client)",
        "small unary, 16 at once, grpcio client: 0.80 (0.80-0.80) x grpc.aio (no goal is set for this client)",
        "dearer than purerpc: nowhere",
    ]


def test_a_case_that_costs_more_than_stock_is_named():
    """Being slower than what we replace must not hide in a long table."""
    bench = importlib.import_module("bench_rpc")
    servers = {"dspex_trio": [batch(10, 0.02)], "purerpc": [batch(10, 0.01)]}
    *_, last = bench.goals({case(at_once=1): servers})
    assert last == "dearer than purerpc: small unary, 1 at once, raw client: 2.00 (2.00-2.00)"
    assert bench.misses({case(at_once=1): servers}) == [last]


def test_a_missed_goal_is_a_miss_and_one_that_is_met_is_not():
    """The recipe fails by this: nobody reads tables at night."""
    bench = importlib.import_module("bench_rpc")
    met = {"dspex_trio": [batch(10, 0.004)], "purerpc": [batch(10, 0.01)]}
    missed = {"dspex_trio": [batch(10, 0.005)], "purerpc": [batch(10, 0.01)]}
    assert bench.misses({case(): met}) == []
    (miss,) = bench.misses({case(): missed})
    assert miss.endswith("(goal: at most 0.45, MISSED)")


def test_a_server_that_lost_every_batch_still_has_its_row():
    """What a server could not do belongs into the table."""
    bench = importlib.import_module("bench_rpc")
    (row,) = bench.rows_of(case(), {"purerpc": [lost(), lost()]})
    assert row[0] == "purerpc"
    assert row[-1] == "20"


class FakeServer:
    """One connection, spoken to frame by frame."""

    def __init__(self, connection):
        self.connection = connection
        self.encoder = hpack.Encoder()
        self.uploaded = []

    def exactly(self, size):
        data = b""
        while len(data) < size:
            more = self.connection.recv(size - len(data))
            assert more, "the client hung up"
            data += more
        return data

    def frame(self):
        frame, length = Frame.parse_frame_header(memoryview(self.exactly(9)))
        frame.parse_body(memoryview(self.exactly(length)))
        return frame

    def begin(self, settings):
        assert self.exactly(len(PREFACE)) == PREFACE
        frame = SettingsFrame(0)
        frame.settings = settings
        self.send(frame)

    def send(self, *frames):
        self.connection.sendall(b"".join(frame.serialize() for frame in frames))

    def request(self):
        """Take a request and open the stream's window whenever it is used up; returns the stream's id."""
        while True:
            frame = self.frame()
            if isinstance(frame, DataFrame):
                self.uploaded.append(len(frame.data))
                if "END_STREAM" in frame.flags:
                    return frame.stream_id
                update = WindowUpdateFrame(frame.stream_id)
                update.window_increment = len(frame.data)
                self.send(update)

    def answer(self, stream_id, body, status):
        head, data, trailers = HeadersFrame(stream_id), DataFrame(stream_id), HeadersFrame(stream_id)
        head.data = self.encoder.encode([(":status", "200"), ("content-type", "application/grpc")])
        head.flags.add("END_HEADERS")
        data.data = body
        trailers.data = self.encoder.encode([("grpc-status", status)])
        trailers.flags = {"END_HEADERS", "END_STREAM"}
        self.send(head, data, trailers)


@contextmanager
def fake_server(behave):
    """Runs `behave(server)` for one connection; its own failures fail the test."""
    failures = []

    def run():
        try:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(10)
                behave(FakeServer(connection))
        except Exception as error:  # noqa: BLE001 - shown by the test that started it
            failures.append(error)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join()
    assert failures == []


def prefixed(message):
    return struct.pack(">BI", 0, len(message)) + message


@pytest.mark.parametrize(
    ("status", "cut", "error"), [("13", 0, "'grpc-status': '13'"), ("0", 1, "22 of 23 bytes"), ("0", 0, None)]
)
def test_the_raw_client_counts_no_call_that_failed(status, cut, error):
    """A server that answers wrongly is fast; its calls must not count."""
    raw, shapes = importlib.import_module("bench_rpc_raw"), importlib.import_module("bench_rpc_shapes")
    shape = shapes.SHAPES[0]
    body = prefixed(shape.message)

    def behave(server):
        server.begin({})
        server.answer(server.request(), body[: len(body) - cut], status)

    with fake_server(behave) as port, closing(raw.RawClient(port, shape)) as client:
        if error is None:
            assert len(client.batch(1, 1)) == 1
        else:
            with pytest.raises(raw.ConnectionLost, match=error):
                client.batch(1, 1)


def test_the_raw_client_keeps_to_the_servers_window():
    """A client that overran windows would measure servers in a way that no client uses them."""
    raw, shapes = importlib.import_module("bench_rpc_raw"), importlib.import_module("bench_rpc_shapes")
    shape = shapes.SHAPES[0]
    uploaded = []

    def behave(server):
        server.begin({SettingsFrame.INITIAL_WINDOW_SIZE: 10})
        server.answer(server.request(), prefixed(shape.message), "0")
        uploaded.extend(server.uploaded)

    with fake_server(behave) as port, closing(raw.RawClient(port, shape)) as client:
        assert len(client.batch(1, 1)) == 1
    assert uploaded == [10, 10, 3]


def test_the_whole_benchmark_runs(tmp_path):
    """Every shape, from both clients, against ours and what it is held against."""
    file = tmp_path / "bench.json"
    servers = ("dspex_trio", "purerpc", "grpc.aio", "grpc")
    options = [part for name in servers for part in ("--server", name)]
    finished = subprocess.run(
        [sys.executable, str(TOOLS / "bench_rpc.py"), "--smoke", "--seed", "7", "--json", str(file), *options],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    found = json.loads(file.read_text())
    assert found["seed"] == 7
    assert {(each["client"], each["shape"]["method"], each["at_once"]) for each in found["cases"]} == {
        (client, method, 16)
        for client in ("raw", "grpcio")
        for method in ("Small", "Large", "SmallStream", "LargeStream")
    }
    for each in found["cases"]:
        assert set(each["servers"]) == set(servers)
        for ours in each["servers"]["dspex_trio"]:
            assert ours["calls"] == len(ours["latency_us"]) > 0
            assert ours["failed"] == 0
            assert ours["cpu_s"] > 0
    assert "small unary, 16 at once, raw client:" in finished.stdout
    assert str(Path.home()) not in file.read_text()
