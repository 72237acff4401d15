"""`TrialEvent` ↔ `ProgramEvent`, and the JSON form that streaming tools send."""

from __future__ import annotations

from typing import Any

from dspex_trio.model import (
    EventsDropped,
    LmFinished,
    LmStarted,
    OutputChunk,
    StageStarted,
    ToolFinished,
    ToolStarted,
    TrialEvent,
)
from dspex_trio.model.errors import Stage, ValueNotDecodable
from dspex_trio.wire.anys import decode_any, write_any
from dspex_trio.wire.generated import program_pb2
from dspex_trio.wire.jsontext import jsonable, text_of
from dspex_trio.wire.outcome_json import lm_call_to_json
from dspex_trio.wire.reply_decoding import decode_lm_call
from dspex_trio.wire.reply_encoding import encode_lm_call


def encode_event(event: TrialEvent, at_ms: float) -> program_pb2.ProgramEvent:
    """The message that tells of `event`, which happened `at_ms` milliseconds after the trial arrived."""
    message = program_pb2.ProgramEvent(at_ms=at_ms)
    match event:
        case StageStarted(stage):
            message.stage.stage = stage.value  # type: ignore[assignment]
        case LmStarted(call, predictor, model):
            started = message.lm_started
            started.call, started.predictor, started.model = call, text_of(predictor), text_of(model)
        case LmFinished(call, lm_call, error_type):
            message.lm_finished.call = call
            message.lm_finished.lm_call.CopyFrom(encode_lm_call(lm_call))
            message.lm_finished.error_type = text_of(error_type)
        case ToolStarted(call, tool, arguments):
            message.tool_started.call, message.tool_started.tool = call, text_of(tool)
            for name, value in arguments.items():
                write_any(message.tool_started.arguments[text_of(name)], value)
        case ToolFinished(call, result, error_type, latency_ms):
            finished = message.tool_finished
            finished.call, finished.error_type, finished.latency_ms = call, text_of(error_type), latency_ms
            if not error_type:
                finished.result.SetInParent()
                write_any(finished.result, result)
        case OutputChunk(predictor, field, text, is_last):
            output = message.output
            output.predictor, output.field = text_of(predictor), text_of(field)
            output.text, output.is_last = text_of(text), is_last
        case EventsDropped(count):
            message.dropped.count = count
    return message


def decode_event(message: program_pb2.ProgramEvent) -> TrialEvent:  # noqa: PLR0911 - one for each event
    """The event that a message tells of; not for the one that carries the response.

    Raises:
        ValueNotDecodable: It tells of nothing that this version knows, or holds a value that cannot be decoded.
    """
    match message.WhichOneof("event"):
        case "stage":
            try:
                return StageStarted(Stage(message.stage.stage))
            except ValueError as error:
                raise ValueNotDecodable(f"the stage is unknown here: {error}") from None
        case "lm_started":
            started = message.lm_started
            return LmStarted(started.call, started.predictor, started.model)
        case "lm_finished":
            finished = message.lm_finished
            return LmFinished(finished.call, decode_lm_call(finished.lm_call), finished.error_type)
        case "tool_started":
            tool = message.tool_started
            return ToolStarted(tool.call, tool.tool, {name: decode_any(v) for name, v in tool.arguments.items()})
        case "tool_finished":
            ended = message.tool_finished
            return ToolFinished(ended.call, decode_any(ended.result), ended.error_type, ended.latency_ms)
        case "output":
            output = message.output
            return OutputChunk(output.predictor, output.field, output.text, output.is_last)
        case "dropped":
            return EventsDropped(message.dropped.count)
        case other:
            raise ValueNotDecodable(f"the event {other!r} is unknown here")


def event_to_json(event: TrialEvent, at_ms: float) -> dict[str, Any]:
    """`{"<event>": {…}, "at_ms": …}`: `ProgramEvent` in protobuf's JSON names, snake case, values as plain JSON."""
    return {**_json(event), "at_ms": at_ms}


def _json(event: TrialEvent) -> dict[str, Any]:  # noqa: PLR0911 - one for each event
    match event:
        case StageStarted(stage):
            return {"stage": {"stage": f"STAGE_{stage.name}"}}
        case LmStarted(call, predictor, model):
            return {"lm_started": {"call": call, "predictor": predictor, "model": model}}
        case LmFinished(call, lm_call, error_type):
            return {"lm_finished": {"call": call, "lm_call": lm_call_to_json(lm_call), "error_type": error_type}}
        case ToolStarted(call, tool, arguments):
            return {"tool_started": {"call": call, "tool": tool, "arguments": jsonable(dict(arguments))}}
        case ToolFinished(call, result, error_type, latency_ms):
            ended = {"call": call, "result": jsonable(result), "error_type": error_type, "latency_ms": latency_ms}
            return {"tool_finished": ended}
        case OutputChunk(predictor, field, text, is_last):
            return {"output": {"predictor": predictor, "field": field, "text": text, "is_last": is_last}}
        case EventsDropped(count):
            return {"dropped": {"count": count}}
