"""Losses that ask for what natural pictures are like."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..base.checks import check_numbers
from ..pictures.color import luma
from ..pictures.geometry import Size
from .algebra import PIXELS, BoundLoss, BoundMean, Features, FeatureSource, Loss, Window


class total_variation(Loss):
    """Roughness: the mean over pixels and colors of (dx^2 + dy^2) ^ exponent (Mahendran and Vedaldi 2015).

    dx and dy are differences to the right and lower neighbor, 0 across the border.

    Args:
        exponent: 1 is the squared gradient, 0.5 the classic isotropic total variation, 1.25 the article's; at most 10.
    """

    name = "total_variation"
    layers = (PIXELS,)

    def __init__(self, exponent: float = 1.0):
        check_numbers(1e-3, most=10, exponent=exponent)
        self.exponent = exponent

    def bind(self, source: FeatureSource, size: Size) -> BoundLoss:
        return BoundMean(self.layers, (self.name, ""), self._roughness)

    def _roughness(self, features: Features, window: Window) -> Tensor:
        picture = self._judged(features[PIXELS])
        dx = F.pad(picture[..., :, 1:] - picture[..., :, :-1], (0, 1))
        dy = F.pad(picture[..., 1:, :] - picture[..., :-1, :], (0, 0, 0, 1))
        square = dx.square() + dy.square()
        # Below 1 the power has an infinite slope at 0, which flat areas would turn into NaN.
        rough = square if self.exponent == 1 else (square + 1e-12) ** self.exponent
        return window.crop_float32(PIXELS, rough).mean(1)

    def _judged(self, picture: Tensor) -> Tensor:
        return picture

    def _arguments(self) -> str:
        return "" if self.exponent == 1 else f"exponent={self.exponent:g}"


class chroma_tv(total_variation):
    """Roughness of the colors alone: the `total_variation` of the picture less its luma.

    Networks hardly see fine changes of color, so that what they ask for leaves colored noise. Brushstrokes in the luma
    are left alone.

    Example:
        >>> gray = lk.luma(lk.photo("coffee", (32, 32))).expand(-1, 3, -1, -1)
        >>> evaluate = lk.Evaluator(lk.load_backbone("pocket", "cpu"), lk.chroma_tv(), (32, 32))
        >>> bool(evaluate(gray).loss < 1e-12)
        True
    """

    name = "chroma_tv"

    def _judged(self, picture: Tensor) -> Tensor:
        return picture - luma(picture)
