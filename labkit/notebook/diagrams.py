"""Drawings of how a computation flows: boxes, arrows, and the gradient's way back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

from ..pictures.writing import to_pil
from .display import INK, PALETTE, show

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL.Image import Image

Place = tuple[float, float]  # column and row, from the upper left
Frame = tuple[float, float, float, float, float]  # center, half the width, reach up, and down with a name; in inches
COLUMN, GAP, NAME = 1.9, 0.5, 0.22  # inches: from column to column, between rows, for the name below a picture
WIDTH, HEIGHT = 1.4, 0.64  # of a box, in inches; a picture is at most as wide, and at most as tall as wide
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
    halves = dict.fromkeys(boxes, (WIDTH / 2, HEIGHT / 2))
    halves |= {name: _fitted(image) for name, image in images.items()}
    row = GAP + 2 * max(tall for _, tall in halves.values())
    columns, rows = (max(place[axis] for place in boxes.values()) + 1 for axis in (0, 1))
    size = COLUMN * columns, row * rows + (NAME + GAP / 2 if back else 0)
    frames = {
        name: ((x + 0.5) * COLUMN, (y + 0.5) * row, *halves[name], halves[name][1] + NAME * (name in images))
        for name, (x, y) in boxes.items()
    }
    figure = Figure(figsize=size, dpi=96)
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


def _fitted(image: Image) -> tuple[float, float]:
    """Half the width and half the height of a picture that fits a square as wide as a box."""
    scale = WIDTH / 2 / max(image.size)
    return image.width * scale, image.height * scale


def _box(axes: Axes, name: str, frame: Frame, image: Image | None) -> None:
    """A rounded box with its text, or a picture with its text below."""
    from matplotlib.patches import FancyBboxPatch

    x, y, half, tall, _ = frame
    if image is None:
        corner, shape = (x - half, y - tall), "round,pad=0,rounding_size=0.1"
        axes.add_patch(FancyBboxPatch(corner, 2 * half, 2 * tall, shape, fc="#f4f6f8", ec=INK, lw=1.1))
        axes.text(x, y, name, ha="center", va="center", color=INK, fontsize=10)
        return
    limits = axes.axis()
    extent = (x - half, x + half, y + tall, y - tall)
    kernel = "lanczos" if image.width > 96 * 2 * half else "nearest"  # the pixels of a small map are to be seen
    axes.imshow(image, extent=extent, aspect="auto", zorder=2, interpolation=kernel)
    axes.axis(limits)
    axes.text(x, y + tall + 0.04, name, ha="center", va="top", color=INK, fontsize=10)


def _arrow(axes: Axes, start: Frame, end: Frame, label: str) -> None:
    """A straight arrow from edge to edge; its label above it, or, if the arrow is not level, on it."""
    (x, y, *_), (u, v, *_) = start, end
    tail, head = _edge(start, (u - x, v - y)), _edge(end, (x - u, y - v))
    style = {"arrowstyle": "-|>", "color": FORWARD, "lw": 1.6, "shrinkA": 3, "shrinkB": 3}
    axes.annotate("", head, tail, arrowprops=style)
    middle = (tail[0] + head[0]) / 2, (tail[1] + head[1]) / 2
    if v == y:
        axes.text(middle[0], y - 0.08, label, ha="center", va="bottom", color=FORWARD, fontsize=9)
    elif label:
        paper = {"fc": "white", "ec": "none", "pad": 1.5}
        axes.text(*middle, label, ha="center", va="center", color=FORWARD, fontsize=9, bbox=paper)


def _edge(frame: Frame, way: tuple[float, float]) -> tuple[float, float]:
    """Where a line from the center of a frame, in the direction of ``way``, crosses its edge."""
    x, y, half, up, down = frame
    run, rise = way
    part = 1 / max(abs(run) / half, rise / down, -rise / up)
    return x + part * run, y + part * rise


def _elbow(axes: Axes, start: Frame, end: Frame, label: str, low: float) -> None:
    """An arrow down from a box, along the bottom of the drawing, and up to another box."""
    (x, y, *_, tall), (u, v, *_, top) = start, end
    axes.plot([x, x, u], [y + tall + 0.04, low, low], color=BACK, lw=1.6, solid_joinstyle="round")
    style = {"arrowstyle": "-|>", "color": BACK, "lw": 1.6, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (u, v + top + 0.04), (u, low), arrowprops=style)
    axes.text((x + u) / 2, low - 0.04, label, ha="center", va="bottom", color=BACK, fontsize=9)
