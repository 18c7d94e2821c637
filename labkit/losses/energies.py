"""Losses in which every channel, or class, counts by its relative growth, so that no loud one takes over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..base.checks import check_numbers
from ..networks.backbone import Backbone
from ..pictures.geometry import Size
from .algebra import BoundLoss, Features, FeatureSource, Loss, Statistics, Terms, Window, at_least_float32


class log_energy(Loss):
    """The mean over channels of log(e_c + ``floor`` * mean e), e_c the mean square of a channel: with ``-``, a dream in
    which the few loudest channels do not win everywhere, as they do with `activation`.

    Args:
        floor: what every channel has at least, in parts of the layer's mean energy, so that silent ones do not win
            instead; from 1e-6 to 100.

    Example:
        >>> network, picture = lk.load_backbone("pocket", "cpu"), lk.photo("coffee", (32, 32))
        >>> list(lk.Evaluator(network, -lk.log_energy("relu3_3"), (32, 32))(picture).terms)
        ['log_energy']
    """

    name = "log_energy"

    def __init__(self, layer: str, *, floor: float = 0.05):
        check_numbers(1e-6, most=100, floor=floor)
        self.layers, self.floor = (layer,), floor

    def bind(self, source: FeatureSource, size: Size) -> BoundLoss:
        (layer,) = self.layers

        def features_of(features: Features, window: Window) -> Tensor:
            f = features[layer]
            return window.crop_float32(layer, f[..., None, None] if f.ndim == 2 else f)

        return BoundLogEnergy(self.layers, (self.name, layer), features_of, self.floor)


class class_evidence(Loss):
    """Where a picture shows some classes: with ``-``, a dream in which each place grows towards one of them.

    The mean over classes of log(e_k + ``floor`` * mean e), e_k the mean over places of max(0, f . (w_k - mean w))^2:
    the energy of the class's activation map (Zhou et al. 2016, arXiv:1512.04150) against the mean of all classes.
    Squares let strong places grow, and the logarithm lets every class have its own.

    Args:
        classes: one or more, by number or name.
        floor: as in `log_energy`.

    Raises:
        ValueError: when bound to a network whose classes are not a linear function of averaged features.

    Example:
        >>> lk.class_evidence("castle", "palace")
        class_evidence('castle', 'palace')
    """

    name = "class_evidence"

    def __init__(self, *classes: int | str, floor: float = 0.02):
        if not classes:
            raise ValueError('name at least one class, as in class_evidence("castle")')
        check_numbers(1e-6, most=100, floor=floor)
        self.classes, self.floor = classes, floor

    def layers_of(self, backbone: Backbone) -> tuple[str, ...]:
        return (last_map(backbone),)

    def bind(self, source: FeatureSource, size: Size) -> BoundLoss:
        backbone, layer = source.backbone, last_map(source.backbone)
        chosen = torch.tensor([backbone.class_index(name) for name in self.classes])
        count = backbone.channels("logits")
        rows = at_least_float32(backbone.head.weight if isinstance(backbone.head, nn.Linear) else torch.eye(count))
        weights = (rows[chosen] - rows.mean(0)).to(backbone.device)

        def evidence(features: Features, window: Window) -> Tensor:
            f = window.crop_float32(layer, features[layer])
            return torch.einsum("nchw,kc->nkhw", f, weights.to(f)).clamp_min(0)

        return BoundLogEnergy((layer,), (self.name, ""), evidence, self.floor)

    def _arguments(self) -> str:
        return ", ".join(map(repr, self.classes))


@dataclass
class BoundLogEnergy(BoundLoss):
    """One term, ``key``: the mean over ``maps`` (N, K, h, w) of log(mean square + ``floor`` * their mean)."""

    key: tuple[str, str]
    maps: Callable[[Features, Window], Tensor]
    floor: float

    def statistics(self, features: Features, window: Window) -> Statistics:
        maps = self.maps(features, window)
        return {"square": maps.square().sum((2, 3)), "count": maps.new_full((), maps[0, 0].numel())}

    def terms(self, statistics: Statistics) -> Terms:
        energy = statistics["square"] / statistics["count"]
        floor = self.floor * energy.mean(1, keepdim=True).detach()  # or maps would grow by its growth alone
        return {self.key: (energy + floor).clamp_min(1e-30).log().mean(1)}


def last_map(backbone: Backbone) -> str:
    """The layer whose places vote for classes: the deepest before the last pools.

    Raises ValueError when the classes are not a linear function of averaged features.
    """
    if backbone.grid != 1 or not isinstance(backbone.head, (nn.Linear, nn.Identity)):
        raise ValueError(f"the classes of {backbone.name} have no map: use class_logit, or pocket or googlenet_bvlc")
    pools = nn.MaxPool2d, nn.AvgPool2d
    return next(
        name
        for name, stage in zip(reversed(backbone.names), reversed(backbone.stages), strict=True)
        if not isinstance(stage, pools)
    )
