"""Pictures into files that appear whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, PngImagePlugin
from torch import Tensor

from ..base.files import check_writable, written_whole
from .reading import as_picture
from .sixteen_bits import write_png, write_tiff


def to_pil(picture: Tensor) -> Image.Image:
    """The first picture of a batch as an 8-bit RGB Pillow image, rounded (not truncated)."""
    picture = as_picture(picture)[0]
    return Image.fromarray((picture * 255).round().byte().permute(1, 2, 0).cpu().numpy())


def save(
    picture: Tensor, path: str | Path, settings: Mapping[str, Any] | None = None, quality: int = 92, bits: int = 8
) -> Path:
    """Write the first picture of a batch; the file appears whole or not at all.

    ``settings`` (recipe, seed, parameters; any JSON) travel in the file, as PNG text or EXIF, under the key "labkit";
    `settings_of` reads them back. ``quality``, 0 to 100, is for JPEG and WebP. ``bits`` a color: 8, or 16 for PNG and
    TIFF. Raises what `check_place` raises.
    """
    path = Path(path)
    kind = check_place(path, quality, bits)
    note = json.dumps(dict(settings or {}), default=str)
    if bits == 16:
        levels = (as_picture(picture)[0].cpu().double() * 65535).round().permute(1, 2, 0).numpy().astype(np.uint16)
        with written_whole(path) as temporary:
            (write_png if kind == "PNG" else write_tiff)(levels, temporary, note)
        return path
    image = to_pil(picture)
    options: dict[str, Any] = {}
    if kind == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("labkit", note)
    elif kind in ("JPEG", "WEBP", "TIFF"):
        exif = Image.Exif()
        exif[ExifTags.Base.ImageDescription] = "labkit " + note
        options.update(exif=exif, quality=quality)
    with written_whole(path) as temporary:
        image.save(temporary, kind, **options)
    return path


def check_place(path: str | Path, quality: int = 92, bits: int = 8) -> str:
    """Pillow's name of the picture type that `save` would write to ``path``. To be asked before a long run, too.

    Raises ValueError for an unknown file type or quality, or bits that the type cannot hold, and OSError when the place
    cannot be written to.
    """
    kind = Image.registered_extensions().get(Path(path).suffix.lower(), "")
    if kind not in ("PNG", "JPEG", "WEBP", "TIFF", "BMP"):
        raise ValueError(
            f"cannot tell a picture type from {Path(path).name!r}: end it in .png, .jpg, .webp, .tiff or .bmp"
        )
    if not 0 <= quality <= 100:
        raise ValueError(f"quality must be a number from 0 to 100, not {quality}")
    if bits != 8 and not (bits == 16 and kind in ("PNG", "TIFF")):
        raise ValueError(f"a color has 8 bits, or 16 in .png and .tiff, not {bits} in {Path(path).suffix}")
    check_writable(path)
    return kind
