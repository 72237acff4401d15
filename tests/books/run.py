"""Run mixed concurrent trials and compare all that was recorded with the provider's books: `just check-books`.

`--trials 1000 --at-once 32 --seed 1 --engine litellm`. Prints what ran, as JSON; exits with 1 where anything differs.
"""

import argparse
import json
import logging
import sys
from collections import Counter
from functools import partial

import click
import trio

from .books import KINDS, differences, run_all


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--at-once", type=int, default=32)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--engine", choices=["litellm"], help="DSPy's other way to a provider")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.CRITICAL)
    logging.getLogger("dspy").setLevel(logging.CRITICAL)
    ran, books = trio.run(partial(run_all, asked.trials, asked.at_once, asked.seed, engine=asked.engine))
    found = differences(ran, books)
    names = {id(kind): name for name, kind in KINDS.items()}
    told = {
        "trials": dict(Counter(names[id(one.kind)] for one in ran).most_common()),
        "requests that the provider saw": len(books.entries),
        "tokens that it billed": sum(entry.prompt + entry.completion for entry in books.entries),
        "tokens that were recorded": sum(one.outcome.cost.usage.total_tokens for one in ran),
        "cost_usd": round(sum(one.outcome.cost.total_usd for one in ran), 9),
        "cache hits": sum(one.outcome.cost.cache_hits for one in ran),
        "differences": found,
    }
    click.echo(json.dumps(told, indent=2))
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
