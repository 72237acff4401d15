"""Executors that do what a request says, in virtual time: what a fleet sees of `children.Child`, without a process."""

from contextlib import asynccontextmanager
from itertools import count
from types import SimpleNamespace

import trio

from dspex_trio.children import ChildLost
from dspex_trio.executors.fleet import Fleet
from dspex_trio.tasks.background import open_background

PATIENCE = 0.1
# How long it takes an executor to start, to say something, to end its threads, and to die, in seconds.
STARTING, SAYING, ENDING, DYING = 0.05, 0.001, 0.02, 0.01


class ScriptedChild:
    """One executor. A request is what it does and for how many seconds, such as `take 2`.

    take: answers then; ends at once when it is told to stop.
    ignore: goes on so long, whatever it is told; when told to stop it answers that, and frees later.
    block: so long nothing is heard of the executor, and then the answer.
    hang: neither answers nor ends, while the executor gives signs of life.
    die: the executor is lost then.
    half: answers, and is silent for so long before it says that nothing goes on.
    """

    def __init__(self, pid, nursery, script=bytes.decode, answer=str.encode, report=str.encode):
        self.started = SimpleNamespace(pid=pid)
        self.gone = trio.Event()
        self.lost_because = ""
        self.requests = []
        self._nursery = nursery
        self._script, self._answer, self._report = script, answer, report
        self._numbers = count(1)
        self._open = {}
        self._stops = {}
        self._asked = None
        self._silent_until = 0.0
        self._killed = False

    # ---- what a fleet uses

    @property
    def ending(self):
        return self._killed

    @property
    def silent_for(self):
        return 0.0 if self._asked is None else trio.current_time() - self._asked

    def begin(self, request, exchange):
        if self.ending:
            return 0
        number = next(self._numbers)
        self._open[number] = exchange
        self._stops[number] = trio.Event()
        self.requests.append(what := self._script(request))
        self._nursery.start_soon(self._do, number, exchange, *what.split())
        return number

    def stop(self, number):
        self._stops[number].set()

    def ping(self):
        if self._asked is None:
            self._asked = trio.current_time()
            self._nursery.start_soon(self._pong)

    def kill(self, because=""):
        if not self._killed:
            self._killed = True
            self.lost_because = because or "killed"
            self._nursery.start_soon(self._die)

    # ---- what a test uses

    def falls_silent(self, seconds):
        """Nothing is heard of it for so long."""
        self._silent_until = max(self._silent_until, trio.current_time() + seconds)

    # ---- what it does

    async def _do(self, number, exchange, what, seconds="0"):
        stopped, seconds = self._stops[number], float(seconds)
        exchange.on_report(self._report(f"began {what}"))
        match what:
            case "take":
                with trio.move_on_after(seconds):
                    await stopped.wait()
                    await trio.sleep(ENDING)
                await self._end(number, exchange, "stopped" if stopped.is_set() else "done")
            case "ignore":
                until = trio.current_time() + seconds
                with trio.move_on_after(seconds):
                    await stopped.wait()
                    await trio.sleep(ENDING)
                    exchange.held = True
                await self._end(number, exchange, "abandoned" if exchange.held else "done")
                await trio.sleep_until(until)
            case "block":
                self.falls_silent(seconds)
                await self._end(number, exchange, "done")
            case "hang":
                await trio.sleep_forever()
            case "die":
                await trio.sleep(seconds)
                self.kill("it died")
            case "half":
                await self._heard()
                exchange.end(self._answer("half"))
                self.falls_silent(seconds)
        await self._freed(number, exchange)

    async def _end(self, number, exchange, answer):
        await self._heard()
        exchange.end(self._answer(answer))
        if not exchange.held:  # which it says in one piece
            self._open.pop(number)
            exchange.free()

    async def _freed(self, number, exchange):
        await self._heard()
        if self._open.pop(number, None) is not None:
            exchange.free(b'{"it": "ended"}' if exchange.held else b"")

    async def _heard(self):
        """Wait until something that it says now is heard."""
        await trio.sleep_until(max(self._silent_until, trio.current_time() + SAYING))
        if self._killed:
            await trio.sleep_forever()

    async def _pong(self):
        await self._heard()
        self._asked = None

    async def _die(self):
        await trio.sleep(DYING)
        self.gone.set()
        for exchange in list(self._open.values()):
            exchange.end(ChildLost(self.lost_because))
            exchange.free()
        self._open.clear()


class Site:
    """A fleet of scripted executors.

    Attributes:
        fleet: The fleet.
        children: The executors that were started, in order.
        memory: Executor's number → how much memory it has.
        fails: What is raised by the next attempts to start one.
        attempts: When one was started, or could not be.
        tasks: How many tasks the fleet has.
    """

    def __init__(self, settings, nursery, doing, **options):
        self.children, self.memory, self.fails, self.attempts = [], {}, [], []
        self._doing, self._options = doing, options
        self._nursery = nursery
        self.fleet = Fleet(settings, self._start, nursery, self._measured)

    @property
    def tasks(self):
        return len(self._nursery.child_tasks)

    async def _start(self, limit):
        self.attempts.append(trio.current_time())
        await trio.sleep(STARTING)
        if self.fails:
            raise self.fails.pop(0)
        self.children.append(ScriptedChild(len(self.children), self._doing, **self._options))
        return self.children[-1], f"slots {limit}".encode()

    async def _measured(self, pid, _limit):
        await trio.lowlevel.checkpoint()
        return self.memory.get(pid, 0)

    async def trial(self, what, seconds=10.0, *, slot=None, told=None):
        """Have a request answered as trials are; returns what became of it."""
        answers, reports = [], []
        try:
            with trio.move_on_after(seconds):
                slot = slot or await self.fleet.acquire()
                try:
                    await self.fleet.run(
                        slot,
                        what.encode(),
                        patience=lambda: PATIENCE,
                        on_answer=answers.append,
                        on_report=reports.append,
                        on_late_end=lambda data: told is not None and told.append(data),
                    )
                finally:
                    slot.release()
        except ChildLost as lost:
            return f"lost: {lost}"
        return answers[0].decode() if answers else "unanswered"


@asynccontextmanager
async def open_site(settings, **options):
    async with open_background() as doing, open_background() as nursery:
        yield Site(settings, nursery, doing, **options)
