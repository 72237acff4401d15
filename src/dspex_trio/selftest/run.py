"""Each case of the self-test: a trial that outlives its deadline, and whether everything really ended with it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import trio

from dspex_trio.model import Program, TrialFailure, TrialOptions, TrialOutcome, TrialSuccess
from dspex_trio.model.errors import FailureKind
from dspex_trio.runtime.embedded import Runtime, open_runtime
from dspex_trio.runtime.settings import Settings
from dspex_trio.selftest.silent import ANSWERING, CERTIFICATE, SILENT, SilentProvider, server_context

# The deadline of each case, in seconds: long enough for a TLS handshake on a busy machine.
DEADLINE: Final = 0.3
# How much later the caller itself would give up, in seconds: the answer waits for the thread for half of that.
_MARGIN: Final = 0.1
# A program that computes past its deadline ends so much after it, in seconds: before it would be interrupted.
_LATE: Final = 0.01
# How long after its deadline a thread may still hold its slot, in seconds.
_SLOT_WITHIN: Final = 2.0
# How long it may take to have another child process where one was killed, in seconds.
_CHILD_WITHIN: Final = 20.0
# How long after its answer the provider may still think that the caller is there, in seconds.
_CLOSE_WITHIN: Final = 2.0
# How long the first call of each engine may take, imports included, in seconds.
_WARM_UP: Final = 60.0
# All cases together may take so long, in seconds; what is left then has failed.
_ALL_WITHIN: Final = 40.0

_TRUST: Final = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
_NATIVE: Final = "DSPy's own engine"
_LITELLM: Final = "litellm"


@dataclass(frozen=True, slots=True)
class Case:
    """One way of blocking.

    Attributes:
        what: For people.
        way: What the program does, a key of `programs.WAYS`.
        rungs: The steps of the ladder by which it may end.
        closes: How many connections the provider must see closed.
        tls: Whether the provider is asked by TLS.
        engine: DSPy's name of the engine.
        scheme: How the URL begins that the program is given.
        isolated: Whether the program runs in a child process.
    """

    what: str
    way: str
    rungs: frozenset[str] = frozenset({"wake"})
    closes: int = 0
    tls: bool = False
    engine: str = "lm15"
    scheme: str = "http"
    isolated: bool = False


_WAKE_OR_CHECK: Final = frozenset({"wake", "check"})
_CHECK: Final = frozenset({"check"})
_RAISE: Final = frozenset({"raise"})


def _of_engine(engine: str, name: str) -> Iterator[Case]:
    for tls, over in ((False, "HTTP"), (True, "TLS")):
        yield Case(f"{name}, {over}, no answer", "ask", closes=1, tls=tls, engine=engine)
        yield Case(f"{name}, {over}, half a stream", "stream", _WAKE_OR_CHECK, closes=1, tls=tls, engine=engine)


CASES: Final = (
    *_of_engine("lm15", _NATIVE),
    *_of_engine("litellm", _LITELLM),
    Case("dspy.Parallel, two calls", "parallel", closes=2),
    Case("a model call after the deadline", "ask late", _CHECK),
    Case("requests, HTTP", "requests", closes=1),
    Case("requests, TLS", "requests", closes=1, tls=True, scheme="https"),
    Case("requests, TLS handshake", "requests", closes=1, scheme="https"),
    Case("time.sleep", "sleep"),
    Case("queue.Queue.get", "queue"),
    Case("asyncio.run", "asyncio"),
    Case("trio.run", "trio"),
    Case("subprocess.run", "subprocess"),
    Case("the output of a process", "pipe"),
    Case("a loop of short waits", "short waits", _WAKE_OR_CHECK),
    Case("a loop", "loop", _RAISE),
    Case("a loop that keeps every Exception", "keep every exception", _RAISE),
    Case("such loops in dspy.Parallel", "parallel loops", frozenset({"raise", "wake"})),
    Case("C code, in a child process", "hang", frozenset({"kill"}), closes=1, isolated=True),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of a case; milliseconds are after the deadline, None if it did not happen.

    Attributes:
        case: The case.
        rung: The step of the ladder that ended the program, or `-`.
        answer_ms: The caller had its failure.
        thread_ms: The program's code, in whichever thread, was left.
        close_ms: The provider saw its last connection closed.
        why: What does not work; empty for nothing.
    """

    case: Case
    rung: str = "-"
    answer_ms: float | None = None
    thread_ms: float | None = None
    close_ms: float | None = None
    why: str = "there was no time left for it"


async def examine_all(tell: Callable[[Finding], None]) -> None:
    """Run every case, one after the other. Sets environment variables: for a process of its own.

    A case that fails is tried once more: a machine that was busy for a moment is no defect.
    """
    os.environ.update(dict.fromkeys(_TRUST, str(CERTIFICATE)))
    provider = SilentProvider()
    async with trio.open_nursery() as nursery:
        contexts = {False: None, True: server_context()}
        ports = {tls: await nursery.start(partial(provider.serve, tls=context)) for tls, context in contexts.items()}
        for engine in sorted({case.engine for case in CASES}):
            await _warm_up(engine, ports)
        end = trio.current_time() + _ALL_WITHIN
        for case in CASES:
            found = Finding(case)
            for _ in range(2):
                if trio.current_time() < end and found.why:
                    found = await _examine(case, provider, ports)
            tell(found)
        nursery.cancel_scope.cancel()


async def _warm_up(engine: str, ports: Mapping[bool, int]) -> None:
    """The first call of an engine imports what it needs, which takes litellm seconds."""
    for tls, port in ports.items():
        async with open_runtime(_settings(ANSWERING, engine, port, tls=tls)) as runtime:
            with trio.fail_after(_WARM_UP):
                outcome = await _trial(runtime, "ask")
        if isinstance(outcome, TrialFailure):
            raise RuntimeError(  # noqa: TRY004 - an outcome, not an argument
                f"the engine {engine!r} gets no answer from the loopback provider: {outcome}"
            )


async def _examine(case: Case, provider: SilentProvider, ports: Mapping[bool, int]) -> Finding:
    from dspex_trio.selftest.programs import Blocking  # noqa: PLC0415 - certificates are trusted before DSPy is imported

    port = ports[case.tls]
    asked = provider.asked

    def asked_by(provider: SilentProvider) -> set[int]:
        return set(range(asked + 1, provider.asked + 1))

    Blocking.endings.clear()
    settings = _settings(SILENT, case.engine, port, tls=case.tls)
    if case.isolated:
        settings = settings.model_copy(update={"isolation": "process"})
    slot_within = _CHILD_WITHIN if case.isolated else _SLOT_WITHIN
    async with open_runtime(settings) as runtime:
        deadline = time.monotonic() + DEADLINE
        outcome: TrialOutcome | None = None
        with trio.move_on_after(DEADLINE + _MARGIN):
            outcome = await _trial(runtime, case.way, until=deadline + _LATE, url=f"{case.scheme}://127.0.0.1:{port}/")
        answered = time.monotonic()
        with trio.move_on_after(_CLOSE_WITHIN):
            await provider.wait_until(lambda provider: provider.closes.keys() >= asked_by(provider))
        freed: TrialOutcome | None = None
        with trio.move_on_after(slot_within):
            freed = await _trial(runtime, "nothing")  # there is one slot
    closes = [provider.closes[number] for number in asked_by(provider) if number in provider.closes]
    endings = list(Blocking.endings)
    rung = outcome.details.get("rung", "-") if isinstance(outcome, TrialFailure) else "-"
    if rung == "abandon" and endings:
        rung = endings[-1].by

    def since_deadline(moment: float) -> float:
        return (moment - deadline) * 1e3

    return Finding(
        case,
        rung=rung,
        answer_ms=since_deadline(answered),
        thread_ms=since_deadline(max(each.at for each in endings)) if endings else None,
        close_ms=since_deadline(max(closes)) if closes else None,
        why="; ".join(
            [
                *_about_outcome(case, outcome, rung),
                *_about_slot(freed, slot_within),
                *_about_connections(case, provider.asked - asked, len(closes)),
            ]
        ),
    )


def _about_outcome(case: Case, outcome: TrialOutcome | None, rung: str) -> Iterator[str]:
    if outcome is None:
        yield "there was no answer in time"
    elif not isinstance(outcome, TrialFailure):
        yield "the trial succeeded"
    elif outcome.kind is not FailureKind.DEADLINE_EXCEEDED:
        yield f"the trial ended as {outcome.kind.name}: {outcome.error_message}"
    elif rung not in case.rungs:
        yield f"the step was {rung}"


def _about_slot(freed: TrialOutcome | None, within: float) -> Iterator[str]:
    if not isinstance(freed, TrialSuccess):
        yield f"the slot was not free after {within:g} s"


def _about_connections(case: Case, asked: int, closes: int) -> Iterator[str]:
    if asked != case.closes:
        yield f"the provider was asked {asked} times, not {case.closes}"
    if closes != asked:
        yield f"the provider saw {closes} of {asked} connections closed"


async def _trial(runtime: Runtime, way: str, *, until: float = 0.0, url: str = "") -> TrialOutcome:
    program = Program("dspex_trio.Wait", dependencies={"way": way, "url": url}, name=way)
    return await runtime.run_trial(program, {"until": until}, options=TrialOptions(no_cache=True))


def _settings(model: str, engine: str, port: int, *, tls: bool) -> Settings:
    lm_args: dict[str, Any] = {
        "api_base": f"{'https' if tls else 'http'}://127.0.0.1:{port}/v1",
        "api_key": "none",
        "engine": engine,
    }
    return Settings(
        lm=model, lm_args=lm_args, load=("dspex_trio.selftest.programs",), max_trials=1, reply_margin_ms=_MARGIN * 1e3
    )
