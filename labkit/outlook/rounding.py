"""Numbers with few bits. Grids of whole numbers and how to choose them, three values, two values, bits.

Rounded numbers stay floating-point ("fake quantization"), so that autograd and everything else works on them
unchanged; the whole numbers that a chip would store are one call away (`Affine.quantize`, `pack`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from ..base.checks import check_choice, check_numbers
from ..losses.algebra import at_least_float32

Clip: TypeAlias = Literal["minmax", "percentile", "mse", "kl"]


def straight_through(hard: Tensor, soft: Tensor) -> Tensor:
    """Exactly the value of ``hard`` with the gradient of ``soft`` (Bengio et al. 2013, arXiv:1308.3432).

    Rounding is flat almost everywhere, so its own gradient is zero and teaches nothing.
    """
    return hard.detach() + (soft - soft.detach())


# --- uniform grids -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Affine:
    """The grid of real numbers ``scale * (q - zero_point)`` for whole q from ``low`` to ``high``.

    ``scale`` and ``zero_point`` are tensors that broadcast with what is rounded: one number, or one a channel.
    """

    scale: Tensor
    zero_point: Tensor
    low: int
    high: int

    def quantize(self, x: Tensor) -> Tensor:
        """The whole numbers (int8 where they fit, else int32) of the grid points nearest to ``x``."""
        q = ((x / self.scale).round() + self.zero_point).clamp(self.low, self.high)
        return q.to(torch.int8 if self.high < 128 else torch.int32)

    def __call__(self, x: Tensor) -> Tensor:
        """``x`` rounded to the nearest point of the grid.

        The gradient goes straight through, and is zero where ``x`` lies more than half a step beyond the ends. A scale
        that asks for one gets the gradient of learned step size quantization (Esser et al. 2020, arXiv:1902.08153).
        """
        low, high = self.low - self.zero_point, self.high - self.zero_point
        steps = (x / self.scale).clamp(low - 0.5, high + 0.5)
        return (straight_through(steps.round().clamp(low, high), steps) * self.scale).to(x.dtype)


def affine(
    low: Tensor | float, high: Tensor | float, bits: int = 8, *, symmetric: bool = False, power_of_two: bool = False
) -> Affine:
    """The grid of 2^bits points (one fewer when symmetric) that covers [low, high] and holds zero exactly.

    Args:
        bits: from 2 to 16.
        symmetric: zero_point 0 and as many points on either side, as weights have it; else the points are spread over
            the range alone.
        power_of_two: round the scale up to a power of two (fixed point: rescaling is a shift).

    Example:
        >>> affine(-1, 1, bits=2, symmetric=True)(torch.tensor([0.4, 0.6, 9.0]))
        tensor([0., 1., 1.])
    """
    low, high = (x if isinstance(x, Tensor) else torch.tensor(float(x)) for x in (low, high))
    check_numbers(2, Integral, most=16, bits=bits)
    if not (torch.isfinite(low).all() and torch.isfinite(high).all() and (low <= high).all()):
        raise ValueError("a range runs from a finite low to a finite high: are there NaN or infinite numbers?")
    top = 2 ** (bits - 1) - 1
    first = -top if symmetric else -top - 1
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = torch.maximum(-low, high) / top if symmetric else (high - low) / (top - first)
    scale = torch.where(scale > 0, scale, 1.0)  # a channel of zeros
    if power_of_two:
        scale = torch.exp2(scale.log2().ceil())
    zero_point = torch.zeros_like(scale) if symmetric else (first - low / scale).round()
    return Affine(scale, zero_point, first, top)


def uniform(
    x: Tensor,
    bits: int = 8,
    *,
    axis: int | None = None,
    symmetric: bool = True,
    clip: Clip = "minmax",
    power_of_two: bool = False,
) -> Affine:
    """A grid for the numbers in ``x``: calibration.

    Args:
        axis: one grid for each index along it (0: the output channels of weights); None: one for all.
        symmetric, power_of_two: see `affine`.
        clip: how the range is constrained. "minmax" covers everything; "percentile" leaves out the outermost 0.1 %;
            "mse" minimizes the mean square error, and "kl" the divergence of the rounded histogram (Migacz 2017).
    """
    check_choice("clip", clip, Clip)
    if x.numel() == 0:
        raise ValueError("there is nothing to calibrate on: give at least one number")
    grid = partial(affine, bits=bits, symmetric=symmetric, power_of_two=power_of_two)
    x = at_least_float32(x.detach())
    rows = x.flatten()[None] if axis is None else x.movedim(axis, 0).flatten(1)
    low, high = (extreme.clone()[:, None] for extreme in rows.aminmax(dim=1))
    grid(low, high)  # complain now, of what is not finite
    if clip == "percentile":
        out = round(rows.shape[1] * 0.0005)
        low, high = (rows.kthvalue(k, dim=1, keepdim=True).values for k in (out + 1, rows.shape[1] - out))
    elif clip != "minmax":
        low, high = _searched(rows, low, high, grid, _square_error if clip == "mse" else _divergence)
    shape = [] if axis is None else [-1 if k == axis % x.ndim else 1 for k in range(x.ndim)]
    return grid(low.view(shape), high.view(shape))


def _searched(
    rows: Tensor, low: Tensor, high: Tensor, grid: Callable[..., Affine], loss: Callable[..., Tensor], bins: int = 1024
) -> tuple[Tensor, Tensor]:
    """The fraction of [low, high] (C, 1) whose grid has the least loss on the histograms of ``rows`` (C, M)."""
    low, high = low.clamp(max=0), high.clamp(min=0)  # every grid has a zero, and the smallest holds little else
    width = ((high - low) / bins).clamp_min(1e-12)
    index = ((rows - low) / width).long().clamp(0, bins - 1)
    # An exact zero stays exact on every grid, so the many zeros after a ReLU must not pull at the range.
    counts = rows.new_zeros(len(rows), bins).scatter_add_(1, index, (rows != 0).to(rows))
    centers = low + width * (torch.arange(bins, device=rows.device) + 0.5)
    fractions = torch.linspace(0.02, 1, 50, device=rows.device)
    losses = torch.stack([loss(counts, centers, grid(low * f, high * f)) for f in fractions])
    best = fractions[losses.argmin(0)][:, None]
    return low * best, high * best


def _square_error(counts: Tensor, centers: Tensor, grid: Affine) -> Tensor:
    return (counts * (grid(centers) - centers).square()).sum(1)


def _divergence(counts: Tensor, centers: Tensor, grid: Affine) -> Tensor:
    """KL(p || q): p is the histogram with what lies beyond the ends moved to them, q its rounding.

    Rounding forgets where within its step a number was, so q spreads the mass of a step evenly over its bins.
    """
    inside = (centers - grid(centers)).abs() <= 0.5001 * grid.scale
    first, last = inside.int().argmax(1, keepdim=True), inside.sum(1, keepdim=True) - 1
    position = torch.arange(counts.shape[1], device=counts.device).expand_as(counts)
    p = torch.zeros_like(counts).scatter_add_(1, position.clamp(first, first + last), counts)
    level = grid.quantize(centers).long() - grid.low
    empty = counts.new_zeros(len(counts), grid.high - grid.low + 1)
    filled = (inside & (counts > 0)).to(counts)
    mass, bins = (empty.scatter_add(1, level, part) for part in (counts * filled, filled))
    q = (mass / bins.clamp_min(1)).gather(1, level) * filled
    p, q = (h / h.sum(1, keepdim=True).clamp_min(1e-12) for h in (p, q))
    return torch.xlogy(p, p / q.clamp_min(1e-9)).sum(1)


# --- three values, two values ------------------------------------------------------------------------------------


def signs(x: Tensor) -> Tensor:
    """1 where x >= 0 and -1 elsewhere: one bit, which has no zero."""
    return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)


def ternary(weight: Tensor) -> Tensor:
    """Each output channel rounded to {-a, 0, a}, the nearest by least squares (Li et al. 2016, arXiv:1605.04711).

    If the k largest magnitudes become a, the best a is their mean, and the best k maximizes (their sum)^2 / k.
    """
    size, order = weight.detach().flatten(1).abs().sort(descending=True)
    sums, count = size.cumsum(1), torch.arange(1, size.shape[1] + 1, device=size.device)
    k = (sums.square() / count).argmax(1, keepdim=True)
    rounded = torch.zeros_like(size).scatter(1, order, sums.gather(1, k) / (k + 1) * (count <= k + 1))
    return straight_through(rounded.view_as(weight) * signs(weight), weight)


def binary(weight: Tensor) -> Tensor:
    """Each output channel rounded to {-a, a}; the best a is the mean magnitude (Rastegari et al. 2016)."""
    return straight_through(magnitude(weight) * signs(weight), weight)


def magnitude(weight: Tensor) -> Tensor:
    """The mean magnitude of each output channel, shaped so that it broadcasts with the weights."""
    return weight.abs().mean(tuple(range(1, weight.ndim)), keepdim=True)


# --- arithmetic on single bits ------------------------------------------------------------------------------------


def pack(x: Tensor) -> Tensor:
    """The signs of x (..., n) as bits, eight to a byte: uint8 (..., ceil(n / 8)), the last byte filled up with 0."""
    bits = F.pad((x >= 0).to(torch.uint8), (0, -x.shape[-1] % 8)).unflatten(-1, (-1, 8))
    return (bits << torch.arange(8, dtype=torch.uint8, device=x.device)).sum(-1, dtype=torch.uint8)


def popcount(words: Tensor) -> Tensor:
    """How many bits of each byte are set: sums of 1, then 2, then 4 neighboring bits, all of a byte at once."""
    words = (words & 0x55) + (words >> 1 & 0x55)
    words = (words & 0x33) + (words >> 2 & 0x33)
    return (words & 0x0F) + (words >> 4)


def xnor_dot(a: Tensor, b: Tensor, n: int) -> Tensor:
    """Dot products of vectors of n signs from their packed words (..., ceil(n / 8)), which broadcast: exact, int32.

    Equal signs contribute 1 and unlike ones -1, so the product is n minus twice the number of unlike bits.
    """
    return n - 2 * popcount(a ^ b).sum(-1, dtype=torch.int32)
