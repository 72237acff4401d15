"""Telemetry of a process that does not ask for it, or has not got it."""

import subprocess
import sys

import pytest

import dspex_trio as dspex
from dspex_trio.observing.telemetry import needing

WITHOUT = """
import sys, trio
import dspex_trio as dspex
from dspex_trio import cli, runtime
from dspex_trio.runtime import client, embedded, serving
from dspex_trio.cli import main, run, serve, worker_process

async def go():
    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(dspex.serve, dspex.Settings(port=0))
        async with dspex.open_client(f"127.0.0.1:{listener.socket.getsockname()[1]}") as client:
            await client.execute({"python_class": "no.such.Class"}, {})
        nursery.cancel_scope.cancel()

trio.run(go)
print([name for name in sys.modules if name.partition(".")[0] in ("opentelemetry", "prometheus_client")])
"""


def test_off_means_that_nothing_of_it_is_imported(tmp_path):
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.strip() == "[]"


def test_a_star_import_does_not_ask_for_the_extra():
    code = "import sys; sys.modules['opentelemetry'] = None; from dspex_trio import *; print(open_runtime.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "open_runtime"


def test_a_missing_extra_is_told_with_what_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.prometheus", None)
    monkeypatch.delitem(sys.modules, "dspex_trio.observing.telemetry.sdk", raising=False)
    with pytest.raises(dspex.InvalidSettings, match=r"pip install 'dspex-trio\[otel\]'"):
        needing("sdk")


async def test_a_runtime_whose_extra_is_missing_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.delitem(sys.modules, "dspex_trio.observing.telemetry.providers", raising=False)
    with pytest.raises(dspex.InvalidSettings, match=r"\[otel\]"):
        async with dspex.open_runtime(dspex.Settings(otel=True)):
            pass
