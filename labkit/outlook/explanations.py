"""Which pixels made the network say that? Explanations by gradient, and how to mark them.

Everything here explains a *score*: a function from pictures (N, 3, H, W), or any other batch, to one number each (N,).
The explanation by removing parts instead of differentiating is in `perturb`.

>>> score = class_score(network, "Egyptian cat")
>>> evidence = integrated_gradients(score, photo).sum(1, keepdim=True)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base.devices import arithmetic
from ..networks.backbone import Backbone
from ..pictures.color import heat, luma

Score: TypeAlias = Callable[[Tensor], Tensor]
SCALES: Mapping[str, Score] = {
    "logit": lambda logits: logits,
    "log": lambda logits: logits.log_softmax(1),
    "probability": lambda logits: logits.softmax(1),
}


def class_score(model: Backbone | Score, target: int | str | Tensor, scale: str = "logit") -> Score:
    """The score of a class, as a function of a batch, on the batch's device.

    ``model`` gives class logits (N, classes). ``target``: the class of all pictures, by number or, for a `Backbone`, by
    name; or a tensor (N,) with the class of each one. ``scale``: "logit"; "log", the logarithm of the probability,
    which unlike the logit forgets what speaks for all classes alike; or "probability". Raises ValueError for a class or
    a scale that does not exist.
    """
    if scale not in SCALES:
        raise ValueError(f"a score is a {', '.join(SCALES)}, not {scale!r}")
    logits = model.logits if isinstance(model, Backbone) else model
    if isinstance(target, str):
        if not isinstance(model, Backbone):
            raise ValueError(f"only a backbone knows its classes by name: give a number instead of {target!r}")
        target = model.class_index(target)

    def score(inputs: Tensor) -> Tensor:
        with arithmetic():
            found = logits(inputs)
        wanted = torch.as_tensor(target, device=found.device).expand(len(found))
        if wanted.min() < 0 or wanted.max() >= found.shape[1]:
            raise ValueError(f"there is no class {target}: they run from 0 to {found.shape[1] - 1}")
        return SCALES[scale](found).gather(1, wanted[:, None])[:, 0].to(inputs.device)

    return score


# --- gradients ---------------------------------------------------------------------------------------------------


@arithmetic()
def gradient(score: Score, inputs: Tensor) -> Tensor:
    """How much the score of each input grows with each of its numbers: the saliency of Simonyan et al. 2014."""
    inputs = inputs.detach().requires_grad_()
    return torch.autograd.grad(score(inputs).sum(), inputs)[0]


def smoothgrad(
    score: Score, inputs: Tensor, noise: float = 0.1, samples: int = 25, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Mean and variance of the gradient over ``samples`` copies with Gaussian noise of standard deviation ``noise``.

    The mean is SmoothGrad (Smilkov et al. 2017, arXiv:1706.03825); the variance is VarGrad (Adebayo et al. 2018).
    """
    if samples < 2 or noise < 0:
        raise ValueError(f"a variance needs two samples and noise of at least 0, not {samples} and {noise}")
    random = torch.Generator().manual_seed(seed)
    gradients = []
    for _ in range(samples):
        shift = noise * torch.randn(inputs.shape, generator=random).to(inputs)
        gradients.append(gradient(score, inputs + shift))
    variance, mean = torch.var_mean(torch.stack(gradients), 0)
    return mean, variance


def integrated_gradients(score: Score, inputs: Tensor, baseline: Tensor | float = 0.5, steps: int = 64) -> Tensor:
    """The share that each number has in score(inputs) - score(baseline) (Sundararajan et al. 2017, arXiv:1703.01365).

    The gradient is averaged along the straight line from ``baseline`` (a number, or a batch like ``inputs``) by the
    midpoint rule with ``steps`` points, and multiplied by the difference. The shares then add up to that of the scores.
    """
    if steps < 1:
        raise ValueError(f"a path needs at least one step, not {steps}")
    difference = inputs - baseline
    total = torch.zeros_like(inputs)
    for k in range(steps):
        total += gradient(score, baseline + (k + 0.5) / steps * difference)
    return total / steps * difference


@arithmetic()
def grad_cam(
    network: Backbone, layer: str, target: int | str | Tensor, pictures: Tensor, scale: str = "logit"
) -> Tensor:
    """Where ``layer`` found evidence for a class: a map (N, 1, H, W), not negative (Selvaraju et al. 2017).

    The features are added up with weights, the mean gradient of the score over each channel (arXiv:1610.02391); what is
    positive is enlarged to the size of the pictures. ``target`` and ``scale`` as in `class_score`.
    """
    found: dict[str, Tensor] = {}

    def logits(inputs: Tensor) -> Tensor:
        found.update(network.features(inputs, [layer, "logits"]))
        return found["logits"]

    if layer == "logits":
        raise ValueError(f"the logits have no places: choose one of the layers {', '.join(network.names)}")
    named = network.class_index(target) if isinstance(target, str) else target
    score = class_score(logits, named, scale)(pictures.detach().requires_grad_())
    (slope,) = torch.autograd.grad(score.sum(), found[layer])
    cam = (slope.mean((2, 3), keepdim=True) * found[layer]).sum(1, keepdim=True).relu().detach()
    return F.interpolate(cam, pictures.shape[-2:], mode="bilinear").to(pictures.device)


@contextmanager
def guided(model: nn.Module) -> Iterator[None]:
    """Within this context a gradient flows back through a ReLU only where it is positive: guided backpropagation.

    Springenberg et al. 2015 (arXiv:1412.6806). Pretty, and no explanation: it hardly asks the weights.
    """
    relus = [module for module in model.modules() if isinstance(module, nn.ReLU)]
    if not relus:
        raise ValueError("there is no ReLU module to guide: guided backpropagation changes nothing here")
    inplace = [relu.inplace for relu in relus]
    hooks = [relu.register_full_backward_hook(lambda _relu, into, _out: (into[0].clamp_min(0),)) for relu in relus]
    for relu in relus:
        relu.inplace = False  # which such hooks do not allow
    try:
        yield
    finally:
        for relu, before in zip(relus, inplace, strict=True):
            relu.inplace = before
        for hook in hooks:
            hook.remove()


# --- marking an explanation --------------------------------------------------------------------------------------


def randomized(network: Backbone, down_to: str | None = None, seed: int = 0) -> Backbone:
    """A copy whose weights are shuffled, for the sanity check of Adebayo et al. 2018 (arXiv:1810.03292).

    The head and all layers from the deepest ``down_to`` a named one (None: all); each tensor keeps its numbers in
    another order. An explanation that looks the same on this copy does not depend on what the network has learned.
    """
    if down_to is not None:
        network.check_layers([down_to])
    copy, random = deepcopy(network), torch.Generator().manual_seed(seed)
    for weights in copy.parameters_from(down_to):
        order = torch.randperm(weights.numel(), generator=random).to(weights.device)
        weights.data.copy_(weights.flatten()[order].view_as(weights))
    return copy


def pointing_game(maps: Tensor, masks: Tensor) -> float:
    """The share of maps (N, 1, H, W) whose highest value lies in its mask (Zhang et al. 2016, arXiv:1608.00507)."""
    _check_maps(maps, masks)
    return masks.flatten(1).gather(1, maps.flatten(1).argmax(1, keepdim=True)).float().mean().item()


def mass_inside(maps: Tensor, masks: Tensor) -> float:
    """The share of a map's positive values that lies in its mask, averaged over maps (N, 1, H, W); an empty one: 0."""
    _check_maps(maps, masks)
    positive = maps.clamp_min(0)
    return ((positive * masks).sum((1, 2, 3)) / positive.sum((1, 2, 3)).clamp_min(1e-20)).mean().item()


def deletion_curve(
    score: Score, pictures: Tensor, maps: Tensor, replacement: Tensor | float, steps: int = 20, until: float = 1.0
) -> Tensor:
    """The mean score (steps + 1,) while pixels give way to ``replacement``, the highest of the map first.

    From no pixel to the share ``until`` of them, in equal steps (Petsiuk et al. 2018, arXiv:1806.07421). A good
    explanation makes the curve fall early. With pictures and replacement exchanged it is the insertion curve, which
    should rise.
    """
    if steps < 1 or not 0 < until <= 1:
        raise ValueError(f"at least one step and a share in (0, 1] are needed, not {steps} and {until}")
    replacement = torch.as_tensor(replacement, dtype=maps.dtype).to(maps)
    _check_maps(maps, pictures if pictures.ndim else replacement)
    rank = maps.flatten(1).argsort(1, descending=True).argsort(1).view_as(maps)
    curve = []
    with torch.no_grad():
        for share in torch.linspace(0, until, steps + 1):
            gone = rank < (share * rank[0].numel()).round()
            curve.append(score(torch.where(gone, replacement, pictures)).mean())
    return torch.stack(curve)


def _check_maps(maps: Tensor, other: Tensor) -> None:
    if maps.ndim != 4 or maps.shape[1] != 1 or (len(maps), *maps.shape[2:]) != (len(other), *other.shape[2:]):
        raise ValueError(
            f"maps of shape (N, 1, H, W) are needed, one for each picture and of its size, not {tuple(maps.shape)} for "
            f"{tuple(other.shape)}: add up the colors with .sum(1, keepdim=True)"
        )


def overlay(picture: Tensor, maps: Tensor, clip: float = 0.99) -> Tensor:
    """The positive values of maps (N, 1, h, w) as glowing colors on the gray, darkened picture: (N, 3, H, W).

    Maps of another size are enlarged to that of the picture (1, 3, H, W). Each one is scaled on its own: the quantile
    ``clip`` of its positive values is the brightest. An empty map leaves the picture gray.
    """
    if maps.ndim != 4 or maps.shape[1] != 1 or len(picture) != 1:
        raise ValueError(f"one picture and maps of shape (N, 1, h, w) are needed, not {tuple(maps.shape)}")
    if maps.shape[2:] != picture.shape[2:]:
        maps = F.interpolate(maps, picture.shape[2:], mode="bilinear")
    positive = maps.detach().clamp_min(0)
    top = torch.stack([one[one > 0].quantile(clip) if (one > 0).any() else one.new_ones(()) for one in positive])
    m = (positive / top.view(-1, 1, 1, 1)).clamp(0, 1).sqrt()  # the root lifts faint values
    return (0.6 * luma(picture) * (1 - m**2) + m * heat(m).to(m)).clamp(0, 1)
