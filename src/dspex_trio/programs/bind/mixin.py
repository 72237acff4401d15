"""`VariableAwareMixin`: gives a program instance `bind_to_variable()` and `sync_variables()`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, cast

import dspy

from dspex_trio.model import MISSING, Binding, BoundVariable, Variable, VariableSource
from dspex_trio.model.errors import InvalidSpec, ProgramError, VariableInvalid, VariableNotFound
from dspex_trio.model.lm_arguments import Refused
from dspex_trio.model.variable_types import fitting_value, show
from dspex_trio.programs.bind.parameters import Parameter
from dspex_trio.programs.session import ProgramSession, read_bound

_NUMBERS = (bool, int, float)
_BEGIN_JSON = ("[", "{")


class Bindings:
    """The variables that one program instance is bound to.

    Args:
        source: Where values come from.
        find: Path → parameter, or InvalidSpec.
        known: Variables of this trial that were read already, in the same consistent read as the rest.
    """

    def __init__(
        self,
        source: VariableSource,
        find: Callable[[str], Parameter],
        known: Mapping[str, Variable | None],
    ) -> None:
        self._source = source
        self._find = find
        self._known = known
        self._bound: dict[str, tuple[Binding, Parameter]] = {}
        self.warnings: list[str] = []
        """What became of values that parameters do not take as they are."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Bindings:
        return self

    def forget(self) -> None:
        """Drop every reference to the program, which has ended."""
        self._bound.clear()
        self._find = _ended

    def bind(self, binding: Binding) -> None:
        self._bound[binding.parameter] = (binding, self._find(binding.parameter))

    async def sync(self) -> dict[str, BoundVariable]:
        wanted = dict.fromkeys(binding.variable for binding, _ in self._bound.values())
        if not wanted:
            return {}
        if wanted.keys() <= self._known.keys():
            found: Mapping[str, Variable | None] = self._known
        else:
            bindings = [binding for binding, _ in self._bound.values()]
            found = await read_bound(self._source, bindings)
        values = [(parameter, bound_value(binding, found)) for binding, parameter in self._bound.values()]
        # Nothing is applied before everything is checked.
        given = [(parameter, bound) for parameter, bound in values if bound is not None]
        checked = [_checked(parameter, bound) for parameter, bound in given]
        applied = {}
        for (parameter, bound), (value, warning) in zip(given, checked, strict=True):
            _taken(parameter.apply, value, bound)
            applied[parameter.path] = bound
            if warning:
                self.warnings.append(warning)
        self._known = {}
        return applied


def _ended(path: str) -> Parameter:
    raise InvalidSpec(f"parameter {path!r} cannot be bound: the program has ended")


def bound_value(binding: Binding, found: Mapping[str, Variable | None]) -> BoundVariable | None:
    """The value that a binding gives; None for an optional one whose variable is missing.

    Raises VariableNotFound and VariableInvalid, naming the variable and the parameter.
    """
    variable = found.get(binding.variable)
    if variable is None:
        if binding.default is not MISSING:
            return BoundVariable(binding.parameter, binding.variable, binding.default, from_default=True)
        if binding.optional:
            return None
        raise VariableNotFound(
            f"the session has no variable {binding.variable!r}, which parameter {binding.parameter!r} is bound to; "
            f"set it, or make the binding optional or give it a default"
        )
    try:
        value = fitting_value(variable)
    except ValueError as error:
        raise VariableInvalid(
            f"variable {binding.variable!r}, bound to parameter {binding.parameter!r}: {error}"
        ) from None
    return BoundVariable(binding.parameter, binding.variable, value, variable.version)


def _checked(parameter: Parameter, bound: BoundVariable) -> tuple[Any, str]:
    """The value as the parameter takes it, and what became of it on the way, if that is worth a warning."""
    try:
        value = parameter.check(bound.value)
    except Refused as refused:
        if (held := _held_as_text(bound.value)) is None:
            raise _invalid(bound, refused) from None
        return _taken(parameter.check, held, bound), (
            f"parameter {parameter.path!r} takes no text: the JSON in variable {bound.variable!r} was read"
        )
    if isinstance(bound.value, _NUMBERS) and type(value) is not type(bound.value):
        return value, (
            f"parameter {parameter.path!r} takes {type(value).__name__}: {show(bound.value)} of variable "
            f"{bound.variable!r} became {show(value)}"
        )
    return value, ""


def _held_as_text(value: Any) -> list[Any] | dict[str, Any] | None:
    """The list or object whose JSON text a variable holds, as in a store that has no types for them: snakepit 0.4's."""
    if not isinstance(value, str) or value.lstrip()[:1] not in _BEGIN_JSON:
        return None
    try:
        return cast("list[Any] | dict[str, Any]", json.loads(value, parse_constant=_no_constant))
    except (ValueError, RecursionError):
        return None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON value")


def _taken(take: Callable[[Any], Any], value: Any, bound: BoundVariable) -> Any:
    try:
        return take(value)
    except Refused as refused:
        raise _invalid(bound, refused) from None


def _invalid(bound: BoundVariable, refused: Refused) -> VariableInvalid:
    return VariableInvalid(
        f"variable {bound.variable!r} is {show(bound.value)}, but parameter {bound.parameter!r} {refused}"
    )


class VariableAwareMixin:
    """What a program instance gains; applied by `make_variable_aware`, never constructed."""

    _dspex_bindings: Bindings
    _dspex_session: ProgramSession

    async def bind_to_variable(
        self, parameter: str, variable: str, *, optional: bool = False, default: Any = MISSING
    ) -> None:
        """Take the value of `parameter` from the session variable `variable` (a name or id) at the next sync.

        Raises:
            InvalidSpec: The module has no such parameter.
        """
        self._dspex_bindings.bind(Binding(parameter, variable, optional, default))

    async def sync_variables(self) -> dict[str, BoundVariable]:
        """Fetch the latest values of all bound variables in one consistent read, check them and apply them.

        When cancelled, or when any value is missing or refused, nothing is applied.

        Returns:
            Parameter path → the value that was applied.

        Raises:
            VariableNotFound, VariableInvalid, StoreUnavailable: As they say.
        """
        return await self._dspex_bindings.sync()


class _Session:
    """`module.session`. An attribute that the program sets itself is its own, since this only answers what is unset."""

    def __get__(self, module: Any, owner: type) -> ProgramSession:
        if module is None:
            raise AttributeError(f"class {owner.__name__} has no session; its instances do")
        return cast("ProgramSession", module._dspex_session)  # noqa: SLF001 - set below


@cache
def variable_aware(cls: Any) -> type:
    """The class with the mixin. Runs user code where a base has `__init_subclass__`, so for a worker thread at first.

    Raises ProgramError when that code raises.
    """
    namespace: dict[str, Any] = {"__module__": cls.__module__}
    if not any("session" in vars(base) for base in cls.__mro__):
        namespace["session"] = _Session()
    try:
        return type(f"VariableAware{cls.__name__}", (VariableAwareMixin, cls), namespace)
    except Exception as error:
        raise ProgramError(f"the mixin cannot be applied to {cls.__name__}") from error


def program_class(module: object) -> type:
    """The class that the module was made from, without the mixin."""
    cls = type(module)
    return cls.__bases__[1] if cls.__bases__[0] is VariableAwareMixin else cls


def make_variable_aware(module: dspy.Module, bindings: Bindings, session: ProgramSession) -> None:
    """Give an instance the mixin by exchanging its class; its constructor does not run again."""
    module.__class__ = variable_aware(cast("Any", type(module)))
    vars(module)["_dspex_bindings"] = bindings  # past a __setattr__ of the program's own
    vars(module)["_dspex_session"] = session
