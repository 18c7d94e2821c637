"""Curves and axes in the lab's colors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .display import PALETTE, show

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def curves(
    series: Mapping[str, Sequence[float]],
    *,
    x: Sequence[float] | None = None,
    xlabel: str = "step",
    ylabel: str = "",
    title: str = "",
    log: bool = False,
    caption: str = "",
) -> None:
    """Plot named curves in the lab's one style, and display them.

    Args:
        x: their common abscissae; None: 1, 2, ...
        log: the ordinate is logarithmic.
        caption: see `show`; unless given, it is the title.

    Example:
        >>> lk.curves({"loss": [3, 2, 1]}, title="It falls.")
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = Figure(figsize=(6.4, 3.2), dpi=96, layout="constrained")
    axes = figure.subplots()
    draw(axes, {name: (range(1, len(values) + 1) if x is None else x, values) for name, values in series.items()})
    tidy(axes, xlabel, ylabel, title)
    if log:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 1000 * low else (1,)))
        axes.yaxis.set_major_formatter("{x:g}")  # 20, where the default is 2 × 10¹
        axes.yaxis.set_minor_formatter(NullFormatter())
    if len(series) > 1:
        axes.legend(frameon=False)
    show(figure, caption=caption or title)


def draw(axes: Axes, series: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> None:
    """Draw named curves, (abscissae, values), in the lab's colors."""
    for number, (name, (x, values)) in enumerate(series.items()):
        axes.plot(x, values, label=name, color=PALETTE[number % len(PALETTE)], linewidth=1.8)


def tidy(axes: Axes, xlabel: str = "", ylabel: str = "", title: str = "") -> None:
    """Give matplotlib axes the lab's look: labels, light grid, no box."""
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
