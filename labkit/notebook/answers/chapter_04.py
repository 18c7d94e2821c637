"""Image creation."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...networks.zoo import load_backbone
from ..exercises import Exercise, choice, close_to, is_picture, same_as

LEAST_SIDE, LEAST_RESPONSE, MOST_FINE = 96, 1.0, 0.1


def decorrelated(root: Tensor, colors: Tensor) -> Tensor:
    """Decorrelated coordinates of colors (3, n) in [0, 1]."""
    return torch.linalg.inv(root) @ colors.clamp(0.02, 0.98).logit()


def pulled_back(picture: Tensor, grid: Tensor, gradient: Tensor) -> Tensor:
    """The gradient with respect to a picture that was read at the places of ``grid``, (N, 3, H, W)."""
    still = picture.detach().requires_grad_()
    moved = F.grid_sample(still, grid, padding_mode="reflection", align_corners=False)
    return torch.autograd.grad(moved, still, gradient)[0]


def _random(*shape: int, seed: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def _turned(degrees: float) -> tuple[Tensor, Tensor, Tensor]:
    """A picture, the places at which it is read when it is turned, and a gradient."""
    angle = torch.deg2rad(torch.tensor(degrees))
    rows = torch.tensor([[angle.cos(), -angle.sin(), 0.1], [angle.sin(), angle.cos(), -0.2]])
    grid = F.affine_grid(rows[None], [1, 3, 12, 12], align_corners=False)
    return _random(1, 3, 12, 12, seed=1), grid, _random(1, 3, 12, 12, seed=2) - 0.5


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


ROOT = torch.tensor([[1.0, 0.4, 0.1], [1.0, 0.0, -0.3], [1.0, -0.4, 0.2]])

EXERCISES = [
    Exercise(choice("a"), "count how many waves are short and how many are long"),
    Exercise(close_to(12), "the frequency of a wave is one over its length; the factor is inverse to it"),
    Exercise(close_to(0.05), "Adam divides by the size of the gradients: what does one step change in the picture?"),
    Exercise(
        same_as(decorrelated, (ROOT, _random(3, 40, seed=0)), (torch.eye(3), _random(3, 5, seed=3))),
        "undo the logistic function first, then the matrix, whose inverse torch.linalg has",
    ),
    Exercise(
        same_as(pulled_back, _turned(10.0), _turned(-25.0)),
        "let autograd do it: read a picture that requires a gradient, and give torch.autograd.grad the other gradient",
    ),
    Exercise(is_liked, "raise that channel in bounded waves, and look at the spectrum of what you get"),
]
