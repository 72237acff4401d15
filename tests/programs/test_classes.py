import sys
import types
from pathlib import Path

import dspy
import pytest

import dspex_trio as dspex
from dspex_trio.model.errors import ClassNotFound, ImportNotAllowed, InvalidSpec, ProgramError
from dspex_trio.programs.hydrate.classes import ImportPolicy, resolve_class
from dspex_trio.programs.registry import isolation_of

ONLY_DSPY = ImportPolicy()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """`package("name", "code")` → an importable module that was not imported."""
    monkeypatch.syspath_prepend(tmp_path)
    made = []

    def write(name, code):
        (tmp_path / f"{name}.py").write_text(code)
        made.append(name)

    yield write
    for name in made:
        sys.modules.pop(name, None)


def test_a_registered_name_wins_over_everything():
    dspex.register("dspy.Predict")(dspy.ReAct)
    assert resolve_class("dspy.Predict", ONLY_DSPY) is dspy.ReAct


def test_a_dotted_path_under_dspy_is_one_of_its_programs_by_any_of_their_names():
    assert resolve_class("dspy.Predict", ONLY_DSPY) is dspy.Predict
    assert resolve_class("dspy.predict.react.ReAct", ONLY_DSPY) is dspy.ReAct


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "subprocess.Popen",
        "dspy_evil.Predict",
        "dspyx.Module",
        "..dspy.Predict",
        "my.programs_too.X",
        "my.X",
    ],
)
def test_what_lies_under_no_allowed_prefix_is_refused_and_not_imported(name):
    before = set(sys.modules)
    with pytest.raises(ImportNotAllowed, match="lies under no prefix") as caught:
        resolve_class(name, ImportPolicy(importable=("my.programs",)))
    assert repr(name) in str(caught.value)
    assert "--allow-import" in str(caught.value)
    assert set(sys.modules) == before


def test_an_allowed_prefix_may_be_a_module_or_one_class(package):
    package("allowed_here", "import dspy\nclass A(dspy.Predict): ...\nclass B(dspy.Predict): ...")
    assert resolve_class("allowed_here.A", ImportPolicy(importable=("allowed_here.",))).__name__ == "A"
    assert resolve_class("allowed_here.A", ImportPolicy(importable=("allowed_here.A",))).__name__ == "A"
    with pytest.raises(ImportNotAllowed):
        resolve_class("allowed_here.B", ImportPolicy(importable=("allowed_here.A",)))


def shipped_modules():
    """The name of every module that DSPy brings."""
    root = Path(dspy.__file__).parents[1]
    files = [file.relative_to(root) for file in (root / "dspy").rglob("*.py")]
    return [".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in files]


def test_no_module_of_dspy_is_imported_because_a_request_names_it():
    """Some are scripts: one redirects the process's standard output, and with it the log, to nowhere."""
    before = set(sys.modules)
    unloaded = [name for name in shipped_modules() if name not in before]
    assert "dspy.primitives.local_interpreter_worker" in unloaded
    for name in unloaded:
        with pytest.raises(ClassNotFound, match="none is imported because a request names it; the operator can give"):
            resolve_class(f"{name}.X", ONLY_DSPY)
    assert set(sys.modules) == before


@pytest.mark.parametrize("name", ["dspy.utils.saving.Path", "dspy.clients.lm.LM", "dspy.predict.Parallel"])
def test_what_a_module_of_dspy_has_beside_programs_is_none(name):
    with pytest.raises(InvalidSpec, match=r"is no dspy\.Module subclass"):
        resolve_class(name, ONLY_DSPY)


def test_dspys_programs_are_those_that_were_loaded_at_the_start(monkeypatch):
    late = types.ModuleType("dspy.late")
    late.Late = type("Late", (dspy.Predict,), {"__module__": "dspy.late"})
    monkeypatch.setitem(sys.modules, "dspy.late", late)
    assert resolve_class("dspy.late.Late", ImportPolicy()) is late.Late
    foreign = type("Foreign", (dspy.Predict,), {"__module__": "elsewhere"})
    late.Foreign = foreign
    assert "dspy.late.Foreign" not in ImportPolicy().dspys


def test_what_lies_under_a_loaded_module_is_found_if_it_is_loaded_and_never_imported(package):
    package("loaded_package", "import dspy\nclass A(dspy.Predict): ...\n__path__ = []")
    import loaded_package  # noqa: F401 - as --load does

    policy = ImportPolicy(loaded=("loaded_package",))
    assert resolve_class("loaded_package.A", policy).__name__ == "A"
    with pytest.raises(ClassNotFound, match=r"no module 'loaded_package\.sub' is loaded, .*a prefix to --allow-import"):
        resolve_class("loaded_package.sub.B", policy)


def test_a_lazy_module_is_not_asked_for_what_it_would_import(package):
    """Such as litellm: its `__getattr__` imports what is asked for."""
    lazy = "def __getattr__(name):\n    raise SystemExit(f'imported {name}')\n"
    package("lazy_module", lazy)
    import lazy_module  # noqa: F401 - as --load does

    assert isolation_of("lazy_module.X") is None
    assert isolation_of("no_such_module.X") is None
    assert isolation_of("dspy.cache") is None
    with pytest.raises(ClassNotFound, match="module 'lazy_module' has no 'X'"):
        resolve_class("lazy_module.X", ImportPolicy(loaded=("lazy_module",)))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Predikt", "no class is registered as 'Predikt'; did you mean 'Predict'? (registered: Predict)"),
        ("dspy.NoSuchClass", "module 'dspy' has no 'NoSuchClass'"),
        (
            "dspy.nowhere.Predict",
            (
                "'dspy.nowhere.Predict': no module 'dspy.nowhere' is loaded, and none is imported because a request "
                "names it; the operator can give it to --load"
            ),
        ),
    ],
)
def test_what_is_not_there_is_class_not_found(name, told):
    dspex.register("Predict")(dspy.Predict)
    with pytest.raises(ClassNotFound) as caught:
        resolve_class(name, ONLY_DSPY)
    assert str(caught.value) == told


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("", "python_class is empty"),
        ("dspy.Pre-dict", "is no dotted path"),
        ("dspy..Predict", "is no dotted path"),
        ("dspy.Example", "is no dspy.Module subclass but the class Example"),
        ("dspy.configure", "is no dspy.Module subclass but a method"),
        ("dspy.Module", "has no forward()"),
        ("dspy.signatures.signature.Signature", "is no dspy.Module subclass"),
    ],
)
def test_what_is_no_program_is_an_invalid_spec(name, told):
    with pytest.raises(InvalidSpec) as caught:
        resolve_class(name, ONLY_DSPY)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("raise RuntimeError('not today')", RuntimeError),
        ("import not_installed_anywhere", ModuleNotFoundError),
        ("x =", SyntaxError),
    ],
)
def test_a_module_that_cannot_be_imported_is_the_programs_error_with_its_cause(package, code, cause):
    """A module that is missing a dependency exists; saying that the class does not would mislead."""
    package("broken_module", code)
    with pytest.raises(ProgramError, match="importing 'broken_module' failed") as caught:
        resolve_class("broken_module.X", ImportPolicy(importable=("broken_module",)))
    assert isinstance(caught.value.__cause__, cause)
