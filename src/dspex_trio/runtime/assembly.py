"""What every process that runs programs needs: their loader, and threads to run them in, as the road sees them."""

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
    """The thread room, as the road sees it.

    Args:
        workers: Runs the threads.
        job: Makes a job of a name and a trial.
        on_abandoned: Told of each job whose threads are not waited for any longer.
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
        """As the road wants it."""
        return self._make(name, request)

    async def run(self, function: Callable[..., Any], /, *args: Any, job: Job, slot: Slot) -> Any:
        """As the road wants it."""
        try:
            # What comes back is what `job` and the slots that admission was given handed out.
            return await self._workers.run(
                function, *args, job=cast("threads.Job", job), slot=cast("threads.Slot", slot)
            )
        finally:
            if job.details().get("stuck") == "true":
                self._on_abandoned(job)


@asynccontextmanager
async def open_rooms(
    settings: Settings,
    redact: Redactor,
    patience: Callable[[threads.Job], float],
    *,
    lm: dspy.BaseLM | None = None,
    on_late_end: Callable[[threads.Job], None] = lambda _job: None,
) -> AsyncIterator[tuple[programs.Loader, threads.Threads]]:
    """Open them.

    Args:
        settings: What the operator chose.
        redact: Takes secrets out of what is recorded.
        patience: How many seconds a cancelled job waits for its threads.
        lm: As `open_runtime` takes it.
        on_late_end: Told of each job whose threads ended after they had been abandoned.

    Raises:
        CannotLoad, UnsupportedDspy: As `open_runtime` says.
    """
    opened = programs.open_programs(program_settings(settings), run_in_loop=threads.run_in_loop, lm=lm, redact=redact)
    # The seam comes first: what the operator's modules import by name, as `from time import sleep`, is the seam's then.
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
    """Tell the thread room which trial a thread of dspy.Parallel works for, and which of our frames carry programs."""
    for carrier in (*programs.INTERRUPTIBLE, *trials.INTERRUPTIBLE):
        threads.allow_interrupts_in(carrier)
    threads.never_interrupt(*programs.NEVER_INTERRUPTED)
    with ExitStack() as stack:
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
