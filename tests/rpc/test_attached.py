from contextlib import asynccontextmanager

from dspex_trio.observing import correlation
from dspex_trio.rpc import Attached, Metadata
from dspex_trio.rpc.client.stubs import CallOptions


class FakeChannel:
    """Remembers what calls carried."""

    def __init__(self):
        self.carried = []

    async def call(self, path, request, options):
        self.carried.append(options.metadata.items())
        return request

    @asynccontextmanager
    async def open(self, path, options, request=None):
        self.carried.append(options.metadata.items())
        yield path


async def test_every_call_carries_what_is_attached_after_its_own():
    channel = FakeChannel()
    attached = Attached(channel, lambda: {"authorization": "Bearer x"})

    assert await attached.call("/a", b"request", CallOptions(Metadata([("mine", "1")]))) == b"request"
    async with attached.open("/b", CallOptions()) as path:
        assert path == "/b"
    assert channel.carried == [(("mine", "1"), ("authorization", "Bearer x")), (("authorization", "Bearer x"),)]


async def test_a_call_made_on_behalf_of_another_carries_its_correlation_id():
    channel = FakeChannel()
    attached = Attached(channel, correlation.headers)

    await attached.call("/a", b"", CallOptions())
    with correlation.correlated("c-1"):
        await attached.call("/a", b"", CallOptions())
    assert channel.carried == [(), (("x-snakepit-correlation-id", "c-1"),)]


def test_a_correlation_id_can_forge_neither_a_header_nor_a_line_of_the_log():
    """Whoever calls chooses it."""
    with correlation.correlated("a\r\nb\x1b é" + "x" * 500):
        assert correlation.current() == "a??b???" + "x" * (128 - 7)
        with correlation.correlated(None):
            assert correlation.current().startswith("a??b")
    assert correlation.current() == ""
