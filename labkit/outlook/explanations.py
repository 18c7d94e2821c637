"""Which pixels made the network say that? Explanations by gradient, and how to mark them.

Everything here explains a *score*: a function from pictures (N, 3, H, W), or any other batch, to one number each (N,).
The explanation by removing parts instead of differentiating is in `perturbations`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from numbers import Integral
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from ..base.checks import check_choice, check_numbers
from ..base.devices import arithmetic
from ..networks.backbone import Backbone
from ..pictures.color import heat, luma
from .classifiers import Model, class_indices, logits_of

Score: TypeAlias = Callable[[Tensor], Tensor]
Scale: TypeAlias = Literal["logit", "log", "probability"]
SCALES: Mapping[Scale, Score] = {
    "logit": lambda logits: logits,
    "log": lambda logits: logits.log_softmax(1),
    "probability": lambda logits: logits.softmax(1),
}


def class_score(model: Model, target: int | str | Tensor, scale: Scale = "logit") -> Score:
    """The score of a class, as a function of a batch, on the batch's device.

    Args:
        model: gives class logits (N, classes).
        target: the class of all pictures, by number or, for a `Backbone`, by name; or (N,), the class of each one.
        scale: "log", the logarithm of the probability, unlike the logit forgets what speaks for all classes alike.

    Raises:
        ValueError: for a class or a scale that does not exist.

    Example:
        >>> class_score(torch.nn.Flatten(), 1, "probability")(torch.zeros(2, 1, 1, 4))
        tensor([0.2500, 0.2500])
    """
    check_choice("scale", scale, Scale)
    if isinstance(target, str):
        if not isinstance(model, Backbone):
            raise ValueError(f"only a backbone knows its classes by name: give a number instead of {target!r}")
        target = model.class_index(target)

    def score(inputs: Tensor) -> Tensor:
        logits = logits_of(model, inputs)
        return SCALES[scale](logits).gather(1, class_indices(target, logits)[:, None])[:, 0]

    return score


# --- gradients ---------------------------------------------------------------------------------------------------


@arithmetic()
def gradient(score: Score, inputs: Tensor) -> Tensor:
    """How much the score of each input grows with each of its numbers: the saliency of Simonyan et al. 2014.

    Example:
        >>> gradient(lambda x: (x**2).sum(1), torch.tensor([[1.0, 3.0]]))
        tensor([[2., 6.]])
    """
    inputs = inputs.detach().requires_grad_()
    return torch.autograd.grad(score(inputs).sum(), inputs)[0]


def smoothgrad(
    score: Score, inputs: Tensor, noise: float = 0.1, samples: int = 25, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Mean and variance of the gradient over ``samples`` copies with Gaussian noise of standard deviation ``noise``.

    The mean is SmoothGrad (Smilkov et al. 2017, arXiv:1706.03825); the variance is VarGrad (Adebayo et al. 2018).
    """
    check_numbers(2, Integral, most=100_000, samples=samples)
    check_numbers(0, noise=noise)
    random = torch.Generator().manual_seed(seed)
    shifts = (noise * torch.randn(inputs.shape, generator=random).to(inputs) for _ in range(samples))
    variance, mean = torch.var_mean(torch.stack([gradient(score, inputs + shift) for shift in shifts]), 0)
    return mean, variance


def integrated_gradients(score: Score, inputs: Tensor, baseline: Tensor | float = 0.5, steps: int = 64) -> Tensor:
    """The share that each number has in score(inputs) - score(baseline) (Sundararajan et al. 2017, arXiv:1703.01365).

    The gradient is averaged along the straight line from ``baseline`` (a number, or a batch like ``inputs``) by the
    midpoint rule with ``steps`` points, and multiplied by the difference. The shares then add up to that of the scores.

    Example:
        >>> integrated_gradients(lambda x: x[:, 0] * x[:, 1], torch.tensor([[3.0, 2.0]]), 0.0)
        tensor([[3., 3.]])
    """
    check_numbers(1, Integral, most=100_000, steps=steps)
    difference = inputs - baseline
    path = (baseline + (k + 0.5) / steps * difference for k in range(steps))
    return sum((gradient(score, point) for point in path), torch.zeros_like(inputs)) / steps * difference


@arithmetic()
def grad_cam(
    network: Backbone, layer: str, target: int | str | Tensor, pictures: Tensor, scale: Scale = "logit"
) -> Tensor:
    """Where ``layer`` has evidence for a class: a map (N, 1, H, W), not negative (Selvaraju et al. 2017).

    The features are added up with weights, the mean gradient of the score over each channel (arXiv:1610.02391); what is
    positive is enlarged to the size of the pictures. ``target`` and ``scale`` as in `class_score`.
    """
    if layer == "logits":
        raise ValueError(f"the logits have no places: choose one of the layers {', '.join(network.names)}")
    features = network.features(pictures.detach().requires_grad_(), [layer, "logits"])
    target = network.class_index(target) if isinstance(target, str) else target
    score = class_score(lambda logits: logits, target, scale)(features["logits"])
    (slope,) = torch.autograd.grad(score.sum(), features[layer])
    cam = (slope.mean((2, 3), keepdim=True) * features[layer]).sum(1, keepdim=True).relu().detach()
    return nn.functional.interpolate(cam, pictures.shape[-2:], mode="bilinear")


@contextmanager
def guided(model: nn.Module) -> Iterator[None]:
    """Within this context a gradient flows back through a ReLU only where it is positive: guided backpropagation.

    Springenberg et al. 2015 (arXiv:1412.6806). Pretty, and no explanation: it hardly asks the weights.
    """
    relus = [module for module in model.modules() if isinstance(module, nn.ReLU)]
    if not relus:
        raise ValueError("there is no ReLU module to guide: guided backpropagation changes nothing here")

    def guide(relu: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(lambda gradient: gradient.clamp_min(0))

    with ExitStack() as hooks:
        for relu in relus:
            hooks.enter_context(relu.register_forward_hook(guide))
        yield


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


@torch.no_grad()
def deletion_curve(
    score: Score, pictures: Tensor, maps: Tensor, replacement: Tensor | float, steps: int = 20, until: float = 1.0
) -> Tensor:
    """The mean score (steps + 1,) while pixels give way to ``replacement``, the highest of the map first.

    From no pixel to the share ``until`` of them, in equal steps (Petsiuk et al. 2018, arXiv:1806.07421). It should fall
    early; with pictures and replacement exchanged it is the insertion curve, which should rise.
    """
    check_numbers(1, Integral, most=100_000, steps=steps)
    check_numbers(1e-9, most=1.0, until=until)
    replacement = torch.as_tensor(replacement, dtype=maps.dtype).to(maps)
    _check_maps(maps, pictures if pictures.ndim else replacement)
    rank = maps.flatten(1).argsort(1, descending=True).argsort(1).view_as(maps)
    counts = (torch.linspace(0, until, steps + 1) * rank[0].numel()).round()
    return torch.stack([score(torch.where(rank < count, replacement, pictures)).mean() for count in counts])


def _check_maps(maps: Tensor, other: Tensor) -> None:
    if maps.ndim != 4 or maps.shape[1] != 1 or (len(maps), *maps.shape[2:]) != (len(other), *other.shape[2:]):
        shapes = f"{tuple(maps.shape)} for {tuple(other.shape)}: add up the colors with .sum(1, keepdim=True)"
        raise ValueError(f"maps of shape (N, 1, H, W), one for each picture and of its size, are needed, not {shapes}")


def overlay(picture: Tensor, maps: Tensor, clip: float = 0.99) -> Tensor:
    """The positive values of maps (N, 1, h, w) as glowing colors on the gray, darkened picture: (N, 3, H, W).

    Maps of another size are enlarged to that of the picture (1, 3, H, W). Each one is scaled on its own: the quantile
    ``clip`` of its positive values is the brightest. An empty map leaves the picture gray.
    """
    if maps.ndim != 4 or maps.shape[1] != 1 or len(picture) != 1:
        raise ValueError(f"one picture and maps of shape (N, 1, h, w) are needed, not {tuple(maps.shape)}")
    if maps.shape[2:] != picture.shape[2:]:
        maps = nn.functional.interpolate(maps, picture.shape[2:], mode="bilinear")
    positive = maps.detach().clamp_min(0)
    rows = [row[row > 0] for row in positive.flatten(1)]
    top = torch.stack([row.quantile(clip) if len(row) else row.new_ones(()) for row in rows])
    m = (positive / top.view(-1, 1, 1, 1)).clamp(0, 1).sqrt()  # the root lifts faint values
    return (0.6 * luma(picture) * (1 - m**2) + m * heat(m).to(m)).clamp(0, 1)
