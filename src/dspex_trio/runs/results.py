"""The results of a run: a line of JSON for each trial that has ended, appended as it ends."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeAlias

from dspex_trio.observing.redaction import printable_json
from dspex_trio.runs.plan import in_order
from dspex_trio.wire import encode_json, read_json

logger: Final = logging.getLogger(__name__)

Result: TypeAlias = Mapping[str, Any]
_Key: TypeAlias = tuple[str, str, bytes]  # id, digest, language model

# What only the file keeps.
_LONG: Final = frozenset({"trace", "partial_trace", "completions", "traceback"})
_BEGINNING: Final = b'{"id":'
"""How half a result begins that a killed run has left."""
SCORE_FIELDS: Final = ("expected", "metric", "metric_digest", "score", "metric_error")
"""What changes when a result is scored again."""
_FAR: Final = 2**40  # where Windows locks a byte, which nobody could read otherwise


class CannotKeep(ValueError):
    """The file of results cannot be used; says why."""


@contextmanager
def open_results(path: Path) -> Iterator[Results]:
    """The results in a file, to be read and added to; the file is made if it is not there.

    Half a line at its end, which a killed run may leave, is cut off: that trial is run again. While it is open, lines
    are only added; at the end those that later ones replace are taken out, by a file that takes its place at once.

    Raises:
        CannotKeep: Another run holds the file, it holds something else, or it cannot be written.
    """
    path = path.resolve()  # a link stays one
    file = _opened(path)
    with file:
        results = Results(path, file)
        try:
            yield results
        finally:
            results.tidy()


def _opened(path: Path) -> BinaryIO:
    while True:
        try:
            file = path.open("ab+")
        except OSError as error:
            raise CannotKeep(f"{path}: {error.strerror or error}") from None
        try:
            _lock(file.fileno())
        except OSError:
            file.close()
            raise CannotKeep(f"{path} is held by another run") from None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # a run that ended meanwhile has put another file in its place


def _lock(file: int) -> None:
    """Hold the file for as long as it is open; raises OSError where another process does."""
    if sys.platform == "win32":
        import msvcrt  # noqa: PLC0415 - there is none elsewhere

        os.lseek(file, _FAR, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl  # noqa: PLC0415 - there is none on Windows

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


class Results:
    """Results by trial; made by `open_results`.

    A trial has one result for each configuration: program and language model.

    Attributes:
        by_id: Trial → its newest result, without the traces and tracebacks, of which a large run has more than memory
            holds.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self._file = file
        self.by_id: dict[str, Result] = {}
        self._of: dict[str, dict[_Key, Result]] = {}
        self._at: dict[_Key, int] = {}  # where its line begins
        self._scored: set[_Key] = set()  # those of which a later line knows the score
        self._superfluous = 0
        file.seek(0)
        end = 0
        for number, line in enumerate(file, 1):
            found = self._read(line, number)
            if found is None:
                break
            self._take(found, end)
            end += len(line)
            if not line.endswith(b"\n"):
                os.write(file.fileno(), b"\n")
                end += 1
        if end < (size := os.fstat(file.fileno()).st_size):
            logger.info("%s ends in half a line, of %d bytes; it is cut off", path, size - end)
            os.ftruncate(file.fileno(), end)

    def of(self, trial_id: str) -> Sequence[Result]:
        """The results of that trial, one for each configuration, the newest last."""
        return tuple(self._of.get(trial_id, {}).values())

    def add(self, result: Result) -> None:
        """Append the result of a trial. It is the system's when this returns: killing the process does not lose it.

        One of the same trial, program and language model is replaced.

        Raises:
            CannotKeep: It cannot be written.
        """
        self._take(result, self._append(result))

    def score(self, result: Result, scores: Mapping[str, Any]) -> None:
        """Put these in the place of the `SCORE_FIELDS` of a result.

        Raises:
            CannotKeep: It cannot be written.
        """
        line = {name: result[name] for name in ("id", "digest", "lm") if name in result} | {"scored": scores}
        self._take(line, self._append(line))

    def tidy(self) -> None:
        """Take out the lines that later ones replace: a new file takes the place of this one, at once."""
        if not self._superfluous:
            return
        try:
            self._rewrite()
        except OSError as error:  # nothing is lost: the last line of a trial counts, whoever reads it next
            logger.warning("%s keeps lines that later ones replace: %s", self.path, error.strerror or error)

    def _append(self, line: Mapping[str, Any]) -> int:
        file = self._file.fileno()
        end, rest = os.fstat(file).st_size, memoryview(printable_json(encode_json(line)) + b"\n")
        try:
            while rest:  # a disk that is nearly full takes a part first, and refuses the rest
                rest = rest[os.write(file, rest) :]
        except OSError as error:
            os.ftruncate(file, end)
            raise CannotKeep(f"{self.path}: {error.strerror or error}") from None
        return end

    def _take(self, line: Mapping[str, Any], at: int) -> None:
        of = self._of.setdefault(line["id"], {})
        key = _key(line)
        if "scored" in line:
            of[key] = scored(of[key], line["scored"])
            self._scored.add(key)
            self._superfluous += 1
        else:
            if (replaced := standing(tuple(of.values()), line["digest"], line.get("lm"))) is not None:
                old = _key(replaced)
                del of[old], self._at[old]
                self._scored.discard(old)
                self._superfluous += 1
            of[key] = _in_short(line)
            self._at[key] = at
        self.by_id[line["id"]] = of[key]

    def _read(self, line: bytes, number: int) -> Mapping[str, Any] | None:
        """What a line says; None for the half of one that a killed run has left."""
        try:
            found = read_json(line)
        except (ValueError, RecursionError):
            found = None
        match found:
            case {"id": str(), "digest": str(), "outcome": {"success": dict()} | {"failure": dict()} as outcome} if len(
                outcome
            ) == 1 and _is_lm(found):
                return dict(found)
            case {"id": str(id_), "digest": str(), "scored": dict()} if _is_lm(found) and _key(found) in self._of.get(
                id_, {}
            ):
                return dict(found)
            case None if not line.endswith(b"\n") and (line.startswith(_BEGINNING) or _BEGINNING.startswith(line)):
                return None
        raise CannotKeep(f"{self.path}, line {number}: this is no result of a run; it is left as it is")

    def _rewrite(self) -> None:
        kept = {at: key for key, at in self._at.items()}
        descriptor, name = tempfile.mkstemp(prefix=f".{self.path.name}.", suffix=".tmp", dir=self.path.parent)
        aside = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as target:
                self._file.seek(0)
                at = 0
                for line in self._file:
                    if (key := kept.get(at)) is not None:
                        target.write(self._with_score(line, key))
                    at += len(line)
                target.flush()
                os.fsync(descriptor)
            shutil.copymode(self.path, aside)
            if sys.platform == "win32":
                self._file.close()
            aside.replace(self.path)
        except BaseException:
            with suppress(OSError):
                aside.unlink()
            raise

    def _with_score(self, line: bytes, key: _Key) -> bytes:
        if key not in self._scored:
            return line
        known = self._of[key[0]][key]
        scores = {name: known[name] for name in SCORE_FIELDS if name in known}
        return encode_json(scored(read_json(line), scores)) + b"\n"


def standing(results: Sequence[Result], digest: str, lm: Mapping[str, Any] | None) -> Result | None:
    """The one of a trial's results that is of that program and language model, if there is one.

    Where one of the models is not known (an older version wrote the result, or workers elsewhere choose the model), it
    counts as the same: no trial is run, and paid for, again because of that.
    """
    same = [result for result in results if result["digest"] == digest]
    wanted = lm_key(lm)
    for result in same:
        if lm_key(result.get("lm")) == wanted:
            return result
    if lm is None:
        return same[-1] if same else None
    return next((result for result in same if result.get("lm") is None), None)


def lm_key(lm: Mapping[str, Any] | None) -> bytes:
    """A language model and its arguments, to be compared."""
    return b"" if lm is None else encode_json(in_order(lm))


def scored(result: Result, scores: Mapping[str, Any]) -> dict[str, Any]:
    """The result with these scores in place of its own."""
    return {name: value for name, value in result.items() if name not in SCORE_FIELDS} | dict(scores)


def _key(line: Mapping[str, Any]) -> _Key:
    return line["id"], line["digest"], lm_key(line.get("lm"))


def _is_lm(line: Mapping[str, Any]) -> bool:
    lm = line.get("lm")
    return lm is None or (isinstance(lm, dict) and isinstance(lm.get("model"), str))


def _in_short(result: Result) -> Result:
    [(ending, said)] = result["outcome"].items()
    short = {**result, "outcome": {ending: {name: value for name, value in said.items() if name not in _LONG}}}
    if not isinstance(result.get("models"), list):  # an older version wrote it
        short["models"] = sorted(_models(said.get("trace") or said.get("partial_trace")))
    return short


def _models(trace: Any) -> set[str]:
    found = set()
    for entry in trace if isinstance(trace, list) else ():
        calls = entry.get("lm_calls") if isinstance(entry, dict) else None
        for call in calls if isinstance(calls, list) else ():
            if isinstance(call, dict) and isinstance(call.get("model"), str):
                found.add(call["model"])
    return found
