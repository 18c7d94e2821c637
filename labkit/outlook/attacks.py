"""Adversarial attacks that know the model: small changes of pictures that mislead it.

What is minimized is an ``evaluate(pictures)``: `untargeted` and `targeted` make one, and an `Evaluator` is one.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from ..base.checks import check_choice, check_numbers
from ..base.devices import arithmetic
from ..engine.evaluator import Evaluation
from ..engine.optimization import descend, make_optimizer
from ..engine.parameters import Pixels
from ..engine.progress import Progress
from ..engine.runs import single_stage
from ..pictures.geometry import size_of
from .classifiers import Model, class_indices, logits_of

Evaluate: TypeAlias = Callable[[Tensor], Evaluation]
Norm: TypeAlias = Literal["linf", "l2"]


# --- what an attacker may do --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Threat:
    """A threat model: pixels stay in [0, 1], and a picture moves by at most ``epsilon`` in a norm.

    Args:
        norm: "linf", the largest change of a pixel, or "l2", the Euclidean length of the change of a whole picture.
        epsilon: at most 1 for "linf", where 8 of 255 levels are 8 / 255.

    Example:
        >>> threat, gray = Threat("linf", 8 / 255), torch.full((1, 3, 4, 4), 0.5)
        >>> threat.check(threat.noise(gray), gray)
    """

    norm: Norm
    epsilon: float

    def __post_init__(self) -> None:
        check_choice("norm", self.norm, Norm)
        check_numbers(0, most=1.0 if self.norm == "linf" else 1e6, epsilon=self.epsilon)

    def size(self, change: Tensor) -> Tensor:
        """The norm (N,) of changes (N, C, H, W)."""
        return torch.linalg.vector_norm(change, math.inf if self.norm == "linf" else 2, dim=(1, 2, 3))

    def steepest(self, gradient: Tensor) -> Tensor:
        """The change of norm 1 along which a function with this gradient rises fastest; 0 where the gradient is 0."""
        if self.norm == "linf":
            return gradient.sign()
        return gradient / self.size(gradient).clamp_min(1e-30)[:, None, None, None]

    def shrink(self, change: Tensor) -> Tensor:
        """The nearest change of a norm of at most ``epsilon``."""
        if self.norm == "linf":
            return change.clamp(-self.epsilon, self.epsilon)
        return change * (self.epsilon / self.size(change).clamp_min(1e-30)).clamp_max(1)[:, None, None, None]

    def project(self, pictures: Tensor, originals: Tensor) -> Tensor:
        """``pictures`` brought back to what the threat allows near ``originals``."""
        # A change shrinks towards an original in [0, 1], so it stays there; the last clamp is for rounding alone.
        return (originals + self.shrink(pictures.clamp(0, 1) - originals)).clamp(0, 1)

    def noise(self, originals: Tensor, seed: int = 0) -> Tensor:
        """``originals`` moved by ``epsilon`` in a random direction: what every attack has to be better than."""
        random = torch.randn(originals.shape, generator=torch.Generator().manual_seed(seed)).to(originals)
        return self.project(originals + self.epsilon * self.steepest(random), originals)

    def check(self, pictures: Tensor, originals: Tensor) -> None:
        """Raise ValueError unless all ``pictures`` are allowed."""
        check_range(pictures)
        if not (largest := self.size(pictures - originals).max().item()) <= self.epsilon + 1e-5:
            raise ValueError(f"a picture moved by {largest:.4g} in {self.norm}, and {self.epsilon:.4g} is allowed")


def check_range(pictures: Tensor) -> None:
    """Raise ValueError unless ``pictures`` is a batch (N, C, H, W) in [0, 1]."""
    if pictures.ndim != 4 or not len(pictures):
        raise ValueError(f"a batch (N, C, H, W) of pictures is needed, not {tuple(pictures.shape)}")
    if not (pictures.min() >= 0 and pictures.max() <= 1):
        raise ValueError(f"pixels run from 0 to 1, not from {pictures.min():.4g} to {pictures.max():.4g}")


# --- what an attacker wants ---------------------------------------------------------------------------------------


def untargeted(model: Model, labels: Tensor) -> Evaluate:
    """Minimized when the model is wrong: minus the cross-entropy of the true ``labels`` (N,)."""
    return partial(_weighted_cross_entropy, model, labels, -1.0)


def targeted(model: Model, classes: Tensor) -> Evaluate:
    """Minimized when the model sees what the attacker wants: the cross-entropy of the wanted ``classes`` (N,)."""
    return partial(_weighted_cross_entropy, model, classes, 1.0)


@arithmetic()
@torch.enable_grad()
def _weighted_cross_entropy(model: Model, classes: Tensor, weight: float, pictures: Tensor) -> Evaluation:
    pictures = pictures.detach().requires_grad_()
    loss = weight * cross_entropy(logits_of(model, pictures), classes)
    (gradient,) = torch.autograd.grad(loss.sum(), pictures)
    return Evaluation(loss.detach(), {("cross_entropy", ""): loss.detach()}, gradient)


def cross_entropy(logits: Tensor, classes: Tensor) -> Tensor:
    """The cross-entropy (N,) of each picture, its class checked."""
    return F.cross_entropy(logits, class_indices(classes, logits), reduction="none")


# --- attacks along a gradient: the one loop -----------------------------------------------------------------------


class _Nearby(Pixels):
    """Pictures as parameters: they step in the threat's steepest direction and are kept near their originals."""

    def __init__(self, originals: Tensor, threat: Threat, seed: int | None = None):
        check_range(originals)
        super().__init__(originals if seed is None else threat.noise(originals, seed))
        self.originals, self.threat = originals, threat

    def backward(self, gradient: Tensor) -> None:
        self.tensor.grad = self.threat.steepest(gradient)

    def project(self) -> None:
        self.tensor.copy_(self.threat.project(self.tensor, self.originals))


def attacking(
    evaluate: Evaluate,
    pictures: Tensor,
    threat: Threat,
    *,
    steps: int = 20,
    step_size: float | None = None,
    seed: int | None = None,
) -> Iterator[Progress]:
    """Projected gradient descent (Madry et al. 2018, arXiv:1706.06083), yielding `Progress` after every step.

    Args:
        evaluate: what is minimized.
        pictures: (N, C, H, W) in [0, 1].
        step_size: the norm of a step; None: ``2.5 * epsilon / steps``, so that every allowed picture is in reach.
        seed: of a random start as far away as allowed; None starts at the pictures.
    """
    check_numbers(1, Integral, most=10_000, steps=steps)
    step_size = 2.5 * threat.epsilon / steps if step_size is None else step_size
    check_numbers(0, step_size=step_size)
    pixels = _Nearby(pictures, threat, seed)
    optimizer = make_optimizer("ascent", pixels.parameters, step_size)
    return descend(single_stage(size_of(pictures), steps, home=pictures.device), pixels, evaluate, optimizer)


def pgd(evaluate: Evaluate, pictures: Tensor, threat: Threat, **options: Any) -> Tensor:
    """Attack to the end and return the attacked pictures (N, C, H, W). Arguments: see `attacking`."""
    return deque(attacking(evaluate, pictures, threat, **options), maxlen=1).pop().pixels


def fgsm(evaluate: Evaluate, pictures: Tensor, threat: Threat) -> Tensor:
    """The fast gradient sign method (Goodfellow et al. 2015, arXiv:1412.6572): one step of full size.

    Example:
        >>> fooling = untargeted(torch.nn.Flatten(), torch.tensor([0]))  # four pixels are four logits
        >>> fgsm(fooling, torch.full((1, 1, 2, 2), 0.5), Threat("linf", 0.1)).flatten()
        tensor([0.4000, 0.6000, 0.6000, 0.6000])
    """
    return pgd(evaluate, pictures, threat, steps=1, step_size=threat.epsilon)


def deepfool(model: Model, pictures: Tensor, *, steps: int = 50, overshoot: float = 0.02, classes: int = 10) -> Tensor:
    """The nearest pictures, in l2, that the model names differently (Moosavi-Dezfooli et al. 2016, arXiv:1511.04599).

    Each step goes to the nearest boundary of the model made linear; after the last a picture may still have its name.

    Args:
        overshoot: how much further than the boundary a step goes, as a share of it.
        classes: only so many, those with the highest logits at the start, are tried: each costs a backward pass.
    """
    check_numbers(1, Integral, most=10_000, steps=steps)
    check_numbers(2, Integral, most=100_000, classes=classes)
    check_numbers(0, overshoot=overshoot)
    check_range(pictures)
    moved, rows = pictures.clone(), torch.arange(len(pictures), device=pictures.device)
    with torch.no_grad():
        candidates = logits_of(model, pictures).sort(dim=1, descending=True, stable=True).indices[:, :classes]
    if candidates.shape[1] < 2:
        raise ValueError("DeepFool crosses the boundary between two classes: a model with one logit has none")
    for _ in range(steps):
        names, logits, slopes = _linearized(model, moved, candidates)
        unfooled = names == candidates[:, 0]
        if not unfooled.any():
            break
        gaps, slopes = logits[:, :1] - logits, slopes - slopes[:, :1]  # of the first to each class
        lengths = slopes.norm(dim=2).clamp_min(1e-12)
        nearest = (gaps / lengths)[:, 1:].argmin(1) + 1
        gap, slope, length = (values[rows, nearest] for values in (gaps, slopes, lengths))
        distance = (1 + overshoot) * (gap / length + 1e-6)
        step = ((distance / length)[:, None] * slope).view_as(moved)
        moved = torch.where(unfooled[:, None, None, None], (moved + step).clamp(0, 1), moved)
    return moved


@arithmetic()
@torch.enable_grad()
def _linearized(model: Model, pictures: Tensor, classes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The names (N,) of pictures, the logits (N, k) of each one's ``classes``, their gradients (N, k, C * H * W)."""
    pictures = pictures.detach().requires_grad_()
    logits = logits_of(model, pictures)
    chosen = logits.gather(1, classes)
    slopes = [torch.autograd.grad(logit.sum(), pictures, retain_graph=True)[0].flatten(1) for logit in chosen.T]
    return logits.argmax(1), chosen.detach(), torch.stack(slopes, 1)
