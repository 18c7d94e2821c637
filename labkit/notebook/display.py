"""Pictures in a notebook: large, side by side, with titles above and a caption below."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Callable, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..base.checks import check_numbers
from ..pictures.writing import to_pil

WIDTH = 880  # pixels of a notebook's page
GAP = 8  # pixels between the pictures of a sheet
INK, PALETTE = "#222222", ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")


class Shown:
    """Something a notebook can display: data by media type, with alternative text for those who cannot see it."""

    def __init__(self, media_type: str, data: str, alt: str):
        self.media_type, self.data, self.alt = media_type, data, alt

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict[str, str], dict[str, Any]]:
        return {self.media_type: self.data, "text/plain": self.alt}, {self.media_type: {"alt": self.alt}}


def show(
    *pictures: Tensor | Any,
    titles: Sequence[str] = (),
    caption: str = "",
    columns: int | None = None,
    width: int = WIDTH,
) -> None:
    """Display pictures side by side in a notebook (a script opens a window with them).

    Args:
        pictures: tensors, every picture of a batch counting, or one matplotlib figure.
        titles: stand above them.
        caption: stands below, says in words what is seen, and is the alternative text; unless given, the titles are.
        columns: in a row; None: all, as long as each keeps 48 pixels.
        width: of the whole, in pixels, at most.

    Example:
        >>> lk.show(lk.photo("chelsea", 64), lk.photo("coffee", 64), titles=["a cat", "a cup"])
    """
    check_numbers(1, Integral, 10_000, width=width, columns=1 if columns is None else columns)
    if len(pictures) == 1 and not isinstance(pictures[0], Tensor):
        buffer = io.BytesIO()
        pictures[0].savefig(buffer, format="png", facecolor="white")
        _display(Shown("image/png", _base64(buffer.getvalue()), caption), caption, lambda: Image.open(buffer))
        return
    images = [to_pil(one[None]) for batch in pictures for one in (batch[None] if batch.ndim == 3 else batch)]
    if titles and len(titles) != len(images):
        raise ValueError(f"{len(images)} pictures need as many titles, not {len(titles)}")
    if columns is None:
        least = min(48, max(image.width for image in images))
        columns = max(1, (width + GAP) // (least + GAP))
    sheet = _sheet(images, list(titles), columns, width)
    _display(Shown("image/jpeg", _base64(jpeg(sheet)), caption or ", ".join(titles)), caption, lambda: sheet)


def show_file(path: Path, caption: str) -> None:
    """Display a JPEG file as it is."""
    _display(Shown("image/jpeg", _base64(path.read_bytes()), caption), caption, lambda: Image.open(path))


def compare(before: Tensor, after: Tensor, titles: tuple[str, str] = ("before", "after"), caption: str = "") -> None:
    """Display two pictures of one size under a slider. Works in a static page, without internet.

    Args:
        caption: see `show`.

    Raises:
        ValueError: for pictures of two sizes.
    """
    pair = [to_pil(before), to_pil(after)]
    if pair[0].size != pair[1].size:
        raise ValueError(f"the pictures differ in size: {pair[0].size} and {pair[1].size}")
    alts = [html.escape(f"{title}: {caption}" if caption else title, quote=True) for title in titles]
    sources = [f"data:image/jpeg;base64,{_base64(jpeg(image))}" for image in pair]
    layer = "position:absolute;top:0;left:0;width:100%;height:100%;margin:0"
    name = (
        "position:absolute;top:6px;padding:1px 7px;border-radius:9px;font:12px sans-serif;color:#fff;background:#0008"
    )
    page = (
        f'<div style="position:relative;width:{pair[0].width}px;max-width:100%;--x:50%">'
        f'<img alt="{alts[0]}" src="{sources[0]}" style="display:block;width:100%;margin:0">'
        f'<img alt="{alts[1]}" src="{sources[1]}" style="{layer};clip-path:inset(0 0 0 var(--x))">'
        f'<span style="{name};left:6px">{html.escape(titles[0])}</span>'
        f'<span style="{name};right:6px">{html.escape(titles[1])}</span>'
        '<div style="position:absolute;top:0;bottom:0;left:var(--x);width:2px;background:#fff;'
        'pointer-events:none"></div>'
        f'<input type="range" min="0" max="100" value="50" aria-label="{html.escape(" or ".join(titles))}" '
        f'style="{layer};opacity:0;cursor:ew-resize" '
        "oninput=\"this.parentElement.style.setProperty('--x',this.value+'%')\"></div>"
    )
    shown = Shown("text/html", page, caption or " and ".join(titles))
    _display(shown, caption, lambda: _sheet(pair, list(titles), 2, 960))


# --- making what is displayed -------------------------------------------------------------------------------------


def _display(shown: Shown, caption: str, window: Callable[[], Image.Image]) -> None:
    """Display in a notebook, the caption below; elsewhere open a window with the image that ``window`` makes."""
    from IPython import get_ipython
    from IPython.display import display

    if get_ipython() is not None:
        display(shown)
        if caption:
            style = f"max-width:{WIDTH}px;margin:2px 0 12px;font-style:italic;opacity:.8"
            display(Shown("text/html", f'<p style="{style}">{html.escape(caption)}</p>', caption))
    else:
        window().show()


def _sheet(images: list[Image.Image], titles: list[str], columns: int, width: int) -> Image.Image:
    """Images in rows on white, scaled down together until the whole is ``width`` wide, titles above them."""
    from matplotlib import get_data_path

    columns = min(columns, len(images))
    cell = max(image.width for image in images)
    scale = min(1.0, (width - GAP * (columns - 1)) / columns / cell)
    if scale < 1:
        sizes = [(max(1, int(image.width * scale)), max(1, round(image.height * scale))) for image in images]
        images = [image.resize(size, Image.Resampling.LANCZOS) for image, size in zip(images, sizes, strict=True)]
    cell, tall = max(image.width for image in images), max(image.height for image in images)
    head = 22 if titles else 0
    rows = math.ceil(len(images) / columns)
    sheet = Image.new("RGB", (columns * (cell + GAP) - GAP, rows * (tall + head + GAP) - GAP), "white")
    # Matplotlib's own font is everywhere where this package is.
    draw, font = ImageDraw.Draw(sheet), ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf", 13)
    for index, image in enumerate(images):
        left, top = index % columns * (cell + GAP), index // columns * (tall + head + GAP)
        sheet.paste(image, (left, top + head))
        if titles:
            draw.text((left + 1, top + 2), titles[index], fill=INK, font=font)
    return sheet


def jpeg(image: Image.Image, quality: int = 80) -> bytes:
    """The content of a JPEG file."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
