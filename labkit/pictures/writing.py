"""Pictures into files that appear whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, PngImagePlugin
from torch import Tensor

from ..base.checks import check_numbers
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

    Args:
        path: its ending is the type: .png, .jpg, .webp, .tiff or .bmp.
        settings: recipe, seed, any JSON: they travel in the file, as PNG text or EXIF, for `settings_of` to read.
        quality: 0 to 100, for JPEG and WebP.
        bits: of a color, 8, or 16 for PNG and TIFF.

    Raises:
        ValueError: for an unknown file type or quality, or bits that the type cannot hold.
        OSError: when the place cannot be written to.
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
    text, exif = PngImagePlugin.PngInfo(), Image.Exif()
    text.add_itxt("labkit", note)
    exif[ExifTags.Base.ImageDescription] = f"labkit {note}"
    carrier = {"pnginfo": text} if kind == "PNG" else {"exif": exif, "quality": quality}
    with written_whole(path) as temporary:
        image.save(temporary, kind, **carrier)
    return path


def check_place(path: str | Path, quality: int = 92, bits: int = 8) -> str:
    """Raise the errors of `save` before a long run; Pillow's name of the picture type that it would write."""
    kind = Image.registered_extensions().get(Path(path).suffix.lower(), "")
    if kind not in ("PNG", "JPEG", "WEBP", "TIFF", "BMP"):
        endings = ".png, .jpg, .webp, .tiff or .bmp"
        raise ValueError(f"cannot tell a picture type from {Path(path).name!r}: end it in {endings}")
    check_numbers(most=100, quality=quality)
    if bits != 8 and not (bits == 16 and kind in ("PNG", "TIFF")):
        raise ValueError(f"a color has 8 bits, or 16 in .png and .tiff, not {bits} in {Path(path).suffix}")
    check_writable(path)
    return kind
