"""Generated from grpc/testing/empty.proto by tools/generate_protos.py. Do not edit."""

from ._pool import load

load(
    globals(),
    b'\n\x18grpc/testing/empty.proto\x12\x0cgrpc.testing"\x07\n\x05Emptyb\x06proto3'
)
