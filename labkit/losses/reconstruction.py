"""Losses that hold a picture to another: its features, or its pixels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import copy
from typing import Any

import torch
from torch import Tensor

from ..pictures.geometry import resize
from ..pictures.reading import as_picture
from .algebra import PIXELS, Features, Loss, Parts, Reader, Statistics, Window, layer_weights, mean_of, positions

# --- matching pictures: style transfer ----------------------------------------------------------------------------


class content(Loss):
    """How far the features are from a photo's: ||F - P||^2 (Gatys et al. 2016, arXiv:1508.06576), averaged over layers.

    ``layers``: names, or layer -> weight; None: the recommended ones.
    ``relative`` (the default) divides by ||P||^2, so that a weight means the same for every network and layer: 0 is
    the photo itself and 1 an empty picture's distance. False gives the plain mean square over channels and positions.
    """

    name = "content"
    linear = True

    def __init__(
        self, photo: Any, layers: str | Iterable[str] | Mapping[str, float] | None = None, *, relative: bool = True
    ):
        self.photo, self.relative = as_picture(photo), relative
        self.layers, self.weights = (None, []) if layers is None else layer_weights(layers)

    def bound(self, reader: Reader, size: tuple[int, int]) -> Loss:
        bound = copy(self)
        if self.layers is None:
            bound.layers, bound.weights = layer_weights(reader.backbone.recommended.content)
        Loss.bound(bound, reader, size)
        photo = resize(self.photo, size).to(reader.backbone.device)
        bound.targets = reader.features(photo, bound.layers)
        bound.scales = {
            layer: target.square().mean((1, 2, 3)).clamp_min(1e-12) if self.relative else target.new_ones(1)
            for layer, target in bound.targets.items()
        }
        return bound

    def statistics(self, features: Features, window: Window) -> Statistics:
        found: Statistics = []
        for layer in self.layers:
            f = window.owned(layer, features[layer])
            gap = f - window.part(layer, self.targets[layer])
            found.append([gap.square().sum((1, 2, 3)), positions(f) * f.shape[1]])
        return found

    def readout(self, statistics: Statistics) -> Tensor:
        return sum(self.parts(statistics).values())

    def parts(self, statistics: Statistics) -> Parts:
        return {
            (self.name, layer): weight * (total / count / self.scales[layer].to(total.device))
            for layer, weight, (total, count) in zip(self.layers, self.weights, statistics, strict=True)
        }


class anchor(Loss):
    """How far the pixels themselves are from a picture's: the mean of mask (x - p)^2 over pixels and colors.

    ``mask``: (1, 1, H, W) in [0, 1], where it counts; None: everywhere. In films it holds a frame to the last one's
    result (the temporal loss of Ruder, Dosovitskiy and Brox 2016, arXiv:1604.08610).
    """

    name = "anchor"
    layers = (PIXELS,)
    linear = True

    def __init__(self, picture: Any, mask: Tensor | None = None):
        self.picture = as_picture(picture)
        self.mask = torch.ones_like(self.picture[:, :1]) if mask is None else mask

    def bound(self, reader: Reader, size: tuple[int, int]) -> Loss:
        bound, device = copy(self), reader.backbone.device
        bound.picture, bound.mask = (resize(one, size).to(device) for one in (self.picture, self.mask.float()))
        return bound

    def statistics(self, features: Features, window: Window) -> Statistics:
        picture = window.owned(PIXELS, features[PIXELS])
        target, mask = (window.part(PIXELS, one).to(picture) for one in (self.picture, self.mask))
        return [(mask * (picture - target).square()).mean(1).sum((1, 2)), positions(picture)]

    def readout(self, statistics: Statistics) -> Tensor:
        return mean_of(statistics)

    def _arguments(self) -> str:
        return ""
