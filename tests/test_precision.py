"""float32 is computed in float32 and TF32 only when it is asked for; afterwards PyTorch's settings are as they were."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import labkit as lk
from labkit.network import Recommended
from labkit.precision import arithmetic

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
            lk.attack.against(network.logits, torch.tensor([1])), PICTURE, lk.attack.Threat("linf", 0.1)
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
