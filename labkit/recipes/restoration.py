"""The deep image prior: one picture, whose parameters are the weights of a network that nobody trained."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral

import torch
from torch import Tensor

from ..base.checks import check_numbers
from ..engine.deep_prior import DeepPrior
from ..engine.evaluator import Evaluator
from ..engine.optimization import Average, descend, make_optimizer
from ..engine.progress import Progress, finished, with_bar
from ..engine.runs import single_stage
from ..losses.reconstruction import pixel_mse
from ..networks.zoo import load_backbone
from ..pictures.geometry import size_of
from ..pictures.reading import PictureLike, as_picture


def restoring(
    picture: PictureLike,
    mask: Tensor | None = None,
    *,
    steps: int = 500,
    learning_rate: float = 0.01,
    avg_decay: float = 0.95,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool | None = None,
) -> Iterator[Progress]:
    """Fit a network's output to a damaged picture, yielding `Progress` after every step (Ulyanov, Vedaldi and
    Lempitsky 2018, arXiv:1711.10925).

    Convolutions find it easier to say a natural picture than noise: stopped in time, the result is cleaner than what it
    was fitted to. Stopped too late, it is the damaged picture again.

    Args:
        picture: anything `as_picture` takes, one picture with sides of at least 32 pixels.
        mask: (1, 1, H, W) in [0, 1], 0 where pixels are missing and are to be guessed; None: none are missing.
        steps, learning_rate: of Adam.
        avg_decay: of the running mean of the results that is shown.
        seed: of the weights and of the noise.
        device: see `load_backbone`.
        progress: show a progress bar; None: `restore` does, `restoring` does not.
    """
    check_numbers(1, Integral, steps=steps)
    check_numbers(0, learning_rate=learning_rate)
    damaged = as_picture(picture)
    if len(damaged) != 1:
        raise ValueError(f"a prior restores one picture at a time, not {len(damaged)}")
    size = size_of(damaged)
    if min(size) < 32:
        raise ValueError(f"a prior's picture needs sides of at least 32 pixels, not {size[1]}x{size[0]}")
    evaluator = Evaluator(load_backbone("pocket", device), pixel_mse(damaged, mask), size)
    prior = DeepPrior(size, seed, device=evaluator.device)
    stepper = make_optimizer("adam", prior.parameters, learning_rate)
    stage = single_stage(size, steps, home=damaged.device)
    return with_bar(descend(stage, prior, evaluator, stepper, average=Average(avg_decay)), progress)


restore = finished(restoring, "Restore to the end and return the picture (1, 3, H, W), on the picture's device.")
