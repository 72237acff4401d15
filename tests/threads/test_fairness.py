import os
import sys

from dspex_trio.threads.fairness import LongCollections, switch_interval


def test_the_shortest_wish_holds_and_the_last_one_to_go_takes_it_back():
    before = sys.getswitchinterval()
    with switch_interval(before / 2):
        assert sys.getswitchinterval() == before / 2
        with switch_interval(before / 10):
            assert round(before / sys.getswitchinterval()) == 10
        assert sys.getswitchinterval() == before / 2
        with switch_interval(before * 2):
            assert sys.getswitchinterval() == before / 2
    assert sys.getswitchinterval() == before


def test_what_makes_a_full_collection_long_is_spared_from_the_next():
    now, frozen = 0.0, []
    watch = LongCollections(lambda: frozen.append(now), clock=lambda: now)

    def collect(generation, seconds):
        nonlocal now
        watch("start", {"generation": generation})
        now += seconds
        watch("stop", {"generation": generation})

    collect(2, 0.01)
    collect(1, 0.1)
    assert frozen == [], "short, or not full"
    collect(2, 0.1)
    assert len(frozen) == 1
    for _ in range(100):
        collect(2, 0.1)
    assert len(frozen) == 16, "what grows all the time would never be collected otherwise"


PROGRAM = """
import gc
from dspex_trio.threads import keep_collections_short

imported = [[] for _ in range(1000)]
keep_collections_short()
before = gc.get_freeze_count()
assert before > 1000
cycle = []
cycle.append(cycle)
del cycle
assert gc.collect() > 0, "what comes later is collected"
large = [[number] for number in range(2_000_000)]
gc.collect()
assert gc.get_freeze_count() > before + 1_000_000, "all but what came since the last long one"
"""


def test_a_process_of_ours_spares_what_it_has_imported(preloaded, tmp_path):
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    done = preloaded([str(script)], tmp_path, dict(os.environ))
    assert done.returncode == 0, done.stderr
