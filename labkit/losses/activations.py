"""Losses that push activations: DeepDream and feature visualization. With ``-`` they are raised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ..base.checks import check_numbers
from ..networks.backbone import Backbone, averages
from ..pictures.geometry import Size, resize
from ..pictures.reading import PictureLike, as_picture
from .algebra import BoundLoss, BoundMean, Features, FeatureSource, Loss, Statistics, Sum, Terms, Window
from .styles import Moments

MOST_PICTURES = 1024  # of a batch


class activation(Loss):
    """The mean of a layer's features to a power: with ``-``, DeepDream's objective (Mordvintsev et al. 2015).

    Args:
        channel: the only channel that counts.
        neuron: the only position, (row, column), in fractions of the map's height and width, in [0, 1). Of a picture
            that is moved before, by ``jitter``, it sees other places.
        direction: a vector (C,) on which features are projected, instead of a channel.
        power: 2 is DeepDream's mean square, 1 the plain mean of feature visualization; at most 16.
        relative: take the logarithm, so that in a sum of layers each one counts by its relative growth and not by the
            size of its numbers.

    Example:
        >>> network, picture = lk.load_backbone("pocket", "cpu"), lk.photo("coffee", (32, 32))
        >>> bool(lk.Evaluator(network, lk.activation("relu2_1"), (32, 32))(picture).loss > 0)
        True
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
        check_numbers(1, Integral, most=16, power=power)
        if channel is not None and direction is not None:
            raise ValueError("give a channel or a direction, not both")
        if relative and power % 2:
            raise ValueError("a relative activation is the logarithm of an even power: use power=2")
        if neuron is not None and layer == "logits":
            raise ValueError("the logits have no places, so there is no neuron to choose: choose a channel")
        if neuron is not None and not all(0 <= p < 1 for p in neuron):
            raise ValueError(f"a neuron's place is (row, column) in fractions from 0 to 1, not {neuron}")
        self.layers, self.channel, self.neuron, self.direction = (layer,), channel, neuron, direction
        self.power, self.relative = power, relative

    def bind(self, source: FeatureSource, size: Size) -> BoundLoss:
        backbone, (layer,), direction, spot = source.backbone, self.layers, self.direction, None
        if direction is not None or self.channel is not None:
            count = backbone.channels(layer)
            if not (self.channel in range(-count, count) if direction is None else len(direction) == count):
                raise ValueError(f"{layer} of {backbone.name} has {count} channels, numbered from 0 to {count - 1}")
        if direction is not None:
            direction = direction.to(backbone.device)
        if self.neuron is not None:
            height, width = backbone.map_size(layer, size)
            spot = torch.zeros(height, width, device=backbone.device)
            spot[int(self.neuron[0] * height), int(self.neuron[1] * width)] = 1
        return BoundActivation(self.layers, self, direction, spot, linear=not self.relative)

    def _arguments(self) -> str:
        options = {"channel": self.channel, "neuron": self.neuron, "power": None if self.power == 2 else self.power}
        options["relative"] = self.relative or None
        shown = [f"{key}={value}" for key, value in options.items() if value is not None]
        return ", ".join([*self.layers, *shown, *(["direction"] if self.direction is not None else [])])


@dataclass
class BoundActivation(BoundLoss):
    """An `activation` of a network: its direction (C,) and its ``spot``, a map (h, w) that is 1 at the neuron."""

    loss: activation
    direction: Tensor | None
    spot: Tensor | None

    def statistics(self, features: Features, window: Window) -> Statistics:
        (layer,) = self.layers
        f = features[layer]
        f = window.crop_float32(layer, f[..., None, None] if f.ndim == 2 else f)  # the logits have no positions
        if self.loss.channel is not None:
            f = f[:, self.loss.channel, None]
        if self.direction is not None:
            f = torch.einsum("nchw,c->nhw", f, self.direction.to(f))[:, None]
        values = (f**self.loss.power).mean(1)
        if self.spot is None:
            return {"sum": values.sum((1, 2)), "count": values.new_full((), values[0].numel())}
        spot = window.crop_target(layer, self.spot)
        return {"sum": (values * spot).sum((1, 2)), "count": spot.sum()}

    def terms(self, statistics: Statistics) -> Terms:
        mean = statistics["sum"] / statistics["count"]
        return {(self.loss.name, self.layers[0]): mean.clamp_min(1e-12).log() if self.loss.relative else mean}


class class_logit(Loss):
    """The logit of one class, by number or name, less the mean of all: with ``-``, the picture that the network would
    call that class.

    Logits count by their differences alone: what is added to all of them changes no probability, and in some networks
    a picture raises all more easily than one. The statistics are averages of the last features over the head's grid of
    cells, so that they add up over tiles.
    """

    name, linear = "class_logit", True

    def __init__(self, target: int | str):
        self.target, self.layers = target, ("logits",)

    def bind(self, source: FeatureSource, size: Size) -> BoundLoss:
        backbone = source.backbone
        target = backbone.class_index(self.target)
        if backbone.head is None:  # a wrapped network, whose logits come out of it whole

            def logit(features: Features, window: Window) -> Tensor:
                return self.read(window.crop_float32("logits", features["logits"]), target)[:, None]

            return BoundMean(self.layers, (self.name, "logits"), logit)
        last = backbone.names[-1]
        linear = self.linear and isinstance(backbone.head, (nn.Linear, nn.Identity))
        rows, columns = (averages(side, backbone.grid, backbone.device) for side in backbone.map_size(last, size))
        return BoundHead((last,), self, target, backbone, rows, columns, linear=linear)

    def read(self, logits: Tensor, target: int) -> Tensor:
        """What is wanted (N,) of logits (N, classes)."""
        return logits[:, target] - (logits.mean(1) if logits.shape[1] > 1 else 0)

    def _arguments(self) -> str:
        return repr(self.target)


class class_log_probability(class_logit):
    """The logarithm of the probability of one class: with ``-``, a picture that is this class and no other.

    Unlike `class_logit` it is also raised by lowering all other classes.
    """

    name, linear = "class_log_probability", False

    def read(self, logits: Tensor, target: int) -> Tensor:
        return logits.log_softmax(1)[:, target]


@dataclass
class BoundHead(BoundLoss):
    """A `class_logit` of a network with a head: ``rows`` (grid, h) and ``columns`` (grid, w) average features."""

    loss: class_logit
    target: int
    backbone: Backbone
    rows: Tensor
    columns: Tensor

    def statistics(self, features: Features, window: Window) -> Statistics:
        (layer,) = self.layers
        rows, columns = self.rows, self.columns
        if layer in window.outer:
            rows, columns = rows[:, window.outer[layer][0]], columns[:, window.outer[layer][1]]
        return {"cells": rows @ window.crop_float32(layer, features[layer]) @ columns.T}

    def terms(self, statistics: Statistics) -> Terms:
        cells = statistics["cells"]
        logits = self.backbone.read_head(cells.to(self.backbone.mean))
        return {(self.loss.name, self.layers[0]): self.loss.read(logits.to(cells), self.target)}


class guide(Loss):
    """How well each place matches its best counterpart in a guide picture; with ``-``, a guided dream.

    The mean over positions of max_j f . g_j / C, where g_j are the guide's feature vectors: its gradient at a place is
    the guide's vector with the largest dot product, as in the original DeepDream notebook (Google 2015).

    Args:
        picture: the guide; shrunk to the longer side of the pictures that are compared with it.
    """

    name = "guide"

    def __init__(self, picture: PictureLike, layer: str):
        self.picture, self.layers = as_picture(picture), (layer,)
        if len(self.picture) != 1:
            raise ValueError(f"a guide is one picture, not a batch of {len(self.picture)}")

    def bind(self, source: FeatureSource, size: Size) -> BoundLoss:
        (layer,), shrunk = self.layers, resize(self.picture, max(size)).to(source.backbone.device)
        vectors = source.features(shrunk, self.layers)[layer].flatten(2)[0]

        def match(features: Features, window: Window) -> Tensor:
            f = window.crop_float32(layer, features[layer])
            return torch.einsum("nchw,cm->nhwm", f, vectors).amax(-1)

        return BoundMean(self.layers, (self.name, layer), match, vectors.new_tensor(len(vectors)))


class caricature(Loss):
    """How strongly a picture shows what a photo shows: with ``-``, the photo as the network exaggerates it.

    f . p / ||p||^2 times (f . p / ||f|| ||p||) ^ ``power``, where f and p are the features of picture and photo at one
    layer, all positions together: the photo itself has 1, and one that says the same twice as loudly 2. The cosine
    (Carter et al. 2019), kept above 0.1 so that noise finds its way, holds the picture to the photo's subject.

    Args:
        photo: resized to the picture.
        power: of the cosine, from 0 to 100.
    """

    name = "caricature"

    def __init__(self, photo: PictureLike, layer: str, *, power: float = 1.0):
        check_numbers(0, most=100, power=power)
        self.photo, self.layers, self.power = as_picture(photo), (layer,), power

    def bind(self, source: FeatureSource, size: Size) -> BoundLoss:
        photo = resize(self.photo, size).to(source.backbone.device)
        features = source.features(photo, self.layers)[self.layers[0]]
        return BoundCaricature(self.layers, features, self.power, position_dependent=True)


@dataclass
class BoundCaricature(BoundLoss):
    """A `caricature` of a network: the photo's features (N, C, h, w), and the power of the cosine."""

    photo: Tensor
    power: float

    def statistics(self, features: Features, window: Window) -> Statistics:
        (layer,) = self.layers
        f = window.crop_float32(layer, features[layer])
        product = (f * window.crop_target(layer, self.photo)).sum((1, 2, 3))
        return {"product": product, "square": f.square().sum((1, 2, 3))}

    def terms(self, statistics: Statistics) -> Terms:
        product, square = statistics["product"], statistics["square"]
        target = self.photo.square().sum((1, 2, 3)).clamp_min(1e-12).to(product.device)
        cosine = product / (square * target).clamp_min(1e-12).sqrt()
        return {(caricature.name, self.layers[0]): product / target * cosine.clamp_min(0.1) ** self.power}


class diversity(Loss):
    """How alike the pictures of a batch are: each one's mean cosine of Gram matrices with the others', from 0 to 1.

    Added to an objective, it makes several pictures of one channel show different sides of it (Olah, Mordvintsev and
    Schubert 2017). A batch of one raises ValueError.
    """

    name = "diversity"

    def __init__(self, layer: str):
        self.layers = (layer,)

    def bind(self, source: FeatureSource, size: Size) -> BoundLoss:
        return BoundDiversity(self.layers)


class BoundDiversity(BoundLoss):
    """A `diversity` of a network."""

    def statistics(self, features: Features, window: Window) -> Statistics:
        (layer,) = self.layers
        return {"second": Moments.apply(window.crop(layer, features[layer]))[0]}

    def terms(self, statistics: Statistics) -> Terms:
        unit = normalize(statistics["second"].flatten(1), dim=1)
        if len(unit) < 2:
            raise ValueError("diversity compares the pictures of a batch: ask for variations=2 or more")
        return {(diversity.name, self.layers[0]): ((unit @ unit.T).sum(1) - 1) / (len(unit) - 1)}


# --- objectives for several pictures at once ------------------------------------------------------------------------


def per_picture(losses: Sequence[Loss]) -> Loss:
    """One loss for each picture of a batch: a contact sheet of channels is ``per_picture([-activation(...), ...])``."""
    return Sum(list(zip(torch.eye(len(losses)), losses, strict=True)))


def between(first: Loss, last: Loss, pictures: int) -> Loss:
    """From ``first`` to ``last`` in even steps, one for each of the ``pictures`` of a batch, at most 1024."""
    check_numbers(1, Integral, most=MOST_PICTURES, pictures=pictures)
    share = torch.linspace(0, 1, pictures)
    return Sum([(1 - share, first), (share, last)])


def channels(layer: str, numbers: Sequence[int]) -> Loss:
    """The mean activation of one channel for each picture of a batch, negated: what each of them looks for.

    Example:
        >>> lk.channels("relu4_3", [3, 5]).layers
        ('relu4_3',)
    """
    return per_picture([-activation(layer, channel=number, power=1) for number in numbers])
