"""Programs that return what they should not."""

from __future__ import annotations

from typing import Any

import dspy

from dspex_trio.testing.faults.misbehaving.base import Misbehaving


class GivesTooMuch(Misbehaving):
    """Returns 20 million characters. It is a SERIALIZATION_ERROR for callers of a worker whose limit is below that."""

    def forward(self, question: str = "") -> dspy.Prediction:
        """Return them."""
        return dspy.Prediction(answer="x" * 20_000_000, question=question)


class Opaque:
    """Has no JSON form."""


class GivesTheUnserialisable(Misbehaving):
    """Returns an object that has no JSON form. The trial succeeds, with its type in its place and a warning."""

    def forward(self, question: str = "") -> dspy.Prediction:
        """Return it."""
        return dspy.Prediction(answer="fine", thing=Opaque(), question=question)


class GivesACycle(Misbehaving):
    """Returns a list that holds itself. The trial succeeds, with a warning."""

    def forward(self, question: str = "") -> dspy.Prediction:
        """Return it."""
        ring: list[Any] = [question]
        ring.append(ring)
        return dspy.Prediction(ring=ring)


class GivesNothing(Misbehaving):
    """Returns None. The trial succeeds, with None as its `result` and a warning."""

    def forward(self, question: str = "") -> None:
        """Return it."""


class ChangesInputs(Misbehaving):
    """Changes a list that it was given. The caller's is another one."""

    def forward(self, items: list[str]) -> dict[str, Any]:
        """Change it."""
        items.append("mine")
        return {"items": items}
