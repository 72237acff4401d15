"""`just bench-peers` must not rot: its figures, what it counts, and one short run of the peers that need no install."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"
HELD = {"processes": 1, "threads": 5, "sockets": 3, "rss_bytes": 100 << 20, "pss_bytes": 90 << 20}


@pytest.fixture(scope="module", autouse=True)
def tools_importable():
    sys.path.insert(0, str(TOOLS))
    yield
    sys.path.remove(str(TOOLS))


def sample(trial, told, usable=None, *, first=False):
    return {"trial": trial, "began": 10.0, "told": told, "outcome": "TimeoutError", "usable": usable, "first": first}


PEER = {
    "name": "threads",
    "what": "some threads",
    "samples": [sample(1, 12.001, 12.5, first=True), sample(2, 12.003, None, first=True), sample(3, None)],
    "closes": {"1": 12.25},
    "still_open": 1,
    "before": HELD,
    "after": {**HELD, "threads": 7, "sockets": 4, "rss_bytes": 103 << 20},
    "succeeded": 1,
}


def test_a_row_counts_what_never_came_apart_from_how_late_the_rest_was():
    table = importlib.import_module("bench_peers_table")
    assert table.row(PEER, 2.0, 4) == (
        "some threads",
        "+1 / +3, never 1 of 3",
        "+250 / +250, never 1 of 2",
        "+500 / +500, never 1 of 2",
        "+2",
        "+1",
        "+0",
        "+3",
        "1/4",
    )


def test_what_never_came_at_all_is_told_as_never():
    table = importlib.import_module("bench_peers_table")
    assert table.spread([None, None]) == "never (2 of 2)"
    assert table.spread([]) == "-"


def test_a_peer_that_could_not_be_measured_stands_below_the_table_with_its_reason():
    table = importlib.import_module("bench_peers_table")
    left_out = {"name": "other", "what": "another", "reason": "not installed: no wheel"}
    half = {key: value for key, value in PEER.items() if key not in {"after", "succeeded"}}
    found = {"calls": 3, "slots": 4, "seconds": 2.0, "watch": 10.0, "peers": [half | {"reason": "not done"}, left_out]}
    shown = list(table.lines(found))
    assert "  some threads: callers got 3 TimeoutError" in shown
    assert "  some threads: not done" in shown
    assert [line for line in shown if "another" in line] == ["  another: not installed: no wheel"]


def test_every_peer_has_a_way_to_be_opened():
    peers = importlib.import_module("bench_peers_install").PEERS
    source = (TOOLS / "bench_peers_calls.py").read_text(encoding="utf-8")
    assert [each.name for each in peers if f"\nasync def {each.name}(" not in source] == []


def test_holdings_count_sockets_and_threads_of_descendants_and_shared_sockets_once():
    processes = importlib.import_module("bench_load_processes")
    code = (
        "import os, socket, threading\n"
        "one, other = socket.socketpair()\n"
        "pid = os.fork()\n"
        "if pid: threading.Thread(target=os.wait).start(); print(pid, flush=True)\n"
        "input() if pid else one.recv(1)\n"
        "if pid: other.send(b'!')\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as parent:
        child = int(parent.stdout.readline())
        found = processes.holdings(parent.pid)
        below = processes.descendants(parent.pid)
        there = processes.still_there(below | {parent.pid: "another time"})
        parent.communicate(b"\n")
    assert list(below) == [child]
    assert there == [child]
    assert (found.processes, found.threads, found.sockets) == (2, 3, 2)


def test_a_peer_that_cannot_be_installed_is_left_out_with_the_reason(tmp_path, monkeypatch):
    install = importlib.import_module("bench_peers_install")
    monkeypatch.setattr(install, "ROOT", tmp_path)
    (tmp_path / "constraints.txt").touch()
    python = tmp_path / ".venv" / "peers-none" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho 'ERROR: No matching distribution found' >&2\nexit 1\n", encoding="utf-8")
    python.chmod(0o755)
    with pytest.raises(RuntimeError, match="not installed: ERROR: No matching distribution found"):
        install.python_of(install.Peer("none", "none", "none", ("none==1",)))


def test_a_peer_is_installed_once(tmp_path, monkeypatch):
    install = importlib.import_module("bench_peers_install")
    monkeypatch.setattr(install, "ROOT", tmp_path)
    python = tmp_path / ".venv" / "peers-there" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\necho x >> {tmp_path}/runs\n", encoding="utf-8")
    python.chmod(0o755)
    peer = install.Peer("there", "there", "there", ("there==1",))
    assert install.python_of(peer) == install.python_of(peer) == str(python)
    assert (tmp_path / "runs").read_text(encoding="utf-8") == "x\n"


def test_a_small_run_measures_the_worker_beside_threads(tmp_path):
    file = tmp_path / "peers.json"
    command = [sys.executable, str(TOOLS / "bench_peers.py"), "--only", "asyncify,dspex", "--calls", "2"]
    command += ["--slots", "1", "--watch", "1", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert file.exists(), done.stderr
    threads, worker = json.loads(file.read_text(encoding="utf-8"))["peers"]
    assert [len(each["samples"]) for each in (threads, worker)] == [2, 2]
    assert (threads["closes"], threads["still_open"]) == ({}, 2)
    assert (set(worker["closes"]), worker["still_open"]) == ({"1", "2"}, 0)
    assert "never (2 of 2)" in done.stdout
