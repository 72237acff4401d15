"""Programs that misbehave in every known way; each says what it does and what a worker does about it.

Each is a `dspy.Module`, and takes a `question` that most of them ignore. A worker can be given them by
`--load dspex_trio.testing.faults.misbehaving`, as `dspex_trio.testing.faults.misbehaving.Sleeps` and so on.
"""

from dspex_trio.testing.faults.misbehaving.base import Misbehaving, as_a_users
from dspex_trio.testing.faults.misbehaving.endless import (
    AsksForEver,
    KeepsEveryException,
    KeepsEverything,
    Loops,
    LoopsInParallel,
    ReadsPipe,
    ReadsSocket,
    RunsAsyncio,
    RunsProcess,
    RunsTrio,
    Sleeps,
    SleepsInConstructor,
    StartsThread,
    WaitsBriefly,
    WaitsForLock,
    WaitsForQueue,
)
from dspex_trio.testing.faults.misbehaving.fatal import Crashes, EndsProcess, HangsInC, KillsProcess
from dspex_trio.testing.faults.misbehaving.raising import (
    ConfiguresDspy,
    Exits,
    Interrupts,
    Raises,
    RaisesCancelled,
    RaisesInConstructor,
    RaisesWithoutText,
    RaisesWithSlowText,
    Recurses,
)
from dspex_trio.testing.faults.misbehaving.returning import (
    ChangesInputs,
    GivesACycle,
    GivesNothing,
    GivesTheUnserialisable,
    GivesTooMuch,
)

__all__ = [
    "AsksForEver",
    "ChangesInputs",
    "ConfiguresDspy",
    "Crashes",
    "EndsProcess",
    "Exits",
    "GivesACycle",
    "GivesNothing",
    "GivesTheUnserialisable",
    "GivesTooMuch",
    "HangsInC",
    "Interrupts",
    "KeepsEveryException",
    "KeepsEverything",
    "KillsProcess",
    "Loops",
    "LoopsInParallel",
    "Misbehaving",
    "Raises",
    "RaisesCancelled",
    "RaisesInConstructor",
    "RaisesWithSlowText",
    "RaisesWithoutText",
    "ReadsPipe",
    "ReadsSocket",
    "Recurses",
    "RunsAsyncio",
    "RunsProcess",
    "RunsTrio",
    "Sleeps",
    "SleepsInConstructor",
    "StartsThread",
    "WaitsBriefly",
    "WaitsForLock",
    "WaitsForQueue",
    "as_a_users",
]
