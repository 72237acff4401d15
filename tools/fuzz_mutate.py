"""Real connections made wrong: each mutation is a pure function of a random number generator and recorded bytes."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from hostile_peer import HEAD_SIZE, PREFACE, frame, frames

Frame = tuple[int, int, int, bytes]
_MOST_PIECES: Final = 6
_MOST_MUTATIONS: Final = 4
_SMALL: Final = 64
_ODD_NUMBERS: Final = (0, 1, 2**14, 2**31 - 1, 2**31, 2**32 - 1)


@dataclass(frozen=True, slots=True)
class Case:
    """What one connection does: what it sends, cut into pieces, and whether it ends with a FIN or with a RST."""

    pieces: tuple[bytes, ...]
    abort: bool


def flip(rng: random.Random, data: bytes, _corpus: Sequence[bytes]) -> bytes:
    """Flip a few bits."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 16)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncate(rng: random.Random, data: bytes, _corpus: Sequence[bytes]) -> bytes:
    """Stop early."""
    return data[: rng.randrange(len(data)) + 1]


def splice(rng: random.Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    """Begin as one connection and go on as another."""
    other = rng.choice(corpus)
    return data[: rng.randrange(len(data)) + 1] + other[rng.randrange(len(other)) :]


def remove(rng: random.Random, data: bytes, _corpus: Sequence[bytes]) -> bytes:
    """Leave out some bytes."""
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.randint(1, _SMALL) :] or b"\0"


def insert(rng: random.Random, data: bytes, _corpus: Sequence[bytes]) -> bytes:
    """Put in some bytes."""
    at = rng.randrange(len(data))
    return data[:at] + rng.randbytes(rng.randint(1, _SMALL)) + data[at:]


def _by_frame(
    act: Callable[[random.Random, list[Frame], Sequence[bytes]], None],
) -> Callable[[random.Random, bytes, Sequence[bytes]], bytes]:
    def mutate(rng: random.Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
        preface = PREFACE if data.startswith(PREFACE) else b""
        found, rest = frames(data[len(preface) :])
        if found:
            act(rng, found, corpus)
        return preface + b"".join(frame(k, p, flags=f, stream=s) for k, f, s, p in found) + rest or b"\0"

    return mutate


def reorder(rng: random.Random, found: list[Frame], _corpus: Sequence[bytes]) -> None:
    """Move a frame elsewhere."""
    found.insert(rng.randrange(len(found)), found.pop(rng.randrange(len(found))))


def repeat(rng: random.Random, found: list[Frame], _corpus: Sequence[bytes]) -> None:
    """Send a frame again and again."""
    at = rng.randrange(len(found))
    found[at:at] = [found[at]] * rng.randint(1, 20)


def leave_out(rng: random.Random, found: list[Frame], _corpus: Sequence[bytes]) -> None:
    """Forget a frame."""
    del found[rng.randrange(len(found))]


def change_head(rng: random.Random, found: list[Frame], _corpus: Sequence[bytes]) -> None:
    """Change a frame's type, flags or stream."""
    at = rng.randrange(len(found))
    kind, flags, stream, payload = found[at]
    match rng.randrange(3):
        case 0:
            kind = rng.choice((*range(11), rng.randrange(256)))
        case 1:
            flags ^= 1 << rng.randrange(8)
        case _:
            stream = rng.choice((0, 1, 2, stream + 2, rng.randrange(2**31)))
    found[at] = (kind, flags, stream, payload)


def change_payload(rng: random.Random, found: list[Frame], corpus: Sequence[bytes]) -> None:
    """Change what a frame carries, its length with it."""
    at = rng.randrange(len(found))
    kind, flags, stream, payload = found[at]
    if payload:
        payload = rng.choice((flip, truncate, remove, insert))(rng, payload, corpus)
    found[at] = (kind, flags, stream, payload)


def change_number(rng: random.Random, found: list[Frame], _corpus: Sequence[bytes]) -> None:
    """Put a number from the edges into a frame."""
    at = rng.randrange(len(found))
    kind, flags, stream, payload = found[at]
    where = rng.randrange(max(len(payload) - 3, 1))
    payload = payload[:where] + rng.choice(_ODD_NUMBERS).to_bytes(4, "big") + payload[where + 4 :]
    found[at] = (kind, flags, stream, payload)


def add_frame(rng: random.Random, found: list[Frame], _corpus: Sequence[bytes]) -> None:
    """Send a frame that nobody asked for."""
    new = (rng.randrange(12), rng.randrange(256), rng.choice((0, 1, 3, 5)), rng.randbytes(rng.choice((0, 4, 5, 8, 30))))
    found.insert(rng.randrange(len(found) + 1), new)


def borrow(rng: random.Random, found: list[Frame], corpus: Sequence[bytes]) -> None:
    """Send frames of another connection in between."""
    others, _ = frames(rng.choice(corpus)[len(PREFACE) :])
    start = rng.randrange(len(others))
    at = rng.randrange(len(found) + 1)
    found[at:at] = others[start : start + rng.randint(1, 5)]


def lie_about_length(rng: random.Random, data: bytes, _corpus: Sequence[bytes]) -> bytes:
    """Change the length in a frame's header and nothing else."""
    found, _ = frames(data[len(PREFACE) :])
    if not found:
        return data
    before = sum(HEAD_SIZE + len(f[3]) for f in found[: rng.randrange(len(found))])
    at = len(PREFACE) + before
    return data[:at] + rng.choice((0, 1, 2**20, 2**24 - 1, rng.randrange(300))).to_bytes(3, "big") + data[at + 3 :]


MUTATIONS: Final = (
    flip,
    truncate,
    splice,
    remove,
    insert,
    lie_about_length,
    *map(
        _by_frame,
        (reorder, repeat, leave_out, change_head, change_payload, change_number, add_frame, borrow),
    ),
)


def make_case(seed: int, index: int, corpus: Sequence[bytes]) -> Case:
    """One case: the same for the same seed, index and corpus."""
    rng = random.Random(f"{seed}:{index}")  # noqa: S311 - no secret
    data = rng.choice(corpus)
    for _ in range(rng.randint(1, _MOST_MUTATIONS)):
        data = rng.choice(MUTATIONS)(rng, data, corpus)
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.choice((0, 0, rng.randrange(_MOST_PIECES)))))
    edges = [0, *cuts, len(data)]
    pieces = tuple(data[a:b] for a, b in itertools.pairwise(edges) if b > a)
    return Case(pieces, abort=rng.random() < 0.1)  # noqa: PLR2004 - one in ten
