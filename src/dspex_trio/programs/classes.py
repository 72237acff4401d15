"""From a name in a specification to a class: the registry first, then imports under allowed prefixes."""

from __future__ import annotations

import difflib
import importlib
import sys
from typing import Any

import dspy

from dspex_trio.errors import ClassNotFound, ImportNotAllowed, InvalidSpec, ProgramError
from dspex_trio.programs.registry import MODULE_REGISTRY


class ImportPolicy:
    """Decides by name alone, before anything is imported.

    Args:
        prefixes: Dotted prefixes that are allowed beside `dspy`.
    """

    def __init__(self, prefixes: tuple[str, ...]) -> None:
        self.prefixes = ("dspy", *(prefix.rstrip(".") for prefix in prefixes))

    def check(self, dotted: str) -> None:
        """Raise ImportNotAllowed unless `dotted` lies under an allowed prefix."""
        if not any(dotted == prefix or dotted.startswith(f"{prefix}.") for prefix in self.prefixes):
            raise ImportNotAllowed(
                f"{dotted!r} lies under no prefix that this worker may import from ({', '.join(self.prefixes)}); "
                f"the operator can load the module with --load or allow a prefix with --allow-import"
            )


def resolve_class(name: str, policy: ImportPolicy) -> type[dspy.Module]:
    """The program class that `name` stands for. Imports user code: for a worker thread.

    Raises:
        InvalidSpec: The name is empty or malformed, or names something that is no `dspy.Module`.
        ClassNotFound: Nothing is registered or defined under that name.
        ImportNotAllowed: The name lies under no allowed prefix; nothing was imported.
        ProgramError: The module raised while it was imported.
    """
    if not name:
        raise InvalidSpec("python_class is empty; give a registered name or a dotted path such as 'dspy.Predict'")
    if (registered := MODULE_REGISTRY.get(name)) is not None:
        return registered
    if "." not in name:
        close = difflib.get_close_matches(name, MODULE_REGISTRY, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        known = ", ".join(sorted(MODULE_REGISTRY)) or "none"
        raise ClassNotFound(f"no class is registered as {name!r}{hint} (registered: {known})")
    policy.check(name)
    if not all(part.isidentifier() for part in name.split(".")):
        raise InvalidSpec(f"python_class {name!r} is no dotted path")
    module_name, _, class_name = name.rpartition(".")
    found = getattr(import_module(module_name, name), class_name, None)
    if found is None:
        raise ClassNotFound(f"module {module_name!r} has no {class_name!r}")
    if not (isinstance(found, type) and issubclass(found, dspy.Module)):
        raise InvalidSpec(f"{name!r} is no dspy.Module subclass but {_what(found)}")
    if not callable(getattr(found, "forward", None)):
        raise InvalidSpec(f"{name!r} has no forward() and cannot be called")
    return found


def import_module(module_name: str, wanted: str) -> Any:
    """Import a module that the policy allowed.

    Raises ClassNotFound when it does not exist, ProgramError when its own code raises.
    """
    if (loaded := sys.modules.get(module_name)) is not None:
        return loaded
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise ClassNotFound(f"{wanted!r}: there is no module {error.name!r}") from None
        raise ProgramError(f"importing {module_name!r} failed") from error
    except Exception as error:
        raise ProgramError(f"importing {module_name!r} failed") from error


def _what(found: object) -> str:
    return f"the class {found.__qualname__}" if isinstance(found, type) else f"a {type(found).__name__}"
