"""How a loss and its gradient with respect to the pixels are computed: whole, in tiles, in processes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from numbers import Integral
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..base.checks import MOST_SIDE, check_numbers
from ..base.devices import Precision, arithmetic, pick_precision, requested_precision
from ..base.memory import keep_memory
from ..losses.algebra import PIXELS, BoundLoss, BoundSum, Features, Loss, Statistics, Terms, Window, summands, total
from ..networks.backbone import Backbone
from ..pictures.geometry import Size, size_of
from .tiles import LEAST, Tile, cut, estimate, free_memory, ran_out, tile_for_memory

SMALL = 512**2  # pixels; pictures up to here are not cut unasked
LARGE = 1024  # the side of tiles that processes share unasked
T = TypeVar("T")


@dataclass(frozen=True)
class Evaluation:
    """The loss (N,) of each picture, its weighted terms by (name, layer), and the gradient (N, 3, H, W) of their sum.

    ``source``: what computed them, where that is an `Evaluator`.
    """

    loss: Tensor
    layer_terms: Terms
    gradient: Tensor
    source: Evaluator | None = field(default=None, repr=False)

    @property
    def terms(self) -> dict[str, Tensor]:
        """The terms by name: those of one name's layers are added."""
        terms: dict[str, Tensor] = {}
        for (name, _), value in self.layer_terms.items():
            terms[name] = terms.get(name, 0) + value
        return terms

    def plus(self, other: Evaluation) -> Evaluation:
        """The evaluation of the sum of both losses, without a source."""
        terms = dict(self.layer_terms)
        for key, value in other.layer_terms.items():
            terms[key] = terms.get(key, 0) + value
        return Evaluation(self.loss + other.loss, terms, self.gradient + other.gradient)


def summed(*parts: Callable[[Tensor], Evaluation] | None, source: Evaluator) -> Callable[[Tensor], Evaluation]:
    """What evaluates the sum of several losses, each by its own way; ``source`` has them all."""
    ways = [part for part in parts if part is not None]

    def evaluate(picture: Tensor) -> Evaluation:
        return replace(reduce(Evaluation.plus, [way(picture) for way in ways]), source=source)

    return evaluate


def least_side(backbone: Backbone, loss: Loss, size: tuple[int, int]) -> int:
    """The least side, in pixels, of a picture that ``loss`` can be asked of.

    Raises ValueError for an unknown layer, and when ``size`` (height, width) has a smaller side.
    """
    layers = [layer for layer in loss.layers_of(backbone) if layer != PIXELS]
    return backbone.least_side(layers, size) if layers else 1


class Evaluator:
    """Computes loss and gradient for pictures of one size.

    No gradient of the weights is computed, and the network runs no further than the deepest layer that the loss reads.
    A picture on another device is brought to the network's, and what is computed comes back to the picture's.

    Args:
        size: (height, width) of the pictures, each at most 65,536.
        precision: "float32", "tf32", "bfloat16" (the network computes in bfloat16; pixels, statistics and losses stay
            in float32) or "auto" (see `pick_precision`).
        tile: the side in pixels, at least 64, of the squares that a large picture is cut into: the gradient is the
            same, and memory no longer grows with the network's features (see `labkit.engine.tiles`). "auto" cuts when
            the whole would take more than half of the free memory; None never cuts. When memory runs out, the tile is
            halved, with a warning, unless it is None.
        distributed: share the tiles among the processes of `torch.distributed`, each of which calls with the same
            picture and gets the same result.

    Example:
        >>> network, picture = lk.load_backbone("pocket", "cpu"), lk.photo("coffee", (48, 64))
        >>> evaluation = lk.Evaluator(network, -lk.activation("relu3_1"), (48, 64))(picture)
        >>> list(evaluation.terms), evaluation.gradient.shape == picture.shape
        (['activation'], True)
    """

    def __init__(
        self,
        backbone: Backbone,
        loss: Loss,
        size: Size,
        precision: Precision = "auto",
        tile: str | int | None = "auto",
        distributed: bool = False,
    ):
        check_numbers(1, Integral, most=MOST_SIDE, height=size[0], width=size[1])
        if not (tile in ("auto", None) or (isinstance(tile, int) and LEAST <= tile <= MOST_SIDE)):
            raise ValueError(f'tile is "auto", None, or from {LEAST} to {MOST_SIDE:,} pixels, not {tile!r}')
        if distributed and not dist.is_initialized():
            raise ValueError("there are no processes to share tiles with: start them with torchrun")
        if backbone.device.type == "cpu":
            keep_memory()
        self.backbone = backbone.cast(pick_precision(precision, backbone.device))
        self.device = backbone.device
        self.tf32 = requested_precision(precision) == "tf32"
        self.size, self.tile, self.distributed = size, tile, distributed
        self.cuts: dict[tuple[tuple[str, ...], Size], list[Tile]] = {}
        self.slopes: dict[int, Statistics] = {}  # of a linear loss, by the size of the batch
        self.loss = self._bound(loss)

    def __call__(self, picture: Tensor) -> Evaluation:
        home, picture = picture.device, picture.detach().to(self.device)
        loss, terms, gradient = self._cut(picture, self.loss.layers, self._evaluate)
        terms = {key: term.detach().to(home) for key, term in terms.items()}
        return Evaluation(loss.detach().to(home), terms, gradient.to(home), self)

    def differentiable(self, picture: Tensor) -> Tensor:
        """The loss (N,) as a node of torch's graph, for pictures that are computed from something: never in tiles."""
        return _Differentiable.apply(picture, self)

    def plus(self, loss: Loss) -> Evaluator:
        """One that evaluates a further loss as well; what this one has prepared is not computed again."""
        return self._with(BoundSum([*summands(self.loss), *summands(self._bound(loss))]))

    def split(self) -> tuple[Evaluator | None, Evaluator | None]:
        """Two that share its loss, the part that is `position_dependent` last; None where there is no such part."""
        parts = summands(self.loss)
        invariant, dependent = (
            [part for part in parts if part[1].position_dependent is is_so] for is_so in (False, True)
        )
        if invariant and dependent:
            return self._with(BoundSum(invariant)), self._with(BoundSum(dependent))
        return (self, None) if invariant else (None, self)

    def features(self, picture: Tensor, layers: Sequence[str]) -> Features:
        """Features (N, C, h, w) of the named layers in float32, with the picture itself under "pixels"."""
        features = self._cut(picture.to(self.device), layers, partial(self._features, layers))
        return {layer: values.to(picture.device) for layer, values in features.items()}

    @torch.no_grad()
    def statistics(self, loss: BoundLoss, picture: Tensor) -> Statistics:
        """The statistics of ``loss`` summed over the whole picture. Not differentiable."""
        sums = self._cut(picture.to(self.device), loss.layers, partial(self._summed, loss))
        return {key: value.to(picture.device) for key, value in sums.items()}

    def gradients_by_term(self, picture: Tensor) -> dict[str, Tensor]:
        """The gradient (N, 3, H, W) of each term of the loss by itself, by name; their sum is the loss's."""
        gradients: dict[str, Tensor] = {}
        for summand in summands(self.loss):
            evaluation = self._with(BoundSum([summand]))(picture)
            (name,) = evaluation.terms
            gradients[name] = gradients.get(name, 0) + evaluation.gradient
        return gradients

    def plan(self, size: Size) -> str:
        """In words, how pictures of ``size`` are evaluated; empty when they are not cut."""
        layers, tiles = self.loss.layers, self._tiles(self.loss.layers, size)
        if len(tiles) < 2:
            return ""
        sides = [tuple(span.stop - span.start for span in tile.reads) for tile in tiles]
        part, whole = (estimate(self.backbone, layers, s) / 2**30 for s in (max(sides), size))
        return f"{size[1]}x{size[0]} pixels in {len(tiles)} tiles: about {part:.1f} GB at a time, not {whole:.1f}"

    @torch.no_grad()
    def _bound(self, loss: Loss) -> BoundLoss:
        least_side(self.backbone, loss, self.size)
        return loss.bind(self, self.size)

    def _with(self, loss: BoundLoss) -> Evaluator:
        other = copy(self)
        other.loss, other.slopes = loss, {}
        return other

    # --- in one piece: features -> statistics -> terms -> gradient ---

    def _evaluate(self, picture: Tensor, tiles: list[Tile]) -> tuple[Tensor, Terms, Tensor]:
        if len(tiles) > 1:
            return self._evaluate_tiles(picture, tiles)
        with torch.enable_grad():
            loss, terms = self._combine(self._statistics(self.loss, picture.requires_grad_(), Window()))
            (gradient,) = torch.autograd.grad(loss.sum(), picture)
        return loss, terms, gradient

    def _forward(self, picture: Tensor, layers: Sequence[str]) -> Features:
        return {PIXELS: picture, **self.backbone.run(picture, [layer for layer in layers if layer != PIXELS])}

    def _statistics(self, loss: BoundLoss, picture: Tensor, window: Window) -> Statistics:
        return loss.statistics(self._forward(picture, loss.layers), window)

    def _combine(self, statistics: Statistics) -> tuple[Tensor, Terms]:
        terms = self.loss.terms(statistics)
        return total(terms.values()), terms

    # --- in tiles ---

    def _evaluate_tiles(self, picture: Tensor, tiles: list[Tile]) -> tuple[Tensor, Terms, Tensor]:
        """Two passes: the statistics of the whole picture; then each tile's gradient, by the loss's slope in them.

        The slope of a linear loss never changes: it is kept, and saves the first pass from the second evaluation on.
        """
        slopes, whole = self.slopes.get(len(picture)), None
        if slopes is None:
            whole = self._summed(self.loss, picture, tiles)
            slopes = self._slopes(whole)
        gradient, sums = torch.zeros_like(picture), {}
        for tile, share in self._local_tiles(tiles):
            part = picture[..., *tile.reads].detach().requires_grad_()
            with torch.enable_grad():
                statistics = self._statistics(self.loss, part, tile.window)
                change = total((slopes[key] * s).sum() for key, s in statistics.items() if s.requires_grad)
                (added,) = torch.autograd.grad(change, part)
            gradient[..., *tile.reads] += share * added
            _accumulate(sums, statistics, share)
        if self.distributed:
            dist.all_reduce(gradient)
        if self.loss.linear:
            self.slopes[len(picture)] = slopes
        return *self._combine(self._gathered(sums) if whole is None else whole), gradient

    def _slopes(self, whole: Statistics) -> Statistics:
        """The derivative of the loss with respect to each of the statistics."""
        with torch.enable_grad():
            leaves = {key: value.detach().requires_grad_() for key, value in whole.items()}
            loss, _ = self._combine(leaves)
            slopes = torch.autograd.grad(loss.sum(), list(leaves.values()), allow_unused=True, materialize_grads=True)
        return dict(zip(leaves, slopes, strict=True))

    def _summed(self, loss: BoundLoss, picture: Tensor, tiles: list[Tile]) -> Statistics:
        sums: Statistics = {}
        for tile, share in self._local_tiles(tiles):
            _accumulate(sums, self._statistics(loss, picture[..., *tile.reads], tile.window), share)
        return self._gathered(sums)

    def _features(self, layers: Sequence[str], picture: Tensor, tiles: list[Tile]) -> Features:
        if len(tiles) == 1:
            return {layer: Window().crop_float32(layer, f) for layer, f in self._forward(picture, layers).items()}
        whole: dict[str, Tensor] = {}
        for tile in tiles:
            features = self._forward(picture[..., *tile.reads], layers)
            for layer in set(layers) - {PIXELS}:
                part = tile.window.crop_float32(layer, features[layer])
                if layer not in whole:
                    whole[layer] = part.new_empty(*part.shape[:2], *self.backbone.map_size(layer, size_of(picture)))
                tile.window.crop_target(layer, whole[layer]).copy_(part)
        return {PIXELS: picture, **whole}

    def _tiles(self, layers: Sequence[str], size: Size) -> list[Tile]:
        key = tuple(layers), size
        if key not in self.cuts:
            self.backbone.check_layers(set(layers) - {PIXELS})
            self.cuts[key] = cut(self.backbone, layers, size, self._tile(layers, size))
        return self.cuts[key]

    def _tile(self, layers: Sequence[str], size: Size) -> int | None:
        if self.distributed:  # without asking for free memory, which the processes would answer differently
            share = math.ceil((size[0] * size[1] / dist.get_world_size()) ** 0.5)
            return min(share, self.tile if isinstance(self.tile, int) else LARGE)
        if not isinstance(self.tile, str):
            return self.tile
        if "logits" in layers or size[0] * size[1] <= SMALL:
            return None
        return tile_for_memory(self.backbone, layers, size, free_memory(self.device))

    def _cut(self, picture: Tensor, layers: Sequence[str], work: Callable[[Tensor, list[Tile]], T]) -> T:
        """Do ``work`` on the picture in tiles, or in one; when memory runs out, in smaller ones."""
        size = size_of(picture)
        while True:
            try:
                with arithmetic(self.tf32):
                    return work(picture, self._tiles(layers, size))
            except (RuntimeError, MemoryError) as error:
                smaller = (self._tile(layers, size) or max(size)) // 2
                fixed = self.tile is None or self.distributed or "logits" in layers
                if fixed or smaller < LEAST or not ran_out(error):
                    raise
            # Outside of the except clause, which keeps alive all that the failed attempt has computed.
            warnings.warn(f"memory ran out: going on in tiles of {smaller} pixels", stacklevel=3)
            self.tile = smaller
            self.cuts.clear()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    # --- in several processes ---

    def _local_tiles(self, tiles: list[Tile]) -> list[tuple[Tile, float]]:
        """The tiles of this process, each with the share that counts; one that counts nothing if there are too few."""
        if not self.distributed:
            return [(tile, 1.0) for tile in tiles]
        return [(tile, 1.0) for tile in tiles[dist.get_rank() :: dist.get_world_size()]] or [(tiles[0], 0.0)]

    def _gathered(self, sums: Statistics) -> Statistics:
        """Statistics summed over the processes, in one message."""
        if not self.distributed:
            return sums
        message = torch.cat([value.flatten() for value in sums.values()])
        dist.all_reduce(message)
        parts = message.split([value.numel() for value in sums.values()])
        return {key: part.view(value.shape) for (key, value), part in zip(sums.items(), parts, strict=True)}


class _Differentiable(torch.autograd.Function):
    """The loss (N,) of pictures as a node of torch's graph, whose way back keeps the evaluator's arithmetic too."""

    @staticmethod
    def forward(ctx: Any, picture: Tensor, evaluator: Evaluator) -> Tensor:
        ctx.evaluator, ctx.picture = evaluator, picture.detach().to(evaluator.device).requires_grad_()
        with torch.enable_grad(), arithmetic(evaluator.tf32):
            ctx.loss, _ = evaluator._combine(evaluator._statistics(evaluator.loss, ctx.picture, Window()))
        return ctx.loss.detach().to(picture.device)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (slope,) = slopes
        with arithmetic(ctx.evaluator.tf32):
            (gradient,) = torch.autograd.grad(ctx.loss, ctx.picture, slope.to(ctx.loss), retain_graph=True)
        return gradient.to(slope.device), None


def _accumulate(sums: Statistics, statistics: Statistics, share: float) -> None:
    """Add the share of ``statistics``, without their graph, to ``sums``, which are empty at first."""
    for key, value in statistics.items():
        sums[key] = sums.get(key, 0) + share * value.detach()
