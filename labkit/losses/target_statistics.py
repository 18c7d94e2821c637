"""What losses against paintings share: mixtures, masks, scale, layers and their weights."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from ..base.checks import as_list, check_numbers
from ..networks.backbone import Backbone, averages
from ..networks.receptive_fields import ReceptiveField
from ..pictures.geometry import Size, resize, size_of
from ..pictures.masks import Mask, as_mask
from ..pictures.reading import as_picture
from .algebra import (
    PIXELS,
    BoundLoss,
    Features,
    FeatureSource,
    Layers,
    Loss,
    Statistics,
    Terms,
    Window,
    layer_weights,
    normalized_weights,
    total,
)

Weights: TypeAlias = dict[str, float]  # of layers
Means: TypeAlias = dict[tuple[str, str], Tensor]  # over positions, by (layer, kind of statistic)


def one_by_one(painting: Any) -> list[Tensor]:
    """The pictures (1, 3, H, W) of a painting, a batch of them, or a list of either."""
    return [single for source in as_list(painting) for single in as_picture(source).split(1)]


class PaintingLoss(Loss):
    """Base of losses that compare features with those of paintings, layer by layer.

    In each layer only units count that see nothing of what is outside of the mask, if there are such (see `guide_map`).
    A sum of styles with masks paints each region in its own.

    Args:
        painting: anything `as_picture` takes, or a list of such. Several are mixed: the target is the weighted mean of
            their statistics, so that two weights draw a line between two paintings, and three a triangle.
        layers: names, or name -> weight (divided by their sum); None: the backbone's recommended ones.
        weights: one for each painting (divided by their sum); None: equal ones.
        mask: where in the picture the style is asked for; see `as_mask`.
        painting_masks: what of each painting is looked at, likewise.
        relative: divide each layer's distance by its value against nothing: layers and networks become comparable, and
            a blank picture starts near 1.
        scale: the painting's longer side relative to the picture's, at most 100; it is never enlarged.
        inset: the share of the painting's sides, from 0 to 0.4, at each border whose features are not looked at. There
            they know of the zeros beyond, as the picture's do at its own, so that a frame would be painted there too.
    """

    def __init__(
        self,
        painting: Any,
        layers: Layers = None,
        *,
        weights: Iterable[float] | None = None,
        mask: Mask = None,
        painting_masks: Any = None,
        relative: bool = True,
        scale: float = 1.0,
        inset: float = 0.0,
    ):
        check_numbers(1e-3, most=100, scale=scale)
        check_numbers(0, most=0.4, inset=inset)
        self.paintings = one_by_one(painting)
        count = len(self.paintings)
        weights = [1.0] * count if weights is None else list(weights)
        if not len(weights) == count > 0:
            raise ValueError(f"there are {count} paintings and {len(weights)} weights: give each one")
        masks = [None] * count if painting_masks is None else as_list(painting_masks)
        if len(masks) != count:
            raise ValueError(f"there are {count} paintings and {len(masks)} masks of paintings")
        sizes = map(size_of, self.paintings)
        self.painting_masks = [m if m is None else as_mask(m, size) for m, size in zip(masks, sizes, strict=True)]
        self.mask, self.relative, self.scale, self.shares = mask, relative, scale, normalized_weights(weights, "style")
        self.inset, self.weights = inset, layer_weights(layers)
        self.layers = tuple(self.weights)

    def layers_of(self, backbone: Backbone) -> tuple[str, ...]:
        return self.layers or tuple(backbone.recommended.style)


class TargetStatisticLoss(PaintingLoss):
    """Base of losses that compare statistics of features with those of paintings (see `PaintingLoss`)."""

    def bind(self, source: FeatureSource, size: Size) -> BoundLoss:
        backbone = source.backbone
        weights = self.weights or layer_weights(backbone.recommended.style)
        side = max(1, round(self.scale * max(size)))
        paintings = [resize(painting, side).to(backbone.device) for painting in self.paintings]
        bound, means = self.prepare(source, weights, paintings, size), []
        for painting, mask in zip(paintings, self.painting_masks, strict=True):
            looked_at = spatial_weights(mask, backbone, weights, size_of(painting))
            if self.inset:
                whole = {name: torch.ones(map_size(backbone, name, size_of(painting))) for name in weights}
                looked_at = {name: inner(looked_at.get(name, ones), self.inset) for name, ones in whole.items()}
            bound.spatial_weights = looked_at
            means.append(bound.means(source.statistics(bound, painting)))
        bound.spatial_weights = spatial_weights(self.mask, backbone, weights, size)
        bound.position_dependent = self.mask is not None
        shared = list(zip(self.shares, means, strict=True))
        bound.set_targets({key: total([share * mean[key] for share, mean in shared]) for key in means[0]})
        return bound

    @abstractmethod
    def prepare(
        self, source: FeatureSource, weights: Weights, paintings: list[Tensor], size: Size
    ) -> BoundTargetStatistic:
        """The bound loss without its targets, for statistics of the ``paintings`` and of pictures of ``size``."""


@dataclass
class BoundTargetStatistic(BoundLoss):
    """Means over positions, layer by layer, and how far they are from the paintings'.

    ``weights``: of the layers. ``spatial_weights``: layer -> how much each position counts, (h, w); all alike if there
    are none. ``targets``: the means of the paintings.
    """

    name: str
    weights: Weights
    relative: bool
    device: torch.device
    spatial_weights: dict[str, Tensor] = field(default_factory=dict, init=False)
    targets: Means = field(default_factory=dict, init=False)

    @abstractmethod
    def distance(self, layer: str, means: Means) -> Tensor:
        """How far (N,) a layer's means are from its targets."""

    def set_targets(self, targets: Means) -> None:
        """Keep the mixture of the paintings' means."""
        self.targets = targets

    @abstractmethod
    def sums(self, layer: str, f: Tensor, weights: Tensor | None) -> dict[str, Tensor]:
        """Sums by kind over a layer's features (N, C, h, w), weighted by (h, w) unless all positions count alike."""

    def statistics(self, features: Features, window: Window) -> Statistics:
        statistics: Statistics = {}
        for layer in self.layers:
            f, weights = window.crop(layer, features[layer]), None
            count = f.new_full((), f[0, 0].numel(), dtype=torch.promote_types(f.dtype, torch.float32))
            if layer in self.spatial_weights:
                weights = window.crop_target(layer, self.spatial_weights[layer]).to(count)
                count = weights.sum()
            for kind, summed in self.sums(layer, f, weights).items():
                statistics[layer, kind] = summed
            statistics[layer, "count"] = count
        return statistics

    def means(self, statistics: Statistics) -> Means:
        """The means over positions; on the network's device, wherever the statistics come from."""
        means: Means = {}
        for (layer, kind), summed in statistics.items():
            if kind != "count":
                means[layer, kind] = (summed / statistics[layer, "count"]).to(self.device)
        return means

    def terms(self, statistics: Statistics) -> Terms:
        means, terms = self.means(statistics), {}
        for layer, weight in self.weights.items():
            terms[self.name, layer] = (weight * self.distance(layer, means)).to(statistics[layer, "count"])
        return terms


def spatial_weights(mask: Mask, backbone: Backbone, layers: Iterable[str], size: Size) -> dict[str, Tensor]:
    """How much each position (h, w) of each layer counts for pictures of ``size``; none without a mask."""
    if mask is None:
        return {}
    whole = as_mask(mask, size, warn=False)
    if len(whole) != 1 or not whole.any():
        raise ValueError("a style's mask is one for all pictures, and not empty")
    whole = whole[0, 0].to(backbone.device)
    return {
        name: whole
        if name == PIXELS
        else guide_map(whole, backbone.receptive_field(name), map_size(backbone, name, size))
        for name in layers
    }


def map_size(backbone: Backbone, layer: str, size: Size) -> Size:
    """(h, w) of a layer's map, the picture's own among them, for pictures of ``size``."""
    return size if layer == PIXELS else backbone.map_size(layer, size)


def inner(counts: Tensor, inset: float) -> Tensor:
    """How much each position (h, w) counts, with nothing at the border; as it was, if nothing else would be left."""
    rows, columns = (math.ceil(inset * side) for side in size_of(counts))
    inside = torch.zeros_like(counts)
    inside[rows : len(counts) - rows, columns : counts.shape[1] - columns] = 1
    return inside * counts if (inside * counts).any() else counts


def guide_map(mask: Tensor, field: ReceptiveField, size: Size) -> Tensor:
    """How much each unit of a layer counts: Gatys et al. 2017's guide (arXiv:1611.07865).

    The mask is eroded: a unit counts by the least that the mask is anywhere in its receptive field, so that it is no
    judge of what lies outside. What is beyond the picture's border does not matter. If no unit sees only the inside,
    because the region is smaller than the field, each counts by the share of its own cell that the mask covers.

    Args:
        mask: (H, W) in [0, 1], of the picture.
        field: what a unit of the layer sees.
        size: (h, w) of the layer's map, and of what is returned.
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
