"""Which trials run in a process of their own, and why a program may be missing there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from dspex_trio.model import MODULE_CHOICE, Program, TrialFailure, TrialOutcome
from dspex_trio.model.errors import FailureKind
from dspex_trio.runtime.settings import Settings
from dspex_trio.trials import TrialRunner
from dspex_trio.trials.admission import Slot
from dspex_trio.trials.work import Trial


class Homes:
    """Where programs and tools are registered in this process, if programs are registered here at all.

    Args:
        found: Module → the names that are registered there.
    """

    def __init__(self, found: Callable[[], Mapping[str, list[str]]] = dict) -> None:
        self._found = found

    def __call__(self) -> Mapping[str, list[str]]:
        return self._found()

    def explained(self, outcome: TrialOutcome, program: Program) -> TrialOutcome:
        """The outcome; for a class that is missing in an executor but registered here, the message says where it is."""
        if not isinstance(outcome, TrialFailure) or outcome.kind is not FailureKind.CLASS_NOT_FOUND:
            return outcome
        for module, names in self._found().items():
            if program.python_class in names:
                message = (
                    f"{program.python_class!r} is registered in {module!r}, which the executor process "
                    f"cannot import: put it into a module of its own and name that with --load"
                )
                return replace(outcome, error_message=message, pushed=outcome.reply, reply=b"")
        return outcome


class Routing:
    """Decides where a trial runs.

    Args:
        settings: What the operator chose.
        isolation_of: Where a class asks to run; None if it does not say.
        any_isolated: Whether some class asks for a process of its own.
        homes: Where programs are registered in this process.
    """

    def __init__(
        self,
        settings: Settings,
        isolation_of: Callable[[str], str | None],
        any_isolated: Callable[[], bool],
        homes: Homes,
    ) -> None:
        self.homes = homes
        self._settings = settings
        self._isolation_of = isolation_of
        self._any_isolated = any_isolated

    def any_alone(self) -> bool:
        """Whether it is known that some trials will run in processes of their own."""
        return self._settings.isolation == "process" or bool(self._settings.isolate) or self._any_isolated()

    def alone(self, program: Program) -> bool:
        """Whether a program runs in a process of its own.

        Where a variable picks the class, which is not known yet, it does if any class may.
        """
        if program.python_class in self._settings.isolate:
            return True
        chosen = any(binding.parameter == MODULE_CHOICE for binding in program.config_space)
        if chosen and (self._settings.isolate or self._any_isolated()):
            return True
        said = None if chosen else self._isolation_of(program.python_class)
        return (said or self._settings.isolation) == "process"


class Routed:
    """Runs each trial where it belongs; a `TrialRunner`.

    Args:
        routing: Decides.
        alone: For trials that run in a process of their own.
        others: For all others.
    """

    def __init__(self, routing: Routing, alone: TrialRunner, others: TrialRunner) -> None:
        self._routing = routing
        self._alone = alone
        self._others = others

    async def run(self, trial: Trial, slot: Slot) -> TrialOutcome:
        """Run a trial."""
        runner = self._alone if self._routing.alone(trial.request.program) else self._others
        return await runner.run(trial, slot)
