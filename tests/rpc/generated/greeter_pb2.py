"""Generated from greeting/greeter.proto by tools/generate_protos.py. Do not edit."""

from ._pool import load
from . import empty_protobuf_pb2  # noqa: F401

load(
    globals(),
    b'\n\x16greeting/greeter.proto\x12\x08greeting\x1a\x1bgoogle/protobuf/empty.pr'
    b'oto"[\n\x0cHelloRequest\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12\x19\n\x05times\x18\x02 \x01(\x05H\x00R\x05ti'
    b'mes\x88\x01\x01\x12\x12\n\x04body\x18\x03 \x01(\x0cR\x04bodyB\x08\n\x06_times"4\n\nHelloReply\x12\x12\n\x04text\x18\x01'
    b' \x01(\tR\x04text\x12\x12\n\x04body\x18\x02 \x01(\x0cR\x04body"$\n\x05Outer\x1a\x1b\n\x05Inner\x12\x12\n\x04name\x18\x01 \x01'
    b'(\tR\x04name2\xe2\x02\n\x07Greeter\x128\n\x08SayHello\x12\x16.greeting.HelloRequest\x1a\x14.g'
    b'reeting.HelloReply\x127\n\x05Watch\x12\x16.greeting.HelloRequest\x1a\x14.greeti'
    b'ng.HelloReply0\x01\x129\n\x07Collect\x12\x16.greeting.HelloRequest\x1a\x14.greetin'
    b'g.HelloReply(\x01\x128\n\x04Chat\x12\x16.greeting.HelloRequest\x1a\x14.greeting.He'
    b'lloReply(\x010\x01\x127\n\x06Nested\x12\x15.greeting.Outer.Inner\x1a\x16.google.proto'
    b'buf.Empty\x126\n\x06import\x12\x16.greeting.HelloRequest\x1a\x14.greeting.Hello'
    b'Replyb\x06proto3'
)
