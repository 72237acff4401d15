"""What surrounds the programs room: variables, an interrupt, threads; and a language model with a script."""

import math
import threading

import dspy
import trio
from dspy.utils import DummyLM

from dspex_trio.model import Program, Recording, Signature, TrialOptions, TrialRequest, Variable
from dspex_trio.model.errors import VariableNotFound


class Source:
    """A session: variables by name, as one consistent read; a plain value stands for an untyped variable.

    Attributes:
        offered: Its tools' descriptions.
        answer: What a tool does with its name and arguments.
        refuse: Raised by writes, if it is set.
        began: The kinds of reads in the order in which they began, and ended.
    """

    def __init__(self, **values):
        self.values = values
        self.reads = []
        self.offered = []
        self.answer = lambda name, arguments: None
        self.called = []
        self.refuse = None
        self.began = []

    async def get_variables(self, identifiers):
        self.began.append("variables begin")
        await trio.lowlevel.checkpoint()
        self.reads.append(list(identifiers))
        self.began.append("variables end")
        return {name: self._variable(name) for name in identifiers}

    async def tools(self):
        self.began.append("tools begin")
        await trio.lowlevel.checkpoint()
        self.began.append("tools end")
        return self.offered

    async def call_tool(self, name, arguments):
        await trio.lowlevel.checkpoint()
        self.called.append((name, arguments))
        return self.answer(name, arguments)

    async def set(self, identifier, value, *, expected_version=0):
        return (await self.set_many({identifier: value}))[identifier]

    async def set_many(self, updates):
        await trio.lowlevel.checkpoint()
        if self.refuse is not None:
            raise self.refuse
        versions = {}
        for name, value in updates.items():
            before = self._variable(name)
            versions[name] = 1 if before is None else before.version + 1
            self.values[name] = Variable(name, "", value, version=versions[name])
        return versions

    def _variable(self, name):
        if name not in self.values:
            return None
        value = self.values[name]
        return value if isinstance(value, Variable) else Variable(name, "", value, version=1)


class NoSession:
    async def get_variables(self, identifiers):
        raise VariableNotFound("no such session")


class Ended(BaseException):
    """What the interrupt of these tests raises."""


class Interrupt:
    """Raises at its n-th check; None for never. `left` are the seconds until the deadline."""

    def __init__(self, at=None, left=math.inf):
        self.at = at
        self.left = left
        self.checks = 0
        self.callbacks = []
        self._lock = threading.Lock()

    def check(self):
        with self._lock:
            self.checks += 1
            if self.at is not None and self.checks >= self.at:
                raise Ended

    def time_left(self):
        return self.left

    def on_cancel(self, callback):
        self.callbacks.append(callback)
        return lambda: self.callbacks.remove(callback)


class Threads:
    """Runs what it is given at once, and counts."""

    def __init__(self):
        self.runs = []

    async def __call__(self, function, *args):
        await trio.lowlevel.checkpoint()
        self.runs.append(function)
        return function(*args)


class Trial:
    """One trial through the room, as the road takes it."""

    def __init__(self, loader, **program):
        self.loader = loader
        signature = program.pop("signature", None)
        if isinstance(signature, str):
            signature = Signature(signature)
        self.options = program.pop("options", TrialOptions())
        self.source = program.pop("source", Source())
        self.interrupt = program.pop("interrupt", Interrupt())
        self.watch = program.pop("watch", None)
        self.session_id = program.pop("session_id", "")
        self.program = Program(signature=signature, **program)
        self.threads = Threads()
        self.hydrated = None
        self.module = None
        self.variables = {}

    async def ready(self):
        """Hydrated and synchronised."""
        request = TrialRequest(
            self.program, {}, session_id=self.session_id, options=self.options, arrived=1.0, watch=self.watch
        )
        self.hydrated = await self.loader.hydrate(request, self.source, self.threads)
        self.module = self.hydrated.module
        self.variables = await self.hydrated.sync_variables()
        return self

    async def run(self, **inputs):
        """The prediction's fields."""
        await self.ready()
        return self.call(**inputs)

    def call(self, **inputs):
        return self.prediction(**inputs).fields

    def prediction(self, **inputs):
        return self.hydrated.call(inputs, self.interrupt)

    async def in_worker(self, **inputs):
        """As `run`, in a thread that can reach the loop."""
        await self.ready()
        return await trio.to_thread.run_sync(lambda: self.call(**inputs))

    @property
    def recording(self):
        return Recording() if self.hydrated is None else self.hydrated.recording()

    def tree(self):
        """Predictor → how many LM calls, in order."""
        return [(entry.predictor, len(entry.lm_calls)) for entry in self.recording.trace]


def answers(*given, **fields):
    """A language model that gives these answers in turn, or one answer for ever."""
    return DummyLM(list(given) if given else [fields] * 1000)


class Scripted(dspy.BaseLM):
    """A language model that says what `say(messages, kwargs)` returns: a text, or an exception to raise.

    It keeps what it was asked. Its copies share the script and the notes.
    """

    def __init__(self, say, **kwargs):
        super().__init__("scripted", **kwargs)
        self.say = say
        self.asked = []
        self._engine_spec = _Engine(self)
        self._async_engine_spec = None
        self._cache_responses = False

    def copy(self, **kwargs):
        copied = super().copy(**kwargs)
        copied._engine_spec = _Engine(copied)
        return copied


class _Engine:
    def __init__(self, lm):
        self._lm = lm

    def complete(self, request):
        said = self._lm.say(request)
        self._lm.asked.append(request)
        if isinstance(said, BaseException):
            raise said
        return dspy.lm15.Response(
            id=None,
            model="scripted",
            message=dspy.lm15.Message(role="assistant", parts=[dspy.lm15.TextPart(text=said)]),
            finish_reason="stop",
            usage=dspy.lm15.Usage(input_tokens=3, output_tokens=2, total_tokens=5),
        )


def chat(**fields):
    """A reply as the chat adapter reads it."""
    return "\n\n".join(f"[[ ## {name} ## ]]\n{value}" for name, value in fields.items()) + "\n\n[[ ## completed ## ]]"
