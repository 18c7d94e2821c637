"""Pictures into files that appear whole or not at all."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, PngImagePlugin
from torch import Tensor

from ..base.checks import check_numbers
from ..base.files import check_writable, written_whole
from .geometry import size_of
from .reading import as_picture


def to_pil(picture: Tensor) -> Image.Image:
    """The first picture of a batch as an 8-bit RGB Pillow image, rounded (not truncated)."""
    picture = as_picture(picture)[0]
    return Image.fromarray((picture * 255).round().byte().permute(1, 2, 0).cpu().numpy())


def save(
    picture: Tensor,
    path: str | Path,
    settings: Mapping[str, Any] | None = None,
    quality: int = 92,
    bits: int = 8,
    alpha: Tensor | None = None,
) -> Path:
    """Write the first picture of a batch; the file appears whole or not at all.

    Args:
        path: its ending is the type: .png, .jpg, .webp, .tiff or .bmp.
        settings: recipe, seed, any JSON: they travel in the file, as PNG text or EXIF, for `settings_of` to read.
        quality: 0 to 100, for JPEG and WebP.
        bits: of a color, 8, or 16 for PNG and TIFF.
        alpha: how opaque the picture is, (N, 1, H, W) in [0, 1], for PNG and WebP of 8 bits. `load` lays it on white.

    Raises:
        ValueError: for an unknown file type or quality, or bits or transparency that the type cannot hold.
        OSError: when the place cannot be written to.
    """
    path = Path(path)
    kind = check_place(path, quality, bits)
    if alpha is not None and (bits != 8 or kind not in ("PNG", "WEBP") or alpha.shape[-2:] != picture.shape[-2:]):
        wants = f"transparency goes into .png or .webp of 8 bits, and is of the picture's size {size_of(picture)}"
        raise ValueError(f"{wants}, not {bits} bits in {path.suffix} and {size_of(alpha)}")
    note = json.dumps(dict(settings or {}), default=str)
    if bits == 16:
        levels = (as_picture(picture)[0].cpu().double() * 65535).round().permute(1, 2, 0).numpy().astype(np.uint16)
        with written_whole(path) as temporary:
            if kind == "PNG":
                _write_png(levels, temporary, note)
            else:
                from tifffile import imwrite  # comes with scikit-image

                options = {"photometric": "rgb", "compression": "zlib", "metadata": None}
                imwrite(temporary, levels, description=f"labkit {note}", **options)
        return path
    image = to_pil(picture)
    if alpha is not None:
        image.putalpha(to_pil(alpha[:1].expand(-1, 3, -1, -1)).convert("L"))
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


def _write_png(levels: np.ndarray, path: Path, note: str) -> None:
    """Write levels (H, W, 3), uint16, as a PNG (ISO/IEC 15948), which Pillow cannot; ``note`` is its text "labkit"."""
    height, width, _ = levels.shape
    rows = np.ascontiguousarray(levels, ">u2").view(np.uint8).reshape(height, width * 6)
    filtered = np.empty((height, 1 + width * 6), np.uint8)
    filtered[:, 0] = 1  # each row says: every byte less the same byte of the pixel to its left, which packs better
    filtered[:, 1:7], filtered[:, 7:] = rows[:, :6], rows[:, 6:] - rows[:, :-6]
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)),
        (b"sRGB", b"\0"),
        (b"iTXt", b"labkit\0\0\0\0\0" + note.encode()),
        (b"IDAT", zlib.compress(filtered.tobytes(), 6)),
        (b"IEND", b""),
    ]
    packed = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
