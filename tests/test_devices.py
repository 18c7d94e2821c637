"""float32 is computed in float32 and TF32 only when it is asked for; afterwards PyTorch's settings are as they were."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import labkit as lk
from labkit.base.devices import arithmetic
from labkit.engine.optimization import descend, make_optimizer
from labkit.engine.parameters import Pixels
from labkit.engine.runs import single_stage
from labkit.networks.recommended import Recommended

cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
State = tuple[bool, bool, bool, bool]


def settings() -> State:
    """Whether convolutions and matrix products may be rounded to TF32, and whether cuDNN repeats itself."""
    if hasattr(matmul, "fp32_precision"):
        rounded = [place.fp32_precision == "tf32" for place in (cudnn.conv, matmul)]
    else:
        rounded = [place.allow_tf32 for place in (cudnn, matmul)]
    return *rounded, cudnn.deterministic, cudnn.benchmark


class Witness(nn.Module):
    """A stage that writes down the settings under which it ran, forwards and backwards."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[State] = []

    def forward(self, x: Tensor) -> Tensor:
        if not x.is_meta:  # where there are only shapes
            self.seen.append(settings())
        x = x.clone()
        if x.requires_grad:
            x.register_hook(lambda _: self.seen.append(settings()))
        return x


def watched() -> tuple[lk.Backbone, Witness]:
    witness = Witness()
    recommended = Recommended({"witness": 1.0}, ("witness",), {"witness": 1.0})
    return lk.Backbone("watched", OrderedDict(witness=witness), nn.Identity(), recommended), witness


EXACT, ROUNDED = (False, False, True, False), (True, True, True, False)
PICTURE = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("precision", "expected"), [("float32", EXACT), ("bfloat16", EXACT), ("tf32", ROUNDED)])
@pytest.mark.parametrize("tile", [None, 64])
def test_an_evaluation_keeps_its_precision_in_both_passes(precision: str, expected: State, tile: int | None) -> None:
    backbone, witness = watched()
    evaluate = lk.Evaluator(backbone, lk.activation("witness"), (8, 8), precision, tile)
    seen = evaluate.backbone.stages[0].seen if precision == "bfloat16" else witness.seen
    evaluate(PICTURE)
    assert len(seen) == 2 and set(seen) == {expected}


def test_tf32_is_float32_where_there_is_no_tf32() -> None:
    backbone, _ = watched()
    found = [lk.Evaluator(backbone, lk.activation("witness"), (8, 8), p)(PICTURE) for p in ("float32", "tf32")]
    assert torch.equal(found[0].gradient, found[1].gradient) and found[0].gradient.dtype == torch.float32


@pytest.mark.parametrize(
    "call",
    [
        lambda network: network.features(PICTURE, ["witness"]),
        lambda network: network.logits(PICTURE),
        lambda network: network.classify(PICTURE, 1),
        lambda network: lk.attack.fgsm(
            lk.attack.untargeted(network.logits, torch.tensor([1])), PICTURE, lk.attack.Threat("linf", 0.1)
        ),
        lambda network: lk.explain.gradient(lk.explain.class_score(network, 1), PICTURE),
        lambda network: lk.explain.grad_cam(network, "witness", 1, PICTURE),
    ],
    ids=["features", "logits", "classify", "fgsm", "gradient", "grad_cam"],
)
def test_what_has_no_precision_is_float32(call: Callable[[lk.Backbone], object]) -> None:
    backbone, witness = watched()
    call(backbone)
    assert witness.seen and set(witness.seen) == {EXACT}


@pytest.mark.parametrize(
    "call",
    [
        lambda model: lk.explain.class_score(model, 1)(PICTURE),
        lambda model: lk.explain.gradient(lk.explain.class_score(model, 1), PICTURE),
        lambda model: lk.perturb.occlusion(lk.explain.class_score(model, 1), PICTURE, 4, 4),
        lambda model: lk.blackbox.nes(model, torch.tensor([1]), samples=1)(PICTURE),
        lambda model: lk.blackbox.votes(model, PICTURE, 0.1, samples=2),
        lambda model: lk.quantize.calibrate(model, PICTURE),
        lambda model: lk.quantize.divergence(model, model, PICTURE),
        lambda model: lk.federated.gradient(lk.federated.weights_of(model), model, PICTURE, torch.tensor([1])),
        lambda model: lk.federated.accuracy(lk.federated.weights_of(model), model, PICTURE, torch.tensor([1])),
    ],
    ids=["score", "gradient", "occlusion", "nes", "votes", "calibrate", "divergence", "federated", "accuracy"],
)
def test_any_model_computes_in_float32(call: Callable[[nn.Module], object]) -> None:
    witness = Witness()
    call(nn.Sequential(witness, nn.Conv2d(3, 4, 8), nn.Flatten()))
    assert witness.seen and set(witness.seen) == {EXACT}


def test_what_makes_the_picture_computes_in_float32_too() -> None:
    """A parameterization is no part of what is evaluated, but it multiplies as well, forwards and backwards."""
    witness, seen = Witness(), []

    class Watched(Pixels):
        def picture(self) -> Tensor:
            return witness(super().picture())

        def backward(self, gradient: Tensor) -> None:
            seen.append(settings())
            super().backward(gradient)

    pixels, start = Watched(PICTURE), PICTURE.new_zeros(1)
    optimizer = make_optimizer("ascent", pixels.parameters, 0.1)
    for _ in descend(single_stage(start.shape[-2:], 2), pixels, lambda x: lk.Evaluation(start, {}, 0 * x), optimizer):
        witness.seen.pop()  # the last one is of the picture that is shown
    assert len(seen) == 2 and {*seen, *witness.seen} == {EXACT}
    assert settings() != EXACT


@pytest.mark.parametrize("tf32", [False, True])
def test_the_settings_come_back(tf32: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cudnn, "benchmark", True)
    before = settings()
    with pytest.raises(KeyError), arithmetic(tf32):
        assert settings() == (ROUNDED if tf32 else EXACT)
        raise KeyError
    assert settings() == before != EXACT
    assert cudnn.allow_tf32 and not matmul.allow_tf32, "the older names, too, can be read again"


def test_they_nest() -> None:
    with arithmetic(tf32=True):
        with arithmetic():
            assert settings() == EXACT
        assert settings() == ROUNDED


def test_of_contexts_that_overlap_the_last_one_restores() -> None:
    before, first, second = settings(), arithmetic(), arithmetic(tf32=True)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert settings() == ROUNDED
    second.__exit__(None, None, None)
    assert settings() == before
