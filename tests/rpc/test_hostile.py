"""What hostile peers have found once, and short runs of the tools that look for more."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from dspex_trio.rpc.client.call import ClientCall
from dspex_trio.rpc.status import Status, StatusCode

from .greeter import Greeter, serving
from .raw import fields, message, raw_client

TOOLS = Path(__file__).parents[2] / "tools"


async def test_a_call_that_fails_in_the_breath_in_which_it_began_ends_no_other(virtual_clock):
    """The answer to an unknown method was written to a stream that was gone, which ended the connection."""
    async with serving(Greeter()) as connect, raw_client(connect) as client:
        with trio.fail_after(5):
            await client.send(client.headers(1, fields("/nobody/Here")), client.data(1, message(flag=2)))
            reply = await client.reply(1)
            assert reply.status == 13
            assert await client.works(3)


async def test_padding_longer_than_its_frame_is_the_peers_fault_and_no_error_of_ours(virtual_clock, caplog):
    """h2 3 lets hyperframe's exception through; a peer must not be able to fill the log."""
    async with serving(Greeter()) as connect, raw_client(connect) as client:
        with trio.fail_after(5):
            await client.send(client.headers(1, fields()), b"\0\0\x05\0\x08\0\0\0\x01\xfftest")
            await client.until_closed()
    assert client.goaways[-1][1] == 1
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_frame_that_is_too_long_is_refused_by_its_header(virtual_clock):
    """h2 keeps all of it first: up to 16 MB for each connection."""
    async with serving(Greeter()) as connect, raw_client(connect) as client:
        with trio.fail_after(5):
            await client.send(client.headers(1, fields()), b"\xff\xff\xff\0\0\0\0\0\x01")
            await client.until_closed()
    assert client.goaways[-1][1] == 6  # FRAME_SIZE_ERROR


@pytest.mark.parametrize(("ahead", "code"), [(0.0, StatusCode.DEADLINE_EXCEEDED), (1.0, StatusCode.CANCELLED)])
async def test_a_reset_at_the_deadline_is_the_deadline(ahead, code, virtual_clock):
    """A server that keeps deadlines resets the stream; a client that is busy hears of it with its own deadline."""
    call = ClientCall(None, 1, None, 1000, trio.current_time() + ahead)
    call.ended(Status(StatusCode.CANCELLED, "the server reset the stream with HTTP/2 error 8"))
    assert call.error().status is code


@pytest.mark.skipif(sys.platform != "linux", reason="the tools look into /proc")
@pytest.mark.parametrize(
    "command",
    [("fuzz_rpc.py", "--count", "300", "--seed", "1"), ("soak_rpc.py", "--calls", "500", "--seed", "1")],
    ids=lambda command: command[0],
)
def test_a_short_run_of_a_tool_finds_nothing(command):
    """The long runs are `just fuzz-rpc` and `just soak-rpc`; `just flood-rpc` measures times and has no short run."""
    tool, *arguments = command
    finished = subprocess.run(
        [sys.executable, TOOLS / tool, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
