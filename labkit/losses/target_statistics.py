"""What losses against paintings share: mixtures, masks, scale, layers and their weights."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..base.checks import as_list
from ..networks.backbone import Backbone, averages
from ..networks.receptive_fields import ReceptiveField
from ..pictures.geometry import resize, size_of
from ..pictures.masks import Mask, as_mask
from ..pictures.reading import as_picture
from .algebra import (
    BoundLoss,
    Features,
    FeatureSource,
    Loss,
    Statistics,
    Terms,
    Window,
    layer_weights,
    normalized_weights,
    position_count,
    total,
)


class TargetStatisticLoss(Loss):
    """Base of losses that compare statistics of features with those of paintings, layer by layer.

    ``painting``: anything `as_picture` takes, or a list of such. Several are mixed: what is sought is the weighted mean
    of their statistics, so that two weights draw a line between two paintings, and three a triangle. ``weights``: one
    for each painting (divided by their sum); None: equal ones.
    ``layers``: names, or name -> weight (weights are divided by their sum); None: the backbone's recommended ones.
    ``mask``: where in the picture the style is asked for; ``painting_masks``: what of each painting is looked at; see
    `as_mask` for what a mask may be. In each layer, only units that see nothing of what is outside count, if there are
    such (see `guide_map`). A sum of styles with masks paints each region in its own.
    ``relative`` (the default) divides each layer's distance by its value against nothing: layers and networks become
    comparable, and a blank picture starts near 1.
    ``scale``: the painting's longer side relative to the picture's; it is never enlarged.
    """

    def __init__(
        self,
        painting: Any,
        layers: Iterable[str] | Mapping[str, float] | None = None,
        *,
        weights: Iterable[float] | None = None,
        mask: Mask = None,
        painting_masks: Any = None,
        relative: bool = True,
        scale: float = 1.0,
    ):
        if not scale > 0:
            raise ValueError(f"the style's scale must be positive, not {scale}")
        self.paintings = [one for given in as_list(painting) for one in as_picture(given).split(1)]
        weights = [1.0] * len(self.paintings) if weights is None else list(weights)
        if not len(weights) == len(self.paintings) > 0:
            raise ValueError(f"there are {len(self.paintings)} paintings and {len(weights)} weights: give each one")
        sources = [None] * len(self.paintings) if painting_masks is None else as_list(painting_masks)
        if len(sources) != len(self.paintings):
            raise ValueError(f"there are {len(self.paintings)} paintings and {len(sources)} masks of paintings")
        self.painting_masks = [
            mask if mask is None else as_mask(mask, size_of(painting))
            for mask, painting in zip(sources, self.paintings, strict=True)
        ]
        self.mask, self.relative, self.scale, self.shares = mask, relative, scale, normalized_weights(weights, "style")
        self.layers, self.weights = ((), []) if layers is None else layer_weights(layers)

    def bind(self, source: FeatureSource, size: tuple[int, int]) -> BoundLoss:
        layers, weights = self.layers, self.weights
        if not layers:
            layers, weights = layer_weights(source.backbone.recommended.style)
        source.backbone.check_layers(layers)
        side = max(1, round(self.scale * max(size)))
        paintings = [resize(painting, side).to(source.backbone.device) for painting in self.paintings]
        bound = self.without_targets(source, dict(zip(layers, weights, strict=True)), paintings, size)
        found = []
        for painting, mask in zip(paintings, self.painting_masks, strict=True):
            bound.spatial_weights = spatial_weights(mask, source.backbone, layers, size_of(painting))
            found.append(bound.means(source.statistics(bound, painting)))
        bound.spatial_weights = spatial_weights(self.mask, source.backbone, layers, size)
        bound.set_targets({layer: _mixed([means[layer] for means in found], self.shares) for layer in layers})
        return bound

    @abstractmethod
    def without_targets(
        self, source: FeatureSource, weights: dict[str, float], paintings: list[Tensor], size: tuple[int, int]
    ) -> BoundTargetStatistic:
        """The bound loss, ready to take statistics of the ``paintings`` and of pictures of ``size``."""


@dataclass
class BoundTargetStatistic(BoundLoss):
    """Means over positions, layer by layer, and how far they are from the paintings'.

    ``weights``: of the layers. ``spatial_weights``: layer -> how much each position counts, (h, w); all alike if there
    are none. ``targets``: layer -> kind of statistic -> what is sought.
    """

    name: str
    weights: dict[str, float]
    relative: bool
    device: torch.device
    spatial_weights: dict[str, Tensor] = field(default_factory=dict, init=False)
    targets: dict[str, dict[str, Tensor]] = field(default_factory=dict, init=False)

    @abstractmethod
    def distance(self, layer: str, means: dict[str, Tensor]) -> Tensor:
        """How far (N,) a layer's means are from its target."""

    def set_targets(self, targets: dict[str, dict[str, Tensor]]) -> None:
        """Keep what is sought in each layer: the mixture of the paintings' `means`."""
        self.targets = targets

    def weighted(self, layer: str, features: Features, window: Window) -> tuple[Tensor, Tensor | None, Tensor]:
        """The owned features (N, C, h, w) of a layer, as they were computed, their spatial weights (h, w), None if all
        count alike, and the count."""
        f = window.crop(layer, features[layer])
        if layer not in self.spatial_weights:
            return f, None, position_count(f)
        weights = window.crop_target(layer, self.spatial_weights[layer]).to(position_count(f))
        return f, weights, weights.sum()

    def means(self, statistics: Statistics) -> dict[str, dict[str, Tensor]]:
        """Layer -> kind of statistic -> its mean over positions."""
        found: dict[str, dict[str, Tensor]] = {layer: {} for layer in self.layers}
        for (layer, kind), summed in statistics.items():
            if kind != "count":
                found[layer][kind] = summed / statistics[layer, "count"]
        return found

    def terms(self, statistics: Statistics) -> Terms:
        found: Terms = {}
        for layer, means in self.means(statistics).items():
            # The statistics may come from another device; what is made of them is as they are.
            distance = self.distance(layer, {kind: mean.to(self.device) for kind, mean in means.items()})
            found[self.name, layer] = (self.weights[layer] * distance).to(statistics[layer, "count"])
        return found


def _mixed(means: list[dict[str, Tensor]], shares: list[float]) -> dict[str, Tensor]:
    """The weighted mean of what paintings have, for each kind of statistic."""
    return {kind: total(w * mean[kind] for w, mean in zip(shares, means, strict=True)) for kind in means[0]}


def spatial_weights(mask: Mask, backbone: Backbone, layers: Iterable[str], size: tuple[int, int]) -> dict[str, Tensor]:
    """How much each position (h, w) of each layer counts for pictures of ``size``; none without a mask."""
    if mask is None:
        return {}
    whole = as_mask(mask, size, warn=False)
    if len(whole) != 1 or not whole.any():
        raise ValueError("a style's mask is one for all pictures, and not empty")
    whole = whole[0, 0].to(backbone.device)
    return {name: guide_map(whole, backbone.receptive_field(name), backbone.map_size(name, size)) for name in layers}


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
