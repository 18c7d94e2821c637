"""The dream lab."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...engine.evaluator import Evaluator
from ...losses.energies import class_evidence
from ...networks.zoo import load_backbone
from ...pictures.color import luma
from ...pictures.geometry import size_of
from ...pictures.reading import photo
from ..exercises import Exercise, choice, close_to, is_picture, same_as

LEAST_GROWTH = 1.0


def match_by_angle(f: Tensor, g: Tensor) -> Tensor:
    """The mean over places of features (N, C, h, w) of the largest cosine with a place of a guide's (1, C, k, l)."""
    products = torch.einsum("nchw,mckl->nhwkl", F.normalize(f, dim=1), F.normalize(g, dim=1))
    return products.flatten(3).amax(3).mean((1, 2))


def evened_halves(gradient: Tensor) -> Tensor:
    """The fine and the coarse part of a gradient (N, C, H, W), each divided by its root mean square, added."""
    coarse = F.interpolate(F.avg_pool2d(gradient, 2), scale_factor=2)
    return sum((part / part.square().mean().sqrt() for part in (gradient - coarse, coarse)), torch.zeros(()))


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def is_dark(answer: Any) -> bool:
    """Whether this is the mask of the launch pad's dark places."""
    wanted = ((0.3 - luma(photo("rocket", 288))) / 0.1).clamp(0, 1)
    fits = isinstance(answer, Tensor) and answer.shape == wanted.shape
    return fits and bool(((answer.detach().cpu().float() - wanted).abs() < 1e-3).all())


def is_jellyfish(answer: Any) -> bool:
    """Whether the coffee has come nearer to a jellyfish, and its left third is as it was."""
    coffee = photo("coffee", 192)
    if not is_picture(answer, coffee.shape):
        return False
    picture = answer.detach().cpu().float()
    third = coffee.shape[3] // 3
    if (picture - coffee)[..., :third].abs().max() > 1e-5:
        return False
    evaluate = Evaluator(load_backbone("pocket", "cpu"), class_evidence("jellyfish"), size_of(coffee), "float32")
    return (evaluate(picture).loss - evaluate(coffee).loss).item() >= LEAST_GROWTH


EXERCISES = [
    Exercise(choice("b"), "look in the loop whether the mask comes before or after the division by the mean size"),
    Exercise(close_to(3 ** (1 / 48)), "count the frames: so many equal factors multiply to 3"),
    Exercise(
        same_as(
            match_by_angle,
            (_random(2, 4, 3, 5, seed=0), _random(1, 4, 2, 3, seed=1)),
            (_random(1, 6, 4, 2, seed=2), 3 * _random(1, 6, 3, 3, seed=3)),
        ),
        "make every vector of both as long as 1, along the channels, before you multiply; then as in the match above",
    ),
    Exercise(
        same_as(evened_halves, (_random(1, 3, 8, 12, seed=4),), (0.01 * _random(1, 3, 6, 6, seed=5),)),
        "the fine part is the gradient less the coarse part; divide each by its own root mean square",
    ),
    Exercise(is_dark, "a line through the points (0.2, 1) and (0.3, 0), and then clamp"),
    Exercise(is_jellyfish, "a mask with zeros in its left third, and the loss negated; measure both pictures"),
]
