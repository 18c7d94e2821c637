"""The evaluator against autograd written out by hand, and what precision does to it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import labkit as lk
from labkit.base.devices import pick_precision
from labkit.engine.evaluator import least_side

SIZE = (64, 96)
STYLE_LAYERS = "relu1_1", "relu2_1", "relu3_1", "relu4_1"
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _no_override(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LABKIT_PRECISION", raising=False)


@pytest.fixture
def pocket() -> lk.Backbone:
    return lk.load_backbone("pocket", "cpu")


@pytest.fixture(scope="module")
def photo() -> Tensor:
    return lk.photo("chelsea", SIZE)


def style_loss() -> lk.Loss:
    content = lk.content(lk.photo("coffee", SIZE), "relu4_2")
    return content + 10 * lk.style(lk.painting("koi_mosaic", 96), STYLE_LAYERS) + lk.total_variation()


def relative_error(found: Tensor, truth: Tensor) -> float:
    return ((found - truth).norm() / truth.norm()).item()


# --- float32 ------------------------------------------------------------------------------------------------------


def test_loss_and_gradient_are_autograds(pocket: lk.Backbone, photo: Tensor) -> None:
    target = lk.photo("coffee", SIZE)
    loss = -0.01 * lk.activation("relu3_1") + 20 * lk.style(target, ["relu2_1"]) + 0.5 * lk.total_variation()
    found = lk.Evaluator(pocket, loss, SIZE, "float32")(photo)

    x = photo.clone().requires_grad_()
    features = pocket.features(x, ["relu2_1", "relu3_1"])
    a, g = (f["relu2_1"].flatten(2)[0] for f in (pocket.features(target, ["relu2_1"]), features))
    a, g = a @ a.T / a.shape[1], g @ g.T / g.shape[1]
    rough = (x[..., 1:] - x[..., :-1]).square().sum() + (x[..., 1:, :] - x[..., :-1, :]).square().sum()
    terms = {
        "activation": -0.01 * features["relu3_1"].square().mean(),
        "style": 20 * (g - a).square().sum() / a.square().sum(),
        "total_variation": 0.5 * rough / x.numel(),
    }
    by_hand = sum(terms.values())
    by_hand.backward()

    torch.testing.assert_close(found.loss, by_hand.detach()[None], rtol=1e-5, atol=0)
    assert {name: term.item() for name, term in found.terms.items()} == pytest.approx(
        {name: term.item() for name, term in terms.items()}, rel=1e-5
    )
    assert relative_error(found.gradient, x.grad) < 1e-5


def test_class_logit_through_the_whole_network(pocket: lk.Backbone, photo: Tensor) -> None:
    found = lk.Evaluator(pocket, -lk.class_logit(285), SIZE, "float32")(photo)
    x = photo.clone().requires_grad_()
    logits = pocket.logits(x)[0]
    logit = logits[285] - logits.mean()
    (gradient,) = torch.autograd.grad(-logit, x)
    assert found.loss.item() == pytest.approx(-logit.item(), rel=1e-5)
    assert relative_error(found.gradient, gradient) < 1e-5


def test_each_picture_of_a_batch_has_its_own_loss_and_gradient(pocket: lk.Backbone, photo: Tensor) -> None:
    evaluator = lk.Evaluator(pocket, style_loss(), SIZE, "float32")
    batch = torch.cat([photo, photo.flip(3), 1 - photo])
    together, alone = evaluator(batch), [evaluator(one[None]) for one in batch]
    assert together.loss.shape == (3,)
    torch.testing.assert_close(together.loss, torch.cat([one.loss for one in alone]), rtol=1e-5, atol=0)
    assert relative_error(together.gradient, torch.cat([one.gradient for one in alone])) < 1e-5


def test_only_the_picture_gets_a_gradient(pocket: lk.Backbone, photo: Tensor) -> None:
    evaluator = lk.Evaluator(pocket, style_loss(), SIZE, "float32")
    with torch.no_grad():  # it is the evaluator that turns gradients on
        found = evaluator(photo)
    assert found.gradient.shape == photo.shape and found.gradient.abs().max() > 0
    assert not photo.requires_grad and photo.grad is None
    assert not any(p.requires_grad or p.grad is not None for p in evaluator.backbone.parameters())
    results = [found.loss, found.gradient, *found.terms.values()]
    assert not any(t.requires_grad for t in results), "a result holds the graph and all its memory"


def test_deeper_stages_do_not_run(pocket: lk.Backbone, photo: Tensor) -> None:
    smooth = lk.total_variation()
    deep, flat = (lk.Evaluator(pocket, loss, SIZE, "float32") for loss in (lk.activation("relu2_2") + smooth, smooth))
    ran: list[str] = []
    for name, stage in zip(pocket.names, pocket.stages, strict=True):
        stage.register_forward_hook(lambda *_, name=name: ran.append(name))
    deep(photo)
    assert ran == pocket.names[: pocket.names.index("relu2_2") + 1]
    ran.clear()
    flat(photo)
    assert ran == []


# --- bfloat16 -----------------------------------------------------------------------------------------------------


# Measured on four photos of 64 to 224 pixels: losses within 0.5 %, cosines from 0.92 (the flat night sky of "rocket",
# where rounding decides which of nearly equal positions a max pool takes) to 0.99 ("chelsea").
@pytest.mark.parametrize(("name", "cosine"), [("chelsea", 0.975), ("rocket", 0.87)])
@pytest.mark.parametrize(
    "made",
    [
        lambda: -lk.activation("relu4_3"),
        lambda: -lk.class_logit(285),
        style_loss,
        lambda: lk.style(lk.painting("koi_mosaic", 96), STYLE_LAYERS, statistic="wasserstein"),
    ],
    ids=["dream", "class", "style", "wasserstein"],
)
def test_bfloat16_is_close_to_float32(
    pocket: lk.Backbone, made: Callable[[], lk.Loss], name: str, cosine: float
) -> None:
    loss, picture = made(), lk.photo(name, SIZE)
    exact, rounded = (lk.Evaluator(pocket, loss, SIZE, precision)(picture) for precision in ("float32", "bfloat16"))
    assert rounded.loss.dtype == rounded.gradient.dtype == torch.float32
    assert rounded.loss.item() == pytest.approx(exact.loss.item(), rel=0.02)
    assert F.cosine_similarity(rounded.gradient.flatten(), exact.gradient.flatten(), 0) > cosine
    assert not torch.equal(rounded.gradient, exact.gradient), "nothing was computed in bfloat16"


def test_statistics_and_targets_are_float32_under_bfloat16(pocket: lk.Backbone, photo: Tensor) -> None:
    evaluator = lk.Evaluator(pocket, style_loss() - lk.activation("relu4_3"), SIZE, "bfloat16")
    features = evaluator.features(photo, evaluator.loss.layers)
    assert {p.dtype for p in evaluator.backbone.parameters()} == {torch.bfloat16}
    assert {s.dtype for s in evaluator.loss.statistics(features, lk.Window()).values()} == {torch.float32}
    assert features["pixels"] is photo


def test_bfloat16_leaves_the_callers_network_alone(pocket: lk.Backbone, photo: Tensor) -> None:
    before = {key: value.clone() for key, value in pocket.state_dict().items()}
    evaluator = lk.Evaluator(pocket, lk.activation("relu2_1"), SIZE, "bfloat16")
    evaluator(photo)
    assert evaluator.backbone is not pocket
    for key, value in pocket.state_dict().items():
        assert value.dtype == torch.float32 and torch.equal(value, before[key]), key


# --- the choice of precision --------------------------------------------------------------------------------------


@pytest.mark.parametrize("environment", ["float32", "bfloat16"])
def test_the_environment_overrides_auto_only(monkeypatch: pytest.MonkeyPatch, environment: str) -> None:
    monkeypatch.setenv("LABKIT_PRECISION", environment)
    assert pick_precision("auto", CPU) == getattr(torch, environment)
    assert pick_precision("float32", CPU) == torch.float32
    assert pick_precision("bfloat16", CPU) == torch.bfloat16


@pytest.mark.parametrize(("fast", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_asks_the_device(monkeypatch: pytest.MonkeyPatch, fast: bool, dtype: torch.dtype) -> None:
    monkeypatch.setattr("labkit.base.devices._has_fast_bfloat16", lambda device: fast)
    assert pick_precision("auto", CPU) == dtype
    monkeypatch.setenv("LABKIT_PRECISION", "")  # how a shell unsets a variable for one command
    assert pick_precision("auto", CPU) == dtype


@pytest.mark.parametrize("precision", ["float16", "half", "", "sin"])
def test_other_precisions_are_refused(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    message = f"one of auto, float32, tf32, bfloat16, not '{precision}'"
    with pytest.raises(ValueError, match=message):
        pick_precision(precision, CPU)
    if precision:
        monkeypatch.setenv("LABKIT_PRECISION", precision)
        with pytest.raises(ValueError, match=message):
            pick_precision("auto", CPU)


# --- the least size -----------------------------------------------------------------------------------------------


def test_the_least_side_is_that_of_the_deepest_layer(pocket: lk.Backbone) -> None:
    loss = lk.total_variation() - lk.activation("relu1_1") - lk.activation("relu4_3")
    size = (64, 64)
    assert least_side(pocket, loss, size) == pocket.minimum_size("relu4_3") > pocket.minimum_size("relu1_1")
    assert least_side(pocket, lk.total_variation(), size) == 1
    with pytest.raises(
        ValueError, match="4x64 pixels is too small for relu4_3 of pocket: its sides must be at least 8"
    ):
        least_side(pocket, loss, (64, 4))


@pytest.mark.parametrize("size", [(0, 64), (64, 70_000), (64, 64.5)])
def test_sizes_without_a_meaning_are_refused(pocket: lk.Backbone, size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"(height|width) must be a whole number from 1 to 65,536"):
        lk.Evaluator(pocket, lk.total_variation(), size)
