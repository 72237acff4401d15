"""Where the commands listen."""

import signal
import stat

import pytest

from dspex_trio import rpc
from dspex_trio.rpc.generated.health_grpc import HealthStub
from dspex_trio.rpc.generated.health_pb2 import HealthCheckRequest, HealthCheckResponse
from dspex_trio.runtime.client import open_client
from dspex_trio.runtime.settings import InvalidSettings, Settings
from dspex_trio.snakepit.pool import Pool
from dspex_trio.snakepit.settings import WorkerSettings


async def is_healthy(target):
    async with rpc.open_channel(target) as channel:
        reply = await HealthStub(channel).Check(HealthCheckRequest())
    return reply.status == HealthCheckResponse.SERVING


async def end(command):
    command.process.send_signal(signal.SIGTERM)
    assert await command.ends() == 0


@pytest.mark.parametrize("arguments", [["serve"], ["worker"]])
async def test_a_worker_serves_on_a_unix_socket_until_it_ends(start, tmp_path, arguments):
    where, ready = tmp_path / "socket", tmp_path / "ready"
    worker = await start(*arguments, "--host", f"unix:{where}", "--ready-file", str(ready))
    told = (await worker.until(r"serving [\w ]+ on (\S+)"))[1]
    assert told == ready.read_text() == f"unix:{where}"
    assert stat.S_IMODE(where.stat().st_mode) == 0o600
    assert await is_healthy(told)
    await end(worker)
    assert not where.exists()


async def test_a_store_serves_on_a_unix_socket_where_a_dead_one_left_its_own(start, tmp_path):
    where = tmp_path / "socket"
    dead = await rpc.open_unix(where)
    dead.socket.close()
    store = await start("store", "--host", f"unix:{where}")
    await store.until(f"serving sessions on unix:{where}")
    async with open_client(f"unix:{where}") as client:
        session = await client.initialize_session("s")
        await session.register("v", "integer", 1)
        assert await session.get("v") == 1
    await end(store)
    assert not where.exists()


@pytest.mark.parametrize("host", ["::1", "[::1]"])
async def test_a_store_on_ipv6_shows_its_address_in_brackets(start, host):
    try:
        for listener in await rpc.open_tcp("::1", 0):
            await listener.aclose()
    except OSError:
        pytest.skip("no IPv6 here")
    store = await start("store", "--host", host)
    address = (await store.until(r"serving sessions on (\[::1\]:\d+)"))[1]
    async with open_client(address) as client:
        await client.initialize_session("s")
    await end(store)


async def test_a_unix_socket_of_a_living_server_is_named_in_one_line(start, tmp_path):
    where = tmp_path / "socket"
    living = await rpc.open_unix(where)
    store = await start("store", "--host", f"unix:{where}")
    assert await store.ends() == 1
    assert f"Error: cannot listen on unix:{where}: [Errno" in store.told
    assert "Traceback" not in store.told
    await living.aclose()


def test_a_worker_of_a_pool_is_not_on_a_unix_socket():
    """A pool finds its workers by a port."""
    pool = Pool.found({"snakepit_run_id": "r"}, {})
    with pytest.raises(InvalidSettings, match="not by a UNIX socket"):
        WorkerSettings(host="unix:/run/worker.sock").for_pool(pool)


@pytest.mark.parametrize("store", ["::1:50052", "a b:1", "unix:", "h:70000"])
def test_an_address_of_a_store_that_cannot_be_one_is_refused_at_the_start(store):
    with pytest.raises(InvalidSettings, match="--store"):
        Settings.load_from({"store": store})
