"""The algebra of losses: what a loss is, and how losses combine with ``+``, ``-`` and ``*``.

A loss is an additive statistic and a few terms. The statistics are sums over positions of something computed from
features, so they add up over tiles, over processes and in float32 whatever the network computes in; the terms are small
functions of those sums, with one value for each picture of the batch.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, overload

import torch
from torch import Tensor

from ..base.devices import off_mps
from ..networks.backbone import Backbone

PIXELS = "pixels"  # the name under which losses find the picture itself among the features
Features: TypeAlias = Mapping[str, Tensor]
Statistics: TypeAlias = dict[Any, Tensor]
Terms: TypeAlias = dict[tuple[str, str], Tensor]
Slices: TypeAlias = tuple[slice, slice]


class FeatureSource(Protocol):
    """What computes features and statistics of any picture, however large: an `Evaluator`."""

    backbone: Backbone

    def features(self, picture: Tensor, layers: Sequence[str]) -> Features:
        """Features (N, C, h, w) of the named layers in float32, and the picture itself under "pixels"."""
        ...

    def statistics(self, loss: BoundLoss, picture: Tensor) -> Statistics:
        """The statistics of ``loss``, summed over the whole picture."""
        ...


@dataclass(frozen=True)
class Window:
    """Which positions of each layer a tile owns; ``Window()`` owns everything.

    ``inner``: layer -> (rows, columns) of the tile's own feature map that count; ``outer``: the same positions in the
    feature map of the whole picture.
    """

    inner: Mapping[str, Slices] = field(default_factory=dict)
    outer: Mapping[str, Slices] = field(default_factory=dict)

    def crop_float32(self, layer: str, features: Tensor) -> Tensor:
        """The owned part (N, C, h, w) of what the tile computed, in float32 at least: what sums are made of."""
        return at_least_float32(self.crop(layer, features))

    def crop(self, layer: str, features: Tensor) -> Tensor:
        """The owned part in the precision that the network computed in."""
        return Crop.apply(features, self.inner[layer]) if layer in self.inner else features

    def crop_target(self, layer: str, whole: Tensor) -> Tensor:
        """The owned part of something known for the whole picture, such as a target."""
        rows, columns = self.outer.get(layer, (slice(None), slice(None)))
        return whole[..., rows, columns]


class Crop(torch.autograd.Function):
    """Some rows and columns of a map (N, C, h, w), and its gradient, in the layout that networks compute in.

    Plain slicing would be copied to another layout by the first product, and once more for each axis on the way back:
    that was half of the time of a tile.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, spans: Slices) -> Tensor:
        ctx.shape, ctx.spans = features.shape, spans
        return features[..., *spans].contiguous(memory_format=torch.channels_last)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        like = {"dtype": gradient.dtype, "device": gradient.device, "memory_format": torch.channels_last}
        whole = torch.empty(ctx.shape, **like).zero_()
        whole[..., *ctx.spans] = gradient
        return whole, None


class Loss(ABC):
    """What is wanted of a picture, whatever the network and the size. ``bind`` makes it ready for one of each.

    ``layers``: the layers it reads; none for the backbone's recommended ones.
    """

    name = "loss"
    layers: tuple[str, ...] = ()

    @abstractmethod
    def bind(self, source: FeatureSource, size: tuple[int, int]) -> BoundLoss:
        """This loss for pictures of ``size`` (height, width): layers checked, targets computed.

        ``source`` gives features and statistics as the evaluation will see them. The loss itself stays as it is.
        """

    def __add__(self, other: Loss) -> Loss:
        return Sum([*summands(self), *summands(other)])

    def __radd__(self, other: object) -> Loss:
        return self if other == 0 else NotImplemented  # so that sum() of losses works

    def __sub__(self, other: Loss) -> Loss:
        return self + -other

    def __mul__(self, weight: float | Tensor) -> Loss:
        if isinstance(weight, (int, float)) and not math.isfinite(weight):
            raise ValueError(f"a weight must be a finite number, not {weight}")
        return Sum([(w * weight, loss) for w, loss in summands(self)])

    __rmul__ = __mul__

    def __neg__(self) -> Loss:
        return -1.0 * self

    def _arguments(self) -> str:
        return ", ".join(self.layers)

    def __repr__(self) -> str:
        return f"{self.name}({self._arguments()})"


@dataclass
class BoundLoss(ABC):
    """A loss that is ready: for one network, on whose device its targets lie, and for pictures of one size.

    ``layers``: what it reads of the network. ``linear``: are the terms linear in the statistics? Then their slope never
    changes, which saves tiles a pass.
    """

    layers: tuple[str, ...]
    linear: bool = field(default=False, kw_only=True)

    @abstractmethod
    def statistics(self, features: Features, window: Window) -> Statistics:
        """Sums over the positions that ``window`` owns, each under a name of its own; they add up over tiles."""

    @abstractmethod
    def terms(self, statistics: Statistics) -> Terms:
        """The summands (N,) of the loss by (name, layer), from statistics summed over the whole picture.

        They are weighted, as they enter the loss; the layer is "" where there is no one layer.
        """

    def value(self, statistics: Statistics) -> Tensor:
        """The loss (N,), the sum of its terms."""
        return total(self.terms(statistics).values())


@dataclass
class BoundMean(BoundLoss):
    """One term, the mean over positions of what ``statistics`` names "sum", "count" of them."""

    key: tuple[str, str]

    def terms(self, statistics: Statistics) -> Terms:
        return {self.key: statistics["sum"] / statistics["count"]}


class Sum(Loss):
    """A weighted sum of losses; a weight is a number, or a tensor (N,) with one for each picture of the batch."""

    name = "sum"

    def __init__(self, summands: list[tuple[float | Tensor, Loss]]):
        self.summands = summands
        self.layers = tuple(dict.fromkeys(layer for _, loss in summands for layer in loss.layers))

    def bind(self, source: FeatureSource, size: tuple[int, int]) -> BoundSum:
        device = source.backbone.device
        return BoundSum.of(
            (weight.to(device) if isinstance(weight, Tensor) else weight, loss.bind(source, size))
            for weight, loss in self.summands
        )

    def __repr__(self) -> str:
        text = ""
        for weight, loss in self.summands:
            shown = "w" if isinstance(weight, Tensor) else f"{abs(weight):g}"
            negative = not isinstance(weight, Tensor) and weight < 0
            sign = (" - " if negative else " + ") if text else ("-" if negative else "")
            text += f"{sign}{'' if shown == '1' else shown + ' * '}{loss!r}"
        return text


@dataclass
class BoundSum(BoundLoss):
    """A weighted sum of bound losses."""

    summands: list[tuple[float | Tensor, BoundLoss]]

    @classmethod
    def of(cls, summands: Iterable[tuple[float | Tensor, BoundLoss]]) -> BoundSum:
        summands = list(summands)
        layers = tuple(dict.fromkeys(layer for _, loss in summands for layer in loss.layers))
        return cls(layers, summands, linear=all(loss.linear for _, loss in summands))

    def statistics(self, features: Features, window: Window) -> Statistics:
        return {
            (number, key): value
            for number, (_, loss) in enumerate(self.summands)
            for key, value in loss.statistics(features, window).items()
        }

    def terms(self, statistics: Statistics) -> Terms:
        found: Terms = {}
        for number, (weight, loss) in enumerate(self.summands):
            own = {key: value for (owner, key), value in statistics.items() if owner == number}
            for key, value in loss.terms(own).items():
                if isinstance(weight, Tensor) and len(weight) not in (1, len(value)):
                    raise ValueError(
                        f"a loss with weights for {len(weight)} pictures needs as many, not {len(value)}: "
                        f"variations={len(weight)}"
                    )
                weight = weight.to(value.device) if isinstance(weight, Tensor) else weight
                found[key] = found.get(key, 0) + weight * value
        return found


@overload
def summands(loss: Loss) -> list[tuple[float | Tensor, Loss]]: ...


@overload
def summands(loss: BoundLoss) -> list[tuple[float | Tensor, BoundLoss]]: ...


def summands(loss: Any) -> Any:
    """The losses that a loss is the sum of, each with its weight; of any but a sum itself, with weight 1."""
    return loss.summands if isinstance(loss, (Sum, BoundSum)) else [(1.0, loss)]


def total(values: Iterable[Tensor]) -> Tensor:
    """The sum of at least one tensor."""
    first, *others = values
    for other in others:
        first = first + other
    return first


# --- what the losses share ---------------------------------------------------------------------------------------


def position_count(features: Tensor) -> Tensor:
    """How many positions a map (N, C, h, w) has: the additive count by which a sum becomes a mean."""
    # Filled in place: a number that is copied from the host makes it wait for the device.
    number, dtype = features.shape[2] * features.shape[3], torch.promote_types(features.dtype, torch.float32)
    return features.new_full((), number, dtype=dtype)


def at_least_float32(values: Tensor) -> Tensor:
    """In float32, if they come in less: sums over many positions need it."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def float64(values: Tensor) -> Tensor:
    """In float64, on the CPU if the device has none."""
    return off_mps(values).double()


def layer_names(layers: str | Iterable[str]) -> tuple[str, ...]:
    """One name or several as a tuple."""
    names = (layers,) if isinstance(layers, str) else tuple(layers)
    if not names:
        raise ValueError("name at least one layer")
    return names


def layer_weights(layers: str | Iterable[str] | Mapping[str, float]) -> tuple[tuple[str, ...], list[float]]:
    """Layer names and their weights, which sum to one."""
    names = layer_names(layers)
    return names, normalized_weights(
        [layers[name] for name in names] if isinstance(layers, Mapping) else [1] * len(names), "layer"
    )


def normalized_weights(weights: Iterable[float], what: str) -> list[float]:
    """Weights divided by their sum. ValueError, naming ``what`` they are of, when one is negative or all are 0."""
    weights = [float(w) for w in weights]
    if not all(0 <= w < math.inf for w in weights) or not sum(weights) > 0:
        raise ValueError(f"{what} weights must be positive numbers, not {weights}")
    return [w / sum(weights) for w in weights]
