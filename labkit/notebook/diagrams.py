"""Drawings of how a computation flows: boxes, arrows, and the gradient's way back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from ..pictures.writing import to_pil
from .display import INK, PALETTE, show

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Place = tuple[float, float]  # column and row, from the upper left
COLUMN, ROW = 1.9, 1.15  # inches
WIDTH, HEIGHT = 0.74, 0.56  # of a box, in columns and rows
FORWARD, BACK = PALETTE[0], PALETTE[1]


def diagram(
    boxes: Mapping[str, Place],
    arrows: Sequence[tuple[str, str] | tuple[str, str, str]],
    *,
    pictures: Mapping[str, Tensor] | None = None,
    back: Sequence[tuple[str, str] | tuple[str, str, str]] = (),
    caption: str = "",
) -> None:
    """Draw boxes joined by arrows, in the lab's colors.

    Args:
        boxes: what stands in a box (lines are broken by \\n) and its place: (column, row), counted from the upper left.
        arrows: (from, to) or (from, to, label): what is computed, in blue.
        pictures: the box of this text shows a picture, (1, 3, H, W), and the text below it.
        back: as ``arrows``: the way of gradients, in orange, below all boxes; so it should end in a lowest one.
        caption: see `show`.

    Raises:
        ValueError: for an arrow or a picture of a box that is not there.

    Example:
        >>> lk.diagram({"x": (0, 0), "f": (1, 0)}, [("x", "f")], back=[("f", "x", "gradient")])
    """
    from matplotlib.figure import Figure

    named = {name for arrow in (*arrows, *back) for name in arrow[:2]} | set(pictures or ())
    if missing := named - boxes.keys():
        raise ValueError(f"there is no box {sorted(missing)[0]!r}: there are {', '.join(map(repr, boxes))}")
    columns, rows = (max(place[axis] for place in boxes.values()) + 1 for axis in (0, 1))
    low = rows - 0.3  # where the way back runs
    figure = Figure(figsize=(COLUMN * columns, ROW * (rows + (0.4 if back else 0))), dpi=96)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - (0.1 if back else 0.5), -0.5))
    axes.axis("off")
    for name, place in boxes.items():
        _box(axes, name, place, (pictures or {}).get(name))
    for start, end, *label in arrows:
        _arrow(axes, boxes[start], boxes[end], "".join(label))
    for start, end, *label in back:
        _elbow(axes, boxes[start], boxes[end], "".join(label), low)
    show(figure, caption=caption)


def _box(axes: Axes, name: str, place: Place, picture: Tensor | None) -> None:
    """A rounded box with its text, or a picture with its text below."""
    from matplotlib.patches import FancyBboxPatch

    x, y = place
    if picture is None:
        corner, shape = (x - WIDTH / 2, y - HEIGHT / 2), "round,pad=0,rounding_size=0.06"
        axes.add_patch(FancyBboxPatch(corner, WIDTH, HEIGHT, shape, mutation_aspect=1.7, fc="#f4f6f8", ec=INK, lw=1.1))
        axes.text(x, y, name, ha="center", va="center", color=INK, fontsize=10)
        return
    image = to_pil(picture)
    wide, tall = WIDTH * COLUMN, HEIGHT * ROW * 1.25
    scale = min(wide / image.width, tall / image.height)
    half, up = image.width * scale / COLUMN / 2, image.height * scale / ROW / 2
    limits = axes.axis()
    axes.imshow(image, extent=(x - half, x + half, y + up, y - up), aspect="auto", zorder=2, interpolation="lanczos")
    axes.axis(limits)
    axes.text(x, y + up + 0.03, name, ha="center", va="top", color=INK, fontsize=9)


def _arrow(axes: Axes, start: Place, end: Place, label: str) -> None:
    """A straight arrow from edge to edge, its label above the middle."""
    (x, y), (u, v) = start, end
    run, rise = u - x, v - y
    sideways = abs(run) * HEIGHT >= abs(rise) * WIDTH  # it leaves through a side, else through the top or the bottom
    part = WIDTH / 2 / abs(run) if sideways else HEIGHT / 2 / abs(rise)
    tail, head = (x + part * run, y + part * rise), (u - part * run, v - part * rise)
    style = {"arrowstyle": "-|>", "color": FORWARD, "lw": 1.6, "shrinkA": 2, "shrinkB": 2}
    axes.annotate("", head, tail, arrowprops=style)
    if label:
        middle = (tail[0] + head[0]) / 2, (tail[1] + head[1]) / 2 - 0.08
        axes.text(*middle, label, ha="center", va="bottom", color=FORWARD, fontsize=9)


def _elbow(axes: Axes, start: Place, end: Place, label: str, low: float) -> None:
    """An arrow down from a box, along the bottom of the drawing, and up to another box."""
    (x, y), (u, v) = start, end
    axes.plot([x, x, u], [y + HEIGHT / 2 + 0.03, low, low], color=BACK, lw=1.6, solid_joinstyle="round")
    style = {"arrowstyle": "-|>", "color": BACK, "lw": 1.6, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (u, v + HEIGHT / 2 + 0.24), (u, low), arrowprops=style)
    axes.text((x + u) / 2, low - 0.04, label, ha="center", va="bottom", color=BACK, fontsize=9)
