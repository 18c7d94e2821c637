"""The loop: it reaches minima, stops, resumes to the last bit, survives divergence and interrupts."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

import labkit as lk
from labkit.base.checks import check_numbers
from labkit.engine.divergence import Watch
from labkit.engine.optimization import Average, Optimizer, descend, make_optimizer, resized_moments
from labkit.engine.parameters import Pixels
from labkit.engine.progress import Progress, finish
from labkit.engine.runs import single_stage

Run = Callable[..., Iterator[Progress]]
Evaluate = Callable[[Tensor], lk.Evaluation]

TARGET = 0.2 + 0.6 * torch.rand(1, 3, 4, 5, generator=torch.Generator().manual_seed(0))
CURVATURE = torch.linspace(1, 30, 60).view_as(TARGET)


def quadratic(picture: Tensor) -> lk.Evaluation:
    """A bowl with its bottom, 0, at TARGET, thirty times as steep in some directions as in others."""
    gap = picture - TARGET
    loss = (CURVATURE * gap.square()).sum((1, 2, 3)) / 2
    return lk.Evaluation(loss, {("bowl", ""): loss}, CURVATURE * gap)


def descending(
    evaluate: Evaluate = quadratic,
    optimizer: str = "adam",
    learning_rate: float = 0.03,
    steps: int = 10,
    avg_decay: float = 0.0,
    clamp: bool = True,
) -> Iterator[Progress]:
    pixels = Pixels(torch.full_like(TARGET, 0.5), clamp)
    stepper = make_optimizer(optimizer, pixels.parameters, learning_rate)
    return descend(single_stage((4, 5), steps), pixels, evaluate, stepper, average=Average(avg_decay))


def last(run: Iterator[Progress]) -> Progress:
    *_, progress = run
    return progress


# --- optimizers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("optimizer", "learning_rate", "steps"), [("ascent", 0.06, 150), ("adam", 0.03, 250), ("lbfgs", 1.0, 40)]
)
def test_every_optimizer_reaches_the_minimum(optimizer: str, learning_rate: float, steps: int) -> None:
    picture = last(descending(optimizer=optimizer, learning_rate=learning_rate, steps=steps)).picture
    torch.testing.assert_close(picture, TARGET, rtol=0, atol=1e-3)


def test_lbfgs_gains_more_from_an_evaluation_than_adam() -> None:
    calls = {"adam": 0, "lbfgs": 0}

    def left(optimizer: str, learning_rate: float) -> float:
        def counted(picture: Tensor) -> lk.Evaluation:
            calls[optimizer] += 1
            return quadratic(picture)

        run = descending(counted, optimizer, learning_rate, steps=25)
        return quadratic(last(run).picture).loss.item()

    assert left("lbfgs", 1.0) < 0.01 * min(left("adam", rate) for rate in (0.01, 0.03, 0.1))
    assert calls == {"adam": 75, "lbfgs": 25}, "a step is one evaluation"


def test_an_unknown_optimizer_is_refused() -> None:
    with pytest.raises(ValueError, match="optimizer is one of adam, lbfgs, ascent, not 'sgd'"):
        make_optimizer("sgd", [TARGET], 0.1)


def test_moments_are_resized_for_a_warm_start() -> None:
    generator = torch.Generator().manual_seed(1)
    noise, other = (torch.randn(1, 3, 6, 8, generator=generator) for _ in range(2))
    adam = make_optimizer("adam", [parameter := torch.zeros(1, 3, 6, 8)], 0.05)
    for gradient in (noise, other):
        parameter.grad = gradient
        adam.step()
    before = {key: value.clone() for key, value in adam.state_dict()["state"][0].items()}
    warm = resized_moments(adam.state_dict(), (9, 11))
    (moments,) = warm["state"].values()
    assert moments["exp_avg"].shape == moments["exp_avg_sq"].shape == (1, 3, 9, 11)
    least, largest = before["exp_avg_sq"].aminmax()
    assert 0 < least <= moments["exp_avg_sq"].min(), "a second moment near 0 would make a step without bounds"
    assert moments["exp_avg_sq"].max() <= largest
    assert moments["step"] == 2
    assert warm["param_groups"] == adam.state_dict()["param_groups"]
    assert all(torch.equal(value, before[key]) for key, value in adam.state_dict()["state"][0].items())
    fresh = make_optimizer("adam", [torch.zeros(1, 3, 9, 11)], 0.05)
    fresh.load_state_dict(warm)
    assert torch.equal(fresh.state_dict()["state"][0]["exp_avg"], moments["exp_avg"])


def test_moments_of_a_constant_stay_the_constant() -> None:
    adam = make_optimizer("adam", [parameter := torch.zeros(1, 3, 4, 4)], 0.05)
    parameter.grad = torch.full_like(parameter, 0.5)
    adam.step()
    moments = resized_moments(adam.state_dict(), (7, 5))["state"][0]
    torch.testing.assert_close(moments["exp_avg"], torch.full((1, 3, 7, 5), 0.1 * 0.5))
    torch.testing.assert_close(moments["exp_avg_sq"], torch.full((1, 3, 7, 5), 0.01 * 0.25))


# --- the running mean ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.99])
def test_average_of_a_constant_is_the_constant(decay: float) -> None:
    average = Average(decay)
    for _ in range(5):
        average.update(TARGET)
        torch.testing.assert_close(average.value, TARGET)


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.9])
def test_average_is_an_exponential_mean(decay: float) -> None:
    pictures = [torch.rand(1, 3, 2, 2, generator=torch.Generator().manual_seed(k)) for k in range(6)]
    average = Average(decay)
    for picture in pictures:
        average.update(picture)
    weights = decay ** np.arange(5.0, -1, -1)
    expected = np.average(torch.stack(pictures).numpy(), axis=0, weights=weights)
    np.testing.assert_allclose(average.value, expected, rtol=1e-5)


def test_average_is_what_a_run_shows() -> None:
    seen: list[Tensor] = []

    def noted(picture: Tensor) -> lk.Evaluation:
        seen.append(picture.clone())
        return quadratic(picture)

    *_, before, shown = descending(noted, steps=6, avg_decay=0.8)
    average = Average(0.8)
    for picture in seen[1:]:  # a picture is evaluated in the step after the one that made it
        average.update(picture)
    torch.testing.assert_close(before.picture, average.value)
    assert shown.step == 6


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_average_refuses_a_decay_that_is_none(decay: float) -> None:
    with pytest.raises(ValueError, match=r"lies in \[0, 1\), not"):
        Average(decay)


# --- progress -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pocket() -> lk.Backbone:
    return lk.load_backbone("pocket", "cpu")


cat = cache(lambda: lk.photo("chelsea", 64))
koi = cache(lambda: lk.painting("koi_mosaic", 64))
FAST = {"precision": "float32"}
STYLE = FAST | {"content_layers": "relu2_2", "style_layers": ("relu1_1", "relu2_1"), "min_scale": 45, "steps": 6}


def dreaming(**options: Any) -> Iterator[lk.Progress]:
    return lk.dreaming(cat(), **FAST | {"octaves": 2, "steps": 3} | options)


def stylizing(**options: Any) -> Iterator[lk.Progress]:
    return lk.stylizing(cat(), koi(), **STYLE | options)


RUNS: dict[str, Run] = {
    "dream": partial(dreaming, layers="relu2_2", jitter=8),
    "variations": partial(dreaming, layers={"relu1_2": 1, "relu2_2": 2}, variations=2, mask="center"),
    "adam": stylizing,
    "last iterate": partial(stylizing, avg_decay=0, init="noise"),
    "lbfgs": partial(stylizing, optimizer="lbfgs"),
    "ascent": partial(stylizing, optimizer="ascent", statistic="wasserstein"),
    "laplacian": partial(stylizing, parameterization="laplacian"),
    "neighbors": partial(stylizing, neighbor_weight=1.0, parameterization="laplacian"),
    "fourier": partial(stylizing, parameterization="fourier", avg_decay=0),
}
every_run = pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)


@every_run
def test_progress_counts_over_all_stages(run: Run, pocket: lk.Backbone) -> None:
    found = list(run(backbone=pocket))
    assert [(p.step, p.of, p.stage, p.stages) for p in found] == [(k, 6, 1 + k // 4, 2) for k in range(1, 7)]
    assert all(0 < a.elapsed < b.elapsed for a, b in itertools.pairwise(found))


def outside(picture: Tensor) -> lk.Evaluation:
    """A bowl whose bottom is no picture."""
    return quadratic(picture - 1)


@pytest.mark.parametrize(("clamp", "highest"), [(True, 1.0), (False, 1 + TARGET.max().item())])
def test_pixels_are_clamped_if_asked(clamp: bool, highest: float) -> None:
    (pixels,) = last(descending(outside, "ascent", steps=200, clamp=clamp)).state_dict()["parameters"]
    assert pixels.max().item() == pytest.approx(highest, abs=0.01)


@pytest.mark.parametrize("average", [0.0, 0.9])
@pytest.mark.parametrize("optimizer", get_args(Optimizer))
def test_the_picture_is_a_copy_within_bounds(optimizer: str, average: float) -> None:
    pictures = []
    for progress in descending(outside, optimizer, 0.03, steps=12, avg_decay=average, clamp=False):
        pictures.append((progress.picture, progress.picture.clone()))
        progress.picture.zero_()
    assert all(torch.equal(picture, then) for picture, then in pictures), "a picture changed after it was shown"
    assert all(picture.min() >= 0 and picture.max() <= 1 for picture, _ in pictures)
    assert pictures[0][0].mean() < pictures[-1][0].mean()


def test_terms_and_loss_are_those_before_the_step() -> None:
    first, second, *_ = descending()
    assert first.loss == first.terms["bowl"] == pytest.approx(quadratic(torch.full_like(TARGET, 0.5)).loss.item())
    assert second.loss == pytest.approx(quadratic(first.picture).loss.item(), rel=1e-6)


# --- seeds, stopping and resuming ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dream", "variations", "last iterate"])
def test_the_seed_decides_the_picture(name: str, pocket: lk.Backbone) -> None:
    torch.manual_seed(1)
    one = last(RUNS[name](backbone=pocket, seed=3)).picture
    torch.manual_seed(2)  # the global generator has no say
    same, other = (last(RUNS[name](backbone=pocket, seed=seed)).picture for seed in (3, 4))
    assert torch.equal(one, same)
    assert lk.difference(one, other).mean() > 1e-4  # rounding alone: 1e-7


@pytest.mark.slow
@pytest.mark.parametrize("stop", [1, 3, 4, 6], ids=["first scale", "end of the scale", "second scale", "end"])
@every_run
def test_a_resumed_run_is_the_run_to_the_last_bit(run: Run, stop: int, pocket: lk.Backbone, tmp_path: Path) -> None:
    whole = list(run(backbone=pocket))
    file = tmp_path / "run.pt"
    interrupted = run(backbone=pocket)
    *_, progress = itertools.islice(interrupted, stop)
    progress.save(file)
    interrupted.close()

    rest = list(run(backbone=pocket, resume=file))
    assert [p.step for p in rest] == list(range(stop + 1, 7))
    assert [p.loss for p in rest] == [p.loss for p in whole[stop:]]
    assert all(torch.equal(a.picture, b.picture) for a, b in zip(rest, whole[stop:], strict=True))
    assert list(tmp_path.iterdir()) == [file]


@every_run
def test_a_state_stays_as_it_was_taken(run: Run, pocket: lk.Backbone) -> None:
    """The run that it was taken from goes on, and it is resumed twice: neither changes it."""
    running = run(backbone=pocket)
    next(running)
    state = next(running).state_dict()
    end = last(running).picture
    for _ in range(2):
        assert torch.equal(last(run(backbone=pocket, resume=state)).picture, end)


def test_a_state_that_the_run_has_left_is_refused(pocket: lk.Backbone) -> None:
    """The parameters are no longer those of the picture that one would think it saves."""
    first, *_ = RUNS["adam"](backbone=pocket)
    with pytest.raises(ValueError, match="gone on from step 1 to step 3: save before"):
        first.state_dict()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_file_resumes_on_the_gpu(tmp_path: Path) -> None:
    run = partial(RUNS["adam"], device="cuda")
    running = run()
    next(running)
    next(running).save(tmp_path / "run.pt")
    end = last(running).picture
    torch.testing.assert_close(last(run(resume=tmp_path / "run.pt")).picture, end, rtol=0, atol=1e-3)


# --- divergence ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("average", [0.0, 0.9])
@pytest.mark.parametrize("optimizer", get_args(Optimizer))
def test_a_loss_that_is_no_number_ends_the_run_at_the_last_good_picture(optimizer: str, average: float) -> None:
    seen: list[Tensor] = []

    def failing(picture: Tensor) -> lk.Evaluation:
        seen.append(picture.clone())
        evaluation = quadratic(picture)
        if len(seen) < 4:
            return evaluation
        return lk.Evaluation(evaluation.loss * float("nan"), {}, evaluation.gradient * float("nan"))

    with pytest.warns(UserWarning, match=r"diverged at step 4 \(the loss is nan\).*smaller learning rate"):
        found = list(descending(failing, optimizer, steps=10, avg_decay=average))
    assert len(found) == 4
    assert torch.equal(found[-1].picture, seen[2]), "not the last picture whose loss was finite"


def test_a_device_is_asked_about_the_step_before() -> None:
    """A verdict that is read one step late names the right step, and the last one is not put off."""

    def losses(*values: float) -> list[tuple[int, Tensor] | None]:
        with torch.no_grad():
            parameter.zero_()
        watch = Watch([parameter])
        watch.late = True
        found = []
        for number, value in enumerate(values):
            watch.before_step()
            parameter.data += 1
            found.append(watch.after_step(number, torch.tensor([value]), last=number + 1 == len(values)))
            if found[-1]:
                break
        return found

    parameter = torch.zeros(2)
    assert losses(1, 2, 3) == [None, None, None] and parameter.tolist() == [3, 3]
    found = losses(1, float("nan"), 3, 4)
    assert found[:2] == [None, None] and found[2][0] == 1 and found[2][1].isnan()
    assert parameter.tolist() == [0, 0]
    assert losses(1, float("nan"))[1][0] == 1


def test_a_step_that_leaves_no_picture_is_taken_back() -> None:
    """The loss is still finite, and nobody will evaluate what the last step made."""

    def cliff(picture: Tensor) -> lk.Evaluation:
        evaluation = quadratic(picture)
        return lk.Evaluation(evaluation.loss, evaluation.layer_terms, evaluation.gradient / 0)

    with pytest.warns(UserWarning, match="diverged at step 1 "):
        progress = last(descending(cliff, "ascent", steps=1, clamp=False))
    assert torch.equal(progress.picture, torch.full_like(TARGET, 0.5))


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("rate", [1e3, 1e30])
@pytest.mark.parametrize("optimizer", get_args(Optimizer))
def test_an_absurd_learning_rate_leaves_a_picture(pocket: lk.Backbone, optimizer: str, rate: float, steps: int) -> None:
    options = STYLE | {"min_scale": 64, "steps": steps, "learning_rate": rate, "optimizer": optimizer}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "diverged")
        picture = lk.stylize(cat(), koi(), backbone=pocket, progress=False, **options)
    assert picture.shape == cat().shape
    assert picture.isfinite().all()


def test_a_dream_that_diverges_does_not_go_on_to_the_next_octave(pocket: lk.Backbone) -> None:
    with pytest.warns(UserWarning, match="diverged at step 1 "):
        found = list(RUNS["dream"](backbone=pocket, layers=lk.activation("relu2_2") * torch.tensor([float("nan")])))
    assert [(p.step, p.stage) for p in found] == [(1, 1)]


# --- to the end ---------------------------------------------------------------------------------------------------


def test_an_interrupt_returns_the_picture_so_far() -> None:
    calls = itertools.count(1)

    def interrupted(picture: Tensor) -> lk.Evaluation:
        if next(calls) == 4:
            raise KeyboardInterrupt
        return quadratic(picture)

    *_, third = descending(steps=3)
    assert torch.equal(finish(descending(interrupted)), third.picture)


def test_an_interrupt_before_the_first_picture_is_an_interrupt() -> None:
    def interrupted(picture: Tensor) -> lk.Evaluation:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finish(descending(interrupted))


def test_finish_returns_the_last_picture_and_shows_no_bar_if_told_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert torch.equal(finish(descending()), last(descending()).picture)
    assert capsys.readouterr().err == ""


def test_a_run_without_steps_is_refused(pocket: lk.Backbone) -> None:
    state = last(RUNS["dream"](backbone=pocket)).state_dict()
    with pytest.raises(ValueError, match="no steps left to take"):
        finish(RUNS["dream"](backbone=pocket, resume=state))


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "3", None])
def test_check_numbers_names_the_argument(value: object) -> None:
    with pytest.raises(ValueError, match=f"steps must be a number of at least 1, not {value!r}"):
        check_numbers(1, octaves=2, steps=value)


@pytest.mark.parametrize("value", [3, 3.5, np.int64(3), np.float32(3.5)])
def test_check_numbers_takes_numpys_numbers_too(value: float) -> None:
    check_numbers(1, steps=value)
