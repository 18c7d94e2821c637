"""16 bits a color survive the way through files, read back by programs that are not ours."""

from __future__ import annotations

import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

import labkit as lk


def ramp() -> torch.Tensor:
    """All 65536 levels in red, backwards in green, and something else in blue; not square."""
    levels = torch.arange(65536.0, dtype=torch.float64) / 65535
    return torch.stack([levels, levels.flip(0), (levels * 7) % 1]).view(1, 3, 128, 512).float()


def by_ffmpeg(path: Path) -> np.ndarray:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb48le", "-"]
    return np.frombuffer(subprocess.run(command, check=True, capture_output=True).stdout, "<u2").reshape(128, 512, 3)


@pytest.mark.parametrize("name", ["ramp.png", "ramp.tiff", "ramp.tif"])
def test_every_level_survives(name: str, tmp_path: Path) -> None:
    path = lk.save(ramp(), tmp_path / name, bits=16)
    found = tifffile.imread(path) if "tif" in name else by_ffmpeg(path)
    assert np.array_equal(found, (ramp()[0].double() * 65535).round().permute(1, 2, 0).numpy().astype(np.uint16))
    assert len(np.unique(found[..., 0])) == 65536


@pytest.mark.parametrize("name", ["ramp.png", "ramp.tiff"])
def test_settings_and_an_eight_bit_view_are_read_by_pillow(name: str, tmp_path: Path) -> None:
    path = lk.save(ramp(), tmp_path / name, {"seed": 7, "word": "süß"}, bits=16)
    assert lk.settings_of(path) == {"seed": 7, "word": "süß"}
    with Image.open(path) as image:
        image.load()
        assert image.mode == "RGB" and image.size == (512, 128)
    assert (lk.load(path) - ramp()).abs().max() <= 1 / 255


@pytest.mark.parametrize(("name", "bits"), [("x.jpg", 16), ("x.webp", 16), ("x.png", 12), ("x.png", 0)])
def test_other_depths_are_refused_before_the_work(name: str, bits: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"not {bits} in"):
        lk.save(ramp(), tmp_path / name, bits=bits)
    assert not list(tmp_path.iterdir())
