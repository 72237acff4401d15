"""Write the table in docs/patches.md anew, from the tables of the packages."""

from pathlib import Path

from dspex_trio.runtime.patches import as_markdown, list_patches

PAGE = Path(__file__).parents[1] / "docs" / "patches.md"

text = PAGE.read_text()
PAGE.write_text(text[: text.index("| package |")] + as_markdown(list_patches()))
