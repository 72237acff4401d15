from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from dspex_trio import rpc
from dspex_trio.sessions import STORE_CHANNEL, MemoryStore, Sessions
from dspex_trio.store.servicer import SessionStore, in_process_stub
from dspex_trio.wire.generated.bridge_grpc import BridgeServiceStub

from .peer import Server, generate, make_store


@pytest.fixture(scope="session")
def generated(tmp_path_factory):
    return generate(tmp_path_factory.mktemp("grpcio"))


@pytest.fixture
def peer(generated):
    """Makes grpcio stores, and ends them."""
    servers = []

    def make(**options):
        servers.append(Server(generated, make_store(generated, **options)))
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


@asynccontextmanager
async def over_http2():
    """Our store, served and called over HTTP/2 in memory."""
    listener, connector = rpc.memory_link()
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(rpc.serve, [SessionStore(MemoryStore())], listeners=[listener]))
        async with rpc.open_channel(connector, settings=STORE_CHANNEL) as channel:
            yield Sessions(BridgeServiceStub(channel), where="memory")
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def at(address, **options):
    async with rpc.open_channel(address, settings=STORE_CHANNEL) as channel:
        yield Sessions(BridgeServiceStub(channel), where=address, **options)


@asynccontextmanager
async def in_process():
    yield Sessions(in_process_stub(SessionStore(MemoryStore())))


@pytest.fixture(params=["in_process", "http2", "grpcio", "grpcio_without_batch"])
async def sessions(request, peer):
    """A store of every kind: the contract is the same."""
    match request.param:
        case "in_process":
            opened = in_process()
        case "http2":
            opened = over_http2()
        case "grpcio":
            opened = at(peer().address)
        case _:
            opened = at(peer(without=["GetVariables"]).address)
    async with opened as sessions:
        yield sessions
