"""Pictures from nothing: what a channel, a class or a painting's texture looks like to a network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from numbers import Integral
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..base.checks import MOST_SIDE, MOST_STEPS, check_numbers
from ..base.deterministic import sampled
from ..base.devices import Precision
from ..engine.evaluator import Evaluation, Evaluator
from ..engine.optimization import descend, make_optimizer
from ..engine.parameters import Kind, make_parameterization
from ..engine.progress import Progress, finished, with_bar
from ..engine.runs import Saved, digest, single_stage
from ..losses.algebra import Loss
from ..networks.backbone import Backbone
from ..networks.zoo import load_backbone
from ..pictures.geometry import resize
from ..pictures.reading import PictureLike, as_picture


def creating(
    loss: Loss,
    *,
    backbone: str | Backbone = "pocket",
    size: int | tuple[int, int] = 192,
    variations: int = 1,
    parameterization: Kind = "fourier",
    init: PictureLike | None = None,
    steps: int = 200,
    learning_rate: float | None = None,
    jitter: float = 8.0,
    zoom: float = 0.1,
    rotate: float = 10.0,
    decay: float = 1.0,
    seed: int = 0,
    device: str | torch.device | None = None,
    precision: Precision = "auto",
    resume: Saved = None,
    progress: bool | None = None,
) -> Iterator[Progress]:
    """Minimize a loss from noise, yielding `Progress` after every step (Olah, Mordvintsev and Schubert 2017).

    Args:
        loss: what the picture should be: ``-lk.activation("relu4_3", channel=7, power=1)``, ``-lk.class_logit(1)``,
            ``lk.style(painting)`` (texture synthesis, Gatys et al. 2015), or any sum.
        backbone: a name or a loaded network.
        size: height and width, or the side of a square, in pixels.
        variations: how many pictures, as one batch.
        parameterization: "fourier", "laplacian", "cppn" or "pixels" (see `labkit.engine.parameters`).
        init: a picture to start from instead of noise (not for "cppn").
        steps: of Adam.
        learning_rate: None for 0.05, for a CPPN 0.005, for pixels 0.02.
        jitter, zoom, rotate: before every step each picture is shifted by up to ``jitter`` pixels, enlarged or shrunk
            by up to the share ``zoom`` and turned by up to ``rotate`` degrees: only what survives is built up.
        decay: the power of the frequency by which fine detail starts smaller and grows slower ("fourier").
        seed: of the noise and of the movements.
        device, precision: see `load_backbone` and `pick_precision`.
        resume: what `Progress.state_dict` returned or `Progress.save` wrote in a run with the same arguments.
        progress: show a progress bar; None: `create` does, `creating` does not.

    Raises:
        ValueError: for arguments that make no sense, saying what would; at the call, not at the first step.
    """
    check_numbers(1, Integral, most=MOST_STEPS, steps=steps)
    check_numbers(0, most=10_000, jitter=jitter, rotate=rotate, decay=decay)
    height, width = (size, size) if isinstance(size, int) else size
    check_numbers(0, most=0.99, zoom=zoom)
    check_numbers(1, Integral, most=MOST_SIDE, height=height, width=width, variations=variations)
    network = load_backbone(backbone, device)
    generator = torch.Generator().manual_seed(seed)
    shape, whole = (variations, 3, height, width), (height, width)
    start = None if init is None else resize(as_picture(init), whole).expand(shape).to(network.device)
    picture = make_parameterization(parameterization, shape, start, decay, generator, network.device)
    if learning_rate is None:
        learning_rate = {"cppn": 0.005, "pixels": 0.02}.get(parameterization, 0.05)
    check_numbers(0, learning_rate=learning_rate)

    @cache
    def identity() -> dict[str, Any]:
        known = {"loss": repr(loss), "network": digest(network), "shape": shape, "seed": seed}
        return known | {"parameterization": parameterization}

    stage = single_stage(whole, steps, resume=resume, identity=identity)
    evaluator = Evaluator(network, loss, whole, precision)
    evaluate = randomly_transformed(evaluator, jitter=jitter, zoom=zoom, rotate=rotate, generator=generator)
    optimizer, plan = make_optimizer("adam", picture.parameters, learning_rate), evaluator.plan(whole)
    return with_bar(descend(stage, picture, evaluate, optimizer, generator=generator, plan=plan), progress)


create = finished(creating, "Create to the end and return the pictures (N, 3, H, W), on the CPU.")


# --- transformation robustness --------------------------------------------------------------------------------------


def randomly_transformed(
    evaluate: Callable[[Tensor], Evaluation],
    *,
    jitter: float,
    zoom: float,
    rotate: float,
    generator: torch.Generator | None = None,
) -> Callable[[Tensor], Evaluation]:
    """``evaluate`` on pictures that are shifted, zoomed and turned at random, and the gradient of the unmoved ones."""

    def transformed(picture: Tensor) -> Evaluation:
        with torch.enable_grad():
            still = picture.detach().requires_grad_()
            grid = F.affine_grid(movements(still, jitter, zoom, rotate, generator), list(still.shape), False)
            moved = sampled(still, grid)
        evaluation = evaluate(moved.detach())
        (gradient,) = torch.autograd.grad(moved, still, evaluation.gradient)
        return replace(evaluation, gradient=gradient)

    return transformed


def movements(pictures: Tensor, jitter: float, zoom: float, rotate: float, generator: torch.Generator | None) -> Tensor:
    """Random affine maps (N, 2, 3) in the coordinates of `affine_grid`, one for each picture."""
    number, _, height, width = pictures.shape
    draws = 2 * torch.rand(4, number, generator=generator) - 1
    angle, scale = math.radians(rotate) * draws[0], (1 + zoom) ** draws[1]
    x, y = 2 * jitter / width * draws[2], 2 * jitter / height * draws[3]
    cosine, sine, aspect = scale * angle.cos(), scale * angle.sin(), height / width
    rows = [cosine, -sine * aspect, x, sine / aspect, cosine, y]
    return torch.stack(rows, 1).view(number, 2, 3).to(pictures)
