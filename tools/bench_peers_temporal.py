"""Temporal's worker and workflow of `tools/bench_peers.py`, over the development server that pip installed."""

from __future__ import annotations

import shutil
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final

from bench_peers_program import ask
from temporalio import activity, workflow
from temporalio.client import WorkflowFailureError
from temporalio.common import RetryPolicy
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

QUEUE: Final = "bench"


@activity.defn  # type: ignore[untyped-decorator] # the project itself installs no temporalio
def answer(question: str) -> str:
    """The call."""
    return ask(question)


@workflow.defn
class Asks:
    """One activity, not tried again."""

    @workflow.run  # type: ignore[untyped-decorator] # as above
    async def run(self, question: str, seconds: float) -> str:
        """Run it, with the time-out from its start to its end."""
        limit = timedelta(seconds=seconds)
        once = RetryPolicy(maximum_attempts=1)
        found: str = await workflow.execute_activity(
            answer, question, start_to_close_timeout=limit, schedule_to_close_timeout=limit, retry_policy=once
        )
        return found


@asynccontextmanager
async def open_worker(slots: int) -> AsyncIterator[Callable[[str, float], Awaitable[str]]]:
    """Server, worker and the call."""
    server = shutil.which("temporal", path=str(Path(sys.executable).parent))
    async with await WorkflowEnvironment.start_local(
        dev_server_existing_path=server, dev_server_log_level="error"
    ) as environment:

        async def call(question: str, timeout: float) -> str:  # noqa: ASYNC109 - the caller's
            try:
                await environment.client.execute_workflow(
                    Asks.run, args=[question, timeout], id=uuid.uuid4().hex, task_queue=QUEUE
                )
            except WorkflowFailureError as error:
                return type(error.cause.__cause__ or error.cause).__name__
            return "success"

        with ThreadPoolExecutor(slots) as threads:
            async with Worker(
                environment.client,
                task_queue=QUEUE,
                workflows=[Asks],
                activities=[answer],
                activity_executor=threads,
                max_concurrent_activities=slots,
                workflow_runner=UnsandboxedWorkflowRunner(),
            ):
                yield call
