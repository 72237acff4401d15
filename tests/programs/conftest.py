import pytest
import trio

from dspex_trio.programs import ProgramSettings, open_programs
from dspex_trio.programs import registry as registered

from .fakes import Trial, answers


@pytest.fixture(autouse=True)
def _registry_of_its_own():
    """A test finds nothing registered, whatever ran before it, and leaves what there was."""
    places = (registered.MODULE_REGISTRY, registered.TOOL_REGISTRY, registered._REUSABLE)
    kept = [place.copy() for place in places]
    for place in places:
        place.clear()
    yield
    for place, before in zip(places, kept, strict=True):
        place.clear()
        place.update(before)


@pytest.fixture
def trial():
    """`trial(python_class=…, signature=…, …)` → a Trial; `lm=` and `settings=` decide what the operator chose."""
    opened = {}

    def make(*, model=None, settings=None, **program):
        key = (id(model), settings)
        if key not in opened:
            context = open_programs(
                settings or ProgramSettings(),
                run_in_loop=trio.from_thread.run,
                lm=model if model is not None else answers(answer="yes"),
            )
            opened[key] = (context, context.__enter__(), model)
        return Trial(opened[key][1], **program)

    yield make
    for context, _, _ in reversed(opened.values()):
        context.__exit__(None, None, None)
