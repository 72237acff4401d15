"""The process-wide changes of a package as one table, and how they are installed and taken back."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, MutableMapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

PACKAGE: Final = "threads"
_ABSENT: Final = object()


def _never(_there: Any) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Patch:
    """One attribute of a module or class, or one item of a mapping, that is changed while a runtime is open.

    Attributes:
        owner: The module, class or mapping.
        name: The attribute, or the key.
        reason: Why, in one line.
        make: Makes what takes its place, of what is there (None if nothing is).
        unless: Whether it is left as it is, given what is there.
    """

    owner: Any
    name: str
    reason: str
    make: Callable[[Any], Any]
    unless: Callable[[Any], bool] = _never

    @property
    def where(self) -> str:
        """What is changed, as a program would write it."""
        if isinstance(self.owner, MutableMapping):
            return f'os.environ["{self.name}"]'
        module = getattr(self.owner, "__module__", None)
        owner = f"{module}.{self.owner.__qualname__}" if isinstance(self.owner, type) else self.owner.__name__
        return f"{owner}.{self.name}"


State: TypeAlias = Literal["ours", "covered", "not installed"]


@dataclass(frozen=True, slots=True)
class PatchState:
    """What a patch is, and what has become of it.

    Attributes:
        package: The package that makes it.
        where: What is changed, as a program would write it.
        reason: Why, in one line.
        state: "ours" while it is installed; "covered" where somebody has put something else there since; "not
            installed" while no runtime is open, and where there is no need for it here.
    """

    package: str
    where: str
    reason: str
    state: State


@dataclass(frozen=True, slots=True)
class InstalledPatch:
    """A patch that is made.

    Attributes:
        patch: Which.
        replacement: What was put there.
        original: What was there itself, and not by inheritance; a mark of this module's if there was nothing.
    """

    patch: Patch
    replacement: Any
    original: Any

    @property
    def is_ours(self) -> bool:
        """Whether nobody has put something else there since."""
        own = _own(self.patch.owner, self.patch.name)
        if isinstance(self.patch.owner, MutableMapping):  # the environment makes a new text each time
            return bool(own == self.replacement)
        return own is self.replacement

    def take_back(self) -> None:
        """Put back what was there; what somebody else has put there meanwhile stays, and calls ours."""
        if not self.is_ours:
            return
        owner, name = self.patch.owner, self.patch.name
        if isinstance(owner, MutableMapping):
            if self.original is _ABSENT:
                del owner[name]
            else:
                owner[name] = self.original
        elif self.original is _ABSENT:
            delattr(owner, name)
        else:
            setattr(owner, name, self.original)


def install(patch: Patch) -> InstalledPatch | None:
    """Make one change; None if it is left as it is."""
    owner, name = patch.owner, patch.name
    own = _own(owner, name)
    is_mapping = isinstance(owner, MutableMapping)
    # An attribute that is made when it is first asked for is not asked for.
    there = (None if own is _ABSENT else own) if is_mapping else inspect.getattr_static(owner, name, None)
    if patch.unless(there):
        return None
    replacement = patch.make(there)
    if is_mapping:
        owner[name] = replacement
    else:
        setattr(owner, name, replacement)
    return InstalledPatch(patch, replacement, own)


def _own(owner: Any, name: str) -> Any:
    return owner.get(name, _ABSENT) if isinstance(owner, MutableMapping) else vars(owner).get(name, _ABSENT)


class Installed:
    """The patches of a package that are made now.

    Args:
        table: What there is to be changed; asked for each time, since modules may be reloaded.
    """

    def __init__(self, table: Callable[[], Iterable[Patch]]) -> None:
        self.table = table
        self._made: list[InstalledPatch] = []

    @property
    def made(self) -> tuple[InstalledPatch, ...]:
        """Those that are made, in order."""
        return tuple(self._made)

    def install(self, patches: Iterable[Patch] | None = None) -> None:
        """Make the table's changes, or these in its place; where one fails, those before it are taken back."""
        with ExitStack() as stack:
            stack.callback(self.take_back)
            for patch in self.table() if patches is None else patches:
                self.add(patch)
            stack.pop_all()

    def add(self, patch: Patch) -> None:
        """Make one change more."""
        if (made := install(patch)) is not None:
            self._made.append(made)

    def take_back(self) -> None:
        """Take all of them back, the last one first."""
        while self._made:
            self._made.pop().take_back()

    def states(self, package: str) -> list[PatchState]:
        """What the table has, with what has become of each; `package` is the one whose table it is."""
        made = {(id(each.patch.owner), each.patch.name): each for each in self._made}
        found = []
        for patch in self.table():
            this = made.get((id(patch.owner), patch.name))
            state: State = "not installed" if this is None else "ours" if this.is_ours else "covered"
            found.append(PatchState(package, patch.where, patch.reason, state))
        return found
