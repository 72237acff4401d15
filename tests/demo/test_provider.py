import json
from functools import partial

import dspy
import h11
import pytest
import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from dspex_trio.demo.provider import API_KEY, Provider

CONTEXT = "The violin has four strings. The cello was first described by Silvestro Ganassi in 1542."
QUESTION = "Who described the cello?"


def body(**more):
    messages = dspy.ChatAdapter().format(
        dspy.Signature("context, question -> answer", more.pop("instructions", "Answer.")),
        [],
        {"context": CONTEXT, "question": QUESTION},
    )
    return {"model": "demo-extractive", "messages": messages, **more}


class Caller:
    """A bare HTTP client on one end of a stream."""

    def __init__(self, stream):
        self.stream = stream
        self.http = h11.Connection(h11.CLIENT)

    async def send(self, payload, *, method="POST", path="/v1/chat/completions", key=API_KEY):
        content = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        headers = [("Host", "provider"), ("Authorization", f"Bearer {key}"), ("Content-Length", str(len(content)))]
        for event in (h11.Request(method=method, target=path, headers=headers), h11.Data(content), h11.EndOfMessage()):
            await self.stream.send_all(self.http.send(event) or b"")

    async def reply(self):
        head, content = None, b""
        while True:
            event = self.http.next_event()
            if event is h11.NEED_DATA:
                self.http.receive_data(await self.stream.receive_some())
            elif isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                content += event.data
            else:
                assert isinstance(event, h11.EndOfMessage)
                self.http.start_next_cycle()
                return head.status_code, content

    async def ask(self, payload, **more):
        await self.send(payload, **more)
        status, content = await self.reply()
        return status, json.loads(content)


@pytest.fixture
async def provider():
    return Provider()


@pytest.fixture
async def caller(provider, nursery):
    ours, theirs = memory_stream_pair()

    async def converse():
        async with theirs:  # as Trio's accept loop closes a connection whose handler returned
            await provider.converse(theirs)

    nursery.start_soon(converse)
    return Caller(ours)


async def test_a_completion_is_answered_with_its_usage(caller, provider):
    status, reply = await caller.ask(body(temperature=0.5, max_completion_tokens=50))
    assert status == 200
    assert "Silvestro Ganassi" in reply["choices"][0]["message"]["content"]
    usage = reply["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    (seen,) = provider.asked
    assert (seen.question, seen.temperature, seen.max_tokens) == (QUESTION, 0.5, 50)
    assert seen.completion_tokens == usage["completion_tokens"] > 0


async def test_one_connection_carries_several_requests(caller, provider):
    for _ in range(3):
        assert (await caller.ask(body()))[0] == 200
    assert (provider.connections, provider.open, provider.closed_early) == (1, 1, 0)


async def test_a_streamed_completion_adds_up_to_the_whole_one(caller):
    _, whole = await caller.ask(body())
    await caller.send(body(stream=True, stream_options={"include_usage": True}))
    _, content = await caller.reply()
    events = [line.removeprefix("data: ") for line in content.decode().split("\n\n") if line]
    assert events.pop() == "[DONE]"
    chunks = [json.loads(event) for event in events]
    text = "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"])
    assert text == whole["choices"][0]["message"]["content"]
    assert chunks[-1]["usage"] == whole["usage"]
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"


async def test_several_choices_are_drawn_apart(caller):
    _, reply = await caller.ask(body(n=3, temperature=2.0))
    assert [choice["index"] for choice in reply["choices"]] == [0, 1, 2]


async def test_the_models_are_listed(caller):
    _, reply = await caller.ask(b"", method="GET", path="/v1/models")
    assert [model["id"] for model in reply["data"]] == ["demo-extractive"]


@pytest.mark.parametrize(
    ("payload", "more", "status", "said"),
    [
        (b"{", {}, 400, "JSON"),
        ({"model": "demo-extractive", "messages": []}, {}, 400, "messages"),
        ({"model": "demo-extractive", "messages": [{"role": "user", "content": "hi"}]}, {}, 400, "fields"),
        ({"model": "gpt-9", "messages": [{"role": "user", "content": "hi"}]}, {}, 404, "gpt-9"),
        ({}, {"key": "wrong"}, 401, "API key"),
        ({}, {"path": "/v1/embeddings"}, 404, "/v1/embeddings"),
    ],
)
async def test_what_a_provider_refuses_is_refused_with_a_reason(caller, payload, more, status, said):
    got, reply = await caller.ask(payload, **more)
    assert got == status
    assert said in reply["error"]["message"]
    assert (await caller.ask(body()))[0] == 200, "the connection goes on"


async def test_a_body_over_the_limit_is_refused(caller, nursery):
    nursery.start_soon(caller.send, b" " * (9 * 1024 * 1024))
    status, _ = await caller.reply()
    assert status == 413


async def test_a_slow_model_answers_after_its_delay(caller, virtual_clock):
    began = trio.current_time()
    assert (await caller.ask(body(model="demo-extractive-250ms")))[0] == 200
    assert trio.current_time() - began == pytest.approx(0.25)


async def test_a_caller_that_goes_away_while_the_model_thinks_is_noticed_at_once(caller, provider, virtual_clock):
    """The demo's proof that a trial's deadline closes the provider's socket."""
    began = trio.current_time()
    await caller.send(body(instructions="Think for 30 seconds before you answer."))
    await provider.wait_until(lambda seen: len(seen.asked) == 1)
    assert provider.closed_early == 0
    await caller.stream.aclose()
    await provider.wait_until(lambda seen: seen.open == 0)
    assert trio.current_time() == began
    assert provider.closed_early == 1
    assert provider.asked[0].closed_early


async def test_a_caller_that_leaves_between_requests_is_not_counted_as_early(caller, provider):
    await caller.ask(body())
    await caller.stream.aclose()
    await provider.wait_until(lambda seen: seen.open == 0)
    assert provider.closed_early == 0


async def test_an_idle_connection_is_closed(caller, provider, virtual_clock):
    await caller.ask(body())
    await trio.sleep(61)
    await wait_all_tasks_blocked()
    assert provider.open == 0


async def test_what_is_no_http_ends_its_connection_only(caller, provider):
    await caller.stream.send_all(b"\x16\x03\x01 not http\r\n\r\n")
    await provider.wait_until(lambda seen: seen.connections == 1 and seen.open == 0)


async def test_a_stock_dspy_lm_is_served_over_loopback(provider, nursery):
    """What the worker does: `dspy.LM` in a thread, over a real socket."""
    port = await nursery.start(partial(provider.serve, port=0))
    lm = dspy.LM(
        "openai/demo-extractive",
        api_base=f"http://127.0.0.1:{port}/v1",
        api_key=API_KEY,
        temperature=0.3,
        max_tokens=77,
        cache=False,
        num_retries=0,
    )

    def ask():
        with dspy.context(lm=lm, trace=[]):
            return dspy.ChainOfThought("context, question -> answer")(context=CONTEXT, question=QUESTION)

    prediction = await trio.to_thread.run_sync(ask)
    assert prediction.answer == "Silvestro Ganassi"
    assert (provider.asked[0].temperature, provider.asked[0].max_tokens) == (0.3, 77)
    nursery.cancel_scope.cancel()
