"""Histograms of features: their distance against SciPy and closed forms, ranks, counts."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import energy_distance
from torch import Tensor

import labkit as lk
from labkit.losses.histograms import Counts, cramer, tamed

BINS = 200


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def counted(values: Tensor, guide: Tensor | None = None) -> Tensor:
    return Counts.apply(values, guide, -1, 2, BINS)


def histogram_of(values: Tensor) -> Tensor:
    return counted(values) / values.shape[2]


def distance(ours: Tensor, theirs: Tensor) -> Tensor:
    return cramer(histogram_of(ours), histogram_of(theirs)) / BINS


def test_counts_keep_number_and_mean() -> None:
    values = drawn(1, 2, 3, 500)
    found = counted(values)
    torch.testing.assert_close(found.sum(2), torch.full((2, 3), 500.0, dtype=torch.float64))
    torch.testing.assert_close(found @ torch.linspace(-1, 2, 3 * BINS + 1, dtype=torch.float64), values.sum(2))


def test_values_beyond_the_ends_count_for_them() -> None:
    found = Counts.apply(torch.tensor([[[-5.0, 0.5, 9.0]]]), None, 0, 1, 2)
    torch.testing.assert_close(found, torch.tensor([[[1.0, 1.0, 1.0]]]))


def test_millions_are_counted_to_the_last_one() -> None:
    found = Counts.apply(torch.zeros(1, 1, 9_000_000), None, 0, 1, 2)
    assert found[0, 0].tolist() == [0.875 * 9e6, 0.125 * 9e6, 0]


def test_the_gradient_of_counts_is_that_of_finite_differences() -> None:
    values = (3.4 * drawn(7, 2, 2, 30) - 1.2).requires_grad_()
    guide = drawn(8, 30)
    assert torch.autograd.gradcheck(lambda x: Counts.apply(x, guide, -1, 2, 7), values, eps=1e-6)


def test_beyond_the_range_values_are_tamed_without_a_kink() -> None:
    values = torch.tensor([-20.0, -1e-4, 0.0, 0.3, 1.0, 1 + 1e-4, 20.0], dtype=torch.float64, requires_grad=True)
    found = tamed(values)
    torch.testing.assert_close(found[1:6], values[1:6], rtol=0, atol=1e-8)
    assert found[-1].item() == pytest.approx(1 + math.log(20)) and found[0].item() == pytest.approx(-math.log(21))
    (slopes,) = torch.autograd.grad(found.sum(), values)
    torch.testing.assert_close(slopes[1:6], torch.ones(5, dtype=torch.float64), rtol=0, atol=2e-4)


def test_a_guide_says_how_much_each_value_counts() -> None:
    values, guide = drawn(2, 1, 2, 40), torch.tensor([0.0, 1.0], dtype=torch.float64).repeat(20)
    torch.testing.assert_close(counted(values, guide), counted(values[..., 1::2]))


def test_the_distance_is_half_the_square_of_scipys_energy_distance() -> None:
    ours, theirs = drawn(3, 1, 2, 400), drawn(4, 1, 2, 300) ** 2
    truth = [energy_distance(ours[0, c], theirs[0, c]) ** 2 / 2 for c in range(2)]
    assert distance(ours, theirs)[0].tolist() == pytest.approx(truth, rel=0.01)


def test_the_distance_of_two_points_is_how_far_they_are_apart() -> None:
    ours, theirs = torch.tensor([[[-0.5], [0.1]]]), torch.tensor([[[1.7], [0.3]]])
    assert distance(ours, theirs)[0].tolist() == pytest.approx([2.2, 0.2], rel=0.03)


def test_the_gradient_draws_each_value_to_the_paintings_of_its_rank() -> None:
    """It has the direction of histogram matching, f - R(f), for every value, and is 2 (G - F) / M."""
    ours, theirs = drawn(5, 1, 1, 300).requires_grad_(), 0.3 + 0.5 * drawn(6, 1, 1, 300)
    (found,) = torch.autograd.grad(distance(ours, theirs).sum(), ours)
    ranks = ours.argsort(2).argsort(2)
    matched = theirs.sort(2).values.gather(2, ranks)
    clear = (ours - matched).abs() > 0.03
    assert clear.sum() > 200 and ((found * (ours - matched))[clear] > 0).all()
    below = (theirs <= ours.mT).double().mean(2)
    torch.testing.assert_close(found[0, 0], 2 * (below - (ranks[0] + 0.5) / 300)[0] / 300, rtol=0, atol=1e-4)


def test_it_is_nothing_at_the_painting_and_blind_to_places() -> None:
    painting, other = lk.painting("koi_mosaic", 96), lk.photo("chelsea", 96)
    backbone = lk.load_backbone("pocket", "cpu")
    evaluator = lk.Evaluator(backbone, lk.histogram(painting, ["relu2_1"]), painting.shape[-2:], "float32")
    assert abs(evaluator(painting).loss.item()) < 1e-9
    assert evaluator(other).loss.item() > 0.01
    features = backbone.features(painting, ["relu2_1"])["relu2_1"]
    loss = evaluator.loss
    shuffled = {"relu2_1": features.flip(3).roll(5, 2)}
    assert abs(loss.value(loss.statistics(shuffled, lk.Window())).item()) < 1e-9


def test_it_sees_a_spread_that_moments_do_not() -> None:
    """Half at 0 and half at 1, against three values with the same mean and square: style is blind, histograms see."""
    two = torch.tensor([0.0, 1.0], dtype=torch.float64).repeat(6)
    three = 0.5 + torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64).repeat(4) * 0.375**0.5
    assert two.mean().item() == pytest.approx(three.mean().item())
    assert two.square().mean().item() == pytest.approx(three.square().mean().item())
    assert distance(two[None, None], three[None, None]).item() > 0.02
