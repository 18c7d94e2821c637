"""The algebra of losses: what a loss is, and how losses combine with ``+``, ``-`` and ``*``.

A loss is an additive statistic and a few terms. The statistics are sums over positions of something computed from
features, so they add up over tiles, over processes and in float32 whatever the network computes in; the terms are small
functions of those sums, with one value for each picture of the batch.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor

from ..base.devices import off_mps
from ..networks.backbone import Backbone
from ..pictures.geometry import Size

PIXELS = "pixels"  # the name under which losses find the picture itself among the features
Features: TypeAlias = Mapping[str, Tensor]
Statistics: TypeAlias = dict[Any, Tensor]
Terms: TypeAlias = dict[tuple[str, str], Tensor]
Slices: TypeAlias = tuple[slice, slice]
Layers: TypeAlias = str | Iterable[str] | Mapping[str, float] | None  # None: the recommended ones
Weight: TypeAlias = float | Tensor  # of a loss in a sum
L = TypeVar("L", "Loss", "BoundLoss")


class FeatureSource(Protocol):
    """What computes features and statistics of any picture, however large: see `Evaluator`."""

    backbone: Backbone

    def features(self, picture: Tensor, layers: Sequence[str]) -> Features: ...

    def statistics(self, loss: BoundLoss, picture: Tensor) -> Statistics: ...


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
        return whole[..., *self.outer[layer]] if layer in self.outer else whole


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
        whole = torch.empty(ctx.shape, dtype=gradient.dtype, device=gradient.device, memory_format=torch.channels_last)
        whole.zero_()[..., *ctx.spans] = gradient
        return whole, None


class Loss(ABC):
    """What is wanted of a picture, whatever the network and the size. ``bind`` makes it ready for one of each.

    Losses add, and are multiplied by numbers or by tensors with one weight for each picture of a batch.
    ``layers``: those it reads; none for the backbone's recommended ones.

    Example:
        >>> 2 * lk.total_variation() - 0.5 * lk.activation("relu4_3", channel=7)
        2 * total_variation() - 0.5 * activation(relu4_3, channel=7)
    """

    name = "loss"
    layers: tuple[str, ...] = ()

    @abstractmethod
    def bind(self, source: FeatureSource, size: Size) -> BoundLoss:
        """This loss made ready, for a network that has its layers; it stays as it is itself.

        Args:
            source: gives features and statistics as the evaluation will see them.
            size: (height, width) of the pictures.

        Raises:
            ValueError: for channels and classes that the network does not have.
        """

    def layers_of(self, backbone: Backbone) -> tuple[str, ...]:
        """The layers that it reads of a network."""
        return self.layers

    def starting_from(self, picture: Tensor) -> Loss:
        """This loss for a scale that starts from ``picture``: itself, unless what it wants depends on that."""
        return self

    def __add__(self, other: Loss) -> Loss:
        return Sum([*summands(self), *summands(other)])

    def __radd__(self, other: object) -> Loss:
        return self if other == 0 else NotImplemented  # so that sum() of losses works

    def __sub__(self, other: Loss) -> Loss:
        return self + -other

    def __mul__(self, weight: Weight) -> Loss:
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
    changes, which saves tiles a pass. ``position_dependent``: does it know what belongs where, as `content` does? Then
    a picture must not be moved before it is asked.
    """

    layers: tuple[str, ...]
    linear: bool = field(default=False, kw_only=True)
    position_dependent: bool = field(default=False, kw_only=True)

    @abstractmethod
    def statistics(self, features: Features, window: Window) -> Statistics:
        """Sums over the positions that ``window`` owns, by names of its own; they add up over tiles."""

    @abstractmethod
    def terms(self, statistics: Statistics) -> Terms:
        """The weighted summands (N,) of the loss by (name, layer), from statistics of the whole picture.

        The layer is "" where there is no single one.
        """

    def value(self, statistics: Statistics) -> Tensor:
        """The loss (N,), the sum of its terms."""
        return total(self.terms(statistics).values())


@dataclass
class BoundMean(BoundLoss):
    """One term, ``key``: the mean over positions of ``values``, divided by ``scale``.

    ``values``: features and window -> a map (N, h, w) or (N, C, h, w) of the positions that the window owns.
    """

    key: tuple[str, str]
    values: Callable[[Features, Window], Tensor]
    scale: Tensor | None = None
    linear: bool = field(default=True, kw_only=True)

    def statistics(self, features: Features, window: Window) -> Statistics:
        values = self.values(features, window)
        # Filled in place: a number that is copied from the host makes it wait for the device.
        count = values.new_full((), values[0].numel())
        return {"sum": values.sum(tuple(range(1, values.ndim))), "count": count}

    def terms(self, statistics: Statistics) -> Terms:
        mean = statistics["sum"] / statistics["count"]
        return {self.key: mean if self.scale is None else mean / self.scale.to(mean.device)}


class Sum(Loss):
    """A weighted sum of losses: ``summands``, each with its weight, a number or a tensor (N,)."""

    name = "sum"

    def __init__(self, summands: list[tuple[Weight, Loss]]):
        self.summands, self.layers = summands, _layers(summands)

    def layers_of(self, backbone: Backbone) -> tuple[str, ...]:
        return tuple(dict.fromkeys(layer for _, loss in self.summands for layer in loss.layers_of(backbone)))

    def starting_from(self, picture: Tensor) -> Loss:
        started = [(weight, loss.starting_from(picture)) for weight, loss in self.summands]
        same = all(new is old for (_, new), (_, old) in zip(started, self.summands, strict=True))
        return self if same else Sum(started)

    def bind(self, source: FeatureSource, size: Size) -> BoundSum:
        bound: list[tuple[Weight, BoundLoss]] = []
        for weight, loss in self.summands:
            weight = weight.to(source.backbone.device) if isinstance(weight, Tensor) else weight
            bound += [(weight * inner, part) for inner, part in summands(loss.bind(source, size))]
        return BoundSum(bound)

    def __repr__(self) -> str:
        text = ""
        for weight, loss in self.summands:
            shown = "w" if isinstance(weight, Tensor) else f"{abs(weight):g}"
            negative = not isinstance(weight, Tensor) and weight < 0
            sign = (" - " if negative else " + ") if text else ("-" if negative else "")
            text += f"{sign}{'' if shown == '1' else shown + ' * '}{loss!r}"
        return text


class BoundSum(BoundLoss):
    """A weighted sum of bound losses, none a sum. Its statistics are theirs, by (number of the summand, name)."""

    def __init__(self, summands: list[tuple[Weight, BoundLoss]]):
        linear = all(loss.linear for _, loss in summands)
        position_dependent = any(loss.position_dependent for _, loss in summands)
        super().__init__(_layers(summands), linear=linear, position_dependent=position_dependent)
        self.summands = summands

    def statistics(self, features: Features, window: Window) -> Statistics:
        return {
            (number, name): value
            for number, (_, loss) in enumerate(self.summands)
            for name, value in loss.statistics(features, window).items()
        }

    def terms(self, statistics: Statistics) -> Terms:
        by_summand: list[Statistics] = [{} for _ in self.summands]
        for (number, name), value in statistics.items():
            by_summand[number][name] = value
        terms: Terms = {}
        for (weight, loss), statistics in zip(self.summands, by_summand, strict=True):
            for key, value in loss.terms(statistics).items():
                if isinstance(weight, Tensor):
                    if len(weight) not in (1, len(value)):
                        wants = f"a loss with weights for {len(weight)} pictures needs as many"
                        raise ValueError(f"{wants}, not {len(value)}: variations={len(weight)}")
                    weight = weight.to(value.device)
                terms[key] = terms.get(key, 0) + weight * value
        return terms


def _layers(summands: Iterable[tuple[Weight, Loss | BoundLoss]]) -> tuple[str, ...]:
    layers: dict[str, None] = {}  # in order, and each once
    for _, loss in summands:
        layers |= dict.fromkeys(loss.layers)
    return tuple(layers)


def summands(loss: L) -> list[tuple[Weight, L]]:
    """The losses that a loss is the sum of, each with its weight; of any but a sum itself, with weight 1."""
    parts: Any = loss.summands if isinstance(loss, (Sum, BoundSum)) else [(1.0, loss)]
    return parts


def total(values: Iterable[Tensor]) -> Tensor:
    """The sum of at least one tensor."""
    first, *others = values
    for other in others:
        first = first + other
    return first


# --- what the losses share ---------------------------------------------------------------------------------------


def at_least_float32(values: Tensor) -> Tensor:
    """In float32, if they come in less: sums over many positions need it."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def float64(values: Tensor) -> Tensor:
    """In float64, on the CPU if the device has none."""
    return off_mps(values).double()


def layer_names(layers: str | Iterable[str]) -> tuple[str, ...]:
    """One name or several as a tuple. ValueError if there is none."""
    names = (layers,) if isinstance(layers, str) else tuple(layers)
    if not names:
        raise ValueError("name at least one layer")
    return names


def layer_weights(layers: Layers) -> dict[str, float]:
    """Layer -> its weight, of sum 1, from names or weights; {} for None."""
    if layers is None:
        return {}
    names = layer_names(layers)
    weights = [layers[name] for name in names] if isinstance(layers, Mapping) else [1.0] * len(names)
    return dict(zip(names, normalized_weights(weights, "layer"), strict=True))


def normalized_weights(weights: Iterable[float], what: str) -> list[float]:
    """Weights divided by their sum. ValueError, naming ``what`` they are of, when one is negative or all are 0."""
    weights = [float(w) for w in weights]
    if not all(0 <= w < math.inf for w in weights) or not sum(weights) > 0:
        raise ValueError(f"{what} weights must be numbers of at least 0, and not all 0, not {weights}")
    return [w / sum(weights) for w in weights]
