"""Masks of pictures, their guides in a network's layers, and styles that keep to their regions."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import pytest
import torch
from test_zoo import network
from torch import Tensor

import labkit as lk
from labkit.losses.target_statistics import guide_map
from labkit.pictures.masks import as_mask, center_mask

cat = cache(lambda: lk.photo("chelsea", (96, 128)))
koi = cache(lambda: lk.painting("koi_mosaic", 96))
pond = cache(lambda: lk.painting("noon_pond", 96))
LAYERS = {"relu1_1": 1.0, "relu2_2": 1.0}
LEFT = torch.zeros(96, 128)
LEFT[:, :64] = 1


@pytest.fixture(scope="module")
def pocket() -> lk.Backbone:
    return lk.load_backbone("pocket", "cpu")


def gradient(pocket: lk.Backbone, loss: lk.Loss, tile: int | None = None) -> Tensor:
    return lk.Evaluator(pocket, loss, cat().shape[-2:], "float32", tile=tile)(cat()).gradient


def value(pocket: lk.Backbone, loss: lk.Loss) -> float:
    return lk.Evaluator(pocket, loss, cat().shape[-2:], "float32")(cat()).loss.item()


# --- masks --------------------------------------------------------------------------------------------------------


def test_the_center_mask_is_a_soft_disc() -> None:
    mask = as_mask("center", (41, 61))
    assert torch.equal(mask[0, 0], center_mask(41, 61))
    assert mask[0, 0, 20, 30] == mask.max() == 1
    torch.testing.assert_close(mask[0, 0, [20, 32], [48, 30]], torch.tensor([0.5, 0.5]))  # 0.3 of each side away
    assert mask[..., [0, 0, -1, -1], [0, -1, 0, -1]].max() < 0.03
    for turned in (mask.flip(2), mask.flip(3)):
        torch.testing.assert_close(turned, mask)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ("middle", 'the masks with a name are "center" and, for dreams, "texture" and "salient", not \'middle\''),
        (torch.ones(4, 4), "has the shape (6, 8), this one has (1, 1, 4, 4)"),
        (torch.ones(1, 3, 6, 8), "has the shape (6, 8), this one has (1, 3, 6, 8)"),
        (torch.ones(60, 60), "this one has (1, 1, 60, 60)"),
        (torch.ones(0, 0), "this one has (1, 1, 0, 0)"),
        (torch.ones(6), "this one has (6,)"),
        (lambda height, width: torch.ones(width, height), "this one has (1, 1, 8, 6)"),
        (torch.full((6, 8), float("nan")), "a mask lies in [0, 1], this one runs from nan to nan"),
        (torch.full((6, 8), 1.5), "runs from 1.5 to 1.5"),
        (torch.full((6, 8), -0.5), "runs from -0.5 to -0.5"),
    ],
)
def test_masks_that_do_not_fit_are_refused(mask: object, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        as_mask(mask, (6, 8))


@pytest.mark.parametrize("size", [(12, 16), (3, 4), (59, 79), (600, 800)])
def test_a_mask_of_another_size_is_resized_with_a_warning(size: tuple[int, int]) -> None:
    mask = torch.zeros(size)
    mask[:, size[1] // 2 :] = 1
    with pytest.warns(UserWarning, match=f"a mask of {size[1]}x{size[0]} pixels is resized to 80x60"):
        found = as_mask(mask, (60, 80))
    assert found.shape == (1, 1, 60, 80)
    assert found[..., :30].max() < 0.1 and found[..., 50:].min() > 0.9
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(as_mask(mask, (60, 80), warn=False), found)
        as_mask(found, (60, 80))


# --- guides -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", ["relu1_1", "relu2_2", "pool2", "relu3_3"])
def test_a_guide_is_the_least_of_what_a_unit_sees(pocket: lk.Backbone, layer: str) -> None:
    """Against a loop over units; half of the masks are soft."""
    mask = (torch.rand(3, 4, generator=torch.Generator().manual_seed(0)) > 0.3).float()
    mask = mask.repeat_interleave(33, 0).repeat_interleave(33, 1)[:96, :128]
    mask[:40] *= 0.5
    field, size = pocket.receptive_field(layer), pocket.map_size(layer, (96, 128))
    truth = torch.zeros(size)
    for row in range(size[0]):
        for column in range(size[1]):
            top, left = (field.start + index * field.stride for index in (row, column))
            seen = mask[max(0, top) : top + field.size, max(0, left) : left + field.size]
            truth[row, column] = seen.min()
    assert 0 < truth.sum() < truth.numel()
    assert torch.equal(guide_map(mask, field, size), truth)


@pytest.mark.parametrize("name", ["pocket", "resnet50", "googlenet"])
def test_a_guide_of_everything_is_everything(name: str) -> None:
    backbone = network(name)
    for layer in [*backbone.recommended.style, backbone.names[-1]]:
        size = backbone.map_size(layer, (97, 131))
        assert torch.equal(guide_map(torch.ones(97, 131), backbone.receptive_field(layer), size), torch.ones(size))


def test_a_region_smaller_than_the_field_counts_by_its_share(pocket: lk.Backbone) -> None:
    mask = torch.zeros(96, 128)
    mask[40:48, 64:68] = 1
    field, size = pocket.receptive_field("relu3_3"), pocket.map_size("relu3_3", (96, 128))
    found = guide_map(mask, field, size)
    assert found[10:12, 16].tolist() == [1, 1] and found.sum() == 2  # cells of 4 x 4 pixels


# --- styles in masks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("statistic", ["gram", "wasserstein"])
def test_a_style_does_nothing_outside_its_mask(pocket: lk.Backbone, statistic: str) -> None:
    found = gradient(pocket, lk.style(koi(), LAYERS, mask=LEFT, statistic=statistic))
    assert not found[..., 64:].any()
    assert found[..., :64].abs().sum((0, 1, 2)).min() > 0


@pytest.mark.parametrize("statistic", ["gram", "wasserstein"])
def test_a_painting_is_looked_at_inside_its_mask_only(pocket: lk.Backbone, statistic: str) -> None:
    mask = torch.zeros(koi().shape[-2:])
    mask[20:90] = 1
    changed, inside = koi().clone(), koi().clone()
    changed[:, :, :20] = inside[:, :, 60:70] = 0.5
    truth, same, other = (
        gradient(pocket, lk.style(x, LAYERS, painting_masks=mask, statistic=statistic))
        for x in (koi(), changed, inside)
    )
    assert torch.equal(truth, same)
    assert not torch.allclose(truth, other)


@pytest.mark.parametrize("statistic", ["gram", "wasserstein"])
@pytest.mark.parametrize("gray", [1.0, 0.3])
def test_an_even_mask_changes_nothing(pocket: lk.Backbone, gray: float, statistic: str) -> None:
    """A guide weighs a mean: what is the same everywhere cancels."""
    masks = torch.full((96, 128), gray), torch.full(koi().shape[-2:], 0.5)
    even = gradient(pocket, lk.style(koi(), LAYERS, mask=masks[0], painting_masks=masks[1], statistic=statistic))
    plain = gradient(pocket, lk.style(koi(), LAYERS, statistic=statistic))
    assert (even - plain).norm() < 1e-4 * plain.norm()


def test_a_masked_style_is_that_of_the_part(pocket: lk.Backbone) -> None:
    """With a layer of 1 x 1 fields, the left half's statistics are those of a picture of the left half alone."""
    net = lk.Backbone(
        "point",
        {"relu": torch.nn.Sequential(torch.nn.Conv2d(3, 8, 1), torch.nn.ReLU())},
        torch.nn.Identity(),
        pocket.recommended,
    )
    masked = lk.Evaluator(net, lk.style(koi(), "relu", mask=LEFT), (96, 128), "float32")(cat())
    part = lk.Evaluator(net, lk.style(koi(), "relu", scale=96 / 128 * 4 / 3), (96, 64), "float32")(cat()[..., :64])
    torch.testing.assert_close(masked.loss, part.loss)
    torch.testing.assert_close(masked.gradient[..., :64], part.gradient)


@pytest.mark.parametrize("kind", [lk.style, lk.histogram, partial(lk.nearest_neighbors, cat())])
def test_a_frame_outside_of_the_inset_does_not_matter(pocket: lk.Backbone, kind: Callable[..., lk.Loss]) -> None:
    """relu1_2 sees two pixels further, and an eighth of 64 is more; the histogram's bins are chosen by all."""
    framed = lk.resize(koi(), (64, 64)).clone()
    plain = framed.clone()
    framed[..., :2, :] = framed[..., -2:, :] = framed[..., :, :2] = framed[..., :, -2:] = 0.5
    with_frame, inside = (
        [value(pocket, kind(picture, "relu1_2", inset=inset)) for picture in (plain, framed)] for inset in (0.0, 0.125)
    )
    room = 0.02 if kind is lk.histogram else 1e-5
    assert inside[0] == pytest.approx(inside[1], rel=room)
    assert with_frame[0] != pytest.approx(with_frame[1], rel=2e-4)


@pytest.mark.parametrize("statistic", ["gram", "wasserstein"])
def test_tiles_are_exact_with_guides(pocket: lk.Backbone, statistic: str) -> None:
    source = torch.ones(koi().shape[-2:])
    source[:48] = 0.3
    options = {"layers": LAYERS | {"relu3_1": 1.0}, "statistic": statistic}
    loss = lk.style(koi(), mask=LEFT, painting_masks=source, **options)
    loss = loss + 2 * lk.style(pond(), mask=1 - 0.7 * LEFT, **options)
    whole, cut = gradient(pocket, loss), gradient(pocket, loss, 64)
    assert whole.norm() > 0 and (cut - whole).norm() < 1e-5 * whole.norm()


# --- stylize ------------------------------------------------------------------------------------------------------

SETTINGS = {"statistic": "gram", "chroma_tv_weight": 0.0, "style_inset": 0.0}
LOOP: dict[str, Any] = {"steps": 20, "min_scale": 90, "precision": "float32", "parameterization": "pixels"}


def objective(*paintings: Tensor, photo: Tensor | None = None, **options: Any) -> lk.Loss:
    settings = {**SETTINGS, "style_layers": LAYERS, "content_weight": 0.1, "tv_weight": 0.0} | options
    return lk.style_objective(cat() if photo is None else photo, list(paintings), **settings)


def stylize(pocket: lk.Backbone, loss: lk.Loss, **options: Any) -> Tensor:
    return lk.stylize(cat(), loss, backbone=pocket, progress=False, **LOOP | options)


def test_each_half_comes_nearer_to_its_own_painting(pocket: lk.Backbone) -> None:
    picture = stylize(pocket, objective(koi(), pond(), masks=[LEFT, 1 - LEFT]))
    for half, own, other in ((picture[..., :64], koi(), pond()), (picture[..., 64:], pond(), koi())):
        to_own, to_other = (
            lk.Evaluator(pocket, lk.style(x, LAYERS, scale=4 / 3), (96, 64), "float32")(half).loss for x in (own, other)
        )
        assert to_own < 0.7 * to_other


def test_a_mask_leaves_the_rest_a_photo(pocket: lk.Backbone) -> None:
    changed = (stylize(pocket, objective(koi(), masks=LEFT, content_weight=0), min_scale=128) - cat()).abs()
    assert changed[..., 64:].max() < 1e-6 < 0.05 < changed[..., :64].mean()


def test_a_pixel_feels_a_small_region_as_strongly_as_a_large_one(pocket: lk.Backbone) -> None:
    """Flat statistics, so that only areas differ: the gradient of a style in half of a pattern is that of the whole."""
    pattern = lk.resize(cat(), (48, 64)).repeat(1, 1, 2, 2)
    half = torch.zeros(96, 128)
    half[:48] = 1
    runs = [
        next(lk.stylizing(pattern, loss, backbone=pocket, **LOOP | {"min_scale": 128}))
        for loss in (objective(koi(), photo=pattern, masks=m, content_weight=0) for m in (half, torch.ones(96, 128)))
    ]
    in_half, in_all = (run.evaluation.gradient[:, :, 10:38] for run in runs)
    assert (in_half - in_all).norm() < 0.2 * in_all.norm()


def test_histograms_are_masked_as_styles_are(pocket: lk.Backbone) -> None:
    loss = objective(koi(), masks=LEFT, histogram_weight=4, content_weight=0)
    (only,) = lk.stylizing(cat(), loss, backbone=pocket, **LOOP | {"min_scale": 128, "steps": 1})
    evaluator = lk.Evaluator(pocket, lk.histogram(koi(), LAYERS, mask=LEFT), cat().shape[-2:], "float32")
    assert only.terms["histogram"] == pytest.approx(4 * LEFT.mean().item() * evaluator(cat()).loss.item(), rel=1e-5)
    assert not only.evaluation.gradient[..., 64:].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"masks": [LEFT, LEFT]}, "1 paintings need as many masks and weights"),
        ({"masks": LEFT, "style_weights": [1, 2]}, "1 paintings need as many masks and weights"),
        ({"masks": LEFT, "style_weights": [-1]}, "style weight 1 must be a number of at least 0, not -1"),
        ({"masks": LEFT.T}, "a mask for this picture has the shape (96, 128), this one has (1, 1, 128, 96)"),
        ({"masks": 0 * LEFT}, "a style's mask is one for all pictures, and not empty"),
        ({"masks": torch.ones(2, 1, 96, 128)}, "a style's mask is one for all pictures, and not empty"),
        ({"painting_masks": [None, None]}, "there are 1 paintings and 2 masks of paintings"),
        ({"painting_masks": torch.ones(10, 30)}, "this one has (1, 1, 10, 30)"),
    ],
)
def test_masks_that_make_no_sense_are_refused(pocket: lk.Backbone, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        stylize(pocket, objective(koi(), **options))


@pytest.mark.parametrize("inset", [0.0, 0.1])
def test_colors_in_a_mask_are_those_of_the_pixels_inside(inset: float) -> None:
    network, picture = lk.load_backbone("pocket", "cpu"), lk.photo("coffee", (32, 40))
    left = torch.zeros(32, 40)
    left[:, :20] = 1
    loss = lk.style(picture[..., :20], "pixels", mask=left, inset=inset)
    outside = picture.clone()
    outside[..., 20:] = 0
    found = [lk.Evaluator(network, loss, (32, 40), "float32")(x) for x in (picture, outside)]
    assert torch.equal(found[0].loss, found[1].loss) and not found[0].gradient[..., 20:].any()
    assert (found[0].loss < 1e-9) == (inset == 0)
