"""Why a picture looks as it does: every term of its loss over time, and where each of them still pulls."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from ..engine.progress import Progress
from ..pictures.color import heat
from .display import show
from .plots import draw, tidy

Curve: TypeAlias = tuple[list[int], list[float]]  # steps and values
Curves: TypeAlias = dict[str, Curve]


def explain_losses(run: Iterable[Progress], caption: str = "") -> Tensor:
    """Plot the terms and layers of a run's loss over its steps, show where each term is unhappy, return the picture.

    Unhappy is where the last picture's gradient of the term alone is large: there it would change the picture if it
    could. Each map has a scale of its own; above it stands the term's share of the pull, the norm of its gradient.

    Args:
        run: a generator such as `stylizing` returns, which is run to its end, or a list of what it yielded.
        caption: of the curves; see `show`.

    Raises:
        ValueError: for a run without steps.
    """
    from matplotlib.figure import Figure

    curves, last = curves_of(run)
    terms: dict[str, Curves] = {}
    for (term, layer), curve in curves.items():
        terms.setdefault(term, {})[layer] = curve
    panels = {"terms": {term: added([*layers.values()]) for term, layers in terms.items()}}
    panels |= {f"layers of {term}": layers for term, layers in terms.items() if len(layers) > 1}
    figure = Figure(figsize=(4.0 * len(panels), 3.0), dpi=96, layout="constrained")
    for axes, (title, panel) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        draw(axes, panel)
        tidy(axes, "step", "", title)
        if all(value > 0 for _, values in panel.values() for value in values):
            axes.set_yscale("log")
        axes.legend(frameon=False, fontsize=8)
    show(figure, caption=caption or f"Curves of {', '.join(terms)} over the steps")
    if maps := pulls(last):
        whole = sum(share for share, _ in maps.values()) or 1.0
        titles = [f"{term}: {share / whole:.0%}" for term, (share, values) in maps.items() for _ in values]
        show(*(heat(values) for _, values in maps.values()), titles=titles, caption=f"Where {', '.join(maps)} pull")
    return last.picture


def curves_of(run: Iterable[Progress]) -> tuple[dict[tuple[str, str], Curve], Progress]:
    """Steps and values of each part of the loss, by (name, layer), and the last progress."""
    curves: dict[tuple[str, str], Curve] = {}
    last: Progress | None = None
    for last in run:
        for key, value in last.evaluation.layer_terms.items():
            steps, values = curves.setdefault(key, ([], []))
            steps.append(last.step)
            values.append(value.mean().item())
    if last is None:
        raise ValueError("a run without steps has no losses to explain")
    return curves, last


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


def added(curves: list[Curve]) -> Curve:
    """The sum of curves over the same steps."""
    return curves[0][0], [math.fsum(values) for values in zip(*(values for _, values in curves), strict=True)]
