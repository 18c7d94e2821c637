"""The gallery's pictures are what their recipes make, large enough to hang, and all of them are in its page."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nbformat
import pytest

import labkit as lk
from labkit.pictures.geometry import size_of

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
sys.path.insert(0, str(ROOT / "tools"))

import showpieces  # noqa: E402
from showpieces import SHOWPIECES  # noqa: E402


@pytest.mark.slow
@pytest.mark.parametrize("name", SHOWPIECES)
def test_a_recipe_makes_its_picture_small(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the detail that a large one has room for, so only broad colors are compared; both are new pictures."""
    # Small pictures need neither large crops nor many steps, which take four minutes for six classes.
    monkeypatch.setattr(lk.presets, "CLASS_PICTURE", {**lk.presets.CLASS_PICTURE, "steps": 40, "crop_size": 64})
    try:
        small = showpieces.make(SHOWPIECES[name], 96)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    large = lk.load(showpieces.PICTURES / f"{name}.jpg")
    assert 96 <= max(size_of(small)) <= 104 and 768 <= max(size_of(large)) <= 776
    mine, theirs = (lk.resize(picture, (4, 4)) for picture in (small, large))
    assert lk.difference(mine, theirs).mean() < 0.12
    for kind, source in re.findall(r'lk\.(photo|painting)\("(\w+)"', SHOWPIECES[name].recipe):
        original = getattr(lk, kind)(source)
        for picture in (small, large):
            assert lk.difference(picture, lk.resize(original, size_of(picture))).mean() > 0.03


@pytest.mark.parametrize("name", SHOWPIECES)
def test_a_picture_carries_its_recipe(name: str) -> None:
    assert lk.settings_of(showpieces.PICTURES / f"{name}.jpg") == SHOWPIECES[name]._asdict()


def test_the_page_shows_all() -> None:
    assert (showpieces.DOCS / "gallery.md").read_text(encoding="utf-8") == showpieces.page()
    assert {path.stem for path in showpieces.PICTURES.glob("*.jpg")} == SHOWPIECES.keys()
    assert set(showpieces.HERO) <= SHOWPIECES.keys() == showpieces.SECTIONS.keys()


def test_the_readme_leads_to_each_of_its_pictures() -> None:
    for name in showpieces.HERO:
        title = showpieces.title(name)
        assert f"[{title.lower()}](docs/gallery.md#{title.lower().replace(' ', '-')})" in README


@pytest.mark.parametrize("name", SHOWPIECES)
def test_a_section_explains_it(name: str) -> None:
    notebook, section = showpieces.SECTIONS[name]
    cells = nbformat.read(ROOT / "notebooks" / notebook, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    assert f"## {section}" in text.splitlines()
