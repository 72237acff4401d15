"""What a served runtime offers beside trials: health, reflection, TLS, a token, an orderly end."""

from pathlib import Path

import pytest
import trio
import trustme

import dspex_trio as dspex
from dspex_trio import rpc
from dspex_trio.rpc.generated.health_grpc import HealthStub
from dspex_trio.rpc.generated.health_pb2 import HealthCheckRequest, HealthCheckResponse
from dspex_trio.rpc.server.listeners import reachable
from dspex_trio.runtime.serving import serve_runtime, warnings_about

TOKEN = "a-long-enough-token"


@pytest.fixture
def certificates(tmp_path):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    for name in ("server", "client"):
        made = authority.issue_cert("localhost", "127.0.0.1")
        made.private_key_pem.write_to_path(str(tmp_path / f"{name}.key"))
        for pem in made.cert_chain_pems:
            pem.write_to_path(str(tmp_path / f"{name}.pem"), append=True)
    return tmp_path


async def served(nursery, stopping=None, **settings):
    [listener, *_] = await nursery.start(
        lambda task_status: dspex.serve(dspex.Settings(port=0, **settings), stopping=stopping, task_status=task_status)
    )
    return getattr(listener, "transport_listener", listener).socket.getsockname()[1]


async def refused(client):
    with trio.fail_after(10), pytest.raises(rpc.RpcError) as caught:
        await client.execute({"python_class": "Nope"}, {})
    return caught.value.status


async def test_only_callers_with_the_token_are_served(nursery):
    port = await served(nursery, token=TOKEN)
    async with dspex.open_client(f"127.0.0.1:{port}") as stranger:
        assert await refused(stranger) is rpc.StatusCode.UNAUTHENTICATED
    async with dspex.open_client(f"127.0.0.1:{port}", token="another-token") as stranger:
        assert await refused(stranger) is rpc.StatusCode.UNAUTHENTICATED
    async with dspex.open_client(f"127.0.0.1:{port}", token=TOKEN) as client:
        outcome = await client.execute({"python_class": "Nope"}, {})
        assert outcome.kind is dspex.FailureKind.CLASS_NOT_FOUND
        session = await client.initialize_session("s")
        await session.register("v", "integer", 1)
        assert await session.get("v") == 1
    async with rpc.open_channel(f"127.0.0.1:{port}") as channel:  # probes carry no credentials
        reply = await HealthStub(channel).Check(HealthCheckRequest(service=rpc.READINESS))
        assert reply.status == HealthCheckResponse.SERVING


async def test_the_limits_of_connections_are_settings(nursery):
    """Two idle ones that had sent no token would have kept every caller out."""
    port = await served(nursery, token=TOKEN, max_connections=2, max_connections_per_peer=2, first_call_timeout=1000)
    async with (
        await trio.open_tcp_stream("127.0.0.1", port) as first,
        await trio.open_tcp_stream("127.0.0.1", port),
        dspex.open_client(f"127.0.0.1:{port}", token=TOKEN) as client,
    ):
        outcome = await client.execute({"python_class": "Nope"}, {})
        assert outcome.kind is dspex.FailureKind.CLASS_NOT_FOUND
        with trio.fail_after(10):
            async for _ in first:  # which ends when it has been closed
                pass


async def test_a_connection_without_a_call_is_closed_in_time(nursery):
    port = await served(nursery, token=TOKEN, first_call_timeout=0.05)
    async with await trio.open_tcp_stream("127.0.0.1", port) as idle:
        with trio.fail_after(10):
            async for _ in idle:
                pass


async def test_mutual_tls_serves_only_clients_with_a_certificate(nursery, certificates):
    port = await served(
        nursery,
        tls_certificate=certificates / "server.pem",
        tls_key=certificates / "server.key",
        tls_client_ca=certificates / "ca.pem",
    )
    known = rpc.client_tls(
        ca=certificates / "ca.pem", certificate=certificates / "client.pem", key=certificates / "client.key"
    )
    async with dspex.open_client(f"localhost:{port}", tls=known) as client:
        outcome = await client.execute({"python_class": "Nope"}, {})
        assert outcome.kind is dspex.FailureKind.CLASS_NOT_FOUND
    async with dspex.open_client(f"localhost:{port}", tls=rpc.client_tls(ca=certificates / "ca.pem")) as stranger:
        assert await refused(stranger) is rpc.StatusCode.UNAVAILABLE


async def test_health_turns_not_serving_before_anything_else_ends(nursery):
    stopping = trio.Event()
    port = await served(nursery, stopping=stopping)
    seen = []
    async with rpc.open_channel(f"127.0.0.1:{port}") as channel:
        request = HealthCheckRequest(service="snakepit.bridge.SnakepitBridge")
        with pytest.raises(rpc.RpcError) as caught:  # noqa: PT012 - the stream ends with the server
            async with HealthStub(channel).Watch(request) as states:
                async for state in states:
                    seen.append(state.status)
                    stopping.set()
    assert seen == [HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING]
    assert caught.value.status is rpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"tls_certificate": "x.pem"}, "tls_certificate and tls_key go together"),
        ({"tls_client_ca": "x.pem"}, "tls_client_ca needs tls_certificate and tls_key"),
        ({"token": "short"}, "token (--token, DSPEX_TRIO_TOKEN): String should have at least 8 characters"),
    ],
)
def test_settings_that_do_not_fit_together_say_so(settings, told):
    with pytest.raises(dspex.InvalidSettings) as caught:
        dspex.Settings.load_from(settings)
    assert told in str(caught.value)
    assert "short" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, ["whoever reaches 10.0.0.1:7 may run programs", "can be read and changed on its way"]),
        ({"token": TOKEN}, ["can be read and changed on its way"]),
        ({"tls_certificate": Path("c"), "tls_key": Path("k")}, ["whoever reaches 10.0.0.1:7 may run programs"]),
        ({"tls_certificate": Path("c"), "tls_key": Path("k"), "tls_client_ca": Path("a")}, []),
        ({"tls_certificate": Path("c"), "tls_key": Path("k"), "token": TOKEN}, []),
    ],
)
def test_listening_to_other_machines_without_token_or_tls_is_told_with_what_to_set(settings, told):
    settings = dspex.Settings(**settings)
    warnings = list(warnings_about(["10.0.0.1:7"], settings))
    assert len(warnings) == len(told)
    assert all(text in warning for text, warning in zip(told, warnings, strict=True))
    assert list(warnings_about([], settings)) == []


async def test_the_warning_is_logged_once_and_for_addresses_that_other_machines_reach_alone(caplog, nursery):
    async with dspex.open_runtime(dspex.Settings(host="0.0.0.0", port=0)) as runtime:  # noqa: S104 - what is warned of
        await nursery.start(serve_runtime, runtime, runtime.servicers)
        assert [record.levelname for record in caplog.records if "0.0.0.0:" in record.getMessage()] == ["WARNING"] * 2
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("host", "others"),
    [("127.0.0.1", False), ("::1", False), ("localhost", False), ("0.0.0.0", True), ("::", True)],  # noqa: S104
)
async def test_which_addresses_other_machines_may_reach(host, others):
    try:
        listeners = await rpc.open_tcp(host, 0)
    except OSError:
        pytest.skip("no such address here")
    assert bool(reachable(listeners)) is others
    for listener in listeners:
        await listener.aclose()
