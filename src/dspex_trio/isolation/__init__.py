"""Isolated trials: whole trials that run in child processes, which are killed where they do not end."""

from dspex_trio.isolation.trials import IsolatedTrials, open_isolation

__all__ = ["IsolatedTrials", "open_isolation"]
