"""The sliced Wasserstein distance of features as an additive statistic (after Heitz et al. 2021, arXiv:2006.07229)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .algebra import FeatureSource, at_least_float32, float64, total
from .histograms import BEYOND, Counts, slope_of_counts, tamed
from .target_statistics import BoundTargetStatistic, Means

BINS = 128  # between the painting's least and greatest value along a direction
CHUNK = 2**18  # projections that a CPU counts at a time: they stay in the cache


@dataclass
class Slices:
    """Directions (K, C) of a layer's features, and the least value and the range (K, 1) of a painting along each."""

    directions: Tensor
    low: Tensor
    span: Tensor

    def __call__(self, f: Tensor) -> Tensor:
        """The projections (N, K, M) of features (N, C, M), in ranges of the painting, by logarithm beyond it."""
        return tamed((self.directions.to(f) @ f - self.low) / self.span)


@dataclass
class BoundSliced(BoundTargetStatistic):
    """The mean over fixed random directions of the squared 2-Wasserstein distance of features projected on each.

    Sorting, by which it is usually computed, needs the whole picture; histograms of the projections add up over tiles.
    A distance of their cumulative counts (Cramer's) would pull with the difference in rank; this one pulls as sorting
    does, x - T(x), with the distance to the painting's value of the same rank.
    """

    slices: dict[str, Slices]

    def sums(self, layer: str, f: Tensor, weights: Tensor | None) -> dict[str, Tensor]:
        return {"histograms": SlicedCounts.apply(f, self.slices[layer], weights)}

    def distance(self, layer: str, means: Means) -> Tensor:
        mean, target, slices = means[layer, "histograms"], self.targets[layer, "histograms"], self.slices[layer]
        unit = float64(slices.span)[:, 0] / BINS
        distance = (squared_wasserstein(mean, target) * unit**2).mean(1)
        if self.relative:
            zero = SlicedCounts.apply(target.new_zeros(1, slices.directions.shape[1], 1, 1), slices, None)
            distance = distance / (squared_wasserstein(zero, target) * unit**2).mean(1)
        return distance.to(mean.dtype).to(mean.device)


def slices_of(source: FeatureSource, layers: list[str], paintings: list[Tensor], projections: int) -> dict[str, Slices]:
    """For each layer the same random directions at every call, and the range of the paintings along each."""
    slices: dict[str, Slices] = {}
    features = [source.features(painting, layers) for painting in paintings]
    for layer in layers:
        values = torch.cat([f[layer].transpose(0, 1).flatten(1) for f in features], 1)
        directions = orthonormal(len(values), projections).to(values)
        extremes = [torch.stack((directions @ part).aminmax(dim=1)) for part in values.split(CHUNK // projections, 1)]
        low, high = torch.stack(extremes)[:, 0].amin(0)[:, None], torch.stack(extremes)[:, 1].amax(0)[:, None]
        slices[layer] = Slices(directions, low, (high - low).clamp_min(1e-6 * (high - low).max().clamp_min(1e-6)))
    return slices


def orthonormal(channels: int, number: int) -> Tensor:
    """Random unit vectors (number, channels), each orthogonal to the others as long as there is room for that."""
    generator = torch.Generator().manual_seed(0)
    squares = [torch.randn(channels, channels, generator=generator) for _ in range(-(-number // channels))]
    return torch.cat([torch.linalg.qr(square)[0] for square in squares])[:number]


class SlicedCounts(torch.autograd.Function):
    """The histograms (N, K, bins) of features (N, C, h, w) along K directions, each position counted by its weight.

    Projections are made chunk by chunk, and once more for the gradient: all of them would need as much memory as the
    features, and in a cache they are made in half of the time.
    """

    @staticmethod
    def forward(ctx: Any, f: Tensor, slices: Slices, weights: Tensor | None) -> Tensor:
        ctx.save_for_backward(f, weights)
        ctx.slices = slices
        guide = None if weights is None else weights.flatten()
        parts: list[Tensor] = []
        for span in chunks(f, len(slices.directions)):
            values = slices(at_least_float32(f.flatten(2)[..., span]))
            parts.append(Counts.apply(values, None if guide is None else guide[span], -BEYOND, 1 + BEYOND, BINS))
        return total(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (f, weights), slices, (gradient,) = ctx.saved_tensors, ctx.slices, gradients
        last = f.permute(0, 2, 3, 1)  # channels last, as networks compute
        found = torch.empty_like(last, memory_format=torch.contiguous_format).flatten(1, 2)
        for span in chunks(f, len(slices.directions)):
            with torch.enable_grad():
                part = at_least_float32(f.flatten(2)[..., span]).detach().requires_grad_()
                values = slices(part)
            slope = slope_of_counts(values.detach(), gradient, -BEYOND, 1 + BEYOND, BINS)
            slope = slope if weights is None else slope * weights.flatten()[span]
            found[:, span] = torch.autograd.grad(values, part, slope)[0].mT.to(f)
        return found.view(last.shape).permute(0, 3, 1, 2), None, None


def chunks(f: Tensor, rows: int) -> Iterator[slice]:
    """Spans of the positions of maps (N, C, h, w), of a size whose ``rows`` computed values each a cache holds."""
    most = CHUNK if f.device.type == "cpu" else 64 * CHUNK  # small for a cache, large for few launches
    count, step = f[0, 0].numel(), max(1, most // (len(f) * rows))
    return (slice(first, first + step) for first in range(0, count, step))


def squared_wasserstein(histogram: Tensor, target: Tensor) -> Tensor:
    """The squared 2-Wasserstein distance (N, K), in bins, of histograms (N, K, B) from targets (1, K, B), in float64.

    2 sum_b [A(F_b) - A(G_b) - (b + 1/2) (F_b - G_b)], where F and G are the cumulative shares and A the integral of the
    target's quantile function, its bins being filled evenly: no term is negative, all are 0 at the target, and the
    slope for a value x is twice its way to the target's value of the same rank.

    Example:
        >>> squared_wasserstein(torch.eye(9)[None, :1], torch.eye(9)[None, 4:5]).item()  # 4 bins away
        16.0
    """
    ours, theirs = float64(histogram).cumsum(2), float64(target).cumsum(2)
    ours, theirs = ours / ours[..., -1:], (theirs / theirs[..., -1:]).expand_as(ours).contiguous()
    share = theirs.diff(dim=2, prepend=torch.zeros_like(theirs[..., :1]))
    number = torch.arange(share.shape[2], dtype=share.dtype, device=share.device)
    integral = (number * share).cumsum(2)
    place = torch.searchsorted(theirs, ours.detach())  # the bin of the target in which the same share is reached
    width = share.gather(2, place)
    rest = theirs.gather(2, place) - ours
    found = integral.gather(2, place) - (place + 0.5) * rest + rest.square() / (2 * width.clamp_min(1e-30))
    return 2 * (found - integral - (number + 0.5) * (ours - theirs))[..., :-1].sum(2)
