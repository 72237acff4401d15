"""Assemble CHANGELOG.md from the fragments in changelog.d: `python tools/changelog.py`."""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
KINDS: Final = ("added", "changed", "fixed", "removed")


def assembled(folder: Path) -> str:
    """The changelog as Markdown: one section a kind, one item a fragment, in the order of their names."""
    parts = ["# Changelog\n\n## Unreleased\n"]
    for kind in KINDS:
        texts = [path.read_text(encoding="utf-8").strip() for path in sorted(folder.glob(f"*.{kind}.md"))]
        if texts:
            items = "\n".join(f"- {text.removeprefix('- ')}".replace("\n", "\n  ") for text in texts)
            parts.append(f"\n### {kind.capitalize()}\n\n{items}\n")
    return "".join(parts)


if __name__ == "__main__":
    (ROOT / "CHANGELOG.md").write_text(assembled(ROOT / "changelog.d"), encoding="utf-8")
