"""Parameterizations: what a picture is computed from, and what is stepped on."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from ..base.checks import check_choice
from ..base.deterministic import Conv2d, enlarged
from ..losses.algebra import total
from ..pictures.color import color_correlation
from ..pictures.geometry import antialiased, size_of

Kind: TypeAlias = Literal["fourier", "laplacian", "cppn", "pixels"]


class Parameterization(Protocol):
    """What a picture is computed from: what the loop steps on."""

    @property
    def parameters(self) -> list[Tensor]:
        """The tensors that an optimizer changes in place."""
        ...

    def picture(self) -> Tensor:
        """The picture (N, 3, H, W) as the parameters now have it."""
        ...

    def backward(self, gradient: Tensor) -> None:
        """Turn a gradient with respect to the picture into gradients of the parameters."""

    def project(self) -> None:
        """Bring the parameters back to what makes a picture in [0, 1]."""


class Pixels:
    """The plainest parameterization: the parameters are the pixels."""

    def __init__(self, picture: Tensor, clamp: bool = True):
        self.tensor, self.clamp = picture.detach().clone().contiguous(), clamp

    @property
    def parameters(self) -> list[Tensor]:
        return [self.tensor]

    def picture(self) -> Tensor:
        return self.tensor

    def backward(self, gradient: Tensor) -> None:
        """Turn a gradient with respect to the picture into gradients of the parameters."""
        self.tensor.grad = gradient

    def project(self) -> None:
        """Bring the parameters back to what makes a picture in [0, 1]."""
        if self.clamp:
            self.tensor.clamp_(0, 1)


class Rendered(ABC):
    """Base of the parameterizations that compute their picture, differentiably, from parameters of another kind."""

    parameters: list[Tensor]
    latest: Tensor

    @abstractmethod
    def render(self) -> Tensor:
        """The picture (N, 3, H, W) in [0, 1]."""

    def picture(self) -> Tensor:
        with torch.enable_grad():
            self.latest = self.render()
        return self.latest.detach()

    def backward(self, gradient: Tensor) -> None:
        found = torch.autograd.grad(self.latest, self.parameters, gradient)
        for parameter, slope in zip(self.parameters, found, strict=True):
            parameter.grad = slope

    def project(self) -> None:  # noqa: B027, it is not left out
        """Nothing: every value of the parameters makes a picture in [0, 1]."""


def to_rgb(decorrelated: Tensor, root: Tensor) -> Tensor:
    """Decorrelated values (N, 3, H, W) of any size as a picture in [0, 1]; ``root`` is `color_correlation`."""
    return torch.einsum("rc,nchw->nrhw", root, decorrelated).sigmoid()


def from_rgb(picture: Tensor) -> Tensor:
    """The inverse of `to_rgb`, for pictures whose values are kept a little away from 0 and 1."""
    inverse = torch.linalg.inv(color_correlation(picture.device))
    return torch.einsum("cr,nrhw->nchw", inverse, picture.clamp(0.02, 0.98).logit())


class Fourier(Rendered):
    """Complex amplitudes of waves, in decorrelated colors: one step changes all scales of the picture alike.

    An amplitude counts by 1 / frequency ** ``decay``, as in natural pictures, so that fine detail does not come first.
    """

    def __init__(self, start: Tensor, decay: float = 1.0):
        self.size, self.colors = size_of(start), color_correlation(start.device)
        rows, columns = torch.fft.fftfreq(self.size[0]), torch.fft.rfftfreq(self.size[1])
        frequency = torch.hypot(rows[:, None], columns).clamp_min(1 / max(self.size))
        self.scale = (frequency**-decay)[..., None].to(start.device) / 4
        amplitudes = torch.fft.rfft2(start, norm="ortho")
        self.parameters = [(torch.view_as_real(amplitudes) / self.scale).contiguous().requires_grad_()]

    def render(self) -> Tensor:
        amplitudes = torch.view_as_complex(self.parameters[0] * self.scale)
        return to_rgb(torch.fft.irfft2(amplitudes, s=self.size, norm="ortho"), self.colors)


class Laplacian(Rendered):
    """A sum of maps, each half as large as the last and enlarged to the picture, in decorrelated colors."""

    def __init__(self, start: Tensor, smallest: int = 4):
        self.size, self.colors = size_of(start), color_correlation(start.device)
        rest, self.parameters = start, []
        levels = max(1, int(math.log2(min(self.size) / smallest)) + 1)
        for level in reversed(range(levels)):
            size = tuple(max(1, math.ceil(side / 2**level)) for side in self.size)
            part = antialiased(rest, size, "bilinear") if level else rest
            rest = rest - enlarged(part, self.size)
            self.parameters.append(part.contiguous().requires_grad_())

    def render(self) -> Tensor:
        return to_rgb(total(enlarged(part, self.size) for part in self.parameters), self.colors)


class Cppn(Rendered):
    """A small network from a place's coordinates to its color (Mordvintsev et al. 2018): smooth, and without scale."""

    def __init__(
        self,
        shape: Sequence[int],
        generator: torch.Generator | None,
        device: torch.device | None,
        width: int = 24,
    ):
        number, _, height, width_px = shape
        place = torch.meshgrid(*(math.sqrt(3) * torch.linspace(-1, 1, s) for s in (height, width_px)), indexing="ij")
        self.place = torch.stack(place).view(1, 2, -1).to(device)
        self.size, self.parameters = (height, width_px), []
        sizes = [2, *[width] * 8, 3]
        for index, (i, o) in enumerate(pairwise(sizes)):
            i = i if index == 0 else 2 * i
            spread = 0.0 if index == len(sizes) - 2 else i**-0.5  # the last layer starts at gray
            weight = spread * torch.randn(number, o, i, generator=generator)
            self.parameters += [weight.to(device).requires_grad_(), torch.zeros(number, o, 1, device=device)]
            self.parameters[-1].requires_grad_()

    def render(self) -> Tensor:
        x = self.place
        for index in range(0, len(self.parameters), 2):
            x = self.parameters[index] @ x + self.parameters[index + 1]
            if index < len(self.parameters) - 2:
                bent = x.atan()
                x = torch.cat([bent / 0.67, bent.square() / 0.6], 1)  # both of about unit size
        return x.sigmoid().view(len(x), 3, *self.size)


def make_parameterization(
    name: Kind,
    shape: Sequence[int],
    start: Tensor | None = None,
    decay: float = 1.0,
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
) -> Parameterization:
    """The parameterization ``name`` of pictures of ``shape`` (N, 3, H, W), from noise or from the picture ``start``."""
    check_choice("parameterization", name, Kind)
    if name == "cppn":
        if start is not None:
            raise ValueError("a CPPN cannot start from a picture: use fourier, laplacian or pixels")
        return Cppn(shape, generator, device)
    noise = torch.randn(tuple(shape), generator=generator).to(device)
    if name == "pixels":
        return Pixels(0.5 + 0.05 * noise if start is None else start)
    values = 0.01 * noise if start is None else from_rgb(start)
    if name == "laplacian":
        return Laplacian(values)
    found = Fourier(values, decay)
    if start is None:  # noise of natural pictures' color: equally strong in the parameters, not in the pixels
        amplitudes = 0.01 * torch.randn(found.parameters[0].shape, generator=generator)
        found.parameters[0].data.copy_(amplitudes)
    return found


def block(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    """Convolution, batch normalization, leaky ReLU."""
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
            x = up(torch.cat([enlarged(x, size_of(beside)), beside], 1))
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
