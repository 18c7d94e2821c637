"""Pictures from nothing: parameterizations render and learn, movements are undone, batches hold several aims."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import labkit as lk
from labkit.engine.evaluator import Evaluation
from labkit.engine.parameters import Kind, from_rgb, make_parameterization, natural_spectrum, to_rgb
from labkit.notebook.diagnosis import pulls
from labkit.recipes.visualization import cropped, movements, randomly_transformed

SHAPE = (2, 3, 24, 30)
QUICK = {"size": 48, "device": "cpu", "precision": "float32"}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def parameterization(name: str, start: Tensor | None = None) -> object:
    return make_parameterization(name, SHAPE, start, 1.0, generator(), torch.device("cpu"))


# --- parameterizations ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted({*get_args(Kind)} - {"spectrum", "maco"}))  # which start as strong as photos
def test_noise_is_a_picture_near_gray(name: str) -> None:
    picture = parameterization(name).picture()
    assert picture.shape == SHAPE and picture.dtype == torch.float32
    assert picture.min() > 0 and picture.max() < 1
    assert picture.mean() == pytest.approx(0.5, abs=0.05)
    assert (picture[0] != picture[1]).any() or name == "cppn"  # whose last layer starts at zero


@pytest.mark.parametrize("name", ["fourier", "spectrum", "maco", "laplacian", "pixels"])
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


def amplitudes(picture: Tensor) -> Tensor:
    """Of the waves (N, 3, H, W // 2 + 1) whose picture this is: `from_rgb`, but not kept away from 0 and 1."""
    inverse = torch.linalg.inv(lk.pictures.color.color_correlation().double())
    values = torch.einsum("cr,nrhw->nchw", inverse, picture.double().logit())
    return torch.fft.rfft2(values, norm="ortho").abs().float()


@pytest.mark.parametrize(("color", "slope"), [(0, -1.28), (1, -1.39), (2, -1.30)])
def test_the_natural_spectrum_is_a_power_of_the_frequency(color: int, slope: float) -> None:
    spectrum = natural_spectrum((64, 96))[color]
    for rows, columns in ((4, 0), (0, 6), (-8, 0), (3, 30)):  # of 64 and 96 pixels
        waves = math.hypot(rows / 64, columns / 96) * 64
        expected = spectrum[1, 0] * waves**slope
        torch.testing.assert_close(spectrum[rows, columns], expected, rtol=1e-4, atol=0)
    assert spectrum[0, 0] == spectrum[1, 0]  # the mean color, which has no frequency
    assert natural_spectrum((64, 96)).square().mean().item() == pytest.approx(1, rel=1e-5)


INNER = (..., slice(1, 24), slice(1, 24))  # waves in a picture of 48 pixels of which none is another's conjugate


@pytest.mark.parametrize(("strength", "reached"), [(0.1, 0.01), (1.0, 0.2), (50.0, 2.4)])
def test_no_wave_of_a_spectrum_exceeds_a_natural_picture(strength: float, reached: float) -> None:
    waves = make_parameterization("spectrum", (1, 3, 48, 48), None, 1.0, generator())
    (parameter,) = waves.parameters
    parameter.data.copy_(strength * torch.randn(parameter.shape, generator=generator(1)) / 10)
    found = amplitudes(waves.picture())[INNER] / natural_spectrum((48, 48))[INNER]
    expected = 2.5 * torch.view_as_complex(parameter.detach()).abs().tanh()[INNER]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert found.median() > reached


def test_macos_amplitudes_stay_and_its_phases_move() -> None:
    waves = make_parameterization("maco", (1, 3, 48, 48), None, 1.0, generator())
    before = waves.picture()
    waves.parameters[0].data.add_(torch.randn(waves.parameters[0].shape, generator=generator(1)))
    after = waves.picture()
    assert (after - before).abs().mean() > 0.05
    for picture in (before, after):
        expected = 2 * natural_spectrum((48, 48))[INNER]
        torch.testing.assert_close(amplitudes(picture)[0][INNER], expected, rtol=1e-3, atol=1e-3)


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


def test_crops_lie_within_the_picture_and_reach_its_borders() -> None:
    whole = torch.eye(2, 3).expand(500, 2, 3)
    found = cropped(whole, 0.4, generator())
    torch.testing.assert_close(found[:, :, :2], 0.4 * whole[:, :, :2])
    assert 0.59 < found[:, :, 2].abs().max() <= 0.6 and found[:, :, 2].mean(0).abs().max() < 0.05


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_the_gradient_of_crops_is_the_mean_of_theirs(share: float) -> None:
    """By finite differences, through shrinking, noise and two places."""
    picture, weights = torch.rand(2, 3, 24, 32, dtype=torch.float64), torch.rand(2, 3, 9, 12, dtype=torch.float64)

    def evaluate(x: Tensor) -> Evaluation:
        loss = (weights * x.square()).sum((1, 2, 3))
        return Evaluation(loss, {("a", ""): loss}, 2 * weights * x)

    def run(x: Tensor) -> Evaluation:
        options = {"jitter": 2, "zoom": 0.1, "rotate": 10, "crops": 2, "size": (9, 12), "noise": 0.1}
        return randomly_transformed(evaluate, shares=iter([share]), generator=generator(3), **options)(x)

    direction = torch.randn(picture.shape, dtype=torch.float64, generator=generator(4))
    slope = (run(picture + 1e-5 * direction).loss - run(picture - 1e-5 * direction).loss).sum() / 2e-5
    found = run(picture)
    assert slope.item() == pytest.approx((found.gradient * direction).sum().item(), rel=1e-6)
    assert found.gradient.shape == picture.shape and torch.equal(found.layer_terms["a", ""], found.loss)


def test_crops_show_the_picture_they_are_of() -> None:
    """A ramp is read at their place: each crop's mean is the ramp's there, and its slope the share."""
    ramp, seen = torch.linspace(0, 1, 64).expand(1, 3, 64, 64).contiguous(), []

    def evaluate(x: Tensor) -> Evaluation:
        seen.append(x)
        return Evaluation(x.sum((1, 2, 3)), {}, torch.ones_like(x))

    still = {"jitter": 0, "zoom": 0, "rotate": 0, "crops": 20, "size": (16, 16)}
    randomly_transformed(evaluate, shares=iter([0.5]), generator=generator(), **still)(ramp)
    slopes = torch.stack([x[0, 0, 8, 12] - x[0, 0, 8, 4] for x in seen])
    torch.testing.assert_close(slopes, torch.full_like(slopes, 0.25), rtol=0, atol=0.01)
    means = torch.stack([x.mean() for x in seen])
    assert means.min() < 0.35 and means.max() > 0.65


def test_a_crop_grows_finer_from_the_first_step_to_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = []
    monkeypatch.setattr(
        "labkit.recipes.visualization.cropped", lambda maps, share, generator: shares.append(share) or maps
    )
    options = {"steps": 4, "crop_share": (0.9, 0.6), "crop_size": 32, "progress": False, **QUICK}
    half = next(step for step in lk.creating(-lk.activation("relu3_1"), **options) if step.step == 2)
    lk.create(-lk.activation("relu3_1"), resume=half.state_dict(), **options)
    assert shares == pytest.approx([0.9, 0.8, 0.7, 0.6])


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


def test_noise_and_crops_repeat_themselves_and_go_on() -> None:
    options = {"steps": 5, "crops": 2, "crop_share": (1, 0.5), "crop_size": 40, "noise": 0.05, "step_decay": 0.2}
    options |= {"parameterization": "spectrum", "variations": 2, **QUICK}
    loss = lk.channels("relu3_2", [4, 9])
    whole = list(lk.creating(loss, **options))
    half = next(step for step in lk.creating(loss, **options) if step.step == 3)
    again = list(lk.creating(loss, resume=half.state_dict(), **options))
    assert len(again) == 2 and torch.equal(again[-1].picture, whole[-1].picture)
    assert set(whole[-1].terms) == {"activation"}


def test_beside_a_term_that_is_not_silent_a_channel_starts_as_well() -> None:
    network = lk.load_backbone("pocket", "cpu")
    options = {"size": 48, "steps": 3, "seed": 5, "backbone": network, "progress": False}
    noise = network.features(lk.create(lk.total_variation(), **options), ["relu5_2"])["relu5_2"]
    silent = (noise.amax((0, 2, 3)) == 0).nonzero().flatten()[:5]
    smooth, wish = 1e-3 * lk.total_variation(), lk.activation("relu5_2", channel=int(silent[0]), power=1)
    parts = next(lk.creating(smooth - wish, **options)).evaluation.source.gradients_by_term(torch.rand(1, 3, 48, 48))
    assert parts["activation"].any()


def test_what_is_seen_in_crops_and_in_place_has_a_source_for_the_whole() -> None:
    """Content is asked of the whole picture, the channel of small crops; the source evaluates both of the whole."""
    loss, photo = (
        lk.content(lk.photo("chelsea", (96, 96)), "relu2_2") - lk.activation("relu3_1"),
        lk.photo("coffee", 96),
    )
    run = lk.creating(loss, init=photo, size=96, crop_size=64, steps=2, backbone="pocket", device="cpu")
    *_, last = run
    found = pulls(last)
    assert {name: place.shape for name, (_, place) in found.items()} == dict.fromkeys(
        ("content", "activation"), (1, 1, 96, 96)
    )
    assert all(norm > 0 for norm, _ in found.values())


def test_channels_that_are_silent_on_noise_start() -> None:
    network, options = lk.load_backbone("pocket", "cpu"), {"seed": 5, "variations": 3, "progress": False, **QUICK}
    noise = lk.create(lk.channels("relu5_2", [0, 1, 2]), steps=1, learning_rate=1e-9, **options)
    seen, photos = (
        network.features(noise, ["relu5_2"]),
        [lk.photo(name, 224) for name in ("chelsea", "coffee", "rocket")],
    )
    woken = torch.stack([network.features(photo, ["relu5_2"])["relu5_2"].amax((0, 2, 3)) for photo in photos]).amax(0)
    silent = ((seen["relu5_2"].amax((0, 2, 3)) == 0) & (woken > 1)).nonzero().flatten()[::20][:3]  # and not dead
    assert len(silent) == 3
    pictures = lk.create(lk.channels("relu5_2", silent.tolist()), steps=25, **options)
    assert (network.features(pictures, ["relu5_2"])["relu5_2"][range(3), silent].mean((1, 2)) > 0.1).all()


def test_transparency_is_where_the_gradients_were_small() -> None:
    options = {"size": 48, "steps": 3, "device": "cpu", "precision": "float32", "variations": 2}
    loss = lk.channels("relu3_1", [4, 9])
    steps = [step.evaluation.gradient for step in lk.creating(loss, **options)]
    sizes = torch.stack(steps).abs().mean(2).sum(0).numpy()
    full = np.quantile(sizes, 0.6, axis=(1, 2), keepdims=True)
    picture, alpha = lk.with_transparency(lk.creating(loss, **options), quantile=0.6)
    np.testing.assert_allclose(alpha[:, 0], np.minimum(sizes / full, 1), rtol=1e-4)
    assert torch.equal(picture, lk.create(loss, progress=False, **options))
    with pytest.raises(ValueError, match="quantile must be a number from 0 to 1, not 80"):
        lk.with_transparency(iter([]), quantile=80)


def test_the_class_recipe_makes_a_class() -> None:
    network = lk.load_backbone("pocket", "cpu")
    loss = -3 * lk.class_evidence("zebra") - 1.5 * lk.class_log_probability("zebra")
    options = {**lk.presets.CLASS_PICTURE, "size": 96, "steps": 25, "crop_size": 80}
    picture = lk.create(loss, backbone=network, progress=False, **options)
    zebra = network.class_index("zebra")
    assert (network.logits(picture)[0] > network.logits(picture)[0, zebra]).sum() < 10


def test_a_start_is_kept_near(monkeypatch: pytest.MonkeyPatch) -> None:
    photo = lk.photo("chelsea", (48, 48))
    picture = lk.create(-lk.activation("relu3_1"), init=photo, steps=1, learning_rate=1e-6, progress=False, **QUICK)
    assert (picture - photo.clamp(0.01, 0.99)).abs().max() < 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"parameterization": "wavelets"},
            "parameterization is one of fourier, spectrum, .*, not 'wavelets'",
        ),
        ({"steps": 0}, "steps must be a whole number from 1 to 1,000,000, not 0"),
        ({"variations": 0}, "variations must be a whole number from 1 to 65,536"),
        ({"zoom": 1.5}, "zoom must be a number from 0 to 0.99, not 1.5"),
        ({"jitter": -1}, "jitter must be a number from 0 to 10,000"),
        ({"crops": 0}, "crops must be a whole number from 1 to 65,536, not 0"),
        ({"crop_share": (1, 0.01)}, "the last crop_share must be a number from 0.05 to 1, not 0.01"),
        ({"crop_size": 0}, "crop_size must be a whole number from 1 to 65,536, not 0"),
        ({"crop_size": 8}, "too small for relu5_3 of pocket|sides must be at least"),
        ({"noise": -1}, "noise must be a number from 0 to 10,000, not -1"),
        ({"step_decay": 2}, "step_decay must be a number from 0 to 1, not 2"),
        ({"size": 0}, "height must be a whole number from 1 to 65,536, not 0"),
        ({"learning_rate": math.inf}, "learning_rate must be a number of at least 0, not inf"),
        ({"size": 8}, "too small for relu4_3 of pocket|sides must be at least"),
    ],
)
def test_senseless_arguments_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lk.create(-lk.activation("relu5_3"), progress=False, **{**QUICK, **options})


def test_a_loss_that_knows_the_photo_sees_the_picture_unmoved() -> None:
    """At the photo itself content is about 0 however the picture is moved, and the crops' size does not matter."""
    photo = lk.photo("coffee", (96, 96)).clamp(0.05, 0.95)
    loss = lk.content(photo, "relu2_2") - lk.activation("relu3_1")
    options = {"init": photo, "steps": 1, "jitter": 30, "zoom": 0.3, "rotate": 40, **QUICK, "size": 96}
    for crops in ({}, {"crops": 2, "crop_size": 64, "crop_share": (0.6, 0.6)}):
        (first,) = lk.creating(loss, **options, **crops)
        assert first.evaluation.terms["content"] < 1e-4
        assert first.evaluation.gradient.any()
    (alone,) = lk.creating(lk.content(lk.photo("chelsea", (96, 96)), "relu2_2"), **options)
    assert alone.evaluation.terms["content"] > 0.1


def test_feature_accentuation_shows_a_class_in_a_photo() -> None:
    """Hamblin et al. 2024: the class is raised from the photo's waves, held to the photo by its features."""
    network, photo = lk.load_backbone("pocket", "cpu"), lk.photo("coffee", (112, 112))
    options = {"init": photo, "steps": 20, "progress": False, **QUICK, "size": 112}
    held, free = (
        lk.create(weight * lk.content(photo, "relu4_2") - lk.class_logit("tabby"), **options) for weight in (30, 0)
    )
    before, after = (dict(network.classify(picture, top=1000)[0])["tabby"] for picture in (photo, held))
    assert after > 100 * before
    distance = lk.Evaluator(network, lk.content(photo, "relu4_2"), (112, 112), "float32")
    assert distance(held).loss < 0.7 * distance(free).loss
