"""Pictures: every kind of file is read as it looks, bad ones are refused in one clear line, and saving is whole."""

from __future__ import annotations

import random
import re
import struct
import time
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageCms
from skimage.color import rgb2ycbcr
from torch import Tensor

import labkit as lk
from labkit.pictures.writing import check_place


def smooth(height: int = 24, width: int = 36) -> Tensor:
    """A picture that compresses well and is different in every corner and color."""
    y, x = torch.linspace(0, 1, height)[:, None], torch.linspace(0, 1, width)[None, :]
    return torch.stack([x.expand(height, width), y.expand(height, width), (1 - x) * (0.2 + 0.6 * y)])[None]


def pixels(picture: Tensor) -> np.ndarray:
    """The first picture of a batch as (H, W, 3), 0 to 255."""
    return (picture[0] * 255).round().byte().permute(1, 2, 0).numpy()


def loaded(image: Image.Image, path: Path, **options: object) -> Tensor:
    image.save(path, **options)
    return lk.load(path)


def assert_close(found: Tensor, expected: Tensor | np.ndarray | list, atol: float = 1e-6) -> None:
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=torch.float32), atol=atol, rtol=0)


# --- round trips -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "PNG", "tiff", "tif", "bmp"])
def test_a_lossless_file_gives_every_pixel_back_rounded(tmp_path: Path, suffix: str) -> None:
    picture = torch.rand(1, 3, 17, 23, generator=torch.Generator().manual_seed(0))
    back = lk.load(lk.save(picture, tmp_path / f"x.{suffix}"))
    assert back.dtype == torch.float32
    assert_close(back, (picture * 255).round() / 255)


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "webp"])
def test_a_lossy_file_gives_back_nearly_the_same_picture(tmp_path: Path, suffix: str) -> None:
    back = lk.load(lk.save(smooth(), tmp_path / f"x.{suffix}"))
    assert back.shape == smooth().shape
    assert (back - smooth()).abs().mean() < 0.015


def test_a_lower_quality_makes_a_smaller_file(tmp_path: Path) -> None:
    picture = lk.photo("chelsea", 128)
    sizes = [lk.save(picture, tmp_path / f"{q}.jpg", quality=q).stat().st_size for q in (20, 60, 95)]
    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff"])
@pytest.mark.parametrize("settings", [{"recipe": "dream", "layers": {"relu4_3": 0.5}, "seed": None, "ö": "π\n"}, {}])
def test_settings_travel_in_the_file(tmp_path: Path, suffix: str, settings: dict) -> None:
    assert lk.settings_of(lk.save(smooth(), tmp_path / f"x.{suffix}", settings)) == settings


@pytest.mark.parametrize("description", ["a day at the sea", "{not ours", "labkit"])
def test_the_note_of_another_program_is_no_settings(tmp_path: Path, description: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = description
    lk.to_pil(smooth()).save(tmp_path / "x.jpg", exif=exif)
    assert lk.settings_of(tmp_path / "x.jpg") == {}


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_transparency_is_saved_and_lies_on_white_when_it_is_read(tmp_path: Path, suffix: str) -> None:
    picture, alpha = torch.full((2, 3, 8, 8), 0.25), torch.linspace(0, 1, 8).expand(2, 1, 8, 8)
    path = lk.save(picture, tmp_path / f"x{suffix}", {"seed": 3}, quality=100, alpha=alpha)
    np.testing.assert_allclose(np.asarray(Image.open(path))[0, :, 3], 255 * alpha[0, 0, 0], atol=0.51)
    torch.testing.assert_close(lk.load(path), (alpha * picture + 1 - alpha)[:1], rtol=0, atol=0.015)
    assert lk.settings_of(path) == {"seed": 3}


@pytest.mark.parametrize(("name", "bits", "side"), [("x.jpg", 8, 8), ("x.png", 16, 8), ("x.png", 8, 7)])
def test_transparency_that_a_file_cannot_hold_is_refused(tmp_path: Path, name: str, bits: int, side: int) -> None:
    with pytest.raises(
        ValueError, match=rf"transparency goes into .png or .webp of 8 bits, .*\(8, 8\), not {bits} bits"
    ):
        lk.save(torch.rand(1, 3, 8, 8), tmp_path / name, bits=bits, alpha=torch.rand(1, 1, side, side))
    assert not (tmp_path / name).exists()


def test_saving_takes_the_first_picture_of_a_batch(tmp_path: Path) -> None:
    batch = torch.cat([smooth(), 1 - smooth()])
    assert_close(lk.load(lk.save(batch, tmp_path / "x.png")), smooth(), 0.5 / 255 + 1e-6)


# --- every kind of file ------------------------------------------------------------------------------------------

ORIENTATIONS: dict[int, Callable[[np.ndarray], np.ndarray]] = {  # what a viewer does to the stored pixels
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
}


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stored = pixels(smooth())
    found = loaded(Image.fromarray(stored), tmp_path / f"x.{suffix}", exif=exif)
    upright = ORIENTATIONS[orientation](stored)
    assert found.shape[-2:] == upright.shape[:2]
    assert np.abs(pixels(found).astype(int) - upright).mean() < 4  # a wrong turn is off by more than 40


@pytest.mark.parametrize(
    ("mode", "pixel", "expected"),
    [
        ("RGBA", (255, 0, 0, 255), (1, 0, 0)),
        ("RGBA", (255, 0, 0, 0), (1, 1, 1)),
        ("RGBA", (255, 0, 0, 102), (1, 0.6, 0.6)),
        ("LA", (0, 102), (0.6, 0.6, 0.6)),
        ("L", 51, (0.2, 0.2, 0.2)),
        ("RGB", (51, 102, 153), (0.2, 0.4, 0.6)),
        ("1", 1, (1, 1, 1)),
    ],
)
def test_alpha_lies_on_white_and_gray_becomes_rgb(
    tmp_path: Path, mode: str, pixel: int | tuple[int, ...], expected: tuple[float, ...]
) -> None:
    found = loaded(Image.new(mode, (3, 2), pixel), tmp_path / "x.png")
    assert_close(found, torch.tensor(expected).view(1, 3, 1, 1).expand(1, 3, 2, 3), 1e-3)


@pytest.mark.parametrize(
    ("suffix", "options", "expected"),
    [
        ("gif", {}, (1, 0, 0)),
        ("gif", {"transparency": 1}, (1, 1, 1)),
        ("png", {}, (1, 0, 0)),
        ("png", {"transparency": 1}, (1, 1, 1)),
        ("png", {"transparency": bytes([255, 102])}, (1, 0.6, 0.6)),
    ],
)
def test_a_palette_with_and_without_transparency(
    tmp_path: Path, suffix: str, options: dict, expected: tuple[float, ...]
) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([0, 255, 0, 255, 0, 0])
    image.putpixel((1, 0), 1)
    found = loaded(image, tmp_path / f"x.{suffix}", **options)
    assert_close(found[0, :, 0, 0], (0.0, 1.0, 0.0))
    assert_close(found[0, :, 0, 1], expected, 1e-3)


def test_one_transparent_color_of_an_rgb_png(tmp_path: Path) -> None:
    image = Image.new("RGB", (2, 1), (10, 20, 30))
    image.putpixel((1, 0), (255, 0, 0))
    found = loaded(image, tmp_path / "x.png", transparency=(10, 20, 30))
    assert_close(found[0, :, 0], [[1, 1], [1, 0], [1, 0]])


@pytest.mark.parametrize("suffix", ["jpg", "tiff"])
@pytest.mark.parametrize(
    ("ink", "expected"), [((0, 255, 255, 0), (1, 0, 0)), ((0, 0, 0, 0), (1, 1, 1)), ((0, 0, 0, 255), (0, 0, 0))]
)
def test_cmyk(tmp_path: Path, suffix: str, ink: tuple[int, ...], expected: tuple[float, ...]) -> None:
    found = loaded(Image.new("CMYK", (16, 16), ink), tmp_path / f"x.{suffix}")
    assert_close(found.mean((0, 2, 3)), expected, 0.02)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bit_gray_keeps_its_range_and_its_steps(tmp_path: Path, suffix: str) -> None:
    levels = np.array([[0, 1, 255, 256, 30000, 65535]], np.uint16)
    found = loaded(Image.fromarray(levels), tmp_path / f"x.{suffix}")
    assert_close(found, np.broadcast_to(levels / 65535, (1, 3, 1, 6)).copy())


def test_floating_point_gray_is_read_as_it_is(tmp_path: Path) -> None:
    levels = np.array([[0, 0.25, 1]], np.float32)
    assert_close(loaded(Image.fromarray(levels), tmp_path / "x.tiff"), np.broadcast_to(levels, (1, 3, 1, 3)).copy())


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tiff"])
def test_of_an_animation_the_first_frame_counts(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "lime", "blue")]
    found = loaded(frames[0], tmp_path / f"x.{suffix}", save_all=True, append_images=frames[1:])
    assert_close(found.mean((0, 2, 3)), (1.0, 0.0, 0.0), 0.02)


# --- color profiles ---------------------------------------------------------------------------------------------


def srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def swapped() -> bytes:
    """sRGB with the red and the green primary exchanged: a picture with this profile looks the other way round."""
    count = struct.unpack(">I", srgb()[128:132])[0]
    table, rest = srgb()[: 132 + 12 * count], srgb()[132 + 12 * count :]
    return table.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ") + rest


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff"])
@pytest.mark.parametrize("profile", [srgb(), b"nonsense", srgb()[:200]], ids=["sRGB", "nonsense", "cut off"])
def test_an_srgb_profile_or_a_broken_one_changes_nothing(tmp_path: Path, suffix: str, profile: bytes) -> None:
    image = lk.to_pil(smooth())
    plain = loaded(image, tmp_path / f"plain.{suffix}")
    assert_close(loaded(image, tmp_path / f"x.{suffix}", icc_profile=profile), plain, 1.01 / 255)


def test_a_profile_that_does_not_fit_the_pixels_changes_nothing(tmp_path: Path) -> None:
    found = loaded(Image.new("L", (4, 4), 51), tmp_path / "x.png", icc_profile=srgb())
    assert_close(found, torch.full((1, 3, 4, 4), 0.2))


@pytest.mark.parametrize(
    ("suffix", "mode"), [("png", "RGB"), ("png", "P"), ("jpg", "RGB"), ("webp", "RGB"), ("tiff", "RGB")]
)
def test_an_embedded_profile_is_converted_to_srgb(tmp_path: Path, suffix: str, mode: str) -> None:
    image = Image.new("RGB", (16, 16), (255, 0, 0)).convert(mode)
    found = loaded(image, tmp_path / f"x.{suffix}", icc_profile=swapped())
    assert_close(found.mean((0, 2, 3)), (0.0, 1.0, 0.0), 0.02)


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_a_profile_and_transparency_together(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 255, 0))
    image = image if mode == "RGBA" else image.quantize(4)
    found = loaded(image, tmp_path / "x.png", icc_profile=swapped())
    assert_close(found[0, :, 0], [[0, 1], [1, 1], [0, 1]], 0.02)


# --- bad files ---------------------------------------------------------------------------------------------------


def huge_png(side: int) -> bytes:
    """A few bytes that claim side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(99))), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def encoded(kind: str, **options: object) -> bytes:
    buffer = BytesIO()
    lk.to_pil(lk.photo("chelsea", 48)).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("x.txt", b"some words", "not a picture that can be read .*: use PNG, JPEG or WebP"),
        ("x.png", b"", r"is empty \(0 bytes\): it was probably not copied"),
        ("x.jpg", "JPEG", "damaged or cut off .*: copy or download it again"),
        ("x.png", "PNG", "damaged or cut off .*: copy or download it again"),
        ("x.webp", "WEBP", "damaged or cut off"),
        ("x.png", huge_png(40_000), "too large a picture .*1600000000 pixels.*: make it smaller first"),
    ],
    ids=["words", "empty", "truncated JPEG", "truncated PNG", "truncated WebP", "1.6 gigapixels"],
)
def test_a_bad_file_is_refused_in_one_line(tmp_path: Path, name: str, data: bytes | str, message: str) -> None:
    (tmp_path / name).write_bytes(encoded(data)[:-400] if isinstance(data, str) else data)
    started = time.perf_counter()
    with pytest.raises(ValueError, match=f"^{re.escape(str(tmp_path / name))}.*{message}") as caught:
        lk.load(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert time.perf_counter() - started < 1  # refused by its header, not by running out of memory


@pytest.mark.filterwarnings("ignore")  # Pillow's, about damaged metadata
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF"])
def test_a_file_damaged_anywhere_is_a_picture_or_a_clear_error(tmp_path: Path, kind: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    options = {} if kind in ("BMP", "GIF") else {"exif": exif, "icc_profile": srgb()}
    good, draw = encoded(kind, **options), random.Random(0)
    path = tmp_path / "x"
    refused = 0
    for _ in range(60):
        bad = bytearray(good[: draw.choice([len(good), draw.randrange(1, len(good))])])
        for _ in range(draw.choice([1, 4])):
            bad[draw.randrange(min(len(bad), draw.choice([300, len(bad)])))] = draw.randrange(256)
        path.write_bytes(bad)
        try:
            assert lk.load(path).shape[1] == 3
        except ValueError as error:
            assert str(error).startswith(str(path))
            refused += 1
    assert refused > 5


def test_a_missing_file_says_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"no picture at x.png: check the path .now in {tmp_path}"):
        lk.load("x.png")
    with pytest.raises(IsADirectoryError, match="is a folder, not a picture: name a file in it"):
        lk.load(tmp_path)


@pytest.mark.parametrize(
    ("place", "picture", "error", "message"),
    [
        ("x.xyz", smooth(), ValueError, "cannot tell a picture type from 'x.xyz': end it in .png"),
        ("x", smooth(), ValueError, "cannot tell a picture type from 'x'"),
        ("x.gif", smooth(), ValueError, "cannot tell a picture type from 'x.gif'"),
        ("missing/x.png", smooth(), OSError, "cannot write .*missing.x.png: No such file or directory; choose"),
        ("x.png", smooth() * torch.nan, ValueError, "NaN or infinite pixels"),
        ("x.png", smooth() * 255, ValueError, "from 0 to 255"),
    ],
)
def test_what_cannot_be_saved_leaves_nothing_behind(
    tmp_path: Path, place: str, picture: Tensor, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        lk.save(picture, tmp_path / place)
    assert not list(tmp_path.iterdir())


def test_a_failing_encoder_keeps_the_old_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = lk.save(smooth(), tmp_path / "x.png")
    old = path.read_bytes()

    def fail(image: Image.Image, place: Path, *args: object, **options: object) -> None:
        Path(place).write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="no space left"):
        lk.save(1 - smooth(), path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("quality", [-1, 101])
def test_a_place_is_checked_before_a_long_run(tmp_path: Path, quality: int) -> None:
    assert check_place(tmp_path / "x.JPG", 100) == "JPEG"
    with pytest.raises(ValueError, match=f"quality must be a number from 0 to 100, not {quality}"):
        check_place(tmp_path / "x.jpg", quality)
    with pytest.raises(OSError, match="cannot write"):
        check_place(tmp_path / "missing" / "x.jpg")
    assert not list(tmp_path.iterdir())


# --- anything as a picture ---------------------------------------------------------------------------------------

BYTES = pixels(smooth())


@pytest.mark.parametrize(
    "source",
    [
        BYTES,
        BYTES.astype(np.float64) / 255,
        BYTES.astype(np.float16) / 255,
        BYTES[::-1].copy()[::-1],  # with a negative stride
        np.dstack([BYTES, np.full_like(BYTES[..., 0], 255)]),
        np.dstack([BYTES / 255, np.ones(BYTES.shape[:2])]),
        Image.fromarray(BYTES),
        torch.from_numpy(BYTES / 255).permute(2, 0, 1),
        (torch.from_numpy(BYTES / 255).permute(2, 0, 1)[None]).requires_grad_(),
    ],
    ids=["uint8", "float64", "float16", "view", "uint8-alpha", "float-alpha", "Pillow", "tensor", "batch"],
)
def test_anything_that_shows_a_picture(source: object) -> None:
    found = lk.as_picture(source)
    assert not found.requires_grad
    assert_close(found, smooth(), 0.5 / 255 + 1e-3)


@pytest.mark.parametrize("gray", [np.full((2, 3), 51, np.uint8), np.full((2, 3), 0.2)], ids=["uint8", "float"])
def test_a_gray_array_becomes_rgb(gray: np.ndarray) -> None:
    assert_close(lk.as_picture(gray), torch.full((1, 3, 2, 3), 0.2))


@pytest.mark.parametrize("scale", [255, 1])
def test_the_alpha_of_an_array_lies_on_white(scale: int) -> None:
    array = (np.array([[[1, 0, 0, 0.4], [0, 0, 0, 0]]]) * scale).astype(np.uint8 if scale == 255 else np.float32)
    assert_close(lk.as_picture(array)[0, :, 0], [[1, 1], [0.6, 1], [0.6, 1]], 1e-3)


def test_paths_and_sizes_are_taken_too(tmp_path: Path) -> None:
    path = lk.save(smooth(24, 36), tmp_path / "x.png")
    assert lk.as_picture(path, 18).shape == (1, 3, 12, 18)
    assert lk.as_picture(str(path), (5, 7)).shape == (1, 3, 5, 7)
    assert lk.load(path, 18).shape == (1, 3, 12, 18)


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (np.full((4, 5, 3), np.nan), ValueError, r"NaN or infinite pixels: repair them first, e.g. .*nan_to_num"),
        (torch.full((1, 3, 4, 5), torch.inf), ValueError, "NaN or infinite"),
        (np.full((4, 5, 3), 255.0), ValueError, r"must lie in \[0, 1\], these run from 255 to 255: divide by 255"),
        (np.arange(300).reshape(10, 10, 3), ValueError, "run from 0 to 299"),
        (-torch.ones(3, 4, 4), ValueError, "run from -1 to -1"),
        (np.zeros((3, 8, 9)), ValueError, r"\(height, width\), with 3 or 4 colors at the end, not \(3, 8, 9\)"),
        (np.zeros((4, 5, 5), np.uint8), ValueError, r"not \(4, 5, 5\)"),
        (np.zeros((1, 4, 5, 3), np.uint8), ValueError, r"not \(1, 4, 5, 3\)"),
        (np.zeros(7), ValueError, r"not \(7,\)"),
        (torch.zeros(4, 5), ValueError, r"has the shape \(N, 3, height, width\), this one has \(4, 5\)"),
        (torch.zeros(1, 1, 4, 5), ValueError, r"this one has \(1, 1, 4, 5\)"),
        (torch.zeros(1, 3, 0, 5), ValueError, r"this one has \(1, 3, 0, 5\)"),
        (None, TypeError, "a picture is a path, a Pillow image, an array or a tensor, not NoneType"),
    ],
)
def test_what_is_no_picture_is_refused(source: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        lk.as_picture(source)


def test_rounding_noise_beyond_the_range_is_clamped() -> None:
    found = lk.as_picture(torch.tensor([-5e-5, 0.5, 1 + 5e-5]).view(1, 3, 1, 1))
    assert_close(found.flatten(), (0, 0.5, 1))


# --- size and color ---------------------------------------------------------------------------------------------


def test_resizing_is_antialiased() -> None:
    checkerboard = (torch.arange(64)[:, None] + torch.arange(64)) % 2
    picture = checkerboard.float().expand(1, 3, 64, 64)
    assert_close(lk.resize(picture, 13), torch.full((1, 3, 13, 13), 0.5), 0.02)


@pytest.mark.parametrize("size", [(7, 5), (96, 64), 9])
@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_a_constant_stays_constant(size: int | tuple[int, int], value: float) -> None:
    found = lk.resize(torch.full((2, 3, 32, 24), value), size)
    assert_close(found, torch.full_like(found, value), 1e-5)


@pytest.mark.parametrize(
    ("size", "expected"),
    [(18, (12, 18)), (36, (24, 36)), (900, (24, 36)), (1, (1, 1)), ((30, 50), (30, 50)), (np.int64(18), (12, 18))],
)
def test_a_size_is_the_longer_side_and_never_enlarges(size: object, expected: tuple[int, int]) -> None:
    assert tuple(lk.resize(smooth(24, 36), size).shape[-2:]) == expected
    if not isinstance(size, tuple):
        assert tuple(lk.resize(smooth(36, 24), size).shape[-2:]) == expected[::-1]


@pytest.mark.parametrize("size", [0, -3, (0, 5), (5, -1)])
def test_a_size_without_pixels_is_refused(size: int | tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="needs at least one pixel each way, not"):
        lk.resize(smooth(), size)


def test_resizing_stays_within_the_range() -> None:
    edge = torch.zeros(1, 3, 8, 8)
    edge[..., 4:] = 1
    found = lk.resize(edge, (64, 64))  # a cubic overshoots at an edge
    assert (found.min(), found.max()) == (0, 1)


def test_luma_is_that_of_scikit_image() -> None:
    picture = torch.rand(2, 3, 9, 7, generator=torch.Generator().manual_seed(0))
    expected = (rgb2ycbcr(picture.numpy(), channel_axis=1)[:, :1] - 16) / 219  # skimage's runs from 16 to 235
    assert_close(lk.luma(picture), expected, 1e-5)


def test_difference_is_gray_and_amplified() -> None:
    a, b = torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
    b[0, :, 0, 0] = torch.tensor([0.1, 0.2, 0.3])
    found = lk.difference(a, b, gain=2)
    assert found.shape == (1, 3, 2, 2)
    assert_close(found[0, :, 0, 0], (0.4, 0.4, 0.4))
    assert found.sum() == pytest.approx(1.2)
    assert lk.difference(a, b, gain=100).max() == 1
    with pytest.raises(ValueError, match=r"pictures of one size are needed, not \(2, 2\) and \(2, 3\)"):
        lk.difference(a, torch.zeros(1, 3, 2, 3))


def test_a_grid_has_every_picture_in_its_place_on_white() -> None:
    pictures = [torch.full((1, 3, 5, 7), value) for value in (0.1, 0.2)] + [torch.full((3, 3, 5, 7), 0.3)]
    sheet = lk.grid(pictures, columns=2, gap=3)
    assert sheet.shape == (1, 3, 3 * 5 + 2 * 3, 2 * 7 + 3)
    corners = [(top, left) for top in (0, 8, 16) for left in (0, 10)]
    for (top, left), value in zip(corners, (0.1, 0.2, 0.3, 0.3, 0.3, 1.0), strict=True):
        part = sheet[..., top : top + 5, left : left + 7]
        assert_close(part, torch.full_like(part, value))
    assert sheet[..., 5:8, :].eq(1).all()
    assert sheet[..., 7:10].eq(1).all()


@pytest.mark.parametrize(
    ("pictures", "columns"), [([], 2), ([smooth()], 0), ([smooth(), smooth(5, 5)], 2)], ids=["none", "columns", "sizes"]
)
def test_a_grid_that_cannot_be_is_refused(pictures: list[Tensor], columns: int) -> None:
    with pytest.raises(ValueError, match="a grid needs pictures, all of one size, and at least one column"):
        lk.grid(pictures, columns)


# --- the pictures that come along --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", lk.PHOTOS)
def test_every_photo_is_there_without_a_download(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("a photo was downloaded")

    monkeypatch.setattr("socket.socket.connect", refuse)
    picture = lk.photo(name, 64)
    assert max(picture.shape[-2:]) == 64
    assert picture.std() > 0.05


@pytest.mark.parametrize("name", lk.paintings())
def test_every_painting_is_large_enough(name: str) -> None:
    picture = lk.painting(name)
    assert max(picture.shape[-2:]) >= 512
    assert picture.std() > 0.05


def test_there_are_paintings() -> None:
    assert len(lk.paintings()) >= 3


@pytest.mark.parametrize(("find", "one"), [(lk.photo, "chelsea"), (lk.painting, "koi_mosaic")])
def test_an_unknown_name_lists_those_there_are(find: Callable[[str], Tensor], one: str) -> None:
    with pytest.raises(ValueError, match=f"{find.__name__} is one of .*{one}.*, not 'nothing'"):
        find("nothing")
