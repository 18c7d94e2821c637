"""DeepDream: its parts against closed forms and SciPy, the whole against the algorithm of 2015."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d, gaussian_filter
from torch import Tensor, nn

import labkit as lk
from labkit.pictures.filters import blurred
from labkit.pictures.masks import texture_mask
from labkit.recipes.deepdream import dream_loss, octave_sizes, octave_steps, saliency_mask
from labkit.recipes.dream_gradients import (
    anchored,
    balanced,
    color_mixing,
    dream_gradient,
    natural,
    normalized,
    rolled,
    smoothed,
)

cat = cache(lambda: lk.photo("chelsea", 64))
QUICK = {**lk.presets.PLAIN, "octaves": 2, "steps": 2, "jitter": 8, "precision": "float32", "progress": False}


@pytest.fixture(scope="module")
def pocket() -> lk.Backbone:
    return lk.load_backbone("pocket", "cpu")


@pytest.fixture(scope="module")
def bvlc() -> lk.Backbone:
    try:
        return lk.load_backbone("googlenet_bvlc", "cpu")
    except FileNotFoundError as error:
        pytest.skip(str(error))


def dream(photo: Any, backbone: lk.Backbone, layers: Any = None, **options: object) -> Tensor:
    return lk.dream(photo, layers, backbone=backbone, **QUICK | options)


# --- octaves ------------------------------------------------------------------------------------------------------


def test_octaves_grow_by_their_scale_to_the_photos_size() -> None:
    assert octave_sizes((480, 640), 4, 1.4) == [(175, 233), (245, 327), (343, 457), (480, 640)]
    assert octave_sizes((30, 99), 1, 2.0) == [(30, 99)]


@pytest.mark.parametrize(("least", "count"), [(1, 4), (25, 3), (51, 1), (101, 1), (500, 1)])
def test_octaves_below_the_networks_least_size_are_left_out(least: int, count: int) -> None:
    sizes = octave_sizes((100, 200), 4, 2.0, least)
    assert sizes == [(12, 25), (25, 50), (50, 100), (100, 200)][-count:]


def test_a_small_photo_dreams_in_fewer_octaves(pocket: lk.Backbone) -> None:
    photo = lk.photo("chelsea", (24, 30))
    run = lk.dreaming(
        photo, "relu4_3", backbone=pocket, octaves=4, octave_scale=2, steps=1, precision="float32"
    )  # needs 8
    assert [p.picture.shape[-2:] for p in run] == [(12, 15), (24, 30)]


@pytest.mark.parametrize("octaves", [1, 2, 4])
def test_without_a_step_the_photo_comes_back(pocket: lk.Backbone, octaves: int) -> None:
    """Small octaves lose detail; the photo's own is kept apart and put back."""
    assert torch.equal(dream(cat(), pocket, "relu1_2", octaves=octaves, step_size=0), cat())


# --- the gradient -------------------------------------------------------------------------------------------------


class Invariant:
    """An evaluator by a function, of nothing that knows its place."""

    def __init__(self, evaluate: Callable[[Tensor], lk.Evaluation]):
        self.evaluate = evaluate

    def __call__(self, picture: Tensor) -> lk.Evaluation:
        return self.evaluate(picture)

    def split(self) -> tuple[Any, None]:
        return self, None


def pointwise(picture: Tensor) -> lk.Evaluation:
    """The loss sum(x^3) / 3: its gradient moves with the picture."""
    loss = (picture**3).sum((1, 2, 3)) / 3
    return lk.Evaluation(loss, {("cubes", ""): loss}, picture**2)


def test_jitter_rolls_the_picture_and_the_gradient_back() -> None:
    seen: list[Tensor] = []

    def noted(picture: Tensor) -> lk.Evaluation:
        seen.append(picture)
        return pointwise(picture)

    evaluate = dream_gradient(Invariant(noted), jitter=5, generator=torch.Generator().manual_seed(0))
    expected = normalized(cat() ** 2)
    for _ in range(8):
        assert torch.equal(evaluate(cat()).gradient, expected)
    shifts = [
        next(s for s in itertools.product(range(-5, 6), repeat=2) if torch.equal(torch.roll(cat(), s, (2, 3)), picture))
        for picture in seen
    ]
    assert len(set(shifts)) > 4
    assert any(row != column for row, column in shifts)


def test_jitter_takes_every_shift_and_none_beyond() -> None:
    corner = torch.zeros(1, 3, 9, 9)
    corner[..., 4, 4] = 1
    places: list[int] = []

    def noted(picture: Tensor) -> lk.Evaluation:
        places.append(int(picture[0, 0].argmax()))
        return pointwise(picture)

    evaluate = dream_gradient(Invariant(noted), jitter=2, generator=torch.Generator().manual_seed(0))
    for _ in range(400):
        evaluate(corner)
    assert set(places) == {9 * row + column for row in range(2, 7) for column in range(2, 7)}


def test_a_gradient_is_rolled_back_smoothed_normalized_and_masked_in_this_order() -> None:
    mask = torch.rand(1, 1, *cat().shape[-2:])
    fixed = torch.randn(1, 3, *cat().shape[-2:])

    def evaluator(picture: Tensor) -> lk.Evaluation:
        return lk.Evaluation(torch.zeros(1), {}, fixed)

    shift = torch.randint(-6, 7, (2,), generator=torch.Generator().manual_seed(3)).tolist()
    evaluate = dream_gradient(
        Invariant(evaluator), jitter=6, smoothing=0.8, mask=mask, generator=torch.Generator().manual_seed(3)
    )
    back = torch.roll(fixed, (-shift[0], -shift[1]), (2, 3))
    assert torch.equal(evaluate(cat()).gradient, normalized(smoothed(back, 0.8)) * mask)


def test_normalized_gradients_have_a_mean_size_of_one() -> None:
    gradient = torch.randn(3, 3, 8, 9) * torch.tensor([1e-12, 1.0, 1e12])[:, None, None, None]
    torch.testing.assert_close(normalized(gradient).abs().mean((1, 2, 3)), torch.ones(3))
    torch.testing.assert_close(normalized(gradient)[1], normalized(gradient[1:2])[0])
    assert not normalized(torch.zeros(1, 3, 4, 4)).any()


@pytest.mark.parametrize("sigma", [0.25, 0.5, 1.0, 3.0, 8.0])
def test_a_blur_keeps_constants(sigma: float) -> None:
    constant = torch.full((2, 3, 20, 23), 0.7)
    torch.testing.assert_close(blurred(constant, sigma), constant)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_a_blurs_impulse_response_is_a_symmetric_gaussian(sigma: float) -> None:
    impulse = torch.zeros(1, 3, 25, 25, dtype=torch.float64)
    impulse[..., 12, 12] = 1
    response = blurred(impulse, sigma)
    for turned in (response.flip(2), response.flip(3), response.mT):
        torch.testing.assert_close(turned, response)
    torch.testing.assert_close(response.sum((2, 3)), torch.ones(1, 3, dtype=torch.float64))
    along = response[0, 0, 12]
    assert (along[12] / along[13]).log().item() == pytest.approx(1 / (2 * sigma**2))


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.5])
def test_a_blur_agrees_with_scipy(sigma: float) -> None:
    noise = torch.rand(2, 3, 24, 31, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = gaussian_filter(noise.numpy(), (0, 0, sigma, sigma), mode="mirror")
    assert np.abs(blurred(noise, sigma).numpy() - expected).max() < 1e-3


def test_smoothing_is_the_mean_of_three_blurs() -> None:
    noise = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    three = [gaussian_filter(noise.numpy(), (0, 0, s, s), mode="mirror") for s in (0.75, 1.5, 3.0)]
    assert np.abs(smoothed(noise, 1.5).numpy() - np.mean(three, 0)).max() < 1e-3
    assert smoothed(noise, 0) is noise


def half(picture: np.ndarray) -> np.ndarray:
    """Blurred by [1, 4, 6, 4, 1] / 16 each way with black around it, and every other pixel of that."""
    for axis in (1, 2):
        picture = correlate1d(picture, np.array([1, 4, 6, 4, 1]) / 16, axis, mode="constant")
    return picture[:, ::2, ::2]


def double(picture: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Every other pixel of a larger picture, the others 0, blurred, four times as bright."""
    wide = np.zeros(shape)
    wide[:, ::2, ::2] = picture
    for axis in (1, 2):
        wide = correlate1d(wide, np.array([1, 4, 6, 4, 1]) / 8, axis, mode="constant")
    return wide


@pytest.mark.parametrize("size", [(32, 48), (31, 50), (5, 3)])
def test_a_balanced_gradient_is_that_of_the_tutorial(size: tuple[int, int]) -> None:
    """The tutorial's lap_normalize, restated with SciPy."""
    noise = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for one, found in zip(noise.numpy(), balanced(noise, 3).numpy(), strict=True):
        levels = []
        for _ in range(3):
            coarse = half(one)
            levels.append(one - double(coarse, one.shape))
            one = coarse
        expected = one / np.sqrt((one**2).mean())
        for level in levels[::-1]:
            expected = double(expected, level.shape) + level / np.sqrt((level**2).mean())
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_balancing_forgets_the_size_of_a_gradient_and_may_be_left_out() -> None:
    gradient = torch.randn(1, 3, 24, 25, generator=torch.Generator().manual_seed(0))
    assert balanced(gradient, 0) is gradient
    assert not balanced(torch.zeros(1, 3, 9, 9), 4).any()
    for scale in (1e-25, 1e-12, 1e12):
        torch.testing.assert_close(balanced(scale * gradient, 4), balanced(gradient, 4), rtol=1e-4, atol=1e-4)


def test_balancing_brings_out_the_coarse_detail_of_a_dream(pocket: lk.Backbone) -> None:
    def coarse(picture: Tensor) -> float:
        change = picture - cat()
        return (blurred(change, 4).square().mean() / change.square().mean()).item()

    plain, even = (dream(cat(), pocket, "relu2_2", octaves=1, smoothing=0, laplacian=n) for n in (0, 4))
    assert coarse(even) > 2 * coarse(plain)


def test_a_natural_step_is_the_gradient_step_in_decorrelated_colors() -> None:
    root = lk.pictures.color.color_correlation().double()
    decorrelated = torch.randn(1, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    picture = torch.einsum("rc,nchw->nrhw", root, decorrelated)
    gradient = torch.randn(1, 3, 4, 5, dtype=torch.float64)
    (step,) = torch.autograd.grad(picture, decorrelated, gradient)
    moved = torch.einsum("rc,nchw->nrhw", root, decorrelated + step) - picture
    scale = torch.linalg.eigvalsh(root @ root.T)[-1]
    torch.testing.assert_close(scale * natural(gradient, color_mixing()), moved.detach(), rtol=0, atol=1e-9)


def test_natural_colors_come_by_degrees() -> None:
    gradient = torch.randn(1, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(natural(gradient, color_mixing(0)), gradient)
    twice = natural(natural(gradient, color_mixing(0.3)), color_mixing(0.5))
    torch.testing.assert_close(twice, natural(gradient, color_mixing(0.8)))


def test_decorrelated_dreams_are_less_garish(pocket: lk.Backbone) -> None:
    def colorfulness(picture: Tensor) -> float:
        change = picture - cat()
        return ((change - change.mean(1, keepdim=True)).square().sum() / change.square().sum()).item()

    plain, decorrelated = (dream(cat(), pocket, "relu2_2", decorrelate=d) for d in (False, True))
    assert colorfulness(decorrelated) < 0.5 * colorfulness(plain)


# --- masks --------------------------------------------------------------------------------------------------------


def box(height: int, width: int) -> Tensor:
    mask = torch.zeros(height, width)
    mask[height // 4 : height // 2, width // 3 : width // 2] = 1
    return mask


@pytest.mark.parametrize("octaves", [1, 2, 4])
def test_nothing_changes_outside_the_mask(pocket: lk.Backbone, octaves: int) -> None:
    mask = box(*cat().shape[-2:])
    picture = dream(cat(), pocket, "relu1_2", octaves=octaves, smoothing=1.0, mask=mask)
    changed = (picture != cat()).any(1)[0]
    assert not changed[mask == 0].any()
    assert changed[mask == 1].float().mean() > 0.9


def test_each_photo_of_a_batch_can_have_a_mask_of_its_own(pocket: lk.Backbone) -> None:
    masks = torch.stack([box(*cat().shape[-2:]), box(*cat().shape[-2:]).flip(1)])[:, None]
    found = dream(cat().repeat(2, 1, 1, 1), pocket, "relu1_2", mask=masks, variations=2)
    changed = (found != cat()).any(1)
    assert changed.flatten(1).any(1).all()
    assert not changed[masks.repeat(2, 1, 1, 1)[:, 0] == 0].any()
    with pytest.raises(ValueError, match="2 masks for 3 dreams"):
        dream(cat().repeat(3, 1, 1, 1), pocket, "relu1_2", mask=masks)


def test_masks_of_all_kinds_are_the_same_mask(pocket: lk.Backbone) -> None:
    mask = box(*cat().shape[-2:])
    one, *others = (
        dream(cat(), pocket, "relu2_2", mask=m) for m in (mask, box, mask.numpy(), mask.bool(), mask[None, None])
    )
    assert all(torch.equal(one, other) for other in others)
    everywhere = dream(cat(), pocket, "relu2_2", mask=torch.ones_like(mask))
    torch.testing.assert_close(everywhere, dream(cat(), pocket, "relu2_2"), rtol=0, atol=1e-5)


def test_each_variation_can_have_its_mask(pocket: lk.Backbone) -> None:
    masks = torch.stack([torch.zeros(1, *cat().shape[-2:]), torch.ones(1, *cat().shape[-2:])])
    still, dreamt = dream(cat(), pocket, "relu2_2", mask=masks, variations=2, shuffle=False)
    assert torch.equal(still, cat()[0])
    assert not torch.equal(dreamt, cat()[0])


# --- whole dreams -------------------------------------------------------------------------------------------------


def mean_square(backbone: lk.Backbone, picture: Tensor, layer: str) -> float:
    return backbone.features(picture, [layer])[layer].square().mean().item()


@pytest.mark.parametrize("layer", ["relu2_2", "relu4_3"])
def test_a_dream_raises_its_layer(pocket: lk.Backbone, layer: str) -> None:
    photo = lk.photo("chelsea", 128)
    picture = dream(photo, pocket, layer, steps=10, octaves=3, step_size=2, jitter=32, smoothing=0.5)
    assert mean_square(pocket, picture, layer) > 3 * mean_square(pocket, photo, layer)
    assert picture.shape == photo.shape
    assert picture.min() >= 0 and picture.max() <= 1


def test_a_step_changes_pixels_by_its_size(pocket: lk.Backbone) -> None:
    photo = 0.3 + 0.4 * cat()  # nothing reaches black or white
    picture = dream(photo, pocket, "relu2_2", octaves=1, steps=1, step_size=2.0)
    assert 255 * lk.difference(picture, photo).mean().item() == pytest.approx(2, rel=1e-3)


def test_steps_are_shared_out_over_the_octaves(pocket: lk.Backbone) -> None:
    assert [octave_steps(steps, 3) for steps in (4, (20, 6), [1, 5])] == [[4, 4, 4], [20, 13, 6], [1, 3, 5]]
    assert octave_steps((20, 6), 1) == [20]
    run = lk.dreaming(cat(), "relu2_2", backbone=pocket, octaves=3, steps=(3, 1), precision="float32")
    assert [p.picture.shape[-1] for p in run] == [33, 33, 33, 46, 46, 64]


def test_steps_shrink_evenly_to_their_last(pocket: lk.Backbone) -> None:
    options = QUICK | {"octaves": 1, "steps": 3, "step_size": 4.0, "jitter": 0, "step_decay": 0.5}
    photo = 0.25 + 0.5 * cat()  # far from 0 and 1, where pixels stop
    pictures = [photo, *(p.pixels for p in lk.dreaming(photo, "relu2_2", backbone=pocket, **options))]
    sizes = [255 * (b - a).abs().mean().item() for a, b in pairwise(pictures)]
    assert sizes == pytest.approx([4, 3, 2], rel=0.01)


def test_a_resumed_dream_goes_on_with_the_step_it_had_come_to(pocket: lk.Backbone) -> None:
    options = {"octaves": 1, "steps": 3, "step_decay": 0.2, "backbone": pocket, "precision": "float32"}
    *_, whole = lk.dreaming(cat(), "relu2_2", **options)
    saved = next(lk.dreaming(cat(), "relu2_2", **options)).state_dict()
    *_, resumed = lk.dreaming(cat(), "relu2_2", resume=saved, **options)
    assert torch.equal(whole.picture, resumed.picture)


def test_an_anchored_gradient_weighs_two_directions_of_one_length() -> None:
    dream_way, pull = (torch.randn(2, 3, 5, 6, generator=torch.Generator().manual_seed(n)) for n in (0, 1))
    both = anchored(1e-9 * dream_way, 1e6 * pull, torch.tensor([0.0, 2.0]))
    torch.testing.assert_close(both[:1], normalized(dream_way[:1]))
    torch.testing.assert_close(both[1:], normalized(normalized(dream_way[1:]) + 2 * normalized(pull[1:])))


def test_an_anchor_holds_a_dream_to_the_photos_features(pocket: lk.Backbone) -> None:
    def distance(picture: Tensor) -> float:
        return lk.Evaluator(pocket, lk.content(cat(), "relu2_2"), cat().shape[-2:], "float32")(picture).loss.item()

    free, held = (dream(cat(), pocket, "relu4_3", steps=10, anchor=anchor) for anchor in (0.0, 5.0))
    assert 0 < distance(held) < 0.7 * distance(free)


def test_where_a_photo_is_calm_the_texture_mask_is_at_its_floor(pocket: lk.Backbone) -> None:
    photo = torch.full((1, 3, 96, 96), 0.5)
    photo[..., 48:] = torch.rand(1, 3, 96, 48, generator=torch.Generator().manual_seed(0))
    mask = texture_mask(photo, floor=0.1)
    assert mask.shape == (1, 1, 96, 96)
    torch.testing.assert_close(mask[..., :30], torch.full((1, 1, 96, 30), 0.1), rtol=0, atol=0.02)
    assert mask[..., 60:].min() > 0.5
    picture = dream(photo, pocket, "relu2_2", octaves=1, mask="texture")
    change = lk.difference(picture, photo)
    assert change[..., :30].mean() < 0.35 * change[..., 60:].mean()
    patch = torch.full((1, 3, 192, 192), 0.5)
    patch[..., 72:120, 72:120] = lk.photo("chelsea", (48, 48))
    mask = texture_mask(patch)
    assert mask[..., :40, :40].max() < 0.06 and mask[..., 90:102, 90:102].min() > 0.9, "calm, though most of it is"
    faint = texture_mask(0.5 + 0.03 * (patch - 0.5))
    assert faint.max() == 1 and faint[..., :40, :40].max() < 0.06, "faint, and dreamt on where it has most"


def test_the_saliency_mask_is_where_the_class_depends_on_the_picture(pocket: lk.Backbone) -> None:
    """Two photos, a cat to the left and a cat to the right of an empty half; each mask is its own picture's."""
    photos = torch.full((2, 3, 128, 256), 0.5)
    photos[0, ..., :128] = photos[1, ..., 128:] = lk.photo("chelsea", (128, 128))[0]
    mask = saliency_mask(pocket, photos)
    assert mask.shape == (2, 1, 128, 256) and mask.max() == 1
    left, right = mask[..., :110].mean((1, 2, 3)), mask[..., 146:].mean((1, 2, 3))
    assert left[0] > 3 * right[0] and right[1] > 3 * left[1]
    torch.testing.assert_close(mask[1:], saliency_mask(pocket, photos[1:]), rtol=1e-3, atol=1e-3)
    change = (dream(photos[:1], pocket, "relu2_2", mask="salient") - photos[:1]).abs()
    assert change[..., :100].mean() > 2 * change[..., 156:].mean()


@pytest.mark.parametrize("loss", ["content", "caricature", "pixel_mse", "style in a mask"])
def test_losses_that_know_the_photo_are_not_asked_of_a_rolled_one(pocket: lk.Backbone, loss: str) -> None:
    left = torch.zeros(cat().shape[-2:])
    left[:, :40] = 1
    known = {
        "content": lk.content(cat(), "relu2_2"),
        "caricature": lk.caricature(cat(), "relu2_2"),
        "pixel_mse": lk.pixel_mse(cat()),
        "style in a mask": lk.style(lk.painting("koi_mosaic", 64), "relu2_2", mask=left),
    }[loss]
    both = 2 * known - lk.activation("relu3_1")
    evaluator = lk.Evaluator(pocket, both, cat().shape[-2:], "float32")
    options = {"generator": torch.Generator().manual_seed(0), "jitter": 16}
    asked, name = dream_gradient(evaluator, **options)(cat()), loss.split()[0]
    assert asked.source is evaluator
    torch.testing.assert_close(asked.terms[name], evaluator(cat()).terms[name])
    assert asked.terms["activation"] != evaluator(cat()).terms["activation"]
    torch.testing.assert_close(asked.loss, asked.terms[name] + asked.terms["activation"])


def test_the_parts_of_a_split_loss_pull_together(pocket: lk.Backbone) -> None:
    evaluator = lk.Evaluator(
        pocket, lk.content(cat(), "relu2_2") - lk.activation("relu3_1"), cat().shape[-2:], "float32"
    )
    picture = 0.5 * cat()
    invariant, dependent = evaluator.split()
    assert invariant is not None and dependent is not None
    whole, both = evaluator(picture), invariant(picture).plus(dependent(picture))
    torch.testing.assert_close(both.gradient, whole.gradient, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(both.loss, whole.loss)
    assert both.layer_terms.keys() == whole.layer_terms.keys()


def test_sums_in_a_sum_are_split_as_well(pocket: lk.Backbone) -> None:
    part = 0.1 * lk.content(cat(), "relu2_2") - lk.activation("relu3_1")
    both = [lk.Evaluator(pocket, loss, cat().shape[-2:], "float32") for loss in (part, lk.per_picture([part]))]
    (flat, _), (nested, dependent) = (evaluator.split() for evaluator in both)
    assert flat is not None and nested is not None and dependent is not None
    torch.testing.assert_close(nested(0.5 * cat()).gradient, flat(0.5 * cat()).gradient)
    assert nested.gradients_by_term(cat()).keys() == {"activation"}


DEFAULT = {"octaves": 2, "steps": (3, 2), "jitter": 8, "precision": "float32", "progress": False}


def test_a_dream_by_default_is_resumed_and_cut_and_made_in_batches(pocket: lk.Backbone) -> None:
    """With anchor and texture mask: two photos, each dreamt twice."""
    photos = torch.cat([lk.photo(name, (96, 128)) for name in ("chelsea", "coffee")])
    run = lk.dreaming(photos, backbone=pocket, variations=2, **DEFAULT)
    half = [next(run) for _ in range(4)][-1].state_dict()
    *_, whole = run
    assert whole.picture.shape == (4, 3, 96, 128)
    assert (whole.picture[:2] - whole.picture[2:]).abs().mean() > 1e-3
    *_, resumed = lk.dreaming(photos, backbone=pocket, variations=2, resume=half, **DEFAULT)
    torch.testing.assert_close(resumed.picture, whole.picture)
    *_, tiled = lk.dreaming(photos, backbone=pocket, variations=2, tile=64, **DEFAULT)
    torch.testing.assert_close(tiled.picture, whole.picture, rtol=0, atol=2e-3)
    assert not torch.equal(tiled.picture, whole.picture)


def test_a_network_of_ones_own_dreams_by_default() -> None:
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, stride=2, padding=1), nn.ReLU()]
    wrapped = lk.wrap(nn.Sequential(*layers), layers=["0", "1", "2", "3"])
    assert (lk.dream(cat(), backbone=wrapped, device="cpu", **DEFAULT) - cat()).abs().mean() > 1e-3
    wrapped.recommended = lk.Recommended((), "1", ())
    assert (lk.dream(cat(), "1", backbone=wrapped, device="cpu", **DEFAULT) - cat()).abs().mean() > 1e-3
    with pytest.raises(ValueError, match="recommends no layer to dream of: name one of"):
        lk.dreaming(cat(), backbone=wrapped)


def test_the_anchor_lies_in_a_map_and_not_in_the_logits() -> None:
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)]
    wrapped = lk.wrap(nn.Sequential(*layers), layers="1", recommended=lk.Recommended("1", "1", ()))
    assert wrapped.layers == ["1", "logits"]
    assert (lk.dream(cat(), backbone=wrapped, device="cpu", **DEFAULT) - cat()).abs().mean() > 1e-3


def test_octaves_leave_room_for_the_anchor(pocket: lk.Backbone) -> None:
    with pytest.raises(ValueError, match="too small for relu2_2"):
        lk.dreaming(lk.photo("chelsea", (1, 1)), "relu1_1", backbone=pocket)
    *_, last = lk.dreaming(lk.photo("chelsea", (4, 4)), "relu1_1", backbone=pocket, progress=False)
    assert last.picture.shape == (1, 3, 4, 4)


def test_layers_are_given_in_four_ways(pocket: lk.Backbone) -> None:
    one = dream(cat(), pocket, "relu2_2")
    assert torch.equal(one, dream(cat(), pocket, {"relu2_2": 1}))
    assert torch.equal(one, dream(cat(), pocket, -lk.activation("relu2_2")))
    (recommended,) = pocket.recommended.dream
    assert torch.equal(dream(cat(), pocket), dream(cat(), pocket, recommended))


def test_a_weight_decides_between_layers(pocket: lk.Backbone) -> None:
    def raised(weights: dict[str, float]) -> float:
        return mean_square(pocket, dream(cat(), pocket, weights), "relu1_1")

    assert raised({"relu1_1": 1, "relu2_2": 0}) > 1.1 * raised({"relu1_1": 1e-3, "relu2_2": 1})


def test_a_dream_follows_any_loss(pocket: lk.Backbone) -> None:
    """Also one of pixels alone, and minimized: this one flattens the picture."""
    rough = lk.Evaluator(pocket, lk.total_variation(), cat().shape[-2:], "float32")
    picture = dream(cat(), pocket, lk.total_variation(), octaves=1, steps=5, step_size=1.0, smoothing=0)
    assert rough(picture).loss < 0.5 * rough(cat()).loss
    names = [
        p.terms.keys()
        for p in lk.dreaming(cat(), -lk.class_logit(285) + lk.total_variation(), backbone=pocket, steps=1)
    ]
    assert all(name == {"class_logit", "total_variation"} for name in names)


def test_a_dream_can_have_a_style(pocket: lk.Backbone) -> None:
    """The sum of a style and a dream lowers the one and raises the other."""
    look = lk.Evaluator(pocket, lk.style(lk.painting("koi_mosaic", 64)), cat().shape[-2:], "float32")
    style = lk.style(lk.painting("koi_mosaic", 64))
    alone = dream(cat(), pocket, style, steps=20)
    picture = dream(cat(), pocket, style - 0.5 * lk.activation("relu4_3", relative=True), steps=20)
    assert look(picture).loss < 0.3 * look(cat()).loss
    assert mean_square(pocket, picture, "relu4_3") > 1.5 * mean_square(pocket, alone, "relu4_3")


def test_photos_dream_as_a_batch(pocket: lk.Backbone) -> None:
    photos = torch.cat([cat(), cat().flip(3)])
    together = dream(photos, pocket, "relu2_2", jitter=0)
    alone = torch.cat([dream(photo[None], pocket, "relu2_2", jitter=0) for photo in photos])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-3)
    assert dream(photos, pocket, "relu2_2", variations=2).shape == (4, *cat().shape[1:])


# --- variations ---------------------------------------------------------------------------------------------------


LAYERS = {"relu1_2": 1.0, "relu2_2": 3.0}


@pytest.mark.parametrize(
    ("shuffle", "jitter", "differ"), [(None, 0, True), (True, 0, True), (False, 8, True), (False, 0, False)]
)
def test_variations_differ_by_their_weights_and_their_jitter(
    pocket: lk.Backbone, shuffle: bool | None, jitter: int, differ: bool
) -> None:
    pictures = dream(cat(), pocket, LAYERS, variations=3, shuffle=shuffle, jitter=jitter)
    assert pictures.shape == (3, *cat().shape[1:])
    for a, b in itertools.combinations(pictures[:, None], 2):
        assert (lk.difference(a, b).mean() > 1e-4) == differ


def test_rolled_moves_each_picture_by_its_own_shift_and_back() -> None:
    pictures, shifts = torch.rand(2, 3, 5, 6), torch.tensor([[1, -2], [0, 3]])
    moved = rolled(pictures, shifts)
    assert torch.equal(moved[1], torch.cat([pictures[1, ..., 3:], pictures[1, ..., :3]], -1))
    assert torch.equal(rolled(moved, -shifts), pictures)


def test_a_single_dream_is_shuffled_only_if_asked(pocket: lk.Backbone) -> None:
    plain = dream(cat(), pocket, LAYERS)
    assert torch.equal(dream(cat(), pocket, LAYERS, shuffle=False), plain)
    assert lk.difference(dream(cat(), pocket, LAYERS, shuffle=True), plain).mean() > 1e-3


@pytest.mark.parametrize(
    ("layers", "given"), [(LAYERS, [-1, -3]), (lk.total_variation() - 2 * lk.activation("relu1_2"), [1, -2])]
)
def test_shuffled_weights_sum_to_what_was_given(
    pocket: lk.Backbone, layers: dict[str, float] | lk.Loss, given: list[float]
) -> None:
    loss = dream_loss(pocket, layers, 50, shuffle=True, generator=torch.Generator().manual_seed(0))
    weights = torch.stack([w for w, _ in loss.summands])
    assert (weights.sign() == torch.tensor(given).sign()[:, None]).all()
    torch.testing.assert_close(weights.abs().sum(0), torch.tensor(given).float().abs().sum().expand(50))
    assert weights[0].unique().numel() == 50


def test_shuffling_favors_no_layer(pocket: lk.Backbone) -> None:
    """Uniform on the simplex: of three weights that sum to 3 each has the mean 1 and the variance 1/2."""
    layers = dict.fromkeys(("relu1_1", "relu2_1", "relu3_1"), 1.0)
    loss = dream_loss(pocket, layers, 20_000, shuffle=True, generator=torch.Generator().manual_seed(0))
    weights = -torch.stack([w for w, _ in loss.summands])
    torch.testing.assert_close(weights.mean(1), torch.ones(3), rtol=0.03, atol=0)
    torch.testing.assert_close(weights.var(1), torch.full((3,), 0.5), rtol=0.05, atol=0)


# --- channels -----------------------------------------------------------------------------------------------------


def test_channels_are_ranked_by_their_mean_square(pocket: lk.Backbone) -> None:
    photos = torch.cat([cat(), cat().flip(3)])
    squares = pocket.features(photos, ["relu4_3"])["relu4_3"].square().mean((0, 2, 3))
    strong = lk.ranked_channels(photos, "relu4_3", 256, backbone=pocket)
    assert sorted(strong) == list(range(256))
    assert squares[strong].diff().max() < 1e-3 * squares.max()
    assert lk.ranked_channels(photos, "relu4_3", 5, backbone=pocket) == strong[:5]
    weak = lk.ranked_channels(photos, "relu4_3", 5, backbone=pocket, order="weakest")
    assert squares[weak].max() <= squares.sort().values[4] * 1.001


def test_random_channels_differ_and_are_the_seeds(pocket: lk.Backbone) -> None:
    first, again, other = (
        lk.ranked_channels(cat(), "logits", 20, backbone=pocket, order="random", seed=s) for s in (1, 1, 2)
    )
    assert first == again != other
    assert len(set(first)) == 20 and max(first) < 1000


def test_a_dream_of_the_strongest_channel_raises_it(pocket: lk.Backbone) -> None:
    (channel,) = lk.ranked_channels(cat(), "relu3_3", 1, backbone=pocket)
    picture = dream(cat(), pocket, -lk.activation("relu3_3", channel=channel))
    before, after = (pocket.features(p, ["relu3_3"])["relu3_3"][:, channel].square().mean() for p in (cat(), picture))
    assert after > 1.5 * before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "relu1_1", "count": 33}, "count must be a whole number from 1 to 32, not 33"),
        ({"count": 0}, "count must be a whole number from 1 to 64, not 0"),
        ({"order": "best"}, "order is one of strongest, weakest, random, not 'best'"),
        ({"layer": "relu9_1"}, "pocket has no layer 'relu9_1'"),
    ],
)
def test_channels_that_are_not_there_are_refused(pocket: lk.Backbone, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        lk.ranked_channels(cat(), **{"layer": "relu2_2", "backbone": pocket} | options)


def test_a_channel_out_of_range_says_how_many_there_are(pocket: lk.Backbone) -> None:
    with pytest.raises(ValueError, match="relu1_1 of pocket has 32 channels, numbered from 0 to 31"):
        dream(cat(), pocket, -lk.activation("relu1_1", channel=32))


# --- the original -------------------------------------------------------------------------------------------------


def original_octave(backbone: lk.Backbone, photo: Tensor, steps: int, seed: int) -> Tensor:
    """One octave of Google's notebook of 2015, restated: pixels from 0 to 255, ascending 1/2 ||a||^2 by hand."""
    generator = torch.Generator().manual_seed(seed)
    pixels = photo * 255
    for _ in range(steps):
        down, right = torch.randint(-32, 33, (2,), generator=generator).tolist()
        pixels = pixels.roll(down, 2).roll(right, 3).requires_grad_()
        activation = backbone.features(pixels / 255, ["inception_4c"])["inception_4c"]
        (gradient,) = torch.autograd.grad(activation, pixels, grad_outputs=activation.detach())
        with torch.no_grad():
            pixels = pixels + 1.5 / gradient.abs().mean() * gradient
            pixels = pixels.roll(-right, 3).roll(-down, 2).clamp(0, 255)
    return pixels / 255


def test_one_octave_is_the_original_algorithm(bvlc: lk.Backbone) -> None:
    photo = lk.photo("chelsea", 96)
    options = lk.presets.ORIGINAL_DREAM | {"octaves": 1}
    picture = lk.dream(photo, backbone=bvlc, **options, seed=5, precision="float32", progress=False)
    torch.testing.assert_close(picture, original_octave(bvlc, photo, options["steps"], 5), rtol=0, atol=1e-4)
    assert lk.difference(picture, photo).mean() > 0.01


def test_the_original_preset_runs(bvlc: lk.Backbone) -> None:
    photo = lk.photo("chelsea", 96)
    run = lk.dreaming(photo, backbone=bvlc, **lk.presets.ORIGINAL_DREAM | {"octaves": 2}, precision="float32")
    found = list(run)
    assert [(p.stage, p.stages, p.of) for p in found] == [(1, 2, 20)] * 10 + [(2, 2, 20)] * 10
    assert mean_square(bvlc, found[-1].picture, "inception_4c") > 2 * mean_square(bvlc, photo, "inception_4c")


def test_the_articles_preset_runs(pocket: lk.Backbone) -> None:
    picture = dream(cat(), pocket, **lk.presets.ARTICLE_DREAM)
    assert lk.difference(picture, cat()).mean() > 1e-3


@pytest.mark.parametrize("name", ["CREATURES", "BIRDS", "CASTLES", "REEF", "FUR_AND_EYES", "CARVED"])
def test_presets_bring_about_what_they_are_named_after(pocket: lk.Backbone, name: str) -> None:
    """Layers by the logarithm of their energy: a tenth more of it at least, of classes twice."""
    preset = getattr(lk.presets, name)
    evaluator = lk.Evaluator(pocket, preset["layers"], cat().shape[-2:], "float32")
    gain = evaluator(cat()).loss - evaluator(dream(cat(), pocket, **{**preset, "octaves": 2, "steps": 4})).loss
    assert gain > (0.7 if name in ("BIRDS", "CASTLES", "REEF") else 0.1)


# --- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be a whole number from 1 to 1,000,000, not 0"),
        ({"steps": (4, 0)}, "steps must be a whole number from 1 to 1,000,000, not 0"),
        ({"steps": (4, 3, 2)}, "steps are a number, or two of the smallest and the largest octave, not (4, 3, 2)"),
        ({"step_decay": 2}, "step_decay must be a number from 0 to 1, not 2"),
        ({"decorrelate": -1}, "decorrelate must be a number from 0 to 1, not -1"),
        ({"anchor": 1000}, "anchor must be a number from 0 to 100, not 1000"),
        ({"octaves": 0}, "octaves must be a whole number from 1 to 1,000, not 0"),
        ({"octave_scale": 1}, "octave_scale must be a number from 1.01 to 100, not 1"),
        ({"variations": 0}, "variations must be a whole number from 1 to 1,000, not 0"),
        ({"step_size": -1}, "step_size must be a number from 0 to 1,000, not -1"),
        ({"step_size": float("nan")}, "step_size must be a number from 0 to 1,000, not nan"),
        ({"laplacian": -1}, "laplacian must be a whole number from 0 to 10,000, not -1"),
        ({"jitter": -1}, "jitter must be a whole number from 0 to 10,000, not -1"),
        ({"smoothing": -0.5}, "smoothing must be a number from 0 to 1,000, not -0.5"),
        ({"layers": {"relu2_2": -1}}, "the weight of relu2_2 must be a number of at least 0, not -1"),
        ({"layers": {"relu2_2": float("inf")}}, "the weight of relu2_2 must be a number of at least 0, not inf"),
        ({"layers": {}}, "name at least one layer"),
        ({"layers": "relu2_9"}, "pocket has no layer 'relu2_9': did you mean relu2_"),
        ({"layers": -lk.activation("relu2_9")}, "pocket has no layer 'relu2_9'"),
        ({"mask": "middle"}, "the masks with a name"),
        ({"mask": torch.ones(4, 4)}, "a mask for this picture has the shape (43, 64)"),
        ({"precision": "float16"}, "precision is one of auto, float32, tf32, bfloat16"),
        ({"backbone": "inception"}, "no backbone named 'inception'; there are pocket"),
    ],
)
def test_dreams_that_make_no_sense_are_refused(pocket: lk.Backbone, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        dream(cat(), **{"backbone": pocket, "layers": "relu2_2"} | options)


def test_a_network_in_the_layers_place_is_refused(pocket: lk.Backbone) -> None:
    with pytest.raises(ValueError, match="pass a network as backbone="):
        lk.dreaming(cat(), pocket)


def test_a_photo_too_small_for_the_layer_is_refused(pocket: lk.Backbone) -> None:
    message = "12x8 pixels is too small for relu5_3 of pocket: its sides must be at least 16 pixels"
    with pytest.raises(ValueError, match=message):
        dream(lk.photo("chelsea", 12), pocket, "relu5_3")


@pytest.mark.parametrize("spoil", [lambda p: p * 255, lambda p: p[:, :2], lambda p: p / 0, lambda p: "missing.jpg"])
def test_a_photo_that_is_none_is_refused(pocket: lk.Backbone, spoil: Callable[[Tensor], object]) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=r"pixels|shape|NaN|no picture at"):
        dream(spoil(cat()), pocket)
