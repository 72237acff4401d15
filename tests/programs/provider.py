"""An OpenAI-compatible provider on loopback, in a thread of its own: it says what a function says, and notes it."""

import json
import queue
import threading
from contextlib import contextmanager

import trio

from dspex_trio.model import Usage
from dspex_trio.testing.http_provider import Server
from dspex_trio.testing.http_provider.chat import DONE, Head


class Provider(Server):
    """Serves `says(body) → text | (status, headers, body)`, each call in a thread of its own, until it is stopped.

    Attributes:
        served: What was asked, as (body, headers), in the order in which it came.
    """

    def __init__(self, says):
        super().__init__()
        self.says = says
        self.served = []
        self.address = ""
        self._stop = None
        self._thread = threading.Thread(target=trio.run, args=(self._run,), daemon=True)
        self._ready = queue.Queue()

    async def answer(self, exchange):
        body = json.loads(exchange.request.body)
        self.served.append((body, dict(exchange.request.headers)))
        said = await trio.to_thread.run_sync(self.says, body, limiter=trio.CapacityLimiter(1))
        if isinstance(said, tuple):
            status, headers, document = said
            await exchange.reply(document, status, headers)
            return
        head = Head("chatcmpl-1", f"{body['model']}-2024-07-18", 1)
        texts = [said] * (body.get("n") or 1)
        prompt, completion = prompt_tokens(body), len(said)
        usage = Usage(prompt, completion, prompt + completion)
        if body.get("stream"):
            await exchange.reply_events(events(head, texts, usage, body.get("stream_options") or {}))
        else:
            await exchange.reply(head.document([({"content": text}, "stop") for text in texts], usage))

    def start(self):
        self._thread.start()
        self._ready.get(timeout=30)

    def stop(self):
        if self._thread.is_alive():
            self._stop()
            self._thread.join()

    async def _run(self):
        async with trio.open_nursery() as nursery:
            token = trio.lowlevel.current_trio_token()
            self._stop = lambda: token.run_sync_soon(nursery.cancel_scope.cancel)
            self.address = f"http://127.0.0.1:{await nursery.start(self.serve)}/v1"
            self._ready.put(None)

    @property
    def bodies(self):
        return [body for body, _ in self.served]


def events(head, texts, usage, options):
    for index, text in enumerate(texts):
        for at in range(0, len(text), 7):
            yield head.event(index, {"content": text[at : at + 7]})
        yield head.event(index, {}, "stop")
    if options.get("include_usage"):
        yield head.usage_event(usage)
    yield DONE


def prompt_tokens(body):
    """As this provider counts them."""
    return sum(len(message["content"]) for message in body["messages"])


@contextmanager
def open_provider(says):
    provider = Provider(says)
    provider.start()
    try:
        yield provider
    finally:
        provider.stop()


def field(body, name):
    """An input of the last message, as the chat adapter writes it."""
    text = body["messages"][-1]["content"]
    return text.split(f"[[ ## {name} ## ]]\n", 1)[1].split("\n\n", 1)[0]


def error(status, message="no", **headers):
    return status, headers, {"error": {"message": message, "type": "made_up"}}
