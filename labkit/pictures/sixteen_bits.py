"""Pictures with 16 bits a color, which Pillow reads but does not write: PNG and TIFF."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np


def write_png(levels: np.ndarray, path: str | Path, note: str = "") -> None:
    """Write levels (H, W, 3), uint16, as a PNG (ISO/IEC 15948) with ``note`` as its text "labkit"."""
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
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for kind, data in chunks:
            file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))


def write_tiff(levels: np.ndarray, path: str | Path, note: str = "") -> None:
    """Write levels (H, W, 3), uint16, as a TIFF with ``note`` as its description."""
    from tifffile import imwrite  # comes with scikit-image

    imwrite(path, levels, photometric="rgb", compression="zlib", description=f"labkit {note}", metadata=None)
