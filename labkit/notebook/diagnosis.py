"""Why a picture looks as it does: every term of its loss over time, and where each of them still pulls."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..engine.progress import Progress
from ..pictures.color import heat
from .display import PALETTE, show
from .plots import tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curves = dict[tuple[str, str], tuple[list[int], list[float]]]


def explain_losses(run: Iterable[Progress], alt: str = "") -> Tensor:
    """Plot the terms and layers of a run's loss over its steps, show where each term is unhappy, return the picture.

    run: a generator such as `stylizing` returns, which is run to its end, or a list of what it yielded.
    Unhappy is where the last picture's gradient of the term alone is large: there it would change the picture if it
    could. Each map has a scale of its own; above it stands the term's share of the pull, the norm of its gradient.
    Raises ValueError for a run without steps.
    """
    from matplotlib.figure import Figure

    found, last = curves_of(run)
    terms = list(dict.fromkeys(name for name, _ in found))
    layered = [term for term in terms if sum(name == term for name, _ in found) > 1]
    figure = Figure(figsize=(4.0 * (1 + len(layered)), 3.0), dpi=96, layout="constrained")
    axes = figure.subplots(1, 1 + len(layered), squeeze=False)[0]
    totals = {term: added([found[key] for key in found if key[0] == term]) for term in terms}
    draw(axes[0], totals, "terms")
    for place, term in zip(axes[1:], layered, strict=True):
        draw(place, {layer: found[name, layer] for name, layer in found if name == term}, f"layers of {term}")
    show(figure, alt=alt or f"Curves of {', '.join(terms)} over the steps")
    maps = pulls(last)
    if maps:
        whole = sum(share for share, _ in maps.values()) or 1.0
        titles = [f"{term}: {share / whole:.0%}" for term, (share, values) in maps.items() for _ in values]
        show(*(heat(values) for _, values in maps.values()), titles=titles, alt=f"Where {', '.join(maps)} pull")
    return last.picture


def curves_of(run: Iterable[Progress]) -> tuple[Curves, Progress]:
    """Steps and values of each part of the loss, by (name, layer), and the last progress."""
    found: Curves = {}
    last: Progress | None = None
    for last in run:
        for key, value in last.evaluation.layer_terms.items():
            steps, values = found.setdefault(key, ([], []))
            steps.append(last.step)
            values.append(value.mean().item())
    if last is None:
        raise ValueError("a run without steps has no losses to explain")
    return found, last


def pulls(progress: Progress, width: float = 0.02) -> dict[str, tuple[float, Tensor]]:
    """For each term the norm of its gradient and where that is, (N, 1, H, W) in [0, 1]; none if nobody can tell.

    The gradient's size is averaged over colors and over squares of ``width`` times the picture's longer side.
    """
    evaluator, picture = progress.evaluation.source, progress.pixels.detach().clamp(0, 1).cpu()
    if evaluator is None:
        return {}
    side = 2 * max(1, round(width * max(picture.shape[-2:]) / 2)) + 1
    found = {}
    for name, gradient in evaluator.gradients_by_term(picture).items():
        size = gradient.square().mean(1, keepdim=True).sqrt()
        size = F.avg_pool2d(size, side, 1, side // 2, count_include_pad=False)
        highest = torch.quantile(size.flatten(), 0.995) if size.numel() < 2**24 else size.max()
        found[name] = gradient.norm().item(), (size / highest.clamp_min(1e-30)).clamp(0, 1)
    return found


def added(curves: list[tuple[list[int], list[float]]]) -> tuple[list[int], list[float]]:
    """The sum of curves over the same steps."""
    return curves[0][0], [math.fsum(values) for values in zip(*(values for _, values in curves), strict=True)]


def draw(axes: Axes, curves: dict[str, tuple[list[int], list[float]]], title: str) -> None:
    for number, (name, (steps, values)) in enumerate(curves.items()):
        axes.plot(steps, values, label=name, color=PALETTE[number % len(PALETTE)], linewidth=1.6)
    tidy(axes, "step", "", title)
    if all(value > 0 for _, values in curves.values() for value in values):
        axes.set_yscale("log")
    axes.legend(frameon=False, fontsize=8)
