"""From a specification's signature to DSPy's, with every type name resolved here.

DSPy's own parser imports whatever module a dotted name in a signature says (`signatures/signature.py`,
`_parse_type_node`), so it never sees text: it gets fields with types.
"""

from __future__ import annotations

import ast
import datetime as dt
import decimal
import keyword
import typing
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, Final

import dspy
import pydantic

from dspex_trio.model import Field, Signature
from dspex_trio.model.errors import InvalidSpec
from dspex_trio.model.variable_types import show
from dspex_trio.programs.hydrate.classes import ImportPolicy, loaded_name

_BUILTIN: Final[dict[str, Any]] = {
    kind.__name__: kind
    for kind in (int, str, float, bool, list, tuple, dict, set, frozenset, complex, bytes, bytearray)
} | {"None": None, "NoneType": type(None), "object": dict}
_JSON: Final[dict[str, Any]] = {
    "string": str, "integer": int, "number": float, "boolean": bool, "array": list, "null": type(None),
}  # fmt: skip
_TYPING: Final[dict[str, Any]] = {
    name: getattr(typing, name)
    for name in ("Any", "Dict", "FrozenSet", "List", "Literal", "Optional", "Set", "Tuple", "Union")
}
_KNOWN: Final = {**_TYPING, **_JSON, **_BUILTIN}
_STANDARD: Final[dict[str, type]] = {
    f"{kind.__module__}.{kind.__name__}": kind
    for kind in (dt.date, dt.datetime, dt.time, dt.timedelta, decimal.Decimal, uuid.UUID)
}
_STANDARD_BY_NAME: Final = {kind.__name__: kind for kind in _STANDARD.values()}

# DSPy takes these keywords of a call for itself (predict/predict.py, `_forward_preprocess`; utils/callback.py).
_RESERVED: Final = frozenset({"signature", "new_signature", "demos", "config", "lm", "_trace", "self", "instance"})
_MAX_FIELDS: Final = 1_000
# Of one field's type. DSPy and pydantic walk types by recursion, many frames for each level, and so does `ast.unparse`.
_MAX_TYPES: Final = 100
_MAX_DEPTH: Final = 20
# What `ast.parse` raises for what is no Python, or more of it than it bears.
_UNREADABLE: Final = (SyntaxError, ValueError, RecursionError, MemoryError)


def make_signature(signature: Signature, policy: ImportPolicy, loaded: Iterable[str] = ()) -> type[dspy.Signature]:
    """Build a DSPy signature.

    Args:
        signature: The specification's form.
        policy: Decides which dotted type names may be looked up.
        loaded: Modules of the operator whose types may be named without their module.

    Raises:
        InvalidSpec: The signature is malformed or names an unknown type.
        ImportNotAllowed: A dotted type name lies under no allowed prefix.
    """
    types = _Types(policy, tuple(loaded))
    if signature.text:
        parts = list(_parse(signature.text))
    else:
        parts = [(False, field) for field in signature.inputs] + [(True, field) for field in signature.outputs]
    if not any(is_output for is_output, _ in parts):
        raise InvalidSpec("the signature has no output field; write it as 'question -> answer'")
    if len(parts) > _MAX_FIELDS:
        raise InvalidSpec(f"the signature has {len(parts)} fields; {_MAX_FIELDS} are the most")
    fields: dict[str, tuple[Any, Any]] = {}
    for is_output, field in parts:
        if not _can_be_a_field(field.name):
            raise InvalidSpec(f"{field.name!r} cannot be the name of a signature field")
        if field.name in fields:
            raise InvalidSpec(f"the signature has two fields named {field.name!r}")
        if field.name in _RESERVED and not is_output:
            raise InvalidSpec(f"an input cannot be named {field.name!r}: DSPy takes that keyword for itself")
        description = {"desc": field.description} if field.description else {}
        if is_output:
            info = dspy.OutputField(**description)
        else:
            info = dspy.InputField(**description, IS_TYPE_UNDEFINED=not field.type)
        fields[field.name] = (types.resolve(field.type, field.name) if field.type else str, info)
    try:
        made: type[dspy.Signature] = dspy.make_signature(
            fields, signature.instructions or None, signature.name or "StringSignature"
        )
    except Exception as error:  # pydantic has its own for each thing that it cannot make a model of
        raise InvalidSpec(f"DSPy refuses the signature: {error}") from error
    return made


def _can_be_a_field(name: str) -> bool:
    pydantics = name.startswith("model_") and hasattr(pydantic.BaseModel, name)
    return name.isidentifier() and not keyword.iskeyword(name) and not name.startswith("_") and not pydantics


def _parse(text: str) -> Iterator[tuple[bool, Field]]:
    """Split DSPy's notation into (is output, field); an empty type means that none was written."""
    if text.count("->") != 1:
        raise InvalidSpec(f"the signature {show(text)} must have exactly one '->', as in 'question -> answer'")
    for is_output, side in enumerate(text.split("->")):
        try:
            [function] = ast.parse(f"def f({side.strip()}): pass").body
        except _UNREADABLE as error:
            raise InvalidSpec(f"the signature {show(text)} cannot be read near {show(side.strip())}") from error
        if not isinstance(function, ast.FunctionDef) or len(function.args.args) != _count(function.args):
            raise InvalidSpec(f"the signature {show(text)} may only list fields, as in 'a: str, b: int -> c'")
        for argument in function.args.args:
            yield bool(is_output), Field(argument.arg, _written(argument))


def _written(argument: ast.arg) -> str:
    if argument.annotation is None:
        return ""
    _check_size(argument.annotation, argument.arg)
    try:
        return ast.unparse(argument.annotation)
    except (ValueError, RecursionError) as error:  # a number too long for a text, a Literal of nested signs
        raise InvalidSpec(f"field {argument.arg!r}: the type cannot be read: {error}") from error


def _count(arguments: ast.arguments) -> int:
    """Everything that a parameter list can hold; only plain names are fields."""
    lists: tuple[list[Any], ...] = (arguments.args, arguments.posonlyargs, arguments.kwonlyargs, arguments.defaults)
    return sum(len(part) for part in lists) + (arguments.vararg is not None) + (arguments.kwarg is not None)


def _check_size(annotation: ast.expr, field: str) -> None:
    """Raise InvalidSpec if a type has too many parts, or lies too deep; without recursion, quoted types included.

    A union is one level however long it is, and the values of a Literal do not count.
    """
    types, parts = 0, [(annotation, 1)]
    while parts:
        node, depth = parts.pop()
        match node:
            case ast.BinOp(left=left, right=right):
                parts += [(left, depth), (right, depth)]
                continue
            case ast.Tuple(elts=items):
                parts += [(item, depth) for item in items]
                continue
            case ast.Subscript(value=ast.Name("Literal") | ast.Attribute(attr="Literal")):
                pass
            case ast.Subscript(value=base, slice=inner):
                parts += [(base, depth), (inner, depth + 1)]
                continue
            case ast.Constant(value=str() as quoted):
                with suppress(*_UNREADABLE):  # the one who resolves it says what is wrong
                    parts.append((_read(quoted), depth + 1))
            case _:
                parts += [(child, depth + 1) for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
        types += 1
        if types > _MAX_TYPES or depth > _MAX_DEPTH:
            raise InvalidSpec(
                f"field {field!r}: the type is too large; {_MAX_TYPES} types, {_MAX_DEPTH} levels deep, are the most"
            )


def _read(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


class _Types:
    """Resolves type names: Python's, typing's, JSON's, a few of the standard library, DSPy's, and loaded modules'."""

    def __init__(self, policy: ImportPolicy, loaded: tuple[str, ...]) -> None:
        self._policy = policy
        self._loaded = loaded

    def resolve(self, text: str, field: str) -> Any:
        try:
            expression = _read(text)
        except _UNREADABLE as error:
            raise InvalidSpec(f"field {field!r}: the type {show(text)} cannot be read") from error
        _check_size(expression, field)
        try:
            resolved = self._node(expression, field)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidSpec(f"field {field!r}: {show(text)} is no type: {error}") from error
        return type(None) if resolved is None else resolved

    def _node(self, node: ast.expr, field: str) -> Any:
        match node:
            case ast.Name(id=name):
                return self._name(name, field)
            case ast.Attribute():
                return self._dotted(ast.unparse(node), field)
            case ast.Subscript(value=base, slice=inner):
                return self._subscript(self._node(base, field), inner, field)
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                return typing.Union[self._node(left, field), self._node(right, field)]  # noqa: UP007 - None is no type
            case ast.Constant(value=None):
                return None
            case ast.Constant(value=str() as quoted):
                return self.resolve(quoted, field)
        raise InvalidSpec(f"field {field!r}: {show(ast.unparse(node))} is no type")

    def _subscript(self, base: Any, inner: ast.expr, field: str) -> Any:
        items = inner.elts if isinstance(inner, ast.Tuple) else [inner]
        if base is typing.Literal:
            return typing.Literal[tuple(_literal(item, field) for item in items)]
        arguments = tuple(
            ... if isinstance(item, ast.Constant) and item.value is ... else self._node(item, field) for item in items
        )
        return base[arguments if len(arguments) > 1 else arguments[0]]

    def _name(self, name: str, field: str) -> Any:
        if name in _KNOWN:
            return _KNOWN[name]
        for module_name in self._loaded:
            found = loaded_name(module_name, name)
            if isinstance(found, type):
                return found
        if (standard := _STANDARD_BY_NAME.get(name)) is not None:
            return standard
        if isinstance(found := loaded_name("dspy", name), type):
            return found
        raise InvalidSpec(
            f"field {field!r}: unknown type {name!r}; known are Python's and JSON's type names, typing's, "
            f"{', '.join(_STANDARD)}, dspy's types (such as dspy.Image) and those of modules that the operator loaded"
        )

    def _dotted(self, dotted: str, field: str) -> Any:
        root, _, rest = dotted.partition(".")
        if root == "typing" and rest in _TYPING:
            return _TYPING[rest]
        if dotted in _STANDARD:
            return _STANDARD[dotted]
        self._policy.check(dotted)
        module_name, _, name = dotted.rpartition(".")
        # Only what is already imported: a type's name is no reason to run a module's code.
        found = loaded_name(module_name, name)
        if not isinstance(found, type):
            raise InvalidSpec(f"field {field!r}: there is no type {dotted!r} in the modules of this worker")
        return found


def _literal(node: ast.expr, field: str) -> Any:
    try:
        value = ast.literal_eval(node)
    except ValueError as error:
        raise InvalidSpec(f"field {field!r}: {ast.unparse(node)!r} is no literal") from error
    if value is not None and not isinstance(value, (str, int, bool, bytes)):
        raise InvalidSpec(f"field {field!r}: a Literal cannot hold {value!r}")
    return value
