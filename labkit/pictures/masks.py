"""Masks say where in a picture something counts, and guides carry them into a network's layers."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from ..base.checks import check_numbers
from .color import luma
from .filters import blurred
from .geometry import Size, resize, size_of

NAMES = "center", "texture", "salient"
Mask = str | Tensor | Callable[[int, int], Tensor] | None


def as_mask(mask: Mask, size: Size, warn: bool = True) -> Tensor:
    """A checked mask (N, 1, H, W) in [0, 1] for pictures of one size.

    Args:
        mask: "center" (a soft disc), a function of height and width, or a tensor (H, W) or (N, 1, H, W) in [0, 1].
        size: (H, W). A mask of another size is resized when its aspect is the same, within one per cent, or what
            rounding its sides makes; else it is an error.
        warn: whether to warn of that.
    """
    if isinstance(mask, str):
        if mask != "center":
            raise ValueError(
                f'the masks with a name are "center" and, for dreams, "texture" and "salient", not {mask!r}'
            )
        mask = center_mask
    values = torch.as_tensor(mask(*size) if callable(mask) else mask).float()
    values = values[None, None] if values.ndim == 2 else values
    if values.ndim != 4 or values.shape[1] != 1 or not _same_aspect(size_of(values), size):
        raise ValueError(f"a mask for this picture has the shape {tuple(size)}, this one has {tuple(values.shape)}")
    if not (values.min() >= 0 and values.max() <= 1):  # written so that NaN fails too
        raise ValueError(f"a mask lies in [0, 1], this one runs from {values.min():.4g} to {values.max():.4g}")
    if warn and size_of(values) != tuple(size):
        height, width = size_of(values)
        warnings.warn(f"a mask of {width}x{height} pixels is resized to {size[1]}x{size[0]}", stacklevel=2)
    return resize(values, size)


def _same_aspect(a: Size, b: Size) -> bool:
    if 0 in a:
        return False
    tolerance = max(0.01, sum(0.5 / side for side in min(a, b, key=min)))
    return abs(a[0] * b[1] / (a[1] * b[0]) - 1) <= tolerance


def center_mask(height: int, width: int) -> Tensor:
    """A soft disc (H, W): 1 in the middle, a half at 0.3 of each side from it, near 0 at the corners."""
    rows, columns = torch.linspace(-1, 1, height)[:, None] / 0.6, torch.linspace(-1, 1, width) / 0.6
    return 0.5 ** (rows**2 + columns**2)


def texture(photo: Tensor) -> Tensor:
    """How much texture there is around each place of photos (N, 3, H, W): (N, 1, H, W).

    The difference of the luma from its blur, 1/150 of the longer side wide, blurred more widely, by 1/40, so that it
    belongs to places and not to pixels.
    """
    gray, side = luma(photo), max(size_of(photo))
    return blurred((gray - blurred(gray, side / 150)).abs(), side / 40)


def texture_mask(photo: Tensor, floor: float = 0.05) -> Tensor:
    """Where photos (N, 3, H, W) have texture: a mask (N, 1, H, W) for dreams that leave calm places calm (`emphasis`).

    It grows with the square of the `texture`. That of 0.02 is enough to dream on; a photo that has less everywhere is
    dreamt on where it has most.

    Example:
        >>> lk.pictures.masks.texture_mask(torch.full((1, 3, 32, 32), 0.5)).unique().tolist()
        [1.0]
    """
    return emphasis(texture(photo).square(), floor, enough=0.02**2)


def emphasis(strength: Tensor, floor: float = 0.05, enough: float = 1e-30) -> Tensor:
    """A mask (N, 1, H, W), 1 in the quarter of each picture where ``strength`` is largest, and in proportion elsewhere.

    Args:
        strength: of at least 0; a picture without any has the mask 1.
        floor: what places without any have, above 0 and at most 1.
        enough: of a picture with less in its largest quarter, the mask is 1 from here on, or where it has most.
    """
    check_numbers(1e-6, most=1, floor=floor)
    share = (strength / upper_quartile(strength).clamp_min(enough)).clamp_max(1)
    most = share.amax((1, 2, 3), keepdim=True)
    share = torch.where(most > 0, share / most, 1.0)
    return floor + (1 - floor) * share


def upper_quartile(values: Tensor) -> Tensor:
    """Of each picture (N, C, H, W), as (N, 1, 1, 1): of large ones from every so many rows and columns."""
    apart = -(-max(size_of(values)) // 1024)  # torch takes the quantile of at most 16 million numbers
    return values[..., ::apart, ::apart].flatten(1).quantile(0.75, 1).view(-1, 1, 1, 1)
