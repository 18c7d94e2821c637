"""Films as files: what is written comes back, lasts as long as it should, and appears whole or not at all."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import labkit as lk
from labkit.pictures.films import rate_of

COLORS = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.8, 0.2], [0.1, 0.2, 0.9], [0.5, 0.5, 0.5], [0.0, 0.9, 0.9]])
FRAMES = COLORS[:, :, None, None].expand(-1, -1, 16, 24)


class FakeFfmpeg(ModuleType):
    """imageio-ffmpeg's two generators, on a file of raw bytes."""

    def write_frames(self, path: str, size: tuple[int, int], **options: object) -> Iterator[None]:
        self.options = options
        with open(path, "wb") as file:
            file.write(bytes(size))
            while True:
                file.write((yield))

    def read_frames(self, path: str) -> Iterator[object]:
        data = Path(path).read_bytes()
        if data.startswith(b"broken"):
            raise OSError("Could not load meta information\nUnknown codec 'xyz'")
        width, height = data[:2]
        yield {"size": (width, height)}
        frames = data[2:]
        yield from (frames[i : i + 3 * width * height] for i in range(0, len(frames), 3 * width * height))


@pytest.fixture
def ffmpeg(monkeypatch: pytest.MonkeyPatch) -> FakeFfmpeg:
    fake = FakeFfmpeg("imageio_ffmpeg")
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", fake)
    return fake


@pytest.fixture
def no_ffmpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)


def save(frames: object, path: Path, *args: object, **options: object) -> Path:
    return lk.save_frames(frames, path, *args, **{"progress": False} | options)


def durations(path: Path) -> list[int]:
    with Image.open(path) as image:
        found = []
        for number in range(image.n_frames):
            image.seek(number)
            image.load()
            found.append(round(image.info["duration"]))
        return found


# --- round trips --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("suffix", "atol"), [("gif", 0.02), ("webp", 0.06), ("mp4", 0.003)])
def test_frames_come_back_in_their_order(tmp_path: Path, ffmpeg: FakeFfmpeg, suffix: str, atol: float) -> None:
    path = save(iter(FRAMES), tmp_path / f"x.{suffix}")
    back = torch.cat(list(lk.frames_of(path)))
    assert back.shape == FRAMES.shape
    assert (back - FRAMES).abs().max() < atol
    assert [p.shape for p in lk.frames_of(path, 12)] == [(1, 3, 8, 12)] * 5
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_read_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    for number in (10, 9, 2, 1, 100):
        lk.save(torch.full((1, 3, 4, 4), number / 255), tmp_path / f"frame{number}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    values = [round(255 * p.mean().item()) for p in lk.frames_of(tmp_path)]
    assert values == [1, 2, 9, 10, 100]


@pytest.mark.parametrize("source", [FRAMES, list(FRAMES), [f.permute(1, 2, 0).numpy() for f in FRAMES], iter(FRAMES)])
def test_frames_are_taken_from_anything(source: object) -> None:
    assert torch.equal(torch.cat(list(lk.frames_of(source))), FRAMES)


def test_an_mp4_gets_the_rate_the_quality_and_no_needless_scaling(tmp_path: Path, ffmpeg: FakeFfmpeg) -> None:
    save(FRAMES, tmp_path / "x.mp4", 30, quality=90)
    assert ffmpeg.options == {"fps": 30, "quality": 9.0, "macro_block_size": 2}


def test_an_mp4_is_written_while_the_frames_are_computed(tmp_path: Path, ffmpeg: FakeFfmpeg) -> None:
    sizes: list[int] = []

    def watched() -> Iterator[Tensor]:
        for frame in FRAMES:
            sizes.append(len(list(tmp_path.iterdir())))
            yield frame

    save(watched(), tmp_path / "x.mp4")
    assert sizes == [0, 1, 1, 1, 1]


# --- time ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("suffix", "tick"), [("gif", 10), ("webp", 1)])
@pytest.mark.parametrize("fps", [12, 24, 30, 50])
def test_a_film_is_as_long_as_it_should_be_at_any_rate(tmp_path: Path, suffix: str, tick: int, fps: int) -> None:
    found = durations(save(torch.cat([FRAMES] * 5), tmp_path / f"x.{suffix}", fps))
    assert sum(found) == pytest.approx(25_000 / fps, abs=tick)
    assert max(found) - min(found) <= tick


@pytest.mark.parametrize("suffix", ["gif", "webp", "mp4"])
def test_the_rate_of_a_film_is_read_from_its_file(tmp_path: Path, suffix: str) -> None:
    assert rate_of(save(FRAMES, tmp_path / f"x.{suffix}", 20)) == pytest.approx(20)


def test_what_does_not_move_has_no_rate(tmp_path: Path) -> None:
    lk.save(FRAMES[:1], tmp_path / "x.webp")
    assert rate_of(tmp_path / "x.webp") is None
    assert rate_of(tmp_path) is None
    with pytest.raises(FileNotFoundError, match="no film at"):
        rate_of(tmp_path / "nothing.gif")


def test_a_film_repeats_for_ever(tmp_path: Path) -> None:
    with Image.open(save(FRAMES, tmp_path / "x.gif")) as image:
        assert image.info["loop"] == 0


# --- stopped and failing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["gif", "webp", "mp4"])
def test_an_interrupt_keeps_the_frames_there_are(tmp_path: Path, ffmpeg: FakeFfmpeg, suffix: str) -> None:
    def interrupted(frames: int) -> Iterator[Tensor]:
        yield from FRAMES[:frames]
        raise KeyboardInterrupt

    assert len(list(lk.frames_of(save(interrupted(3), tmp_path / f"x.{suffix}")))) == 3
    with pytest.raises(KeyboardInterrupt):
        save(interrupted(0), tmp_path / f"y.{suffix}")
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("suffix", ["gif", "webp", "mp4"])
def test_a_failing_dream_keeps_the_old_film(tmp_path: Path, ffmpeg: FakeFfmpeg, suffix: str) -> None:
    def failing() -> Iterator[Tensor]:
        yield FRAMES[0]
        raise RuntimeError("out of memory")

    path = save(FRAMES, tmp_path / f"x.{suffix}")
    old = path.read_bytes()
    with pytest.raises(RuntimeError, match="out of memory"):
        save(failing(), path)
    assert path.read_bytes() == old and list(tmp_path.iterdir()) == [path]


def never() -> Iterator[Tensor]:
    pytest.fail("the first frame was computed before the arguments were checked")
    yield


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("x.avi", {}, ValueError, "cannot tell a film's type from 'x.avi': end it in .gif, .webp or .mp4"),
        ("x", {}, ValueError, "cannot tell a film's type from 'x'"),
        ("x.gif", {"fps": 60}, ValueError, "a GIF shows at most 50 frames a second, not 60: use .webp or .mp4"),
        ("x.gif", {"fps": 0}, ValueError, "fps must be a number from 0.01 to 1,000, not 0"),
        ("x.webp", {"quality": 101}, ValueError, "quality must be a number from 0 to 100, not 101"),
        ("x.mp4", {}, ValueError, "x.mp4 needs ffmpeg: pip install imageio-ffmpeg, or use an animated .gif"),
        ("missing/x.gif", {}, OSError, "No such file or directory; choose a file in a folder that exists"),
    ],
)
def test_what_cannot_be_written_is_refused_at_once(
    tmp_path: Path, no_ffmpeg: None, name: str, options: dict, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        save(never(), tmp_path / name, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", ["gif", "webp", "mp4"])
@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([], "a film without frames: there is nothing to write"),
        ([FRAMES[0], FRAMES[1, :, :8]], "a film's frames have one size, not 24x16 and 24x8 pixels"),
    ],
)
def test_frames_that_make_no_film_are_refused(
    tmp_path: Path, ffmpeg: FakeFfmpeg, suffix: str, frames: list, message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        save(frames, tmp_path / f"x.{suffix}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "data", "error", "message"),
    [
        ("x.mp4", b"broken", ValueError, "cannot be decoded (Unknown codec 'xyz'): save it anew as H.264"),
        ("x.gif", b"broken", ValueError, "is no film that can be read"),
        ("x.gif", None, FileNotFoundError, "no film at"),
    ],
)
def test_a_bad_film_is_refused(
    tmp_path: Path, ffmpeg: FakeFfmpeg, name: str, data: bytes | None, error: type[Exception], message: str
) -> None:
    if data:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(error, match=re.escape(message)):
        list(lk.frames_of(tmp_path / name))


def test_a_film_cut_off_in_the_middle_is_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).random((3, 32, 32, 3))
    path = save(list(noise), tmp_path / "x.gif")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match="is no film that can be read"):
        list(lk.frames_of(path))
    with pytest.raises(ValueError, match="is no film that can be read"):
        rate_of(path)


@pytest.mark.parametrize("source", [[], torch.zeros(0, 3, 4, 4)])
def test_a_film_without_frames_is_refused(tmp_path: Path, source: object) -> None:
    for nothing in (source, tmp_path):
        with pytest.raises(ValueError, match="a film without frames"):
            list(lk.frames_of(nothing))


def test_a_video_without_ffmpeg_says_what_to_install(tmp_path: Path, no_ffmpeg: None) -> None:
    (tmp_path / "x.mp4").write_bytes(b"film")
    with pytest.raises(ValueError, match="pip install imageio-ffmpeg"):
        list(lk.frames_of(tmp_path / "x.mp4"))
