"""Generated from grpc/testing/test.proto by tools/generate_protos.py. Do not edit."""

from ._pool import load
from . import empty_testing_pb2  # noqa: F401
from . import messages_pb2  # noqa: F401

load(
    globals(),
    b'\n\x17grpc/testing/test.proto\x12\x0cgrpc.testing\x1a\x18grpc/testing/empty.'
    b'proto\x1a\x1bgrpc/testing/messages.proto2\xcb\x05\n\x0bTestService\x125\n\tEmptyC'
    b'all\x12\x13.grpc.testing.Empty\x1a\x13.grpc.testing.Empty\x12F\n\tUnaryCall\x12\x1b'
    b'.grpc.testing.SimpleRequest\x1a\x1c.grpc.testing.SimpleResponse\x12O\n'
    b'\x12CacheableUnaryCall\x12\x1b.grpc.testing.SimpleRequest\x1a\x1c.grpc.test'
    b'ing.SimpleResponse\x12l\n\x13StreamingOutputCall\x12(.grpc.testing.Str'
    b'eamingOutputCallRequest\x1a).grpc.testing.StreamingOutputCallRe'
    b"sponse0\x01\x12i\n\x12StreamingInputCall\x12'.grpc.testing.StreamingInput"
    b'CallRequest\x1a(.grpc.testing.StreamingInputCallResponse(\x01\x12i\n\x0eF'
    b'ullDuplexCall\x12(.grpc.testing.StreamingOutputCallRequest\x1a).gr'
    b'pc.testing.StreamingOutputCallResponse(\x010\x01\x12i\n\x0eHalfDuplexCall'
    b'\x12(.grpc.testing.StreamingOutputCallRequest\x1a).grpc.testing.St'
    b'reamingOutputCallResponse(\x010\x01\x12=\n\x11UnimplementedCall\x12\x13.grpc.te'
    b'sting.Empty\x1a\x13.grpc.testing.Empty2U\n\x14UnimplementedService\x12=\n\x11'
    b'UnimplementedCall\x12\x13.grpc.testing.Empty\x1a\x13.grpc.testing.Emptyb'
    b'\x06proto3'
)
