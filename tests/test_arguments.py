"""Arguments are checked when they are given: what begins a long computation refuses them before its first step."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

import labkit as lk
from labkit.engine.training import train_steps
from labkit.outlook import federated
from labkit.recipes import adain, fast_style, style_transfer, super_resolution


def cat() -> Tensor:
    return lk.photo("chelsea", (32, 40))


def koi() -> Tensor:
    return lk.painting("koi_mosaic", (32, 32))


def numbers() -> tuple[list[federated.Client], Tensor, nn.Module]:
    model = nn.Linear(2, 2)
    return [federated.Client(torch.ones(1, 2), torch.zeros(1, dtype=torch.long))], federated.weights_of(model), model


def gossip(**options: Any) -> Iterator[federated.Round]:
    return federated.gossip(*numbers(), torch.ones(1, 1), rounds=1, **options)


def flat(size: tuple[int, int]) -> lk.Backbone:
    """A network that takes pictures of one size."""
    height, width = size
    layers = nn.Conv2d(3, 2, 3, padding=1), nn.Flatten(), nn.Linear(2 * height * width, 2)
    return lk.wrap(nn.Sequential(*layers), size=size, mean=0, std=1)


class Lost(lk.Loss):
    """A loss of a caller's own."""

    layers = ("relu9_9",)

    def bind(self, source: object, size: object) -> lk.BoundLoss:
        raise AssertionError("bound before its layers were checked")


dream = partial(lk.dreaming, cat(), backbone="pocket", device="cpu")
style = partial(lk.stylizing, cat(), koi(), device="cpu")
create = partial(lk.creating, -lk.activation("relu3_1"), size=32, device="cpu")
journey = partial(lk.journey, cat(), device="cpu")
dreamt = partial(lk.dream_frames, [cat()], flow=None, device="cpu")
repainted = partial(lk.stylize_frames, [cat()], koi(), flow=None, device="cpu")
upscaler = partial(super_resolution.training, super_resolution.Upscaler(2, 4, 1), [cat()], side=8)
painter = partial(fast_style.training, fast_style.StyleNetwork(["a"], 4, 1), {"a": koi()}, [cat()], side=16)
decoder = partial(adain.training, adain.Decoder(), [koi()], [cat()], side=16)
average = partial(federated.fedavg, *numbers(), rounds=1)
STEPS = "steps must be a whole number from 1 to"
BAD_LOSSES = [
    (lk.activation("relu9_9"), "pocket has no layer 'relu9_9'"),
    (lk.activation("relu4_3", channel=9999), "relu4_3 of pocket has 256 channels"),
    (lk.activation("relu4_3", direction=torch.ones(3)), "relu4_3 of pocket has 256 channels"),
    (lk.class_logit("nonsense"), "there is no class 'nonsense'"),
    (lk.class_logit(9999), "there is no class 9999"),
    (lk.activation("relu1_1") + lk.style(koi(), ["relu4_1"], scale=0.1), "too small for relu4_1 of pocket"),
    (Lost(), "pocket has no layer 'relu9_9'"),
]
BAD_ENGINES = [
    ({"precision": "float64"}, "precision is one of auto, float32, tf32, bfloat16, not 'float64'"),
    ({"tile": 3}, 'tile is "auto", None, or from 64 to 65,536 pixels, not 3'),
    ({"tile": "small"}, "tile is \"auto\", None, or from 64 to 65,536 pixels, not 'small'"),
    ({"distributed": True}, "there are no processes to share tiles with: start them with torchrun"),
]
CALLS: list[tuple[Callable[..., object], dict[str, Any], str]] = [
    *(
        (run, options, message)
        for run in (dream, style, journey, dreamt, repainted)
        for options, message in BAD_ENGINES
    ),
    *((partial(run, loss), {}, message) for run in (dream, journey, dreamt) for loss, message in BAD_LOSSES),
    *((partial(lk.stylizing, cat(), loss, device="cpu"), {}, message) for loss, message in BAD_LOSSES),
    *((partial(lk.creating, loss, size=32, device="cpu"), {}, message) for loss, message in BAD_LOSSES),
    *((repainted, {"extra_loss": loss}, message) for loss, message in BAD_LOSSES),
    (create, *BAD_ENGINES[0]),
    (create, {"size": (3, 32)}, "32x3 pixels is too small for relu3_1 of pocket"),
    (partial(lk.dreaming, torch.rand(1, 3, 70, 70), device="cpu"), {"layers": "logits", "tile": 64}, "the logits see"),
    (dream, {"layers": -lk.class_logit(0), "backbone": flat((24, 32))}, "takes pictures of 32x24 pixels, not 40x32"),
    *((run, {"steps": 0}, STEPS) for run in (journey, dreamt, repainted, upscaler, painter, decoder)),
    *((run, {"jitter": -1}, "jitter must be") for run in (journey, dreamt)),
    *((run, {"variations": 2}, "one dream a frame, not variations=2") for run in (journey, dreamt)),
    *((run, {"keep": 2}, "keep must be a number from 0 to 1, not 2") for run in (dreamt, repainted)),
    *((run, {"flow": 3}, 'flow is "auto", a function or None, not 3') for run in (dreamt, repainted)),
    (lk.dream_frames, {"frames": [], "flow": None}, "a film without frames"),
    (lk.stylize_frames, {"frames": [], "painting": koi(), "flow": None}, "a film without frames"),
    (repainted, {"color": "red"}, "color is one of"),
    (repainted, {"statistic": "mean"}, "statistic is one of"),
    (style_transfer.stylizing_with, {"photo": cat(), "painting": koi(), "tile": 3}, BAD_ENGINES[1][1]),
    *((run, {"precision": "half"}, "precision is one of") for run in (upscaler, painter, decoder)),
    *((run, {"learning_rate": -1}, "learning_rate must be") for run in (upscaler, painter, decoder, average, gossip)),
    *((run, {"clip": float("nan")}, "clip must be a number") for run in (upscaler, painter, decoder)),
    *((run, {"side": 99}, "no photo is large enough for crops of") for run in (upscaler, painter, decoder)),
    *((run, {"shift": -1}, "shift must be a whole number from 0") for run in (painter, decoder)),
    *((run, {"style_weight": -1}, "style_weight must be") for run in (painter, decoder)),
    *((run, {"tv_weight": float("nan")}, "tv_weight must be") for run in (painter, decoder)),
    (painter, {"content_weight": -1}, "content_weight must be"),
    *((run, {"side": 2}, "2x2 pixels is too small for relu") for run in (painter, decoder)),
    (decoder, {"backbone": flat((32, 32))}, "has no layer 'relu1_1'"),
    (partial(train_steps, nn.Linear(1, 1), torch.rand), {"steps": 0}, STEPS),
    *((run, {"epochs": 0}, "epochs must be a whole number from 1") for run in (average, gossip)),
    *((run, {"batch_size": 0}, "batch_size must be a whole number from 1") for run in (average, gossip)),
    *((run, {"proximal": -1}, "proximal must be a number of at least 0") for run in (average, gossip)),
]


@pytest.mark.parametrize(("call", "options", "message"), CALLS)
def test_bad_arguments_are_refused_at_the_call(call: Callable[..., object], options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        call(**options)


@pytest.mark.parametrize("call", [journey, dreamt, repainted, upscaler, painter, decoder, average, gossip])
def test_options_that_do_not_exist_are_refused_at_the_call(call: Callable[..., object]) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'stepz'"):
        call(stepz=3)


@pytest.mark.parametrize(
    ("call", "other"),
    [
        (dream, {"variations": 2}),
        (dream, {"octave_scale": 1.2}),
        (style, {"optimizer": "lbfgs"}),
        (style, {"min_scale": 20}),
        (style, {"parameterization": "pixels"}),
        (create, {"variations": 2}),
        (create, {"parameterization": "pixels"}),
    ],
)
def test_a_saved_run_with_other_arguments_is_refused_at_the_call(
    call: Callable[..., Iterator[lk.Progress]], other: dict
) -> None:
    saved = next(call(steps=2)).state_dict()
    assert next(call(steps=2, resume=saved)).step == 2
    with pytest.raises(ValueError, match="the saved run was another one"):
        call(steps=2, resume=saved, **other)


def test_a_network_of_one_size_that_is_no_square_dreams() -> None:
    network = flat((32, 40))
    assert lk.dream(cat(), -lk.class_logit(0), backbone=network, steps=1, progress=False).shape == cat().shape


def test_a_loss_is_bound_once_at_each_size() -> None:
    sizes, bind = [], lk.activation.bind
    with patch.object(lk.activation, "bind", lambda loss, source, size: sizes.append(size) or bind(loss, source, size)):
        run = dream("relu1_1", octaves=2, octave_scale=2, steps=2)
        assert sizes == [(16, 20)]
        list(run)
    assert sizes == [(16, 20), (32, 40)]
