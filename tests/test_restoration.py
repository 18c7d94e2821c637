"""The deep image prior: it fits, cleans on the way, fills what is masked, and is the engine with other parameters."""

from __future__ import annotations

from functools import cache

import pytest
import torch

import labkit as lk
from labkit.engine.deep_prior import DeepPrior
from labkit.recipes.restoration import restoring

clean = cache(lambda: lk.resize(lk.photo("chelsea")[..., 40:296, 100:356], (64, 64)))


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a - b).square().mean().sqrt().item()


@pytest.mark.slow
def test_it_cleans_on_the_way() -> None:
    noise = torch.randn(clean().shape, generator=torch.Generator().manual_seed(1))
    noisy = (clean() + 0.15 * noise).clamp(0, 1)
    *_, last = restoring(noisy, steps=150, learning_rate=0.02)
    assert apart(last.picture, clean()) < 0.7 * apart(noisy, clean())


@pytest.mark.slow
def test_what_is_masked_is_guessed_from_the_rest() -> None:
    """Random pixels are missing; black is what they would be without a guess."""
    mask = (torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    *_, last = restoring(clean() * mask, mask, steps=150, learning_rate=0.02)
    hole = 1 - mask
    assert apart(last.picture * hole, clean() * hole) < 0.35 * apart(torch.zeros_like(clean()), clean() * hole)


def test_the_gradient_goes_on_to_the_weights() -> None:
    prior = DeepPrior((32, 32), shake=0.0)
    picture, target = prior.picture(), torch.full((1, 3, 32, 32), 0.2)
    prior.backward(2 * (picture - target))
    loss = (prior.network(prior.noise) - target).square().sum()
    for found, wanted in zip(prior.parameters, torch.autograd.grad(loss, prior.parameters), strict=True):
        torch.testing.assert_close(found.grad, wanted, rtol=1e-3, atol=1e-5)


def test_the_same_seed_gives_the_same_picture_and_leaves_the_others_alone() -> None:
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    first, second, other = (DeepPrior((32, 32), seed=seed).picture() for seed in (0, 0, 1))
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("size", [(33, 47), (32, 64)])
def test_any_size_will_do(size: tuple[int, int]) -> None:
    assert DeepPrior(size).picture().shape == (1, 3, *size)


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (lambda: next(restoring(clean().expand(2, -1, -1, -1))), "one picture at a time, not 2"),
        (lambda: next(restoring(clean()[..., :20])), "at least 32 pixels, not 20x64"),
        (lambda: next(restoring(clean(), steps=0)), "steps must be a whole number of at least 1, not 0"),
    ],
)
def test_what_makes_no_sense_is_refused(work: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        work()
