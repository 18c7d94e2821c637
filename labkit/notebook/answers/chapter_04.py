"""Image creation."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ...networks.zoo import load_backbone
from ..exercises import Exercise, choice, close_to, is_picture, same_as

LEAST_SIDE, LEAST_RESPONSE, MOST_FINE = 96, 1.0, 0.1


def redirected(x: Tensor, gradient: Tensor) -> Tensor:
    """The gradient (N, C) of a loss with respect to the inputs ``x`` of ReLUs, from that of their outputs, redirected.

    Of a picture whose usual gradient vanishes, the negative part of the gradient is let through.
    """
    usual = gradient * (x > 0)
    alive = (usual != 0).any(1, keepdim=True)
    return torch.where(alive, usual, gradient.clamp_max(0))


def _random(*shape: int, seed: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def _relus(*dead: int) -> tuple[Tensor, Tensor]:
    """Inputs (4, 5) of ReLUs, all negative for the pictures ``dead``, and a gradient."""
    x = _random(4, 5, seed=7) - 0.5
    x[list(dead)] = -x[list(dead)].abs() - 0.1
    return x, _random(4, 5, seed=8) - 0.5


def finds_root(answer: Any) -> bool:
    """Whether a function of colors (3, n) returns M with orthogonal columns, longest first and of length 1, and
    M M^T in proportion to the covariance of the colors' logits.
    """
    if not callable(answer):
        return False
    for seed in (0, 1):
        colors = (_random(3, 3, seed=seed) @ _random(3, 200, seed=seed + 2)).clamp(0, 3) / 3
        covariance = torch.cov(colors.clamp(0.02, 0.98).logit())
        root = answer(colors.clone())
        if not (isinstance(root, Tensor) and root.shape == (3, 3) and bool(root.isfinite().all())):
            return False
        root, products = root.detach().float(), (root.T @ root).detach().float()
        lengths = products.diagonal().clamp_min(0).sqrt()
        right = [
            torch.allclose(root @ root.T, covariance / torch.linalg.eigvalsh(covariance)[-1], atol=1e-3),
            torch.allclose(products, torch.diag(products.diagonal()), atol=1e-3),
            bool((lengths.diff() <= 1e-4).all()),
        ]
        if not all(right):
            return False
    return True


def fine_share(picture: Tensor) -> float:
    """The share of the variance of gray values (N, 3, H, W) in waves shorter than four pixels."""
    gray = picture.mean(1)
    power = torch.fft.fft2(gray - gray.mean((1, 2), keepdim=True)).abs().square()
    rows, columns = (torch.fft.fftfreq(side) for side in gray.shape[1:])
    return (power[:, torch.hypot(rows[:, None], columns) > 0.25].sum() / power.sum().clamp_min(1e-12)).item()


def is_liked(answer: Any) -> bool:
    """Whether channel 142 of conv5_3 responds to a picture that is not rough."""
    if not is_picture(answer) or min(answer.shape[2:]) < LEAST_SIDE:
        return False
    picture = answer.detach().cpu().float()
    response = load_backbone("pocket", "cpu").features(picture, ["conv5_3"])["conv5_3"][:, 142].mean()
    return response.item() > LEAST_RESPONSE and fine_share(picture) <= MOST_FINE


EXERCISES = [
    Exercise(choice("b"), "count how many waves are short and how many are long, or run the two lines"),
    Exercise(close_to(0.05), "Adam divides by the size of the gradients: what does one step change in the picture?"),
    Exercise(
        finds_root, "torch.linalg.eigh gives directions and variances, the smallest first; undo the sigmoid first"
    ),
    Exercise(
        same_as(redirected, _relus(), _relus(2), _relus(0, 3)),
        "decide for each picture, a row, whether anything of its usual gradient is left",
    ),
    Exercise(close_to(math.log(8)), "the negative place counts nothing, and a square is taken before the mean"),
    Exercise(is_liked, "raise that channel in bounded waves, and look at the spectrum of what you get"),
]
