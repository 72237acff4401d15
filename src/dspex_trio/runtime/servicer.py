"""`SnakepitBridge`: the servicer that turns a request into a trial and its outcome into a reply."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace
from functools import partial

import trio

from dspex_trio import rpc
from dspex_trio.model import TrialFailure, TrialOptions, TrialOutcome, Watch
from dspex_trio.model.errors import Stage, TrialError, UnreadableRequest
from dspex_trio.model.values import type_name
from dspex_trio.observing import correlation
from dspex_trio.rpc.server.service import UNARY_STREAM, UNARY_UNARY, Service
from dspex_trio.runtime.streaming import Ended, streamed
from dspex_trio.trials import ReplyMargin, Trials, failure_of
from dspex_trio.wire import decode_request, encode_event, encode_reply, seconds_of
from dspex_trio.wire.envelope import Encoded, EncodedRequest, event_with
from dspex_trio.wire.generated.program_grpc import SnakepitBridgeServicer
from dspex_trio.wire.generated.program_pb2 import ExecuteProgramRequest, ExecuteProgramResponse, ProgramEvent

_UNREADABLE = type_name(UnreadableRequest)


class ProgramExecutor(SnakepitBridgeServicer):
    """Executes trials that arrive over gRPC.

    What became of the program is always an OK reply, with `success` or `failure` set. A caller that goes away cancels
    its trial.

    Args:
        trials: Runs them.
        max_message_bytes: The largest reply; the trace is cut to fit, and an outcome that does not fit even without it
            is a SERIALIZATION_ERROR.
        reply_margin: Computes deadlines; learns from callers that give up.
        redact: Takes secrets out of text that leaves.
        pass_on: Whether requests are passed on as they come, to executors that decode them.
    """

    _pass_on = False

    def __init__(
        self,
        trials: Trials,
        *,
        max_message_bytes: int,
        reply_margin: ReplyMargin,
        redact: Callable[[str], str],
        pass_on: bool = False,
    ) -> None:
        self._trials = trials
        self._max_message_bytes = max_message_bytes
        self._reply_margin = reply_margin
        self._redact = redact
        self._pass_on = pass_on

    @property
    def service(self) -> Service:
        """The service; of requests that are passed on only the envelope is parsed."""
        if not self._pass_on:
            return super().service
        service = Service(super().service.name)
        service.add("ExecuteProgram", self.ExecuteProgram, UNARY_UNARY, EncodedRequest, ExecuteProgramResponse)
        service.add("StreamProgram", self.StreamProgram, UNARY_STREAM, EncodedRequest, ProgramEvent)
        return service

    async def ExecuteProgram(  # type: ignore[override] # noqa: N802 - what is encoded already passes for a message
        self, request: ExecuteProgramRequest | EncodedRequest, call: rpc.Call
    ) -> ExecuteProgramResponse | Encoded:
        """Run one trial. The earliest of `grpc-timeout`, `request.timeout` and the worker's maximum is its deadline."""
        return await self._execute(request, call, call.arrived)

    async def StreamProgram(  # type: ignore[override] # noqa: N802 - as above
        self, request: ExecuteProgramRequest | EncodedRequest, call: rpc.Call
    ) -> AsyncIterator[ProgramEvent | Encoded]:
        """Run one trial and stream its events; the last one carries the response that ExecuteProgram would give.

        A caller that reads slowly loses events, and an event says how many; the trial does not wait.
        """
        arrived = call.arrived
        trial = streamed(partial(self._execute, request, call, arrived), arrived=arrived)
        async with aclosing(trial) as events:
            async for at_ms, event in events:
                if isinstance(event, Ended):
                    last = event_with(event.result.SerializeToString(), at_ms)
                    del event  # or a large reply would be held twice while its reader is slow
                    yield last  # noqa: ASYNC119 - servers close generators
                else:
                    yield encode_event(event, at_ms)  # noqa: ASYNC119 - as above

    async def _execute(
        self,
        request: ExecuteProgramRequest | EncodedRequest,
        call: rpc.Call,
        arrived: float,
        watch: Watch | None = None,
    ) -> ExecuteProgramResponse | Encoded:
        try:
            trial = request.trial() if isinstance(request, EncodedRequest) else decode_request(request)
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

    def _encode(self, outcome: TrialOutcome, options: TrialOptions) -> ExecuteProgramResponse | Encoded:
        if outcome.reply:
            return Encoded(outcome.reply)
        if isinstance(outcome, TrialFailure) and outcome.error_type == _UNREADABLE:
            raise rpc.RpcError(rpc.StatusCode.INVALID_ARGUMENT, "a request message cannot be parsed")
        return encode_reply(outcome, options, self._max_message_bytes, trio.current_time)
