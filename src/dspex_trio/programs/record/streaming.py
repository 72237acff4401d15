"""Output text while the provider sends it, for a trial that is watched.

DSPy's own streaming hands every chunk to the event loop, lets litellm ask the provider there, and does not retry what
has begun to stream. Here a watched LM call streams where an unwatched one waits for the whole reply, in the program's
own thread: so it ends the same way, and a deadline can end it. Where DSPy tries again, the text comes again. Where a
provider does not stream, it is asked again as an unwatched trial would, and from then on always.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

import dspy
from dspy.lm15 import StreamAssemblyError
from dspy.streaming.streaming_listener import ADAPTER_SUPPORT_STREAMING, StreamListener

from dspex_trio.model import OutputChunk, Watch
from dspex_trio.programs.dspy.private import (
    ListenerBridge,
    LiteLLMEngine,
    StreamAccumulator,
    checked_stream,
    closing_stream,
    lm_module,
)
from dspex_trio.programs.record import lm_errors


class OutputStream:
    """The text of one reply: tells a watch of it by output field.

    Args:
        predictor: Who asks; None for the program's own code.
        name: Its dotted name inside the program.
        watch: Told of the chunks.
        redact: Takes secrets out of the text, as far as one chunk shows them.
        asked_again: Called with the error that streaming ended in, when the provider has answered without it.
    """

    def __init__(
        self,
        predictor: Any,
        name: str,
        watch: Watch,
        redact: Callable[[str], str],
        asked_again: Callable[[Exception], object] = lambda _error: None,
    ) -> None:
        self._name = name
        self._watch = watch
        self._redact = redact
        self.asked_again = asked_again
        fields = getattr(getattr(predictor, "signature", None), "output_fields", {})
        # Of other adapters' formats DSPy cannot tell which field a text belongs to.
        told_apart = type(dspy.settings.adapter or dspy.ChatAdapter()) in ADAPTER_SUPPORT_STREAMING
        self._listeners = [StreamListener(field, predictor, name) for field in fields] if told_apart else []

    def send(self, chunk: Any) -> None:
        """Tell of a chunk, in the format of DSPy's stream listeners."""
        if not self._listeners:
            text = _content(chunk)
            if text:
                self._tell("", text, is_last=False)
        for listener in self._listeners:
            if (piece := listener.receive(chunk)) is not None:
                self._tell(listener.signature_field_name, piece.chunk, is_last=piece.is_last_chunk)

    def finish(self) -> None:
        """The provider has sent everything: tell what the listeners held back."""
        for listener in self._listeners:
            if (piece := listener.finalize()) is not None:
                self._tell(listener.signature_field_name, piece.chunk, is_last=True)

    def _tell(self, field: str, text: Any, *, is_last: bool) -> None:
        # A custom type of DSPy, such as Citations, is parsed into something else than text.
        said = text if isinstance(text, str) else "" if text is None else str(text)
        self._watch(OutputChunk(self._name, field, self._redact(said), is_last))


def _content(chunk: Any) -> str:
    try:
        content = chunk.choices[0].delta.content
    except (AttributeError, IndexError):
        return ""
    return content if isinstance(content, str) else ""


@contextmanager
def streamed_to(open_output: Callable[[], OutputStream]) -> Iterator[None]:
    """Have the calling context's LM calls streamed; `open_output` is called for each reply."""
    token = _open_output.set(open_output)
    try:
        yield
    finally:
        _open_output.reset(token)


_open_output: Final[ContextVar[Callable[[], OutputStream] | None]] = ContextVar(
    "dspex_trio.programs.open_output", default=None
)


class Unstreamed:
    """Models that do not stream, at one address; the most of them are forgotten first that were found first."""

    def __init__(self) -> None:
        self._found: dict[object, None] = {}

    def __contains__(self, key: object) -> bool:
        return key in self._found

    def add(self, key: object) -> None:
        """Never ask it to stream again."""
        self._found[key] = None
        while len(self._found) > _MOST_UNSTREAMED:
            self._found.pop(next(iter(self._found)), None)

    @staticmethod
    def key(model: str, arguments: Mapping[str, Any]) -> object:
        """What tells a model at an address from others."""
        return model, str(arguments.get("api_base") or arguments.get("base_url") or "")


def _or_plain(
    open_output: Callable[[], OutputStream],
    unstreamed: Unstreamed,
    key: object,
    streamed: Callable[[OutputStream], Any],
    plain: Callable[[], Any],
) -> Any:
    """The streamed reply; or, where streaming may be what failed, what becomes of the call without it."""
    output = open_output()
    try:
        return streamed(output)
    except Exception as error:
        if not lm_errors.may_be_of_streaming(error):
            raise  # it would have failed without streaming too
        output.asked_again(error)
        reply = plain()
        if lm_errors.is_of_streaming(error):
            unstreamed.add(key)
        return reply


def streaming_attempt(original: Callable[..., Any], unstreamed: Unstreamed) -> Callable[..., Any]:
    """Take the place of DSPy's attempt to get a reply of an engine."""

    @functools.wraps(original)
    def attempt(lm: Any, call: Any, backend: Any, request: Any, provider: Any, *rest: Any) -> Any:
        if (open_output := _open_output.get()) is not None and _can_stream(backend):
            key = unstreamed.key(lm.model, lm.kwargs)
            if key not in unstreamed:
                or_plain = functools.partial(_or_plain, open_output, unstreamed, key)
                backend = _Streaming(backend, lm.model, provider, or_plain)
        return original(lm, call, backend, request, provider, *rest)

    return attempt


def _can_stream(engine: Any) -> bool:
    if isinstance(engine, LiteLLMEngine) and engine.model_type != "chat":
        return False
    return hasattr(engine, "stream")  # one of an operator's own need not have it


class _Streaming:
    """An engine whose replies are streamed until they are complete."""

    def __init__(
        self, engine: Any, model: str, provider: Any, or_plain: Callable[[Callable[..., Any], Callable[[], Any]], Any]
    ) -> None:
        self._engine = engine
        self._model = model
        self._provider = provider
        self._or_plain = or_plain

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def complete(self, request: Any) -> Any:
        streamed = functools.partial(self._streamed, request)
        plain = functools.partial(self._engine.complete, request)
        return self._or_plain(streamed, plain)

    def _streamed(self, request: Any, output: OutputStream) -> Any:
        bridge = ListenerBridge(self._model)
        accumulator = StreamAccumulator(request)
        with closing_stream(checked_stream(self._engine.stream(request), provider=self._provider)) as events:
            for event in events:
                accumulator.push(event)
                if (chunk := bridge.chunk(event)) is not None:
                    output.send(chunk)
        output.finish()
        return accumulator.response()


def streaming_completion(original: Callable[..., Any], unstreamed: Unstreamed) -> Callable[..., Any]:
    """Take the place of what gives DSPy the way to stream through litellm."""

    @functools.wraps(original)
    def completion(request: dict[str, Any], cache: dict[str, Any], sync: bool = True, headers: Any = None) -> Any:  # noqa: FBT001, FBT002 - as DSPy's
        key = unstreamed.key(request.get("model", ""), request)
        if not sync or (open_output := _open_output.get()) is None or key in unstreamed:
            return original(request, cache, sync, headers)
        litellm = lm_module._get_litellm()  # noqa: SLF001 - litellm as DSPy sets it up
        asking = functools.partial(litellm.completion, num_retries=0, cache=cache, headers=headers, **request)
        streamed = functools.partial(_complete, litellm, request, asking)
        return functools.partial(_or_plain, open_output, unstreamed, key, streamed, asking)

    return completion


_STREAM_OPTIONS: Final = "stream_options"
_MOST_UNSTREAMED: Final = 256


def _complete(litellm: Any, request: dict[str, Any], asking: Callable[..., Any], output: OutputStream) -> Any:
    # The usage comes with the last chunk where the provider can be asked for it; else litellm counts the tokens itself.
    options = {}
    supported = litellm.get_supported_openai_params(request["model"]) or ()
    if _STREAM_OPTIONS in supported and _STREAM_OPTIONS not in request:
        options = {_STREAM_OPTIONS: {"include_usage": True}}
    chunks = []
    for chunk in asking(stream=True, **options):
        chunks.append(chunk)
        output.send(chunk)
    output.finish()
    if not any(_says_something(choice.delta) for chunk in chunks for choice in chunk.choices):
        # litellm takes an answer that is no stream for an empty one that ended well.
        raise StreamAssemblyError("nothing was streamed")
    return litellm.stream_chunk_builder(chunks, messages=request.get("messages"))


def _says_something(delta: Any) -> bool:
    return any(getattr(delta, name, None) for name in ("content", "tool_calls", "reasoning_content"))
