"""Explained losses: the curves are the parts, the maps are the terms' own gradients."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
from test_zoo import network

import labkit as lk
from labkit.engine.runs import single_stage
from labkit.notebook import diagnosis
from labkit.notebook.diagnosis import curves_of, pulls

cat = cache(lambda: lk.photo("chelsea", 96))


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    found: list[tuple] = []
    monkeypatch.setattr(diagnosis, "show", lambda *pictures, **words: found.append((pictures, words)))
    return found


def styled(**options: object) -> list[lk.Progress]:
    return list(lk.stylizing(cat(), lk.painting("koi_mosaic"), steps=6, precision="float32", **options))


def test_curves_are_the_terms_and_add_up_to_the_loss() -> None:
    history = styled()
    curves, last = curves_of(iter(history))
    assert last is history[-1]
    assert {name for name, _ in curves} == {"content", "style", "total_variation", "chroma_tv"}
    assert [layer for name, layer in curves if name == "style"] == list(network("pocket").recommended.style)
    for index, progress in enumerate(history):
        at = {key: values[index] for key, (_, values) in curves.items()}
        assert sum(at.values()) == pytest.approx(progress.loss, rel=1e-5)
        assert sum(v for (name, _), v in at.items() if name == "style") == pytest.approx(progress.terms["style"])


@pytest.mark.parametrize("tile", [None, 64])
def test_terms_gradients_add_up_to_the_whole(tile: int | None) -> None:
    content, painting = lk.content(cat()), lk.painting("koi_mosaic")
    loss = content + 30 * lk.style(painting) + lk.total_variation() + lk.content(cat(), "relu2_1")
    evaluator = lk.Evaluator(network("pocket"), loss, cat().shape[-2:], "float32", tile=tile)
    other = lk.photo("rocket", cat().shape[-2:])
    apart = evaluator.gradients_by_term(other)
    assert list(apart) == ["content", "style", "total_variation"]
    whole = evaluator(other).gradient
    assert ((sum(apart.values()) - whole).norm() / whole.norm()).item() < 1e-4


def test_a_change_in_one_corner_makes_content_unhappy_there() -> None:
    changed = cat().clone()
    changed[..., :16, :16] = 1 - changed[..., :16, :16]
    loss = lk.content(cat(), "relu1_2") + 0.0 * lk.total_variation()
    evaluator = lk.Evaluator(network("pocket"), loss, cat().shape[-2:], "float32")
    evaluation = evaluator(changed)
    progress = lk.Progress(1, 1, 1, 1, 0.0, evaluation, changed, dict, single_stage(changed.shape[-2:], 1))
    (norm, values) = pulls(progress)["content"]
    assert norm > 0 and values.shape == (1, 1, *cat().shape[-2:]) and values.min() >= 0 and values.max() <= 1
    assert values[..., :16, :16].mean() > 20 * values[..., 32:, 32:].mean()


def test_they_are_plotted_and_shown(shown: list[tuple]) -> None:
    picture = diagnosis.explain_losses(lk.stylizing(cat(), lk.painting("koi_mosaic"), steps=4))
    assert picture.shape == cat().shape
    ((figure,), words), (maps, titles) = shown
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["terms", "layers of style"]
    assert "style" in words["caption"] and len(maps) == 4
    assert sum(float(title.split()[1][:-1]) for title in titles["titles"]) == pytest.approx(100, abs=2)


@pytest.mark.parametrize(
    "run",
    [lambda: lk.dreaming(cat(), steps=2, octaves=1), lambda: lk.creating(-lk.activation("relu4_3"), size=64, steps=2)],
)
def test_dreams_and_creations_are_explained_too(run: Callable, shown: list[tuple]) -> None:
    diagnosis.explain_losses(run())
    assert len(shown) == 2


def test_a_run_without_steps_is_refused(shown: list[tuple]) -> None:
    with pytest.raises(ValueError, match="without steps"):
        diagnosis.explain_losses([])
