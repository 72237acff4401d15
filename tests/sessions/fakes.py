"""A store that does as it is told: a real one in memory, whose calls can be counted, held, and made to fail."""

from __future__ import annotations

from functools import partial

import trio

from dspex_trio import rpc
from dspex_trio.sessions import MemoryStore, Sessions
from dspex_trio.store.servicer import SessionStore, in_process_stub

NEVER = object()


class ScriptedStore:
    """Every call of the service, after what the script says of it.

    Attributes:
        memory: The store's content, to prepare and to look at.
        calls: The names of the calls that came, in order.
        script: Call → what to do with it next: an exception to raise, an event to wait for, a function of the request
            that returns the reply, or NEVER to answer never. A list is used up, one at a time; anything else stays.
        running: How many calls run now, and `most` how many ever did at once.
    """

    def __init__(self, **script):
        self.memory = MemoryStore()
        self.memory.initialize("s")
        self.script = script
        self.calls = []
        self.running = self.most = 0
        self._real = in_process_stub(SessionStore(self.memory))
        self.WatchVariables = self._real.WatchVariables

    def __getattr__(self, name):
        real = getattr(self._real, name)

        async def call(request):
            self.calls.append(name)
            self.running += 1
            self.most = max(self.most, self.running)
            try:
                step = self._next_step(name)
                if isinstance(step, BaseException):
                    await trio.lowlevel.checkpoint()
                    raise step
                if step is NEVER:
                    await trio.sleep_forever()
                if isinstance(step, trio.Event):
                    await step.wait()
                elif step is not None:
                    return step(request)
                return await real(request)
            finally:
                self.running -= 1

        call.each = partial(rpc.each_in_a_task, call)
        return call

    def _next_step(self, name):
        step = self.script.get(name)
        if isinstance(step, list):
            return step.pop(0) if step else None
        return step

    def register(self, **values):
        for name, value in values.items():
            self.memory.register("s", name, "string" if isinstance(value, str) else "float", value)

    def session(self, session_id="s", **options):
        return Sessions(self, where="the test's store", **options).context(session_id)


def status(name, message=""):
    return rpc.RpcError(rpc.StatusCode[name], message)


UNIMPLEMENTED = status("UNIMPLEMENTED", "unknown method")
UNAVAILABLE = status("UNAVAILABLE", "connection refused")
