"""The operator's modules: `--load` names and entry points."""

import sys
from importlib import metadata

import pytest

from dspex_trio.model.errors import ImportNotAllowed
from dspex_trio.programs import CannotLoad, ProgramSettings, get_module_class, open_programs

from .fakes import Trial

PROGRAMS = """
import dspy
import dspex_trio as dspex

@dspex.register("FromFile")
class FromFile(dspy.Module):
    def forward(self, q: str):
        import {helper}
        return {{"answer": {helper}.ANSWER}}

class NotRegistered(FromFile):
    pass
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with a module of programs that imports another one when it runs."""
    name = f"programs_of_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(PROGRAMS.format(helper=f"{name}_helper"))
    (tmp_path / f"{name}_helper.py").write_text("ANSWER = 42")
    monkeypatch.chdir(tmp_path)
    yield name
    for module in (name, f"{name}_helper"):
        sys.modules.pop(module, None)


async def test_a_module_is_loaded_from_the_working_directory_and_what_it_registers_runs(here):
    before = list(sys.path)
    with open_programs(ProgramSettings(load=(here,))) as loader:
        assert await Trial(loader, python_class="FromFile").run(q="?") == {"answer": 42}
        assert get_module_class("FromFile").__module__ == here
    assert sys.path == before


async def test_the_classes_of_a_loaded_module_may_be_named_with_their_module(here):
    with open_programs(ProgramSettings(load=(here,))) as loader:
        assert await Trial(loader, python_class=f"{here}.NotRegistered").run(q="?") == {"answer": 42}
        with pytest.raises(ImportNotAllowed):
            await Trial(loader, python_class=f"{here}_helper.X").ready()


def test_loading_twice_is_loading_once(here):
    """Two runtimes of one process, or a second one after the first: the module registers its names only once."""
    for _ in range(2):
        with open_programs(ProgramSettings(load=(here, here))):
            assert get_module_class("FromFile")


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (None, "there is no module 'not_there'"),
        ("import not_installed_either", "No module named 'not_installed_either'"),
        ("raise RuntimeError('no')", "importing it raised RuntimeError: no"),
        ("x =", "importing it raised SyntaxError"),
        (
            "import dspex_trio as d, dspy\nd.register('A')(dspy.Predict)\nd.register('A')(dspy.ReAct)",
            "already registered",
        ),
    ],
)
def test_a_module_that_cannot_be_loaded_stops_the_start_and_says_why(tmp_path, monkeypatch, code, told):
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    if code is not None:
        (tmp_path / "not_there.py").write_text(code)
    with pytest.raises(CannotLoad) as caught, open_programs(ProgramSettings(load=("not_there",))):
        pass
    assert str(caught.value).startswith("--load not_there: ")
    assert told in str(caught.value)
    assert sys.path == before
    sys.modules.pop("not_there", None)


async def test_an_installed_package_brings_its_programs_by_an_entry_point(here, monkeypatch):
    monkeypatch.syspath_prepend(".")
    entry = metadata.EntryPoint("mine", f"{here}:FromFile", "dspex_trio.programs")
    monkeypatch.setattr(metadata, "entry_points", lambda *, group: [entry] if group == entry.group else [])
    with open_programs(ProgramSettings()) as loader:
        assert await Trial(loader, python_class=f"{here}.NotRegistered").run(q="?") == {"answer": 42}


def test_an_entry_point_that_cannot_be_loaded_says_which_one(monkeypatch):
    entry = metadata.EntryPoint("broken", "not_there_at_all:X", "dspex_trio.programs")
    monkeypatch.setattr(metadata, "entry_points", lambda *, group: [entry])
    with (
        pytest.raises(CannotLoad, match=r"entry point 'broken' \(not_there_at_all:X\)"),
        open_programs(ProgramSettings()),
    ):
        pass
