"""Losses that hold a picture to another: its features, or its pixels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..pictures.geometry import resize
from ..pictures.reading import as_picture
from .algebra import (
    PIXELS,
    BoundLoss,
    BoundMean,
    Features,
    FeatureSource,
    Loss,
    Statistics,
    Terms,
    Window,
    layer_weights,
    position_count,
)


class content(Loss):
    """How far the features are from a photo's: ||F - P||^2 (Gatys et al. 2016, arXiv:1508.06576), averaged over layers.

    ``layers``: names, or layer -> weight; None: the recommended ones.
    ``relative`` (the default) divides by ||P||^2, so that a weight means the same for every network and layer: 0 is
    the photo itself and 1 an empty picture's distance. False gives the plain mean square over channels and positions.
    """

    name = "content"

    def __init__(
        self, photo: Any, layers: str | Iterable[str] | Mapping[str, float] | None = None, *, relative: bool = True
    ):
        self.photo, self.relative = as_picture(photo), relative
        self.layers, self.weights = ((), []) if layers is None else layer_weights(layers)

    def bind(self, source: FeatureSource, size: tuple[int, int]) -> BoundLoss:
        layers, weights = self.layers, self.weights
        if not layers:
            layers, weights = layer_weights(source.backbone.recommended.content)
        source.backbone.check_layers(layers)
        photo = resize(self.photo, size).to(source.backbone.device)
        targets = source.features(photo, layers)
        scales = {
            layer: target.square().mean((1, 2, 3)).clamp_min(1e-12) if self.relative else target.new_ones(1)
            for layer, target in targets.items()
        }
        return BoundContent(layers, dict(zip(layers, weights, strict=True)), targets, scales, linear=True)


@dataclass
class BoundContent(BoundLoss):
    """A `content` of a network; by layer: its weight, the photo's features, what squared distances are divided by."""

    weights: dict[str, float]
    targets: Features
    scales: dict[str, Tensor]

    def statistics(self, features: Features, window: Window) -> Statistics:
        found: Statistics = {}
        for layer in self.layers:
            f = window.crop_float32(layer, features[layer])
            gap = f - window.crop_target(layer, self.targets[layer])
            found[layer, "sum"] = gap.square().sum((1, 2, 3))
            found[layer, "count"] = position_count(f) * f.shape[1]
        return found

    def terms(self, statistics: Statistics) -> Terms:
        found: Terms = {}
        for layer in self.layers:
            mean = statistics[layer, "sum"] / statistics[layer, "count"]
            found[content.name, layer] = self.weights[layer] * (mean / self.scales[layer].to(mean.device))
        return found


class pixel_mse(Loss):
    """How far the pixels themselves are from a picture's: the mean of mask (x - p)^2 over pixels and colors.

    ``mask``: (1, 1, H, W) in [0, 1], where it counts; None: everywhere. In films it holds a frame to the last one's
    result (the temporal loss of Ruder, Dosovitskiy and Brox 2016, arXiv:1604.08610).
    """

    name = "pixel_mse"
    layers = (PIXELS,)

    def __init__(self, picture: Any, mask: Tensor | None = None):
        self.picture = as_picture(picture)
        self.mask = torch.ones_like(self.picture[:, :1]) if mask is None else mask

    def bind(self, source: FeatureSource, size: tuple[int, int]) -> BoundLoss:
        target, mask = (resize(one, size).to(source.backbone.device) for one in (self.picture, self.mask.float()))
        return BoundPixelError(self.layers, (self.name, ""), target, mask, linear=True)

    def _arguments(self) -> str:
        return ""


@dataclass
class BoundPixelError(BoundMean):
    """An `pixel_mse` for pictures of one size: the target (N, 3, H, W) and the mask (N, 1, H, W)."""

    target: Tensor
    mask: Tensor

    def statistics(self, features: Features, window: Window) -> Statistics:
        picture = window.crop_float32(PIXELS, features[PIXELS])
        target, mask = (window.crop_target(PIXELS, one).to(picture) for one in (self.target, self.mask))
        return {
            "sum": (mask * (picture - target).square()).mean(1).sum((1, 2)),
            "count": position_count(picture),
        }
