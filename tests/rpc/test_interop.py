"""gRPC's interoperability cases, as `just interop --quick` runs them: against grpcio and against raw frames."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hyperframe.frame import DataFrame, HeadersFrame, RstStreamFrame

TOOL = Path(__file__).parents[2] / "tools" / "interop.py"
SECONDS = 180
CASES = [
    "empty_unary",
    "large_unary",
    "client_compressed_unary",
    "server_compressed_unary",
    "client_streaming",
    "client_compressed_streaming",
    "server_streaming",
    "server_compressed_streaming",
    "ping_pong",
    "empty_stream",
    "custom_metadata",
    "status_code_and_message",
    "special_status_message",
    "unimplemented_method",
    "unimplemented_service",
    "cancel_after_begin",
    "cancel_after_first_response",
    "timeout_on_sleeping_server",
    "rpc_soak",
    "channel_soak",
]
HTTP2_CASES = [
    "goaway",
    "rst_after_header",
    "rst_during_data",
    "rst_after_data",
    "ping",
    "max_streams",
    "data_frame_padding",
    "no_df_padding_sanity_test",
]


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    """What was amiss in each case of each direction, from one run of the tool in a process of its own."""
    file = tmp_path_factory.mktemp("interop") / "lines.json"
    command = [sys.executable, TOOL, "--quick", "--json", file]
    done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False, text=True)
    assert file.exists(), done.stderr
    sections = json.loads(file.read_text())
    return {name: {line["case"]: line["problem"] for line in lines} for name, lines in sections.items()}


@pytest.mark.parametrize("case", CASES)
def test_our_server_passes_a_case_with_other_clients(problems, case):
    assert problems["our server, other clients"][case] is None


@pytest.mark.parametrize("case", CASES)
def test_our_channel_passes_a_case_with_other_servers(problems, case):
    assert problems["our channel, other servers"][case] is None


@pytest.mark.parametrize("case", HTTP2_CASES)
def test_our_channel_passes_a_case_of_an_unusual_server(problems, case):
    assert problems["our channel, HTTP/2 cases"][case] is None


@pytest.mark.parametrize("size", [1, 2, 7, 300, 10_000])
def test_flags_are_read_off_the_wire_however_it_is_cut(monkeypatch, size):
    """Messages do not end where frames do, nor frames where reads do; padding is no part of a message."""
    monkeypatch.syspath_prepend(str(TOOL.parent))
    wire = importlib.import_module("interop_wire")
    messages = b"\x00" + (300).to_bytes(4, "big") + bytes(300) + b"\x01" + (2).to_bytes(4, "big") + b"ab" + b"\x00" * 5
    first, second = HeadersFrame(1), HeadersFrame(3)
    padded = DataFrame(1, data=messages[:303], flags=["PADDED"], pad_length=9)
    reset = RstStreamFrame(3, error_code=8)
    frames = [first, padded, second, DataFrame(1, data=messages[303:]), reset]
    sent = wire.PREFACE + b"".join(frame.serialize() for frame in frames)
    direction = wire.Direction(client=True)
    for at in range(0, len(sent), size):
        direction.feed(sent[at : at + size])
    assert direction.calls[1].compressed == [False, True, False]
    assert direction.calls[1].reset is None
    assert direction.latest is direction.calls[3]
    assert direction.latest.reset == 8


def test_the_tool_tells_when_a_case_is_missed(tmp_path):
    """Twenty of twenty says nothing if nothing could be missed: a server that answers otherwise must be found out."""
    script = tmp_path / "broken.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(TOOL.parent)!r})\n"
        "import interop, interop_server\n"
        "interop.CASES = ('empty_unary', 'large_unary', 'client_streaming', 'server_streaming', 'ping_pong')\n"
        "interop.http2_cases = lambda frame_size: {}\n"
        "interop_server.zeros = lambda size: interop_server.messages.Payload(body=bytes(size + 1))\n"
        "interop.main(['--quick'])\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, timeout=SECONDS, check=False, text=True)
    assert done.returncode == 1
    assert "our server, other clients: 2 of 5" in done.stdout
    assert "our channel, other servers: 5 of 5" in done.stdout
    assert done.stderr.splitlines()[-1] == "missed: large_unary, server_streaming, ping_pong"
