import pytest

from dspex_trio.programs import ProgramSettings, open_programs
from dspex_trio.programs import registry as registered

from .fakes import Trial, answers


@pytest.fixture(autouse=True)
def _registry_as_before():
    """Names that a test registers are free again afterwards."""
    kept = [(place, type(place)(place)) for place in (registered.MODULE_REGISTRY, registered.TOOL_REGISTRY)]
    reusable = set(registered._REUSABLE)
    yield
    for place, before in kept:
        place.clear()
        place.update(before)
    registered._REUSABLE.clear()
    registered._REUSABLE.update(reusable)


@pytest.fixture
def trial():
    """`trial(python_class=…, signature=…, …)` → a Trial; `lm=` and `settings=` decide what the operator chose."""
    opened = {}

    def make(*, model=None, settings=None, **program):
        key = (id(model), settings)
        if key not in opened:
            context = open_programs(
                settings or ProgramSettings(), lm=model if model is not None else answers(answer="yes")
            )
            opened[key] = (context, context.__enter__(), model)
        return Trial(opened[key][1], **program)

    yield make
    for context, _, _ in reversed(opened.values()):
        context.__exit__(None, None, None)
