"""Floor 2: style as moments of features: Gram matrices, their diversity, the Wasserstein distance of Gaussians."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import copy
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from .algebra import Features, Loss, Reader, Statistics, Window, as_list, layer_weights, positions, shares
from .images import as_picture, resize
from .masks import Mask, as_mask, guide_map
from .network import Backbone


def gram(features: Tensor) -> Tensor:
    """The Gram matrix (N, C, C) of features (N, C, h, w): how often channels fire together, averaged over positions."""
    f = features.flatten(2)
    return f @ f.mT / f.shape[2]


class SecondMoment(torch.autograd.Function):
    """f f^T for features (N, C, M), with its gradient as one product, laid out as the features are.

    Autograd alone would take two products and a sum, in another memory layout: that was nearly half of the time of an
    evaluation in bfloat16.
    """

    @staticmethod
    def forward(ctx: Any, f: Tensor) -> Tensor:
        ctx.save_for_backward(f)
        return f @ f.mT

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (f,) = ctx.saved_tensors
        return (f.mT @ (gradient + gradient.mT)).mT


class style(Loss):
    """How far the statistics of features are from a painting's, layer by layer.

    ``painting``: anything `as_picture` takes, or a list of such. Several are mixed: what is sought is the weighted mean
    of their statistics, so that two weights draw a line between two paintings, and three a triangle. ``weights``: one
    for each painting (divided by their sum); None: equal ones.
    ``mask``: where in the picture the style is asked for; ``painting_masks``: what of each painting is looked at; see
    `as_mask` for what a mask may be. In each layer, only units that see nothing of what is outside count, if there are
    such (see `guide_map`). A sum of styles with masks paints each region in its own.
    ``statistic`` "gram" (the default): ||G - A||^2 of Gram matrices averaged over positions (Gatys et al. 2016,
    arXiv:1508.06576); "wasserstein": the squared 2-Wasserstein distance of the Gaussians with the features' means and
    covariances, |m - m'|^2 + tr(S + S' - 2 (S'^1/2 S S'^1/2)^1/2), whose gradient `eigvalsh` gives in closed form.
    ``layers``: names, or name -> weight (weights are divided by their sum); None: the backbone's recommended ones.
    ``relative`` (the default) divides each layer's distance by its value against nothing (||A||^2 or |m'|^2 + tr S'):
    layers and networks become comparable, and a blank picture starts near 1. False: Gatys' 1/4 ||G - A||^2 / C^2.
    ``scale``: the painting's longer side relative to the picture's; it is never enlarged.
    """

    name = "style"

    def __init__(
        self,
        painting: Any,
        layers: Iterable[str] | Mapping[str, float] | None = None,
        *,
        weights: Iterable[float] | None = None,
        mask: Mask = None,
        painting_masks: Any = None,
        statistic: str = "gram",
        relative: bool = True,
        scale: float = 1.0,
    ):
        if statistic not in ("gram", "wasserstein"):
            raise ValueError(f'statistic is "gram" or "wasserstein", not {statistic!r}')
        if not scale > 0:
            raise ValueError(f"the style's scale must be positive, not {scale}")
        self.paintings = [as_picture(one) for one in as_list(painting)]
        weights = [1.0] * len(self.paintings) if weights is None else list(weights)
        if not len(weights) == len(self.paintings) > 0:
            raise ValueError(f"there are {len(self.paintings)} paintings and {len(weights)} weights: give each one")
        self.shares = shares(weights, "style")
        self.mask = mask
        sources = [None] * len(self.paintings) if painting_masks is None else as_list(painting_masks)
        if len(sources) != len(self.paintings):
            raise ValueError(f"there are {len(self.paintings)} paintings and {len(sources)} masks of paintings")
        self.painting_masks = [
            mask if mask is None else as_mask(mask, painting.shape[-2:])
            for mask, painting in zip(sources, self.paintings, strict=True)
        ]
        self.statistic, self.relative, self.scale = statistic, relative, scale
        self.layers, self.weights = (None, []) if layers is None else layer_weights(layers)

    def bound(self, reader: Reader, size: tuple[int, int]) -> Loss:
        bound = copy(self)
        if self.layers is None:
            bound.layers, bound.weights = layer_weights(reader.backbone.recommended.style)
        Loss.bound(bound, reader, size)
        found = []
        for painting, mask in zip(self.paintings, self.painting_masks, strict=True):
            shrunk = resize(painting, max(1, round(self.scale * max(size)))).to(reader.backbone.device)
            bound.guides = _guides(mask, reader.backbone, bound.layers, shrunk.shape[-2:])
            found.append([_moments(s) for s in reader.statistics(bound, shrunk)])
        bound.guides = _guides(self.mask, reader.backbone, bound.layers, size)
        bound.targets = [_mixed(moments, self.shares) for moments in zip(*found, strict=True)]
        bound.roots = [_root(_covariance(*t)) for t in bound.targets] if self.statistic == "wasserstein" else []
        return bound

    def statistics(self, features: Features, window: Window) -> Statistics:
        found: Statistics = []
        for layer in self.layers:
            f = window.owned(layer, features[layer])
            if layer in self.guides:  # positions count by their guide g: sqrt(g) f has the second moment g f f^T
                guide = window.part(layer, self.guides[layer]).to(f)
                count, root = guide.sum(), guide.sqrt()
                found.append([SecondMoment.apply((root * f).flatten(2)), (guide * f).sum((2, 3)), count])
            else:
                count, f = positions(f), f.flatten(2)
                found.append([SecondMoment.apply(f), f.sum(2), count])
        return found

    def readout(self, statistics: Statistics) -> Tensor:
        return sum(self.per_layer(statistics).values())

    def per_layer(self, statistics: Statistics) -> dict[str, Tensor]:
        """The weighted distance (N,) of each layer."""
        distance = self._gram_distance if self.statistic == "gram" else self._wasserstein
        return {
            layer: weight * distance(index, *_moments(statistics[index]))
            for index, (layer, weight) in enumerate(zip(self.layers, self.weights, strict=True))
        }

    def _gram_distance(self, index: int, second: Tensor, mean: Tensor) -> Tensor:
        target, _ = self.targets[index]
        gap = (second - target).square().sum((1, 2))
        return gap / (target.square().sum((1, 2)) if self.relative else 4 * second.shape[1] ** 2)

    def _wasserstein(self, index: int, second: Tensor, mean: Tensor) -> Tensor:
        (target_second, target_mean), root = self.targets[index], self.roots[index]
        # tr(M^1/2) through eigenvalues: eigvalsh's derivative needs no iteration. In float64, because M has the squares
        # of eigenvalues, whose small ones are lost in float32's noise: the gradient would be off by some per cent.
        covariance = _covariance(second, mean)
        middle = root @ _float64(covariance) @ root
        cross = torch.linalg.eigvalsh((middle + middle.mT) / 2).clamp_min(1e-10).sqrt().sum(1).to(mean)
        trace = _trace(covariance) + _trace(_covariance(target_second, target_mean))
        distance = (mean - target_mean).square().sum(1) + trace - 2 * cross
        return distance / (_trace(target_second) if self.relative else second.shape[1])


class diversity(Loss):
    """How alike the pictures of a batch are: each one's mean cosine of Gram matrices with the others', from 0 to 1.

    Added to an objective, it makes several pictures of one channel show different sides of it (Olah, Mordvintsev and
    Schubert 2017). A batch of one raises ValueError.
    """

    name = "diversity"

    def __init__(self, layer: str):
        self.layers = (layer,)

    def statistics(self, features: Features, window: Window) -> Statistics:
        (layer,) = self.layers
        return [SecondMoment.apply(window.owned(layer, features[layer]).flatten(2))]

    def readout(self, statistics: Statistics) -> Tensor:
        (second,) = statistics
        if len(second) < 2:
            raise ValueError("diversity compares the pictures of a batch: ask for variations=2 or more")
        unit = normalize(second.flatten(1), dim=1)
        return ((unit @ unit.T).sum(1) - 1) / (len(unit) - 1)


def _moments(statistics: Statistics) -> tuple[Tensor, Tensor]:
    """Second moment (N, C, C), which is the Gram matrix, and mean (N, C) from their sums and the count."""
    second, first, count = statistics
    return second / count, first / count


def _guides(mask: Mask, backbone: Backbone, layers: Iterable[str], size: tuple[int, int]) -> dict[str, Tensor]:
    """The guide (h, w) of each layer for pictures of ``size``; none without a mask."""
    if mask is None:
        return {}
    whole = as_mask(mask, size, warn=False)
    if len(whole) != 1 or not whole.any():
        raise ValueError("a style's mask is one for all pictures, and not empty")
    whole = whole[0, 0].to(backbone.device)
    return {name: guide_map(whole, backbone.receptive_field(name), backbone.map_size(name, size)) for name in layers}


def _mixed(moments: Iterable[tuple[Tensor, Tensor]], shares: list[float]) -> tuple[Tensor, Tensor]:
    """The weighted mean of second moments and of means."""
    second, mean = (sum(w * x for w, x in zip(shares, kind, strict=True)) for kind in zip(*moments, strict=True))
    return second, mean


def _covariance(second: Tensor, mean: Tensor) -> Tensor:
    return second - mean[:, :, None] * mean[:, None, :]


def _trace(matrices: Tensor) -> Tensor:
    return matrices.diagonal(dim1=1, dim2=2).sum(1)


def _float64(matrices: Tensor) -> Tensor:
    """In float64, on the CPU if the device (Apple's MPS) has none."""
    return matrices.to("cpu" if matrices.device.type == "mps" else matrices.device, torch.float64)


def _root(matrices: Tensor) -> Tensor:
    """The symmetric square root of symmetric positive semidefinite matrices (N, C, C)."""
    values, vectors = torch.linalg.eigh(_float64(matrices))
    return vectors * values.clamp_min(0).sqrt()[:, None, :] @ vectors.mT
