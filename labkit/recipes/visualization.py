"""Pictures from nothing: what a channel, a class or a painting's texture looks like to a network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache
from itertools import count
from numbers import Integral
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..base.checks import MOST_SIDE, MOST_STEPS, check_numbers
from ..base.deterministic import sampled, shrunk
from ..base.devices import Precision
from ..engine.evaluator import Evaluation, Evaluator, summed
from ..engine.optimization import descend, make_optimizer
from ..engine.parameters import Kind, make_parameterization
from ..engine.progress import Progress, finish, finished, with_bar
from ..engine.runs import Saved, digest, single_stage
from ..losses.algebra import Loss, total
from ..networks.backbone import Backbone
from ..networks.zoo import load_backbone
from ..pictures.geometry import Size, resize, size_of
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
    crops: int = 1,
    crop_share: tuple[float, float] = (1.0, 1.0),
    crop_size: int | None = None,
    noise: float = 0.0,
    decay: float = 1.0,
    step_decay: float = 1.0,
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
        backbone: a name or a loaded network; its ReLUs let gradients start silent channels (`Backbone.redirected`).
        size: height and width, or the side of a square, in pixels.
        variations: how many pictures, as one batch.
        parameterization: "fourier", "spectrum", "maco", "laplacian", "cppn" or "pixels" (see
            `labkit.engine.parameters`).
        init: a picture to start from instead of noise (not for "cppn").
        steps: of Adam.
        learning_rate: None for 0.05, for a CPPN 0.005, for pixels 0.02, for MACO 0.1.
        jitter, zoom, rotate: before every step each picture is shifted by up to ``jitter`` pixels, enlarged or shrunk
            by up to the share ``zoom`` and turned by up to ``rotate`` degrees: only what survives is built up. Losses
            that know what belongs where, such as `content`, see it unmoved.
        crops: how many parts of the picture, at random places, are looked at in every step, each moved as above: the
            loss is their mean.
        crop_share: their side in parts of the picture's at the first step and at the last, from 0.05 to 1; between,
            evenly. From 1 to less is from coarse to fine (Fel et al. 2023).
        crop_size: the longer side, in pixels, to which they are resized; None: the picture's. Time grows with its
            square.
        noise: the deviation of what is added to them, so that detail must be clear to count.
        decay: the power of the frequency by which fine detail starts smaller and grows slower ("fourier").
        step_decay: the last step's size relative to the first one's; between, they shrink evenly.
        seed: of the noise and of the movements.
        device, precision: see `load_backbone` and `pick_precision`.
        resume: what `Progress.state_dict` returned or `Progress.save` wrote in a run with the same arguments.
        progress: show a progress bar; None: `create` does, `creating` does not.

    Raises:
        ValueError: for arguments that make no sense, saying what would; at the call, not at the first step.
    """
    check_numbers(1, Integral, most=MOST_STEPS, steps=steps)
    check_numbers(0, most=10_000, jitter=jitter, rotate=rotate, decay=decay, noise=noise)
    height, width = (size, size) if isinstance(size, int) else size
    check_numbers(0, most=0.99, zoom=zoom)
    check_numbers(0, most=1, step_decay=step_decay)
    check_numbers(0.05, most=1, **{"the first crop_share": crop_share[0], "the last crop_share": crop_share[1]})
    check_numbers(1, Integral, most=MOST_SIDE, height=height, width=width, variations=variations, crops=crops)
    network = load_backbone(backbone, device)
    generator = torch.Generator().manual_seed(seed)
    shape, whole = (variations, 3, height, width), (height, width)
    seen = whole
    if crop_size is not None:
        check_numbers(1, Integral, most=MOST_SIDE, crop_size=crop_size)
        seen = max(1, round(height * crop_size / max(whole))), max(1, round(width * crop_size / max(whole)))
    start = None if init is None else resize(as_picture(init), whole).expand(shape).to(network.device)
    picture = make_parameterization(parameterization, shape, start, decay, generator, network.device)
    if learning_rate is None:
        learning_rate = {"cppn": 0.005, "pixels": 0.02, "maco": 0.1}.get(parameterization, 0.05)
    check_numbers(0, learning_rate=learning_rate)

    @cache
    def identity() -> dict[str, Any]:
        known = {"loss": repr(loss), "network": digest(network), "shape": shape, "seed": seed}
        return known | {"parameterization": parameterization}

    stage = single_stage(whole, steps, resume=resume, identity=identity)
    first = stage.state["step"] if stage.state else 0
    shares = (crop_share[0] + (crop_share[1] - crop_share[0]) * step / max(1, steps - 1) for step in count(first))
    network = network.redirected()  # noise leaves many channels silent
    evaluator = Evaluator(network, loss, whole, precision)
    invariant, dependent = evaluator.split()
    if invariant and seen != whole:
        invariant, _ = Evaluator(network, loss, seen, precision).split()
    transformed = invariant and randomly_transformed(
        invariant,
        jitter=jitter,
        zoom=zoom,
        rotate=rotate,
        crops=crops,
        shares=shares,
        size=seen,
        noise=noise,
        generator=generator,
    )
    evaluate = summed(transformed, dependent, source=evaluator)
    optimizer, plan = make_optimizer("adam", picture.parameters, learning_rate), evaluator.plan(seen)
    run = descend(stage, picture, evaluate, optimizer, decay=step_decay, generator=generator, plan=plan)
    return with_bar(run, progress)


create = finished(creating, "Create to the end and return the pictures (N, 3, H, W), on the CPU.")


def with_transparency(run: Iterable[Progress], quantile: float = 0.8) -> tuple[Tensor, Tensor]:
    """Run `creating` to its end; return the pictures (N, 3, H, W) and how opaque they are, (N, 1, H, W) in [0, 1].

    A place is as opaque as the gradient there was large, summed over all steps of this run: what the loss never asked
    for fades away (Fel et al. 2023).

    Args:
        run: such as ``lk.creating(loss)``; of one that is resumed, only the steps from there on count.
        quantile: the share of places that is not wholly opaque, from 0 to 1.

    Example:
        >>> run = lk.creating(-lk.activation("relu3_1"), size=32, steps=2, device="cpu")
        >>> picture, alpha = lk.with_transparency(run)  # lk.save(picture, "x.png", alpha=alpha)
        >>> on_white = alpha * picture + 1 - alpha
        >>> round((alpha < 1).float().mean().item(), 1)
        0.8
    """
    check_numbers(0, most=1, quantile=quantile)
    size = torch.zeros(())

    def summed() -> Iterator[Progress]:
        nonlocal size
        for step in run:
            size = step.evaluation.gradient.abs().mean(1, keepdim=True) + size
            yield step

    picture, size = finish(summed()), size.to("cpu")
    full = size.flatten(1).quantile(quantile, 1).clamp_min(1e-30).view(-1, 1, 1, 1)
    return picture, (size / full).clamp(0, 1).to(picture)


# --- transformation robustness --------------------------------------------------------------------------------------


def randomly_transformed(
    evaluate: Callable[[Tensor], Evaluation],
    *,
    jitter: float,
    zoom: float,
    rotate: float,
    crops: int = 1,
    shares: Iterator[float] | None = None,
    size: Size | None = None,
    noise: float = 0.0,
    generator: torch.Generator | None = None,
) -> Callable[[Tensor], Evaluation]:
    """``evaluate`` on pictures that are shifted, zoomed and turned at random, and the gradient of the unmoved ones.

    Args:
        crops: how many parts of each picture are evaluated; the mean is returned.
        shares: of each evaluation in turn, the side of its crops in parts of the picture's; None: 1.
        size: (height, width) to which crops are resized; None: the picture's.
        noise: the deviation of what is added to them.
    """

    def transformed(picture: Tensor) -> Evaluation:
        share, (height, width) = next(shares) if shares else 1.0, size or size_of(picture)
        evaluations = []
        for _ in range(crops):
            with torch.enable_grad():
                still = picture.detach().requires_grad_()
                maps = movements(still, jitter, zoom, rotate, generator)
                if share < 1:
                    maps = cropped(maps, share, generator)
                fine = round(height / share), round(width / share)
                source = shrunk(still, fine) if fine < size_of(still) else still
                moved = sampled(source, F.affine_grid(maps, [*still.shape[:2], height, width], False))
            shown = moved.detach()
            if noise:
                shown = shown + noise * torch.randn(shown.shape, generator=generator).to(shown)
            evaluation = evaluate(shown)
            (gradient,) = torch.autograd.grad(moved, still, evaluation.gradient)
            evaluations.append(replace(evaluation, gradient=gradient))
        return mean(evaluations)

    return transformed


def cropped(maps: Tensor, share: float, generator: torch.Generator | None) -> Tensor:
    """Affine maps (N, 2, 3) that read a part of what ``maps`` read, at a random place, ``share`` of it wide."""
    place = (1 - share) * (2 * torch.rand(len(maps), 2, 1, generator=generator) - 1).to(maps)
    return torch.cat([share * maps[:, :, :2], maps[:, :, 2:] + place], 2)


def mean(evaluations: list[Evaluation]) -> Evaluation:
    """The mean of several evaluations; of one, itself."""
    if len(evaluations) == 1:
        return evaluations[0]
    part = 1 / len(evaluations)
    terms = {key: part * total(each.layer_terms[key] for each in evaluations) for key in evaluations[0].layer_terms}
    loss, gradient = (part * total(getattr(each, name) for each in evaluations) for name in ("loss", "gradient"))
    return replace(evaluations[0], loss=loss, layer_terms=terms, gradient=gradient)


def movements(pictures: Tensor, jitter: float, zoom: float, rotate: float, generator: torch.Generator | None) -> Tensor:
    """Random affine maps (N, 2, 3) in the coordinates of `affine_grid`, one for each picture."""
    number, _, height, width = pictures.shape
    draws = 2 * torch.rand(4, number, generator=generator) - 1
    angle, scale = math.radians(rotate) * draws[0], (1 + zoom) ** draws[1]
    x, y = 2 * jitter / width * draws[2], 2 * jitter / height * draws[3]
    cosine, sine, aspect = scale * angle.cos(), scale * angle.sin(), height / width
    rows = [cosine, -sine * aspect, x, sine / aspect, cosine, y]
    return torch.stack(rows, 1).view(number, 2, 3).to(pictures)
