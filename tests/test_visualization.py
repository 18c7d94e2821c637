"""Pictures from nothing: parameterizations render and learn, movements are undone, batches hold several aims."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import labkit as lk
from labkit.engine.evaluator import Evaluation
from labkit.engine.parameters import Kind, from_rgb, make_parameterization, to_rgb
from labkit.recipes.visualization import movements, randomly_transformed

SHAPE = (2, 3, 24, 30)
QUICK = {"size": 48, "device": "cpu", "precision": "float32"}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def parameterization(name: str, start: Tensor | None = None) -> object:
    return make_parameterization(name, SHAPE, start, 1.0, generator(), torch.device("cpu"))


# --- parameterizations ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", get_args(Kind))
def test_noise_is_a_picture_near_gray(name: str) -> None:
    picture = parameterization(name).picture()
    assert picture.shape == SHAPE and picture.dtype == torch.float32
    assert picture.min() > 0 and picture.max() < 1
    assert picture.mean() == pytest.approx(0.5, abs=0.05)
    assert (picture[0] != picture[1]).any() or name == "cppn"  # whose last layer starts at zero


@pytest.mark.parametrize("name", ["fourier", "laplacian", "pixels"])
def test_a_picture_is_reproduced(name: str) -> None:
    start = lk.photo("coffee", SHAPE[-2:]).expand(SHAPE).clamp(0.05, 0.95)
    torch.testing.assert_close(parameterization(name, start).picture(), start, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", get_args(Kind))
def test_gradients_of_the_parameters_are_autograds(name: str) -> None:
    """A small step along the gradient changes <picture, g> by as much as its square says."""
    found, g = parameterization(name), torch.randn(SHAPE, generator=generator(1))
    before = (found.picture() * g).sum().double()
    found.backward(g)
    square, step = sum(p.grad.double().square().sum() for p in found.parameters), 1e-3
    step = step / square.sqrt()
    for parameter in found.parameters:
        parameter.data.add_(step * parameter.grad)
    change = (found.picture() * g).sum().double() - before
    assert change.item() == pytest.approx((step * square).item(), rel=0.02)


def test_colors_are_decorrelated_and_back() -> None:
    picture = torch.rand(SHAPE, generator=generator()) * 0.9 + 0.05
    root = lk.pictures.color.color_correlation()
    torch.testing.assert_close(to_rgb(from_rgb(picture), root), picture, rtol=0, atol=1e-5)
    first = to_rgb(torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1), root).flatten()
    assert first.std() < 0.01 < first.mean() - 0.5  # the strongest component of natural colors is brightness


def test_fourier_starts_with_more_of_the_low_frequencies() -> None:
    picture = make_parameterization("fourier", (1, 3, 64, 64), None, 1.0, generator(), torch.device("cpu")).picture()
    spectrum = torch.fft.rfft2(picture - picture.mean((2, 3), keepdim=True)).abs().square().mean((0, 1))
    assert spectrum[1:4, 1:4].mean() > 20 * spectrum[28:32, 28:32].mean()


def test_a_cppn_has_no_picture_to_start_from() -> None:
    with pytest.raises(ValueError, match="a CPPN cannot start from a picture"):
        parameterization("cppn", torch.rand(SHAPE))


# --- movements ------------------------------------------------------------------------------------------------------


def test_without_movement_nothing_moves() -> None:
    picture = torch.rand(SHAPE)

    def evaluate(x: Tensor) -> Evaluation:
        torch.testing.assert_close(x, picture, rtol=0, atol=1e-5)
        return Evaluation(x.sum((1, 2, 3)), {}, 2 * x)

    found = randomly_transformed(evaluate, jitter=0, zoom=0, rotate=0)(picture)
    torch.testing.assert_close(found.gradient, 2 * picture, rtol=0, atol=1e-4)


def test_movements_stay_within_their_bounds() -> None:
    maps = movements(torch.zeros(500, 3, 40, 80), 6.0, 0.2, 15.0, generator())
    aspect = 40 / 80
    scale = (maps[:, 0, 0].square() + (maps[:, 1, 0] * aspect).square()).sqrt()
    angle = torch.atan2(maps[:, 1, 0] * aspect, maps[:, 0, 0]).rad2deg()
    shift = torch.stack([maps[:, 0, 2] * 80 / 2, maps[:, 1, 2] * 40 / 2])
    assert 1 / 1.2 <= scale.min() < 0.88 and 1.15 < scale.max() <= 1.2 + 1e-6
    assert 14 < angle.abs().max() <= 15 + 1e-4 and abs(angle.mean()) < 1.5
    assert 5.5 < shift.abs().max() <= 6 + 1e-4
    # A rotation keeps circles round whatever the picture's aspect: rows of the map in pixels are orthogonal.
    pixels = maps[:, :, :2] * torch.tensor([[1, 1 / aspect], [aspect, 1]])
    torch.testing.assert_close((pixels[:, 0] * pixels[:, 1]).sum(1), torch.zeros(500), rtol=0, atol=1e-5)


def test_the_gradient_is_moved_back() -> None:
    """By finite differences, through shift, zoom and rotation."""
    picture, weights = torch.rand(1, 3, 20, 26, dtype=torch.float64), torch.rand(1, 3, 20, 26, dtype=torch.float64)

    def evaluate(x: Tensor) -> Evaluation:
        return Evaluation((weights * x.square()).sum((1, 2, 3)), {}, 2 * weights * x)

    def run(x: Tensor) -> Evaluation:
        return randomly_transformed(evaluate, jitter=3, zoom=0.1, rotate=20, generator=generator(3))(x)

    direction = torch.randn(picture.shape, dtype=torch.float64, generator=generator(4))
    slope = (run(picture + 1e-5 * direction).loss - run(picture - 1e-5 * direction).loss) / 2e-5
    assert slope.item() == pytest.approx((run(picture).gradient * direction).sum().item(), rel=1e-6)


# --- objectives and runs --------------------------------------------------------------------------------------------


def test_each_picture_of_a_batch_has_its_own_aim() -> None:
    backbone, pictures = lk.load_backbone("pocket", "cpu"), torch.rand(3, 3, 32, 32, generator=generator())
    found = lk.Evaluator(backbone, lk.channels("relu3_1", [5, 9, 60]), (32, 32), "float32")(pictures)
    features = backbone.features(pictures, ["relu3_1"])["relu3_1"]
    expected = torch.stack([-features[i, c].mean() for i, c in enumerate((5, 9, 60))])
    torch.testing.assert_close(found.loss, expected)


def test_between_two_aims() -> None:
    backbone, picture = lk.load_backbone("pocket", "cpu"), torch.rand(1, 3, 32, 32, generator=generator())
    first, last = (lk.activation("relu3_1", channel=c) for c in (5, 9))
    a, b = (lk.Evaluator(backbone, x, (32, 32), "float32")(picture).loss for x in (first, last))
    found = lk.Evaluator(backbone, lk.between(first, last, 5), (32, 32), "float32")(picture.expand(5, 3, 32, 32))
    torch.testing.assert_close(found.loss, torch.cat([a + (b - a) * t / 4 for t in range(5)]))


@pytest.mark.parametrize("name", get_args(Kind))
def test_a_channel_is_found(name: str) -> None:
    loss = -lk.activation("relu3_2", channel=70, power=1)
    run = list(lk.creating(loss, parameterization=name, steps=15, jitter=2, **QUICK))
    assert run[-1].loss < run[0].loss - 0.2 * abs(run[0].loss)
    picture = run[-1].picture
    assert picture.shape == (1, 3, 48, 48) and picture.min() >= 0 and picture.max() <= 1


def test_texture_comes_near_its_painting() -> None:
    painting = lk.painting("koi_mosaic", 64)
    options = {**QUICK, "zoom": 0, "rotate": 0}
    run = list(lk.creating(lk.style(painting, ["relu1_1", "relu2_1", "relu3_1"]), steps=40, **options))
    assert run[-1].loss < 0.4 * run[0].loss


def test_the_same_seed_gives_the_same_picture_and_a_run_goes_on() -> None:
    loss = -lk.activation("relu3_2", channel=4, power=1)
    whole = list(lk.creating(loss, steps=6, seed=3, variations=2, **QUICK))
    again = lk.create(loss, steps=6, seed=3, variations=2, progress=False, **QUICK)
    assert torch.equal(whole[-1].picture, again)
    half = next(step for step in lk.creating(loss, steps=6, seed=3, variations=2, **QUICK) if step.step == 3)
    resumed = list(lk.creating(loss, steps=6, seed=3, variations=2, resume=half.state_dict(), **QUICK))
    assert len(resumed) == 3 and torch.equal(resumed[-1].picture, again)
    other = lk.create(loss, steps=6, seed=4, variations=2, progress=False, **QUICK)
    assert F.mse_loss(other, again) > 1e-5 and F.mse_loss(again[:1], again[1:]) > 1e-5


def test_a_start_is_kept_near(monkeypatch: pytest.MonkeyPatch) -> None:
    photo = lk.photo("chelsea", (48, 48))
    picture = lk.create(-lk.activation("relu3_1"), init=photo, steps=1, learning_rate=1e-6, progress=False, **QUICK)
    assert (picture - photo.clamp(0.01, 0.99)).abs().max() < 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"parameterization": "wavelets"},
            "parameterization is one of fourier, laplacian, .*, not 'wavelets'",
        ),
        ({"steps": 0}, "steps must be a whole number from 1 to 1,000,000, not 0"),
        ({"variations": 0}, "variations must be a whole number from 1 to 65,536"),
        ({"zoom": 1.5}, "zoom must be a number from 0 to 0.99, not 1.5"),
        ({"jitter": -1}, "jitter must be a number from 0 to 10,000"),
        ({"size": 0}, "height must be a whole number from 1 to 65,536, not 0"),
        ({"learning_rate": math.inf}, "learning_rate must be a number of at least 0, not inf"),
        ({"size": 8}, "too small for relu4_3 of pocket|sides must be at least"),
    ],
)
def test_senseless_arguments_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lk.create(-lk.activation("relu5_3"), progress=False, **{**QUICK, **options})
