"""Losses that ask for what natural pictures are like."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .algebra import PIXELS, Features, Loss, Statistics, Window, mean_of, positions


class total_variation(Loss):
    """Roughness: the mean over pixels and colors of (dx^2 + dy^2) ^ exponent (Mahendran and Vedaldi 2015).

    dx and dy are differences to the right and lower neighbor, 0 across the border. ``exponent`` 1 (the default) is the
    squared gradient, 0.5 the classic isotropic total variation, 1.25 the article's.
    """

    name = "total_variation"
    layers = (PIXELS,)
    linear = True

    def __init__(self, exponent: float = 1.0):
        if not exponent > 0:
            raise ValueError(f"the exponent must be positive, not {exponent}")
        self.exponent = exponent

    def statistics(self, features: Features, window: Window) -> Statistics:
        picture = features[PIXELS]
        dx = F.pad(picture[..., :, 1:] - picture[..., :, :-1], (0, 1))
        dy = F.pad(picture[..., 1:, :] - picture[..., :-1, :], (0, 0, 0, 1))
        square = dx.square() + dy.square()
        # Below 1 the power has an infinite slope at 0, which flat areas would turn into NaN.
        rough = square if self.exponent == 1 else (square + 1e-12) ** self.exponent
        rough = window.owned(PIXELS, rough)
        return [rough.mean(1).sum((1, 2)), positions(rough)]

    def readout(self, statistics: Statistics) -> Tensor:
        return mean_of(statistics)

    def _arguments(self) -> str:
        return "" if self.exponent == 1 else f"exponent={self.exponent:g}"
