"""`SnakepitBridge`: the servicer that turns a request into a trial and its outcome into a reply."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace
from functools import partial

import trio

from dspex_trio import correlation, rpc
from dspex_trio.errors import Stage, TrialError
from dspex_trio.generated.program_grpc import SnakepitBridgeServicer
from dspex_trio.generated.program_pb2 import ExecuteProgramRequest, ExecuteProgramResponse, ProgramEvent
from dspex_trio.model import TrialOptions, TrialOutcome, Watch
from dspex_trio.service.streamed import Ended, streamed
from dspex_trio.trials import ReplyMargin, Trials, failure_of
from dspex_trio.wire import decode_request, encode_event, encode_outcome, seconds_of


class ProgramExecutor(SnakepitBridgeServicer):
    """Executes trials that arrive over gRPC.

    What became of the program is always an OK reply, with `success` or `failure` set. A caller that goes away cancels
    its trial.

    Args:
        trials: The road.
        max_message_bytes: The largest reply; the trace is cut to fit, and an outcome that does not fit even without it
            is a SERIALIZATION_ERROR.
        reply_margin: Computes deadlines; told of callers that give up.
        redact: Takes secrets out of text that leaves.
    """

    def __init__(
        self,
        trials: Trials,
        *,
        max_message_bytes: int,
        reply_margin: ReplyMargin,
        redact: Callable[[str], str],
    ) -> None:
        self._trials = trials
        self._max_message_bytes = max_message_bytes
        self._reply_margin = reply_margin
        self._redact = redact

    async def ExecuteProgram(self, request: ExecuteProgramRequest, call: rpc.Call) -> ExecuteProgramResponse:  # noqa: N802
        """Run one trial. The earliest of `grpc-timeout`, `request.timeout` and the worker's maximum is its deadline."""
        return await self._execute(request, call, trio.current_time())

    async def StreamProgram(self, request: ExecuteProgramRequest, call: rpc.Call) -> AsyncIterator[ProgramEvent]:  # noqa: N802
        """Run one trial and tell of it meanwhile; the last event carries the response that ExecuteProgram would give.

        A caller that reads slowly loses events, and is told how many; the trial does not wait.
        """
        arrived = trio.current_time()
        trial = streamed(partial(self._execute, request, call, arrived), arrived=arrived)
        async with aclosing(trial) as events:
            async for at_ms, event in events:
                if isinstance(event, Ended):
                    yield ProgramEvent(response=event.result, at_ms=at_ms)  # noqa: ASYNC119 - servers close generators
                else:
                    yield encode_event(event, at_ms)  # noqa: ASYNC119 - as above

    async def _execute(
        self, request: ExecuteProgramRequest, call: rpc.Call, arrived: float, watch: Watch | None = None
    ) -> ExecuteProgramResponse:
        try:
            trial = decode_request(request)
        except TrialError as error:
            failure = failure_of(error, Stage.HYDRATE, redact=self._redact, trial_id=request.trial_id)
            return self._encode(failure, TrialOptions())
        asked = self._reply_margin.deadline(arrived, arrived + seconds_of(request))
        ends = self._reply_margin.deadline(arrived, call.deadline, call.timer_slack)
        ends = ends if ends.at < asked.at else asked
        call.on_given_up = partial(self._reply_margin.given_up, ends)
        with correlation.correlated(trial.metadata.get(correlation.METADATA_KEY)):
            noted = correlation.noted(trial.metadata)
            outcome = await self._trials.run(
                replace(trial, arrived=arrived, deadline=ends.at, margin=ends.margin, metadata=noted, watch=watch)
            )
        return self._encode(outcome, trial.options)

    def _encode(self, outcome: TrialOutcome, options: TrialOptions) -> ExecuteProgramResponse:
        began = trio.current_time()
        response = encode_outcome(outcome, max_bytes=self._max_message_bytes, max_trace_bytes=options.max_trace_bytes)
        spent_ms = (trio.current_time() - began) * 1e3
        timings = (response.success if response.HasField("success") else response.failure).timings
        timings.serialize_ms += spent_ms
        timings.total_ms += spent_ms
        return response
