"""Pictures filtered."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .geometry import size_of


def blurred(picture: Tensor, sigma: float) -> Tensor:
    """A Gaussian blur of width ``sigma`` pixels, separable, with mirrored borders (repeated where it is wider)."""
    radius = max(1, math.ceil(3 * sigma))
    taps = torch.arange(-radius, radius + 1, device=picture.device, dtype=picture.dtype)
    kernel = torch.exp(-(taps**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(picture.shape[1], 1, -1)
    for shape, pad in (((1, len(taps)), (radius, radius, 0, 0)), ((len(taps), 1), (0, 0, radius, radius))):
        fits = radius < min(size_of(picture))
        padded = F.pad(picture, pad, mode="reflect" if fits else "replicate")
        picture = F.conv2d(padded, kernel.reshape(-1, 1, *shape), groups=picture.shape[1])
    return picture
