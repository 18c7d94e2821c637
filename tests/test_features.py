"""What docs/features.md names exists: notebooks, tests, functions, and the options of functions."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import labkit as lk
from labkit.engine.training import train_steps

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "features.md").read_text()


def test_places_exist() -> None:
    places = re.findall(r"((?:notebooks|tests|docs)/[\w.]+)(?:::(\w+))?", TEXT)
    assert len(places) > 40
    for file, name in places:
        assert (ROOT / file).is_file(), file
        assert not name or f"def {name}(" in (ROOT / file).read_text(), name


def test_functions_exist() -> None:
    names = set(re.findall(r"lk\.(\w+)", TEXT))
    assert len(names) > 15
    assert all(hasattr(lk, name) for name in names), [name for name in names if not hasattr(lk, name)]


def test_options_exist() -> None:
    takers = [lk.dreaming, lk.stylizing, lk.creating, lk.journey, lk.style, lk.activation, lk.save, lk.save_frames]
    takers += [lk.wrap, lk.faststyle.training, lk.faststyle.repaint, lk.adain.transfer, lk.superres.upscale]
    takers += [lk.style_objective, lk.variant, train_steps]
    known = {name for taker in takers for name in inspect.signature(taker).parameters}
    named = set(re.findall(r"\b([a-z_]+)=", TEXT))
    assert len(named) > 20
    assert named <= known, named - known
