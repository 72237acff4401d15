"""Ids for trials whose caller gave them none."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable


def trial_ids() -> Callable[[], str]:
    """Makes ids such as `trial-5f0c3a-17`: the first part is drawn once, the second one counts.

    It is what `random` would give next, and still will: in a run with a seed the ids are the same each time.
    """
    state = random.getstate()
    process = random.randbytes(3).hex()  # noqa: S311 - nothing depends on its being secret
    random.setstate(state)
    numbers = itertools.count(1)
    return lambda: f"trial-{process}-{next(numbers)}"
