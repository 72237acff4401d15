"""One program under test, without gRPC: variables, inputs and a language model in, the trial's outcome out."""

from __future__ import annotations

import copy
import itertools
import math
import types
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import dspy
import trio

from dspex_trio import rpc
from dspex_trio.interface.arguments import check_type, needs_trio
from dspex_trio.model import Binding, Program, TrialOutcome, Variable
from dspex_trio.programs import check_lm
from dspex_trio.programs.registry import MODULE_REGISTRY, TOOL_REGISTRY, register, tool
from dspex_trio.runtime.embedded import Runtime, open_runtime
from dspex_trio.runtime.settings import Settings
from dspex_trio.tasks.background import open_background
from dspex_trio.testing.faults.links import Link
from dspex_trio.testing.scripted.store import FaultyStore
from dspex_trio.testing.scripted.variables import variables_of
from dspex_trio.testing.time.clock import VirtualClock
from dspex_trio.testing.time.timeline import Timeline
from dspex_trio.testing.watching import record_outcome, watching
from dspex_trio.trials import Observer
from dspex_trio.wire import program_from_json

if TYPE_CHECKING:
    Tested: TypeAlias = type[dspy.Module] | dspy.Module | Program | Mapping[str, Any] | str

T = TypeVar("T")

_SESSION: Final = "test"
_names: Final = itertools.count(1)


class TrialEnvironment:
    """Runs trials of one program through the same pipeline as a worker's trials, in this process and in memory.

    Every `run` has a runtime and a session of its own: nothing of one reaches the next.

    Args:
        variables: Session variable → its value, whose Python type decides the variable's; a `dspex.Variable` says its
            type and constraints itself.
        bind: Parameter path → the variable that it takes its value from, beside the program's own `config_space`; by
            default none.
        lm: The language model of programs that name none.
        tools: Name → function, for `{"tool": "name"}` in a program's dependencies.
        timeout: The trial's time in seconds of Trio's clock; None for the enclosing scope's deadline alone.
        timeline: Told of stages, LM and tool calls, and of the outcome.
        store: The session store, in place of an embedded one; its sessions stay there.
        settings: The runtime's; by default those of the environment, over the defaults.

    Raises:
        TypeError: An argument is of the wrong type, such as a model's name as `lm`.
    """

    def __init__(
        self,
        *,
        variables: Mapping[str, Any | Variable] | None = None,
        bind: Mapping[str, str] | None = None,
        lm: dspy.BaseLM | None = None,
        tools: Mapping[str, Callable[..., Any]] | None = None,
        timeout: float | None = None,
        timeline: Timeline | None = None,
        store: FaultyStore | None = None,
        settings: Settings | None = None,
    ) -> None:
        check_type("settings", settings, (Settings, types.NoneType), "a dspex.Settings")
        check_type("timeout", timeout, (int, float, types.NoneType), "a number of seconds, or None")
        check_lm(lm)
        self._given = variables or {}
        self._variables = variables_of(self._given)
        self._bindings = tuple(Binding(parameter, variable) for parameter, variable in (bind or {}).items())
        self._lm = lm
        self._tools = tools or {}
        self._timeout = math.inf if timeout is None else timeout
        self._timeline = timeline
        self._store = store
        self._settings = settings

    async def run(self, program: Tested, /, **inputs: Any) -> TrialOutcome:
        """Run one trial of `program` on `inputs`; never raises for what the program does.

        When this is cancelled, so is the trial, and the cancel goes on.

        Args:
            program: A `dspy.Module` class, which is constructed without arguments; an instance, of which the trial gets
                a deep copy; or a specification: a `dspex.Program`, its JSON form, a registered or dotted name.
            inputs: Input field → value.

        Raises:
            TypeError: `program` is none of these, or an instance cannot be copied.
            InvalidSpec: `program` is a mapping and not a program's JSON form.
            VariableInvalid: A variable's value does not fit its type or its constraints.
            RuntimeError: No Trio runs here; `run_sync` starts one.
        """
        needs_trio("TrialEnvironment.run")
        timeline = self._timeline
        with ExitStack() as stack:
            specification = stack.enter_context(_specification(program))
            for name, function in self._tools.items():
                stack.enter_context(registered_tool(name, function))
            if self._store is not None:
                self._store.put(self._given, session_id=_SESSION)
            async with open_tested_runtime(self._settings, lm=self._lm, store=self._store) as runtime:
                session = runtime.session(_SESSION)
                if self._store is None:
                    await session.initialize()
                    for one in self._variables:
                        await session.register(
                            one.name, one.type, one.value, constraints=one.constraints, metadata=one.metadata
                        )
                outcome = await runtime.run_trial(
                    replace(specification, config_space=(*specification.config_space, *self._bindings)),
                    inputs,
                    session=session,
                    deadline=trio.current_time() + self._timeout,
                    watch=None if timeline is None else watching(timeline),
                )
        if timeline is not None:
            record_outcome(timeline, outcome)
        return outcome

    def run_sync(self, program: Tested, /, **inputs: Any) -> TrialOutcome:
        """As `run`, for a plain test function: in a Trio run of its own, in virtual time.

        Raises:
            RuntimeError: It is called inside Trio, where `await environment.run(…)` does this.
        """
        if trio.lowlevel.in_trio_run():
            raise RuntimeError("run_sync starts Trio, which runs already: in an async test, await environment.run(…)")
        clock = VirtualClock()

        async def main() -> TrialOutcome:
            return await self.run(program, **inputs)

        return trio.run(main, clock=clock, instruments=[clock])


def tested_settings(settings: Settings | None) -> Settings:
    """Settings whose reply margin does not grow with the time given, unless they say so: no answer is late in a test.

    A deadline of a minute then comes at its time, and not a second before it.
    """
    settings = settings or Settings()
    if "reply_margin_share" in settings.model_fields_set:
        return settings
    return settings.model_copy(update={"reply_margin_share": 0.0})


@asynccontextmanager
async def open_tested_runtime(
    settings: Settings | None,
    *,
    lm: dspy.BaseLM | None,
    store: FaultyStore | None,
    observers: Sequence[Observer] = (),
) -> AsyncIterator[Runtime]:
    """A runtime whose store is an embedded one, or `store`, over HTTP/2 in memory."""
    settings = tested_settings(settings)
    if store is None:
        async with open_runtime(settings, lm=lm, observers=observers) as runtime:
            yield runtime
        return
    link = Link()
    async with open_background() as nursery:
        await nursery.start(partial(rpc.serve, [store], listeners=[link.listener]))
        async with open_runtime(settings, lm=lm, store=link.connect, observers=observers) as runtime:
            yield runtime


@contextmanager
def _specification(program: Tested) -> Iterator[Program]:
    if isinstance(program, Program):
        yield program
    elif isinstance(program, str):
        yield Program(program)
    elif isinstance(program, Mapping):
        yield program_from_json(program)
    elif isinstance(program, type) and issubclass(program, dspy.Module):
        with _registered(program) as name:
            yield Program(name, name=program.__name__)
    elif isinstance(program, dspy.Module):
        with _registered(_copying(program)) as name:
            yield Program(name, name=type(program).__name__)
    else:
        raise TypeError(
            "what is tested is a dspy.Module class or instance, a dspex.Program, its JSON form or a name; "
            f"got {type(program).__name__}"
        )


@contextmanager
def _registered(cls: type[dspy.Module]) -> Iterator[str]:
    name = f"dspex_trio.testing.{cls.__name__}.{next(_names)}"
    register(name)(cls)
    try:
        yield name
    finally:
        del MODULE_REGISTRY[name]


@contextmanager
def registered_tool(name: str, function: Callable[..., Any]) -> Iterator[None]:
    """While the block runs, `function` is the tool of that name."""
    before = TOOL_REGISTRY.pop(name, None)  # a test's own takes the place of an operator's
    try:
        tool(name=name)(function)
        yield
    finally:
        with suppress(KeyError):
            del TOOL_REGISTRY[name]
        if before is not None:
            TOOL_REGISTRY[name] = before


def _copying(instance: dspy.Module) -> type[dspy.Module]:
    """A class whose instances are copies of this one: a trial's program is constructed."""
    cls = type(instance)
    try:
        state = copy.deepcopy(vars(instance))
    except Exception as error:
        raise TypeError(
            f"this {cls.__name__} cannot be copied ({error}); give the class, which each trial constructs for itself"
        ) from error

    def construct(self: dspy.Module) -> None:
        vars(self).update(state)

    names = {name: getattr(cls, name) for name in ("__module__", "__qualname__", "__doc__")}
    copying: type[dspy.Module] = types.new_class(
        cls.__name__, (cls,), exec_body=lambda body: body.update(names, __init__=construct)
    )
    return copying
