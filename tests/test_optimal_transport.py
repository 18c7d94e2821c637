"""Relaxed earth mover's distance and self-similarity: against SciPy, bounds, invariances and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from torch import Tensor, nn

import labkit as lk
from labkit.losses.algebra import PIXELS, Window

SIZE = (18, 23)
LAYERS = ("soft1", "soft2")


def random_picture(seed: int, batch: int = 1, size: tuple[int, int] = SIZE) -> Tensor:
    return torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def network() -> lk.Backbone:
    """Two smooth layers, the second of which is half as fine, in float64."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        fine = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Softplus())
        coarse = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.Softplus())
        stages = {"soft1": fine, "pool": nn.AvgPool2d(2), "soft2": coarse}
        return lk.Backbone("tiny", stages, nn.Linear(6, 2)).double()


def evaluator(network: lk.Backbone, loss: lk.Loss, size: tuple[int, int] = SIZE) -> lk.Evaluator:
    return lk.Evaluator(network, loss, size, "float32")


def value(network: lk.Backbone, loss: lk.Loss, picture: Tensor) -> Tensor:
    bound = evaluator(network, loss, tuple(picture.shape[-2:])).loss
    return bound.value(bound.statistics({PIXELS: picture, **network.features(picture, LAYERS)}, Window()))


def columns(network: lk.Backbone, picture: Tensor, reference: Tensor) -> np.ndarray:
    """The hypercolumns (M, D) of a picture by loops, layers divided by their size in the reference."""
    maps, norms = (
        {layer: network.features(x.double(), [layer])[layer][0].numpy() for layer in LAYERS}
        for x in (picture, reference)
    )
    norm = {layer: np.sqrt((f**2).sum(0).mean()) for layer, f in norms.items()}
    return np.array(
        [
            np.concatenate(
                [
                    maps["soft1"][:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean((1, 2)) / norm["soft1"],
                    maps["soft2"][:, i, j] / norm["soft2"],
                ]
            )
            for i in range(maps["soft2"].shape[1])
            for j in range(maps["soft2"].shape[2])
        ]
    )


PHOTO, PAINTING = random_picture(1), random_picture(2, size=(20, 14))


def test_relaxed_emd_is_the_greater_mean_of_nearest_distances(network: lk.Backbone) -> None:
    picture = random_picture(3).double()
    painting = lk.resize(PAINTING, max(SIZE))
    distance = cdist(columns(network, picture, painting), columns(network, painting, painting), "cosine")
    truth = max(distance.min(0).mean(), distance.min(1).mean())
    assert value(network, lk.relaxed_emd(PAINTING, LAYERS), picture).item() == pytest.approx(truth, rel=1e-5)


def test_it_is_a_lower_bound_of_the_earth_movers_distance(network: lk.Backbone) -> None:
    picture = random_picture(4).double()
    distance = cdist(columns(network, picture, PHOTO), columns(network, PHOTO, PHOTO), "cosine")
    rows, matched = linear_sum_assignment(distance)
    found = value(network, lk.relaxed_emd(PHOTO, LAYERS), picture).item()
    assert 0 < found < distance[rows, matched].mean()


def test_it_is_nothing_for_the_painting_rearranged_and_more_for_a_part_of_it(network: lk.Backbone) -> None:
    """A picture of one of the painting's columns alone is near it everywhere, and lacks the others."""
    bound = evaluator(network, lk.relaxed_emd(PHOTO, LAYERS)).loss
    sample = bound.statistics(evaluator(network, lk.relaxed_emd(PHOTO)).features(PHOTO, LAYERS), Window())["sample"]
    assert bound.value({"sample": 3 * sample[..., torch.randperm(sample.shape[2])]}).item() < 1e-6
    part = bound.value({"sample": sample[..., :1].expand_as(sample)}).item()
    assert part == pytest.approx(cdist(sample[0].mT, sample[0, :, :1].mT, "cosine").mean(), rel=1e-4) and part > 1e-3


def test_self_similarity_compares_normalized_distances(network: lk.Backbone) -> None:
    picture, shares = random_picture(5).double(), []
    for x in (picture, PHOTO):
        known = columns(network, x, PHOTO)
        distance = cdist(known, known, "cosine")
        shares.append(distance / distance.sum(0))
    truth = np.abs(shares[0] - shares[1]).sum(0).mean()
    assert value(network, lk.self_similarity(PHOTO, LAYERS), picture).item() == pytest.approx(truth, rel=1e-5)


def test_self_similarity_does_not_see_another_palette(network: lk.Backbone) -> None:
    """Features turned, or larger, keep their distances; others do not."""
    bound = evaluator(network, lk.self_similarity(PHOTO, LAYERS)).loss
    sample = bound.statistics(evaluator(network, lk.self_similarity(PHOTO)).features(PHOTO, LAYERS), Window())["sample"]
    turn = torch.linalg.qr(torch.randn(10, 10, generator=torch.Generator().manual_seed(0)))[0]
    assert bound.value({"sample": 2 * turn.to(sample) @ sample}).item() < 1e-3
    assert bound.value({"sample": sample.flip(2)}).item() > 0.1


@pytest.mark.parametrize("kind", [lk.relaxed_emd, lk.self_similarity])
@pytest.mark.parametrize("samples", [20, 1024])
def test_what_holds_for_both(network: lk.Backbone, kind: type[lk.Loss], samples: int) -> None:
    loss = kind(PHOTO, LAYERS, samples=samples)
    assert value(network, loss, PHOTO.double()).item() < 1e-5
    batch = random_picture(6, batch=3).double()
    alone = torch.cat([value(network, loss, one[None]) for one in batch])
    assert (alone > 1e-3).all() and alone.unique().numel() == 3
    torch.testing.assert_close(value(network, loss, batch), alone)
    leaf = batch.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: value(network, loss, x), leaf, eps=1e-6, atol=1e-6, fast_mode=True)


def test_few_samples_are_some_of_all(network: lk.Backbone) -> None:
    """The sample's columns are the picture's, each at most once, and the same at every call."""
    every, some, again = (evaluator(network, lk.self_similarity(PHOTO, LAYERS, samples=n)).loss for n in (99, 20, 20))
    features = evaluator(network, lk.self_similarity(PHOTO)).features(PHOTO, LAYERS)
    whole, part, twin = (bound.statistics(features, Window())["sample"][0] for bound in (every, some, again))
    assert whole.shape == (10, 9 * 11) and part.shape == (10, 20) and torch.equal(part, twin)
    distance = torch.cdist(part.mT.double(), whole.mT.double())
    assert (distance.amin(1) < 1e-6).all() and distance.argmin(1).unique().numel() == 20


def test_the_picture_itself_can_be_a_layer(network: lk.Backbone) -> None:
    loss = lk.relaxed_emd(PHOTO, [PIXELS, "soft2"])
    assert value(network, loss, PHOTO.double()).item() < 1e-6 < value(network, loss, random_picture(7).double()).item()


def test_several_paintings_are_sampled_as_one(network: lk.Backbone) -> None:
    loss = lk.relaxed_emd([random_picture(8), PHOTO], LAYERS)
    bound = evaluator(network, loss).loss
    sample = bound.statistics(evaluator(network, loss).features(PHOTO, LAYERS), Window())["sample"]
    distance = 1 - torch.nn.functional.normalize(sample)[0].mT @ bound.references[0]
    assert (distance.amin(1) < 1e-6).all() and bound.references.shape[2] == 2 * sample.shape[2]


def test_strotss_is_the_sum_of_its_four_terms_and_paints() -> None:
    network, photo, painting = lk.load_backbone("pocket", "cpu"), lk.photo("chelsea", 64), lk.painting("koi_mosaic", 64)
    loss = lk.strotss_objective(photo, painting, content_weight=2)
    found = lk.Evaluator(network, loss, (43, 64), "float32")(photo)
    assert {*found.terms} == {"self_similarity", "relaxed_emd", "style", "total_variation"}
    assert found.terms["self_similarity"].abs() < 1e-5 and ("style", "pixels") in found.layer_terms
    painted = lk.stylize(photo, loss, backbone=network, steps=20, precision="float32", progress=False)
    assert lk.Evaluator(network, loss, (43, 64), "float32")(painted).loss < 0.8 * found.loss


def test_bfloat16_changes_little() -> None:
    network, painting, picture = (
        lk.load_backbone("pocket", "cpu"),
        lk.painting("koi_mosaic", 96),
        lk.photo("coffee", 96),
    )
    loss = lk.relaxed_emd(painting) + lk.self_similarity(picture.flip(3))
    exact, rough = (lk.Evaluator(network, loss, picture.shape[-2:], p)(picture) for p in ("float32", "bfloat16"))
    assert rough.loss.item() == pytest.approx(exact.loss.item(), rel=0.02)
    assert torch.cosine_similarity(rough.gradient.flatten(), exact.gradient.flatten(), 0) > 0.95


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: lk.relaxed_emd(PAINTING, samples=1), "samples"),
        (lambda: lk.self_similarity(PHOTO, samples=10**6), "samples"),
        (lambda: lk.relaxed_emd(PAINTING, scale=0), "scale"),
        (lambda: lk.relaxed_emd(PAINTING, []), "name at least one layer"),
        (lambda: lk.strotss_objective(PHOTO, PAINTING, content_weight=-1), "content_weight"),
        (lambda: lk.relaxed_emd([]), "at least one painting"),
    ],
)
def test_bad_input(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=message):
        make()
