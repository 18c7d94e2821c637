"""Floor 1: masks say where in a picture something counts, and guides carry them into a network's layers."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .images import resize
from .network import ReceptiveField, averages

Mask = str | Tensor | Callable[[int, int], Tensor] | None


def as_mask(mask: Mask, size: tuple[int, int], warn: bool = True) -> Tensor:
    """A mask (N, 1, H, W) in [0, 1] for pictures of ``size``: "centre" (a soft disc), a function, or a tensor.

    A mask of another size is resized, with a warning unless ``warn`` is False, when its aspect is the picture's (within
    one per cent, or what rounding its sides makes). ValueError if it is not, and for values outside [0, 1].
    """
    if isinstance(mask, str):
        if mask != "centre":
            raise ValueError(f'the only mask with a name is "centre", not {mask!r}')
        mask = centre_mask
    found = torch.as_tensor(mask(*size) if callable(mask) else mask).float()
    found = found[None, None] if found.ndim == 2 else found
    if found.ndim != 4 or found.shape[1] != 1 or not _same_aspect(found.shape[2:], size):
        raise ValueError(f"a mask for this picture has the shape {tuple(size)}, this one has {tuple(found.shape)}")
    if not (found.min() >= 0 and found.max() <= 1):  # written so that NaN fails too
        raise ValueError(f"a mask lies in [0, 1], this one runs from {found.min():.4g} to {found.max():.4g}")
    height, width = found.shape[2:]
    if warn and (height, width) != tuple(size):
        warnings.warn(f"a mask of {width}x{height} pixels is resized to {size[1]}x{size[0]}", stacklevel=2)
    return resize(found, tuple(size))


def _same_aspect(one: tuple[int, int], other: tuple[int, int]) -> bool:
    if 0 in one:
        return False
    tolerance = max(0.01, sum(0.5 / side for side in min(one, other, key=min)))
    return abs(one[0] * other[1] / (one[1] * other[0]) - 1) <= tolerance


def centre_mask(height: int, width: int) -> Tensor:
    """A soft disc (H, W): 1 in the middle, a half at 0.3 of each side from it, near 0 at the corners."""
    rows = torch.linspace(-1, 1, height)[:, None] / 0.6
    columns = torch.linspace(-1, 1, width)[None, :] / 0.6
    return 0.5 ** (rows**2 + columns**2)


def guide_map(mask: Tensor, field: ReceptiveField, size: tuple[int, int]) -> Tensor:
    """How much each unit of a layer counts, (h, w), for a mask (H, W) of the picture: Gatys et al. 2017's guide.

    ``field``: what a unit sees; ``size``: the layer's map. The mask is eroded: a unit counts by the least that the mask
    is anywhere in its receptive field, so that it is no judge of what lies outside (arXiv:1611.07865). What is beyond
    the picture's border does not matter. If no unit sees only the inside, because the region is smaller than the field,
    each counts by the share of its own cell of the picture that the mask covers.
    """
    least = mask[None, None]
    for axis in (0, 1):  # the least of a square is the least of its columns' leasts
        side, length = mask.shape[axis], (size[axis] - 1) * field.stride + field.size
        around = (-field.start, length + field.start - side)
        outside = -F.pad(-least, (0, 0, *around) if axis == 0 else around, value=-torch.inf)
        kernel, stride = ((n, 1) if axis == 0 else (1, n) for n in (field.size, field.stride))
        least = -F.max_pool2d(-outside, kernel, stride)
    least = least.clamp_max(1)  # a padded map may have units that see nothing of the picture
    if least.any():
        return least[0, 0]
    rows, columns = (averages(*sides, mask.device) for sides in zip(mask.shape, size, strict=True))
    return rows @ mask @ columns.T
