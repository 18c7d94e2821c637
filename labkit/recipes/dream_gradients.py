"""The gradient that a dream follows: rolled, balanced, smoothed, in natural colors, normalized, masked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..engine.evaluator import Evaluation, Evaluator, summed
from ..losses.algebra import total
from ..pictures.color import color_correlation
from ..pictures.filters import blurred
from ..pictures.geometry import size_of


def dream_gradient(
    evaluator: Evaluator,
    *,
    jitter: int = 0,
    smoothing: float = 0.0,
    laplacian: int = 0,
    decorrelate: float = 0.0,
    anchor: float = 0.0,
    photo: Evaluator | None = None,
    mask: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Callable[[Tensor], Evaluation]:
    """The gradient that a dream follows: of the rolled picture, rolled back, smoothed, normalized and masked.

    Losses that know what belongs where are asked of the picture as it lies (see `Evaluator.split`). The gradient is
    balanced before it is smoothed, which would be undone, and then turned to natural colors and held to the photo, if
    wanted. Every picture of a batch is rolled by a shift of its own.

    Args:
        photo: evaluates the relative squared distance to the photo's features, which ``anchor`` pulls at (see
            `anchored`).
    """

    invariant, dependent = evaluator.split()
    jittered = invariant and randomly_rolled(invariant, jitter, generator)
    whole = summed(jittered, dependent, source=evaluator)
    # Once, because a copy to a GPU waits for it:
    mixing = color_mixing(decorrelate).float().to(evaluator.device) if decorrelate else None

    def evaluate(picture: Tensor) -> Evaluation:
        evaluation = whole(picture)
        gradient = smoothed(balanced(evaluation.gradient, laplacian), smoothing)
        gradient = normalized(gradient if mixing is None else natural(gradient, mixing))
        if photo is not None:
            distance = photo(picture)
            gradient = anchored(gradient, smoothed(distance.gradient, smoothing), anchor * distance.loss.sqrt())
        return replace(evaluation, gradient=gradient if mask is None else gradient * mask)

    return evaluate


def randomly_rolled(
    evaluate: Callable[[Tensor], Evaluation], jitter: int, generator: torch.Generator | None = None
) -> Callable[[Tensor], Evaluation]:
    """``evaluate`` on pictures rolled by up to ``jitter`` pixels each way, and the gradient rolled back."""

    def jittered(picture: Tensor) -> Evaluation:
        shifts = torch.randint(-jitter, jitter + 1, (len(picture), 2), generator=generator)
        evaluation = evaluate(rolled(picture, shifts))
        return replace(evaluation, gradient=rolled(evaluation.gradient, -shifts))

    return jittered


def anchored(gradient: Tensor, pull: Tensor, strength: Tensor) -> Tensor:
    """A dream's gradient and the ``pull`` (N, 3, H, W) back to the photo, added and normalized.

    The pull is as long as the dream's gradient times ``strength`` (N,), so that the balance is the same for every
    network and objective.
    """
    return normalized(normalized(gradient) + strength.view(-1, 1, 1, 1) * normalized(pull))


def rolled(pictures: Tensor, shifts: Tensor) -> Tensor:
    """Each picture of a batch moved round by its own whole shift (down, right): what leaves comes back opposite."""
    return torch.stack([picture.roll(shift, (1, 2)) for picture, shift in zip(pictures, shifts.tolist(), strict=True)])


def normalized(gradient: Tensor) -> Tensor:
    """Each picture's gradient divided by its mean absolute value, so that a step changes pixels by a known mean."""
    return gradient / gradient.abs().mean((1, 2, 3), keepdim=True).clamp_min(1e-20)


def balanced(gradient: Tensor, splits: int) -> Tensor:
    """The gradient as a Laplacian pyramid of ``splits`` + 1 levels, each divided by its root mean square, and put
    together again (Mordvintsev 2016): all sizes of detail become equally strong.

    A level is what the next one, blurred by [1, 4, 6, 4, 1] / 16 each way and half as large, lacks.
    """
    if splits == 0:
        return gradient
    away = torch.arange(-2, 3, dtype=gradient.dtype, device=gradient.device).abs()
    taps = (6 - 1.5 * away - 0.5 * away.square()) / 16  # [1, 4, 6, 4, 1], made on the device: copies wait for it
    kernel, colors = torch.outer(taps, taps).expand(gradient.shape[1], 1, 5, 5), gradient.shape[1]

    def enlarged(coarse: Tensor, size: tuple[int, int]) -> Tensor:
        odd = [(side + 1) % 2 for side in size]
        return F.conv_transpose2d(coarse, 4 * kernel, stride=2, padding=2, output_padding=odd, groups=colors)

    levels = []
    for _ in range(splits):
        coarse = F.conv2d(gradient, kernel, stride=2, padding=2, groups=colors)
        levels.append(gradient - enlarged(coarse, size_of(gradient)))
        gradient = coarse
    even = _evened(gradient)
    for level in reversed(levels):
        even = enlarged(even, size_of(level)) + _evened(level)
    return even


def _evened(level: Tensor) -> Tensor:
    """Divided by its root mean square, in two steps, because squares of small gradients underflow."""
    level = normalized(level)
    return level / level.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-20)


def color_mixing(strength: float = 1.0) -> Tensor:
    """The covariance (3, 3) of natural colors, its largest variance made 1, to the power ``strength``, from 0 to 1.

    A gradient times that is, at 1, the step in RGB that a gradient step in decorrelated colors is, which is nearly
    gray. Between, natural colors grow and garish ones do not; at 0 it stays as it is.
    """
    root = color_correlation().double()
    variances, axes = torch.linalg.eigh(root @ root.T)
    return axes * (variances / variances[-1]) ** strength @ axes.T


def natural(gradient: Tensor, mixing: Tensor) -> Tensor:
    """The gradient (N, 3, H, W), its colors mixed (see `color_mixing`)."""
    return torch.einsum("rc,nchw->nrhw", mixing.to(gradient), gradient)


def smoothed(gradient: Tensor, sigma: float) -> Tensor:
    """The mean of three Gaussian blurs, sigma/2, sigma and 2 sigma pixels wide: fine grain yields, edges stay."""
    if sigma == 0:
        return gradient
    return total(blurred(gradient, sigma * factor) for factor in (0.5, 1.0, 2.0)) / 3
