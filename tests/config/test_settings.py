from pathlib import Path

import pytest

from dspex_trio.runtime.settings import InvalidSettings, Settings

DOCS = Path(__file__).parents[2] / "docs" / "settings.md"


@pytest.fixture(autouse=True)
def no_settings_in_the_environment(monkeypatch):
    import os

    for name in os.environ:
        if name.startswith("DSPEX_TRIO_"):
            monkeypatch.delenv(name)


def test_arguments_win_over_the_environment_it_over_the_file_it_over_the_defaults(monkeypatch, tmp_path):
    file = tmp_path / "worker.toml"
    file.write_text('max_trials = 2\nmax_queue = 2\nport = 2\nload = ["from_file"]\n[lm_args]\ntemperature = 0.5\n')
    monkeypatch.setenv("DSPEX_TRIO_MAX_TRIALS", "3")
    monkeypatch.setenv("DSPEX_TRIO_MAX_QUEUE", "3")
    settings = Settings.load_from({"max_trials": 4}, file)
    assert (settings.max_trials, settings.max_queue, settings.port, settings.max_trial_seconds) == (4, 3, 2, 600)
    assert (settings.load, settings.lm_args) == (("from_file",), {"temperature": 0.5})
    assert type(settings) is Settings


def test_lists_and_objects_have_a_form_for_the_environment(monkeypatch):
    monkeypatch.setenv("DSPEX_TRIO_LOAD", "a.b, c")
    monkeypatch.setenv("DSPEX_TRIO_LM_ARGS", '{"api_base": "http://127.0.0.1:1"}')
    settings = Settings()
    assert (settings.load, settings.lm_args) == (("a.b", "c"), {"api_base": "http://127.0.0.1:1"})


@pytest.mark.parametrize(
    ("arguments", "toml", "told"),
    [
        (
            {"max_queue": -1},
            "",
            "max_queue (--max-queue, DSPEX_TRIO_MAX_QUEUE): Input should be greater than or equal to 0",
        ),
        ({}, "max_trails = 1", "max_trails: there is no such setting"),
        ({}, "port = ", "cannot be read"),
        ({"load": ("my-module",)}, "", "'my-module' is no module name"),
        ({"store": "nowhere"}, "", "store"),
        ({"allow_import": ("mine", "dspy.primitives")}, "", "import another one at the start, with --load"),
        ({"allow_model": ("openai/a b",)}, "", "'openai/a b' is no model's name, such as openai/gpt-4o-mini"),
        ({"lm_args": "secret-but-not-json"}, "", "is no JSON object"),
        ({"max_undelivered_bytes": 2**20}, "", "max_undelivered_bytes must be at least max_message_bytes"),
    ],
)
def test_a_wrong_setting_is_named_with_where_it_can_be_set(tmp_path, arguments, toml, told):
    file = tmp_path / "worker.toml"
    file.write_text(toml)
    with pytest.raises(InvalidSettings) as caught:
        Settings.load_from(arguments, file)
    assert told in str(caught.value)
    assert "secret-but" not in str(caught.value)


def test_a_config_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InvalidSettings, match=r"nope\.toml: there is no such file"):
        Settings.load_from({}, tmp_path / "nope.toml")


def test_settings_are_immutable_and_do_not_show_language_model_arguments():
    settings = Settings(lm_args={"api_key": "very-secret-key"})
    with pytest.raises(ValueError, match="frozen"):
        settings.port = 1
    assert "very-secret-key" not in repr(settings)


def test_every_setting_is_documented_with_its_default():
    text = DOCS.read_text()
    for name, field in Settings.model_fields.items():
        [line] = [line for line in text.splitlines() if line.startswith(f"| `{name}` |")]
        assert field.description in line
        default = field.get_default(call_default_factory=True)
        assert default in (None, (), {}) or f"`{default}`" in line
