"""Journeys and dreamt films: their movement at any rate, their flow against synthetic motion, and their stop."""

from __future__ import annotations

import itertools
import re
import warnings
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

import labkit as lk
from labkit.losses.activations import BoundActivation
from labkit.pictures.filters import blurred
from labkit.recipes.video import RAFT, raft, visible, warped, zoom_rotate

cat = cache(lambda: lk.photo("chelsea", (36, 48)))
QUICK = {"layers": "relu1_2", "octaves": 1, "steps": 1, "jitter": 2, "precision": "float32"}


@pytest.fixture(scope="module")
def pocket() -> lk.Backbone:
    return lk.load_backbone("pocket", "cpu")


def smooth(height: int = 48, width: int = 64) -> Tensor:
    noise = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    waves = blurred(noise, 6.0) - 0.5
    return 0.5 + 0.3 * waves / waves.abs().max()


def center(picture: Tensor, margin: int = 12) -> Tensor:
    return picture[..., margin:-margin, margin:-margin]


# --- movement -----------------------------------------------------------------------------------------------------


def test_a_quarter_turn_is_counterclockwise() -> None:
    square = smooth(32, 32)
    torch.testing.assert_close(zoom_rotate(square, 1, 90), torch.rot90(square, 1, (2, 3)), rtol=0, atol=1e-4)
    torch.testing.assert_close(zoom_rotate(square, 1, 0), square, rtol=0, atol=1e-5)


def test_a_turn_and_a_zoom_keep_the_shape_of_things() -> None:
    """In a picture that is not square: a disc stays a disc, with the zoomed area."""
    rows, columns = torch.meshgrid(torch.arange(60.0), torch.arange(90.0), indexing="ij")
    disc = (torch.hypot(rows - 29.5, columns - 44.5) < 12).float().expand(1, 3, -1, -1)
    larger = zoom_rotate(disc, 1.5, 37) > 0.5
    assert larger.sum() / disc.sum() == pytest.approx(1.5**2, rel=0.02)
    assert larger[0, 0].any(0).sum() == pytest.approx(36, abs=1) == pytest.approx(larger[0, 0].any(1).sum(), abs=1)


@pytest.mark.parametrize("fps", [2, 5, 10])
def test_after_a_second_a_journey_is_in_the_same_place_at_any_rate(pocket: lk.Backbone, fps: int) -> None:
    options = {"zoom": 1.4, "rotate": 30.0, "seconds": 1 + 1 / fps, "fps": fps, "step_size": 0}
    *_, last = lk.journey(smooth(), backbone=pocket, **QUICK | options)
    torch.testing.assert_close(center(last), center(zoom_rotate(smooth(), 1.4, 30)), rtol=0, atol=0.01)


def test_each_frame_is_the_last_one_moved_and_dreamt(pocket: lk.Backbone) -> None:
    first, second = lk.journey(cat(), backbone=pocket, seconds=1, fps=2, zoom=1.2, rotate=10, seed=7, **QUICK)
    dream = {**QUICK, "progress": False}
    assert torch.equal(first, lk.dream(cat(), backbone=pocket, seed=7, **dream))
    assert torch.equal(second, lk.dream(zoom_rotate(first, 1.2**0.5, 5), backbone=pocket, seed=8, **dream))


def test_a_journey_goes_on_until_it_is_stopped(pocket: lk.Backbone) -> None:
    frames = list(itertools.islice(lk.journey(cat(), backbone=pocket, seconds=None, fps=1, **QUICK), 4))
    assert [frame.shape for frame in frames] == [cat().shape] * 4
    assert all((a != b).any() for a, b in itertools.pairwise(frames))


def test_an_interrupt_stops_a_journey_and_not_only_a_frame(
    pocket: lk.Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss, calls = -lk.activation("relu1_2"), itertools.count(1)
    statistics = BoundActivation.statistics

    def interrupted(*args: object) -> object:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return statistics(*args)

    monkeypatch.setattr(BoundActivation, "statistics", interrupted)
    run = lk.journey(cat(), backbone=pocket, fps=4, **QUICK | {"layers": loss})
    assert len(list(lk.frames_of(lk.save_frames(run, tmp_path / "x.webp", progress=False)))) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fps": 0}, "fps must be a number from 0.01 to 1,000, not 0"),
        ({"zoom": 0}, "zoom must be a number from 0.01 to 1,000, not 0"),
        ({"seconds": -1}, "seconds must be a number from 0.01 to 86,400, not -1"),
        ({"rotate": float("nan")}, "rotate must be a number from -3,600 to 3,600, not nan"),
        ({"steps": 0}, "steps must be a whole number from 1 to 1,000,000, not 0"),
    ],
)
def test_journeys_that_make_no_sense_are_refused(pocket: lk.Backbone, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        next(lk.journey(cat(), backbone=pocket, **QUICK | options))


# --- flow ---------------------------------------------------------------------------------------------------------


def constant_flow(right: float, down: float, height: int = 48, width: int = 64) -> Tensor:
    return torch.tensor([float(right), float(down)]).view(1, 2, 1, 1).expand(1, 2, height, width)


@pytest.mark.parametrize(("right", "down"), [(3, 0), (0, -2), (5, 4)])
def test_warping_reads_where_the_flow_points(right: int, down: int) -> None:
    picture = smooth()
    expected = center(picture.roll((-down, -right), (2, 3)))
    torch.testing.assert_close(center(warped(picture, constant_flow(right, down))), expected, rtol=0, atol=1e-5)


def test_warping_by_half_a_pixel_is_the_mean_of_two() -> None:
    picture = smooth()
    found = warped(picture, constant_flow(0.5, 0))
    expected = (picture[..., :-1] + picture[..., 1:]) / 2
    torch.testing.assert_close(found[..., :-1], expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(found[..., -1], picture[..., -1])


def test_what_comes_in_at_the_border_was_not_visible() -> None:
    mask = visible(constant_flow(-5, 2), constant_flow(5, -2))
    expected = torch.ones_like(mask)
    expected[..., :5], expected[..., -2:, :] = 0, 0
    assert torch.equal(mask, expected)


def test_what_a_moving_square_uncovers_was_not_visible() -> None:
    """A square moves 8 pixels to the right over a still background, which it uncovers on its left."""
    there, back = torch.zeros(1, 2, 48, 64), torch.zeros(1, 2, 48, 64)
    back[:, 0, 16:32, 20:36] = 8.0  # from the earlier frame, where the square is at 20, to the later one
    there[:, 0, 16:32, 28:44] = -8.0
    mask = visible(there, back)
    hidden = torch.zeros_like(mask)
    hidden[..., 16:32, 20:28] = 1
    assert torch.equal(mask, 1 - hidden)


# --- films --------------------------------------------------------------------------------------------------------


def dreamt(frames: object, backbone: lk.Backbone, **options: object) -> list[Tensor]:
    return list(lk.dream_frames(frames, backbone=backbone, **QUICK | options))


def test_a_still_film_keeps_its_dream(pocket: lk.Backbone) -> None:
    """Without steps of size, what is kept can be read off; with them, more keeping is a stronger dream."""
    weak, strong = (dreamt([cat()] * 4, pocket, keep=k, flow=None)[-1] for k in (0.0, 0.9))
    assert lk.difference(strong, cat()).mean() > 1.5 * lk.difference(weak, cat()).mean()


def test_a_frame_starts_as_a_blend(pocket: lk.Backbone) -> None:
    film = [cat(), cat().flip(3), cat().flip(2)]
    first, second, third = dreamt(film, pocket, keep=0.25, flow=None, step_size=0)
    assert torch.equal(first, film[0])
    torch.testing.assert_close(second, film[1] + 0.25 * (film[0] - film[1]), rtol=0, atol=1e-6)
    torch.testing.assert_close(third, film[2] + 0.25 * (second - film[2]), rtol=0, atol=1e-6)


def test_the_dream_is_carried_along_and_new_places_start_afresh(pocket: lk.Backbone) -> None:
    """A camera that moves 6 pixels to the left: what was seen holds the old dream, 6 columns hold none."""
    picture, drawn = smooth(48, 70), torch.zeros(1, 3, 48, 64)
    drawn[..., 10:20, 10:20] = 0.1  # the dream, put in by hand
    film = [picture[..., 6:] + drawn, picture[..., :64]]

    def flow(frame: Tensor, other: Tensor) -> Tensor:
        return constant_flow(-6 if torch.equal(frame, film[1]) else 6, 0)

    _, second = dreamt(film, pocket, keep=1.0, flow=flow, step_size=0)
    carried = film[1] + drawn.roll(6, 3)
    torch.testing.assert_close(second, carried, rtol=0, atol=1e-5)


def test_without_weights_of_raft_a_plain_blend_is_announced(
    pocket: lk.Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABKIT_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.warns(UserWarning, match="no weights of RAFT .* blended without optical flow"):
        blended = dreamt([cat(), cat().flip(3)], pocket)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(blended[1], dreamt([cat(), cat().flip(3)], pocket, flow=None)[1])


@pytest.mark.parametrize("cached", [False, True])
def test_raft_is_taken_from_either_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: bool) -> None:
    """With weights drawn at random: its shape and size only."""
    from torchvision.models.optical_flow import raft_small

    folder = tmp_path / "checkpoints" if cached else tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setenv("LABKIT_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert raft() is None
    torch.save(raft_small().state_dict(), folder / RAFT["raft_small"])
    flow = raft()
    if not cached:  # the network itself is slow
        field = flow(cat(), cat().flip(3))
        assert field.shape == (1, 2, *cat().shape[-2:]) and field.isfinite().all()
    (folder / RAFT["raft_small"]).write_bytes(b"damaged")
    with pytest.raises(ValueError, match="damaged or holds more than plain weights of raft_small: delete it"):
        raft()


GRAY = torch.full((1, 3, 36, 48), 0.5)


@pytest.mark.parametrize(
    ("frames", "options", "message"),
    [
        ([], {}, "a film without frames"),
        ([GRAY, GRAY[..., :-1]], {}, "a film's frames have one size, not 48x36 and 47x36 pixels"),
        ([GRAY], {"keep": 1.5}, "keep must be a number from 0 to 1, not 1.5"),
        ([GRAY], {"keep": -0.5}, "keep must be a number from 0 to 1, not -0.5"),
        ([GRAY], {"flow": "raft"}, "flow is \"auto\", a function or None, not 'raft'"),
    ],
)
def test_films_that_make_no_sense_are_refused(pocket: lk.Backbone, frames: list, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        dreamt(frames, pocket, **{"flow": None} | options)


# --- repainted films ----------------------------------------------------------------------------------------------

koi = cache(lambda: lk.painting("koi_mosaic", 64))


def painted(frames: object, backbone: lk.Backbone, **options: object) -> list[Tensor]:
    settings = {"steps": 12, "steps_after": 6, "flow": None, "precision": "float32"} | options
    return list(lk.stylize_frames(frames, koi(), backbone=backbone, **settings))


def test_the_first_frame_is_a_picture_stylized(pocket: lk.Backbone) -> None:
    (found,) = painted([cat()], pocket, style_weight=50.0)
    options = {"steps": 12, "style_weight": 50.0, "precision": "float32", "progress": False}
    assert torch.equal(found, lk.stylize(cat(), koi(), backbone=pocket, **options))


def test_a_still_film_does_not_flicker_when_it_is_held(pocket: lk.Backbone) -> None:
    loose, held = (painted([cat(), cat()], pocket, temporal_weight=weight) for weight in (0.0, 1e4))
    flicker = [lk.difference(*pair).mean().item() for pair in (loose, held)]
    assert flicker[1] < 0.3 * flicker[0]


def test_a_moving_film_is_held_to_what_the_flow_carries(pocket: lk.Backbone) -> None:
    """The camera pans by 6 pixels: with the true flow the second frame is the first one's paint, moved."""
    picture = smooth(48, 70)
    film = [picture[..., 6:], picture[..., :64]]

    def flow(frame: Tensor, other: Tensor) -> Tensor:
        return constant_flow(-6 if torch.equal(frame, film[1]) else 6, 0)

    def gap(**options: object) -> float:
        first, second = painted(film, pocket, **options)
        return (second[..., 6:] - first[..., :-6]).abs().mean().item()

    assert gap(flow=flow, temporal_weight=1e4) < 0.6 * gap(keep=0.0, temporal_weight=0.0)


def test_a_further_loss_is_held_beside_the_last_frame(pocket: lk.Backbone) -> None:
    gray = 1e4 * lk.pixel_mse(torch.full_like(cat(), 0.5))
    options = {"temporal_weight": 0.1, "keep": 0.0, "steps_after": 24}
    plain, pulled = (painted([cat(), cat()], pocket, extra_loss=loss, **options)[1] for loss in (None, gray))
    assert (pulled - 0.5).abs().mean() < 0.7 * (plain - 0.5).abs().mean()


def test_colors_given_back_do_not_fight_the_paint(pocket: lk.Backbone) -> None:
    """What is carried to the next frame is the paint before its colors are changed: held to it, it stays."""
    options = {"color": "luma", "temporal_weight": 1e4, "steps_after": 3}
    first, second = painted([cat(), cat()], pocket, **options)
    loose = painted([cat(), cat()], pocket, **options | {"temporal_weight": 0.0, "keep": 0.0})
    assert lk.difference(first, second).mean() < 0.5 * lk.difference(*loose).mean()


@pytest.mark.parametrize("options", [{"init": "noise"}, {"min_scale": 16}, {"tv_weight": 3.0}])
def test_later_frames_start_from_the_past_whatever_is_asked_of_the_first(pocket: lk.Backbone, options: dict) -> None:
    first, second = painted([cat(), cat()], pocket, temporal_weight=1e4, **options)
    assert lk.difference(first, second).mean() < 0.03


@pytest.mark.parametrize("run", [lk.journey, lk.dream_frames])
def test_a_film_has_one_dream_a_frame(pocket: lk.Backbone, run: object) -> None:
    with pytest.raises(ValueError, match="one dream a frame, not variations=2"):
        next(run(cat(), pocket, variations=2))


def test_hidden_places_are_not_held() -> None:
    seen = torch.ones(1, 1, 8, 8)
    seen[..., :4] = 0
    loss = lk.pixel_mse(torch.zeros(1, 3, 8, 8), seen)
    gradient = lk.Evaluator(lk.load_backbone("pocket"), loss, (8, 8), "float32")(torch.ones(1, 3, 8, 8)).gradient
    assert (gradient[..., :4] == 0).all() and (gradient[..., 4:] > 0).all()
