"""The Elixir side of a snakepit pool, made with grpcio: nothing of ours in it.

It starts workers, finds out where they listen, talks to them and ends them as snakepit 0.13 and 0.4 do.
"""

from __future__ import annotations

import os

from ..sessions.peer import Server, make_store  # noqa: TID252 - tests are no package
from .generations import V013
from .pool_worker import Worker


class Pool:
    """Some workers and their BridgeServer.

    Args:
        generated: The modules that protoc made.
        directory: For ready files.
        generation: V013 or V04.
        arguments: The adapter's, for every worker.
        env: The adapter's environment.
        heartbeat_config: What 0.13 hands on of its policy; None for its defaults.
        interval: Seconds between the pool's heartbeats; 2 in snakepit.
        patience: Seconds after which an answer to one is late; 10 in snakepit, which is more than we ask of a worker.
        log_level: The pool's own, which 0.13 hands on; `error` in snakepit.
    """

    def __init__(
        self,
        generated,
        directory,
        generation=V013,
        *,
        arguments=(),
        env=None,
        heartbeat_config=None,
        interval=2.0,
        patience=1.0,
        log_level="info",
    ):
        self.generated = generated
        self.directory = directory
        self.generation = generation
        self.arguments = list(arguments)
        self.env = env or {}
        self.heartbeat_config = heartbeat_config
        self.interval = interval
        self.patience = patience
        self.log_level = log_level
        self.server = Server(generated, make_store(generated, generation=generation.store))
        self.run_id = f"run{os.getpid()}"
        self.workers = []

    @property
    def store(self):
        return self.server.store

    def start(self, *, arguments=None, wait=True):
        """Start one more worker; without `wait` it need not become ready."""
        worker = Worker(self, self.arguments if arguments is None else arguments, len(self.workers))
        self.workers.append(worker)
        if wait:
            worker.wait_until_ready()
            worker.connect()
        return worker

    def stop(self):
        for worker in self.workers:
            worker.stop()
        self.server.stop()
