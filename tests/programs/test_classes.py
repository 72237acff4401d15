import sys

import dspy
import pytest

import dspex_trio as dspex
from dspex_trio.errors import ClassNotFound, ImportNotAllowed, InvalidSpec, ProgramError
from dspex_trio.programs.classes import ImportPolicy, resolve_class

ONLY_DSPY = ImportPolicy(())


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


def test_a_dotted_path_under_dspy_is_imported():
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
        resolve_class(name, ImportPolicy(("my.programs",)))
    assert repr(name) in str(caught.value)
    assert "--allow-import" in str(caught.value)
    assert set(sys.modules) == before


def test_an_allowed_prefix_may_be_a_module_or_one_class(package):
    package("allowed_here", "import dspy\nclass A(dspy.Predict): ...\nclass B(dspy.Predict): ...")
    assert resolve_class("allowed_here.A", ImportPolicy(("allowed_here.",))).__name__ == "A"
    assert resolve_class("allowed_here.A", ImportPolicy(("allowed_here.A",))).__name__ == "A"
    with pytest.raises(ImportNotAllowed):
        resolve_class("allowed_here.B", ImportPolicy(("allowed_here.A",)))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Predikt", "no class is registered as 'Predikt'; did you mean 'Predict'? (registered: Predict)"),
        ("dspy.NoSuchClass", "module 'dspy' has no 'NoSuchClass'"),
        ("dspy.nowhere.Predict", "'dspy.nowhere.Predict': there is no module 'dspy.nowhere'"),
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
        resolve_class("broken_module.X", ImportPolicy(("broken_module",)))
    assert isinstance(caught.value.__cause__, cause)
