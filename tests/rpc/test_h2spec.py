"""The 146 cases of h2spec's generic, http2 and hpack suites, frame by frame, against our server.

h2spec is a program in Go; its cases are written anew here, and checked more strictly: where it takes any end of the
connection for an answer, the error code has to be there, and where a stream was reset, the connection has to go on.
No case is left out: those about priorities, which RFC 9113 deprecates, ask only that the frames are tolerated or
refused, and content-length, which gRPC has no use for, is checked all the same.
"""

import pytest
import trio

from dspex_trio import rpc

from . import h2spec_generic, h2spec_hpack, h2spec_http2, h2spec_http2_more
from .greeter import Greeter, serving
from .h2spec_case import MAX_CALLS, MAX_FRAME_SIZE
from .raw import RawClient

CASES = [*h2spec_generic.CASES, *h2spec_http2.CASES, *h2spec_http2_more.CASES, *h2spec_hpack.CASES]
SETTINGS = rpc.ServerSettings(max_frame_size=MAX_FRAME_SIZE, max_concurrent_calls=MAX_CALLS)


def test_every_case_is_there_once():
    """As many as h2spec has: 44 generic ones, 95 of HTTP/2, 7 of HPACK."""
    names = [case.name for case in CASES]
    assert len(names) == len(set(names)) == 146
    assert [sum(name.startswith(suite) for name in names) for suite in ("generic/", "http2/", "hpack/")] == [44, 95, 7]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_a_case_of_h2spec_passes(case, virtual_clock, record_property):
    """Virtual time: a server that does not answer fails at once."""
    record_property("h2spec", f"{case.name}: {case.title}")
    async with serving(Greeter(), settings=SETTINGS) as connect:
        client = RawClient(await connect())
        with trio.fail_after(5):
            async with client.stream:
                if case.begin:
                    await client.begin()
                for step in case.steps(client):
                    if isinstance(step, bytes):
                        await client.send(step)
                    else:
                        await step(client)
                await case.expect(client)
