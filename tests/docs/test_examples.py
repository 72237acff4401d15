"""Every Python example of the README and the docs runs."""

import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)

EXAMPLES = [
    pytest.param(code, id=f"{page.name}:{page.read_text()[: match.start()].count(chr(10)) + 2}")
    for page in PAGES
    for match in BLOCK.finditer(page.read_text())
    for code in [match.group(1)]
]


@pytest.mark.parametrize("code", EXAMPLES)
def test_an_example_runs_as_it_stands(code, tmp_path, preloaded):
    """In a process of its own, as a reader would run it: it may register classes and end its own loop."""
    script = tmp_path / "example.py"
    script.write_text(code)
    if "pytest.mark.anyio" not in code:
        (tmp_path / "pytest.ini").write_text("[pytest]\ntrio_mode = true\n")  # as docs/testing.md says
    command = []
    environment = dict(os.environ)
    if "def test_" in code:
        command += ["-m", "pytest", *(word for plugin in plugins_of(code) for word in ("-p", plugin))]
        environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # so that they run wherever and with whatever else there is
    done = preloaded([*command, script], tmp_path, environment)
    assert done.returncode == 0, done.stdout + done.stderr


def plugins_of(code):
    if "pytest.mark.anyio" in code:
        return ["dspex_trio.testing.plugin", "anyio.pytest_plugin"]
    return ["dspex_trio.testing.plugin", "pytest_trio.plugin"]


def test_every_page_that_the_readme_links_to_exists():
    links = re.findall(r"\]\(((?!http)[^)#]+)\)", (ROOT / "README.md").read_text())
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
