"""LitServe's server of `tools/bench_peers.py`: `bench_peers_litserve.py SLOTS TIMEOUT READY_FILE`."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import litserve
from bench_peers_program import ask


class Answers(litserve.LitAPI):  # type: ignore[misc] # litserve has no types here
    """The call."""

    def setup(self, device: Any) -> None:
        """Nothing to load."""

    def predict(self, request: dict[str, str]) -> dict[str, str]:
        """Ask."""
        return {"answer": ask(request["question"])}


if __name__ == "__main__":
    slots, seconds, ready = int(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ready.write_text(str(port))
    server = litserve.LitServer(Answers(), accelerator="cpu", workers_per_device=slots, timeout=seconds)
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="critical")
