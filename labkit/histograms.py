"""Floor 2: style as histograms of features, channel by channel (after Risser, Wilmot and Barnes 2017)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from .algebra import Features, Reader, Statistics, Window, float64
from .painted import Painted

BEYOND = 3.0  # how far the bins go on, in ranges of the painting and in the logarithm: to e^3, 20 times as far


class histogram(Painted):
    """How far the histogram of each channel is from a painting's. For the arguments see `Painted`.

    Cramer's distance, the integral of (F - G)^2 where F and G are the cumulative histograms, averaged over channels. A
    feature is drawn to where its share of smaller features is the painting's, as by the histogram matching of Risser
    et al. (arXiv:1701.08893). Matching needs ranks, which need the whole picture; counts add up over tiles, and their
    distance has a gradient without jumps. Moments say how large features are; histograms also say how they are spread,
    which keeps contrast stable.

    The histogram has ``bins`` (64 by default) between the painting's least and greatest value, and goes on beyond these
    in the logarithm. A value is shared by its three nearest bins, so that counts have a gradient without jumps.
    ``relative`` divides by the distance of nothing. Add it to a style: alone, it does not see channels together.
    """

    name = "histogram"

    def __init__(
        self,
        painting: Any,
        layers: Iterable[str] | Mapping[str, float] | None = None,
        *,
        bins: int = 64,
        **options: Any,
    ):
        if bins < 2:
            raise ValueError(f"a histogram needs at least 2 bins, not {bins}")
        super().__init__(painting, layers, **options)
        self.bins = bins

    def prepare(self, reader: Reader, paintings: list[Tensor]) -> None:
        """Each channel's least value and range (C, 1) in the paintings."""
        maps = [reader.features(painting, self.layers) for painting in paintings]
        self.ranges = {}
        for layer in self.layers:
            values = torch.cat([one[layer].transpose(0, 1).flatten(1) for one in maps], 1)
            low, high = values.amin(1, keepdim=True), values.amax(1, keepdim=True)
            self.ranges[layer] = low, (high - low).clamp_min(1e-6 * high.abs().max().clamp_min(1e-6))

    def statistics(self, features: Features, window: Window) -> Statistics:
        found: Statistics = []
        for layer in self.layers:
            f, guide, count = self.weighted(layer, features, window)
            found.append([self.counts(f, layer, guide), count])
        return found

    def counts(self, values: Tensor, layer: str, guide: Tensor | None = None) -> Tensor:
        low, span = self.ranges[layer]
        return counts(tamed((values - low) / span), -BEYOND, 1 + BEYOND, self.bins, guide)

    def distance(self, index: int, means: list[Tensor]) -> Tensor:
        (mean,), (target,), layer = means, self.targets[index], self.layers[index]
        span = float64(self.ranges[layer][1])[:, 0] / self.bins
        found = (cramer(mean, target) * span).mean(1)
        if self.relative:
            nothing = self.counts(torch.zeros_like(target[..., :1]), layer)
            found = found / (cramer(nothing, target) * span).mean(1)
        return found.to(mean)


def tamed(values: Tensor) -> Tensor:
    """The values themselves in [0, 1], and beyond it the logarithm that goes on with the same slope."""
    beyond = (values - 0.5).abs() - 0.5
    outside = 0.5 + (values - 0.5).sign() * (0.5 + beyond.clamp_min(0).log1p())
    return torch.where(beyond > 0, outside, values)


def counts(values: Tensor, low: float, high: float, bins: int, guide: Tensor | None = None) -> Tensor:
    """How many of the values (N, C, M) lie near each of the points low, low + 1/bins, ... high: (N, C, K).

    Each counts for the nearest point and its neighbours by the quadratic B-spline (those beyond the ends for the end),
    and by its ``guide`` (M,) if there is one.
    """
    size = round((high - low) * bins) + 1
    places = (values.clamp(low, high) - low) * bins
    nearest = places.detach().round()
    away = places - nearest
    weight = torch.ones_like(away) if guide is None else guide.expand_as(away)
    found = values.new_zeros(*values.shape[:2], size)
    for step, share in ((-1, (0.5 - away) ** 2 / 2), (0, 0.75 - away**2), (1, (0.5 + away) ** 2 / 2)):
        found = found.scatter_add(2, (nearest.long() + step).clamp(0, size - 1), weight * share)
    return found


def cramer(histogram: Tensor, target: Tensor) -> Tensor:
    """The sum (N, C) of (F - G)^2 over the bins of histograms (N, C, K) of sum 1, in float64."""
    return (float64(histogram) - float64(target)).cumsum(2).square().sum(2)
