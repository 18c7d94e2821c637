"""Adversarial attacks that know the model: small changes of pictures that mislead it.

A ``model`` is anything that takes pictures (N, C, H, W) in [0, 1] to logits (N, K): a module, or `Backbone.logits`.
It may sit on another device: its answers are brought home to the pictures, where everything else is computed.
What an attack minimizes is what `descend` minimizes everywhere: an ``evaluate(pictures)`` that returns an
`Evaluation`. `untargeted` and `targeted` make one from a model, and an `Evaluator` of losses is one.

>>> threat = Threat("linf", 8 / 255)
>>> fooling = pgd(untargeted(model, labels), pictures, threat)
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from ..base.checks import check_numbers
from ..base.devices import arithmetic
from ..engine.evaluator import Evaluation
from ..engine.optimization import descend, make_optimizer
from ..engine.parameters import Pixels
from ..engine.progress import Progress
from ..engine.runs import single_stage
from ..pictures.geometry import size_of

Model: TypeAlias = Callable[[Tensor], Tensor]
Evaluate: TypeAlias = Callable[[Tensor], Evaluation]


# --- what an attacker may do --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Threat:
    """A threat model: pixels stay in [0, 1], and a picture moves by at most ``epsilon`` in a norm.

    ``norm``: "linf", the largest change of a pixel, or "l2", the Euclidean length of the change of a whole picture.
    """

    norm: str
    epsilon: float

    def __post_init__(self) -> None:
        if self.norm not in ("linf", "l2"):
            raise ValueError(f"the norm of a threat is linf or l2, not {self.norm!r}")
        check_numbers(0, epsilon=self.epsilon)
        if self.norm == "linf" and self.epsilon > 1:
            raise ValueError(f"pixels run from 0 to 1, so epsilon is at most 1, not {self.epsilon}: 8 levels are 8/255")

    def size(self, change: Tensor) -> Tensor:
        """The norm (N,) of changes (N, C, H, W)."""
        return torch.linalg.vector_norm(change, math.inf if self.norm == "linf" else 2, dim=(1, 2, 3))

    def steepest(self, gradient: Tensor) -> Tensor:
        """The change of norm 1 along which a function with this gradient rises fastest; 0 where the gradient is 0."""
        if self.norm == "linf":
            return gradient.sign()
        return gradient / broadcast_batch(self.size(gradient).clamp_min(1e-30))

    def shrink(self, change: Tensor) -> Tensor:
        """The nearest change of a norm of at most ``epsilon``."""
        if self.norm == "linf":
            return change.clamp(-self.epsilon, self.epsilon)
        return change * broadcast_batch((self.epsilon / self.size(change).clamp_min(1e-30)).clamp_max(1))

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


def broadcast_batch(values: Tensor) -> Tensor:
    """Values (N,) as (N, 1, 1, 1), one for each picture."""
    return values.view(-1, 1, 1, 1)


@arithmetic()
def home_logits(model: Model, pictures: Tensor) -> Tensor:
    """The logits (N, K) of pictures, on their device, wherever the model computes."""
    return model(pictures).to(pictures.device)


def batched_logits(model: Model, pictures: Tensor, batch: int = 64) -> Tensor:
    """The same, but it is asked about ``batch`` pictures at a time."""
    return torch.cat([home_logits(model, part) for part in pictures.split(batch)])


# --- what an attacker wants ---------------------------------------------------------------------------------------


def untargeted(model: Model, labels: Tensor) -> Evaluate:
    """Minimized when the model is wrong: minus the cross-entropy of the true ``labels`` (N,)."""
    return partial(_cross_entropy, model, labels, -1.0)


def targeted(model: Model, classes: Tensor) -> Evaluate:
    """Minimized when the model sees what the attacker wants: the cross-entropy of the wanted ``classes`` (N,)."""
    return partial(_cross_entropy, model, classes, 1.0)


@arithmetic()
def _cross_entropy(model: Model, classes: Tensor, weight: float, pictures: Tensor) -> Evaluation:
    pictures = pictures.detach().requires_grad_()
    with torch.enable_grad():
        loss = weight * cross_entropy(home_logits(model, pictures), classes)
        (gradient,) = torch.autograd.grad(loss.sum(), pictures)
    return Evaluation(loss.detach(), {("cross_entropy", ""): loss.detach()}, gradient)


def cross_entropy(logits: Tensor, classes: Tensor) -> Tensor:
    """The cross-entropy (N,) of each picture, its class checked."""
    if len(classes) != len(logits):
        raise ValueError(f"{len(logits)} pictures need as many classes, not {len(classes)}")
    kinds = logits.shape[1]
    if classes.min() < 0 or classes.max() >= kinds:
        raise ValueError(f"classes run from 0 to {kinds - 1}; there are {classes.min()} to {classes.max()}")
    return F.cross_entropy(logits, classes.to(logits.device), reduction="none")


# --- attacks along a gradient: the one loop -----------------------------------------------------------------------


class Nearby(Pixels):
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

    evaluate: what is minimized.
    pictures: (N, C, H, W) in [0, 1].
    step_size: the norm of a step; None: ``2.5 * epsilon / steps``, so that every allowed picture is in reach.
    seed: of a random start as far away as allowed; None starts at the pictures.
    """
    check_numbers(1, Integral, steps=steps)
    step_size = 2.5 * threat.epsilon / steps if step_size is None else step_size
    check_numbers(0, step_size=step_size)
    pixels = Nearby(pictures, threat, seed)
    optimizer = make_optimizer("ascent", pixels.parameters, step_size)
    stage = single_stage(size_of(pictures), steps, home=pictures.device)
    return descend(stage, pixels, evaluate, optimizer)


def pgd(evaluate: Evaluate, pictures: Tensor, threat: Threat, **options: Any) -> Tensor:
    """Attack to the end and return the attacked pictures (N, C, H, W). Arguments: see `attacking`."""
    return deque(attacking(evaluate, pictures, threat, **options), maxlen=1).pop().pixels


def fgsm(evaluate: Evaluate, pictures: Tensor, threat: Threat) -> Tensor:
    """The fast gradient sign method (Goodfellow et al. 2015, arXiv:1412.6572): one step of full size."""
    return pgd(evaluate, pictures, threat, steps=1, step_size=threat.epsilon)


def deepfool(model: Model, pictures: Tensor, *, steps: int = 50, overshoot: float = 0.02, classes: int = 10) -> Tensor:
    """The nearest pictures, in l2, that the model names differently (Moosavi-Dezfooli et al. 2016, arXiv:1511.04599).

    Each step goes to the nearest boundary of the model made linear, and ``overshoot`` of it beyond. A picture that
    keeps its name for all ``steps`` is returned as far as it came. As in the authors' code, only the ``classes`` with
    the highest logits at the start, its own among them, are tried: each costs a backward pass.
    """
    check_numbers(1, Integral, steps=steps)
    check_numbers(2, Integral, classes=classes)
    check_numbers(0, overshoot=overshoot)
    check_range(pictures)
    found, rows = pictures.clone(), torch.arange(len(pictures), device=pictures.device)
    with torch.no_grad():
        tried = home_logits(model, pictures).sort(dim=1, descending=True, stable=True).indices[:, :classes]
    if tried.shape[1] < 2:
        raise ValueError("DeepFool crosses the boundary between two classes: a model with one logit has none")
    for _ in range(steps):
        names, logits, slopes = _linearized(model, found, tried)
        keeping = names == tried[:, 0]
        if not keeping.any():
            break
        gaps = logits[:, :1] - logits  # how far each class is behind
        slopes = slopes - slopes[:, :1]
        lengths = slopes.norm(dim=2).clamp_min(1e-12)
        nearest = (gaps / lengths)[:, 1:].argmin(1) + 1
        gap, slope, length = (values[rows, nearest] for values in (gaps, slopes, lengths))
        distance = (1 + overshoot) * (gap / length + 1e-6)
        step = (distance / length)[:, None] * slope
        found = torch.where(broadcast_batch(keeping), (found + step.view_as(found)).clamp(0, 1), found)
    return found


@arithmetic()
def _linearized(model: Model, pictures: Tensor, classes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The names (N,) of pictures, the logits (N, k) of each one's ``classes``, their gradients (N, k, C * H * W)."""
    pictures = pictures.detach().requires_grad_()
    with torch.enable_grad():
        logits = home_logits(model, pictures)
        chosen = logits.gather(1, classes)
        slopes = [torch.autograd.grad(one.sum(), pictures, retain_graph=True)[0].flatten(1) for one in chosen.T]
    return logits.argmax(1), chosen.detach(), torch.stack(slopes, 1)
