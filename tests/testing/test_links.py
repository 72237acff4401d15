"""Links behave as Trio's streams must, and fail in the ways that they are told to."""

import pytest
import trio
import trio.testing

from dspex_trio.testing import Link


async def connected(link):
    async with trio.open_nursery() as nursery:
        accepted = []

        async def accept():
            accepted.append(await link.listener.accept())

        nursery.start_soon(accept)
        client = await link.connect()
    return client, accepted[0]


async def test_an_end_is_a_half_closeable_stream():
    """Trio's own check of what streams promise: closing, ends, conflicts, flow control."""

    async def clogged():
        client, server = await connected(Link())
        for end in (client, server):
            await end.send_all(bytes(2**16))
        return client, server

    await trio.testing.check_half_closeable_stream(lambda: connected(Link()), clogged)


async def test_bytes_take_as_long_as_the_delay_and_stay_in_order(virtual_clock):
    link = Link()
    client, server = await connected(link)
    link.delay(2.0)
    await client.send_all(b"first")
    link.delay(0.5)
    await client.send_all(b"second")
    assert await server.receive_some() == b"first"
    assert trio.current_time() == 2.0
    assert await server.receive_some() == b"second"
    assert trio.current_time() == 2.0
    assert [(carried.at, carried.direction, carried.data) for carried in link.log] == [
        (0.0, "to_server", b"first"),
        (0.0, "to_server", b"second"),
    ]


async def test_a_stalled_way_holds_bytes_and_its_end_until_it_goes_on(virtual_clock):
    link = Link()
    client, server = await connected(link)
    link.stall()
    await client.send_all(b"held")
    await client.send_eof()
    with trio.move_on_after(100) as waiting:
        await server.receive_some()
    assert waiting.cancelled_caught
    link.resume()
    assert await server.receive_some() == b"held"
    assert await server.receive_some() == b""


async def test_a_sender_waits_when_too_much_is_held(virtual_clock):
    link = Link()
    client, server = await connected(link)
    link.to_server.stall()
    with trio.move_on_after(1) as waiting:
        for _ in range(100):
            await client.send_all(bytes(10_000))
    assert waiting.cancelled_caught
    link.to_server.resume()
    await server.receive_some()
    await client.wait_send_all_might_not_block()


async def test_a_cut_breaks_both_ends_and_what_is_on_its_way_and_lets_new_connections_be_made():
    link = Link()
    client, server = await connected(link)
    await client.send_all(b"lost")
    link.cut()
    for end in (client, server):
        with pytest.raises(trio.BrokenResourceError):
            await end.receive_some()
        with pytest.raises(trio.BrokenResourceError):
            await end.send_all(b"x")
        await end.aclose()
    assert link.open_connections == 0
    client, server = await connected(link)
    await client.send_all(b"again")
    assert await server.receive_some() == b"again"
    assert (link.connections, link.open_connections) == (2, 1)


async def test_a_cut_in_the_middle_of_a_write_delivers_nothing_behind_it():
    link = Link()
    client, _ = await connected(link)
    link.to_server.cut(after=3)
    with pytest.raises(trio.BrokenResourceError):
        await client.send_all(b"abcdef")
    link.to_server.cut(after=3)
    client, server = await connected(link)
    await client.send_all(b"ab")
    assert await server.receive_some() == b"ab"
    with pytest.raises(trio.BrokenResourceError):
        await client.send_all(b"cd")
    with pytest.raises(trio.BrokenResourceError):
        await server.receive_some()


async def test_bytes_are_lost_and_changed_where_that_was_said_across_writes():
    link = Link()
    client, server = await connected(link)
    link.to_server.lose(2, after=1)
    link.to_server.corrupt(1, after=4, change=0x20)
    for piece in (b"ab", b"cd", b"efg"):
        await client.send_all(piece)
    received = b""
    while len(received) < 5:
        received += await server.receive_some()
    assert received == b"adEfg"
    await server.send_all(b"whole")
    assert await client.receive_some() == b"whole"


async def test_bytes_arrive_in_pieces():
    link = Link()
    client, server = await connected(link)
    link.to_server.piece = 2
    await client.send_all(b"abcde")
    assert [await server.receive_some() for _ in range(3)] == [b"ab", b"cd", b"e"]


async def test_a_way_that_is_half_closed_ends_for_its_receiver_and_fails_its_sender():
    link = Link()
    client, server = await connected(link)
    await client.send_all(b"last")
    link.to_server.half_close()
    assert await server.receive_some() == b"last"
    assert await server.receive_some() == b""
    with pytest.raises(trio.BrokenResourceError):
        await client.send_all(b"x")
    await server.send_all(b"still")
    assert await client.receive_some() == b"still"


async def test_a_link_refuses_connections_while_it_is_told_to_and_when_nobody_listens():
    link = Link()
    link.refuse()
    with pytest.raises(ConnectionRefusedError, match="refuses"):
        await link.connect()
    link.refuse(refusing=False)
    await connected(link)
    await link.listener.aclose()
    with pytest.raises(ConnectionRefusedError, match="nobody listens"):
        await link.connect()
