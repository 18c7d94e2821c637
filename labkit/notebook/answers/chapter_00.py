"""Start here."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...networks.zoo import load_backbone
from ...pictures.reading import photo
from ..exercises import Exercise, close_to, is_picture, same_as


def brighter(picture: Tensor, amount: float) -> Tensor:
    """A picture with ``amount`` added, still in [0, 1]."""
    return (picture + amount).clamp(0, 1)


def responds_more(answer: Any) -> bool:
    """Whether `relu5_1` responds at least two and a half times as strongly as to the photo of the rocket."""
    rocket, network = photo("rocket", 240), load_backbone("pocket", device="cpu")
    if not is_picture(answer, rocket.shape):
        return False
    before, after = (network.features(x, ["relu5_1"])["relu5_1"].square().mean() for x in (rocket, answer))
    return bool(after >= 2.5 * before)


STEPS = torch.linspace(0, 1, 12).reshape(1, 3, 2, 2)
EXERCISES = [
    Exercise(close_to(3 * 480 * 640, 1e-6), "a tensor of shape (1, 3, height, width) holds the product of these"),
    Exercise(
        same_as(brighter, (STEPS, 0.25), (STEPS, -0.4)),
        "try 0.9 + 0.3: that is no color any more; torch has a function that bounds values on both sides",
    ),
    Exercise(close_to(12, 0.5), "the mean square of a layer's features on the dream, divided by that on the photo"),
    Exercise(
        lambda answer: isinstance(answer, str) and answer == "table_with_guitar",
        "one evaluator for each painting, at the size of the small photo",
    ),
    Exercise(responds_more, "lk.dream takes a layer as its second argument, and octaves=3 suits a small photo"),
]
