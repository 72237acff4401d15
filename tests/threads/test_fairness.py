import sys

from dspex_trio.threads.fairness import switch_interval


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
