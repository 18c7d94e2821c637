"""Nearest neighbors: against a search by hand, and in style transfer."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

import labkit as lk
from labkit.losses import neighbors
from labkit.losses.neighbors import nearest, oriented, positions

cat = cache(lambda: lk.photo("chelsea", 64))
koi = cache(lambda: lk.painting("koi_mosaic", 64))
pond = cache(lambda: lk.painting("noon_pond", 64))
LAYERS = ("relu1_2", "relu2_2", "relu3_1")
LOOP: dict[str, Any] = {
    "parameterization": "pixels",
    "steps": 6,
    "min_scale": 32,
    "precision": "float32",
    "device": "cpu",
}


@pytest.fixture(scope="module")
def pocket() -> lk.Backbone:
    return lk.load_backbone("pocket", "cpu")


def evaluated(pocket: lk.Backbone, loss: lk.Loss, picture: Tensor) -> lk.Evaluation:
    return lk.Evaluator(pocket, loss, picture.shape[-2:], "float32")(picture)


def loss_at(pocket: lk.Backbone, loss: lk.Loss, picture: Tensor) -> float:
    return evaluated(pocket, loss, picture).loss.item()


# --- the search ---------------------------------------------------------------------------------------------------


def test_the_nearest_is_the_one_with_the_largest_cosine() -> None:
    generator = torch.Generator().manual_seed(0)
    queries, references = torch.randn(2, 5, 700, generator=generator), torch.randn(5, 40, generator=generator)
    centered = references - references.mean(1, keepdim=True)
    for query, found in zip(queries, nearest(queries, references), strict=True):
        cosines = torch.cosine_similarity((query - query.mean(1, keepdim=True))[:, :, None], centered[:, None], dim=0)
        assert torch.equal(found, cosines.argmax(1))


def test_positions_lie_in_cells() -> None:
    cells, into = positions(6, 3)
    assert cells.tolist() == [0, 0, 1, 1, 2, 2]
    assert into.tolist() == [0.25, 0.75] * 3
    cells, into = positions(5, 2)
    assert cells.tolist() == [0, 0, 1, 1, 1]
    torch.testing.assert_close(cells + into, torch.tensor([0.2, 0.6, 1.0, 1.4, 1.8]))


def test_the_orientations_are_four(pocket: lk.Backbone) -> None:
    picture = torch.arange(6.0).view(1, 1, 2, 3)
    turned = torch.rot90(picture, -1, (2, 3))
    for found, expected in zip(oriented(picture), [picture, picture.flip(3), picture.mT, turned], strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("distance", ["l2", "cosine"])
@pytest.mark.parametrize("layers", [("relu1_2",), LAYERS, ("relu2_2", "relu4_1")])
def test_a_painting_is_its_own_neighbor(pocket: lk.Backbone, distance: Any, layers: tuple[str, ...]) -> None:
    """With all its places to choose from; without those at the border, only there not."""
    loss = lk.nearest_neighbors(koi(), koi(), layers, distance=distance)
    assert loss_at(pocket, loss, koi()) < (1e-3 if "relu4_1" in layers else 1e-6)  # relu4_1 is a mean over cells
    assert loss_at(pocket, lk.nearest_neighbors(koi(), koi(), layers, distance=distance, inset=0.1), koi()) > 0.01
    assert loss_at(pocket, loss, pond()) > 0.3


@pytest.mark.parametrize("view", range(4))
def test_a_turned_painting_is_found(pocket: lk.Backbone, view: int) -> None:
    turned = oriented(koi())[view]
    assert loss_at(pocket, lk.nearest_neighbors(turned, koi(), LAYERS), turned) < 1e-6


def test_of_two_paintings_each_place_takes_the_nearer(pocket: lk.Backbone) -> None:
    half = cat().shape[-1] // 2
    mixed = torch.cat([koi()[..., :half], lk.resize(pond(), koi().shape[-2:])[..., half:]], -1)
    one, two = (lk.nearest_neighbors(mixed, paintings, LAYERS) for paintings in (koi(), [koi(), pond()]))
    assert loss_at(pocket, two, mixed) < 0.7 * loss_at(pocket, one, mixed)


def test_a_paintings_mask_is_all_that_is_taken_from(pocket: lk.Backbone) -> None:
    left = (torch.arange(koi().shape[-1]) < 32).float().expand(*koi().shape[-2:])
    blank = koi() * left
    masked, cut = (
        lk.nearest_neighbors(cat(), painting, "relu2_1", painting_masks=[left]) for painting in (koi(), blank)
    )
    assert loss_at(pocket, masked, cat()) == pytest.approx(loss_at(pocket, cut, cat()), rel=0.01)
    assert loss_at(pocket, lk.nearest_neighbors(cat(), blank, "relu2_1"), cat()) != pytest.approx(
        loss_at(pocket, cut, cat()), rel=0.01
    )


def test_outside_of_a_mask_nothing_is_asked(pocket: lk.Backbone) -> None:
    left = (torch.arange(cat().shape[-1]) < 24).float().expand(*cat().shape[-2:])
    gradient = evaluated(pocket, lk.nearest_neighbors(cat(), koi(), LAYERS, mask=left), cat()).gradient
    assert gradient[..., :12].abs().mean() > 1e-6
    assert gradient[..., 24:].abs().max() == 0


def test_caps_keep_the_search_from_growing(pocket: lk.Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a coarser grid and fewer references the painting is still nearly its own neighbor."""
    monkeypatch.setattr(neighbors, "PLACES", 40)
    monkeypatch.setattr(neighbors, "REFERENCES", 60)
    asked = []

    def noted(queries: Tensor, references: Tensor) -> Tensor:
        asked.append((queries.shape[2], references.shape[1]))
        return nearest(queries, references)

    monkeypatch.setattr(neighbors, "nearest", noted)
    large = lk.painting("koi_mosaic", 160)
    assert 0 < loss_at(pocket, lk.nearest_neighbors(large, large, LAYERS), large) < 2
    ((queries, references),) = asked
    assert queries <= 48 and references <= 60


def test_photos_of_a_batch_have_neighbors_of_their_own(pocket: lk.Backbone) -> None:
    photos = torch.cat([cat(), pond()[..., :43, :64] if pond().shape[-2] >= 43 else cat().flip(3)])
    together = evaluated(pocket, lk.nearest_neighbors(photos, koi(), LAYERS), photos)
    alone = [loss_at(pocket, lk.nearest_neighbors(one[None], koi(), LAYERS), one[None]) for one in photos]
    torch.testing.assert_close(together.loss, torch.tensor(alone), rtol=1e-4, atol=0)


# --- what it starts from ------------------------------------------------------------------------------------------


def test_what_a_scale_starts_from_is_three_quarters_of_what_is_compared(pocket: lk.Backbone) -> None:
    loss, mix = lk.nearest_neighbors(cat(), koi(), LAYERS), 0.25 * cat() + 0.75 * cat().flip(3)
    found = loss_at(pocket, loss.starting_from(cat().flip(3)), cat())
    assert found == pytest.approx(loss_at(pocket, lk.nearest_neighbors(mix, koi(), LAYERS), cat()), rel=1e-3)
    assert found != pytest.approx(loss_at(pocket, loss, cat()), rel=1e-2)


def test_only_a_sum_with_neighbors_depends_on_its_start() -> None:
    plain = lk.content(cat()) + 2 * lk.total_variation()
    assert plain.starting_from(cat()) is plain
    summed = plain + 3 * lk.nearest_neighbors(cat(), koi())
    started = summed.starting_from(koi())
    assert started is not summed and repr(started) == repr(summed)


def test_a_run_looks_for_neighbors_anew_at_each_scale(pocket: lk.Backbone) -> None:
    run = lk.stylizing(cat(), koi(), backbone=pocket, neighbor_weight=2.0, **LOOP | {"min_scale": 45, "avg_decay": 0})
    *_, coarse, fine = (next(run) for _ in range(4))
    start = lk.resize(coarse.picture, cat().shape[-2:])
    loss = 2 * lk.nearest_neighbors(cat(), koi(), inset=0.05).starting_from(start)
    assert fine.terms["nearest_neighbors"] == pytest.approx(loss_at(pocket, loss, start), rel=1e-4)
    assert torch.equal(fine.state_dict()["origin"], start)


def test_nothing_more_is_saved_where_no_loss_asks(pocket: lk.Backbone) -> None:
    *_, last = lk.stylizing(cat(), koi(), backbone=pocket, **LOOP)
    assert last.state_dict()["origin"] is None


# --- in the objective ---------------------------------------------------------------------------------------------


def test_the_objective_has_it_as_one_more_term(pocket: lk.Backbone) -> None:
    options = {"style_scale": 0.7, "style_layers": LAYERS, "style_inset": 0.1}
    loss = lk.style_objective(cat(), koi(), neighbor_weight=3.0, neighbor_distance="cosine", **options)
    terms = evaluated(pocket, loss, cat()).terms
    assert list(terms) == ["content", "style", "nearest_neighbors", "total_variation", "chroma_tv"]
    alone = 3 * lk.nearest_neighbors(cat(), koi(), LAYERS, scale=0.7, inset=0.1, distance="cosine")
    assert terms["nearest_neighbors"].item() == pytest.approx(loss_at(pocket, alone, cat()), rel=1e-5)


def test_each_region_takes_from_its_own_painting(pocket: lk.Backbone) -> None:
    left = (torch.arange(cat().shape[-1]) < 32).float().expand(*cat().shape[-2:])
    paintings = {"painting": [koi(), pond()], "masks": [left, 1 - left], "style_layers": LAYERS, "style_inset": 0.0}
    loss = lk.style_objective(cat(), neighbor_weight=1.0, **paintings)
    alone = [
        0.5 * loss_at(pocket, lk.nearest_neighbors(cat(), painting, LAYERS, mask=mask), cat())
        for painting, mask in ((koi(), left), (pond(), 1 - left))
    ]
    assert evaluated(pocket, loss, cat()).terms["nearest_neighbors"].item() == pytest.approx(sum(alone), rel=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"neighbor_weight": -1}, "neighbor_weight must be a number from 0 to 1e+12, not -1"),
        ({"neighbor_distance": "l1"}, "neighbor_distance is one of l2, cosine, not 'l1'"),
        ({"painting": [koi, pond], "style_weights": [1, 2], "neighbor_weight": 1}, "paintings cannot be weighed"),
        ({"style_scale": 0.01, "neighbor_weight": 1}, "too small for relu2_2"),
    ],
)
def test_what_makes_no_sense_is_refused_at_the_call(pocket: lk.Backbone, options: dict, message: str) -> None:
    paintings = [make() for make in options.pop("painting", [koi])]
    with pytest.raises(ValueError, match=re.escape(message)):
        lk.stylizing(cat(), lk.style_objective(cat(), paintings, **options), backbone=pocket, **LOOP)
