"""`ExecuteProgramRequest` ↔ `TrialRequest`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, Protocol

from dspex_trio.model import (
    MISSING,
    Binding,
    Field,
    LanguageModel,
    Program,
    Signature,
    TrialOptions,
    TrialRequest,
)
from dspex_trio.model.errors import InvalidInput, InvalidSpec, ValueNotDecodable
from dspex_trio.model.values import plain
from dspex_trio.wire.anys import decode_any, write_any
from dspex_trio.wire.generated import any_pb2, program_pb2
from dspex_trio.wire.jsontext import decode_json, encode_json, text_of
from dspex_trio.wire.program_json import check_program

MAX_SECONDS: Final = 315_576_000_000
"""The longest google.protobuf.Duration: about 10,000 years."""


# ---- decoding -------------------------------------------------------------------------------------------------------


def decode_request(message: program_pb2.ExecuteProgramRequest) -> TrialRequest:
    """The trial that a request asks for, without arrival and deadline: those are the server's to fix.

    A caller can be told `message.trial_id` whatever this raises.

    Raises:
        InvalidSpec: The specification cannot be read; the text names the field.
        InvalidInput: An input cannot be decoded; the text names it.
    """
    options = message.options
    return TrialRequest(
        program=decode_program(message.program_spec),
        inputs=_decode_inputs(message.inputs),
        session_id=message.session_id,
        trial_id=message.trial_id,
        metadata=dict(message.metadata),
        options=TrialOptions(
            omit_trace=options.omit_trace,
            omit_prompts=options.omit_prompts,
            max_trace_bytes=options.max_trace_bytes,
            no_cache=options.no_cache,
        )
        if message.HasField("options")
        else TrialOptions(),
    )


def decode_program(message: program_pb2.ProgramSpecification) -> Program:
    """The program that a specification describes.

    Raises:
        InvalidSpec: It cannot be read; the text names the field.
    """
    program = Program(
        python_class=message.python_class,
        signature=_decode_signature(message.signature) if message.HasField("signature") else None,
        config_space=tuple(_decode_binding(binding) for binding in message.config_space),
        dependencies=_decode_map(message.dependencies, "dependencies"),
        parameters=_decode_map(message.parameters, "parameters"),
        state=_decode_state(message.state_json) if message.state_json else None,
        lm=_decode_language_model(message.lm) if message.HasField("lm") else None,
        name=message.name,
        description=message.description,
    )
    check_program(program)
    return program


def _decode_inputs(inputs: Mapping[str, any_pb2.Any]) -> dict[str, Any]:
    values = {}
    for name, value in inputs.items():
        try:
            values[name] = decode_any(value)
        except ValueNotDecodable as error:
            raise InvalidInput(f"input {name!r} cannot be decoded: {error}") from None
    return values


def _decode_map(entries: Mapping[str, any_pb2.Any], path: str) -> dict[str, Any]:
    return {name: _decode_value(value, f"{path}.{name}") for name, value in entries.items()}


def _decode_value(value: any_pb2.Any, path: str) -> Any:
    try:
        return decode_any(value)
    except ValueNotDecodable as error:
        raise InvalidSpec(f"{path} cannot be decoded: {error}") from None


def _decode_signature(message: program_pb2.Signature) -> Signature:
    if message.WhichOneof("form") != "fields":
        return Signature(text=message.text)
    fields = message.fields
    return Signature(
        inputs=tuple(map(_decode_field, fields.inputs)),
        outputs=tuple(map(_decode_field, fields.outputs)),
        instructions=fields.instructions,
        name=fields.name,
    )


def _decode_field(message: program_pb2.Field) -> Field:
    return Field(name=message.name, type=message.type or "str", description=message.description)


def _decode_binding(message: program_pb2.VariableBinding) -> Binding:
    path = f"config_space default of {message.parameter!r}"
    return Binding(
        parameter=message.parameter,
        variable=message.variable,
        optional=message.optional,
        default=_decode_value(message.default, path) if message.HasField("default") else MISSING,
    )


def _decode_language_model(message: program_pb2.LanguageModel) -> LanguageModel:
    return LanguageModel(model=message.model, params=_decode_map(message.params, "lm.params"))


def _decode_state(raw: bytes) -> dict[str, Any]:
    try:
        state = decode_json(raw)
    except ValueNotDecodable as error:
        raise InvalidSpec(f"state_json cannot be decoded: {error}") from None
    if not isinstance(state, dict):
        raise InvalidSpec("state_json is no JSON object; it takes a dump_state document")
    return state


# ---- encoding -------------------------------------------------------------------------------------------------------


def encode_request(request: TrialRequest, *, timeout: float | None = None) -> program_pb2.ExecuteProgramRequest:
    """The message that asks for a trial.

    Args:
        request: The trial; its arrival and deadline do not travel.
        timeout: Seconds that the trial may take, queueing included; None or infinity leaves it to the server.

    Raises:
        InvalidInput, InvalidSpec: A value has no JSON form; the text names it.
    """
    message = program_pb2.ExecuteProgramRequest(
        session_id=text_of(request.session_id),
        trial_id=text_of(request.trial_id),
        metadata={text_of(name): text_of(value) for name, value in request.metadata.items()},
    )
    _encode_program(message.program_spec, request.program)
    for name, value in request.inputs.items():
        _write(message.inputs[text_of(name)], value, name, InvalidInput)
    if timeout is not None and timeout < MAX_SECONDS:
        nanos = round(max(timeout, 0.0) * 1e9)
        message.timeout.seconds, message.timeout.nanos = divmod(nanos, 10**9)
        message.timeout.SetInParent()
    if request.options != TrialOptions():
        options = request.options
        message.options.omit_trace = options.omit_trace
        message.options.omit_prompts = options.omit_prompts
        message.options.max_trace_bytes = options.max_trace_bytes
        message.options.no_cache = options.no_cache
    return message


def _encode_program(message: program_pb2.ProgramSpecification, program: Program) -> None:
    message.python_class = text_of(program.python_class)
    message.name = text_of(program.name)
    message.description = text_of(program.description)
    if program.signature is not None:
        _encode_signature(message.signature, program.signature)
    for binding in program.config_space:
        _encode_binding(message.config_space.add(), binding)
    for name, value in program.dependencies.items():
        _write(message.dependencies[text_of(name)], value, f"dependencies.{name}", InvalidSpec)
    for name, value in program.parameters.items():
        _write(message.parameters[text_of(name)], value, f"parameters.{name}", InvalidSpec)
    if program.state is not None:
        message.state_json = encode_json(_plain(program.state, "state", InvalidSpec))
    if program.lm is not None:
        message.lm.model = text_of(program.lm.model)
        for name, value in program.lm.params.items():
            _write(message.lm.params[text_of(name)], value, f"lm.params.{name}", InvalidSpec)
        message.lm.SetInParent()


def _encode_signature(message: program_pb2.Signature, signature: Signature) -> None:
    if signature.text:
        message.text = text_of(signature.text)
        return
    message.fields.instructions = text_of(signature.instructions)
    message.fields.name = text_of(signature.name)
    for fields, target in ((signature.inputs, message.fields.inputs), (signature.outputs, message.fields.outputs)):
        for field in fields:
            target.add(name=text_of(field.name), type=text_of(field.type), description=text_of(field.description))
    message.fields.SetInParent()


def _encode_binding(message: program_pb2.VariableBinding, binding: Binding) -> None:
    message.parameter = text_of(binding.parameter)
    message.variable = text_of(binding.variable)
    message.optional = binding.optional
    if binding.default is not MISSING:
        message.default.SetInParent()  # an empty Any is a default of None
        _write(message.default, binding.default, f"config_space default of {binding.parameter!r}", InvalidSpec)


def _write(target: any_pb2.Any, value: Any, path: str, error: type[InvalidInput | InvalidSpec]) -> None:
    write_any(target, _plain(value, path, error))


def _plain(value: Any, path: str, error: type[InvalidInput | InvalidSpec]) -> Any:
    warnings: list[str] = []
    made = plain(value, warnings=warnings, path=path)
    if warnings:
        raise error(warnings[0])
    return made


class WithTimeout(Protocol):
    """A message of ours with a Duration in its field `timeout`."""

    timeout: Any

    def HasField(self, name: str, /) -> bool:  # noqa: N802 - as messages have it
        """Whether the field is set."""
        ...


def seconds_of(message: WithTimeout) -> float:
    """The seconds that a request asks for; infinity when it does not say."""
    timeout = message.timeout
    return float(timeout.seconds + timeout.nanos / 1e9) if message.HasField("timeout") else math.inf
