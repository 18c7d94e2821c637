"""Films as files: frames read from folders, animations and videos, and written as GIF, WebP or MP4."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sized
from contextlib import closing, contextmanager
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageSequence, UnidentifiedImageError
from torch import Tensor

from ..base.bars import shows_bar
from ..base.checks import check_numbers
from ..base.files import check_writable, written_whole
from .reading import PICTURE_SUFFIXES, as_picture, from_pil
from .writing import to_pil

ANIMATIONS = {".gif": "GIF", ".webp": "WEBP"}
VIDEOS = (".mp4", ".mov", ".m4v", ".mkv", ".avi", ".webm")
FILM_SUFFIXES = (*ANIMATIONS, ".mp4")  # that can be written


def frames_of(source: Any, size: int | tuple[int, int] | None = None) -> Iterator[Tensor]:
    """The frames (1, 3, H, W) of a film, one after the other.

    Args:
        source: a folder of pictures, taken in the order of the numbers in their names; an animated GIF or WebP; a film
            file, which needs the package imageio-ffmpeg; or a list, generator or batch of anything `as_picture` takes.
        size: as for `resize`.

    Raises:
        ValueError: when there are no frames or the file cannot be read.
        FileNotFoundError: when there is no file.
    """
    film, frame = isinstance(source, (str, Path)), None
    frames = _read(_existing(source)) if film else source
    for frame in frames:
        yield as_picture(frame, size)
    if frame is None:
        raise ValueError("a film without frames" + (f": {source}" if film else ""))


def _existing(path: str | Path) -> Path:
    if not Path(path).exists():
        raise FileNotFoundError(f"no film at {path}: check the path (now in {Path.cwd()})")
    return Path(path)


def _read(path: Path) -> Iterator[Any]:
    if path.is_dir():
        numbers = {p: [int(n) for n in re.findall(r"\d+", p.name)] for p in path.iterdir()}
        pictures = [p for p in numbers if p.suffix.lower() in PICTURE_SUFFIXES]
        yield from sorted(pictures, key=lambda p: (numbers[p], p.name))
    elif path.suffix.lower() in VIDEOS:
        with _decoded(path) as reader:
            width, height = next(reader)["size"]
            for data in reader:
                yield np.frombuffer(data, np.uint8).reshape(height, width, 3)
    else:
        with _opened(path) as image:
            for frame in ImageSequence.Iterator(image):
                yield from_pil(frame.copy())


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            yield image
    except PermissionError:
        raise
    except (UnidentifiedImageError, OSError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is no film that can be read ({error}): use GIF, WebP or MP4") from error


def rate_of(path: str | Path) -> float | None:
    """How many frames a second a film file or an animation has; None for what does not say so, as a folder."""
    path = _existing(path)
    if path.suffix.lower() in VIDEOS:
        with _decoded(path) as reader:
            return next(reader).get("fps") or None
    if not animated(path):
        return None
    with _opened(path) as image:
        frames = (frame.copy() for frame in ImageSequence.Iterator(image))  # WebP tells durations when it is decoded
        durations = [frame.info.get("duration", 0) for frame in frames]
    return 1000 * len(durations) / sum(durations) if sum(durations) else None


def animated(path: str | Path) -> bool:
    """Is this an animated GIF or WebP? (Photos can hold several pictures, too: a preview, a map of depth.)"""
    if Path(path).suffix.lower() not in ANIMATIONS:
        return False
    with _opened(_existing(path)) as image:
        return getattr(image, "is_animated", False)


@contextmanager
def _decoded(path: Path) -> Iterator[Iterator[Any]]:
    """What ffmpeg says of a film: first a dictionary about it, then the bytes of its frames."""
    reader = _ffmpeg(path).read_frames(str(path))
    try:
        with closing(reader):
            yield reader
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        reason = str(error).strip().rpartition("\n")[2] or "no reason given"
        raise ValueError(f"{path} cannot be decoded ({reason}): save it anew as H.264 in .mp4") from error


def _ffmpeg(path: Path) -> Any:
    try:
        return import_module("imageio_ffmpeg")
    except ImportError as error:
        what = "pip install imageio-ffmpeg, or use an animated .gif or .webp, or a folder"
        raise ValueError(f"{path.name} needs ffmpeg: {what}") from error


def save_frames(
    frames: Iterable[Any],
    path: str | Path,
    fps: float = 12.0,
    *,
    quality: int = 80,
    total: int | None = None,
    progress: bool = True,
) -> Path:
    """Write frames as an animated .gif or .webp or as an .mp4, with a progress bar; the file appears whole or not.

    Args:
        frames: a list, batch or generator, all of one size; an interrupt (Ctrl-C) ends it, and what there is stays.
        fps: frames a second, 0.01 to 1000 (in a GIF 50), rounded so that the whole is as long as it should be.
        quality: 0 to 100, for WebP and MP4.
        total: how many frames are to come, for the progress bar.

    Raises:
        ValueError: before the first frame is computed, for a file type that cannot be written, saying what to install;
            afterwards when there was no frame.
        OSError: when the place cannot be written to.
    """
    path = Path(path)
    kind = check_film(path, fps, quality)
    ffmpeg = _ffmpeg(path) if kind == ".mp4" else None
    images = _images(frames, total, progress)
    first = next(images, None)
    if first is None:
        raise ValueError("a film without frames: there is nothing to write")
    with written_whole(path) as temporary:
        if ffmpeg:
            options = {"fps": fps, "quality": quality / 10, "macro_block_size": 2}  # H.264 needs even sides
            with closing(ffmpeg.write_frames(str(temporary), first.size, **options)) as writer:
                writer.send(None)
                for image in chain([first], images):
                    writer.send(image.tobytes())
            return path
        rest, tick = list(images), 10 if kind == ".gif" else 1  # milliseconds that the format counts in
        ends = [round(1000 * number / fps / tick) * tick for number in range(len(rest) + 2)]
        timing = {"duration": np.diff(ends).tolist(), "loop": 0}
        first.save(temporary, ANIMATIONS[kind], save_all=True, append_images=rest, quality=quality, **timing)
    return path


def check_film(path: str | Path, fps: float, quality: int = 80) -> str:
    """Raise the errors of `save_frames` before a long run; the ending of the film that it would write."""
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in FILM_SUFFIXES:
        raise ValueError(f"cannot tell a film's type from {path.name!r}: end it in .gif, .webp or .mp4")
    check_numbers(0.01, most=1000, fps=fps)
    check_numbers(most=100, quality=quality)
    if kind == ".gif" and fps > 50:
        raise ValueError(f"a GIF shows at most 50 frames a second, not {fps:g}: use .webp or .mp4")
    if kind == ".mp4":
        _ffmpeg(path)
    check_writable(path)
    return kind


def _images(frames: Iterable[Any], total: int | None, progress: bool) -> Iterator[Image.Image]:
    """The frames as Pillow images of one size, with a progress bar, until they or the user's patience end."""
    from tqdm.auto import tqdm

    total = len(frames) if total is None and isinstance(frames, Sized) else total
    size = None
    try:
        for frame in tqdm(frames, total=total, unit="frame", leave=False, disable=not shows_bar(progress)):
            image = to_pil(frame)
            if image.size != (size := size or image.size):
                sizes = " and ".join(f"{width}x{height}" for width, height in (size, image.size))
                raise ValueError(f"a film's frames have one size, not {sizes} pixels")
            yield image
    except KeyboardInterrupt:
        if size is None:
            raise
