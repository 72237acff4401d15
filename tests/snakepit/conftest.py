import pytest

from ..sessions.peer import generate  # noqa: TID252 - tests are no package
from .generations import V013, V04
from .pool import Pool


@pytest.fixture(scope="session")
def generated(tmp_path_factory):
    return generate(tmp_path_factory.mktemp("grpcio"))


@pytest.fixture
def make_pool(generated, tmp_path):
    """Makes pools, and ends them."""
    pools = []

    def make(generation=V013, **options):
        pools.append(Pool(generated, tmp_path, generation, **{"arguments": ["--load", "pool_programs"], **options}))
        return pools[-1]

    yield make
    for pool in pools:
        pool.stop()


@pytest.fixture(scope="module", params=[V013, V04], ids=lambda generation: generation.name)
def worker(request, generated, tmp_path_factory):
    """A worker in a pool of either generation, for tests that leave it as it was."""
    arguments = ["--load", "pool_programs", "--max-workers", "4", "--frobnicate=secret"]
    pool = Pool(generated, tmp_path_factory.mktemp("pool"), request.param, arguments=arguments, interval=0.05)
    try:
        worker = pool.start()
        yield worker
        assert worker.heartbeats.missed == "", worker.log[-5000:]
        assert worker.stop() == 0, worker.log
    finally:
        pool.stop()
