"""The style of any painting in one pass: adaptive instance normalization, and a decoder of features."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from ..base.checks import MOST_SIDE, check_numbers
from ..base.deterministic import Conv2d
from ..base.devices import arithmetic
from ..base.files import bundled
from ..engine.evaluator import Evaluator
from ..engine.tiles import in_tiles
from ..engine.training import Trained, crops, large_enough, shifted, train_steps
from ..losses.activations import activation
from ..losses.styles import mean_std
from ..networks.backbone import Backbone
from ..networks.weights import frozen, load_weights
from ..networks.zoo import load_backbone
from ..pictures.geometry import resize, size_of
from ..pictures.reading import as_picture

STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")


def adain(features: Tensor, style_features: Tensor) -> Tensor:
    """Adaptive instance normalization: sigma(s) (f - mu(f)) / sigma(f) + mu(s), channel by channel.

    Args:
        features: (N, C, h, w).
        style_features: (N, C, h', w'), whose means and standard deviations the result (N, C, h, w) has.

    From Huang and Belongie 2017, arXiv:1703.06868.

    Example:
        >>> photo, style = torch.rand(1, 8, 16, 16), 3 + 2 * torch.rand(1, 8, 9, 9)
        >>> torch.allclose(adain(photo, style).mean((2, 3)), style.mean((2, 3)), atol=1e-4)
        True
    """
    (mean, std), (style_mean, style_std) = mean_std(features), mean_std(style_features)
    return (features - mean) / std * style_std + style_mean


class Decoder(nn.Module):
    """From features (N, C, h, w) of a layer back to a picture (N, 3, s h, s w): the encoder mirrored.

    Args:
        channels: C.
        widths: the channels after each convolution; between inner tuples the map is enlarged, by nearest neighbors.
    """

    def __init__(
        self, channels: int = 256, widths: Sequence[Sequence[int]] = ((128,), (128, 128, 64), (64, 32), (32,))
    ):
        super().__init__()
        stages: list[nn.Sequential] = []
        for stage in widths:
            layers: list[nn.Module] = []
            for width in stage:
                layers += [Conv2d(channels, width, 3, padding=1, padding_mode="reflect"), nn.ReLU()]
                channels = width
            stages.append(nn.Sequential(*layers))
        self.stages, self.lengths = nn.ModuleList(stages), [len(stage) // 2 for stage in stages]
        self.last = Conv2d(channels, 3, 3, padding=1, padding_mode="reflect")

    @property
    def scale(self) -> int:
        """How many times larger the picture is than the features."""
        return 2 ** (len(self.stages) - 1)

    @property
    def radius(self) -> int:
        """How many units of the features away a unit has influence, at most."""
        reach = 1 + sum(length / 2**number * self.scale for number, length in enumerate(self.lengths))
        return math.ceil(reach / self.scale) + 1

    def forward(self, features: Tensor) -> Tensor:
        x = self.stages[0](features)
        for stage in self.stages[1:]:
            x = stage(F.interpolate(x, scale_factor=2.0))
        return self.last(x).float()


def load_decoder(path: str | Path | None = None, device: str | torch.device | None = None) -> Decoder:
    """A trained decoder, frozen: the bundled one, or a file of `tools/train_faststyle.py`; see `pick_device`."""
    _, weights = load_weights(bundled("faststyle/decoder.safetensors") if path is None else path)
    return frozen(Decoder(), weights, "a decoder of features", device)


@torch.no_grad()
@arithmetic()
def transfer(
    photo: Any,
    painting: Any,
    decoder: Decoder | None = None,
    backbone: str | Backbone = "pocket",
    *,
    strength: float = 1.0,
    style_scale: float = 1.0,
    tile: int = 1024,
) -> Tensor:
    """The photo (1, 3, H, W), on its device, in the style of any painting: encoded, `adain`, decoded.

    Args:
        photo, painting: anything `as_picture` takes.
        decoder: None for the bundled one, which belongs to the pocket network.
        backbone: a loaded network stays where it is, and the bundled decoder joins it; a named one joins the decoder.
        strength: from 0, the photo as the decoder remembers it, to 1; above, exaggerated.
        style_scale: the painting's longer side relative to the photo's.
        tile: larger pictures are cut into tiles of so many pixels; the result is the same.

    Raises:
        ValueError: for numbers out of range.
    """
    check_numbers(0, most=100, strength=strength, style_scale=style_scale)
    check_numbers(8, Integral, most=MOST_SIDE, tile=tile)
    loaded = isinstance(backbone, Backbone)
    decoder = load_decoder(device=backbone.device if loaded else None) if decoder is None else decoder
    place = next(decoder.parameters()).device
    backbone = backbone if loaded else load_backbone(backbone, place)
    photo, layer, scale = as_picture(photo), STYLE_LAYERS[-1], decoder.scale
    home, photo = photo.device, photo.to(backbone.device)
    height, width = size_of(photo)
    padded = F.pad(photo, (0, -width % scale, 0, -height % scale), mode="replicate")
    painting = resize(as_picture(painting), max(1, round(style_scale * max(height, width))))
    features, style_features = (
        Evaluator(backbone, activation(layer), size_of(picture), tile=max(tile, 64)).features(picture, [layer])[layer]
        for picture in (padded, painting)
    )
    mixed = torch.lerp(features, adain(features, style_features.to(features.device)), strength).to(place)
    return in_tiles(decoder, mixed, tile // scale, decoder.radius, scale)[..., :height, :width].clamp(0, 1).to(home)


def training(
    decoder: Decoder,
    paintings: Iterable[Any],
    photos: Iterable[Any],
    backbone: str | Backbone = "pocket",
    *,
    style_weight: float = 3.0,
    tv_weight: float = 3.0,
    side: int = 120,
    shift: int = 8,
    batch: int = 8,
    steps: int = 500,
    learning_rate: float = 1e-3,
    **options: Any,
) -> Iterator[Trained]:
    """Teach a decoder to show what `adain` asks for, yielding `Trained` after every step.

    The error: ||F - T||^2 / ||T||^2 of the picture's deepest features against those asked for, plus ``style_weight``
    times the same of means and standard deviations, averaged over layers, plus ``tv_weight`` times the roughness.

    Args:
        decoder: trained in place.
        paintings, photos: anything `as_picture` takes; a step sees ``batch`` pairs of squares of ``side`` pixels.
        shift: as in `labkit.recipes.fast_style.training`.
        options: see `train_steps`.
    """
    check_numbers(1, Integral, most=4096, side=side, batch=batch)
    check_numbers(0, Integral, most=4096, shift=shift)
    check_numbers(0, style_weight=style_weight, tv_weight=tv_weight)
    device = next(decoder.parameters()).device
    backbone, layer = load_backbone(backbone, device), STYLE_LAYERS[-1]
    backbone.least_side(STYLE_LAYERS, (side, side))
    stacks = [large_enough([[as_picture(p).to(device)] for p in each], side + shift) for each in (photos, paintings)]

    def of_batch(generator: Generator) -> Tensor:
        ((photo,), (painting,)) = (crops(stack, side + shift, batch, generator, turns=False) for stack in stacks)
        cut = shifted(side, shift, generator)
        with torch.no_grad():
            style_features = backbone.features(painting, STYLE_LAYERS)
            features, target = (
                adain(backbone.features(x, [layer])[layer], style_features[layer]) for x in (photo, photo[cut])
            )
        picture = decoder(features)[cut]
        decoded = backbone.features(picture, STYLE_LAYERS)
        error = _relative_error(decoded[layer].float(), target)
        for name in STYLE_LAYERS:
            moments = (torch.cat(mean_std(features[name]), 2) for features in (decoded, style_features))
            error = error + style_weight / len(STYLE_LAYERS) * _relative_error(*moments)
        rough = picture.diff(dim=2).square().mean() + picture.diff(dim=3).square().mean()
        return error + tv_weight * rough

    return train_steps(decoder, of_batch, steps=steps, learning_rate=learning_rate, **options)


def _relative_error(features: Tensor, target: Tensor) -> Tensor:
    """||F - T||^2 / ||T||^2 of each of the batch, on average."""
    error, size = (x.square().sum((1, 2, 3)) for x in (features - target, target))
    return (error / size.clamp_min(1e-12)).mean()
