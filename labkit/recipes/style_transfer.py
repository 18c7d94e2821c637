"""Neural style transfer by optimization (Gatys, Ecker and Bethge 2016), coarse to fine."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, lru_cache, partial
from numbers import Integral
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from ..base.checks import MOST_STEPS, as_list, check_choice, check_numbers
from ..base.devices import Precision
from ..engine.evaluator import Evaluator, least_side
from ..engine.optimization import Average, Optimizer, descend, make_optimizer, pyramid, resized_moments
from ..engine.parameters import Kind as Parameters
from ..engine.parameters import Pixels, make_parameterization
from ..engine.progress import Progress, finished, with_bar
from ..engine.runs import Run, Saved, digest
from ..losses.algebra import Loss
from ..losses.neighbors import Distance
from ..losses.styles import Statistic
from ..networks.backbone import Backbone
from ..networks.surgery import Border, Pooling, variant
from ..networks.zoo import load_backbone
from ..pictures.color import Kind, matched
from ..pictures.geometry import Size, resize, size_of
from ..pictures.reading import PictureLike, as_picture
from .objectives import Layers, style_objective

Init: TypeAlias = Literal["content", "style", "noise"]
Colors: TypeAlias = Literal["linear", "histogram", "luma", "linear-after", "histogram-after"]
BEFORE = ("linear", "histogram")  # colors of the painting
AFTER: dict[str, Kind] = {"luma": "luma", "linear-after": "linear", "histogram-after": "histogram"}  # of the result


def stylizing(
    photo: PictureLike,
    painting: PictureLike | Sequence[PictureLike] | Loss,
    *,
    backbone: str | Backbone = "pocket",
    content_weight: float = 1.0,
    style_weight: float = 30.0,
    tv_weight: float = 1.0,
    tv_exponent: float = 1.0,
    chroma_tv_weight: float = 30.0,
    content_layers: Layers | None = None,
    style_layers: Layers | None = None,
    statistic: Statistic = "wasserstein",
    style_inset: float = 0.05,
    neighbor_weight: float = 0.0,
    neighbor_distance: Distance = "l2",
    color: Colors | None = None,
    init: Init | PictureLike = "content",
    parameterization: Parameters = "laplacian",
    optimizer: Optimizer = "adam",
    learning_rate: float | None = None,
    steps: int = 200,
    min_scale: int = 128,
    avg_decay: float = 0.9,
    seed: int = 0,
    device: str | torch.device | None = None,
    precision: Precision = "auto",
    tile: str | int | None = "auto",
    distributed: bool = False,
    resume: Saved = None,
    progress: bool | None = None,
) -> Iterator[Progress]:
    """Repaint a photo in the style of a painting, yielding `Progress` after every step.

    Args:
        photo: anything `as_picture` takes. The result has its size.
        painting: the same; or a list of paintings, whose styles are mixed; or the whole loss to be minimized, such as
            ``lk.style_objective(photo, paintings, masks=masks) + 0.1 * lk.pixel_mse(photo)``.
        backbone: a name or a loaded network; with average pooling for example ``lk.variant(network, "average")``.
        content_weight, style_weight, tv_weight, tv_exponent, chroma_tv_weight, content_layers, style_layers, statistic,
            style_inset, neighbor_weight, neighbor_distance: of the loss, if none is given; see `style_objective`.
        color: keep the photo's colors: "linear" or "histogram" gives them to the painting before, "luma",
            "linear-after" or "histogram-after" to the result after (see `matched`); None: take the painting's.
        init: start from the "content", from the "style" (the first painting), from "noise", or from a given picture.
        parameterization: what is stepped on: the "pixels", or maps in decorrelated colors, the "laplacian" pyramid or
            "fourier" amplitudes, on which Adam leaves far less noise in the colors (see `labkit.engine.parameters`).
        optimizer: "adam", "lbfgs" or "ascent".
        learning_rate: None for 0.03 with Adam, 1 with the others.
        steps: in all, shared evenly among scales that grow by sqrt(2); each starts from the last one's result, and Adam
            on pixels from its moments.
        min_scale: the longer side that the first scale is about as large as; the last is the photo's own.
        avg_decay: of the running mean of iterates that is shown and handed on (0: the iterate itself).
        seed: of the noise.
        device, precision: see `load_backbone` and `pick_precision`.
        tile, distributed: how a picture that memory cannot hold is cut, and shared among processes (see `Evaluator`).
        resume: what `Progress.state_dict` returned or `Progress.save` wrote in a run with the same photo, network,
            steps, parameterization and optimizer; weights, layers and paintings may be others, and the run goes on
            towards those.
        progress: show a progress bar; None: `stylize` does, `stylizing` does not.

    Raises:
        ValueError: for arguments that make no sense, saying what would; at the call, not at the first step.
    """
    check_numbers(1, Integral, most=MOST_STEPS, steps=steps)
    check_numbers(1, Integral, most=1_000_000, min_scale=min_scale)
    check_numbers(0, most=0.9999, avg_decay=avg_decay)
    check_choice("optimizer", optimizer, Optimizer)
    check_choice("parameterization", parameterization, Parameters)
    if parameterization == "cppn":
        raise ValueError("a CPPN cannot start from a picture, as every scale does: use pixels, laplacian or fourier")
    if color is not None:
        check_choice("color", color, Colors)
    if learning_rate is None:
        learning_rate = 0.03 if optimizer == "adam" else 1.0
    check_numbers(0, learning_rate=learning_rate)
    objective = {
        "content_weight": content_weight,
        "style_weight": style_weight,
        "tv_weight": tv_weight,
        "tv_exponent": tv_exponent,
        "chroma_tv_weight": chroma_tv_weight,
        "content_layers": content_layers,
        "style_layers": style_layers,
        "statistic": statistic,
        "style_inset": style_inset,
        "neighbor_weight": neighbor_weight,
        "neighbor_distance": neighbor_distance,
    }
    network = load_backbone(backbone, device)
    original = as_picture(photo)
    content_picture = original.to(network.device)
    if isinstance(painting, Loss):
        check_unused(objective, color, init)
        loss, paintings = painting, []
    else:
        paintings = recolored(painting, content_picture, color)
        loss = style_objective(content_picture, paintings, **objective)
    size = size_of(original)
    sizes = scale_sizes(size, min_scale, steps, least_side(network, loss, size))
    shares = [steps * (k + 1) // len(sizes) - steps * k // len(sizes) for k in range(len(sizes))]
    # At the first size, since noise would not survive resizing.
    first = first_picture(init, resize(content_picture, sizes[0]), paintings, seed)

    @cache
    def identity() -> dict[str, Any]:
        known = {"photo": digest(original), "network": digest(network)}
        known |= {"scales": sizes, "steps": steps, "optimizer": optimizer}
        return known | {"parameterization": parameterization}

    run = Run(sizes, shares, resume, identity, original.device)

    @lru_cache(1)
    def evaluator_of(size: Size, loss: Loss) -> Evaluator:
        return Evaluator(network, loss, size, precision, tile, distributed)

    evaluator_of(sizes[0], loss).plan(size)  # what cannot be evaluated is refused at the call

    def scale_by_scale() -> Iterator[Progress]:
        picture, moments = first, None
        for stage in run:
            origin = stage.state.get("origin") if stage.state else None
            start = resize(picture, stage.size) if origin is None else origin.to(picture)
            started = loss.starting_from(start) if stage.number else loss
            evaluator = evaluator_of(stage.size, started)
            if parameterization == "pixels":
                painted = Pixels(start, clamp=optimizer != "lbfgs")
            else:
                painted = make_parameterization(parameterization, start.shape, start)
            stepper = make_optimizer(optimizer, painted.parameters, learning_rate)
            if optimizer == "adam" and parameterization == "pixels" and moments is not None:
                stepper.load_state_dict(resized_moments(moments, stage.size))
            mean = Average(avg_decay)
            healthy = yield from descend(
                stage,
                painted,
                evaluator,
                stepper,
                average=mean,
                origin=None if started is loss else start,
                plan=evaluator.plan(stage.size),
                display_transform=(
                    partial(matched, reference=content_picture, kind=AFTER[color]) if color in AFTER else None
                ),
            )
            if not healthy:
                return
            picture, moments = mean.value.clamp(0, 1), stepper.state_dict()

    return with_bar(scale_by_scale(), progress)


stylize = finished(stylizing, "Repaint to the end and return the picture (1, 3, H, W), on the photo's device.")


OBJECTIVE = {name: option.default for name, option in [*inspect.signature(style_objective).parameters.items()][2:]}


def check_unused(objective: Mapping[str, Any], color: Colors | None, init: Any) -> None:
    """Raise ValueError for arguments of `stylizing` that a loss in the place of the painting leaves without effect."""
    if changed := [name for name, value in objective.items() if value != OBJECTIVE[name]]:
        raise ValueError(f"{', '.join(changed)}: of no effect beside a loss; pass to style_objective, which makes one")
    if color in BEFORE or (isinstance(init, str) and init == "style"):
        what = f"color={color!r}" if color in BEFORE else "init='style'"
        raise ValueError(f"{what} needs a painting, and a loss was given: pass the painting itself")


def stylizing_with(
    photo: PictureLike,
    painting: PictureLike | Sequence[PictureLike],
    *,
    backbone: str | Backbone = "pocket",
    pooling: Pooling = "max",
    border: Border = "zeros",
    color: Colors | None = None,
    init: Init | PictureLike = "content",
    extra_loss: Loss | None = None,
    device: str | torch.device | None = None,
    **options: Any,
) -> Iterator[Progress]:
    """`stylizing` with the options of `style_objective` and `variant` as well, as shell, widgets and films have them.

    Args:
        extra_loss: is added to the objective.
    """
    network = variant(load_backbone(backbone, device), pooling, border)
    objective = {name: options.pop(name) for name in OBJECTIVE if name in options}
    original = as_picture(photo)
    content_picture = original.to(network.device)
    paintings = recolored(painting, content_picture, color)
    loss = style_objective(content_picture, paintings, **objective)
    return stylizing(
        original,
        loss if extra_loss is None else loss + extra_loss,
        backbone=network,
        color=None if color in BEFORE else color,
        init=paintings[0] if isinstance(init, str) and init == "style" else init,
        **options,
    )


def recolored(painting: PictureLike | Sequence[PictureLike], photo: Tensor, color: Colors | None) -> list[Tensor]:
    """The paintings as pictures, in the photo's colors where ``color`` wants them so before (see `stylizing`)."""
    pictures = [as_picture(picture) for picture in as_list(painting)]
    return [matched(picture.to(photo), photo, color) for picture in pictures] if color in BEFORE else pictures


def scale_sizes(size: tuple[int, int], min_scale: int, steps: int, least: int = 1) -> list[tuple[int, int]]:
    """Sizes (height, width) that grow by sqrt(2) up to ``size``; the first one's longer side is about ``min_scale``.

    There are no more sizes than steps, and below ``size`` none with a side under ``least``.
    """
    factors = [1.0]
    while max(size) * (factor := 2 ** (-len(factors) / 2)) >= min_scale and len(factors) < steps:
        factors.insert(0, factor)
    return pyramid(size, factors, least)


def first_picture(init: Init | PictureLike, photo: Tensor, paintings: Sequence[Tensor], seed: int = 0) -> Tensor:
    """The picture (1, 3, H, W) that style transfer starts from (see `stylizing`)."""
    if not isinstance(init, str):
        picture = as_picture(init)
    elif init == "style":
        picture = paintings[0]
    elif init == "noise":
        noise = torch.randn(photo.shape, generator=torch.Generator().manual_seed(seed))
        return (0.5 + 0.2 * noise).clamp(0, 1).to(photo)
    else:
        check_choice("init", init, Init)
        return photo
    return resize(picture, size_of(photo)).to(photo).expand_as(photo)
