"""Mixed concurrent trials against a provider that keeps books of its own, and both compared: trace, usage, cost."""

import itertools
import json
import math
import random
import re
import threading
from collections import Counter, defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field

import dspy
import trio

import dspex_trio as dspex
from dspex_trio.programs.registry import MODULE_REGISTRY, TOOL_REGISTRY

from ..programs.fakes import chat  # noqa: TID252 - tests are no package
from ..programs.provider import error, open_provider, prompt_tokens  # noqa: TID252 - as above

LISTED, UNLISTED = "openai/gpt-4o-mini", "openai/a-model-of-ours"
# Of the listed one, in US dollars: prompt, completion.
PRICES = (0.15e-6, 0.6e-6)
SHARED = 10
ATTEMPTS = 3
SECONDS = 60.0
LATE_SECONDS = 1.5
_SHOWN = 200
QUESTION = re.compile(r"(t\d+|shared\d+)-(\w+)")
SERIAL = re.compile(r"serial (\d+)\.")


@dataclass
class Served:
    """One request as the provider saw it.

    Attributes:
        asker: The trial, or the question that several of them ask.
        model: What was asked.
        messages: The prompt.
        serial: Stands in the reply; None without one.
        prompt: Its tokens, as billed; 0 where nothing is.
        completion: The reply's.
    """

    asker: str
    model: str
    messages: list
    serial: int | None = None
    prompt: int = 0
    completion: int = 0


@dataclass
class Books:
    """What the provider served; it decides by the question what becomes of a request."""

    entries: list[Served] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)
    _serials: itertools.count = field(default_factory=lambda: itertools.count(1))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, body):
        """The reply to a request, as `open_provider` takes it."""
        asker, part = QUESTION.search(json.dumps(body["messages"])).groups()
        entry = Served(asker, body["model"], body["messages"])
        with self._lock:
            self.entries.append(entry)
            serial = next(self._serials)
        match part:
            case "hangs":
                self.closing.wait()
                return error(503)
            case "refused":
                return error(400, "no")
            case "limited":
                return error(429, "slower", **{"retry-after": "0"})
            case "nonsense":
                said = f"no fields in here, serial {serial}."
            case _:
                said = _fields(body, serial)
        with self._lock:
            entry.serial, entry.prompt, entry.completion = serial, prompt_tokens(body), len(said)
        return said

    def by_asker(self):
        found = defaultdict(list)
        for entry in self.entries:
            found[entry.asker].append(entry)
        return found


def _fields(body, serial):
    """A reply with the fields that the prompt asks for."""
    prompt, _, wish = body["messages"][-1]["content"].rpartition("Respond")
    wanted = dict.fromkeys(re.findall(r"\[\[ ## (\w+) ## \]\]", wish))
    asked = [name for name in wanted if name != "completed"]
    if "next_tool_name" not in asked:
        return chat(**dict.fromkeys(asked, f"serial {serial}."))
    looked_up = "look_it_up" in prompt.partition("[[ ## trajectory ## ]]")[2]
    name, arguments = ("finish", {}) if looked_up else ("look_it_up", {"key": f"serial {serial}."})
    return chat(next_thought=f"serial {serial}.", next_tool_name=name, next_tool_args=json.dumps(arguments))


# ---- the programs ----------------------------------------------------------------------------------------------------


class Asks(dspy.Module):
    """Asks one thing after the other."""

    def __init__(self):
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    def forward(self, question):
        return [self.ask(question=each) for each in question.split()][-1]


class BestOf(dspy.Module):
    """Is never content."""

    def __init__(self):
        super().__init__()
        self.best = dspy.BestOfN(
            module=dspy.ChainOfThought("question -> answer"), N=ATTEMPTS, reward_fn=lambda *_: 0.0, threshold=1.0
        )

    def forward(self, question):
        return self.best(question=question)


class InParallel(dspy.Module):
    """Asks several things at once."""

    def __init__(self):
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    def forward(self, question):
        pairs = [(self.ask, {"question": each}) for each in question.split()]
        return dspy.Parallel(num_threads=3, disable_progress_bar=True)(pairs)[-1]


def look_it_up(key: str) -> str:
    """Look something up."""
    return f"found {key}"


@contextmanager
def registered():
    """The programs and the tool, while the block runs."""
    before = dict(MODULE_REGISTRY), dict(TOOL_REGISTRY)
    try:
        for program in (Asks, BestOf, InParallel):
            dspex.register(f"books.{program.__name__}")(program)
        dspex.tool(look_it_up)
        yield
    finally:
        for registry, content in zip((MODULE_REGISTRY, TOOL_REGISTRY), before, strict=True):
            registry.clear()
            registry.update(content)


ASKS = {"python_class": "books.Asks"}
PREDICT = {"python_class": "dspy.Predict", "signature": "question -> answer"}
UNPRICED = {**PREDICT, "lm": {"model": UNLISTED}}
REACT = {**PREDICT, "python_class": "dspy.ReAct", "dependencies": {"tools": [{"tool": "look_it_up"}]}}


@dataclass(frozen=True)
class Kind:
    """What a trial does.

    Attributes:
        program: What runs.
        asks: Its question, of which `{}` is the trial.
        outcome: How it ends.
        hits: How many of its calls DSPy's cache answers; None where that depends on others.
        seconds: Its time.
    """

    program: dict
    asks: str
    outcome: str = "OK"
    hits: int | None = 0
    seconds: float = SECONDS


KINDS = {
    "Predict": Kind(PREDICT, "{}-a"),
    "ChainOfThought": Kind({**PREDICT, "python_class": "dspy.ChainOfThought"}, "{}-a"),
    "ReAct": Kind(REACT, "{}-a"),
    "BestOfN": Kind({"python_class": "books.BestOf"}, "{}-a"),
    "Parallel": Kind({"python_class": "books.InParallel"}, "{0}-a {0}-b {0}-c"),
    "a cache hit": Kind(ASKS, "{0}-a {0}-b {0}-a", hits=1),
    "what others ask too": Kind(PREDICT, "shared", hits=None),
    "no price": Kind(UNPRICED, "{}-a"),
    "no fields": Kind(ASKS, "{0}-a {0}-nonsense", "LM_ERROR"),
    "refused": Kind(ASKS, "{0}-a {0}-refused", "LM_ERROR"),
    "rate limit": Kind(ASKS, "{0}-limited", "LM_ERROR"),
    "a deadline": Kind(ASKS, "{0}-a {0}-hangs", "DEADLINE_EXCEEDED", seconds=LATE_SECONDS),
    "a deadline in parallel": Kind(
        {"python_class": "books.InParallel"}, "{0}-a {0}-hangs {0}-c", "DEADLINE_EXCEEDED", seconds=LATE_SECONDS
    ),
}


# ---- running them ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ran:
    """A trial that is over."""

    asker: str
    kind: Kind
    outcome: dspex.TrialOutcome


async def run_all(trials, at_once, seed, *, engine=None):
    """Run so many trials of all kinds, so many at once, over gRPC; returns them and the provider's books."""
    books, ran, dice = Books(), [], random.Random(seed)
    kinds = [list(KINDS)[number % len(KINDS)] for number in range(trials)]
    dice.shuffle(kinds)
    with registered(), open_provider(books.answer) as provider:
        arguments = {"api_base": provider.address, "api_key": "k", "num_retries": 0}
        settings = dspex.Settings(
            port=0, max_trials=at_once, lm=LISTED, lm_args={**arguments, **({"engine": engine} if engine else {})}
        )
        async with trio.open_nursery() as nursery:
            [listener] = await nursery.start(dspex.serve, settings)
            async with dspex.open_client(f"127.0.0.1:{listener.socket.getsockname()[1]}") as client:
                numbers = iter(range(trials))

                async def lane():
                    for number in numbers:
                        kind = KINDS[kinds[number]]
                        asker = f"shared{number % SHARED}" if kind.asks == "shared" else f"t{number}"
                        question = f"{asker}-a" if kind.asks == "shared" else kind.asks.format(asker)
                        outcome = await client.execute(kind.program, {"question": question}, timeout=kind.seconds)
                        ran.append(Ran(asker, kind, outcome))

                async with trio.open_nursery() as lanes:
                    for _ in range(at_once):
                        lanes.start_soon(lane)
            nursery.cancel_scope.cancel()
        books.closing.set()
    return ran, books


# ---- comparing -------------------------------------------------------------------------------------------------------


def differences(ran, books):
    """Where what a trial recorded is not what the provider's books say; nothing, if all is well."""
    served = books.by_asker()
    alone = [one for one in ran if one.kind.hits is not None]
    found = [f"{one.asker}: {problem}" for one in alone for problem in _of_one(one, served[one.asker])]
    for asker in {one.asker for one in ran if one.kind.hits is None}:
        found += [f"{asker}: {problem}" for problem in _of_several([o for o in ran if o.asker == asker], served[asker])]
    left = {asker for asker in served if asker not in {one.asker for one in ran}}
    return found + [f"{asker}: nobody asked that" for asker in sorted(left)]


def _calls(outcome):
    trace = outcome.trace if isinstance(outcome, dspex.TrialSuccess) else outcome.partial_trace
    return [call for entry in trace for call in entry.lm_calls]


def _price(entries):
    listed = [entry for entry in entries if entry.model == LISTED.partition("/")[2]]
    return sum(entry.prompt * PRICES[0] + entry.completion * PRICES[1] for entry in listed)


def _of_one(one, entries):
    """A trial whose questions nobody else asks."""
    outcome, cost = one.outcome, one.outcome.cost
    ended = "OK" if isinstance(outcome, dspex.TrialSuccess) else outcome.kind.name
    if ended != one.kind.outcome:
        yield f"ended as {ended}: {getattr(outcome, 'error_message', '')}"
    calls = _calls(outcome)
    billed = [entry for entry in entries if entry.serial is not None]
    answers = [call for call in calls if call.response_json]
    asked = [call for call in answers if not call.cache_hit]
    recorded = {_serial(call): call for call in asked}
    open_calls = [json.loads(call.messages_json) for call in calls if not call.response_json]
    # An answer that was on its way when the deadline came is billed, and nobody can know of it.
    cut_off = [entry for entry in billed if entry.serial not in recorded and ended == "DEADLINE_EXCEEDED"]
    known = [entry for entry in billed if entry not in cut_off]
    yield from _compared("answers", Counter(map(_serial, asked)), Counter(entry.serial for entry in known))
    for entry in known:
        if (call := recorded.get(entry.serial)) is not None:
            yield from _compared(
                f"tokens of reply {entry.serial}",
                (call.usage.prompt_tokens, call.usage.completion_tokens),
                (entry.prompt, entry.completion),
            )
            yield from _compared(f"prompt of reply {entry.serial}", json.loads(call.messages_json), entry.messages)
    recorded_open, served_open = _texts(open_calls), _texts(entry.messages for entry in entries if entry not in known)
    if ended == "DEADLINE_EXCEEDED":
        recorded_open &= served_open  # a call that had begun need not have reached the provider
    yield from _compared("calls without an answer", recorded_open, served_open)
    hits = [call for call in answers if call.cache_hit]
    yield from _compared("cache hits", (cost.cache_hits, len(hits)), (one.kind.hits,) * 2)
    yield from _compared("replies from the cache", {_serial(c) for c in hits} <= {e.serial for e in billed}, True)
    yield from _compared("LM calls", cost.lm_calls, len(known) + one.kind.hits)
    usage = (cost.usage.prompt_tokens, cost.usage.completion_tokens, cost.usage.total_tokens)
    prompt, completion = sum(entry.prompt for entry in known), sum(entry.completion for entry in known)
    yield from _compared("usage", usage, (prompt, completion, prompt + completion))
    if not math.isclose(cost.total_usd, _price(known), rel_tol=1e-9, abs_tol=1e-15):
        yield f"cost: {cost.total_usd}, and the provider has {_price(known)}"
    all_known = ended != "DEADLINE_EXCEEDED" and one.kind.program is not UNPRICED
    yield from _compared("whether the cost is known", cost.known, all_known)


def _of_several(several, entries):
    """Trials that ask the same: whoever came first was billed, and the others were answered by the cache."""
    calls = [call for one in several for call in _calls(one.outcome)]
    yield from _compared("calls", len(calls), len(several))
    asked = Counter(_serial(call) for call in calls if not call.cache_hit)
    yield from _compared("answers", asked, Counter(entry.serial for entry in entries))
    hit = {_serial(call) for call in calls if call.cache_hit}
    yield from _compared("replies from the cache", hit <= set(asked), True)
    tokens = sum(one.outcome.cost.usage.total_tokens for one in several)
    yield from _compared("usage", tokens, sum(entry.prompt + entry.completion for entry in entries))
    cost = sum(one.outcome.cost.total_usd for one in several)
    if not math.isclose(cost, _price(entries), rel_tol=1e-9):
        yield f"cost: {cost}, and the provider has {_price(entries)}"
    yield from _compared("hits", sum(one.outcome.cost.cache_hits for one in several), len(several) - len(entries))


def _compared(what, recorded, served):
    if recorded != served:
        yield f"{what}: recorded {str(recorded)[:_SHOWN]}, served {str(served)[:_SHOWN]}"


def _texts(messages):
    return Counter(json.dumps(each, sort_keys=True) for each in messages)


def _serial(call):
    found = SERIAL.search(call.response_json)
    return int(found[1]) if found else None
