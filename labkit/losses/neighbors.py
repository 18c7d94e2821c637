"""A picture whose every place is held to a painting's place that is most like it."""

from __future__ import annotations

import math
from copy import copy
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..base.checks import check_choice
from ..networks.backbone import averages
from ..pictures.geometry import Size, antialiased, resize, size_of
from ..pictures.reading import PictureLike, as_picture
from .algebra import (
    BoundLoss,
    BoundMean,
    BoundSum,
    Features,
    FeatureSource,
    Layers,
    Loss,
    Window,
    at_least_float32,
    layer_weights,
)
from .target_statistics import PaintingLoss, inner, spatial_weights

Distance: TypeAlias = Literal["l2", "cosine"]
CELL = 4  # pixels; places are compared on a grid of such cells, or of larger ones,
PLACES = 128**2  # of which pictures have no more than these,
REFERENCES = 20_000  # and are compared with no more than these of all paintings: time grows no further
SHARE = 0.75  # of the picture so far in what is compared, Kolkin's


class nearest_neighbors(PaintingLoss):
    """How far features are from the painting's at its place most like this one (Kolkin et al. 2022, arXiv:2203.13215).

    Each place of the photo finds the place of the painting, in four orientations, whose hypercolumn (the features of
    all layers there, less their mean over the painting) has the largest cosine with its own. Every layer is then held
    to the painting's features there, as `content` holds it to the photo's. Neighbors are found once for each size; from
    style transfer's second scale on for a mix of the photo with the picture so far, a quarter and three quarters.

    Args:
        photo: resized to the picture.
        painting, layers, options: see `PaintingLoss`. Of several paintings each place takes from the one that has the
            nearest: they have no weights.
        distance: "l2": ||F - T||^2 / ||T||^2, averaged over layers; "cosine": 1 - cos(F, T) at each place.

    Example:
        >>> network, koi = lk.load_backbone("pocket", "cpu"), lk.painting("koi_mosaic", (48, 64))
        >>> evaluate = lk.Evaluator(network, lk.nearest_neighbors(lk.photo("coffee", (48, 64)), koi), (48, 64))
        >>> list(evaluate(koi).terms)
        ['nearest_neighbors']
    """

    name = "nearest_neighbors"

    def __init__(
        self, photo: PictureLike, painting: Any, layers: Layers = None, *, distance: Distance = "l2", **options: Any
    ):
        check_choice("distance", distance, Distance)
        super().__init__(painting, layers, **options)
        if max(self.shares) > 1.001 * min(self.shares):
            raise ValueError(
                "each place takes from the painting that has its nearest neighbor, so that paintings cannot be "
                "weighed: leave style_weights out, or give each painting a mask"
            )
        self.photo, self.distance, self.start = as_picture(photo), distance, None

    def starting_from(self, picture: Tensor) -> Loss:
        other = copy(self)
        other.start = picture
        return other

    def bind(self, source: FeatureSource, size: Size) -> BoundLoss:
        backbone = source.backbone
        weights = self.weights or layer_weights(backbone.recommended.style)
        query = resize(self.photo, size).to(backbone.device)
        if self.start is not None:
            query = query.lerp(resize(self.start, size).to(query), SHARE)
        targets = self._targets(source, query, tuple(weights))
        counts = spatial_weights(self.mask, backbone, weights, size)
        return BoundSum([(weights[name], self._at(name, targets[name], counts.get(name))) for name in weights])

    def _targets(self, source: FeatureSource, query: Tensor, layers: tuple[str, ...]) -> dict[str, Tensor]:
        """What the picture is held to: layer -> the paintings' features (N, C, h, w) at the neighbors of ``query``.

        They are kept in the network's own precision, and a painting's are computed twice, so that those of no more than
        one orientation are there at a time.
        """
        backbone, size = source.backbone, size_of(query)
        views, seen = [], []
        for painting, mask in zip(self.paintings, self.painting_masks, strict=True):
            painting = resize(painting, max(1, round(self.scale * max(size)))).to(backbone.device)
            seen += oriented(torch.ones_like(painting[:, :1]) if mask is None else resize(mask, size_of(painting)))
            views += oriented(painting)
        cell = max(CELL, (max(math.prod(size_of(x)) for x in (query, *views)) / PLACES) ** 0.5)
        grids = [cells_of(size_of(view), cell) for view in views]
        thinned = math.ceil(sum(map(math.prod, grids)) / REFERENCES)
        references, places = [], []
        for number, (view, mask, cells) in enumerate(zip(views, seen, grids, strict=True)):
            kept = reference_places(mask, cells, self.inset)[::thinned]
            whole = hypercolumns(source.features(view, layers), layers, cells)
            references.append(whole[0, :, kept[:, 0], kept[:, 1]])
            places.append(torch.cat([kept.new_full((len(kept), 1), number), kept], 1))
        grid = cells_of(size, cell)
        wanted = hypercolumns(source.features(query, layers), layers, grid).flatten(2)
        found = torch.cat(places)[nearest(wanted, torch.cat(references, 1))].view(-1, *grid, 3)

        targets: dict[str, Tensor] = {}
        finer = {name: tuple(map(max, backbone.map_size(name, size), grid)) for name in layers}
        for number, (view, cells) in enumerate(zip(views, grids, strict=True)):
            for layer, f in source.features(view, layers).items():
                if layer not in layers:
                    continue
                if layer not in targets:
                    shape = len(found), f.shape[1], *finer[layer]
                    targets[layer] = torch.empty(
                        shape, dtype=backbone.mean.dtype, device=f.device, memory_format=torch.channels_last
                    )
                # Each position is somewhere in a cell, and takes what is there in the cell that was found.
                (rows, down), (columns, right) = map(partial(positions, device=f.device), finer[layer], grid)
                neighbors = found[:, rows][:, :, columns]
                batch, row, column = (neighbors[..., 0] == number).nonzero(as_tuple=True)
                _, top, left = neighbors[batch, row, column].unbind(1)
                top = ((top + down[row]) * f.shape[2] / cells[0]).long().clamp_max(f.shape[2] - 1)
                left = ((left + right[column]) * f.shape[3] / cells[1]).long().clamp_max(f.shape[3] - 1)
                targets[layer][batch, :, row, column] = f[0, :, top, left].T.to(targets[layer])
        for layer, target in targets.items():  # of a layer coarser than the grid: means over its cells
            whole = backbone.map_size(layer, size)
            if size_of(target) != whole:
                down, across = (averages(*sides, target.device) for sides in zip(size_of(target), whole, strict=True))
                coarse = down.to(target) @ target @ across.to(target).T
                targets[layer] = coarse.contiguous(memory_format=torch.channels_last)  # as networks compute
        return targets

    def _at(self, layer: str, target: Tensor, counts: Tensor | None) -> BoundLoss:
        share = None if counts is None else counts / counts.mean()

        def gap(features: Features, window: Window) -> Tensor:
            f = window.crop_float32(layer, features[layer]).permute(0, 2, 3, 1)  # channels last, as networks compute
            t = window.crop_target(layer, target).permute(0, 2, 3, 1).to(f)
            if self.distance == "l2":
                distance = (f - t).square().mean(3)
            else:
                distance = 1 - (normalize(f, dim=3) * normalize(t, dim=3)).sum(3)
            return distance if share is None else distance * window.crop_target(layer, share).to(f)

        scale = None
        if self.relative and self.distance == "l2":
            scale = at_least_float32(target).square().mean((1, 2, 3)).clamp_min(1e-12)
        return BoundMean((layer,), (self.name, layer), gap, scale, position_dependent=True)


def oriented(picture: Tensor) -> list[Tensor]:
    """The picture (1, C, H, W) as it is, mirrored, lying on its side, and both."""
    return [picture, picture.flip(3), picture.mT, picture.flip(2).mT]


def cells_of(size: Size, cell: float) -> Size:
    """How many cells of about ``cell`` pixels a picture of ``size`` has each way."""
    return max(1, round(size[0] / cell)), max(1, round(size[1] / cell))


def reference_places(mask: Tensor, cells: Size, inset: float) -> Tensor:
    """The places (M, 2), row and column, inside a mask (1, 1, H, W) and not at the border; all, if there are none."""
    inside = inner((antialiased(mask, cells, "bilinear")[0, 0] >= 0.5).float(), inset)
    return (inside if inside.any() else torch.ones_like(inside)).nonzero()


def hypercolumns(features: Features, layers: tuple[str, ...], cells: Size) -> Tensor:
    """The layers' features side by side on one grid of ``cells``, (N, D, h, w), each divided by its channels."""
    return torch.cat([antialiased(features[name], cells, "bilinear") / features[name].shape[1] for name in layers], 1)


def nearest(queries: Tensor, references: Tensor) -> Tensor:
    """For each of ``queries`` (N, D, K) the number (N, K) of that of ``references`` (D, M) with the largest cosine.

    Both are centered by their own mean.
    """
    centered = normalize(references - references.mean(1, keepdim=True), dim=0)
    queries = (queries - queries.mean(2, keepdim=True)).mT  # how long they are does not matter
    return torch.stack([torch.cat([(part @ centered).argmax(1) for part in rows.split(512)]) for rows in queries])


def positions(many: int, few: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """In which of ``few`` cells each of ``many`` positions along an axis is, and how far into it, from 0 to 1."""
    places = (torch.arange(many, device=device) + 0.5) * (few / many)
    return places.long(), places - places.floor()
