import asyncio
from pathlib import Path

import pytest
import trio

from dspex_trio.programs import ProgramSettings, open_programs
from dspex_trio.programs import registry as registered

from .fakes import Trial, answers


def pytest_collection_modifyitems(items):
    """Let pydantic warn of one of the classes that litellm builds when they are first used."""
    for item in [item for item in items if Path(__file__).parent in item.path.parents]:
        item.add_marker(pytest.mark.filterwarnings("ignore:Item .* on TypedDict class:UserWarning"))


@pytest.fixture(autouse=True)
def _no_loop_is_left():
    """Close the event loop that litellm gives the main thread; whoever sets another one leaves it open."""
    yield
    local = asyncio.get_event_loop_policy()._local
    if (loop := getattr(local, "_loop", None)) is not None and not loop.is_running():
        asyncio.set_event_loop(None)
        loop.close()


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
