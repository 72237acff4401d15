"""Trials in other processes: the front's side, the executor's side, and what travels between them."""
