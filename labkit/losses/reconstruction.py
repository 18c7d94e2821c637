"""Losses that hold a picture to another: its features, or its pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from ..networks.backbone import Backbone
from ..pictures.geometry import Size, resize
from ..pictures.reading import PictureLike, as_picture
from .algebra import (
    PIXELS,
    BoundLoss,
    BoundMean,
    BoundSum,
    Features,
    FeatureSource,
    Layers,
    Loss,
    Window,
    layer_weights,
)


class content(Loss):
    """How far the features are from a photo's: ||F - P||^2 (Gatys et al. 2016, arXiv:1508.06576), averaged over layers.

    Args:
        photo: resized to the picture.
        layers: names, or layer -> weight; None: the recommended ones.
        relative: divide by ||P||^2, so that a weight means the same for every network and layer: 0 is the photo itself
            and 1 an empty picture's distance. False gives the plain mean square over channels and positions.
    """

    name = "content"

    def __init__(self, photo: PictureLike, layers: Layers = None, *, relative: bool = True):
        self.photo, self.relative, self.weights = as_picture(photo), relative, layer_weights(layers)
        self.layers = tuple(self.weights)

    def layers_of(self, backbone: Backbone) -> tuple[str, ...]:
        return self.layers or tuple(backbone.recommended.content)

    def bind(self, source: FeatureSource, size: Size) -> BoundLoss:
        weights = self.weights or layer_weights(source.backbone.recommended.content)
        photo = resize(self.photo, size).to(source.backbone.device)
        targets = source.features(photo, tuple(weights))
        return BoundSum([(weight, self._at(layer, targets[layer])) for layer, weight in weights.items()])

    def _at(self, layer: str, target: Tensor) -> BoundLoss:
        def gap(features: Features, window: Window) -> Tensor:
            return (window.crop_float32(layer, features[layer]) - window.crop_target(layer, target)).square()

        scale = target.square().mean((1, 2, 3)).clamp_min(1e-12) if self.relative else None
        return BoundMean((layer,), (self.name, layer), gap, scale, position_dependent=True)


class pixel_mse(Loss):
    """How far the pixels themselves are from a picture's: the mean of mask (x - p)^2 over pixels and colors.

    ``mask``: (1, 1, H, W) in [0, 1], where it counts; None: everywhere. In films it holds a frame to the last one's
    result: the temporal loss of Ruder, Dosovitskiy and Brox 2016 (arXiv:1604.08610).
    """

    name = "pixel_mse"
    layers = (PIXELS,)

    def __init__(self, picture: PictureLike, mask: Tensor | None = None):
        self.picture = as_picture(picture)
        self.mask = torch.ones_like(self.picture[:, :1]) if mask is None else mask

    def bind(self, source: FeatureSource, size: Size) -> BoundLoss:
        target, mask = (resize(x, size).to(source.backbone.device) for x in (self.picture, self.mask.float()))

        def gap(features: Features, window: Window) -> Tensor:
            picture = window.crop_float32(PIXELS, features[PIXELS])
            p, m = (window.crop_target(PIXELS, whole).to(picture) for whole in (target, mask))
            return (m * (picture - p).square()).mean(1)

        return BoundMean(self.layers, (self.name, ""), gap, position_dependent=True)

    def _arguments(self) -> str:
        return ""
