"""Floor 4: pictures from nothing: what a channel, a class or a painting's texture looks like to a network."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .algebra import Loss, Sum
from .backbones import load_backbone
from .gradients import Evaluation, Evaluator
from .images import antialiased, as_picture, colour_correlation, resize
from .losses import activation
from .network import Backbone
from .optimize import Pixels, Progress, Stage, State, check_numbers, descend, finish, make_optimizer, restored
from .repeatable import enlarged, sampled

PARAMETERISATIONS = ("fourier", "laplacian", "cppn", "pixels")


def creating(
    loss: Loss,
    backbone: str | Backbone = "pocket",
    *,
    size: int | tuple[int, int] = 192,
    variations: int = 1,
    parameterisation: str = "fourier",
    init: Any = None,
    steps: int = 200,
    learning_rate: float | None = None,
    jitter: float = 8.0,
    zoom: float = 0.1,
    rotate: float = 10.0,
    decay: float = 1.0,
    seed: int = 0,
    device: str | torch.device | None = None,
    precision: str = "auto",
    resume: State | str | Path | None = None,
) -> Iterator[Progress]:
    """Minimise a loss from noise, yielding `Progress` after every step (Olah, Mordvintsev and Schubert 2017).

    loss: what the picture should be: ``-lk.activation("relu4_3", channel=7, power=1)``, ``-lk.class_logit(1)``,
        ``lk.style(painting)`` (texture synthesis, Gatys et al. 2015), or any sum.
    backbone: a name or a loaded network.
    size: height and width, or the side of a square, in pixels.
    variations: how many pictures, as one batch.
    parameterisation: "fourier", "laplacian", "cppn" or "pixels" (see the classes of this module).
    init: a picture to start from instead of noise (not for "cppn").
    steps: of Adam.
    learning_rate: None for 0.05, for a CPPN 0.005, for pixels 0.02.
    jitter, zoom, rotate: before every step each picture is shifted by up to ``jitter`` pixels, enlarged or shrunk by up
        to the share ``zoom`` and turned by up to ``rotate`` degrees, so that only what survives this is built up.
    decay: the power of the frequency by which fine detail starts smaller and grows slower ("fourier").
    seed: of the noise and of the movements.
    device, precision: see `load_backbone` and `pick_precision`.
    resume: what `Progress.state_dict` returned or `Progress.save` wrote in a run with the same arguments.

    Raises ValueError for arguments that make no sense, saying what would.
    """
    check_numbers(1, Integral, steps=steps, variations=variations)
    check_numbers(0, jitter=jitter, rotate=rotate, decay=decay)
    size = (size, size) if isinstance(size, int) else tuple(size)
    if not 0 <= zoom < 1:
        raise ValueError(f"zoom is a share from 0 to 1, not {zoom}")
    check_numbers(1, Integral, height=size[0], width=size[1])
    resume = restored(resume)
    backbone = load_backbone(backbone, device)
    generator = torch.Generator().manual_seed(seed)
    shape = (variations, 3, *size)
    start = None if init is None else resize(as_picture(init), size).expand(shape).to(backbone.device)
    picture = make_parameterisation(parameterisation, shape, start, decay, generator, backbone.device)
    if learning_rate is None:
        learning_rate = {"cppn": 0.005, "pixels": 0.02}.get(parameterisation, 0.05)
    check_numbers(0, learning_rate=learning_rate)
    evaluator = Evaluator(backbone, loss, size, precision)
    yield from descend(
        Stage(0, 1, steps, 0, steps, evaluator.plan(size)),
        picture,
        moved(evaluator, jitter=jitter, zoom=zoom, rotate=rotate, generator=generator),
        make_optimizer("adam", picture.parameters, learning_rate),
        generator=generator,
        resume=resume,
        started=time.perf_counter(),
    )


def create(loss: Loss, *args: Any, progress: bool = True, **options: Any) -> Tensor:
    """Create to the end, with a progress bar, and return the pictures (N, 3, H, W). Arguments: see `creating`."""
    return finish(creating(loss, *args, **options), progress)


# --- objectives for several pictures at once ------------------------------------------------------------------------


def each(losses: Sequence[Loss]) -> Loss:
    """One loss for each picture of a batch: a contact sheet of channels is ``each([-activation(...), ...])``."""
    identity = torch.eye(len(losses))
    return Sum([(identity[index], loss) for index, loss in enumerate(losses)])


def between(first: Loss, last: Loss, pictures: int) -> Loss:
    """From ``first`` to ``last`` in even steps, one for each picture of a batch."""
    share = torch.linspace(0, 1, pictures)
    return Sum([(1 - share, first), (share, last)])


def channels(layer: str, numbers: Sequence[int]) -> Loss:
    """The mean activation of one channel for each picture of a batch, negated: what each of them looks for."""
    return each([-activation(layer, channel=number, power=1) for number in numbers])


# --- transformation robustness --------------------------------------------------------------------------------------


def moved(
    evaluate: Callable[[Tensor], Evaluation],
    *,
    jitter: float,
    zoom: float,
    rotate: float,
    generator: torch.Generator | None = None,
) -> Callable[[Tensor], Evaluation]:
    """``evaluate`` on pictures that are shifted, zoomed and turned at random, and the gradient of the unmoved ones."""

    def evaluation(picture: Tensor) -> Evaluation:
        with torch.enable_grad():
            still = picture.detach().requires_grad_()
            grid = F.affine_grid(movements(still, jitter, zoom, rotate, generator), list(still.shape), False)
            swung = sampled(still, grid)
        found = evaluate(swung.detach())
        (gradient,) = torch.autograd.grad(swung, still, found.gradient)
        return replace(found, gradient=gradient)

    return evaluation


def movements(pictures: Tensor, jitter: float, zoom: float, rotate: float, generator: torch.Generator | None) -> Tensor:
    """Random affine maps (N, 2, 3) in the coordinates of `affine_grid`, one for each picture."""
    number, _, height, width = pictures.shape
    draws = 2 * torch.rand(4, number, generator=generator) - 1
    angle, scale = math.radians(rotate) * draws[0], (1 + zoom) ** draws[1]
    x, y = 2 * jitter / width * draws[2], 2 * jitter / height * draws[3]
    cosine, sine, aspect = scale * angle.cos(), scale * angle.sin(), height / width
    rows = [cosine, -sine * aspect, x, sine / aspect, cosine, y]
    return torch.stack(rows, 1).view(number, 2, 3).to(pictures)


# --- parameterisations ----------------------------------------------------------------------------------------------


class Rendered(ABC):
    """Base of the parameterisations that compute their picture, differentiably, from parameters of another kind."""

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
    """Decorrelated values (N, 3, H, W) of any size as a picture in [0, 1]; ``root`` is `colour_correlation`."""
    return torch.einsum("rc,nchw->nrhw", root, decorrelated).sigmoid()


def from_rgb(picture: Tensor) -> Tensor:
    """The inverse of `to_rgb`, for pictures whose values are kept a little away from 0 and 1."""
    inverse = torch.linalg.inv(colour_correlation(picture.device))
    return torch.einsum("cr,nrhw->nchw", inverse, picture.clamp(0.02, 0.98).logit())


class Fourier(Rendered):
    """Complex amplitudes of waves, in decorrelated colours: one step changes all scales of the picture alike.

    An amplitude counts by 1 / frequency ** ``decay``, as in natural pictures, so that fine detail does not come first.
    """

    def __init__(self, start: Tensor, decay: float = 1.0):
        self.size, self.colours = tuple(start.shape[-2:]), colour_correlation(start.device)
        rows, columns = torch.fft.fftfreq(self.size[0]), torch.fft.rfftfreq(self.size[1])
        frequency = torch.hypot(rows[:, None], columns).clamp_min(1 / max(self.size))
        self.scale = (frequency**-decay)[..., None].to(start.device) / 4
        amplitudes = torch.fft.rfft2(start, norm="ortho")
        self.parameters = [(torch.view_as_real(amplitudes) / self.scale).contiguous().requires_grad_()]

    def render(self) -> Tensor:
        amplitudes = torch.view_as_complex(self.parameters[0] * self.scale)
        return to_rgb(torch.fft.irfft2(amplitudes, s=self.size, norm="ortho"), self.colours)


class Laplacian(Rendered):
    """A sum of maps, each half as large as the last and enlarged to the picture, in decorrelated colours."""

    def __init__(self, start: Tensor, smallest: int = 4):
        self.size, self.colours = tuple(start.shape[-2:]), colour_correlation(start.device)
        rest, self.parameters = start, []
        levels = max(1, int(math.log2(min(self.size) / smallest)) + 1)
        for level in reversed(range(levels)):
            size = tuple(max(1, math.ceil(side / 2**level)) for side in self.size)
            part = antialiased(rest, size, "bilinear") if level else rest
            rest = rest - enlarged(part, self.size)
            self.parameters.append(part.contiguous().requires_grad_())

    def render(self) -> Tensor:
        return to_rgb(sum(enlarged(part, self.size) for part in self.parameters), self.colours)


class Cppn(Rendered):
    """A small network from a place's coordinates to its colour (Mordvintsev et al. 2018): smooth, and without scale."""

    def __init__(self, shape: Sequence[int], generator: torch.Generator | None, device: torch.device, width: int = 24):
        number, _, height, width_px = shape
        place = torch.meshgrid(*(math.sqrt(3) * torch.linspace(-1, 1, s) for s in (height, width_px)), indexing="ij")
        self.place = torch.stack(place).view(1, 2, -1).to(device)
        self.size, self.parameters = (height, width_px), []
        sizes = [2, *[width] * 8, 3]
        for index, (i, o) in enumerate(pairwise(sizes)):
            i = i if index == 0 else 2 * i
            spread = 0.0 if index == len(sizes) - 2 else i**-0.5  # the last layer starts at grey
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


def make_parameterisation(
    name: str,
    shape: Sequence[int],
    start: Tensor | None = None,
    decay: float = 1.0,
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
) -> Pixels | Rendered:
    """The parameterisation ``name`` of pictures of ``shape`` (N, 3, H, W), from noise or from the picture ``start``."""
    if name not in PARAMETERISATIONS:
        raise ValueError(f"no parameterisation named {name!r}; there are {', '.join(PARAMETERISATIONS)}")
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
    if start is None:  # noise of natural pictures' colour: equally strong in the parameters, not in the pixels
        amplitudes = 0.01 * torch.randn(found.parameters[0].shape, generator=generator)
        found.parameters[0].data.copy_(amplitudes)
    return found
