"""The sliced Wasserstein distance: against sorting, SciPy, closed forms and finite differences."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import wasserstein_distance
from torch import Tensor

import labkit as lk
from labkit.losses import sliced_wasserstein
from labkit.losses.algebra import Window
from labkit.losses.histograms import Counts
from labkit.losses.sliced_wasserstein import SlicedCounts, Slices, orthonormal, squared_wasserstein

BINS = 200


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def distance(ours: Tensor, theirs: Tensor) -> Tensor:
    """(N, K) of values (N, K, M) in [-1, 2]."""
    counts = [Counts.apply(values, None, -1, 2, BINS) for values in (ours, theirs)]
    return squared_wasserstein(*counts) / BINS**2


def test_it_is_the_distance_of_sorted_values() -> None:
    ours, theirs = 1.5 * drawn(1, 1, 3, 500) ** 2, drawn(2, 1, 3, 500) - 0.3
    truth = (ours.sort(2).values - theirs.sort(2).values).square().mean(2)
    torch.testing.assert_close(distance(ours, theirs), truth, rtol=0.01, atol=2e-5)


def test_a_shift_costs_its_square_and_scipy_agrees() -> None:
    values = drawn(3, 1, 1, 400)
    for shift in (-0.7, 0.01, 0.2, 0.9):
        assert wasserstein_distance(values.flatten() + shift, values.flatten()) == pytest.approx(abs(shift))
        assert distance(values + shift, values).sqrt().item() == pytest.approx(abs(shift), rel=0.01)


def test_two_pictures_of_other_numbers_of_values() -> None:
    """A point in the middle of an evenly filled stretch is 1/12 of its square away."""
    even = torch.linspace(0, 1, 3001, dtype=torch.float64)[None, None]
    assert distance(torch.tensor([[[0.5]]]).double(), even).item() == pytest.approx(1 / 12, rel=0.02)
    assert distance(even, torch.tensor([[[0.5]]]).double()).item() == pytest.approx(1 / 12, rel=0.02)


def test_the_gradient_is_twice_the_way_to_the_value_of_the_same_rank() -> None:
    ours, theirs = drawn(4, 1, 1, 300).requires_grad_(), 0.3 + 0.5 * drawn(5, 1, 1, 300) ** 2
    (found,) = torch.autograd.grad(distance(ours, theirs).sum(), ours)
    ranks = ours.argsort(2).argsort(2)
    way = ours - theirs.sort(2).values.gather(2, ranks)
    torch.testing.assert_close(found * 300, 2 * way, rtol=0, atol=0.04)


def test_far_values_are_pulled_the_more_the_farther_they_are() -> None:
    values = torch.tensor([[[0.9, 1.2, 1.8]]], dtype=torch.float64, requires_grad=True)
    theirs = torch.zeros(1, 1, 3, dtype=torch.float64)
    (found,) = torch.autograd.grad(distance(values, theirs).sum(), values)
    torch.testing.assert_close(found, 2 * values.detach() / 3, rtol=0.01, atol=0)


def test_nothing_pulls_at_the_target_and_nothing_is_below_it() -> None:
    target = drawn(6, 1, 4, 30).round(decimals=1)  # with gaps
    target[:, :, 10:] = 0
    assert squared_wasserstein(target, target).abs().max() < 1e-12
    for seed in range(5):
        assert (squared_wasserstein(drawn(seed, 3, 4, 30), target) > 0).all()
    values = drawn(7, 1, 2, 50).requires_grad_()
    counts = Counts.apply(values.detach(), None, -1, 2, BINS)
    loss = squared_wasserstein(Counts.apply(values, None, -1, 2, BINS), counts)
    (found,) = torch.autograd.grad(loss.sum(), values)
    assert found.abs().max() < 1e-9


def test_the_gradient_of_the_distance_is_that_of_finite_differences() -> None:
    shares, target = drawn(8, 2, 3, 12).requires_grad_(), drawn(9, 1, 3, 12)
    assert torch.autograd.gradcheck(lambda x: squared_wasserstein(x, target), shares, eps=1e-7)


@pytest.mark.parametrize("chunk", [7 * 2 * 5, 2**18])
def test_counting_in_chunks_is_counting_at_once(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sliced_wasserstein, "CHUNK", chunk)
    monkeypatch.setattr(sliced_wasserstein, "BINS", 8)
    features, weights = drawn(10, 2, 3, 4, 6).requires_grad_(), drawn(11, 4, 6)
    low, span = torch.tensor([[-1.0], [0], [0], [-0.5], [0.1]]).double(), torch.tensor([[2.0], [1], [2], [1], [0.5]])
    slices = Slices(orthonormal(3, 5), low, span.double())
    found = SlicedCounts.apply(features, slices, weights)
    expected = Counts.apply(slices(features.flatten(2)), weights.flatten(), -3.0, 4.0, 8)
    torch.testing.assert_close(found, expected)
    assert torch.autograd.gradcheck(lambda x: SlicedCounts.apply(x, slices, weights), features, eps=1e-6)


def test_directions_are_unit_vectors_orthogonal_where_there_is_room() -> None:
    found = orthonormal(5, 12)
    torch.testing.assert_close(found[:5] @ found[:5].T, torch.eye(5))
    torch.testing.assert_close(found.norm(dim=1), torch.ones(12))
    assert torch.equal(found, orthonormal(5, 12)) and torch.equal(found[:3], orthonormal(5, 3))


def test_along_all_directions_a_shift_of_features_costs_its_square() -> None:
    """Of features that are one constant vector against another's: |x - y|^2 / C, and 1 + |x|^2/|y|^2 - 2 xy/|y|^2."""
    network = lk.load_backbone("pocket", "cpu")
    painting = lk.painting("koi_mosaic", 64)
    loss = lk.style(painting, ["relu2_1"], statistic="sliced", projections=64, relative=False)
    bound = loss.bind(lk.Evaluator(network, lk.total_variation(), painting.shape[-2:], "float32"), painting.shape[-2:])
    f = network.features(painting, ["relu2_1"])["relu2_1"]
    shift = 0.05 * f.std() * torch.randn(1, 64, 1, 1, generator=torch.Generator().manual_seed(0))
    found = bound.value(bound.statistics({"relu2_1": f + shift}, Window()))
    assert found.item() == pytest.approx(shift.square().mean().item(), rel=0.05)


def test_it_sees_what_moments_do_not() -> None:
    """Noise with the painting's mean and covariance, feature by feature, is the painting for Gaussians."""
    network, painting = lk.load_backbone("pocket", "cpu"), lk.painting("koi_mosaic", 96)
    f = network.features(painting, ["relu2_1"])["relu2_1"].double()
    flat = f.flatten(2)[0]
    mean, (values, vectors) = flat.mean(1, keepdim=True), torch.linalg.eigh(flat.cov(correction=0))
    noise = torch.randn(flat.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise -= noise.mean(1, keepdim=True)
    noise = torch.linalg.solve_triangular(torch.linalg.cholesky(noise.cov(correction=0)), noise, upper=False)
    twin = (mean + vectors * values.clamp_min(0).sqrt() @ noise).view(f.shape).float()
    found = {}
    for statistic in ("wasserstein", "sliced"):
        loss = lk.style(painting, ["relu2_1"], statistic=statistic)
        bound = lk.Evaluator(network, loss, painting.shape[-2:], "float32").loss
        found[statistic] = bound.value(bound.statistics({"relu2_1": twin}, Window())).item()
    assert abs(found["wasserstein"]) < 1e-4 and found["sliced"] > 1e-3


def test_bfloat16_changes_little() -> None:
    network, painting, picture = (
        lk.load_backbone("pocket", "cpu"),
        lk.painting("koi_mosaic", 96),
        lk.photo("coffee", 96),
    )
    loss = lk.style(painting, statistic="sliced", projections=8)
    exact, rough = (lk.Evaluator(network, loss, picture.shape[-2:], p)(picture) for p in ("float32", "bfloat16"))
    assert rough.loss.item() == pytest.approx(exact.loss.item(), rel=0.02)
    assert torch.cosine_similarity(rough.gradient.flatten(), exact.gradient.flatten(), 0) > 0.98


@pytest.mark.parametrize("projections", [0, 5000, 2.5])
def test_senseless_numbers_of_projections_are_refused(projections: float) -> None:
    with pytest.raises(ValueError, match="projections"):
        lk.style(lk.painting("koi_mosaic", 32), statistic="sliced", projections=projections)
