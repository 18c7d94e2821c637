"""Floor 4: the deep image prior: one picture, whose parameters are the weights of a network that nobody trained."""

from __future__ import annotations

import time
from collections.abc import Iterator
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from .backbones import load_backbone
from .create import Rendered
from .gradients import Evaluator
from .images import as_picture
from .losses import anchor
from .optimize import Average, Progress, Stage, check_numbers, descend, make_optimizer
from .repeatable import Conv2d, enlarged


def block(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    """Convolution, batch normalisation, leaky ReLU."""
    return nn.Sequential(
        Conv2d(inputs, outputs, 3, stride, 1, padding_mode="reflect"), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2)
    )


class Hourglass(nn.Module):
    """A network from a map to a picture of its size: ``levels`` times down by half, and up again, with a few channels
    handed across at each size."""

    def __init__(self, inputs: int = 16, width: int = 32, levels: int = 4, across: int = 4):
        super().__init__()
        sources = [inputs, *[width] * (levels - 1)]
        self.down = nn.ModuleList(nn.Sequential(block(s, width, 2), block(width, width)) for s in sources)
        self.across = nn.ModuleList(nn.Conv2d(s, across, 1) for s in sources)
        self.up = nn.ModuleList(block(width + across, width) for _ in sources)
        self.last = nn.Conv2d(width, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        handed = []
        for down, across in zip(self.down, self.across, strict=True):
            handed.append(across(x))
            x = down(x)
        for up in self.up:
            beside = handed.pop()
            x = up(torch.cat([enlarged(x, beside.shape[-2:]), beside], 1))
        return self.last(x).sigmoid()


class DeepPrior(Rendered):
    """A picture (1, 3, H, W) as what an untrained network makes of fixed noise; the weights are the parameters.

    A little fresh noise of deviation ``shake`` is added to the input at every step.
    """

    def __init__(
        self, size: tuple[int, int], seed: int = 0, shake: float = 0.03, device: torch.device | str | None = None
    ):
        # Random numbers are drawn where the network is: every step needs 16 of them a pixel.
        self.generator, self.shake = torch.Generator(device or "cpu").manual_seed(seed), shake
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = Hourglass().to(device)
        self.noise = 0.1 * torch.rand(1, 16, *size, generator=self.generator, device=self.generator.device)
        self.parameters = list(self.network.parameters())

    def render(self) -> Tensor:
        fresh = torch.randn(self.noise.shape, generator=self.generator, device=self.noise.device)
        return self.network(self.noise + self.shake * fresh)


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
