"""Style as histograms of features, channel by channel (after Risser, Wilmot and Barnes 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from ..base.checks import check_numbers
from ..base.devices import is_mps
from ..pictures.geometry import Size
from .algebra import FeatureSource, Layers, at_least_float32, float64
from .target_statistics import BoundTargetStatistic, Means, TargetStatisticLoss, Weights

CHUNK = 2**20  # values counted before they are added up
BEYOND = 3.0  # how far the bins go on, in ranges of the painting and in the logarithm: to e^3, 20 times as far


class histogram(TargetStatisticLoss):
    """How far the histogram of each channel is from a painting's.

    Cramer's distance, the integral of (F - G)^2 where F and G are the cumulative histograms, averaged over channels. A
    feature is drawn to where its share of smaller features is the painting's, as by the histogram matching of Risser
    et al. (arXiv:1701.08893). Matching needs ranks, which need the whole picture; counts add up over tiles, and, as
    each value is shared by its three nearest bins, have a gradient without jumps. Moments say how large features are;
    histograms also say how they are spread, which keeps contrast stable. Add it to a style: alone, it does not see
    channels together.

    Args:
        painting, layers, options: see `TargetStatisticLoss`. ``relative`` divides by the distance of nothing.
        bins: from 2 to 1024 between the painting's least and greatest value; they go on beyond in the logarithm.
    """

    name = "histogram"

    def __init__(self, painting: Any, layers: Layers = None, *, bins: int = 64, **options: Any):
        check_numbers(2, Integral, most=1024, bins=bins)
        super().__init__(painting, layers, **options)
        self.bins = bins

    def prepare(self, source: FeatureSource, weights: Weights, paintings: list[Tensor], size: Size) -> BoundHistogram:
        ranges: dict[str, tuple[Tensor, Tensor]] = {}
        features = [source.features(painting, tuple(weights)) for painting in paintings]
        for layer in weights:
            values = torch.cat([f[layer].transpose(0, 1).flatten(1) for f in features], 1)
            low, high = values.aminmax(dim=1, keepdim=True)
            ranges[layer] = low, (high - low).clamp_min(1e-6 * high.abs().max().clamp_min(1e-6))
        device = source.backbone.device
        return BoundHistogram(tuple(weights), self.name, weights, self.relative, device, ranges, self.bins)


@dataclass
class BoundHistogram(BoundTargetStatistic):
    """A `histogram` of a network: by layer, each channel's least value and range (C, 1) in the paintings."""

    ranges: dict[str, tuple[Tensor, Tensor]]
    bins: int

    def sums(self, layer: str, f: Tensor, weights: Tensor | None) -> dict[str, Tensor]:
        values = at_least_float32(f).flatten(2)
        return {"histogram": self.counts(values, layer, None if weights is None else weights.flatten())}

    def counts(self, values: Tensor, layer: str, weights: Tensor | None = None) -> Tensor:
        """The histogram (N, C, K) of a layer's ``values`` (N, C, M), each counted by its weight (M,), if any."""
        low, span = self.ranges[layer]
        return Counts.apply(tamed((values - low) / span), weights, -BEYOND, 1 + BEYOND, self.bins)

    def distance(self, layer: str, means: Means) -> Tensor:
        mean, target = means[layer, "histogram"], self.targets[layer, "histogram"]
        span = float64(self.ranges[layer][1])[:, 0] / self.bins
        distance = (cramer(mean, target) * span).mean(1)
        if self.relative:
            nothing = self.counts(torch.zeros_like(target[..., :1]), layer)
            distance = distance / (cramer(nothing, target) * span).mean(1)
        return distance.to(mean.dtype).to(mean.device)


def tamed(values: Tensor) -> Tensor:
    """The values themselves in [0, 1], and beyond it the logarithm that goes on with the same slope."""
    beyond = (values - 0.5).abs() - 0.5
    outside = 0.5 + (values - 0.5).sign() * (0.5 + beyond.clamp_min(0).log1p())
    return torch.where(beyond > 0, outside, values)


class Counts(torch.autograd.Function):
    """How many of the values (N, C, M) lie near each of the points low, low + 1/bins, ... high: (N, C, K).

    Each counts for the nearest point and its neighbors by the quadratic B-spline (those beyond the ends for the end),
    and by its ``guide`` (M,) if there is one. Autograd would keep a dozen maps for its gradient; the values are enough.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, guide: Tensor | None, low: float, high: float, bins: int) -> Tensor:
        ctx.save_for_backward(values, guide)
        ctx.plan = low, high, bins
        # GPUs add in any order: whole numbers, of which Apple's cannot add long ones, have the same sum in each.
        dtype, unit = (torch.float32, 1) if is_mps(values.device) else (torch.int64, 2**42)
        counts = values.new_zeros(*values.shape[:2], round((high - low) * bins) + 1)
        for first in range(0, values.shape[2], CHUNK):  # then sums stay below 2^62, and float32 counts every one
            span = slice(first, first + CHUNK)
            nearest, away = _places(values[..., span], *ctx.plan)
            weight = 1.0 if guide is None else guide[span]
            part = torch.zeros_like(counts, dtype=dtype)
            for step, share in ((-1, (0.5 - away) ** 2 / 2), (0, 0.75 - away**2), (1, (0.5 + away) ** 2 / 2)):
                places = (nearest + step).clamp(0, counts.shape[2] - 1)
                part.scatter_add_(2, places, (unit * share * weight).to(dtype))
            counts += part.to(counts.dtype) / unit
        return counts

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        (gradient,), (values, guide) = gradients, ctx.saved_tensors
        slope = slope_of_counts(values, gradient, *ctx.plan)
        return slope if guide is None else slope * guide, None, None, None, None


def slope_of_counts(values: Tensor, gradient: Tensor, low: float, high: float, bins: int) -> Tensor:
    """The gradient for values (N, C, M), each with a guide of 1, from the ``gradient`` for their `Counts`."""
    nearest, away = _places(values, low, high, bins)
    slope = torch.zeros_like(values)
    for step, share in ((-1, away - 0.5), (0, -2 * away), (1, away + 0.5)):
        slope += share * gradient.gather(2, (nearest + step).clamp(0, gradient.shape[2] - 1))
    return slope * (bins * ((values > low) & (values < high)))


def _places(values: Tensor, low: float, high: float, bins: int) -> tuple[Tensor, Tensor]:
    """The number of the point nearest to each value, and how far away it is in bins, from -0.5 to 0.5."""
    places = (values.clamp(low, high) - low) * bins
    nearest = places.round()
    return nearest.long(), places - nearest


def cramer(histogram: Tensor, target: Tensor) -> Tensor:
    """The sum (N, C) of (F - G)^2 over the bins of histograms (N, C, K) of sum 1, in float64."""
    return (float64(histogram) - float64(target)).cumsum(2).square().sum(2)
