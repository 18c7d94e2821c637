"""What losses against paintings share: mixtures, masks, scale, layers and their weights."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from copy import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..base.checks import as_list
from ..networks.backbone import Backbone, averages
from ..networks.receptive_fields import ReceptiveField
from ..pictures.geometry import resize
from ..pictures.masks import Mask, as_mask
from ..pictures.reading import as_picture
from .algebra import Features, Loss, Parts, Reader, Statistics, Window, layer_weights, positions, shares


class Painted(Loss):
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
            mask if mask is None else as_mask(mask, painting.shape[-2:])
            for mask, painting in zip(sources, self.paintings, strict=True)
        ]
        self.mask, self.relative, self.scale, self.shares = mask, relative, scale, shares(weights, "style")
        self.layers, self.weights = (None, []) if layers is None else layer_weights(layers)

    def bound(self, reader: Reader, size: tuple[int, int]) -> Loss:
        bound = copy(self)
        if self.layers is None:
            bound.layers, bound.weights = layer_weights(reader.backbone.recommended.style)
        Loss.bound(bound, reader, size)
        side = max(1, round(self.scale * max(size)))
        paintings = [resize(painting, side).to(reader.backbone.device) for painting in self.paintings]
        bound.device = reader.backbone.device
        bound.prepare(reader, paintings, size)
        found = []
        for painting, mask in zip(paintings, self.painting_masks, strict=True):
            bound.guides = _guides(mask, reader.backbone, bound.layers, painting.shape[-2:])
            found.append([self.normalized(s) for s in reader.statistics(bound, painting)])
        bound.guides = _guides(self.mask, reader.backbone, bound.layers, size)
        bound.aim([_mixed(layer, self.shares) for layer in zip(*found, strict=True)])
        return bound

    def prepare(self, reader: Reader, paintings: list[Tensor], size: tuple[int, int]) -> None:
        """Anything that must be known before statistics of the paintings, and of pictures of ``size``, are taken."""

    def aim(self, targets: list[list[Tensor]]) -> None:
        """Keep what is sought in each layer: the mixed statistics of the paintings, as `normalized` gives them."""
        self.targets = targets

    @staticmethod
    def normalized(statistics: Statistics) -> list[Tensor]:
        """Means over positions from one layer's sums, the last of which is the count."""
        *sums, count = statistics
        return [part / count for part in sums]

    def weighted(self, layer: str, features: Features, window: Window) -> tuple[Tensor, Tensor | None, Tensor]:
        """The owned features (N, C, h, w) of a layer, as they were computed, their guide (h, w), None if all count
        alike, and the count."""
        f = window.computed(layer, features[layer])
        if layer not in self.guides:
            return f, None, positions(f)
        guide = window.part(layer, self.guides[layer]).to(positions(f))
        return f, guide, guide.sum()

    @abstractmethod
    def distance(self, index: int, means: list[Tensor]) -> Tensor:
        """How far (N,) normalized statistics of the layer with this index are from the target."""

    def readout(self, statistics: Statistics) -> Tensor:
        return sum(self.parts(statistics).values())

    def parts(self, statistics: Statistics) -> Parts:
        rows = enumerate(zip(self.layers, self.weights, statistics, strict=True))
        return {
            # The statistics may come from another device; what is made of them is as they are.
            (self.name, layer): (weight * self.distance(index, self._arrived(self.normalized(own)))).to(own[-1])
            for index, (layer, weight, own) in rows
        }

    def _arrived(self, means: list[Tensor]) -> list[Tensor]:
        return [mean.to(self.device) for mean in means]


def _mixed(statistics: Iterable[list[Tensor]], shares: list[float]) -> list[Tensor]:
    """The weighted mean of what paintings have, for each kind of statistic."""
    return [sum(w * x for w, x in zip(shares, kind, strict=True)) for kind in zip(*statistics, strict=True)]


def _guides(mask: Mask, backbone: Backbone, layers: Iterable[str], size: tuple[int, int]) -> dict[str, Tensor]:
    """The guide (h, w) of each layer for pictures of ``size``; none without a mask."""
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
