"""Parameterizations: what a picture is computed from, and what is stepped on."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from numbers import Integral
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from ..base.checks import MOST_SIDE, check_choice, check_numbers
from ..base.deterministic import enlarged
from ..losses.algebra import total
from ..pictures.color import color_correlation
from ..pictures.geometry import Size, antialiased, size_of

Kind: TypeAlias = Literal["fourier", "spectrum", "maco", "laplacian", "cppn", "pixels"]


class Parameterization(ABC):
    """What a picture is computed from: ``parameters``, tensors that an optimizer changes in place."""

    parameters: list[Tensor]
    latest: Tensor

    @abstractmethod
    def render(self) -> Tensor:
        """The picture (N, 3, H, W), differentiably."""

    def picture(self) -> Tensor:
        """The picture (N, 3, H, W) as the parameters now have it."""
        with torch.enable_grad():
            self.latest = self.render()
        return self.latest.detach()

    def backward(self, gradient: Tensor) -> None:
        """Turn a gradient with respect to the latest picture into gradients of the parameters."""
        slopes = torch.autograd.grad(self.latest, self.parameters, gradient)
        for parameter, slope in zip(self.parameters, slopes, strict=True):
            parameter.grad = slope

    def project(self) -> None:  # noqa: B027, it is not left out
        """Bring the parameters back to what makes a picture in [0, 1]: nothing, where all of them do."""


class Pixels(Parameterization):
    """The plainest parameterization: the parameters are the pixels, kept in [0, 1] if they are to be clamped."""

    def __init__(self, picture: Tensor, clamp: bool = True):
        self.tensor, self.clamp = picture.detach().clone().contiguous(), clamp
        self.parameters = [self.tensor]

    def render(self) -> Tensor:
        return self.tensor

    picture = render

    def backward(self, gradient: Tensor) -> None:
        self.tensor.grad = gradient.contiguous()  # L-BFGS flattens it

    def project(self) -> None:
        if self.clamp:
            self.tensor.clamp_(0, 1)


def to_rgb(decorrelated: Tensor, root: Tensor) -> Tensor:
    """Decorrelated values (N, 3, H, W) of any size as a picture in [0, 1]; ``root``: see `color_correlation`."""
    return torch.einsum("rc,nchw->nrhw", root, decorrelated).sigmoid()


def from_rgb(picture: Tensor) -> Tensor:
    """The inverse of `to_rgb`, for pictures whose values are kept a little away from 0 and 1."""
    inverse = torch.linalg.inv(color_correlation(picture.device))
    return torch.einsum("cr,nrhw->nchw", inverse, picture.clamp(0.01, 0.99).logit())


def frequencies(size: Size) -> Tensor:
    """Of the waves (H, W // 2 + 1) of a picture, in cycles a pixel."""
    return torch.hypot(torch.fft.fftfreq(size[0])[:, None], torch.fft.rfftfreq(size[1]))


class Fourier(Parameterization):
    """Complex amplitudes of waves, in decorrelated colors: one step changes all scales of the picture alike.

    An amplitude counts by 1 / frequency ** ``decay``, as in natural pictures, so that fine detail does not come first.

    Args:
        start: decorrelated values (N, 3, H, W): see `from_rgb`.
        decay: 0: every frequency counts alike.

    Example:
        >>> torch.allclose(Fourier(torch.zeros(1, 3, 8, 8)).picture(), torch.tensor(0.5))
        True
    """

    def __init__(self, start: Tensor, decay: float = 1.0):
        self.size, self.colors = size_of(start), color_correlation(start.device)
        frequency = frequencies(self.size).clamp_min(1 / max(self.size))
        self.scale = (frequency**-decay)[..., None].to(start.device) / 4
        amplitudes = torch.fft.rfft2(start, norm="ortho")
        self.parameters = [(torch.view_as_real(amplitudes) / self.scale).contiguous().requires_grad_()]

    def render(self) -> Tensor:
        amplitudes = torch.view_as_complex(self.parameters[0] * self.scale)
        return to_rgb(torch.fft.irfft2(amplitudes, s=self.size, norm="ortho"), self.colors)


def natural_spectrum(size: Size) -> Tensor:
    """How strong the waves of natural pictures are: amplitudes (3, H, W // 2 + 1) of the values that `from_rgb` gives.

    Powers of the frequency, fitted to 250 photos, for each decorrelated color its own. Together their mean square is 1;
    the mean color counts as a wave as long as the shorter side.

    Example:
        >>> spectrum = natural_spectrum((64, 64))
        >>> round(math.log2(spectrum[0, 0, 4] / spectrum[0, 0, 8]), 2)
        1.28
    """
    waves = (frequencies(size) * min(size)).clamp_min(1)
    spectrum = torch.stack([level * waves**slope for level, slope in ((1.0, -1.28), (1.0, -1.39), (0.92, -1.30))])
    return spectrum / spectrum.square().mean().sqrt()


def has_phase(size: Size) -> Tensor:
    """Which waves (H, W // 2 + 1) of a picture have a phase: 0 for the mean and those of two pixels, which are real.

    A gradient with respect to those phases would be rounding, which Adam takes for a direction.
    """
    rows, columns = torch.fft.fftfreq(size[0]), torch.fft.rfftfreq(size[1])
    return ((rows % 0.5 != 0)[:, None] | (columns % 0.5 != 0)).float()


def natural_noise(noise: Tensor, contrast: float) -> Tensor:
    """The phases of ``noise`` (N, 3, H, W) with ``contrast`` times the `natural_spectrum`: values as of `from_rgb`."""
    waves, size = torch.fft.rfft2(noise), size_of(noise)
    amplitudes = contrast * natural_spectrum(size).to(noise.device)
    return torch.fft.irfft2(amplitudes * waves / waves.abs(), s=size, norm="ortho")


class Spectrum(Parameterization):
    """Waves of any phase, and of amplitudes that natural pictures bound: the `natural_spectrum` times tanh |z|.

    Like `Fourier` it can leave out what it does not need, like `Maco` it cannot pile up noise at any frequency.

    Args:
        start: values (N, 3, H, W): see `from_rgb`. The bound is raised where they exceed it.
        contrast: the deviation of the values when all amplitudes are at their bound.
    """

    def __init__(self, start: Tensor, contrast: float = 2.5):
        self.size, self.colors = size_of(start), color_correlation(start.device)
        amplitudes = torch.fft.rfft2(start, norm="ortho")
        self.bound = torch.maximum(contrast * natural_spectrum(self.size).to(start.device), 1.25 * amplitudes.abs())
        waves = torch.polar((amplitudes.abs() / self.bound).atanh(), amplitudes.angle())
        phased = has_phase(self.size).to(start.device)
        self.parts = torch.stack([torch.ones_like(phased), phased], -1)
        self.parameters = [torch.view_as_real(waves).contiguous().requires_grad_()]

    def render(self) -> Tensor:
        waves = self.parameters[0] * self.parts
        size = (waves.square().sum(-1, keepdim=True) + 1e-24).sqrt()
        waves = torch.view_as_complex(waves * (self.bound[..., None] * size.tanh() / size))
        return to_rgb(torch.fft.irfft2(waves, s=self.size, norm="ortho"), self.colors)


class Maco(Parameterization):
    """The phases of waves, whose amplitudes stay a natural picture's (Fel et al. 2023, arXiv:2306.06805).

    The paper has the mean of ImageNet's amplitudes, and stretches the contrast when it shows a picture.

    Args:
        start: values (N, 3, H, W), whose amplitudes stay: see `from_rgb` and `natural_noise`.
    """

    def __init__(self, start: Tensor):
        self.size, self.colors = size_of(start), color_correlation(start.device)
        waves = torch.fft.rfft2(start, norm="ortho")
        self.amplitudes, self.phases, self.phased = waves.abs(), waves.angle(), has_phase(self.size).to(start.device)
        self.parameters = [torch.zeros_like(self.phases).requires_grad_()]  # how far each wave has turned

    def render(self) -> Tensor:
        phases = self.phases + self.phased * self.parameters[0]
        waves = torch.stack([self.amplitudes * phases.cos(), self.amplitudes * phases.sin()], -1)
        return to_rgb(torch.fft.irfft2(torch.view_as_complex(waves), s=self.size, norm="ortho"), self.colors)


class Laplacian(Parameterization):
    """A sum of maps, each half as large as the last and enlarged to the picture, in decorrelated colors (`from_rgb`).

    The smallest has a shorter side of about 4.
    """

    def __init__(self, start: Tensor):
        self.size, self.colors = size_of(start), color_correlation(start.device)
        rest, self.parameters = start, []
        for level in reversed(range(max(1, int(math.log2(min(self.size) / 4)) + 1))):
            size = tuple(max(1, math.ceil(side / 2**level)) for side in self.size)
            part = antialiased(rest, size, "bilinear") if level else rest
            rest = rest - enlarged(part, self.size)
            self.parameters.append(part.contiguous().requires_grad_())

    def render(self) -> Tensor:
        return to_rgb(total(enlarged(part, self.size) for part in self.parameters), self.colors)


class Cppn(Parameterization):
    """A small network from a place's coordinates to its color (Mordvintsev et al. 2018): smooth, and without scale.

    It has 8 layers of 24 channels; ``shape`` is that of the pictures, (N, 3, H, W).
    """

    def __init__(self, shape: Sequence[int], generator: torch.Generator | None, device: torch.device | None):
        number, _, *self.size = shape
        place = torch.meshgrid(*(math.sqrt(3) * torch.linspace(-1, 1, s) for s in self.size), indexing="ij")
        self.place, self.parameters = torch.stack(place).view(1, 2, -1).to(device), []
        for inputs, outputs in [(2, 24), *[(48, 24)] * 7, (48, 3)]:
            spread = 0.0 if outputs == 3 else inputs**-0.5  # the last layer starts at gray
            weight = spread * torch.randn(number, outputs, inputs, generator=generator)
            self.parameters += [weight.to(device), torch.zeros(number, outputs, 1, device=device)]
        for parameter in self.parameters:
            parameter.requires_grad_()

    def render(self) -> Tensor:
        x = self.place
        for weight, bias in zip(self.parameters[::2], self.parameters[1::2], strict=True):
            if x is not self.place:
                bent = x.atan()
                x = torch.cat([bent / 0.67, bent.square() / 0.6], 1)  # both of about unit size
            x = weight @ x + bias
        return x.sigmoid().view(len(x), 3, *self.size)


def make_parameterization(
    name: Kind,
    shape: Sequence[int],
    start: Tensor | None = None,
    decay: float = 1.0,
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
) -> Parameterization:
    """The parameterization ``name``: "fourier", "spectrum", "maco", "laplacian", "cppn" or "pixels".

    Args:
        shape: (N, 3, H, W) of the pictures, sides of at most 65,536.
        start: the pictures to start from; None: noise.
        decay: see `Fourier`.
    """
    check_choice("parameterization", name, Kind)
    check_numbers(1, Integral, most=MOST_SIDE, pictures=shape[0], height=shape[2], width=shape[3])
    if name == "cppn":
        if start is not None:
            raise ValueError("a CPPN cannot start from a picture: use fourier, laplacian or pixels")
        return Cppn(shape, generator, device)

    def noise() -> Tensor:
        return torch.randn(tuple(shape), generator=generator).to(device)

    if name == "pixels":
        return Pixels(0.5 + 0.05 * noise() if start is None else start)
    if name in ("spectrum", "maco"):
        values = natural_noise(noise(), 1 if name == "spectrum" else 2) if start is None else from_rgb(start)
        return Spectrum(values) if name == "spectrum" else Maco(values)
    values = 0.01 * noise() if start is None else from_rgb(start)
    if name == "laplacian":
        return Laplacian(values)
    waves = Fourier(values, decay)
    if start is None:  # noise of natural pictures' color: equally strong in the parameters, not in the pixels
        (amplitudes,) = waves.parameters
        amplitudes.data.copy_(0.01 * torch.randn(amplitudes.shape, generator=generator))
    return waves
