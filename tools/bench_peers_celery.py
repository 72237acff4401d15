"""Celery's application of `tools/bench_peers.py`: broker and results are files, looked at every 20 ms."""

from __future__ import annotations

import os
from pathlib import Path

from bench_peers_program import ask
from celery import Celery

_DIRECTORY = Path(os.environ["BENCH_DIRECTORY"])
for _name in ("queue", "control", "results"):
    (_DIRECTORY / _name).mkdir(exist_ok=True)
app = Celery("bench", broker="filesystem://", backend=f"file://{_DIRECTORY / 'results'}")
app.conf.update(
    broker_transport_options={
        "data_folder_in": str(_DIRECTORY / "queue"),
        "data_folder_out": str(_DIRECTORY / "queue"),
        "control_folder": str(_DIRECTORY / "control"),
        "polling_interval": 0.02,
    },
    worker_prefetch_multiplier=1,
)


@app.task  # type: ignore[untyped-decorator] # celery has no types
def answer(question: str) -> str:
    """The call."""
    return ask(question)
