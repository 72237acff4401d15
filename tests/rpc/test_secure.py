"""TLS, mutual TLS and bearer tokens."""

import ssl
from functools import partial

import grpc
import pytest
import trio
import trustme

from dspex_trio import rpc

from .generated.greeter_grpc import GreeterStub
from .generated.greeter_pb2 import HelloRequest
from .greeter import Greeter, greeting, serving_tcp
from .raw import RawClient
from .test_grpcio import GrpcioStub, in_thread


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    """A root, a server's and a client's certificate, as files."""
    where = tmp_path_factory.mktemp("pki")
    ca = trustme.CA()
    ca.cert_pem.write_to_path(where / "ca.pem")
    for name, identity in (("server", "localhost"), ("client", "client@example.org")):
        certificate = ca.issue_cert(identity)
        certificate.cert_chain_pems[0].write_to_path(where / f"{name}.pem")
        certificate.private_key_pem.write_to_path(where / f"{name}.key")
    return where


def server_context(pki, *, mutual=False):
    client_ca = pki / "ca.pem" if mutual else None
    return rpc.server_tls(pki / "server.pem", pki / "server.key", client_ca=client_ca)


async def test_calls_go_over_tls(pki):
    async with serving_tcp(Greeter(), tls=server_context(pki)) as port:
        tls = rpc.client_tls(ca=pki / "ca.pem")
        async with rpc.open_channel(f"localhost:{port}", tls=tls) as channel:
            assert (await GreeterStub(channel).SayHello(HelloRequest(name="a"))).text == "hello a"


async def test_a_listener_behind_tls_has_its_socket_as_one_without_has(pki):
    """Trio's listener for TLS keeps the real one to itself: `listeners[0].socket` was an AttributeError."""
    async with trio.open_nursery() as nursery:
        serve = partial(rpc.serve, [Greeter()], tls=server_context(pki))
        [listener] = await nursery.start(serve)
        port = listener.socket.getsockname()[1]
        assert (listener.port, listener.address) == (port, f"127.0.0.1:{port}")
        tls = rpc.client_tls(ca=pki / "ca.pem")
        async with rpc.open_channel(f"localhost:{listener.port}", tls=tls) as channel:
            assert (await GreeterStub(channel).SayHello(HelloRequest(name="a"))).text == "hello a"
        nursery.cancel_scope.cancel()


def test_nobody_renegotiates(pki):
    """HTTP/2 forbids it (RFC 9113, 9.2.1), and it is a cheap way to keep a server busy."""
    for context in (server_context(pki), rpc.client_tls(ca=pki / "ca.pem")):
        assert context.options & ssl.OP_NO_RENEGOTIATION
        assert context.options & ssl.OP_NO_COMPRESSION


async def test_grpcio_accepts_our_tls(pki):
    """It refuses servers that do not negotiate HTTP/2 by ALPN, as purerpc's own does not."""
    async with serving_tcp(Greeter(), tls=server_context(pki)) as port:
        credentials = grpc.ssl_channel_credentials((pki / "ca.pem").read_bytes())
        with grpc.secure_channel(f"localhost:{port}", credentials) as channel:
            stub = GrpcioStub(channel)
            reply = await in_thread(lambda: stub.SayHello(HelloRequest(name="a"), timeout=20))
    assert reply.text == "hello a"


async def test_under_mutual_tls_handlers_see_the_clients_certificate(pki):
    greeter = Greeter()
    async with serving_tcp(greeter, tls=server_context(pki, mutual=True)) as port:
        tls = rpc.client_tls(ca=pki / "ca.pem", certificate=pki / "client.pem", key=pki / "client.key")
        async with rpc.open_channel(f"localhost:{port}", tls=tls) as channel:
            await GreeterStub(channel).SayHello(HelloRequest(name="a"))
    expected = ssl.PEM_cert_to_DER_cert((pki / "client.pem").read_text())
    assert greeter.calls[0].peer_certificate == expected


async def test_under_mutual_tls_a_client_without_certificate_is_not_served(pki):
    greeter = Greeter()
    async with (
        serving_tcp(greeter, tls=server_context(pki, mutual=True)) as port,
        rpc.open_channel(f"localhost:{port}", tls=rpc.client_tls(ca=pki / "ca.pem")) as channel,
    ):
        with pytest.raises(rpc.RpcError) as caught:
            await GreeterStub(channel).SayHello(HelloRequest(name="a"))
    assert caught.value.status is rpc.StatusCode.UNAVAILABLE
    assert greeter.calls == []


async def test_a_server_that_cannot_be_trusted_is_not_called(pki, tmp_path):
    other = trustme.CA()
    other.cert_pem.write_to_path(tmp_path / "other.pem")
    async with (
        serving_tcp(Greeter(), tls=server_context(pki)) as port,
        rpc.open_channel(f"localhost:{port}", tls=rpc.client_tls(ca=tmp_path / "other.pem")) as channel,
    ):
        with pytest.raises(rpc.RpcError, match="certificate verify failed") as caught:
            await GreeterStub(channel).SayHello(HelloRequest(name="a"))
    assert caught.value.status is rpc.StatusCode.UNAVAILABLE


async def test_a_tls_client_that_does_not_speak_http2_is_turned_away(pki):
    context = ssl.create_default_context(cafile=pki / "ca.pem")
    async with (
        serving_tcp(Greeter(), tls=server_context(pki)) as port,
        await trio.open_ssl_over_tcp_stream("localhost", port, ssl_context=context) as stream,
    ):
        with trio.fail_after(20), pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()


async def test_what_is_still_under_way_when_a_tls_connection_is_closed_is_read(pki):
    """Closed with unread bytes in it, a socket is reset, and a reset may overtake the last replies."""
    listener, connect = rpc.memory_link()
    async with trio.open_nursery() as nursery:
        serve = partial(rpc.serve, [Greeter()], listeners=[listener], tls=server_context(pki))
        await nursery.start(serve)
        transport = await connect()
        context = rpc.client_tls(ca=pki / "ca.pem")
        client = RawClient(trio.SSLStream(transport, context, server_hostname="localhost", https_compatible=True))
        await client.begin()
        await client.send(client.data(99, b"for no stream"))
        await client.until_closed()
        assert client.goaways[-1][1] == 1
        await transport.send_all(b"sent before we knew")  # a broken stream, if nobody read any more
        await transport.aclose()
        nursery.cancel_scope.cancel()


async def test_a_client_that_does_not_shake_hands_is_turned_away(pki):
    settings = rpc.ServerSettings(handshake_timeout=0.05)
    async with (
        serving_tcp(Greeter(), tls=server_context(pki), settings=settings) as port,
        await trio.open_tcp_stream("127.0.0.1", port) as stream,
    ):
        with trio.fail_after(20):
            assert await stream.receive_some() == b""


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        {"authorization": "Bearer wrong"},
        {"authorization": "Basic secret"},
        {"authorization": "secret"},
        {"authorization": "Bearer"},
        {"authorization": "Bearer secre"},
    ],
)
async def test_without_the_token_a_call_is_unauthenticated(metadata):
    greeter = Greeter()
    async with greeting(greeter, interceptors=[rpc.bearer_token("secret")]) as stub:
        with pytest.raises(rpc.RpcError) as caught:
            await stub.SayHello(HelloRequest(), metadata=metadata)
    assert caught.value.status is rpc.StatusCode.UNAUTHENTICATED
    assert greeter.calls == []


@pytest.mark.parametrize("text", ["Bearer new", "bearer old"])
async def test_with_one_of_the_tokens_a_call_is_served(text):
    async with greeting(interceptors=[rpc.bearer_token(["old", "new"])]) as stub:
        await stub.SayHello(HelloRequest(), metadata={"authorization": text})


async def test_probes_need_no_token_and_others_may_be_let_off():
    check = rpc.bearer_token("secret", exempt=["/greeting.Greeter/Watch"])
    async with greeting(interceptors=[check]) as stub, stub.Watch(HelloRequest(name="n", times=1)) as replies:
        assert [reply.text async for reply in replies] == ["n 0"]


def test_an_empty_token_is_refused():
    for tokens in ("", [], ["good", ""]):
        with pytest.raises(ValueError, match="must not be empty"):
            rpc.bearer_token(tokens)
