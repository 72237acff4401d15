"""Where servers can be, and where not."""

import errno
import os
import socket
from functools import partial

import pytest
import trio

from dspex_trio import rpc
from dspex_trio.rpc.client.target import addresses

from .generated.greeter_grpc import GreeterStub
from .generated.greeter_pb2 import HelloRequest
from .greeter import Greeter, port_of, serving_tcp


async def hello(target):
    async with rpc.open_channel(target) as channel:
        return (await GreeterStub(channel).SayHello(HelloRequest(name="a"))).text


async def test_a_second_server_on_a_port_fails_to_start():
    """Stock purerpc binds every interface with SO_REUSEPORT: the second one starts, and gets half of the calls."""
    async with serving_tcp(Greeter()) as port:
        with pytest.raises(OSError, match=r"[Aa]ddress already in use"):
            await rpc.serve([Greeter()], port=port)


async def test_a_port_can_be_shared_by_those_who_ask_for_it():
    if not hasattr(socket, "SO_REUSEPORT"):
        pytest.skip("not on this system")
    first = await rpc.open_tcp("127.0.0.1", 0, reuse_port=True)
    second = await rpc.open_tcp("127.0.0.1", port_of(first), reuse_port=True)
    for listener in [*first, *second]:
        await listener.aclose()


async def test_a_server_is_for_this_machine_alone_unless_it_is_told_otherwise():
    greeter = Greeter()
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(rpc.serve, [greeter])
        assert [one.socket.getsockname()[0] for one in listeners] == ["127.0.0.1"]
        assert await hello(f"127.0.0.1:{port_of(listeners)}") == "hello a"
        nursery.cancel_scope.cancel()
    assert greeter.calls[0].peer.startswith("ipv4:127.0.0.1:")


async def test_a_server_on_ipv6():
    try:
        listeners = await rpc.open_tcp("::1", 0)
    except OSError:
        pytest.skip("no IPv6 here")
    greeter = Greeter()
    async with serving_tcp(greeter, listeners=listeners) as port:
        assert await hello(f"[::1]:{port}") == "hello a"
        assert await hello(f"ipv6:[::1]:{port}") == "hello a"
    assert greeter.calls[0].peer.startswith("ipv6:[::1]:")


async def test_a_server_on_a_unix_socket(tmp_path):
    path = tmp_path / "socket"
    greeter = Greeter()
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(rpc.serve, [greeter], listeners=[await rpc.open_unix(path)]))
        assert await hello(f"unix:{path}") == await hello(f"unix://{path}") == "hello a"
        assert path.stat().st_mode & 0o777 == 0o600
        nursery.cancel_scope.cancel()
    assert greeter.calls[0].peer == f"unix:{path}"


async def test_the_unix_socket_of_a_dead_server_is_replaced_and_no_other_file(tmp_path):
    path = tmp_path / "socket"
    dead = await rpc.open_unix(path)
    dead.socket.close()  # as the end of its process does, which removes no file
    assert path.is_socket()
    living = await rpc.open_unix(path)
    with pytest.raises(OSError, match=r"[Aa]ddress already in use"):
        await rpc.open_unix(path)
    await living.aclose()
    assert not path.exists()
    (tmp_path / "file").write_text("precious")
    with pytest.raises(OSError, match=r"[Aa]ddress already in use"):
        await rpc.open_unix(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "precious"


async def test_a_unix_socket_is_removed_when_its_server_ends_however_it_ends(tmp_path):
    path = tmp_path / "socket"
    drain = rpc.Drain()
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(rpc.serve, [Greeter()], host=f"unix:{path}", drain=drain))
        assert path.is_socket()
        drain.start()
    assert not path.exists()
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(rpc.serve, [Greeter()], host=f"unix:{path}"))
        assert path.is_socket()
        nursery.cancel_scope.cancel()
    assert not path.exists()


async def test_a_server_that_ends_leaves_the_socket_of_its_successor(tmp_path):
    path = tmp_path / "socket"
    first = await rpc.open_unix(path)
    path.unlink()
    second = await rpc.open_unix(path)
    await first.aclose()
    assert path.is_socket()
    await second.aclose()
    assert not path.exists()


@pytest.mark.parametrize("name", ["", "unix:", "unix:" + "x" * 200, "unix:/no/such/directory/socket"])
async def test_what_is_no_place_to_listen_is_an_os_error(name):
    """Of "" the system makes every interface."""
    with pytest.raises(OSError, match=r"no place to listen|too long|No such file"):
        await rpc.serve([Greeter()], host=name)


@pytest.mark.parametrize("host", ["::1", "[::1]"])
async def test_an_ipv6_host_is_taken_with_brackets_and_without_and_shown_with_them(host):
    greeter = Greeter()
    async with trio.open_nursery() as nursery:
        try:
            [listener] = await nursery.start(partial(rpc.serve, [greeter], host=host))
        except* OSError:
            pytest.skip("no IPv6 here")
        assert listener.address == f"[::1]:{listener.port}"
        assert await hello(listener.address) == "hello a"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("host", "shown"),
    [("::1", "[::1]:5"), ("[::1]", "[::1]:5"), ("::", "[::]:5"), ("a.b", "a.b:5"), ("unix:/a", "unix:/a")],
)
def test_a_place_is_written_as_clients_write_it(host, shown):
    assert rpc.place(host, 5) == shown


async def test_every_kind_of_listener_that_serve_returns_tells_where_it_is(tmp_path):
    memory, _ = rpc.memory_link()
    given = [*await trio.open_tcp_listeners(0, host="127.0.0.1"), await rpc.open_unix(tmp_path / "s"), memory]
    async with trio.open_nursery() as nursery:
        tcp, unix, in_memory = await nursery.start(partial(rpc.serve, [Greeter()], listeners=given))
        assert all(isinstance(one, rpc.Listener) for one in (tcp, unix, in_memory))
        port = tcp.socket.getsockname()[1]
        assert (tcp.port, tcp.address) == (port, f"127.0.0.1:{port}")
        assert (unix.port, unix.address, unix.socket.family) == (None, f"unix:{tmp_path / 's'}", socket.AF_UNIX)
        assert (in_memory.port, in_memory.address) == (None, "memory:")
        with pytest.raises(AttributeError, match="socket"):
            _ = in_memory.socket
        nursery.cancel_scope.cancel()


async def test_a_connector_without_a_server_is_refused():
    listener, connect = rpc.memory_link()
    await listener.aclose()
    async with rpc.open_channel(connect) as channel:
        with pytest.raises(rpc.RpcError, match="nobody listens"):
            await GreeterStub(channel).SayHello(HelloRequest())


@pytest.mark.parametrize("error", [trio.BrokenResourceError, trio.ClosedResourceError, OSError])
async def test_a_connector_fails_with_the_errors_of_streams_too(error):
    """One that goes through a proxy has streams of its own; their errors ended the block of the channel."""

    async def connect():
        raise error("the proxy hung up")

    async with rpc.open_channel(connect) as channel:
        with pytest.raises(rpc.RpcError, match="the proxy hung up") as caught:
            await GreeterStub(channel).SayHello(HelloRequest())
    assert caught.value.status is rpc.StatusCode.UNAVAILABLE


async def test_what_each_attempt_to_connect_failed_of_is_told():
    """Trio's error says no more than that all attempts have failed; the reasons stand in its cause."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        port = taken.getsockname()[1]
        async with rpc.open_channel(f"127.0.0.1:{port}") as channel:
            with pytest.raises(rpc.RpcError) as caught:
                await GreeterStub(channel).SayHello(HelloRequest())
    assert caught.value.status is rpc.StatusCode.UNAVAILABLE
    assert caught.value.message.startswith(f"cannot connect to 127.0.0.1:{port}: ")
    assert os.strerror(errno.ECONNREFUSED) in caught.value.message


async def test_a_name_with_two_addresses_fails_with_two_reasons():
    async def connect():
        reasons = [OSError(111, "Connection refused by ::1"), OSError(110, "127.0.0.1 timed out")]
        raise OSError("all attempts failed") from ExceptionGroup("all attempts failed", reasons)

    async with rpc.open_channel(connect) as channel:
        with pytest.raises(rpc.RpcError) as caught:
            await GreeterStub(channel).SayHello(HelloRequest())
    assert caught.value.message == (
        "cannot connect to memory: all attempts failed: "
        "[Errno 111] Connection refused by ::1; [Errno 110] 127.0.0.1 timed out"
    )


# "a..b" and the long one raised UnicodeError when they were connected to, out of the block of the channel.
NO_ADDRESSES = [
    "",
    "localhost",
    "localhost:",
    ":1",
    "::1:80",
    "h:0",
    "h:65536",
    "h:x",
    "unix:",
    "a..b:1",
    "x" * 64 + ":1",
    "a\r\nx: y:1",
    "a b:1",
    "a\0:1",
    "h:²",
    "unix:a\0b",
]


@pytest.mark.parametrize("text", NO_ADDRESSES)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ValueError, match=r"address|path"):
        addresses(text)


def test_addresses_have_the_authority_that_was_written():
    found = addresses(["dns:///example.org:50051", "ipv4:1.2.3.4:5,1.2.3.5:6", "[::1]:7"])
    assert [one.authority for one in found] == ["example.org:50051", "1.2.3.4:5", "1.2.3.5:6", "[::1]:7"]
    assert [one.host for one in found] == ["example.org", "1.2.3.4", "1.2.3.5", "::1"]


def test_a_name_of_another_script_is_asked_for_and_sent_as_dns_has_it():
    [found] = addresses("bücher.example:80")
    assert (found.authority, found.host) == ("xn--bcher-kva.example:80", "xn--bcher-kva.example")


async def test_two_servicers_of_one_service_are_refused():
    with pytest.raises(ValueError, match="given twice"):
        await rpc.serve([Greeter(), Greeter()])
