"""Floor 2: style as histograms of features, channel by channel (Risser, Wilmot and Barnes 2017)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from .algebra import Features, Reader, Statistics, Window, float64
from .painted import Painted


class histogram(Painted):
    """How far the histogram of each channel is from a painting's. For the arguments see `Painted`.

    The squared 2-Wasserstein distance of the values of a channel, the mean over u in [0, 1] of (Q(u) - Q'(u))^2, where
    Q are quantiles; averaged over channels. A feature f is drawn to the painting's value of the same rank: the gradient
    is that of |f - R(f)|^2 with the histogram matching R held fixed, the loss of Risser et al. (arXiv:1701.08893).
    Moments say how large features are; histograms also say how they are spread, which keeps contrast stable.

    Ranks need the whole picture, and so do histograms; but counts add up over tiles, where ranks do not. Hence the
    histogram: ``bins`` of them (256 by default) between the painting's least and greatest value, and beyond these a few
    that double in width. A value is shared by its two nearest knots, so that counts have a slope.
    ``relative`` divides by the painting's mean square. Add it to a style: alone, it does not see channels together.
    """

    name = "histogram"

    def __init__(
        self,
        painting: Any,
        layers: Iterable[str] | Mapping[str, float] | None = None,
        *,
        bins: int = 256,
        **options: Any,
    ):
        if bins < 2:
            raise ValueError(f"a histogram needs at least 2 bins, not {bins}")
        super().__init__(painting, layers, **options)
        inside = torch.linspace(0, 1, bins + 1)
        beyond = 2.0 ** torch.arange(5 + bins.bit_length()) / bins
        self.knots = torch.cat([-beyond.flip(0), inside, 1 + beyond])  # in units of the painting's range

    def prepare(self, reader: Reader, paintings: list[Tensor]) -> None:
        """Each channel's least value and range (C, 1) in the paintings."""
        maps = [reader.features(painting, self.layers) for painting in paintings]
        self.ranges = {}
        for layer in self.layers:
            values = torch.cat([one[layer].transpose(0, 1).flatten(1) for one in maps], 1)
            low, high = values.amin(1, keepdim=True), values.amax(1, keepdim=True)
            self.ranges[layer] = low, (high - low).clamp_min(1e-6 * high.abs().max().clamp_min(1e-6))
        self.knots = self.knots.to(reader.backbone.device)

    def statistics(self, features: Features, window: Window) -> Statistics:
        found: Statistics = []
        for layer in self.layers:
            f, guide, count = self.weighted(layer, features, window)
            low, span = self.ranges[layer]
            found.append([counts((f - low) / span, self.knots.to(f), guide), count])
        return found

    def distance(self, index: int, means: list[Tensor]) -> Tensor:
        (mean,), (target,), (low, span) = means, self.targets[index], self.ranges[self.layers[index]]
        squares = transport(mean, target, self.knots).to(mean) * span[:, 0] ** 2
        if not self.relative:
            return squares.mean(1)
        return squares.sum(1) / (target * (low + span * self.knots.to(span)) ** 2).sum((1, 2))


def counts(values: Tensor, knots: Tensor, guide: Tensor | None = None) -> Tensor:
    """How many of the values (N, C, M) lie at each of the ``knots`` (K,): (N, C, K), with a slope in the values.

    A value between two knots counts for both, in proportion to its nearness; beyond the last ones, for the last. Each
    counts by its ``guide`` (M,) if there is one.
    """
    values = values.clamp(knots[0], knots[-1])
    left = (torch.bucketize(values.detach().contiguous(), knots, right=True) - 1).clamp(0, len(knots) - 2)
    share = (values - knots[left]) / (knots[left + 1] - knots[left])
    weight = torch.ones_like(share) if guide is None else guide.expand_as(share)
    found = values.new_zeros(*values.shape[:2], len(knots))
    return found.scatter_add(2, left, weight * (1 - share)).scatter_add(2, left + 1, weight * share)


def transport(histogram: Tensor, target: Tensor, knots: Tensor) -> Tensor:
    """The squared 2-Wasserstein distance (N, C) of histograms (N, C, K) on the same knots (K,), in float64.

    On a line, mass moves in order: between two neighbouring levels of the two cumulative histograms, all of it goes
    from one knot to one other. Sums are made exactly 1, or what rounding leaves would go to the last, farthest knot.
    """
    ours, theirs = (float64(h) / float64(h).sum(2, keepdim=True) for h in (histogram, target))
    knots, count = float64(knots), len(knots)
    levels = torch.cat([ours.cumsum(2), theirs.cumsum(2).expand_as(ours)], 2)
    levels, order = levels.sort(dim=2, stable=True)
    below = (order < count).cumsum(2) - (order < count).long()  # how many levels of ours are below this one
    source = below.clamp_max(count - 1)
    place = (torch.arange(2 * count, device=knots.device) - below).clamp_max(count - 1)
    mass = levels.diff(dim=2, prepend=torch.zeros_like(levels[..., :1]))
    return (mass * (knots[source] - knots[place]) ** 2).sum(2)
