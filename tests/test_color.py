"""Colors given from one picture to another: what is matched, what stays, and what it does to style transfer."""

from __future__ import annotations

from functools import cache
from typing import get_args

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from skimage.color import rgb2ycbcr
from skimage.exposure import match_histograms
from torch import Tensor

import labkit as lk
from labkit.pictures.color import Kind, matched

cat = cache(lambda: lk.photo("chelsea", 64))
koi = cache(lambda: lk.painting("koi_mosaic", 50))
OPTIONS = {"steps": 6, "min_scale": 45, "style_layers": ["relu1_1", "relu2_1"], "precision": "float32"}


def moments(picture: Tensor) -> tuple[np.ndarray, np.ndarray]:
    colors = picture[0].flatten(1).double().numpy()
    return colors.mean(1), np.cov(colors, bias=True)


def dull(picture: Tensor) -> Tensor:
    """Far from black and white, so that nothing is clipped."""
    return 0.4 + 0.2 * picture


# --- each kind ----------------------------------------------------------------------------------------------------


def test_luma_exchanges_y_and_keeps_cb_and_cr() -> None:
    picture, photo = dull(lk.resize(koi(), cat().shape[-2:])), dull(cat())
    found = rgb2ycbcr(matched(picture, photo, "luma")[0].double().numpy(), channel_axis=0)
    ours, other = (rgb2ycbcr(x[0].double().numpy(), channel_axis=0) for x in (picture, photo))
    np.testing.assert_allclose(found[0], ours[0], atol=1e-4)  # of 16 to 235
    np.testing.assert_allclose(found[1:], other[1:], atol=1e-4)


def test_luma_takes_a_photo_of_another_size() -> None:
    found = matched(cat(), lk.photo("chelsea", 128), "luma")
    assert (found - cat()).abs().mean() < 0.01


def test_linear_matches_mean_and_covariance() -> None:
    picture, photo = dull(koi()), dull(cat())
    for found, wanted in zip(moments(matched(picture, photo, "linear")), moments(photo), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-7)


def test_linear_is_the_optimal_transport_of_gaussians() -> None:
    """Its map is symmetric and positive, and has moved colors by the Wasserstein distance: less is impossible."""
    picture, photo = dull(koi()), dull(cat())
    found = matched(picture, photo, "linear")
    (m, s), (n, t) = moments(picture), moments(photo)
    distance = ((m - n) ** 2).sum() + np.trace(s + t - 2 * np.real(sqrtm(sqrtm(s) @ t @ sqrtm(s))))
    moved = (found - picture).double().square().sum(1).mean().item()
    assert moved == pytest.approx(distance, rel=1e-4)


def test_histogram_is_scikit_images() -> None:
    found = matched(koi(), cat(), "histogram")
    reference = match_histograms(koi()[0].permute(1, 2, 0).numpy(), cat()[0].permute(1, 2, 0).numpy(), channel_axis=2)
    np.testing.assert_allclose(found[0].permute(1, 2, 0), reference, atol=1e-6)
    for channel in range(3):
        np.testing.assert_allclose(
            np.quantile(found[0, channel], [0.1, 0.5, 0.9]), np.quantile(cat()[0, channel], [0.1, 0.5, 0.9]), atol=0.01
        )


# --- what holds for all -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", get_args(Kind))
def test_a_picture_has_its_own_colors_already(kind: str) -> None:
    torch.testing.assert_close(matched(cat(), cat(), kind), cat(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", get_args(Kind))
@pytest.mark.parametrize("gray", ["picture", "reference", "both"])
def test_gray_and_flat_pictures_are_no_trouble(kind: str, gray: str) -> None:
    flat = torch.full((1, 3, 8, 8), 0.5)
    found = matched(cat() if gray == "reference" else flat, cat() if gray == "picture" else flat, kind)
    assert found.isfinite().all() and found.min() >= 0 and found.max() <= 1
    if gray != "picture":
        assert (found - found.mean(1, keepdim=True)).abs().max() < 1e-3


@pytest.mark.parametrize("kind", get_args(Kind))
def test_each_picture_of_a_batch_is_matched_by_itself(kind: str) -> None:
    batch = torch.cat([cat(), cat().flip(2) * 0.5])
    references = torch.cat([cat().flip(1), cat().flip(3)])
    pairs = zip(batch.split(1), references.split(1), strict=True)
    together = matched(batch, references, kind)
    torch.testing.assert_close(together, torch.cat([matched(a, b, kind) for a, b in pairs]))
    torch.testing.assert_close(matched(batch, references[:1], kind)[0], together[0])
    torch.testing.assert_close(matched(batch[:1], references, kind)[0], together[0])


def test_what_cannot_be_matched_is_refused() -> None:
    with pytest.raises(ValueError, match="kind is one of luma, linear, histogram, not 'lab'"):
        matched(cat(), cat(), "lab")
    with pytest.raises(ValueError, match="3 pictures cannot take the colors of 2: give one for each"):
        matched(cat().repeat(3, 1, 1, 1), cat().repeat(2, 1, 1, 1))


# --- style transfer ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("color", ["linear", "histogram"])
def test_before_the_painting_takes_the_photos_colors(color: str) -> None:
    found = lk.stylize(cat(), koi(), color=color, progress=False, **OPTIONS)
    device = lk.pick_device()  # where the recipe computes: another one rounds otherwise
    painting = matched(koi().to(device), cat().to(device), color)
    by_hand = lk.stylize(cat(), painting, progress=False, **OPTIONS)
    assert torch.equal(found, by_hand)


@pytest.mark.parametrize("color", ["luma", "linear-after", "histogram-after"])
def test_after_the_result_takes_them(color: str) -> None:
    found = lk.stylize(cat(), koi(), color=color, progress=False, **OPTIONS)
    plain = lk.stylize(cat(), koi(), progress=False, **OPTIONS)
    torch.testing.assert_close(found, matched(plain, cat(), color.removesuffix("-after")))
    assert (found - plain).abs().mean() > 1e-3


def test_a_preview_has_the_photos_colors_too() -> None:
    for progress in lk.stylizing(cat(), koi(), color="luma", **OPTIONS):
        picture = progress.picture
        expected = matched(picture, cat(), "luma")
        assert (picture - expected).abs().mean() < 1e-3, "clipping apart, matched already"


def test_unknown_ways_are_refused_before_the_run() -> None:
    for color in ("lab", "luma-before", "linear-"):
        with pytest.raises(ValueError, match=f"color is one of linear, .*, not '{color}'"):
            next(lk.stylizing(cat(), koi(), color=color))
