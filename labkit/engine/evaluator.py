"""How a loss and its gradient with respect to the pixels are computed: whole, in tiles, in processes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..base.devices import arithmetic, asked, pick_precision
from ..base.memory import keep_memory
from ..losses.algebra import (
    PIXELS,
    BoundLoss,
    BoundSum,
    Features,
    Loss,
    Statistics,
    Terms,
    Window,
    at_least_float32,
    summands,
    total,
)
from ..networks.backbone import Backbone
from ..pictures.geometry import size_of
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
        found: dict[str, Tensor] = {}
        for (name, _), value in self.layer_terms.items():
            found[name] = found.get(name, 0) + value
        return found


def least_side(backbone: Backbone, loss: Loss, size: tuple[int, int]) -> int:
    """The least side, in pixels, of a picture that ``loss`` can be asked of.

    Raises ValueError for an unknown layer, and when ``size`` (height, width) has a smaller side.
    """
    layers = [layer for layer in loss.layers if layer != PIXELS]
    backbone.check_layers(layers)
    least, deepest = max(((backbone.minimum_size(layer), layer) for layer in layers), default=(1, ""))
    if min(size) < least:
        raise ValueError(
            f"a picture of {size[1]}x{size[0]} pixels is too small for {deepest} of {backbone.name}: "
            f"its sides must be at least {least} pixels, or choose a shallower layer"
        )
    return least


class Evaluator:
    """Computes loss and gradient for pictures of one size: ``Evaluator(backbone, loss, size)(picture)``.

    ``size`` is (height, width). ``precision``: "float32", "tf32", "bfloat16" (the network computes in bfloat16; pixels,
    statistics and losses stay in float32) or "auto" (see `pick_precision`). No gradient of the weights is computed, and
    the network runs no further than the deepest layer that the loss reads. A picture on another device is brought to
    the network's, and what is computed comes back to the picture's.

    ``tile``: the side in pixels of the squares that a large picture is cut into: the gradient is the same, and memory
    no longer grows with the network's features (see `labkit.engine.tiles`). "auto" (the default) cuts when the whole
    would take more than half of the free memory; None never cuts. When memory runs out, the tile is halved, with a
    warning, unless it is None. ``distributed``: share the tiles among the processes of `torch.distributed`, each of
    which calls with the same picture and gets the same result.
    """

    def __init__(
        self,
        backbone: Backbone,
        loss: Loss,
        size: tuple[int, int],
        precision: str = "auto",
        tile: str | int | None = "auto",
        distributed: bool = False,
    ):
        if not (tile in ("auto", None) or (isinstance(tile, int) and tile >= LEAST)):
            raise ValueError(f'tile is "auto", None, or at least {LEAST} pixels, not {tile!r}')
        if distributed and not dist.is_initialized():
            raise ValueError("there are no processes to share tiles with: start them with torchrun")
        if backbone.device.type == "cpu":
            keep_memory()
        self.backbone = backbone.cast(pick_precision(precision, backbone.device))
        self.tf32 = asked(precision) == "tf32"
        self.size, self.tile, self.distributed = size, tile, distributed
        self.cuts: dict[tuple[tuple[str, ...], tuple[int, int]], list[Tile]] = {}
        self.slopes: dict[int, Statistics] = {}  # of a linear loss, by the size of the batch
        with torch.no_grad():
            self.loss: BoundLoss = loss.bind(self, size)

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return self.backbone.device

    def __call__(self, picture: Tensor) -> Evaluation:
        home = picture.device
        picture = picture.detach().to(self.device)
        found = self._with_tiles(self.loss.layers, picture, lambda tiles: self._evaluate(picture, tiles))
        terms = {key: term.to(home) for key, term in found.layer_terms.items()}
        return replace(found, loss=found.loss.to(home), layer_terms=terms, gradient=found.gradient.to(home))

    def differentiable(self, picture: Tensor) -> Tensor:
        """The loss (N,) as a node of torch's graph, for pictures that are computed from something: never in tiles."""
        return _Differentiable.apply(picture, self)

    def plus(self, loss: Loss) -> Evaluator:
        """One that evaluates a further loss as well; what this one has prepared is not computed again."""
        other = copy(self)
        with torch.no_grad():
            other.loss = BoundSum.of([*summands(self.loss), *summands(loss.bind(self, self.size))])
        other.cuts, other.slopes = {}, {}
        return other

    def features(self, picture: Tensor, layers: Sequence[str]) -> Features:
        """Features (N, C, h, w) of the named layers in float32, with the picture itself under "pixels"."""
        there = picture.to(self.device)
        found = self._with_tiles(layers, there, lambda tiles: self._features(there, layers, tiles))
        return {layer: values.to(picture.device) for layer, values in found.items()}

    def statistics(self, loss: BoundLoss, picture: Tensor) -> Statistics:
        """The statistics of ``loss`` summed over the whole picture. Not differentiable."""
        there = picture.to(self.device)
        with torch.no_grad():
            found = self._with_tiles(loss.layers, there, lambda tiles: self._summed(loss, there, tiles))
        return {key: value.to(picture.device) for key, value in found.items()}

    def gradients_by_term(self, picture: Tensor) -> dict[str, Tensor]:
        """The gradient (N, 3, H, W) of each term of the loss by itself, by name; their sum is the loss's."""
        found: dict[str, Tensor] = {}
        for weight, loss in summands(self.loss):
            alone = copy(self)
            alone.loss, alone.slopes = BoundSum.of([(weight, loss)]), {}
            evaluation = alone(picture)
            (name,) = evaluation.terms
            found[name] = found.get(name, 0) + evaluation.gradient
        return found

    def plan(self, size: tuple[int, int]) -> str:
        """In words, how pictures of ``size`` are evaluated; empty when they are not cut."""
        layers, tiles = self.loss.layers, self._tiles(self.loss.layers, size)
        if len(tiles) < 2:
            return ""
        sides = [tuple(span.stop - span.start for span in tile.reads) for tile in tiles]
        part, whole = (estimate(self.backbone, layers, s) / 2**30 for s in (max(sides), size))
        return f"{size[1]}x{size[0]} pixels in {len(tiles)} tiles: about {part:.1f} GB at a time, not {whole:.1f}"

    # --- in one piece ---

    def _evaluate(self, picture: Tensor, tiles: list[Tile]) -> Evaluation:
        if len(tiles) > 1:
            return self._evaluate_tiles(picture, tiles)
        picture = picture.requires_grad_()
        with torch.enable_grad():
            loss, terms = self._combine(self._whole(picture))
            (gradient,) = torch.autograd.grad(loss.sum(), picture)
        return Evaluation(loss.detach(), {key: term.detach() for key, term in terms.items()}, gradient, self)

    def _whole(self, picture: Tensor) -> Statistics:
        return self.loss.statistics(self._forward(picture, self.loss.layers), Window())

    def _forward(self, picture: Tensor, layers: Sequence[str]) -> Features:
        found = self.backbone.run(picture, [layer for layer in layers if layer != PIXELS])
        return {PIXELS: picture} | found

    def _combine(self, statistics: Statistics) -> tuple[Tensor, Terms]:
        terms = self.loss.terms(statistics)
        return total(terms.values()), terms

    # --- in tiles ---

    def _evaluate_tiles(self, picture: Tensor, tiles: list[Tile]) -> Evaluation:
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
                statistics = self.loss.statistics(self._forward(part, self.loss.layers), tile.window)
                change = total((slopes[key] * s).sum() for key, s in statistics.items() if s.requires_grad)
                (added,) = torch.autograd.grad(change, part)
            gradient[..., *tile.reads] += share * added
            _accumulate(sums, statistics, share)
        if self.distributed:
            dist.all_reduce(gradient)
        if whole is None:
            whole = self._gathered(sums)
        if self.loss.linear:
            self.slopes[len(picture)] = slopes
        return Evaluation(*self._combine(whole), gradient, self)

    def _slopes(self, total: Statistics) -> Statistics:
        """The derivative of the loss with respect to each of the statistics."""
        with torch.enable_grad():
            total = {key: value.detach().requires_grad_() for key, value in total.items()}
            loss, _ = self._combine(total)
            slopes = torch.autograd.grad(loss.sum(), list(total.values()), allow_unused=True, materialize_grads=True)
        return dict(zip(total, slopes, strict=True))

    def _summed(self, loss: BoundLoss, picture: Tensor, tiles: list[Tile]) -> Statistics:
        sums: Statistics = {}
        for tile, share in self._local_tiles(tiles):
            features = self._forward(picture[..., *tile.reads], loss.layers)
            _accumulate(sums, loss.statistics(features, tile.window), share)
        return self._gathered(sums)

    def _features(self, picture: Tensor, layers: Sequence[str], tiles: list[Tile]) -> Features:
        if len(tiles) == 1:
            return {layer: at_least_float32(f) for layer, f in self._forward(picture, layers).items()}
        whole: dict[str, Tensor] = {}
        for tile in tiles:
            for layer, part in self._forward(picture[..., *tile.reads], layers).items():
                if layer == PIXELS:
                    continue
                size = self.backbone.map_size(layer, size_of(picture))
                part = tile.window.crop_float32(layer, part)
                whole.setdefault(layer, part.new_empty(*part.shape[:2], *size))
                tile.window.crop_target(layer, whole[layer]).copy_(part)
        return {PIXELS: picture} | whole

    def _tiles(self, layers: Sequence[str], size: tuple[int, int]) -> list[Tile]:
        key = tuple(layers), size
        if key not in self.cuts:
            tile = self._tile(layers, size)
            whole = Tile((slice(None), slice(None)), Window())
            self.cuts[key] = [whole] if tile is None else cut(self.backbone, layers, size, tile)
        return self.cuts[key]

    def _tile(self, layers: Sequence[str], size: tuple[int, int]) -> int | None:
        if self.distributed:  # without asking for free memory, which the processes would answer differently
            share = math.ceil((size[0] * size[1] / dist.get_world_size()) ** 0.5)
            return min(share, self.tile if isinstance(self.tile, int) else LARGE)
        if not isinstance(self.tile, str):
            return self.tile
        if "logits" in layers or size[0] * size[1] <= SMALL:
            return None
        return tile_for_memory(self.backbone, layers, size, free_memory(self.device))

    def _with_tiles(self, layers: Sequence[str], picture: Tensor, work: Callable[[list[Tile]], T]) -> T:
        """Do ``work`` on tiles; when memory runs out, on smaller ones."""
        size = size_of(picture)
        while True:
            try:
                with arithmetic(self.tf32):
                    return work(self._tiles(layers, size))
            except (RuntimeError, MemoryError) as error:
                smaller = (self._tile(layers, size) or max(size)) // 2
                fixed = self.tile is None or self.distributed or "logits" in layers
                if fixed or smaller < LEAST or not ran_out(error):
                    raise
            # Outside of the except clause, which keeps alive all that the failed attempt has computed.
            warnings.warn(f"memory ran out: going on in tiles of {smaller} pixels", stacklevel=4)
            self.tile = smaller
            self.cuts.clear()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    # --- in several processes ---

    def _local_tiles(self, tiles: list[Tile]) -> list[tuple[Tile, float]]:
        """The tiles of this process, each with the share that counts; one that counts nothing if there are too few."""
        if not self.distributed:
            return [(tile, 1.0) for tile in tiles]
        own = tiles[dist.get_rank() :: dist.get_world_size()]
        return [(tile, 1.0) for tile in own] or [(tiles[0], 0.0)]

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
            ctx.loss, _ = evaluator._combine(evaluator._whole(ctx.picture))
        return ctx.loss.detach().to(picture.device)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Any:
        return _way_back(ctx, *slopes)


@once_differentiable
def _way_back(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
    with arithmetic(ctx.evaluator.tf32):
        (gradient,) = torch.autograd.grad(ctx.loss, ctx.picture, slope.to(ctx.loss), retain_graph=True)
    return gradient.to(slope.device), None


def _accumulate(sums: Statistics, statistics: Statistics, share: float) -> None:
    """Add the share of ``statistics``, without their graph, to ``sums``, which are empty at first."""
    for key, value in statistics.items():
        sums[key] = sums.get(key, 0) + share * value.detach()
