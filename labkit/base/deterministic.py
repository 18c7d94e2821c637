"""Operations whose gradients PyTorch adds up in any order on GPUs, written so that they repeat themselves.

On a CPU they are PyTorch's own, which repeat themselves there and are faster.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sampled(pictures: Tensor, grid: Tensor) -> Tensor:
    """Pictures (N, C, H, W) read, bilinearly, at the places of ``grid`` (N, h, w, 2), as F.grid_sample has them: from
    -1 to 1, (right, down), corners not aligned. Beyond the borders they are mirrored."""
    if pictures.device.type == "cpu":
        return F.grid_sample(pictures, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    corners, weights = [], []
    for side, places in zip((pictures.shape[3], pictures.shape[2]), grid.unbind(-1), strict=True):
        places = (places + 1) / 2 * side  # in pixels from the border
        places = (side - (side - places.remainder(2 * side)).abs() - 0.5).clamp(0, side - 1)
        first = places.long()
        corners.append((first, (first + 1).clamp_max(side - 1)))
        weights.append((1 - (places - first), places - first))
    which = torch.arange(len(pictures), device=pictures.device)[:, None, None]
    read = [
        (across * down)[..., None] * pictures[which, :, row, column]  # of whose gradient PyTorch sorts the places
        for row, down in zip(corners[1], weights[1], strict=True)
        for column, across in zip(corners[0], weights[0], strict=True)
    ]
    return (read[0] + read[1] + read[2] + read[3]).permute(0, 3, 1, 2)


def enlarged(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (N, C, h, w) resized bilinearly to ``size`` (height, width), as F.interpolate does."""
    size = tuple(size)
    if maps.shape[-2:] == size:
        return maps
    if maps.device.type == "cpu":
        return F.interpolate(maps, size, mode="bilinear")
    rows, columns = (
        F.interpolate(torch.eye(old)[None], new, mode="linear")[0].to(maps)  # (old, new)
        for old, new in zip(maps.shape[-2:], size, strict=True)
    )
    return rows.T @ maps @ columns


def shrunk(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (N, C, h, w) resized bilinearly with antialiasing to ``size`` (height, width), as F.interpolate does."""
    height, width = size
    if maps.device.type == "cpu":
        return F.interpolate(maps, (height, width), mode="bilinear", antialias=True)
    rows, columns = (
        F.interpolate(torch.eye(old)[None, None], (new, old), mode="bilinear", antialias=True)[0, 0].to(maps)
        for old, new in zip(maps.shape[-2:], (height, width), strict=True)
    )
    return rows @ maps @ columns.T


def padded(maps: Tensor, padding: Sequence[int], mode: str) -> Tensor:
    """Maps (N, C, h, w) with ``padding`` (rows, columns) more of them on each side: "zeros", "reflect", "replicate"."""
    rows, columns = padding
    if mode == "zeros" or maps.device.type == "cpu":
        return F.pad(maps, (columns, columns, rows, rows), mode="constant" if mode == "zeros" else mode)
    for axis, width in ((2, rows), (3, columns)):
        side = maps.shape[axis]
        if mode == "reflect":
            before, after = (maps.narrow(axis, start, width).flip(axis) for start in (1, side - 1 - width))
        else:
            before, after = (maps.narrow(axis, k, 1).repeat_interleave(width, axis) for k in (0, side - 1))
        maps = torch.cat([before, maps, after], axis)
    return maps


class Conv2d(nn.Conv2d):
    """A convolution whose border, of any ``padding_mode``, is `padded`."""

    def forward(self, input: Tensor) -> Tensor:
        if self.padding_mode == "zeros" or isinstance(self.padding, str):
            return super().forward(input)
        x = padded(input, self.padding, self.padding_mode)
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)
