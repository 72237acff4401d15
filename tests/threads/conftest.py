import pytest

from dspex_trio.threads import open_threads


@pytest.fixture
async def threads():
    """Worker threads that a cancelled call waits for until they end, or for ten seconds."""
    async with open_threads(patience=lambda: 10) as threads:
        yield threads
