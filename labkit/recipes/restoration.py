"""The deep image prior: one picture, whose parameters are the weights of a network that nobody trained."""

from __future__ import annotations

import time
from collections.abc import Iterator
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from ..base.checks import check_numbers
from ..engine.evaluator import Evaluator
from ..engine.optimization import Average, Stage, descend, make_optimizer
from ..engine.parameters import DeepPrior
from ..engine.progress import Progress
from ..losses.reconstruction import anchor
from ..networks.zoo import load_backbone
from ..pictures.reading import as_picture


def restoring(
    picture: Any,
    mask: Tensor | None = None,
    *,
    steps: int = 500,
    learning_rate: float = 0.01,
    average: float = 0.95,
    seed: int = 0,
    device: str | torch.device | None = None,
) -> Iterator[Progress]:
    """Fit a network's output to a damaged picture, yielding `Progress` after every step (Ulyanov, Vedaldi and
    Lempitsky 2018, arXiv:1711.10925).

    Convolutions find it easier to say a natural picture than noise: stopped in time, the result is cleaner than what it
    was fitted to. Stopped too late, it is the damaged picture again.

    picture: anything `as_picture` takes, one picture with sides of at least 32 pixels. mask: (1, 1, H, W) in [0, 1], 0
        where pixels are missing and are to be guessed. average: decay of the running mean of the results that is shown.
    """
    check_numbers(1, Integral, steps=steps)
    check_numbers(0, learning_rate=learning_rate)
    picture = as_picture(picture)
    if len(picture) != 1:
        raise ValueError(f"a prior restores one picture at a time, not {len(picture)}")
    size = tuple(picture.shape[-2:])
    if min(size) < 32:
        raise ValueError(f"a prior's picture needs sides of at least 32 pixels, not {size[1]}x{size[0]}")
    evaluator = Evaluator(load_backbone("pocket", device), anchor(picture, mask), size)
    prior = DeepPrior(size, seed, device=evaluator.backbone.device)
    stepper = make_optimizer("adam", prior.parameters, learning_rate)
    stage = Stage(0, 1, steps, 0, steps)
    yield from descend(stage, prior, evaluator, stepper, average=Average(average), started=time.perf_counter())
