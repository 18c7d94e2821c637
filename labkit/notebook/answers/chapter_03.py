"""Neural style transfer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...engine.evaluator import Evaluator
from ...losses.reconstruction import content
from ...losses.styles import gram, style
from ...networks.zoo import load_backbone
from ...pictures.geometry import resize, size_of
from ...pictures.reading import painting, photo
from ..exercises import Exercise, choice, close_to, is_picture, same_as


def pull(height: Any) -> Any:
    """The derivative of (d^2)^1.25, relative to that of d^2."""
    return 2.5 * height**1.5 / (2 * height)


def covariance_gradient(features: Tensor, target: Tensor) -> Tensor:
    """The gradient of |S - T|^2 with respect to features (1, C, h, w), S being their covariance over positions."""
    f = features.detach().clone().requires_grad_()
    with torch.enable_grad():
        gap = gram(f - f.mean((2, 3), keepdim=True)) - target
        return torch.autograd.grad(gap.square().sum(), f)[0]


def keeps_both(answer: Any) -> bool:
    """Whether a picture of the small cat has a content loss of 0.85 and a style loss of 0.07 against the pond."""
    small, pond, network = resize(photo("chelsea", 432), 192), painting("noon_pond"), load_backbone("pocket", "cpu")
    if not is_picture(answer, small.shape):
        return False
    goals = content(small) + style(pond, statistic="wasserstein")
    terms = Evaluator(network, goals, size_of(small), "float32")(answer.cpu()).terms
    return terms["content"].item() <= 0.85 and terms["style"].item() <= 0.07


GENERATOR = torch.Generator().manual_seed(3)
HEIGHTS = 0.1 + torch.rand(7, generator=GENERATOR)
FEATURES = 1 + torch.rand(1, 4, 5, 7, generator=GENERATOR)
TARGET = gram(torch.rand(1, 4, 3, 3, generator=GENERATOR))
EXERCISES = [
    Exercise(choice("b"), "a filter that sees a slope falling to the right: what does it see in the mirror?"),
    Exercise(same_as(pull, (HEIGHTS,), (0.64,)), "(d^2)^1.25 is d^2.5: divide its derivative by that of d^2"),
    Exercise(
        same_as(covariance_gradient, (FEATURES, TARGET)),
        "S is the Gram matrix of f - m: which formula of the chapter holds for it, and with which features?",
    ),
    Exercise(
        close_to(1 / 16), "how do the sum and the divisor of the matrix grow? and the loss squares a difference of two"
    ),
    Exercise(choice("b"), "a unit sees a square of so many pixels, whatever the size of what it sees"),
    Exercise(keeps_both, "lk.presets.FAST with another style_weight, smaller than 30"),
]
