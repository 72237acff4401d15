"""gRPC over HTTP/2 without I/O: bytes in, events out, bytes out. Nothing here knows Trio."""
