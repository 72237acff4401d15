"""h2spec's "hpack" suite: header blocks that cannot be decoded end the connection (RFC 9113, 4.3)."""

from .h2spec_case import COMPRESSION_ERROR, Case, ask, connection_error

REFUSED = connection_error(COMPRESSION_ERROR)

# "test" in Huffman's code is 20 bits; every string ends with ones up to a whole byte.
T, E, S, EOS = "01001", "00101", "01000", "1" * 30


def literal(bits):
    """A literal header field without indexing, `x-test` with a value of these bits."""
    value = int(bits, 2).to_bytes(len(bits) // 8, "big")
    return bytes.fromhex("0085f2b24a84ff") + bytes([0x80 | len(value)]) + value


def case(name, title, representation):
    return Case(f"hpack/{name}", title, lambda c: [ask(c, after=representation)], REFUSED)


CASES = [
    case("2.3.3/1", "an index beyond both tables", b"\xfe"),
    case("4.2/1", "a dynamic table size update at the end of a block", b"\x20"),
    case("5.2/1", "a Huffman-coded string with more than 7 bits of padding", literal(T + E + S + T + "1" * 12)),
    case("5.2/2", "a Huffman-coded string padded by zeros", literal(T + E + S + T + "0000")),
    case("5.2/3", "a Huffman-coded string with the EOS symbol", literal(T + E + EOS + S + T + "1" * 6)),
    case("6.1/1", "the index 0", b"\x80"),
    Case(
        "hpack/6.3/1",
        "a dynamic table larger than SETTINGS_HEADER_TABLE_SIZE",
        lambda c: [ask(c, before=b"\x3f\xe2\x1f")],
        REFUSED,
    ),
]
