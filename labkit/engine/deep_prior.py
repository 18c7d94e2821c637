"""The deep image prior (Ulyanov, Vedaldi and Lempitsky 2018, arXiv:1711.10925): a picture as an untrained network."""

from __future__ import annotations

from numbers import Integral

import torch
from torch import Tensor, nn

from ..base.checks import check_numbers
from ..base.deterministic import Conv2d, enlarged
from ..pictures.geometry import Size, size_of
from .parameters import Parameterization


def block(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    """Convolution, batch normalization, leaky ReLU."""
    return nn.Sequential(
        Conv2d(inputs, outputs, 3, stride, 1, padding_mode="reflect"), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2)
    )


class Hourglass(nn.Module):
    """A network from a map to a picture of its size: four times down by half, and up again, with a few channels handed
    across at each size."""

    def __init__(self, inputs: int = 16, width: int = 32, across: int = 4):
        super().__init__()
        sources = [inputs, width, width, width]
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
            x = up(torch.cat([enlarged(x, size_of(beside)), beside], 1))
        return self.last(x).sigmoid()


class DeepPrior(Parameterization):
    """A picture (1, 3, H, W) as what an untrained network makes of fixed noise; the weights are the parameters.

    Args:
        size: (height, width), from 32 to 8192 each.
        seed: of the weights and the noise.
        shake: the deviation of fresh noise that is added to the input at every step.
    """

    def __init__(self, size: Size, seed: int = 0, shake: float = 0.03, device: torch.device | str | None = None):
        check_numbers(32, Integral, most=8192, height=size[0], width=size[1])
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
