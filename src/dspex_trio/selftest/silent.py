"""A provider on loopback that keeps its callers waiting, plain or TLS, and notes when they close the connection."""

from __future__ import annotations

import json
import re
import ssl
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

# Signs itself, for 127.0.0.1 alone; its key is public.
CERTIFICATE: Final = Path(__file__).with_name("loopback_only.pem")

SILENT: Final = "openai/silent"
ANSWERING: Final = "openai/answers"

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_RECEIVE_BYTES: Final = 65536
_TEXT: Final = "[[ ## answer ## ]]\nyes\n\n[[ ## completed ## ]]\n"


class SilentProvider:
    """OpenAI's chat completions, as far as callers wait for them.

    The model `answers` answers at once. Every other one never does; a caller who asked for a stream gets its beginning.
    So does whoever asks for anything else, and whoever begins a TLS handshake on the plain port: silence.

    Attributes:
        asked: How often something was asked so far; the number of the last one.
        closes: Number → when whoever was owed that answer closed the connection, on `time.monotonic`.
        owed: How many wait now.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.closes: dict[int, float] = {}
        self.owed = 0
        self._changed = trio.Event()

    async def serve(self, *, tls: bool, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve on a free port of 127.0.0.1 until cancelled; starts with the port."""
        converse = partial(self._converse_tls, _server_context()) if tls else self._converse
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=1024)
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, converse, listeners)
            task_status.started(listeners[0].socket.getsockname()[1])

    async def wait_until(self, condition: Callable[[SilentProvider], bool]) -> None:
        """Return once `condition(self)` holds; it is asked anew whenever something changes."""
        while not condition(self):
            await self._changed.wait()

    async def _converse_tls(self, context: ssl.SSLContext, stream: trio.SocketStream) -> None:
        await self._converse(trio.SSLStream(stream, context, server_side=True, https_compatible=True))

    async def _converse(self, stream: trio.abc.Stream) -> None:
        async with stream:
            while first := await _receive(stream):
                self.asked += 1
                self.owed += 1
                number = self.asked
                self._tell()
                try:
                    gone = not await _answered(stream, first)
                finally:
                    self.owed -= 1
                if gone:
                    self.closes[number] = time.monotonic()
                self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


async def _answered(stream: trio.abc.Stream, first: bytes) -> bool:
    """Answer the request that begins with `first`, or keep the caller waiting; False once the caller is gone."""
    data = bytearray(first)
    while (end := data.find(b"\r\n\r\n")) < 0 or len(data) < end + 4 + _body_length(data[:end]):
        if not (more := await _receive(stream)):
            return False
        data += more
    asked = _read_json(bytes(data[end + 4 :]))
    try:
        if asked.get("model") == ANSWERING.partition("/")[2]:
            await stream.send_all(_whole(asked))
            return True
        if asked.get("stream"):
            await stream.send_all(_beginning(asked))
    except trio.BrokenResourceError:
        return False
    while await _receive(stream):
        pass
    return False


async def _receive(stream: trio.abc.Stream) -> bytes:
    """What came; empty when the caller closed, politely or not."""
    try:
        return bytes(await stream.receive_some(_RECEIVE_BYTES))
    except trio.BrokenResourceError:
        return b""


def _body_length(head: bytearray) -> int:
    found = _LENGTH.search(head)
    return int(found[1]) if found else 0


def _read_json(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _document(asked: dict[str, Any], kind: str, **choice: Any) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": asked.get("model"), "choices": [choice]}


def _whole(asked: dict[str, Any]) -> bytes:
    message = {"role": "assistant", "content": _TEXT}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    answer = _document(asked, "chat.completion", index=0, message=message, finish_reason="stop")
    body = json.dumps({**answer, "usage": usage}).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def _beginning(asked: dict[str, Any]) -> bytes:
    delta = {"role": "assistant", "content": _TEXT[:10]}
    event = json.dumps(_document(asked, "chat.completion.chunk", index=0, delta=delta, finish_reason=None)).encode()
    event = b"data: %b\n\n" % event
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return b"%b%x\r\n%b\r\n" % (head, len(event), event)


def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context
