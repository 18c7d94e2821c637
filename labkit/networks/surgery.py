"""Networks with other pooling and other borders than they were trained with, which paint more smoothly."""

from __future__ import annotations

import copy
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base.checks import check_choice
from ..base.deterministic import Conv2d
from ..pictures.reading import photo
from .backbone import Backbone

Pooling: TypeAlias = Literal["max", "average", "l2"]
Border: TypeAlias = Literal["zeros", "replicate", "reflect"]


def variant(backbone: Backbone, pooling: Pooling = "max", border: Border = "zeros") -> Backbone:
    """A copy of the network with other pooling and another border; the network itself if nothing is changed.

    Args:
        backbone: the network, which stays as it is.
        pooling: what stands in for max pooling: "average", which Gatys et al. (2016) preferred because its gradient
            reaches all pixels, or "l2", the root of the mean square. Both are scaled to what max pooling gives on a
            photo.
        border: what the first convolution sees around the picture: "zeros", as in training, a frame of the mean color
            that style transfer paints along; or "replicate" or "reflect", more of the picture.

    Raises:
        ValueError: for other names, and for a network without the parts to be changed.
    """
    check_choice("pooling", pooling, Pooling)
    check_choice("border", border, Border)
    if (pooling, border) == ("max", "zeros"):
        return backbone
    changed = copy.deepcopy(backbone)
    if pooling != "max":
        pools = [(m, name, p) for m in changed.modules() for name, p in m.named_children() if type(p) is nn.MaxPool2d]
        if not pools:
            raise ValueError(f"{backbone.name} has no max pooling to be replaced")
        for parent, name, pool in pools:
            setattr(parent, name, ScaledPool(pool, power=1 if pooling == "average" else 2))
        with torch.no_grad():
            changed.features(photo("chelsea", 256).to(changed.device, changed.mean.dtype), changed.names[-1:])
    if border != "zeros":
        first = next((m for m in changed.modules() if isinstance(m, nn.Conv2d)), None)
        if first is None or isinstance(first.padding, str) or not any(first.padding):
            raise ValueError(f"{backbone.name} has no first convolution with a border")
        first.__class__, first.padding_mode = Conv2d, border
    return changed


class ScaledPool(nn.AvgPool2d):
    """The mean, or with ``power`` 2 the root mean square, of each window, times a factor.

    The factor is found in the first call: it gives the features the root mean square that max pooling would give.
    """

    def __init__(self, pool: nn.MaxPool2d, power: int):
        super().__init__(pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode, count_include_pad=False)
        self.power, self.factor = power, 0.0

    def forward(self, input: Tensor) -> Tensor:
        mean = super().forward(input) if self.power == 1 else (super().forward(input.square()) + 1e-12).sqrt()
        if not self.factor:
            highest = F.max_pool2d(input, self.kernel_size, self.stride, self.padding, ceil_mode=self.ceil_mode)
            self.factor = (highest.square().mean() / mean.square().mean()).sqrt().item()
        return self.factor * mean
