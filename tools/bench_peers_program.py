"""The DSPy call of `tools/bench_peers.py`, the same for all peers; whom it asks stands in the environment."""

from __future__ import annotations

import os

import dspy
from bench_peers_install import API_BASE


def ask(question: str) -> str:
    """One `dspy.Predict`, without caches; any thread may make it."""
    lm = dspy.LM("openai/load", api_base=os.environ[API_BASE], api_key="bench", cache=False)
    with dspy.context(lm=lm):
        return str(dspy.Predict("question -> answer")(question=question).answer)
