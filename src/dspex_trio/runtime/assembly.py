"""What every process that runs programs needs: their loader, and threads to run them in, as `trials` sees them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, cast

from dspex_trio import programs, threads, trials
from dspex_trio.model import LanguageModel, TrialRequest
from dspex_trio.observing.redaction import Redactor
from dspex_trio.runtime.settings import Settings
from dspex_trio.trials.admission import Slot
from dspex_trio.trials.protocols import Job

if TYPE_CHECKING:
    import dspy


class TrialJob(threads.Job):
    """A job that knows its trial, if it is one's."""

    __slots__ = ("request",)

    def __init__(self, name: str, request: TrialRequest | None) -> None:
        super().__init__(name)
        self.request = request


class Executor:
    """Runs a trial's work in threads: a `trials.protocols.Executor`.

    Args:
        workers: Runs the threads.
        job: Makes a job of a name and a trial.
        on_abandoned: Called with each job whose threads are not waited for any longer.
    """

    def __init__(
        self,
        workers: threads.Threads,
        job: Callable[[str, TrialRequest | None], threads.Job] = TrialJob,
        on_abandoned: Callable[[Job], None] = lambda _job: None,
    ) -> None:
        self._workers = workers
        self._make = job
        self._on_abandoned = on_abandoned
        self.watching = threads.ProcessState().watching

    def job(self, name: str, request: TrialRequest | None = None) -> Job:
        """A new cancellable unit of work, of that trial if it is one."""
        return self._make(name, request)

    async def run(self, function: Callable[..., Any], /, *args: Any, job: Job, slot: Slot) -> Any:
        """Run `function(*args)` in a thread that holds `slot`; reports a job that is stuck afterwards."""
        try:
            # What comes back is what `job` and the slots that admission was given handed out.
            return await self._workers.run(
                function, *args, job=cast("threads.Job", job), slot=cast("threads.Slot", slot)
            )
        finally:
            if job.details().get("stuck") == "true":
                self._on_abandoned(job)


@asynccontextmanager
async def open_programs_and_threads(
    settings: Settings,
    redact: Redactor,
    patience: Callable[[threads.Job], float],
    *,
    lm: dspy.BaseLM | None = None,
    on_late_end: Callable[[threads.Job], None] = lambda _job: None,
) -> AsyncIterator[tuple[programs.Loader, threads.Threads]]:
    """Open the loader of programs and the threads.

    Args:
        settings: What the operator chose.
        redact: Takes secrets out of what is recorded.
        patience: How many seconds a cancelled job waits for its threads.
        lm: As `open_runtime` takes it.
        on_late_end: Called with each job whose threads ended after they had been abandoned.

    Raises:
        CannotLoad, UnsupportedDspy: As `open_runtime` says.
    """
    opened = programs.open_programs(program_settings(settings), run_in_loop=threads.run_in_loop, lm=lm, redact=redact)
    # Patches come first: the operator's modules then import the patched calls by name, as `from time import sleep`.
    with threads.hooks(), opened as loader, _threads_prepared():
        async with threads.open_threads(
            patience=patience,
            may_raise=settings.raise_in_threads,
            switch_interval=settings.switch_interval_ms / 1e3,
            on_late_end=on_late_end,
        ) as workers:
            yield loader, workers


@contextmanager
def _threads_prepared() -> Iterator[None]:
    """Register which trial a thread of dspy.Parallel works for, and which functions may be interrupted."""
    with ExitStack() as stack:
        stack.enter_context(threads.allowing_interrupts_in(*programs.INTERRUPTIBLE, *trials.INTERRUPTIBLE))
        stack.enter_context(threads.never_interrupt(*programs.NEVER_INTERRUPTED))
        stack.callback(threads.add_lookup(programs.current_interrupt))
        stack.callback(threads.add_frame_lookup(programs.interrupt_of_frame))
        yield


def program_settings(settings: Settings) -> programs.ProgramSettings:
    """What of the settings concerns programs."""
    return programs.ProgramSettings(
        lm=LanguageModel(settings.lm, settings.lm_args) if settings.lm is not None else None,
        load=settings.load,
        allow_import=settings.allow_import,
        allow_lm_arg=settings.allow_lm_arg,
        allow_model=settings.allow_model,
        memory_cache=settings.memory_cache,
        disk_cache=settings.disk_cache,
        shared_cache=settings.shared_cache,
        allow_repr=settings.allow_repr,
    )
