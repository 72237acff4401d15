"""The results of a run: a line of JSON for each trial that has ended, appended as it ends."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

from dspex_trio.redaction import printable_json
from dspex_trio.runs.plan import Planned
from dspex_trio.wire import encode_json

# What only the file keeps.
_LONG: Final = frozenset({"trace", "partial_trace", "completions", "traceback"})


class CannotKeep(ValueError):
    """The file of results cannot be used; says why."""


@contextmanager
def open_results(path: Path) -> Iterator[Results]:
    """The results in a file, to be read and added to; the file is made if it is not there.

    Half a line at its end, which a killed run may leave, is cut off: that trial is run again.

    Raises:
        CannotKeep: Another run holds the file, it holds something else, or it cannot be written.
    """
    try:
        file = path.open("ab+")
    except OSError as error:
        raise CannotKeep(f"{path}: {error.strerror or error}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CannotKeep(f"{path} is held by another run") from None
        yield Results(path, file)


class Results:
    """Results by trial; made by `open_results`.

    Attributes:
        by_id: Trial → its result, without the traces and tracebacks, of which a large run has more than memory holds.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self.by_id: dict[str, Mapping[str, Any]] = {}
        file.seek(0)
        end = 0
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                break
            result = self._read(line, number)
            self.by_id[result["id"]] = _in_short(result)
            end += len(line)
        if end < os.fstat(file.fileno()).st_size:
            os.ftruncate(file.fileno(), end)

    def missing(self, plan: Iterable[Planned]) -> list[Planned]:
        """The trials that have no result yet.

        Raises:
            CannotKeep: A trial of that name has one, and was another trial.
        """
        missing = []
        for trial in plan:
            if (result := self.by_id.get(trial.id)) is None:
                missing.append(trial)
            elif result["digest"] != trial.digest:
                raise CannotKeep(
                    f"{self._path} holds a result of trial {trial.id!r}, which was another one: its program, inputs, "
                    f"variables or options have changed. Give the results another file, or the trial another id"
                )
        return missing

    def add(self, result: Mapping[str, Any]) -> None:
        """Append the result of a trial. It is the system's when this returns: killing the process does not lose it.

        Raises:
            CannotKeep: It cannot be written.
        """
        file = self._file.fileno()
        end, rest = os.fstat(file).st_size, memoryview(printable_json(encode_json(result)) + b"\n")
        try:
            while rest:  # a disk that is nearly full takes a part first, and refuses the rest
                rest = rest[os.write(file, rest) :]
        except OSError as error:
            os.ftruncate(file, end)
            raise CannotKeep(f"{self._path}: {error.strerror or error}") from None
        self.by_id[result["id"]] = _in_short(result)

    def _read(self, line: bytes, number: int) -> Mapping[str, Any]:
        try:
            result = json.loads(line)
        except (ValueError, RecursionError):
            result = None
        match result:
            case {"id": str(), "digest": str(), "outcome": {"success": dict()} | {"failure": dict()} as outcome} if (
                len(outcome) == 1
            ):
                found: Mapping[str, Any] = result
                return found
        raise CannotKeep(f"{self._path}, line {number}: this is no result of a run; it is left as it is")


def _in_short(result: Mapping[str, Any]) -> Mapping[str, Any]:
    [(ending, said)] = result["outcome"].items()
    return {**result, "outcome": {ending: {name: value for name, value in said.items() if name not in _LONG}}}
