"""Style as moments of features: means, Gram matrices and their diversity, the Wasserstein distance."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from math import prod
from numbers import Integral
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..base.checks import check_choice, check_numbers
from ..base.devices import is_mps
from ..pictures.geometry import Size, size_of
from .algebra import FeatureSource, Layers, at_least_float32, float64, total
from .sliced_wasserstein import BoundSliced, slices_of
from .target_statistics import BoundTargetStatistic, Means, TargetStatisticLoss, Weights

Statistic: TypeAlias = Literal["gram", "wasserstein", "sliced"]
CHUNK = 2**21  # features that a CPU converts to float32 at a time


def gram(features: Tensor) -> Tensor:
    """The Gram matrix (N, C, C) of features (N, C, h, w): how often channels fire together, averaged over positions.

    Example:
        >>> lk.gram(torch.ones(1, 2, 4, 4)).tolist()
        [[[1.0, 1.0], [1.0, 1.0]]]
    """
    f = features.flatten(2)
    return f @ f.mT / f.shape[2]


def mean_std(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (N, C, 1, 1) of features (N, C, h, w) over positions, in float32 at least."""
    variance, mean = torch.var_mean(at_least_float32(features), (2, 3), correction=0, keepdim=True)
    return mean, (variance + 1e-5).sqrt()


class Moments(torch.autograd.Function):
    """w f f^T (N, C, C) and w f (N, C), summed over the positions of features (N, C, h, w), in float32 at least.

    The weights w (h, w) are not negative; None: 1 everywhere. A map in bfloat16 is converted in chunks that stay in the
    cache. The gradient is one product, in the precision and the layout of the features: autograd alone took half of the
    time of an evaluation for all that, and as long again for weights.
    """

    @staticmethod
    def forward(ctx: Any, f: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(f, weights)
        ctx.set_materialize_grads(False)
        f = f.flatten(2)
        most = CHUNK if f.device.type == "cpu" else 64 * CHUNK  # small for a cache, large for few launches
        length = f.shape[2] if f.itemsize >= 4 else max(1, most // f[..., 0].numel())
        chunks = map(at_least_float32, f.split(length, 2))
        if weights is None:
            sums = [(chunk @ chunk.mT, chunk.sum(2)) for chunk in chunks]
        else:
            roots = weights.flatten().to(torch.promote_types(f.dtype, torch.float32)).sqrt().split(length)
            scaled = ((chunk * root, root) for chunk, root in zip(chunks, roots, strict=True))
            sums = [(chunk @ chunk.mT, chunk @ root) for chunk, root in scaled]
        second, first = map(total, zip(*sums, strict=True))
        return second, first

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor, None]:
        (f, weights), (second, first) = ctx.saved_tensors, gradients
        last = f.permute(0, 2, 3, 1)  # channels last, as networks compute
        if second is None:
            gradient = torch.zeros_like(last)
        else:  # a view has the strides of a batch even where that is one picture: else networks would convert it
            gradient = (last.flatten(1, 2) @ (second + second.mT).to(f)).view(last.shape)
        if first is not None:
            gradient += first.to(f)[:, None, None]
        if weights is not None:
            gradient *= weights.to(f)[..., None]
        return gradient.permute(0, 3, 1, 2), None


class RootTrace(torch.autograd.Function):
    """tr (F^T S F)^1/2 (N,) for covariances S (N, C, C) and a factor F (1, C, r), in float64, of another, F F^T.

    Its gradient is 1/2 F (F^T S F)^-1/2 F^T: one eigendecomposition gives both. That is computed in float64, because
    F^T S F has the squares of eigenvalues, whose small ones are lost in float32's noise: the gradient would be off by
    some per mille. What follows from eigenvectors loses nothing in the precision of S.
    """

    @staticmethod
    def forward(ctx: Any, covariance: Tensor, factor: Tensor) -> Tensor:
        middle = factor.mT @ float64(covariance.nan_to_num(0, 0, 0)) @ factor  # LAPACK refuses what is not finite
        squares, vectors = _eigh(middle)
        roots = squares.where(squares > 1e-14 * squares[:, -1:], 0).sqrt()  # what is smaller is rounding
        ctx.save_for_backward(*(x.to(covariance) for x in (factor, vectors, roots)))
        return roots.sum(1).to(covariance)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (factor, vectors, roots), (gradient,) = ctx.saved_tensors, gradients
        basis = factor @ vectors
        scale = torch.where(roots > 0, gradient[:, None] / (2 * roots), 0)
        return (basis * scale[:, None, :]) @ basis.mT, None


class style(TargetStatisticLoss):
    """How far the statistics of features are from a painting's, layer by layer.

    Args:
        painting, layers, options: see `TargetStatisticLoss`. ``relative`` divides by ||A||^2 or |m'|^2 + tr S'; False:
            Gatys' 1/4 ||G - A||^2 / C^2.
        statistic: "gram": ||G - A||^2 of Gram matrices averaged over positions (Gatys et al. 2016, arXiv:1508.06576);
            "wasserstein": the squared 2-Wasserstein distance of the Gaussians with the features' means and covariances,
            |m - m'|^2 + tr(S + S' - 2 (S'^1/2 S S'^1/2)^1/2), with its gradient in closed form (`RootTrace`);
            "sliced": the squared 2-Wasserstein distance of the features themselves along random directions, averaged
            (Heitz et al. 2021, arXiv:2006.07229), which sees more than moments (`BoundSliced`).
        projections: how many random directions "sliced" takes in each layer, from 1 to 4096.

    Example:
        >>> network, painting = lk.load_backbone("pocket", "cpu"), lk.painting("koi_mosaic", (32, 32))
        >>> bool(lk.Evaluator(network, lk.style(painting, "relu2_1"), (32, 32), "float32")(painting).loss < 1e-6)
        True
    """

    name = "style"

    def __init__(
        self,
        painting: Any,
        layers: Layers = None,
        *,
        statistic: Statistic = "gram",
        projections: int = 32,
        **options: Any,
    ):
        check_choice("statistic", statistic, Statistic)
        check_numbers(1, Integral, most=4096, projections=projections)
        super().__init__(painting, layers, **options)
        self.statistic, self.projections = statistic, projections

    def prepare(
        self, source: FeatureSource, weights: Weights, paintings: list[Tensor], size: Size
    ) -> BoundTargetStatistic:
        backbone = source.backbone
        common = tuple(weights), self.name, weights, self.relative, backbone.device
        if self.statistic == "sliced":
            return BoundSliced(*common, slices_of(source, [*weights], paintings, self.projections))
        if self.statistic == "gram":
            return BoundGram(*common)
        # With fewer positions than channels covariances are singular, and the rounding of float32, which differs
        # between tiles and the whole, would make eigenvalues of its own: the gradient would be off by 1e-4.
        singular: set[str] = set()
        for layer in () if is_mps(backbone.device) else weights:
            positions = min(prod(backbone.map_size(layer, s)) for s in (size, *map(size_of, paintings)))
            if positions < backbone.channels(layer):
                singular.add(layer)
        return BoundWasserstein(*common, singular)


@dataclass
class BoundStyle(BoundTargetStatistic):
    """A `style` of a network, by first and second moments; those of layers that are ``singular`` in float64."""

    singular: Set[str] = frozenset()

    def sums(self, layer: str, f: Tensor, weights: Tensor | None) -> dict[str, Tensor]:
        second, first = Moments.apply(f.double() if layer in self.singular else f, weights)
        return {"second": second, "first": first}


class BoundGram(BoundStyle):
    """The squared distance of Gram matrices."""

    def distance(self, layer: str, means: Means) -> Tensor:
        second, target = means[layer, "second"], self.targets[layer, "second"]
        gap = (second - target).square().sum((1, 2))
        return gap / (target.square().sum((1, 2)) if self.relative else 4 * second.shape[1] ** 2)


class BoundWasserstein(BoundStyle):
    """The squared 2-Wasserstein distance of Gaussians; targets are also a "factor" F of S' = F F^T, and its "trace"."""

    def set_targets(self, targets: Means) -> None:
        self.targets = dict(targets)
        for layer in self.layers:
            covariance = _covariance(layer, targets)
            self.targets |= {(layer, "factor"): _factor(covariance), (layer, "trace"): _trace(covariance)}

    def distance(self, layer: str, means: Means) -> Tensor:
        target, covariance = self.targets, _covariance(layer, means)
        gap, trace = means[layer, "first"] - target[layer, "first"], _trace(covariance) + target[layer, "trace"]
        distance = gap.square().sum(1) + trace - 2 * RootTrace.apply(covariance, target[layer, "factor"])
        return distance / (_trace(target[layer, "second"]) if self.relative else covariance.shape[1])


def _covariance(layer: str, means: Means) -> Tensor:
    first = means[layer, "first"]
    return means[layer, "second"] - first[:, :, None] * first[:, None, :]


def _trace(matrices: Tensor) -> Tensor:
    return matrices.diagonal(dim1=1, dim2=2).sum(1)


def _factor(matrices: Tensor) -> Tensor:
    """F (N, C, r) in float64 with F F^T = S, for positive semidefinite S (N, C, C) of a rank r in their precision.

    The rank is seldom full: channels that never fire, and maps with fewer positions than channels. Without the rest,
    which is rounding, the products with F are smaller, and nearer to what exact statistics would give.
    """
    exact = float64(matrices)
    values, vectors = _eigh(exact)
    kept = (values > torch.finfo(matrices.dtype).eps * values[:, -1:]).any(0)
    factor = vectors[:, :, kept] * values[:, None, kept].clamp_min(0).sqrt()
    factor[exact.diagonal(dim1=1, dim2=2) == 0] = 0  # not 1e-17, whose products are denormal, which is slow
    return factor


def _eigh(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors of symmetric matrices, found on one thread.

    LAPACK meets its threads thousands of times. Where they sleep between meetings, as notebooks' do
    (OMP_WAIT_POLICY=passive), two take 79 ms for 512 channels; one takes 24, two that never sleep 16.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return torch.linalg.eigh(matrices.mT)  # the same matrices, in the order that LAPACK reads
    finally:
        torch.set_num_threads(threads)
