"""`dspex-trio check`, as an operator runs it, and what it says where something does not end."""

import json
import ssl
import subprocess
import sys
from contextlib import suppress

import pytest
import trio

from dspex_trio.cli import check as cli
from dspex_trio.model import TrialSuccess
from dspex_trio.selftest import run as selftest
from dspex_trio.selftest.run import CASES, Finding
from dspex_trio.selftest.silent import CERTIFICATE, SilentProvider


def test_every_way_of_blocking_ends_on_the_installed_versions():
    done = subprocess.run(
        [sys.executable, "-m", "dspex_trio", "check", "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    told = json.loads(done.stdout)
    assert [each["why"] for each in told["findings"] if each["why"]] == []
    assert done.returncode == 0
    assert told["ok"]
    assert len(told["findings"]) == len(CASES)
    assert {each["rung"] for each in told["findings"]} == {"check", "wake", "raise", "kill"}
    assert all((each["close_ms"] is not None) == bool(each["closes"]) for each in told["findings"])
    assert {"python", "dspy", "litellm"} <= told["versions"].keys()
    assert "Traceback" not in done.stderr


@pytest.fixture
def found(monkeypatch):
    """`found(*findings)`: what the self-test is going to find."""

    def be(*findings):
        async def examine_all(tell):
            for each in findings:
                tell(each)

        monkeypatch.setattr(cli, "examine_all", examine_all)

    return be


WORKS = Finding(CASES[0], "wake", 2.0, 1.5, 1.0, why="")


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize(("last", "code"), [(WORKS, 0), (Finding(CASES[1]), 1)])
async def test_the_exit_code_says_whether_all_of_it_works(found, capsys, as_json, last, code):
    found(WORKS, last)
    assert await cli.check(as_json=as_json) == code
    told = capsys.readouterr().out
    assert ("there was no time left for it" in told) == bool(code)
    if as_json:
        assert [each["ok"] for each in json.loads(told)["findings"]] == [True, not code]
    else:
        assert told.rstrip().endswith("1 of 2 work, 1 FAILED" if code else "2 of 2 work")


def test_what_does_not_end_is_told_in_words():
    case = CASES[0]
    success = TrialSuccess.__new__(TrialSuccess)
    assert list(selftest._about_outcome(case, None, "-")) == ["there was no answer in time"]
    assert list(selftest._about_outcome(case, success, "-")) == ["the trial succeeded"]
    assert list(selftest._about_slot(None, 2)) == ["the slot was not free after 2 s"]
    assert list(selftest._about_slot(success, 2)) == []
    assert list(selftest._about_connections(case, 1, 1)) == []
    assert list(selftest._about_connections(case, 0, 0)) == ["the provider was asked 0 times, not 1"]
    assert list(selftest._about_connections(case, 1, 0)) == ["the provider saw 0 of 1 connections closed"]


def test_the_certificate_passes_the_strictest_verification():
    """Python 3.13 verifies by RFC 5280 to the letter."""
    client = ssl.create_default_context(cafile=CERTIFICATE)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(CERTIFICATE)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = client.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
    far = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (near, far):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
    assert near.getpeercert()["subject"] == (((("commonName"), "dspex-trio check: loopback only, key is public"),),)


async def test_the_provider_notes_who_leaves_without_what_is_owed(nursery):
    """A caller who has its answer and leaves is none of these."""
    provider = SilentProvider()
    port = await nursery.start(provider.serve)

    def request(body):
        return b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(request(b'{"model": "answers", "messages": []}'))
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")
        await provider.wait_until(lambda provider: not provider.owed)
    assert provider.closes == {}
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(request(b'{"model": "silent", "messages": [], "stream": true}'))
        assert b"text/event-stream" in await stream.receive_some()
    await provider.wait_until(lambda provider: provider.closes)
    assert (provider.asked, provider.owed, list(provider.closes)) == (2, 0, [2])
    nursery.cancel_scope.cancel()
