"""The fixtures work under both plugins that run tests on Trio, and cost nobody anything who does not use them."""

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLUGIN = "dspex_trio.testing.plugin"
IN_VIRTUAL_TIME = """
async def test_an_hour(virtual_clock, timeline):
    await trio.to_thread.run_sync(len, "")
    await trio.sleep(3600)
    timeline.record("late")
    timeline.expect_exactly("late@3600.0")
"""
A_WHOLE_SYSTEM = """
async def test_a_trial(virtual_clock, trial_system, scripted_lm, session_store, timeline):
    scripted_lm.script.add({"answer": "Paris"}, predictor="self")
    session_store.put({"heat": 0.5})
    program = {"python_class": "dspy.Predict", "signature": "q -> answer", "config_space": {"temperature": "heat"}}
    outcome = await trial_system.client.execute(program, {"q": "?"}, session_id="test", timeout=60)
    assert outcome.prediction == {"answer": "Paris"}
    assert scripted_lm.asked[0].arguments["temperature"] == 0.5
    timeline.expect("store:GetVariables@0.0", "lm_started@0.0", "success@0.0", "reply@0.0")
"""
HANDED_ON = """
import pytest, trio

@pytest.fixture
def anyio_backend(virtual_clock):
    return "trio", {"clock": virtual_clock, "instruments": [virtual_clock]}

pytestmark = pytest.mark.anyio
"""


def test_pytest_finds_the_plugin_where_the_project_is_installed():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert declared["project"]["entry-points"]["pytest11"] == {"dspex_trio": PLUGIN}


def test_nothing_is_imported_for_a_project_that_uses_none_of_it(run_pytest):
    """Every run of pytest loads the plugins of everything that is installed."""
    code = """
import sys

def test_nothing_heavy():
    assert not {"trio", "dspy", "purerpc", "pydantic", "dspex_trio.threads"} & set(sys.modules)
"""
    assert "1 passed" in run_pytest(code, fresh=True)


def test_pytest_trio_takes_the_clock_by_itself(run_pytest):
    assert "1 passed" in run_pytest(
        f"import pytest, trio\npytestmark = pytest.mark.trio\n{IN_VIRTUAL_TIME}", "pytest_trio.plugin"
    )


def test_anyios_plugin_is_handed_the_clock(run_pytest):
    assert "1 passed" in run_pytest(HANDED_ON + IN_VIRTUAL_TIME, "anyio.pytest_plugin")


@pytest.mark.parametrize(
    ("before", "plugin"),
    [("import pytest\npytestmark = pytest.mark.trio\n", "pytest_trio.plugin"), (HANDED_ON, "anyio.pytest_plugin")],
)
def test_a_whole_system_is_there_under_both_plugins(run_pytest, before, plugin):
    assert "1 passed" in run_pytest(before + A_WHOLE_SYSTEM, plugin)


def test_a_model_that_was_asked_too_much_fails_the_test(run_pytest):
    """The program may have kept the error to itself."""
    said = run_pytest("""
import pytest

def test_it(scripted_lm):
    with pytest.raises(Exception):
        scripted_lm("anybody there?")
""")
    assert "1 passed, 1 error" in said
    assert "the script had no reply for:" in said
    assert "anybody there?" in said


@pytest.mark.parametrize(
    ("code", "plugins", "said"),
    [
        ("def test_plain(virtual_clock): pass", [], "this test is a plain function"),
        (
            "import pytest\n@pytest.mark.trio\nasync def test_hidden(timeline): pass",
            ["pytest_trio.plugin"],
            "test_hidden is to name virtual_clock among its arguments",
        ),
        (
            HANDED_ON + "@pytest.mark.trio\nasync def test_both(timeline, anyio_backend): pass",
            ["pytest_trio.plugin", "anyio.pytest_plugin"],
            "test_both is to name virtual_clock among its arguments",
        ),
        (
            "import pytest\n@pytest.mark.anyio\nasync def test_forgotten(virtual_clock, anyio_backend): pass",
            ["anyio.pytest_plugin"],
            "a fixture anyio_backend that returns",
        ),
        (
            HANDED_ON.replace(', "instruments": [virtual_clock]', "") + "async def test_half(virtual_clock): pass",
            ["anyio.pytest_plugin"],
            "it was given to Trio as clock alone",
        ),
    ],
)
def test_a_clock_that_nobody_took_says_what_to_do(run_pytest, code, plugins, said):
    """Else a test would wait in real time, and pass or fail for another reason."""
    assert said in run_pytest(code, *plugins)
