"""The size of pictures, and several as one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral
from typing import TypeAlias

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from ..base.checks import check_numbers
from ..base.devices import off_mps

Size: TypeAlias = tuple[int, int]  # (height, width)


def size_of(picture: Tensor) -> Size:
    """Height and width of pictures or maps (..., H, W)."""
    return picture.shape[-2], picture.shape[-1]


def resize(picture: Tensor, size: int | Sequence[int]) -> Tensor:
    """The picture resized with antialiasing, bicubically.

    Args:
        picture: (N, C, H, W), in [0, 1]; itself the answer if it has that size.
        size: (height, width), or the longer side, which never enlarges; sides of 1 to 65,536 pixels.

    Example:
        >>> lk.resize(torch.rand(1, 3, 40, 80), 20).shape
        torch.Size([1, 3, 10, 20])
    """
    height, width = size_of(picture)
    if not 1 <= np.min(size) <= np.max(size) <= 2**16:
        raise ValueError(f"a picture needs at least one pixel each way, not {size}, and has at most 65,536")
    if isinstance(size, Sequence):
        new = size[0], size[1]
    else:
        scale = min(1.0, size / max(height, width))
        new = max(1, round(height * scale)), max(1, round(width * scale))
    return picture if new == (height, width) else antialiased(picture, new).clamp(0, 1)


def antialiased(picture: Tensor, size: Sequence[int], mode: str = "bicubic") -> Tensor:
    """The picture resized to ``size`` (height, width) with antialiasing (bicubic: a = -0.5, as Pillow), not clamped."""
    return F.interpolate(off_mps(picture), tuple(size), mode=mode, antialias=True).to(picture.device)


def grid(pictures: list[Tensor], columns: int, gap: int = 4) -> Tensor:
    """Pictures as one, on white.

    Args:
        pictures: of one size; of a batch, each.
        columns: how many stand side by side, 1 to 1000.
        gap: pixels between them, 0 to 1000.
    """
    check_numbers(0, Integral, most=1000, gap=gap)
    pictures = [picture for batch in pictures for picture in batch]
    if not 1 <= columns <= 1000 or len({picture.shape[-2:] for picture in pictures}) != 1:
        raise ValueError("a grid needs pictures, all of one size, and at least one column, at most 1000")
    height, width = size_of(pictures[0])
    rows = math.ceil(len(pictures) / columns)
    sheet = pictures[0].new_ones(1, 3, rows * (height + gap) - gap, columns * (width + gap) - gap).float()
    for index, picture in enumerate(pictures):
        top, left = (index // columns) * (height + gap), (index % columns) * (width + gap)
        sheet[0, :, top : top + height, left : left + width] = picture.detach()
    return sheet
