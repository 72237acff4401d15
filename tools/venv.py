"""Make .venv, or bring it up to date: `python3 tools/venv.py runtime|dev|bench`. Standard library only.

Installs the project in place with the pinned versions of constraints.txt. A stamp remembers what was installed, so that
a second run costs nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
CONSTRAINTS = ROOT / "constraints.txt"
OLDEST = (3, 11)
# Each kind holds all that those before it hold.
EXTRAS: dict[str, list[str]] = {
    "runtime": [],
    "dev": ["--group", "dev"],
    "bench": ["--group", "dev", "--group", "bench"],
}


def wanted() -> str:
    """What an installation depends on."""
    inputs = (ROOT / "pyproject.toml", CONSTRAINTS, Path(__file__))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in inputs)).hexdigest()
    return f"{digest} {ROOT}"


def run(*command: str | Path) -> None:
    """Run a command; what it prints goes to standard error, so that a recipe's own output stays clean."""
    finished = subprocess.run([str(part) for part in command], cwd=ROOT, stdout=sys.stderr, check=False)
    if finished.returncode != 0:
        sys.exit(f"tools/venv.py: {' '.join(map(str, command))} failed with exit code {finished.returncode}")


def create() -> None:
    """Make an empty virtual environment, also where Python comes without ensurepip (as on Debian)."""
    made = subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], capture_output=True, check=False)
    if made.returncode != 0:
        run(sys.executable, "-m", "pip", "install", "--quiet", "virtualenv")
        run(sys.executable, "-m", "virtualenv", "--quiet", "--clear", VENV)


def main() -> None:
    """Install what is missing."""
    if sys.version_info < OLDEST:
        sys.exit(f"dspex_trio needs Python 3.11 or newer; this is {sys.version.split()[0]} (set PYTHON=python3.x)")
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=EXTRAS)
    kind: str = parser.parse_args().kind
    kinds = list(EXTRAS)
    stamps = [VENV / f".installed-{each}" for each in kinds[kinds.index(kind) :]]
    if any(stamp.is_file() and stamp.read_text() == wanted() for stamp in stamps):
        return
    if not PYTHON.exists():
        create()
    pip: list[str | Path] = [
        PYTHON,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--constraint",
        CONSTRAINTS,
    ]
    print(f"installing into {VENV.name} (the first time takes a minute or two) …", file=sys.stderr)
    run(*pip, "--upgrade", "pip")
    run(*pip, "--editable", ".", *EXTRAS[kind])
    (VENV / f".installed-{kind}").write_text(wanted())


if __name__ == "__main__":
    main()
