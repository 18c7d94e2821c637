"""Curves and axes in the lab's colors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .display import PALETTE, show


def curves(
    series: Mapping[str, Sequence[float]],
    *,
    x: Sequence[float] | None = None,
    xlabel: str = "step",
    ylabel: str = "",
    title: str = "",
    log: bool = False,
    alt: str = "",
) -> None:
    """Plot named curves in the lab's one style, and display them. ``x``: their common abscissae (None: 1, 2, ...)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.2), dpi=96, layout="constrained")
    axes = figure.subplots()
    for (name, values), color in zip(series.items(), PALETTE * math.ceil(len(series) / len(PALETTE)), strict=False):
        axes.plot(x if x is not None else range(1, len(values) + 1), values, label=name, color=color, linewidth=1.8)
    tidy(axes, xlabel, ylabel, title)
    axes.set_yscale("log" if log else "linear")
    if len(series) > 1:
        axes.legend(frameon=False)
    show(figure, alt=alt or title)


def tidy(axes: Any, xlabel: str = "", ylabel: str = "", title: str = "") -> None:
    """Give matplotlib axes the lab's look: labels, light grid, no box."""
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
