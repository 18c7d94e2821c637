"""Super-resolution: what bicubic enlargement lacks, guessed by a small residual network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base.checks import MOST_SIDE, check_numbers
from ..base.devices import arithmetic
from ..base.files import bundled
from ..engine.tiles import in_tiles
from ..engine.training import Trained, crops, large_enough, train_steps
from ..networks.backbone import Backbone
from ..networks.weights import frozen, load_weights
from ..pictures.color import luma
from ..pictures.geometry import antialiased, resize
from ..pictures.reading import as_picture

Error = Callable[[Tensor, Tensor], Tensor]


class Upscaler(nn.Module):
    """From luma (N, 1, h, w) the detail (N, 1, scale h, scale w) that bicubic enlargement lacks.

    ``blocks`` residual blocks of two 3x3 convolutions without normalization (Lim et al. 2017, arXiv:1707.02921) on the
    small picture, then sub-pixel convolution (Shi et al. 2016, arXiv:1609.05158). The last layer starts at zero: an
    untrained network adds nothing.

    Example:
        >>> Upscaler(scale=2)(torch.rand(1, 1, 12, 16)).shape
        torch.Size([1, 1, 24, 32])
    """

    def __init__(self, scale: int = 2, width: int = 32, blocks: int = 6):
        super().__init__()
        self.scale, self.width, self.blocks = scale, width, blocks
        self.head = nn.Conv2d(1, width, 3, padding=1)
        self.body = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1))
            for _ in range(blocks)
        )
        self.tail = nn.Conv2d(width, scale**2, 3, padding=1)
        for parameter in self.tail.parameters():
            nn.init.zeros_(parameter)

    @property
    def radius(self) -> int:
        """How many pixels of the small picture away a pixel still has influence (bicubic weights reach two)."""
        return 2 + 2 * self.blocks

    def forward(self, small: Tensor) -> Tensor:
        x = self.head(small - 0.5)
        for block in self.body:
            x = x + block(x)
        return F.pixel_shuffle(self.tail(x), self.scale)


def load_upscaler(path: str | Path | None = None, device: str | torch.device | None = None) -> Upscaler:
    """A trained network, frozen: the bundled one, or a file of `tools/train_superres.py`; see `pick_device`."""
    plan, weights = load_weights(bundled("superres/x2.safetensors") if path is None else path)
    network = Upscaler(*(int(plan[name]) for name in ("scale", "width", "blocks")))
    return frozen(network, weights, "an upscaler", device)


# --- enlarging ----------------------------------------------------------------------------------------------------


def bicubic(picture: Tensor, scale: int) -> Tensor:
    """The picture enlarged bicubically (a = -0.5, as Pillow and MATLAB do), not clamped."""
    size = [side * scale for side in picture.shape[-2:]]
    return antialiased(picture, size)


def degraded(picture: Any, scale: int) -> tuple[Tensor, Tensor]:
    """A picture made small, as the field's tests do, and the picture cropped to a multiple of ``scale``.

    Antialiased bicubic, rounded to 8 bits: without antialiasing it would be another, easier, problem.
    """
    large = as_picture(picture)
    height, width = (side // scale for side in large.shape[-2:])
    large = large[..., : height * scale, : width * scale]
    small = antialiased(large, (height, width))
    return (small.clamp(0, 1) * 255).round() / 255, large


@torch.no_grad()
@arithmetic()
def upscale(picture: Any, model: Upscaler | None = None, tile: int = 512) -> Tensor:
    """The picture (N, 3, H, W) enlarged, on its device: bicubic, plus the same guessed detail in red, green and blue.

    Detail of luma alone is what eyes see; the colors stay bicubic.

    Args:
        picture: anything `as_picture` takes.
        model: None for the bundled one, which doubles, on the best device; any other computes where it is.
        tile: larger pictures are cut into tiles of so many pixels, each read with all that has influence on it: the
            result is the same.
    """
    check_numbers(1, Integral, most=MOST_SIDE, tile=tile)
    model = load_upscaler() if model is None else model
    picture = as_picture(picture)
    home, picture = picture.device, picture.to(next(model.parameters()).device)
    detail = in_tiles(lambda part: model(luma(part)), picture, tile, model.radius, model.scale)
    return (bicubic(picture, model.scale) + detail).clamp(0, 1).to(home)


# --- training -----------------------------------------------------------------------------------------------------


def training(
    model: Upscaler,
    photos: Iterable[Any],
    *,
    steps: int = 500,
    batch: int = 16,
    side: int = 32,
    shares: Sequence[float] = (1.0,),
    learning_rate: float = 2e-3,
    error: Error = F.l1_loss,
    **options: Any,
) -> Iterator[Trained]:
    """Train on random crops of photos, turned and mirrored, yielding `Trained` after every step.

    Args:
        model: trained in place.
        photos: anything `as_picture` takes; each pixel is as likely as any other.
        batch, side: crops, and their side in pixels of the small picture.
        shares: the sizes at which each photo is used, relative to its own.
        error: of the enlarged luma (N, 1, H, W) against the true one, a number; by default the mean absolute
            difference; or `perceptual`.
        options: see `train_steps`.
    """
    check_numbers(1, Integral, most=4096, batch=batch, side=side)
    device = next(model.parameters()).device
    pairs = []
    for photo, share in product(map(as_picture, photos), shares):
        size = tuple(round(share * edge) for edge in photo.shape[-2:])
        if min(size) >= model.scale:
            pairs.append(tuple(luma(x).to(device) for x in degraded(resize(photo, size), model.scale)))

    pairs = large_enough(pairs, side)

    def of_batch(generator: torch.Generator) -> Tensor:
        small, large = crops(pairs, side, batch, generator)
        return error(bicubic(small, model.scale) + model(small), large)

    return train_steps(model, of_batch, steps=steps, learning_rate=learning_rate, **options)


def perceptual(backbone: Backbone, layers: Sequence[str] = ("relu2_2",), pixel_weight: float = 1.0) -> Error:
    """An error by features (Johnson, Alahi and Fei-Fei 2016, arXiv:1603.08155): ||F - P||^2 / ||P||^2, averaged over
    ``layers``, plus ``pixel_weight`` times the mean absolute difference."""
    backbone.check_layers(layers)

    def error(guess: Tensor, true: Tensor) -> Tensor:
        with torch.no_grad():
            targets = backbone.features(true.expand(-1, 3, -1, -1), layers)
        features = backbone.features(guess.expand(-1, 3, -1, -1), layers)
        errors = [
            (features[layer] - targets[layer]).square().mean() / targets[layer].square().mean().clamp_min(1e-12)
            for layer in layers
        ]
        return sum(errors) / len(layers) + pixel_weight * F.l1_loss(guess, true)

    return error
