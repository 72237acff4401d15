"""An OpenAI-compatible provider on loopback, in threads: answers from a function, notes of what it served."""

import json
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class _Server(ThreadingHTTPServer):
    request_queue_size = 512  # hundreds of trials connect at once
    daemon_threads = True

    def handle_error(self, request, client_address):
        """A caller that is gone is no news: its trial has ended."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Provider:
    """Serves `answer(body) → text | (status, headers, body)` until it is closed.

    Attributes:
        served: What was asked, as (body, headers), in the order in which it came.
    """

    def __init__(self, answer):  # noqa: C901 - the handler of one server
        self.answer = answer
        self.served = []
        self._lock = threading.Lock()
        provider = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with provider._lock:
                    provider.served.append((body, dict(self.headers)))
                status, headers, reply = provider._reply(body)
                if body.get("stream") and status == 200 and "choices" in reply:
                    self._stream(reply, usage=(body.get("stream_options") or {}).get("include_usage"))
                    return
                raw = json.dumps(reply).encode()
                self.send_response(status)
                for name, value in {"content-type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def _stream(self, reply, *, usage):
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.send_header("connection", "close")
                self.end_headers()
                base = {name: reply[name] for name in ("id", "created", "model")}
                base["object"] = "chat.completion.chunk"
                for choice in reply["choices"]:
                    text = choice["message"]["content"]
                    for at in range(0, len(text), 7):
                        self._chunk(base, choice["index"], {"content": text[at : at + 7]}, None)
                    self._chunk(base, choice["index"], {}, "stop")
                if usage:
                    self._event({**base, "choices": [], "usage": reply["usage"]})
                self.wfile.write(b"data: [DONE]\n\n")

            def _chunk(self, base, index, delta, finish):
                self._event({**base, "choices": [{"index": index, "delta": delta, "finish_reason": finish}]})

            def _event(self, data):
                self.wfile.write(b"data: " + json.dumps(data).encode() + b"\n\n")

            def log_message(self, *_):
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def _reply(self, body):
        said = self.answer(body)
        if isinstance(said, tuple):
            return said
        texts = [said] * (body.get("n") or 1)
        prompt, completion = prompt_tokens(body), len(said)
        return 200, {}, {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": f"{body['model']}-2024-07-18",
            "choices": [
                {"index": i, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
                for i, text in enumerate(texts)
            ],
            "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion},
        }  # fmt: skip

    @property
    def bodies(self):
        return [body for body, _ in self.served]


def prompt_tokens(body):
    """As this provider counts them."""
    return sum(len(message["content"]) for message in body["messages"])


@contextmanager
def open_provider(answer):
    provider = Provider(answer)
    thread = threading.Thread(target=provider._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        provider._server.shutdown()
        provider._server.server_close()
        thread.join()


def field(body, name):
    """An input of the last message, as the chat adapter writes it."""
    text = body["messages"][-1]["content"]
    return text.split(f"[[ ## {name} ## ]]\n", 1)[1].split("\n\n", 1)[0]


def error(status, message="no", **headers):
    return status, headers, {"error": {"message": message, "type": "made_up"}}
