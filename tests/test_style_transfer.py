"""Style transfer: what falls, what stays, where it starts, and Gatys' loss in NumPy."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import cache
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

import labkit as lk
from labkit.engine.optimization import Optimizer, resized_moments
from labkit.recipes.style_transfer import Init, first_picture, scale_sizes

cat = cache(lambda: lk.photo("chelsea", 64))
koi = cache(lambda: lk.painting("koi_mosaic", 64))
# Everything that matters is named, so that the defaults can be tuned.
OBJECTIVE: dict[str, Any] = {
    "statistic": "gram",
    "chroma_tv_weight": 0.0,
    "style_inset": 0.0,
    "content_weight": 1.0,
    "style_weight": 10.0,
    "tv_weight": 1.0,
    "content_layers": ("relu4_2",),
    "style_layers": ("relu1_1", "relu2_1", "relu3_1", "relu4_1"),
}
LOOP: dict[str, Any] = {"steps": 24, "min_scale": 45, "avg_decay": 0.9, "precision": "float32"}
LOOP["parameterization"] = "pixels"
OPTIONS = OBJECTIVE | LOOP


@pytest.fixture(scope="module")
def pocket() -> lk.Backbone:
    return lk.load_backbone("pocket", "cpu")


def objective(painting: Any = None, **options: Any) -> lk.Loss:
    return lk.style_objective(cat(), koi() if painting is None else painting, **OBJECTIVE | options)


def stylizing(pocket: lk.Backbone, photo: Any = None, painting: Any = None, **options: Any) -> list[lk.Progress]:
    photo, painting = cat() if photo is None else photo, koi() if painting is None else painting
    usual = LOOP if isinstance(painting, lk.Loss) else OPTIONS
    return list(lk.stylizing(photo, painting, backbone=pocket, **usual | options))


def stylize(pocket: lk.Backbone, photo: Any = None, painting: Any = None, **options: Any) -> Tensor:
    photo, painting = cat() if photo is None else photo, koi() if painting is None else painting
    usual = LOOP if isinstance(painting, lk.Loss) else OPTIONS
    return lk.stylize(photo, painting, backbone=pocket, **usual | options, progress=False)


def loss_at(pocket: lk.Backbone, loss: lk.Loss, picture: Tensor) -> float:
    return lk.Evaluator(pocket, loss, picture.shape[-2:], "float32")(picture).loss.item()


# --- what it does -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", get_args(Optimizer))
def test_style_and_content_both_come_out_of_noise(pocket: lk.Backbone, optimizer: str) -> None:
    first, *_, last = stylizing(pocket, init="noise", optimizer=optimizer)
    assert last.loss < 0.5 * first.loss
    assert last.terms["style"] < 0.5 * first.terms["style"]
    assert last.terms["content"] < 0.98 * first.terms["content"]


@pytest.mark.parametrize("statistic", ["gram", "wasserstein"])
def test_the_statistic_comes_nearer_to_the_paintings(pocket: lk.Backbone, statistic: str) -> None:
    picture = stylize(pocket, statistic=statistic, min_scale=64)
    distance = lk.style(koi(), OPTIONS["style_layers"], statistic=statistic)
    assert loss_at(pocket, distance, picture) < 0.5 * loss_at(pocket, distance, cat())


def test_content_alone_reconstructs_the_photo_from_noise(pocket: lk.Backbone) -> None:
    options = {"style_weight": 0, "tv_weight": 0, "content_layers": "relu1_2", "init": "noise", "min_scale": 64}
    picture = stylize(pocket, steps=100, **options)
    start = first_picture("noise", cat(), [koi()])
    assert lk.difference(picture, cat()).mean() < 0.3 * lk.difference(start, cat()).mean()


def test_weights_decide_between_content_and_style(pocket: lk.Backbone) -> None:
    faithful, painted = (stylizing(pocket, style_weight=weight)[-1].terms for weight in (0.1, 100.0))
    assert faithful["content"] < 0.5 * painted["content"]
    assert painted["style"] / 100 < 0.5 * faithful["style"] / 0.1


def test_total_variation_smooths(pocket: lk.Backbone) -> None:
    rough, smooth = (stylize(pocket, tv_weight=weight) for weight in (0.0, 300.0))
    assert loss_at(pocket, lk.total_variation(), smooth) < 0.5 * loss_at(pocket, lk.total_variation(), rough)


def test_total_variation_of_the_chroma_smooths_colors_alone(pocket: lk.Backbone) -> None:
    rough, smooth = (stylizing(pocket, chroma_tv_weight=weight)[-1].picture for weight in (0.0, 300.0))
    assert loss_at(pocket, lk.chroma_tv(), smooth) < 0.3 * loss_at(pocket, lk.chroma_tv(), rough)
    of_lumas = [loss_at(pocket, lk.total_variation(), lk.luma(x).expand_as(x)) for x in (rough, smooth)]
    assert of_lumas[1] > 0.7 * of_lumas[0]


@pytest.mark.parametrize("size", [(43, 64), (61, 40), (50, 50)])
def test_the_result_has_the_photos_size(pocket: lk.Backbone, size: tuple[int, int]) -> None:
    picture = stylize(pocket, lk.photo("coffee", size), steps=4)
    assert picture.shape == (1, 3, *size)
    assert picture.min() >= 0 and picture.max() <= 1


def test_photos_are_stylized_as_a_batch(pocket: lk.Backbone) -> None:
    photos = torch.cat([cat(), cat().flip(3)])
    together = stylize(pocket, photos, steps=4)
    alone = torch.cat([stylize(pocket, photo[None], steps=4) for photo in photos])
    torch.testing.assert_close(together, alone, rtol=0, atol=0.01)


def test_the_scale_of_the_painting_matters(pocket: lk.Backbone) -> None:
    large, small = (stylize(pocket, painting=objective(style_scale=scale), steps=6) for scale in (1.0, 0.5))
    assert lk.difference(large, small).mean() > 1e-3


PRESETS = ["GATYS", "ARTICLE_STYLE", "CROWSON", "PAINTED", "FAST", "NEIGHBORS", "BOLD", "CALM"]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_run(pocket: lk.Backbone, name: str) -> None:
    preset = dict(getattr(lk.presets, name))
    run = lk.stylizing(cat(), koi(), backbone=pocket, **preset | {"steps": 5, "precision": "float32"})
    first, *_, last = run
    if first.stages == 1:
        assert last.loss < first.loss
    wanted = "nearest_neighbors" if name == "CALM" else "style"
    assert last.terms[wanted] < first.terms[wanted]
    assert ("nearest_neighbors" in last.terms) == (name in ("NEIGHBORS", "BOLD", "CALM"))
    assert last.picture.shape == cat().shape


# --- terms --------------------------------------------------------------------------------------------------------


def test_terms_are_weighted_and_sum_to_the_loss(pocket: lk.Backbone) -> None:
    found = stylizing(pocket, init="noise", steps=4)
    for progress in found:
        assert list(progress.terms) == ["content", "style", "total_variation"]
        assert sum(progress.terms.values()) == pytest.approx(progress.loss, rel=1e-6)
    doubled = stylizing(pocket, init="noise", steps=2, style_weight=20, content_weight=3, tv_weight=0)[0].terms
    factors = {"content": 3, "style": 2, "total_variation": 0}
    assert doubled == pytest.approx({name: factors[name] * value for name, value in found[0].terms.items()}, rel=1e-6)


def test_the_histogram_is_a_fourth_term_against_the_same_paintings_and_layers(pocket: lk.Backbone) -> None:
    options = {"painting": [koi(), pond()], "style_weights": [1, 3], "style_scale": 0.7}
    terms = stylizing(pocket, painting=objective(histogram_weight=5, **options), steps=1)[0].terms
    layers = OPTIONS["style_layers"]
    expected = 5 * loss_at(pocket, lk.histogram([koi(), pond()], layers, weights=[1, 3], scale=0.7), cat())
    assert list(terms) == ["content", "style", "histogram", "total_variation"]
    assert terms["histogram"] == pytest.approx(expected, rel=1e-5)
    without = stylizing(pocket, painting=objective(**options), steps=1)[0].terms
    assert terms["style"] == pytest.approx(without["style"], rel=1e-6)


@pytest.mark.slow
def test_the_histogram_comes_nearer_to_the_paintings(pocket: lk.Backbone) -> None:
    without, with_it = (
        stylize(pocket, painting=objective(histogram_weight=weight), min_scale=64) for weight in (0, 10)
    )
    distance = lk.histogram(koi(), OPTIONS["style_layers"])
    assert loss_at(pocket, distance, with_it) < 0.8 * loss_at(pocket, distance, without)


def test_the_gram_loss_is_gatys(pocket: lk.Backbone) -> None:
    """Five layers of equal weight, each with 1/4 ||G - A||^2 / C^2, in float64."""
    layers = lk.presets.GATYS["style_layers"]
    painting = lk.resize(koi(), cat().shape[-2:])
    expected = 0.0
    for layer in layers:
        f, p = (pocket.features(x, [layer])[layer][0].flatten(1).double().numpy() for x in (cat(), painting))
        channels, positions = f.shape
        expected += 0.2 * ((f @ f.T - p @ p.T) ** 2).sum() / (4 * channels**2 * positions**2)
    np.testing.assert_allclose(loss_at(pocket, lk.style(painting, layers, relative=False), cat()), expected, rtol=1e-4)


# --- several paintings --------------------------------------------------------------------------------------------

pond = cache(lambda: lk.painting("noon_pond", 64))


@pytest.mark.slow
def test_the_more_a_painting_weighs_the_nearer_the_result_comes_to_it(pocket: lk.Backbone) -> None:
    near, far = (lk.style(one, OPTIONS["style_layers"]) for one in (koi(), pond()))
    losses = [objective([koi(), pond()], style_weights=weights) for weights in ((4, 0), (2, 2), (0, 1))]
    results = [stylize(pocket, painting=loss) for loss in losses]
    to_first = [loss_at(pocket, near, result) for result in results]
    to_second = [loss_at(pocket, far, result) for result in results]
    assert to_first == sorted(to_first) and to_second == sorted(to_second, reverse=True)
    assert to_first[0] < 0.7 * to_first[2] and to_second[2] < 0.7 * to_second[0]
    assert torch.equal(results[0], stylize(pocket))


# --- scales -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "smallest", "steps", "expected"),
    [
        ((300, 512), 128, 100, [(75, 128), (106, 181), (150, 256), (212, 362), (300, 512)]),
        ((512, 300), 200, 100, [(256, 150), (362, 212), (512, 300)]),
        ((100, 128), 128, 100, [(100, 128)]),
        ((100, 180), 128, 100, [(100, 180)]),
        ((300, 512), 128, 2, [(212, 362), (300, 512)]),
        ((300, 512), 10_000, 100, [(300, 512)]),
    ],
)
def test_scales_grow_by_the_square_root_of_two(
    size: tuple[int, int], smallest: int, steps: int, expected: list[tuple[int, int]]
) -> None:
    assert scale_sizes(size, smallest, steps) == expected


@pytest.mark.parametrize("steps", [1, 2, 5, 7])
def test_steps_are_shared_among_scales(pocket: lk.Backbone, steps: int) -> None:
    found = stylizing(pocket, steps=steps, min_scale=32, avg_decay=0)
    assert [p.step for p in found] == list(range(1, steps + 1))
    counts = np.unique([p.stage for p in found], return_counts=True)[1]
    assert counts.sum() == steps and np.ptp(counts) <= 1
    assert {p.picture.shape[-1] for p in found} == {1: {64}, 2: {45, 64}}.get(steps, {32, 45, 64})


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_each_scale_starts_from_the_last_ones_picture(pocket: lk.Backbone, average: float) -> None:
    _, coarse, fine, _ = stylizing(pocket, steps=4, avg_decay=average)
    content = lk.content(cat(), OPTIONS["content_layers"])
    start = lk.resize(coarse.picture, cat().shape[-2:])
    assert fine.terms["content"] == pytest.approx(loss_at(pocket, content, start), rel=1e-5)


def test_adam_starts_warm(pocket: lk.Backbone) -> None:
    run = lk.stylizing(cat(), koi(), backbone=pocket, **OPTIONS | {"steps": 6})
    *_, coarse = (next(run) for _ in range(3))
    before = coarse.state_dict()["optimizer"]
    fine = next(run)
    moments = fine.state_dict()["optimizer"]["state"][0]
    gradient = fine.evaluation.gradient
    warm = resized_moments(before, cat().shape[-2:])["state"][0]
    assert moments["step"] == 4
    torch.testing.assert_close(moments["exp_avg"], 0.9 * warm["exp_avg"] + 0.1 * gradient, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(
        moments["exp_avg_sq"], 0.99 * warm["exp_avg_sq"] + 0.01 * gradient**2, rtol=1e-5, atol=1e-9
    )


@pytest.mark.parametrize("kind", ["laplacian", "fourier"])
def test_in_decorrelated_colors_adam_starts_anew_at_each_scale(pocket: lk.Backbone, kind: str) -> None:
    drawn = torch.get_rng_state()
    run = lk.stylizing(cat(), koi(), backbone=pocket, **OPTIONS | {"steps": 4, "parameterization": kind})
    assert [p.state_dict()["optimizer"]["state"][0]["step"].item() for p in run] == [1, 2, 1, 2]
    assert torch.equal(drawn, torch.get_rng_state())


@pytest.mark.parametrize("kind", ["laplacian", "fourier"])
def test_decorrelated_colors_keep_the_picture_and_take_on_less_noise(pocket: lk.Backbone, kind: str) -> None:
    def noise(picture: Tensor) -> float:
        return loss_at(pocket, lk.total_variation(), picture - lk.luma(picture))

    still = stylize(pocket, parameterization=kind, steps=1, learning_rate=0)
    torch.testing.assert_close(still, cat(), rtol=0, atol=0.021)  # black and white are a little away from 0 and 1
    painted = stylizing(pocket, parameterization=kind)
    assert painted[-1].terms["style"] < 0.75 * painted[0].terms["style"]
    assert noise(painted[-1].picture) < 0.7 * noise(stylize(pocket))


@pytest.mark.parametrize(("optimizer", "learning_rate", "clamped"), [("adam", 0.3, True), ("lbfgs", 1.0, False)])
def test_pixels_are_clamped_except_under_lbfgs(
    pocket: lk.Backbone, optimizer: str, learning_rate: float, clamped: bool
) -> None:
    """L-BFGS learns the curvature from its steps, and clamping would falsify them."""
    last = stylizing(pocket, optimizer=optimizer, learning_rate=learning_rate, steps=6, min_scale=64)[-1]
    (pixels,) = last.state_dict()["parameters"]
    assert (pixels.min() >= 0 and pixels.max() <= 1) == clamped


def test_a_run_that_diverges_does_not_go_on_to_the_next_scale(pocket: lk.Backbone) -> None:
    with pytest.warns(UserWarning, match="diverged at step"):
        found = stylizing(pocket, optimizer="lbfgs", learning_rate=1e30)
    assert {(p.stage, p.stages) for p in found} == {(1, 2)}
    assert len(found) < 12
    assert found[-1].picture.isfinite().all()


def test_a_run_can_go_on_with_other_weights_and_paintings(pocket: lk.Backbone) -> None:
    """From the same pixels, step and moments, towards another loss."""
    half = next(p for p in lk.stylizing(cat(), koi(), backbone=pocket, **OPTIONS) if p.step == 15)
    state = half.state_dict()
    turned = stylizing(pocket, painting=pond(), style_weight=70, resume=state)
    loss = lk.content(cat(), OPTIONS["content_layers"]) + 70 * lk.style(pond(), OPTIONS["style_layers"])
    expected = loss_at(pocket, loss + lk.total_variation(), state["parameters"][0])
    assert [p.step for p in turned] == list(range(16, 25))
    assert turned[0].loss == pytest.approx(expected, rel=1e-5)
    assert turned[-1].terms["style"] < 0.7 * turned[0].terms["style"]


# --- where it starts ----------------------------------------------------------------------------------------------


def test_first_pictures() -> None:
    assert torch.equal(first_picture("content", cat(), [koi()]), cat())
    assert torch.equal(first_picture("style", cat(), [koi()]), lk.resize(koi(), cat().shape[-2:]))
    given = torch.rand(1, 3, *cat().shape[-2:])
    assert torch.equal(first_picture(given, cat(), [koi()]), given)
    assert first_picture(koi()[0].permute(1, 2, 0).numpy(), cat(), [koi()]).shape == cat().shape
    noise, same, other = (first_picture("noise", cat(), [koi()], seed) for seed in (0, 0, 1))
    assert torch.equal(noise, same) and not torch.equal(noise, other)
    assert noise.mean().item() == pytest.approx(0.5, abs=0.01)
    assert noise.std().item() == pytest.approx(0.2, abs=0.02)


def test_noise_is_as_strong_on_the_first_of_several_scales(pocket: lk.Backbone) -> None:
    first = stylizing(pocket, init="noise", min_scale=32, steps=4, learning_rate=1e-9)[0].picture
    assert max(first.shape) < 0.7 * max(cat().shape)
    assert first.std().item() == pytest.approx(0.2, abs=0.03)


@pytest.mark.parametrize("given", [*get_args(Init), koi, lambda: cat().flip(3)])
def test_a_run_starts_where_it_is_told_to(pocket: lk.Backbone, given: str | Callable[[], Tensor]) -> None:
    init = given if isinstance(given, str) else given()
    (only,) = stylizing(pocket, init=init, steps=1, seed=4)
    start = first_picture(init, cat(), [koi()], 4)
    loss = lk.content(cat(), OPTIONS["content_layers"]) + 10 * lk.style(koi(), OPTIONS["style_layers"])
    assert only.loss == pytest.approx(loss_at(pocket, loss + lk.total_variation(), start), rel=1e-5)


# --- bad input ----------------------------------------------------------------------------------------------------

GRAY = torch.full((1, 3, 64, 64), 0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be a whole number from 1 to 1,000,000, not 0"),
        ({"steps": 10**9}, "steps must be a whole number from 1 to 1,000,000, not 1000000000"),
        ({"min_scale": 0}, "min_scale must be a whole number from 1 to 1,000,000, not 0"),
        ({"content_weight": -1}, "content_weight must be a number from 0 to 1e+12, not -1"),
        ({"style_weight": float("nan")}, "style_weight must be a number from 0 to 1e+12, not nan"),
        ({"tv_weight": float("inf")}, "tv_weight must be a number from 0 to 1e+12, not inf"),
        ({"chroma_tv_weight": -1}, "chroma_tv_weight must be a number from 0 to 1e+12, not -1"),
        ({"tv_exponent": 0}, "exponent must be a number from 0.001 to 10, not 0"),
        ({"learning_rate": -1}, "learning_rate must be a number of at least 0, not -1"),
        ({"avg_decay": 1}, "avg_decay must be a number from 0 to 0.9999, not 1"),
        ({"painting": []}, "there are 0 paintings and 0 weights"),
        ({"statistic": "mean"}, "statistic is one of gram, wasserstein, sliced, not 'mean'"),
        ({"optimizer": "sgd"}, "optimizer is one of adam, lbfgs, ascent, not 'sgd'"),
        (
            {"parameterization": "cppn"},
            "a CPPN cannot start from a picture, as every scale does: use pixels, laplacian",
        ),
        (
            {"parameterization": "waves"},
            "parameterization is one of fourier, spectrum, maco, laplacian, cppn, pixels, not 'waves'",
        ),
        ({"init": "photo"}, "init is one of content, style, noise, not 'photo'"),
        ({"init": torch.ones(2, 5)}, "a picture has the shape (N, 3, height, width), this one has (2, 5)"),
        ({"content_layers": ()}, "name at least one layer"),
        ({"style_layers": {}}, "name at least one layer"),
        ({"style_layers": {"relu1_1": -1}}, "layer weights must be numbers of at least 0, and not all 0, not [-1.0]"),
        ({"content_layers": "relu4_9"}, "pocket has no layer 'relu4_9': did you mean relu4_"),
        ({"style_layers": ["relu9_1"]}, "pocket has no layer 'relu9_1'"),
        ({"photo": GRAY * 255}, "pixels must lie in [0, 1]"),
        ({"painting": GRAY[:, :1]}, "this one has (1, 1, 64, 64)"),
        ({"photo": GRAY[..., :7, :10]}, "10x7 pixels is too small for relu4_2 of pocket"),
    ],
)
def test_style_transfers_that_make_no_sense_are_refused(pocket: lk.Backbone, options: dict, message: str) -> None:
    photo, painting = options.get("photo", cat()), options.get("painting", koi())
    rest = {name: value for name, value in options.items() if name not in ("photo", "painting")}
    with pytest.raises(ValueError, match=re.escape(message)):  # at the call: nothing asks for the first step
        lk.stylizing(photo, painting, backbone=pocket, **OPTIONS | rest)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"histogram_weight": -1}, "histogram_weight must be a number from 0 to 1e+12, not -1"),
        ({"style_inset": 0.5}, "inset must be a number from 0 to 0.4, not 0.5"),
        ({"style_scale": 0}, "scale must be a number from 0.001 to 100, not 0"),
        ({"style_weights": [1, 2]}, "there are 1 paintings and 2 weights: give each one"),
        (
            {"painting": [GRAY, GRAY], "style_weights": [1, -1]},
            "style weights must be numbers of at least 0, and not all 0, not [1.0, -",
        ),
        (
            {"painting": [GRAY, GRAY], "style_weights": [0, 0]},
            "style weights must be numbers of at least 0, and not all 0",
        ),
        ({"style_weights": [float("nan")]}, "style weights must be numbers of at least 0, and not all 0, not [nan]"),
    ],
)
def test_objectives_that_make_no_sense_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        objective(**options)


# --- a loss in the painting's place ---------------------------------------------------------------------------------


def test_the_objective_given_as_a_loss_paints_the_same_picture(pocket: lk.Backbone) -> None:
    assert torch.equal(stylize(pocket, painting=objective(), steps=6), stylize(pocket, steps=6))


def test_lbfgs_takes_the_gradient_of_a_loss_on_features_alone(pocket: lk.Backbone) -> None:
    """Networks lay gradients out with the colors last; total variation, in every objective, hid that."""
    options = {"init": "noise", "optimizer": "lbfgs", "learning_rate": 1.0, "min_scale": 999, "steps": 8}
    losses = [step.loss for step in stylizing(pocket, painting=lk.content(cat(), "relu2_1"), **options)]
    assert losses[-1] < 0.5 * losses[0]


def test_any_loss_is_minimized(pocket: lk.Backbone) -> None:
    found = stylize(pocket, painting=lk.pixel_mse(koi()), steps=60, learning_rate=0.1)
    assert lk.difference(found, lk.resize(koi(), cat().shape[-2:])).mean() < 0.02


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"style_weight": 5.0, "style_layers": ["relu1_1"]}, "style_weight, style_layers: of no effect beside a loss"),
        ({"color": "linear"}, "color='linear' needs a painting, and a loss was given"),
        ({"color": "nonsense"}, "color is one of linear, histogram, luma"),
        ({"init": "style"}, "init='style' needs a painting, and a loss was given"),
    ],
)
def test_what_a_loss_leaves_without_effect_is_refused(pocket: lk.Backbone, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        lk.stylizing(cat(), objective(), backbone=pocket, **LOOP | options)


def test_scales_too_small_for_the_network_are_left_out(pocket: lk.Backbone) -> None:
    """A panorama's early scales would be thinner than the deepest layer allows."""
    assert scale_sizes((20, 160), 40, 10, least=10) == [(10, 80), (14, 113), (20, 160)]
    assert scale_sizes((8, 160), 40, 10, least=10) == [(8, 160)]  # the picture's own size stays, to be refused by name
    panorama = lk.resize(lk.photo("chelsea"), (16, 160))
    assert stylize(pocket, panorama, steps=4).shape == panorama.shape


@pytest.mark.parametrize("painting", [koi, lambda: lk.style_objective(cat(), koi())], ids=["a painting", "a loss"])
def test_recommended_layers_count_when_scales_are_too_small(pocket: lk.Backbone, painting: Callable) -> None:
    options = {"backbone": pocket, "precision": "float32"}
    strip = lk.resize(lk.photo("chelsea"), (12, 200))
    assert next(lk.stylizing(strip, painting(), steps=20, **options)).picture.shape[2] >= 8
    with pytest.raises(ValueError, match="4x4 pixels is too small for relu4_"):
        lk.stylizing(strip[..., :4, :4], painting(), **options)


def test_a_run_stopped_at_a_small_scale_gives_a_picture_of_the_photos_size(
    pocket: lk.Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = lk.stylizing

    def interrupted(*arguments: Any, **options: Any) -> Any:
        yield next(iter(run(*arguments, **options)))
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["labkit.recipes.style_transfer"], "stylizing", interrupted)  # lk.style is the loss
    assert stylize(pocket).shape == cat().shape
