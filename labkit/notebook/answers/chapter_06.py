"""The style lab."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...engine.evaluator import Evaluator
from ...losses.styles import style
from ...losses.target_statistics import guide_map
from ...networks.receptive_fields import ReceptiveField
from ...networks.zoo import load_backbone
from ...pictures.color import luma
from ...pictures.geometry import resize, size_of
from ...pictures.reading import painting, photo
from ..exercises import Exercise, choice, close_to, is_picture, same_as


def masked_gram(features: Tensor, guide: Tensor) -> Tensor:
    """The Gram matrices (N, C, C) of features (N, C, h, w), each position counted as a guide (h, w) says."""
    return torch.einsum("ncp,ndp,p->ncd", features.flatten(2), features.flatten(2), guide.flatten()) / guide.sum()


def gray(picture: Tensor) -> Tensor:
    """The luma of a picture (N, 3, H, W), as a gray picture."""
    return luma(picture).expand_as(picture)


def strokes_without_colors(answer: Any) -> bool:
    """Whether a picture of the small cat has the photo's colors within 0.04, and the night's strokes within 0.19."""
    small, night = resize(resize(photo("chelsea")[..., 125:350], (320, 240)), 192), painting("lantern_bay")
    if not is_picture(answer, small.shape):
        return False
    colors, wanted = (x.cpu().flatten(2).sort(2).values for x in (answer, small))
    strokes = style(gray(night), statistic="wasserstein")
    judge = Evaluator(load_backbone("pocket", "cpu"), strokes, size_of(small), "float32")
    return (colors - wanted).abs().mean().item() <= 0.04 and judge(gray(answer.cpu())).loss.item() <= 0.19


GENERATOR = torch.Generator().manual_seed(6)
FEATURES = torch.rand(2, 4, 5, 7, generator=GENERATOR)
GUIDE, SOFT = (torch.rand(5, 7, generator=GENERATOR) > 0.5).float(), torch.rand(5, 7, generator=GENERATOR)
MASK, FINE = (torch.rand(24, 32, generator=GENERATOR) > 0.1).float(), torch.rand(24, 32, generator=GENERATOR)
SMALL, WIDE = ReceptiveField(5, 1, -2), ReceptiveField(14, 2, -6)
EXERCISES = [
    Exercise(choice("a"), "Adam divides the gradient's mean by the root of the mean of its square"),
    Exercise(close_to(30 / 9), "the weights of layers are divided by their sum, before style_weight multiplies"),
    Exercise(
        same_as(masked_gram, (FEATURES, GUIDE), (FEATURES, SOFT)),
        "the guide stands once in the product of the features, and its sum is what you divide by",
    ),
    Exercise(close_to(0.1 / 0.19), "before the division the newer one has the weight 0.1; and the older one?"),
    Exercise(
        same_as(guide_map, (MASK, SMALL, (24, 32)), (FINE, SMALL, (24, 32)), (FINE, WIDE, (12, 16))),
        "the least is minus the greatest of the negative: max_pool2d, with the field's size as kernel, and its stride",
    ),
    Exercise(
        strokes_without_colors,
        'another `color` than "linear", which matches only mean and covariance: one that sorts, and after the painting',
    ),
]
