"""Records read back: from a file or a directory, without trusting what stands there."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dspex_trio.observing.records.record import ENDING_FORMAT, FORMAT
from dspex_trio.wire import read_json

# A figure beyond this is none of ours: a trial of three hundred years.
_MOST: Final = 1e13


class CannotRead(ValueError):
    """There are no records to be read; says where and why."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """One trial, read back.

    Attributes:
        record: As `docs/records.md` describes it.
        late: What is known of threads of it that ended after it had been answered.
    """

    record: Mapping[str, Any]
    late: tuple[Mapping[str, Any], ...] = ()

    @property
    def trial_id(self) -> str:
        """The caller's name for it."""
        return str(self.record.get("trial_id", ""))

    @property
    def ended_at(self) -> dt.datetime:
        """When it ended."""
        return dt.datetime.fromisoformat(str(self.record["ended_at"]))

    @property
    def failure(self) -> Mapping[str, Any] | None:
        """The failure, if it ended in one."""
        found: Mapping[str, Any] | None = self.record["outcome"].get("failure")
        return found

    @property
    def result(self) -> Mapping[str, Any]:
        """The success or the failure."""
        found: Mapping[str, Any] = self.failure or self.record["outcome"]["success"]
        return found

    @property
    def kind(self) -> str:
        """`OK`, or the kind of the failure."""
        return "OK" if self.failure is None else str(self.failure["kind"]).removeprefix("FAILURE_KIND_")

    @property
    def program(self) -> str:
        """What it is called, or its class."""
        program = self.record["program"]
        return str(program.get("name") or program["python_class"])


def read_records(path: Path, *, since: dt.datetime | None = None) -> tuple[list[Recorded], int]:
    """The trials in a file, or in the files of a directory, oldest first; and how many lines could not be read.

    Lines that cannot be read are those of a later version, and one that a worker was writing when it was killed.

    Args:
        path: The file or directory.
        since: Trials that ended before are left out; files of days before are not read.

    Raises:
        CannotRead: There is nothing at `path`, or no file of records in it.
    """
    files = sorted(path.glob("trials-*.jsonl")) if path.is_dir() else [path]
    if not files:
        raise CannotRead(f"{path} holds no records (trials-*.jsonl)")
    if since is not None and path.is_dir():
        first = f"trials-{since.astimezone(dt.UTC):%Y-%m-%d}.jsonl"
        files = [file for file in files if file.name >= first]
    trials: list[tuple[Mapping[str, Any], list[Mapping[str, Any]]]] = []
    late_of: dict[str, list[Mapping[str, Any]]] = {}  # trial id → those of the last failure of that id
    unreadable = 0
    for line in _lines(files):
        match _parsed(line):
            case {"format": str(name)} as record if name == FORMAT and _complete(record):
                late: list[Mapping[str, Any]] = []
                trials.append((record, late))
                if "failure" in record["outcome"]:
                    late_of[record["trial_id"]] = late
            case {"format": str(name), "trial_id": str(trial_id)} as ending if name == ENDING_FORMAT:
                late_of.get(trial_id, []).append(ending)
            case _:
                unreadable += 1
    found = [Recorded(record, tuple(late)) for record, late in trials]
    if since is not None:
        found = [each for each in found if each.ended_at >= since]
    return sorted(found, key=lambda each: each.ended_at), unreadable


def _lines(files: Iterable[Path]) -> Iterator[bytes]:
    for file in files:
        try:
            with file.open("rb") as source:
                yield from source
        except OSError as error:
            raise CannotRead(f"{file} cannot be read: {error.strerror or error}") from None


def _parsed(line: bytes) -> Any:
    try:
        return read_json(line)
    except (ValueError, RecursionError):
        return None


def _complete(record: Mapping[str, Any]) -> bool:
    """Whether it has what is read without asking."""
    match record:
        case {
            "trial_id": str(),
            "ended_at": str(ended_at),
            "program": {"python_class": str()},
            "outcome": {"success": dict() as result} | {"failure": {"kind": str()} as result},
        } if _counted(result):
            try:
                return dt.datetime.fromisoformat(ended_at).tzinfo is not None
            except ValueError:
                return False
    return False


def _counted(result: Mapping[str, Any]) -> bool:
    """Whether the figures that a list shows are figures."""
    match result:
        case {"timings": dict() as timings}:
            cost = result.get("cost", {})
            usage = cost.get("usage", {}) if isinstance(cost, dict) else None
            if not isinstance(usage, dict):
                return False
            figures = (timings.get("total_ms", 0.0), usage.get("total_tokens", 0))
            return all(isinstance(figure, int | float) and abs(figure) < _MOST for figure in figures)
    return False
