"""Drawings of how a computation flows: boxes, arrows, and the gradient's way back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch.nn.functional as F
from torch import Tensor

from ..pictures.writing import to_pil
from .display import INK, PALETTE, show

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL.Image import Image

Place = tuple[float, float]  # column and row, from the upper left
COLUMN, GAP, NAME = 1.9, 0.5, 0.22  # inches: from column to column, between rows, for the name below a picture
WIDTH, HEIGHT = 1.4, 0.64  # of a box, in inches; a picture is at most as wide, and at most as tall as wide
DPI = 96
FORWARD, BACK = PALETTE[0], PALETTE[1]


class Frame(NamedTuple):
    """Where a box or a picture is, in inches: its center, and how far it reaches to the sides, up, and down."""

    x: float
    y: float
    side: float
    up: float
    down: float  # with the name below a picture


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
        pictures: the box of this text shows a picture, (1, 3, H, W), and the text below it. Of features, (1, C, H, W),
            the first three channels are shown, as red, green and blue.
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
    images = {name: to_pil(_in_colors(picture)) for name, picture in (pictures or {}).items()}
    reaches = dict.fromkeys(boxes, (WIDTH / 2, HEIGHT / 2, HEIGHT / 2))
    reaches |= {name: _fitted(image) for name, image in images.items()}
    row = GAP + 2 * max(up for _, up, _ in reaches.values())
    columns, rows = (max(place[axis] for place in boxes.values()) + 1 for axis in (0, 1))
    size = COLUMN * columns, row * rows + (NAME + GAP / 2 if back else 0)
    frames = {name: Frame((x + 0.5) * COLUMN, (y + 0.5) * row, *reaches[name]) for name, (x, y) in boxes.items()}
    figure = Figure(figsize=size, dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, size[0]), ylim=(size[1], 0))
    axes.axis("off")
    for name, frame in frames.items():
        _box(axes, name, frame, images.get(name))
    for start, end, *label in arrows:
        _arrow(axes, frames[start], frames[end], "".join(label))
    for start, end, *label in back:
        _elbow(axes, frames[start], frames[end], "".join(label), row * rows + NAME)
    show(figure, caption=caption)


def _in_colors(maps: Tensor) -> Tensor:
    """The first three of more than three channels as a picture: mean gray, two deviations to black or white."""
    return maps if maps.shape[1] <= 3 else (0.5 + 0.25 * F.instance_norm(maps[:, :3].detach())).clamp(0, 1)


def _fitted(image: Image) -> tuple[float, float, float]:
    """How far a picture that fits a square as wide as a box reaches to the sides, up, and down with its name."""
    scale = WIDTH / 2 / max(image.size)
    return image.width * scale, image.height * scale, image.height * scale + NAME


def _box(axes: Axes, name: str, frame: Frame, image: Image | None) -> None:
    """A rounded box with its text, or a picture with its text below."""
    from matplotlib.patches import FancyBboxPatch

    x, y, side, up, _ = frame
    if image is None:
        corner, shape = (x - side, y - up), "round,pad=0,rounding_size=0.1"
        axes.add_patch(FancyBboxPatch(corner, 2 * side, 2 * up, shape, fc="#f4f6f8", ec=INK, lw=1.1))
        axes.text(x, y, name, ha="center", va="center", color=INK, fontsize=10)
        return
    limits = axes.axis()
    extent = (x - side, x + side, y + up, y - up)
    kernel = "lanczos" if image.width > DPI * 2 * side else "nearest"  # the pixels of a small map are to be seen
    axes.imshow(image, extent=extent, aspect="auto", zorder=2, interpolation=kernel)
    axes.axis(limits)
    axes.text(x, y + up + 0.04, name, ha="center", va="top", color=INK, fontsize=10)


def _arrow(axes: Axes, start: Frame, end: Frame, label: str) -> None:
    """A straight arrow from edge to edge; its label above it, or, if the arrow is not level, on it."""
    run, rise = end.x - start.x, end.y - start.y
    tail, head = _edge(start, run, rise), _edge(end, -run, -rise)
    style = {"arrowstyle": "-|>", "color": FORWARD, "lw": 1.6, "shrinkA": 3, "shrinkB": 3}
    axes.annotate("", head, tail, arrowprops=style)
    if not label:
        return
    x, y = (tail[0] + head[0]) / 2, (tail[1] + head[1]) / 2
    text = {"ha": "center", "color": FORWARD, "fontsize": 9}
    if rise:
        axes.text(x, y, label, va="center", bbox={"fc": "white", "ec": "none", "pad": 1.5}, **text)
    else:
        axes.text(x, y - 0.08, label, va="bottom", **text)


def _edge(frame: Frame, run: float, rise: float) -> tuple[float, float]:
    """Where a line from the center of a frame, by ``run`` to the right and ``rise`` down, crosses its edge."""
    part = 1 / max(abs(run) / frame.side, rise / frame.down, -rise / frame.up)
    return frame.x + part * run, frame.y + part * rise


def _elbow(axes: Axes, start: Frame, end: Frame, label: str, low: float) -> None:
    """An arrow down from a box, along the bottom of the drawing, and up to another box."""
    x, u = start.x, end.x
    axes.plot([x, x, u], [start.y + start.down + 0.04, low, low], color=BACK, lw=1.6, solid_joinstyle="round")
    style = {"arrowstyle": "-|>", "color": BACK, "lw": 1.6, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (u, end.y + end.down + 0.04), (u, low), arrowprops=style)
    axes.text((x + u) / 2, low - 0.04, label, ha="center", va="bottom", color=BACK, fontsize=9)
