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


def roughness(picture: Tensor, exponent: float) -> Tensor:
    """The mean over pixels and colors of (dx^2 + dy^2) ^ exponent, differences across the border being zero."""
    dx, dy = torch.zeros_like(picture), torch.zeros_like(picture)
    dx[..., :-1], dy[..., :-1, :] = picture.diff(dim=-1), picture.diff(dim=-2)
    return (dx.square() + dy.square()).pow(exponent).mean()


def covariance(features: Tensor) -> Tensor:
    """The covariance matrices (N, C, C) of features (N, C, h, w) over positions."""
    return gram(features - features.mean((2, 3), keepdim=True))


def keeps_both(answer: Any) -> bool:
    """Whether a picture of the small cat has a content loss of 0.85 and a style loss of 0.07 against the pond."""
    small, pond, network = resize(photo("chelsea", 432), 192), painting("noon_pond"), load_backbone("pocket", "cpu")
    if not is_picture(answer, small.shape):
        return False
    goals = content(small) + style(pond, statistic="wasserstein")
    terms = Evaluator(network, goals, size_of(small), "float32")(answer.cpu()).terms
    return terms["content"].item() <= 0.85 and terms["style"].item() <= 0.07


GENERATOR = torch.Generator().manual_seed(3)
PICTURE = torch.rand(1, 3, 5, 8, generator=GENERATOR)
FEATURES = 1 + torch.rand(2, 4, 5, 7, generator=GENERATOR)
EXERCISES = [
    Exercise(choice("b"), "a filter that sees a slope falling to the right: what does it see in the mirror?"),
    Exercise(
        same_as(roughness, (PICTURE, 1.0), (PICTURE, 1.25)),
        "pad both differences to the picture's size, add their squares, and only then take the power and the mean",
    ),
    Exercise(same_as(covariance, (FEATURES,)), "subtract the mean over dimensions 2 and 3, kept as dimensions"),
    Exercise(
        close_to(1 / 16), "how do the sum and the divisor of the matrix grow? and the loss squares a difference of two"
    ),
    Exercise(keeps_both, "lk.presets.FAST with another style_weight, smaller than 30"),
]
