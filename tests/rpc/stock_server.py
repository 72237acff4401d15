"""The same servicer on purerpc's own server, in a process of its own: what the tests must be able to tell from ours.

Prints its port. Given a file with a certificate and its key, it serves TLS. Started by test_rows.py and its sibling.
"""

import logging
import socket
import ssl
import sys

import purerpc
import trio

from .greeter import Greeter

logging.disable(logging.CRITICAL)


def adapt(servicer):
    """A service of purerpc's own; it calls handlers with `request=` its headers, ours take a call."""
    ours = servicer.service
    service = purerpc.Service(ours.name)
    for name, bound in ours.methods.items():
        service.add_method(name, without_call(bound.method_fn), bound.signature)
    return service


def without_call(method):
    return lambda message: method(message, None)


def main():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    tls = None
    if sys.argv[1:]:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(sys.argv[1])
    server = purerpc.Server(port, tls)
    server.add_service(adapt(Greeter()))

    async def run():
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve_async)
            sys.stdout.write(f"{port}\n")
            sys.stdout.flush()

    trio.run(run)


if __name__ == "__main__":
    main()
