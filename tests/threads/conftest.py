import gc

import pytest

from dspex_trio.threads import open_threads


@pytest.fixture
async def threads():
    """Worker threads that a cancelled call waits for until they end, or for ten seconds."""
    async with open_threads(patience=lambda _job: 10) as threads:
        yield threads


@pytest.fixture
def collected_here():
    """What a test leaves to the garbage collector is collected in that test, and the heap before it not looked at."""
    gc.freeze()
    yield
    gc.collect()
    gc.unfreeze()
