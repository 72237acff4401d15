"""What an operator decides about programs."""

from __future__ import annotations

from dataclasses import dataclass

from dspex_trio.model import LanguageModel


@dataclass(frozen=True, slots=True)
class ProgramSettings:
    """What an operator decides about programs.

    Attributes:
        lm: The language model of programs that name none; its params are the operator's and unrestricted.
        load: Modules to import at the start.
        allow_import: Dotted prefixes, beside DSPy's programs and the loaded modules, under which a class may lie; what
            lies there is imported when a request names it.
        allow_lm_arg: Keywords of the language model that a request may set although they are forbidden by default.
        allow_model: Models, beside those of the operator's provider, that a request may name; `*` stands for any
            characters but `/`, `**` for any.
        memory_cache: Whether DSPy caches replies in memory.
        disk_cache: Whether DSPy caches replies on disk.
        shared_cache: Whether sessions share cached replies.
        max_prototypes: How many constructed programs are kept for cloning, and how many signatures.
        max_lms: How many language models are kept; each holds its provider's connections.
        allow_repr: Whether an object in a prediction that is no JSON is shown by its `repr`, cut and redacted.
    """

    lm: LanguageModel | None = None
    load: tuple[str, ...] = ()
    allow_import: tuple[str, ...] = ()
    allow_lm_arg: tuple[str, ...] = ()
    allow_model: tuple[str, ...] = ()
    memory_cache: bool = True
    disk_cache: bool = False
    shared_cache: bool = False
    max_prototypes: int = 256
    max_lms: int = 64
    allow_repr: bool = False
