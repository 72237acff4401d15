"""What travels: protobuf ↔ model, `Any` ↔ values, and the JSON forms. Pure, and raises nothing but its own errors."""

from dspex_trio.wire.anys import decode_any, encode_any, encode_typed, write_any
from dspex_trio.wire.events import decode_event, encode_event, event_to_json
from dspex_trio.wire.jsontext import decode_json, encode_json, encode_jsonable, json_text, jsonable, read_json
from dspex_trio.wire.outcome_json import outcome_to_json
from dspex_trio.wire.program_json import check_program, options_from_json, program_from_json, program_to_json
from dspex_trio.wire.replies import encode_reply, in_brief, in_full
from dspex_trio.wire.reply_decoding import decode_outcome
from dspex_trio.wire.reply_encoding import encode_lm_call, encode_outcome
from dspex_trio.wire.requests import decode_program, decode_request, encode_request, seconds_of
from dspex_trio.wire.stored import decode_constraints, decode_stored, decode_variable, encode_variable
from dspex_trio.wire.tools import (
    decode_tool_arguments,
    decode_tool_result,
    decode_tool_spec,
    encode_tool_arguments,
    encode_tool_result,
    encode_tool_spec,
)

__all__ = [
    "check_program",
    "decode_any",
    "decode_constraints",
    "decode_event",
    "decode_json",
    "decode_outcome",
    "decode_program",
    "decode_request",
    "decode_stored",
    "decode_tool_arguments",
    "decode_tool_result",
    "decode_tool_spec",
    "decode_variable",
    "encode_any",
    "encode_event",
    "encode_json",
    "encode_jsonable",
    "encode_lm_call",
    "encode_outcome",
    "encode_reply",
    "encode_request",
    "encode_tool_arguments",
    "encode_tool_result",
    "encode_tool_spec",
    "encode_typed",
    "encode_variable",
    "event_to_json",
    "in_brief",
    "in_full",
    "json_text",
    "jsonable",
    "options_from_json",
    "outcome_to_json",
    "program_from_json",
    "program_to_json",
    "read_json",
    "seconds_of",
    "write_any",
]
