"""The gradient that a dream follows: rolled, balanced, smoothed, in natural colors, normalized, masked."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..engine.evaluator import Evaluation, Evaluator
from ..losses.algebra import total
from ..pictures.color import color_correlation
from ..pictures.geometry import size_of


def dream_gradient(
    evaluator: Evaluator,
    *,
    jitter: int = 0,
    smoothing: float = 0.0,
    laplacian: int = 0,
    decorrelate: bool = False,
    mask: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Callable[[Tensor], Evaluation]:
    """The gradient that a dream follows: of the rolled picture, rolled back, smoothed, normalized and masked.

    Between these it is balanced (before smoothing, which would be undone) and turned to natural colors, if wanted.
    Every picture of a batch is rolled by a shift of its own.
    """
    root = color_correlation(evaluator.backbone.device) if decorrelate else None

    def evaluate(picture: Tensor) -> Evaluation:
        shifts = torch.randint(-jitter, jitter + 1, (len(picture), 2), generator=generator)
        evaluation = evaluator(rolled(picture, shifts))
        gradient = smoothed(balanced(rolled(evaluation.gradient, -shifts), laplacian), smoothing)
        gradient = normalized(gradient if root is None else natural(gradient, root))
        return replace(evaluation, gradient=gradient if mask is None else gradient * mask)

    return evaluate


def rolled(pictures: Tensor, shifts: Tensor) -> Tensor:
    """Each picture of a batch moved round by its own whole shift (down, right): what leaves comes back opposite."""
    return torch.stack([picture.roll(shift, (1, 2)) for picture, shift in zip(pictures, shifts.tolist(), strict=True)])


def normalized(gradient: Tensor) -> Tensor:
    """Each picture's gradient divided by its mean absolute value, so that a step changes pixels by a known mean."""
    return gradient / gradient.abs().mean((1, 2, 3), keepdim=True).clamp_min(1e-20)


def balanced(gradient: Tensor, splits: int) -> Tensor:
    """The gradient as a Laplacian pyramid of ``splits`` + 1 levels, each divided by its root mean square, and put
    together again (Mordvintsev 2016): all sizes of detail become equally strong.

    A level is what the next one, blurred by [1, 4, 6, 4, 1] / 16 each way and half as large, lacks.
    """
    if splits == 0:
        return gradient
    away = torch.arange(-2, 3, dtype=gradient.dtype, device=gradient.device).abs()
    taps = (6 - 1.5 * away - 0.5 * away.square()) / 16  # [1, 4, 6, 4, 1], made on the device: copies wait for it
    kernel, colors = torch.outer(taps, taps).expand(gradient.shape[1], 1, 5, 5), gradient.shape[1]

    def enlarged(coarse: Tensor, size: tuple[int, int]) -> Tensor:
        odd = [(side + 1) % 2 for side in size]
        return F.conv_transpose2d(coarse, 4 * kernel, stride=2, padding=2, output_padding=odd, groups=colors)

    levels = []
    for _ in range(splits):
        coarse = F.conv2d(gradient, kernel, stride=2, padding=2, groups=colors)
        levels.append(gradient - enlarged(coarse, size_of(gradient)))
        gradient = coarse
    even = _evened(gradient)
    for level in reversed(levels):
        even = enlarged(even, size_of(level)) + _evened(level)
    return even


def _evened(level: Tensor) -> Tensor:
    """Divided by its root mean square, in two steps, because squares of small gradients underflow."""
    level = normalized(level)
    return level / level.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-20)


def natural(gradient: Tensor, root: Tensor) -> Tensor:
    """The step in RGB that a gradient step in decorrelated colors is: the gradient times the colors' covariance,
    of which ``root`` is `color_correlation`.
    """
    return torch.einsum("rc,nchw->nrhw", root @ root.T, gradient)


def smoothed(gradient: Tensor, sigma: float) -> Tensor:
    """The mean of three Gaussian blurs, sigma/2, sigma and 2 sigma pixels wide: fine grain yields, edges stay."""
    if sigma == 0:
        return gradient
    return total(blurred(gradient, sigma * factor) for factor in (0.5, 1.0, 2.0)) / 3


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
