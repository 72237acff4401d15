"""From a name in a specification to a class: the registry, DSPy's programs, what is loaded, then allowed imports."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Mapping
from typing import Any, Final

import dspy

from dspex_trio.model.errors import ClassNotFound, ImportNotAllowed, InvalidSpec, ProgramError
from dspex_trio.programs.registry import MODULE_REGISTRY, is_dspys

_DSPY: Final = "dspy"


class ImportPolicy:
    """Decides by name alone, before anything is imported.

    A request's word imports nothing but what lies under a prefix that the operator allowed explicitly. DSPy's programs
    are those that were loaded when the policy was made: some of DSPy's modules are scripts, which do harm on import.

    Args:
        loaded: Modules that are loaded: what lies under them may be named as far as it is loaded too.
        importable: Dotted prefixes under which modules are imported when a request names them.
    """

    def __init__(self, loaded: tuple[str, ...] = (), importable: tuple[str, ...] = ()) -> None:
        self._importable = tuple(prefix.rstrip(".") for prefix in importable)
        self.prefixes = (_DSPY, *loaded, *self._importable)
        self.dspys = _dspys_programs()

    def check(self, dotted: str) -> None:
        """Raise ImportNotAllowed unless `dotted` lies under an allowed prefix."""
        if not any(_lies_under(dotted, prefix) for prefix in self.prefixes):
            raise ImportNotAllowed(
                f"{dotted!r} lies under no prefix that this worker may import from ({', '.join(self.prefixes)}); "
                f"the operator can load the module with --load or allow a prefix with --allow-import"
            )

    def may_import(self, dotted: str) -> bool:
        """Whether the module of what is named so is imported if it is not loaded."""
        return any(_lies_under(dotted, prefix) for prefix in self._importable)


def _lies_under(dotted: str, prefix: str) -> bool:
    return dotted == prefix or dotted.startswith(f"{prefix}.")


def _dspys_programs() -> Mapping[str, type[dspy.Module]]:
    """Dotted path → class, of DSPy's own program classes, wherever in its loaded modules they are named."""
    modules = [(name, module) for name, module in tuple(sys.modules.items()) if _lies_under(name, _DSPY)]
    return {
        f"{module_name}.{name}": found
        for module_name, module in modules
        for name, found in tuple(vars(module).items())
        if isinstance(found, type) and issubclass(found, dspy.Module) and is_dspys(found)
    }


def loaded_name(module_name: str, name: str) -> Any:
    """What a loaded module holds under that name, else None. A lazy module is not asked, since it would import."""
    return getattr(sys.modules.get(module_name), "__dict__", {}).get(name)


def resolve_class(name: str, policy: ImportPolicy) -> type[dspy.Module]:
    """The program class that `name` stands for. May import what the operator allowed: for a worker thread.

    Raises:
        InvalidSpec: The name is empty or malformed, or names something that is no `dspy.Module`.
        ClassNotFound: Nothing is registered or defined under that name, or its module is not loaded.
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
    found = policy.dspys.get(name) or _found(name, policy)
    if not (isinstance(found, type) and issubclass(found, dspy.Module)):
        raise InvalidSpec(f"{name!r} is no dspy.Module subclass but {_what(found)}")
    if not callable(getattr(found, "forward", None)):
        raise InvalidSpec(f"{name!r} has no forward() and cannot be called")
    return found


def _found(name: str, policy: ImportPolicy) -> Any:
    """What `name` stands for in a loaded module, or in one that is imported now because the operator said so."""
    module_name, _, class_name = name.rpartition(".")
    if policy.may_import(name):
        found = getattr(import_module(module_name, name), class_name, None)
    else:
        found = loaded_name(module_name, class_name)
    if found is None and module_name not in sys.modules:
        told = "it to --load" if _lies_under(name, _DSPY) else "it to --load, or a prefix to --allow-import"
        raise ClassNotFound(
            f"{name!r}: no module {module_name!r} is loaded, and none is imported because a request names it; the "
            f"operator can give {told}"
        )
    if found is None:
        raise ClassNotFound(f"module {module_name!r} has no {class_name!r}")
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
