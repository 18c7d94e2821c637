"""The size of pictures, and several as one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from ..base.devices import off_mps

Size: TypeAlias = tuple[int, int]  # (height, width)


def size_of(picture: Tensor) -> Size:
    """Height and width of pictures or maps (..., H, W)."""
    return picture.shape[-2], picture.shape[-1]


def resize(picture: Tensor, size: int | Sequence[int]) -> Tensor:
    """Resize with antialiasing. ``size``: (height, width), or the longer side in pixels (never enlarging)."""
    height, width = size_of(picture)
    if isinstance(size, Sequence):
        new = size[0], size[1]
    else:
        scale = min(1.0, size / max(height, width))
        new = max(1, round(height * scale)), max(1, round(width * scale))
    if np.min(size) < 1:
        raise ValueError(f"a picture needs at least one pixel each way, not {size}")
    return picture if new == (height, width) else antialiased(picture, new).clamp(0, 1)


def antialiased(picture: Tensor, size: Sequence[int], mode: str = "bicubic") -> Tensor:
    """The picture resized to ``size`` (height, width) with antialiasing (bicubic: a = -0.5, as Pillow), not clamped."""
    small = F.interpolate(off_mps(picture), tuple(size), mode=mode, antialias=True, align_corners=False)
    return small.to(picture.device)


def grid(pictures: list[Tensor], columns: int, gap: int = 4) -> Tensor:
    """Pictures of one size as one picture, ``columns`` wide, on white, ``gap`` pixels apart."""
    pictures = [one for batch in pictures for one in batch]
    if columns < 1 or len({one.shape[-2:] for one in pictures}) != 1:
        raise ValueError("a grid needs pictures, all of one size, and at least one column")
    height, width = pictures[0].shape[-2:]
    rows = math.ceil(len(pictures) / columns)
    sheet = pictures[0].new_ones(1, 3, rows * (height + gap) - gap, columns * (width + gap) - gap).float()
    for index, one in enumerate(pictures):
        top, left = (index // columns) * (height + gap), (index % columns) * (width + gap)
        sheet[0, :, top : top + height, left : left + width] = one.detach()
    return sheet
