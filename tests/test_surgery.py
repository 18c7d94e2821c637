"""Other poolings and borders: what they compute, that they leave the network alone, and that tiles stay exact."""

from __future__ import annotations

from functools import cache

import pytest
import torch
import torch.nn.functional as F
from test_zoo import network

import labkit as lk
from labkit.networks.surgery import ScaledPool

cat = cache(lambda: lk.photo("chelsea", (75, 101)))


@pytest.mark.parametrize("power", [1, 2])
def test_pools_are_means_and_root_mean_squares_as_large_as_the_maximum(power: int) -> None:
    x = torch.rand(2, 3, 6, 8)
    windows = F.unfold(x, 2, stride=2).view(2, 3, 4, 12)
    mean = windows.mean(2) if power == 1 else windows.square().mean(2).sqrt()
    factor = (windows.amax(2).square().mean() / mean.square().mean()).sqrt()
    pool = ScaledPool(torch.nn.MaxPool2d(2), power)
    torch.testing.assert_close(pool(x), factor * mean.view(2, 3, 3, 4))
    assert pool.factor == pytest.approx(factor.item())  # found once
    pool(x**3)
    assert pool.factor == pytest.approx(factor.item())


def test_a_variant_forgets_the_shapes_of_the_network() -> None:
    backbone = lk.load_backbone("pocket", "cpu")
    assert backbone.minimum_size("relu1_1") == 1 and backbone.answers
    assert lk.variant(backbone, border="reflect").minimum_size("relu1_1") == 2  # which a reflection takes
    assert backbone.cast(torch.bfloat16).answers is backbone.answers


@pytest.mark.parametrize("name", ["pocket", "vgg19", "googlenet", "squeezenet1_1"])
@pytest.mark.parametrize("pooling", ["average", "l2"])
def test_a_variant_has_the_same_layers_and_sizes(name: str, pooling: str) -> None:
    try:
        backbone = network(name)
    except FileNotFoundError:
        pytest.skip("its weights are not here")
    other = lk.variant(backbone, pooling)
    layer = list(backbone.recommended.dream)[-1]
    before, after = (b.features(cat(), [layer])[layer] for b in (backbone, other))
    assert before.shape == after.shape and not torch.equal(before, after)
    assert other.layers == backbone.layers and other.receptive_field(layer) == backbone.receptive_field(layer)
    assert torch.equal(backbone.features(cat(), [layer])[layer], before)


def test_features_keep_about_their_size() -> None:
    before, *others = (
        lk.variant(network("pocket"), pooling).features(cat(), ["relu3_1"])["relu3_1"].square().mean().sqrt()
        for pooling in ("max", "average", "l2")
    )
    assert all(0.5 < other / before < 2 for other in others)


@pytest.mark.parametrize("border", ["replicate", "reflect"])
def test_a_border_is_the_pictures_own(border: str) -> None:
    """On a picture of one color the features are the same everywhere, up to the border; with zeros they are not."""
    gray = torch.full((1, 3, 32, 40), 0.3)
    found = lk.variant(network("pocket"), border=border).features(gray, ["relu1_1"])["relu1_1"]
    torch.testing.assert_close(found, found[..., :1, :1].expand_as(found))
    zeros = network("pocket").features(gray, ["relu1_1"])["relu1_1"]
    assert (zeros - zeros[..., 16:17, 20:21]).abs().max() > 0.01
    torch.testing.assert_close(zeros[..., 1:-1, 1:-1], found[..., 1:-1, 1:-1])


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"pooling": "average"}, {"pooling": "l2"}, {"border": "replicate"}])
def test_tiles_of_a_variant_are_exact(options: dict) -> None:
    backbone = lk.variant(network("pocket"), **options)
    loss = lk.content(lk.photo("rocket", (149, 203))) + lk.style(lk.painting("koi_mosaic", 96))
    picture = lk.photo("chelsea", (149, 203))
    whole, cut = (
        lk.Evaluator(backbone, loss, (149, 203), "float32", tile=tile)(picture).gradient for tile in (None, 64)
    )
    assert ((cut - whole).norm() / whole.norm()).item() < 1e-5


def test_nothing_changed_is_the_network_itself() -> None:
    assert lk.variant(network("pocket")) is network("pocket")


def test_style_transfer_takes_them() -> None:
    options = {"steps": 3, "progress": False, "precision": "float32"}
    plain, average, framed = (
        lk.stylize(cat(), lk.painting("koi_mosaic"), backbone=lk.variant(network("pocket"), **changes), **options)
        for changes in ({}, {"pooling": "average"}, {"border": "replicate"})
    )
    assert not torch.equal(plain, average) and not torch.equal(plain, framed)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "median"}, "pooling is one of max, average, l2, not 'median'"),
        ({"border": "gray"}, "border is one of zeros, replicate, reflect, not 'gray'"),
    ],
)
def test_unknown_variants_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lk.variant(network("pocket"), **options)
