"""The page about process-wide changes says what there is."""

import sys
from pathlib import Path

import pytest

from dspex_trio.runtime.patches import as_markdown, list_patches

PAGE = Path(__file__).parents[2] / "docs" / "patches.md"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other selectors")
def test_the_table_of_patches_is_current():
    text = PAGE.read_text()
    table = text[text.index("| package |") :]
    assert table == as_markdown(list_patches()), "run: python tools/list_patches.py"
