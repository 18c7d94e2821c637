"""Losses that ask for what natural pictures are like."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F

from .algebra import (
    PIXELS,
    BoundLoss,
    BoundMean,
    Features,
    FeatureSource,
    Loss,
    Statistics,
    Window,
    position_count,
)


class total_variation(Loss):
    """Roughness: the mean over pixels and colors of (dx^2 + dy^2) ^ exponent (Mahendran and Vedaldi 2015).

    dx and dy are differences to the right and lower neighbor, 0 across the border. ``exponent`` 1 (the default) is the
    squared gradient, 0.5 the classic isotropic total variation, 1.25 the article's.
    """

    name = "total_variation"
    layers = (PIXELS,)

    def __init__(self, exponent: float = 1.0):
        if not exponent > 0:
            raise ValueError(f"the exponent must be positive, not {exponent}")
        self.exponent = exponent

    def bind(self, source: FeatureSource, size: tuple[int, int]) -> BoundLoss:
        return BoundVariation(self.layers, (self.name, ""), self.exponent, linear=True)

    def _arguments(self) -> str:
        return "" if self.exponent == 1 else f"exponent={self.exponent:g}"


@dataclass
class BoundVariation(BoundMean):
    """A `total_variation`, which needs to know of no network."""

    exponent: float

    def statistics(self, features: Features, window: Window) -> Statistics:
        picture = features[PIXELS]
        dx = F.pad(picture[..., :, 1:] - picture[..., :, :-1], (0, 1))
        dy = F.pad(picture[..., 1:, :] - picture[..., :-1, :], (0, 0, 0, 1))
        square = dx.square() + dy.square()
        # Below 1 the power has an infinite slope at 0, which flat areas would turn into NaN.
        rough = square if self.exponent == 1 else (square + 1e-12) ** self.exponent
        rough = window.crop_float32(PIXELS, rough)
        return {"sum": rough.mean(1).sum((1, 2)), "count": position_count(rough)}
