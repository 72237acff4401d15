"""The provider of `tools/bench_load.py`: OpenAI's chat completions over raw asyncio, so that it costs next to nothing.

`bench_load_provider.py SECONDS`: says `{"ready": PORT}` on standard output. A prompt that holds `trial N answers` is
answered after SECONDS; one that holds `trial N hangs` never is. Any line on standard input is answered with
`{"closes": {N: TIME}, "owed": M}`: when the connections of the hanging ones were closed, on the machine's monotonic
clock, and how many are still open.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from typing import Any, Final

_TRIAL: Final = re.compile(rb"trial (\d+) (answers|hangs)")
_LENGTH: Final = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_END_OF_HEAD: Final = b"\r\n\r\n"
_TEXT: Final = "[[ ## answer ## ]]\nyes\n\n[[ ## completed ## ]]\n"
_DOCUMENT: Final = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "load",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": _TEXT}}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
).encode()
_REPLY: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(_DOCUMENT) + _DOCUMENT
)
_BACKLOG: Final = 2048


class Provider:
    """What was seen.

    Attributes:
        closes: Trial → when the connection on which it hung was closed.
        owed: The trials that hang now.
    """

    def __init__(self) -> None:
        self.closes: dict[int, float] = {}
        self.owed: set[int] = set()


class Caller(asyncio.Protocol):
    """One connection; requests come one after the other.

    Args:
        provider: Told what happens.
        seconds: After which it answers.
    """

    def __init__(self, provider: Provider, seconds: float) -> None:
        self._provider = provider
        self._seconds = seconds
        self._received = bytearray()
        self._transport: Any = None
        self._hangs: int | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer each request that is complete."""
        self._received += data
        while (end := self._received.find(_END_OF_HEAD)) >= 0:
            length = _LENGTH.search(self._received, 0, end)
            whole = end + len(_END_OF_HEAD) + (int(length[1]) if length else 0)
            if len(self._received) < whole:
                return
            found = _TRIAL.findall(self._received[:whole])
            del self._received[:whole]
            if found and found[-1][1] == b"hangs":
                self._hangs = int(found[-1][0])
                self._provider.owed.add(self._hangs)
            else:
                asyncio.get_running_loop().call_later(self._seconds, self._transport.write, _REPLY)

    def connection_lost(self, _error: Exception | None) -> None:
        """It is closed."""
        if self._hangs is not None:
            self._provider.closes[self._hangs] = time.monotonic()
            self._provider.owed.discard(self._hangs)


async def main(seconds: float) -> None:
    """Serve until standard input ends."""
    provider = Provider()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Caller(provider, seconds), "127.0.0.1", 0, backlog=_BACKLOG)
    print(json.dumps({"ready": server.sockets[0].getsockname()[1]}), flush=True)
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.readline():
        print(json.dumps({"closes": provider.closes, "owed": len(provider.owed)}), flush=True)
        provider.closes = {}


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1])))
