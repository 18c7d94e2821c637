"""STROTSS (Kolkin, Salavon and Shakhnarovich 2019, arXiv:1904.12785): style as transport, content as self-similarity.

Both compare every hypercolumn of a picture with every other, or with every one of a painting, so they are no sums over
positions. Their statistic is a sample of hypercolumns instead, at fixed positions of the whole picture: each tile
contributes those that it owns.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.functional import normalize

from ..base.checks import check_numbers
from ..networks.backbone import Backbone
from ..pictures.geometry import Size, resize
from ..pictures.reading import PictureLike, as_picture
from .algebra import PIXELS, BoundLoss, Features, FeatureSource, Loss, Statistics, Terms, Window, layer_names
from .regularizers import total_variation
from .styles import style
from .target_statistics import one_by_one

MOST = 16_384  # hypercolumns in a sample: their distances are as many squared


class HypercolumnLoss(Loss):
    """Base of losses on a sample of hypercolumns.

    A hypercolumn is what all layers say of one place: a unit of the coarsest layer, with the means of the finer layers'
    units of the same cell, each layer divided by its size in the painting or the photo.

    Args:
        layers: names; None: the backbone's recommended style layers.
        samples: how many hypercolumns of a picture are compared, from 2 to 16,384; all, if there are no more.
    """

    def __init__(self, layers: str | Iterable[str] | None, samples: int):
        check_numbers(2, Integral, most=MOST, samples=samples)
        self.layers, self.samples = () if layers is None else layer_names(layers), samples

    def layers_of(self, backbone: Backbone) -> tuple[str, ...]:
        return self.layers or tuple(backbone.recommended.style)


class relaxed_emd(HypercolumnLoss):
    """The relaxed earth mover's distance between the hypercolumns of the picture and those of a painting.

    The greater of two means: of how far each hypercolumn of the picture is from the painting's nearest, and of how far
    each of the painting's is from the picture's nearest. Distances are 1 - cosine. It paints with what the painting has
    together, where moments mix; it does not see how large features are.

    Args:
        painting: anything `as_picture` takes, or a list of such, from which samples are taken as from one.
        layers, samples: see `HypercolumnLoss`.
        scale: the painting's longer side relative to the picture's, at most 100.

    Example:
        >>> network, painting = lk.load_backbone("pocket", "cpu"), lk.painting("koi_mosaic", (64, 64))
        >>> bool(lk.Evaluator(network, lk.relaxed_emd(painting), (64, 64), "float32")(painting).loss < 1e-6)
        True
    """

    name = "relaxed_emd"

    def __init__(
        self, painting: Any, layers: str | Iterable[str] | None = None, *, samples: int = 1024, scale: float = 1.0
    ):
        super().__init__(layers, samples)
        check_numbers(1e-3, most=100, scale=scale)
        self.paintings = one_by_one(painting)
        self.scale = scale
        if not self.paintings:
            raise ValueError("give at least one painting")

    def bind(self, source: FeatureSource, size: Size) -> BoundLoss:
        layers, side = self.layers_of(source.backbone), max(1, round(self.scale * max(size)))
        features = [source.features(resize(p, side).to(source.backbone.device), layers) for p in self.paintings]
        columns = Hypercolumns.of(source.backbone, layers, features)
        whole = torch.cat([columns(f, Window()).flatten(2) for f in features], 2)
        references = whole[..., places(whole.shape[2], self.samples).to(whole.device)]
        numbers = numbered(columns.grid(source.backbone, size), self.samples).to(whole.device)
        return BoundRelaxedEmd(layers, columns, numbers, normalize(references))


class self_similarity(HypercolumnLoss):
    """How far the distances among a picture's hypercolumns are from those among a photo's: content without its style.

    Distances, 1 - cosine, from each hypercolumn to all are divided by their sum; the loss is the mean over hypercolumns
    of the sum of absolute differences, from 0 to 2. What is alike in the photo is to be alike in the picture, and what
    differs there is to differ here: in which colors and strokes is left open.

    Args:
        photo: resized to the picture.
        layers, samples: see `HypercolumnLoss`.

    Example:
        >>> network, photo = lk.load_backbone("pocket", "cpu"), lk.photo("coffee", (64, 64))
        >>> bool(lk.Evaluator(network, lk.self_similarity(photo), (64, 64), "float32")(photo).loss < 1e-6)
        True
    """

    name = "self_similarity"

    def __init__(self, photo: PictureLike, layers: str | Iterable[str] | None = None, *, samples: int = 1024):
        super().__init__(layers, samples)
        self.photo = as_picture(photo)

    def bind(self, source: FeatureSource, size: Size) -> BoundLoss:
        layers = self.layers_of(source.backbone)
        features = source.features(resize(self.photo, size).to(source.backbone.device), layers)
        columns = Hypercolumns.of(source.backbone, layers, [features])
        numbers = numbered(columns.grid(source.backbone, size), self.samples).to(source.backbone.device)
        target = distance_shares(sampled(columns(features, Window()), numbers, numbers))
        return BoundSelfSimilarity(layers, columns, numbers, target, position_dependent=True)


def strotss_objective(
    photo: PictureLike,
    painting: Any,
    *,
    content_weight: float = 1.0,
    samples: int = 1024,
    scale: float = 1.0,
) -> Loss:
    """What STROTSS minimizes: self-similarity to the photo, transport, moments and colors of the painting.

    As in the paper but for three things: the sample stays, the moments are compared by the Wasserstein distance of
    `style`, on all positions, and the colors by the sliced one. It is made for a start from the photo and for a
    Laplacian pyramid, from coarse to fine.

    Args:
        photo: anything `as_picture` takes: what is to be seen.
        painting: the same, or a list of such: how it is to be painted.
        content_weight: of `self_similarity`; a third paints more freely.
        samples: see `HypercolumnLoss`.
        scale: the painting's longer side relative to the picture's.

    Example:
        >>> cat, night = lk.photo("chelsea", 64), lk.painting("lantern_bay", 64)
        >>> lk.stylize(cat, lk.strotss_objective(cat, night), steps=1, progress=False).shape
        torch.Size([1, 3, 43, 64])
    """
    check_numbers(0, most=1e12, content_weight=content_weight)
    moments = style(painting, statistic="wasserstein", scale=scale)
    colors = style(painting, PIXELS, statistic="sliced", scale=scale)
    likeness = content_weight * self_similarity(photo, samples=samples)
    transport = relaxed_emd(painting, samples=samples, scale=scale)
    return likeness + transport + moments + 0.3 * colors + 0.03 * total_variation()


@dataclass
class Hypercolumns:
    """What all layers say of each place of the coarsest: by layer, how many units lie along a cell, and their size."""

    cells: dict[str, int]
    sizes: dict[str, Tensor]

    @classmethod
    def of(cls, backbone: Backbone, layers: Sequence[str], pictures: Sequence[Features]) -> Hypercolumns:
        strides = {layer: 1 if layer == PIXELS else backbone.receptive_field(layer).stride for layer in layers}
        cells = {layer: max(strides.values()) // stride for layer, stride in strides.items()}
        columns = cls(cells, {})
        for layer in layers:
            squares = [f[layer].square().sum(1).mean() for f in pictures]
            columns.sizes[layer] = torch.stack(squares).mean().sqrt().clamp_min(1e-12)
        return columns

    def __call__(self, features: Features, window: Window) -> Tensor:
        """The hypercolumns (N, D, h, w) at the positions that ``window`` owns."""
        maps = []
        for layer, cell in self.cells.items():
            f = window.crop_float32(layer, features[layer]) / self.sizes[layer]
            maps.append(F.avg_pool2d(f, cell, ceil_mode=True, count_include_pad=False) if cell > 1 else f)
        height, width = (min(f.shape[axis] for f in maps) for axis in (2, 3))  # padded maps have some beyond
        return torch.cat([f[..., :height, :width] for f in maps], 1)

    def grid(self, backbone: Backbone, size: Size) -> Size:
        """How many (rows, columns) of hypercolumns pictures of ``size`` have."""
        sizes = [(size if layer == PIXELS else backbone.map_size(layer, size), n) for layer, n in self.cells.items()]
        return min(-(-height // n) for (height, _), n in sizes), min(-(-width // n) for (_, width), n in sizes)


@dataclass
class BoundSample(BoundLoss):
    """Reads some of a picture's hypercolumns; ``numbers`` (h, w): of each in the sample, -1 where it is not in it."""

    columns: Hypercolumns
    numbers: Tensor

    def statistics(self, features: Features, window: Window) -> Statistics:
        coarsest = min(self.columns.cells, key=self.columns.cells.__getitem__)
        owned = window.crop_target(coarsest, self.numbers)
        return {"sample": sampled(self.columns(features, window), owned, self.numbers)}


@dataclass
class BoundRelaxedEmd(BoundSample):
    """`relaxed_emd` from ``references`` (1, D, R) of norm 1."""

    references: Tensor

    def terms(self, statistics: Statistics) -> Terms:
        sample = statistics["sample"]
        distance = 1 - self.references.to(sample).mT @ normalize(sample)
        return {("relaxed_emd", ""): torch.maximum(distance.amin(1).mean(1), distance.amin(2).mean(1))}


@dataclass
class BoundSelfSimilarity(BoundSample):
    """`self_similarity` to a photo whose `distance_shares` are the ``target``."""

    target: Tensor

    def terms(self, statistics: Statistics) -> Terms:
        found = distance_shares(statistics["sample"])
        return {("self_similarity", ""): (found - self.target.to(found)).abs().sum(1).mean(1)}


def distance_shares(sample: Tensor) -> Tensor:
    """1 - cosine (N, K, K) of each with each in a sample (N, D, K), divided by each one's sum."""
    units = normalize(sample)
    distance = 1 - units.mT @ units
    return distance / distance.sum(1, keepdim=True).clamp_min(1e-12)


def sampled(columns: Tensor, owned: Tensor, numbers: Tensor) -> Tensor:
    """The sample (N, D, K) of a picture of which only ``columns`` (N, D, h, w) are known, 0 in the others' places.

    ``owned`` (h, w): the columns' numbers in the sample; ``numbers``: those of the whole picture.
    """
    sample = columns.new_zeros(*columns.shape[:2], int(numbers.max()) + 1)
    sample[..., owned[owned >= 0]] = columns[..., owned >= 0]
    return sample


def places(count: int, most: int) -> Tensor:
    """All of ``count`` places, or ``most`` of them at random, the same at every call; in order."""
    if count <= most:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))[:most].sort().values


def numbered(grid: Size, most: int) -> Tensor:
    """A map of ``grid`` with the numbers of its `places`, and -1 at all others."""
    chosen = places(grid[0] * grid[1], most)
    numbers = torch.full((grid[0] * grid[1],), -1)
    numbers[chosen] = torch.arange(len(chosen))
    return numbers.view(grid)
