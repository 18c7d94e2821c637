"""Fast style transfer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...engine.evaluator import Evaluator
from ...losses.styles import mean_std, style
from ...networks.zoo import load_backbone
from ...pictures.geometry import resize, size_of
from ...pictures.reading import painting, photo
from ...recipes.fast_style import load_network, repaint
from ..exercises import Exercise, choice, close_to, same_as


def between(features: Tensor, first: Tensor, second: Tensor, share: float) -> Tensor:
    """Features (N, C, h, w) whose means and deviations are mixed of two paintings', ``share`` of the second's."""
    mean, std = mean_std(features)
    wanted = zip(mean_std(first), mean_std(second), strict=True)
    shift, scale = ((1 - share) * one + share * other for one, other in wanted)
    return (features - mean) / std * scale + shift


def in_the_middle(answer: Any) -> bool:
    """Whether the style losses of the mixture cross within 0.06 of a share of the window."""
    if isinstance(answer, bool) or not 0.06 < float(answer) < 0.94:
        return False
    cat, network = resize(photo("chelsea", 512), 192), load_backbone("pocket", "cpu")
    names, painter = ("lantern_bay", "window_of_the_sun"), load_network(device="cpu")
    judges = [Evaluator(network, style(painting(name), scale=1.25), size_of(cat), "float32") for name in names]

    def lead(share: float) -> float:
        picture = repaint(cat, dict(zip(names, (1 - share, share), strict=True)), painter)
        lanterns, panes = (judge(picture).loss.item() for judge in judges)
        return lanterns - panes

    return lead(float(answer) - 0.06) < 0 < lead(float(answer) + 0.06)


def whole(picture: Tensor, name: str, pixels: int) -> Tensor:
    """The picture repainted at once: strips of any width must give the same."""
    return repaint(picture, name, load_network(device="cpu"), tile=None)


GENERATOR = torch.Generator().manual_seed(7)
FEATURES = torch.randn(2, 3, 5, 8, generator=GENERATOR)
FIRST = 1 + torch.rand(2, 3, 6, 4, generator=GENERATOR)
SECOND = 3 * torch.rand(2, 3, 7, 7, generator=GENERATOR)
PICTURE = torch.rand(1, 3, 72, 200, generator=GENERATOR)
EXERCISES = [
    Exercise(choice("b"), "which of them gives a whole channel one factor above zero and one constant?"),
    Exercise(close_to(3200, 1e-6), "every convolution but the last has a normalization, with two numbers a channel"),
    Exercise(
        same_as(between, (FEATURES, FIRST, SECOND, 0.25), (FEATURES, FIRST, SECOND, 0.0)),
        "lk.adain.adain puts in the moments of one painting; what does a mixture of two of its results have?",
    ),
    Exercise(in_the_middle, "compare the losses at t = 0.5, and halve the interval again and again"),
    Exercise(
        same_as(whole, (PICTURE, "lantern_bay", 64), (PICTURE, "carved_sea", 120), rtol=2e-3),
        "give each strip the moments of the whole, and master.radius more pixels on both sides, to be cut off again",
    ),
]
