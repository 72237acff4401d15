"""HPACK from memory must be HPACK, whatever happened to the tables since."""

import hpack
import pytest
from hpack.exceptions import HPACKError, OversizedHeaderListError
from hypothesis import given, settings
from hypothesis import strategies as st

from dspex_trio.rpc.http2.header_codec import BlockDecoder, BlockEncoder, header_list_size, literal

NAMES = (b"grpc-status", b"content-type", b"x-a", b"x-b", b":status", b"grpc-message")
VALUES = (b"0", b"application/grpc", b"", b"a value of some length", b"x" * 200)

fields = st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES))
# So few names and values that lists come again; sizes that evict from the table, empty it and restore it.
blocks = st.lists(fields, max_size=5).map(tuple)
resizes = st.sampled_from((0, 40, 100, 300, 4096))
steps = st.lists(st.one_of(blocks, blocks, resizes), max_size=40)

# The same examples each time, and no limit on the time that a busy machine takes for one.
unhurried = settings(derandomize=True, deadline=None)


@unhurried
@given(steps)
def test_a_block_from_memory_is_the_block_that_encoding_afresh_gives(steps):
    """The claim that the memory rests on: the same history, once with it and once without."""
    remembering, afresh, peer = BlockEncoder(), BlockEncoder(), hpack.Decoder()
    for step in steps:
        if isinstance(step, int):
            remembering.header_table_size = afresh.header_table_size = step
        else:
            block = remembering.encode_again(step)
            assert block == afresh.encode(step)
            assert remembering.header_table.dynamic_entries == afresh.header_table.dynamic_entries
            assert peer.decode(block, raw=True) == list(step)


@unhurried
@given(st.lists(st.one_of(blocks, blocks), max_size=40))
def test_without_resizes_the_blocks_are_those_of_hpack(steps):
    ours, theirs = BlockEncoder(), hpack.Encoder()
    for step in steps:
        assert ours.encode_again(step) == theirs.encode(step)


@unhurried
@given(steps, st.booleans())
def test_fields_from_memory_are_the_fields_that_decoding_afresh_gives(steps, huffman):
    """Whatever a peer does to the table."""
    peer, remembering, afresh = BlockEncoder(), BlockDecoder(), hpack.Decoder()
    for step in steps:
        if isinstance(step, int):
            peer.header_table_size = step
        else:
            block = peer.encode(step, huffman=huffman)
            assert list(remembering.decode(block)) == afresh.decode(block, raw=True) == list(step)
            assert remembering.header_table.dynamic_entries == afresh.header_table.dynamic_entries
            assert remembering.header_table.maxsize == afresh.header_table.maxsize


def outcome(decoder, data):
    """What a decoder makes of some bytes; every refusal counts as the same."""
    try:
        return [tuple(field) for field in decoder.decode(data, raw=True)]
    except (HPACKError, IndexError, TypeError):  # hpack 3 lets some of its own errors escape
        return "refused"


@unhurried
@given(st.lists(st.one_of(st.binary(max_size=30), st.just(b"\x82\x86\x84\x40\x01a\x01b\xbe\x3f\xe1\x1f")), max_size=4))
def test_any_bytes_are_decoded_or_refused_as_hpack_does(pieces):
    """With the exception of integers that no peer can mean; what follows a refusal does not matter."""
    ours, theirs = BlockDecoder(), hpack.Decoder()
    for data in pieces:
        expected, found = outcome(theirs, data), outcome(ours, data)
        if found != expected:
            assert found == "refused"
            assert any(all(byte >= 0x80 for byte in data[i : i + 5]) for i in range(len(data) - 4))
        if found == "refused":
            return
        assert ours.header_table.dynamic_entries == theirs.header_table.dynamic_entries


@pytest.mark.parametrize("start", [0xFF, 0x7F, 0x0F, 0x3F])
def test_an_integer_without_end_is_refused_at_once(start):
    """Hpack 3 reads all of it, which takes seconds for one that fills a block."""
    with pytest.raises(HPACKError, match="too large"):
        BlockDecoder().decode(bytes((start,)) + b"\xff" * 60_000)


@unhurried
@given(st.binary(min_size=1, max_size=300), st.binary(max_size=20_000))
def test_a_literal_is_read_as_what_was_meant_and_leaves_the_table_alone(name, value):
    decoder = hpack.Decoder()
    assert decoder.decode(literal(name, value), raw=True) == [(name, value)]
    assert not decoder.header_table.dynamic_entries


def test_what_is_said_again_is_not_encoded_or_decoded_again():
    """What it is all for. The first block fills the table, the second one is the one to remember."""
    encoder, decoder = BlockEncoder(), BlockDecoder()
    again = ((b":status", b"200"), (b"content-type", b"application/grpc"))
    said = [encoder.encode_again(again) for _ in range(5)]
    assert said[1] is said[2] is said[4]
    heard = [decoder.decode(block) for block in said]
    assert heard[1] is heard[2] is heard[4]
    assert heard[0] == heard[1] == list(again)


def test_a_size_that_is_announced_twice_is_still_announced():
    """Hpack forgets it then, and a strict peer ends the connection."""
    encoder = BlockEncoder()
    encoder.header_table_size = 100
    encoder.header_table_size = 0
    encoder.header_table_size = 0
    peer = hpack.Decoder()
    peer.decode(encoder.encode_again(((b"a", b"b"),)))
    assert peer.header_table.maxsize == 0


@unhurried
@given(st.lists(st.lists(st.one_of(fields, st.sampled_from([(b"x", b"y" * 6000), (b"z" * 5000, b"")])), max_size=8)))
def test_a_list_that_is_too_large_leaves_the_table_as_one_that_is_kept_does(lists):
    """Else the next block of the connection could not be decoded."""
    peer, ours, theirs = hpack.Encoder(), BlockDecoder(), hpack.Decoder()
    ours.max_header_list_size = 100
    for fields_of_one in lists:
        block = peer.encode(fields_of_one, huffman=len(fields_of_one) % 2 == 0)
        found, expected = ours.decode(block), theirs.decode(block, raw=True)
        assert found.oversized == (header_list_size(expected) > 100)
        assert list(found) == expected[: len(found)]
        assert header_list_size(found) <= 100
        assert ours.header_table.dynamic_entries == theirs.header_table.dynamic_entries


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(b"\x82" * 100_000, id="references"),
        pytest.param(b"\x40\x01x\x84\x18\xc6\x31\xff" * 30_000, id="huffman"),
        pytest.param(literal(b"x", bytes(300_000)), id="one value"),
    ],
)
def test_what_would_take_long_to_read_on_is_not_read_on(block):
    decoder = BlockDecoder()
    decoder.max_header_list_size = 100
    with pytest.raises(OversizedHeaderListError):
        decoder.decode(block)


def test_memory_is_bounded():
    """A peer chooses its blocks: it must not be able to make us keep them all."""
    decoder = BlockDecoder()
    for number in range(10_000):
        decoder.decode(literal(b"x", str(number).encode()))
    assert len(decoder._known) <= 256
    decoder.decode(literal(b"x", bytes(5000)))
    assert all(len(block) <= 1024 for block in decoder._known)
