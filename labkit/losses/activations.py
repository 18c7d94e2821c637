"""Losses that push activations: DeepDream and feature visualization. With ``-`` they are raised."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ..networks.backbone import averages
from ..pictures.geometry import resize
from ..pictures.reading import as_picture
from .algebra import Features, Loss, Reader, Statistics, Sum, Window, mean_of, positions, wide
from .styles import Moments

# --- pushing activations: DeepDream and feature visualization -----------------------------------------------------


class activation(Loss):
    """The mean of a layer's features to a power: with ``-``, DeepDream's objective (Mordvintsev et al. 2015).

    ``channel`` keeps one channel, ``neuron`` (row, column) one position (fractions of the map's height and width, in
    [0, 1)), ``direction`` a vector (C,) on which features are projected. ``power`` 2 (the default) is DeepDream's mean
    square, 1 the plain mean of feature visualization. ``relative`` takes the logarithm, so that in a sum of layers each
    one counts by its relative growth and not by the size of its numbers.
    """

    name = "activation"

    def __init__(
        self,
        layer: str,
        *,
        channel: int | None = None,
        neuron: tuple[float, float] | None = None,
        direction: Tensor | None = None,
        power: int = 2,
        relative: bool = False,
    ):
        if channel is not None and direction is not None:
            raise ValueError("give a channel or a direction, not both")
        if relative and power % 2:
            raise ValueError("a relative activation is the logarithm of an even power: use power=2")
        if neuron is not None and layer == "logits":
            raise ValueError("the logits have no places, so there is no neuron to choose: choose a channel")
        if neuron is not None and not all(0 <= p < 1 for p in neuron):
            raise ValueError(f"a neuron's place is (row, column) in fractions from 0 to 1, not {neuron}")
        self.layers, self.channel, self.neuron, self.direction = (layer,), channel, neuron, direction
        self.power, self.relative, self.linear, self.spot = power, relative, not relative, None

    def bound(self, reader: Reader, size: tuple[int, int]) -> Loss:
        super().bound(reader, size)
        backbone, layer = reader.backbone, self.layers[0]
        wanted = self.channel if self.direction is None else len(self.direction) - 1
        if wanted is not None:
            there = backbone.channels(layer)
            if not -there <= wanted < there or (self.direction is not None and wanted != there - 1):
                raise ValueError(f"{layer} of {backbone.name} has {there} channels, numbered from 0 to {there - 1}")
        bound = copy(self)
        if self.direction is not None:
            bound.direction = self.direction.to(backbone.device)
        if self.neuron is None:
            return bound
        height, width = backbone.map_size(layer, size)
        bound.spot = torch.zeros(height, width, device=backbone.device)
        bound.spot[int(self.neuron[0] * height), int(self.neuron[1] * width)] = 1
        return bound

    def statistics(self, features: Features, window: Window) -> Statistics:
        (layer,) = self.layers
        f = features[layer]
        f = window.owned(layer, f[..., None, None] if f.ndim == 2 else f)  # the logits have no positions
        if self.channel is not None:
            f = f[:, self.channel, None]
        if self.direction is not None:
            f = torch.einsum("nchw,c->nhw", f, self.direction.to(f))[:, None]
        values = (f**self.power).mean(1)
        if self.spot is None:
            return [values.sum((1, 2)), positions(f)]
        spot = window.part(layer, self.spot)
        return [(values * spot).sum((1, 2)), spot.sum()]

    def readout(self, statistics: Statistics) -> Tensor:
        mean = mean_of(statistics)
        return mean.clamp_min(1e-12).log() if self.relative else mean

    def _arguments(self) -> str:
        extras = {"channel": self.channel, "neuron": self.neuron, "power": None if self.power == 2 else self.power}
        extras["relative"] = self.relative or None
        shown = [f"{key}={value}" for key, value in extras.items() if value is not None]
        return ", ".join([*self.layers, *shown, *(["direction"] if self.direction is not None else [])])


class class_logit(Loss):
    """The logit of one class, by number or name: with ``-``, the picture that the network would call that class.

    The statistics are averages of the last features over the head's grid of cells, so that they add up over tiles.
    """

    name = "class_logit"

    def __init__(self, target: int | str):
        self.target, self.layers = target, ("logits",)

    def bound(self, reader: Reader, size: tuple[int, int]) -> Loss:
        bound, backbone = copy(self), reader.backbone
        super().bound(reader, size)
        bound.target, bound.backbone = backbone.class_index(self.target), backbone
        if backbone.head is None:  # a wrapped network, whose logits come out of it whole
            return bound
        bound.layers = (backbone.names[-1],)
        bound.linear = isinstance(backbone.head, (nn.Linear, nn.Identity))
        height, width = backbone.map_size(bound.layers[0], size)
        bound.rows, bound.columns = (averages(side, backbone.grid, backbone.device) for side in (height, width))
        return bound

    def statistics(self, features: Features, window: Window) -> Statistics:
        (layer,) = self.layers
        if layer == "logits":
            return [wide(features[layer][:, self.target])]
        rows, columns = self.rows, self.columns  # (grid, h) and (grid, w): averages as matrices
        if layer in window.outer:
            rows, columns = rows[:, window.outer[layer][0]], columns[:, window.outer[layer][1]]
        return [rows @ window.owned(layer, features[layer]) @ columns.T]

    def readout(self, statistics: Statistics) -> Tensor:
        (cells,) = statistics
        if cells.ndim == 1:
            return cells
        logits = self.backbone.read_head(cells.to(self.backbone.mean))
        return logits[:, self.target].to(cells)

    def _arguments(self) -> str:
        return repr(self.target)


class guide(Loss):
    """How well each place matches its best counterpart in a guide picture; with ``-``, a guided dream.

    The mean over positions of max_j f . g_j, where g_j are the guide's feature vectors: its gradient at a place is the
    guide's vector with the largest dot product, as in the original DeepDream notebook (Google 2015).
    """

    name = "guide"
    linear = True

    def __init__(self, picture: Any, layer: str):
        self.picture, self.layers = as_picture(picture), (layer,)
        if len(self.picture) != 1:
            raise ValueError(f"a guide is one picture, not a batch of {len(self.picture)}")

    def bound(self, reader: Reader, size: tuple[int, int]) -> Loss:
        super().bound(reader, size)
        bound = copy(self)
        shrunk = resize(self.picture, max(size)).to(reader.backbone.device)
        bound.vectors = reader.features(shrunk, self.layers)[self.layers[0]].flatten(2)[0]  # (C, M)
        return bound

    def statistics(self, features: Features, window: Window) -> Statistics:
        (layer,) = self.layers
        f = window.owned(layer, features[layer])
        match = torch.einsum("nchw,cm->nhwm", f, self.vectors).amax(-1)
        return [match.sum((1, 2)) / f.shape[1], positions(f)]

    def readout(self, statistics: Statistics) -> Tensor:
        return mean_of(statistics)


class caricature(Loss):
    """How strongly a picture shows what a photo shows: with ``-``, the photo as the network exaggerates it.

    f . p / ||p||^2 times (f . p / ||f|| ||p||) ^ ``power``, where f and p are the features of picture and photo at one
    layer, all positions together: the photo itself has 1, and one that says the same twice as loudly 2. The cosine
    (Carter et al. 2019), kept above 0.1 so that noise finds its way, holds the picture to the photo's subject.
    """

    name = "caricature"

    def __init__(self, photo: Any, layer: str, *, power: float = 1.0):
        if not power >= 0:
            raise ValueError(f"the power of the cosine must not be negative, but is {power}")
        self.photo, self.layers, self.power = as_picture(photo), (layer,), power

    def bound(self, reader: Reader, size: tuple[int, int]) -> Loss:
        super().bound(reader, size)
        bound, (layer,) = copy(self), self.layers
        photo = resize(self.photo, size).to(reader.backbone.device)
        bound.target = reader.features(photo, self.layers)[layer]
        bound.square = bound.target.square().sum((1, 2, 3)).clamp_min(1e-12)
        return bound

    def statistics(self, features: Features, window: Window) -> Statistics:
        (layer,) = self.layers
        f = window.owned(layer, features[layer])
        return [(f * window.part(layer, self.target)).sum((1, 2, 3)), f.square().sum((1, 2, 3))]

    def readout(self, statistics: Statistics) -> Tensor:
        product, square = statistics
        own = self.square.to(product.device)
        cosine = product / (square * own).clamp_min(1e-12).sqrt()
        return product / own * cosine.clamp_min(0.1) ** self.power


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
        second, _ = Moments.apply(window.computed(layer, features[layer]))
        return [second]

    def readout(self, statistics: Statistics) -> Tensor:
        (second,) = statistics
        if len(second) < 2:
            raise ValueError("diversity compares the pictures of a batch: ask for variations=2 or more")
        unit = normalize(second.flatten(1), dim=1)
        return ((unit @ unit.T).sum(1) - 1) / (len(unit) - 1)


# --- objectives for several pictures at once ------------------------------------------------------------------------


def each(losses: Sequence[Loss]) -> Loss:
    """One loss for each picture of a batch: a contact sheet of channels is ``each([-activation(...), ...])``."""
    identity = torch.eye(len(losses))
    return Sum([(identity[index], loss) for index, loss in enumerate(losses)])


def between(first: Loss, last: Loss, pictures: int) -> Loss:
    """From ``first`` to ``last`` in even steps, one for each picture of a batch."""
    share = torch.linspace(0, 1, pictures)
    return Sum([(1 - share, first), (share, last)])


def channels(layer: str, numbers: Sequence[int]) -> Loss:
    """The mean activation of one channel for each picture of a batch, negated: what each of them looks for."""
    return each([-activation(layer, channel=number, power=1) for number in numbers])
