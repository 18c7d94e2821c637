"""Style transfer in one pass, by a network that has learned some paintings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from ..losses.algebra import normalized_weights
from ..losses.reconstruction import content
from ..losses.regularizers import total_variation
from ..losses.styles import mean_std, style
from ..networks.backbone import Backbone
from ..networks.weights import frozen, load_weights
from ..networks.zoo import load_backbone
from ..pictures.geometry import resize, size_of
from ..pictures.reading import as_picture

NormMoments = list[tuple[Tensor, Tensor]]


class ConditionalNorm(nn.Module):
    """Instance normalization, then a scale and a shift for each channel that belong to the painting.

    All else is shared by a network's paintings (Dumoulin, Shlens and Kudlur 2017, arXiv:1610.07629).
    """

    def __init__(self, channels: int, paintings: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(paintings, channels))
        self.shift = nn.Parameter(torch.zeros(paintings, channels))

    def forward(
        self, x: Tensor, mixture: Tensor, moments: NormMoments, fixed: Iterator[tuple[Tensor, Tensor]] | None
    ) -> Tensor:
        if fixed is None:
            mean, std = mean_std(x)
            moments.append((mean, std))
        else:
            mean, std = next(fixed)
        scale, shift = ((mixture @ rows)[:, :, None, None].to(x) for rows in (self.scale, self.shift))
        return (x - mean.to(x)) * (scale / std.to(x)) + shift


class StyleNetwork(nn.Module):
    """From a photo (N, 3, H, W) in [0, 1] the same repainted, in one pass.

    The image transformation network of Johnson, Alahi and Fei-Fei (2016, arXiv:1603.08155): two strided convolutions,
    residual blocks at a quarter of the size, and back, by nearest-neighbor enlargement, which leaves fewer checks.

    Args:
        names: of the paintings it learns, each with norms of its own.
        width: channels at full size.
        blocks: residual ones.
    """

    def __init__(self, names: Sequence[str], width: int = 24, blocks: int = 5):
        super().__init__()
        self.names, self.width, self.blocks = list(names), width, blocks
        wide = 4 * width
        plan = [(3, width, 9, 1), (width, 2 * width, 3, 2), (2 * width, wide, 3, 2)]
        plan += [(wide, wide, 3, 1)] * (2 * blocks) + [(wide, 2 * width, 3, 1), (2 * width, width, 3, 1)]
        self.convolutions = nn.ModuleList(
            Conv2d(i, o, kernel, stride, kernel // 2, padding_mode="reflect") for i, o, kernel, stride in plan
        )
        self.norms = nn.ModuleList(ConditionalNorm(o, len(self.names)) for _, o, _, _ in plan)
        self.last = Conv2d(width, 3, 9, padding=4, padding_mode="reflect")

    @property
    def radius(self) -> int:
        """How many pixels away a pixel has influence, its part in the norms apart; a multiple of 4."""
        return 4 * math.ceil((4 + 1 + 2 + 8 * self.blocks + 4 + 3 + 4) / 4)

    def forward(self, photo: Tensor, mixture: Tensor, moments: NormMoments | None = None) -> Tensor:
        """``mixture`` (1 or N, paintings): how much of each. ``moments``: means and deviations for the norms, as
        `moments` returns them; None: those of the photo itself."""
        return self._run(photo, mixture, [], None if moments is None else iter(moments))

    def moments(self, photo: Tensor, mixture: Tensor) -> NormMoments:
        """Mean and standard deviation (N, C, 1, 1) of what each of the norms normalizes."""
        moments: NormMoments = []
        self._run(photo, mixture, moments, None)
        return moments

    def _run(self, photo: Tensor, mixture: Tensor, moments: NormMoments, fixed: Any) -> Tensor:
        def layer(x: Tensor, index: int) -> Tensor:
            return self.norms[index](self.convolutions[index](x), mixture, moments, fixed)

        x = photo - 0.5
        for index in range(3):
            x = layer(x, index).relu()
        for index in range(3, 3 + 2 * self.blocks, 2):
            x = x + layer(layer(x, index).relu(), index + 1)
        for index in range(len(self.norms) - 2, len(self.norms)):
            x = layer(F.interpolate(x, scale_factor=2.0), index).relu()
        height, width = size_of(photo)
        return self.last(x)[..., :height, :width].float().sigmoid()

    def mixture(self, painting: str | Mapping[str, float] | Tensor) -> Tensor:
        """The shares (1, paintings) for a painting's name, or for names with weights (divided by their sum)."""
        if isinstance(painting, Tensor):
            return painting.to(self.last.weight)
        weights = {painting: 1.0} if isinstance(painting, str) else dict(painting)
        if unknown := weights.keys() - set(self.names):
            raise ValueError(f"this network has not learned {', '.join(sorted(unknown))}, but {', '.join(self.names)}")
        return torch.tensor([normalized_weights([weights.get(name, 0.0) for name in self.names], "style")]).to(
            self.last.weight
        )


def load_network(path: str | Path | None = None, device: str | torch.device | None = None) -> StyleNetwork:
    """A trained network, frozen: the bundled one, or a file of `tools/train_faststyle.py`; see `pick_device`."""
    plan, weights = load_weights(bundled("faststyle/paintings.safetensors") if path is None else path)
    network = StyleNetwork(plan["names"].split(","), int(plan["width"]), int(plan["blocks"]))
    return frozen(network, weights, "a style network", device)


@torch.no_grad()
@arithmetic()
def repaint(
    photo: Any,
    painting: str | Mapping[str, float] | Tensor,
    network: StyleNetwork | None = None,
    tile: int | None = 1024,
    thumbnail: int = 512,
) -> Tensor:
    """The photo (1, 3, H, W), on its device, in the style of a painting that the network has learned, or of a mixture.

    Args:
        photo: anything `as_picture` takes.
        painting: a name, or name -> weight: see `StyleNetwork.mixture`.
        network: None for the bundled one, on the best device; any other computes where it is.
        tile: larger pictures are cut into tiles of so many pixels; None: never. Then all tiles are normalized by the
            moments of the picture at ``thumbnail`` pixels, as each by its own would leave seams (Chen et al. 2022,
            arXiv:2103.11784): no seams, and nearly the whole's result.

    Raises:
        ValueError: for a painting that the network has not learned.
    """
    check_numbers(4, Integral, most=MOST_SIDE, thumbnail=thumbnail, **({} if tile is None else {"tile": tile}))
    network = load_network() if network is None else network
    photo = as_picture(photo)
    check_numbers(5, Integral, most=MOST_SIDE, **{"a side of the photo": min(size_of(photo))})
    home, photo = photo.device, photo.to(network.last.weight.device)
    mixture = network.mixture(painting)
    if tile is None or max(size_of(photo)) <= tile:
        return network(photo, mixture).to(home)
    moments = network.moments(resize(photo, thumbnail), mixture)
    return in_tiles(lambda part: network(part, mixture, moments), photo, tile // 4 * 4, network.radius).to(home)


def training(
    network: StyleNetwork,
    paintings: Mapping[str, Any],
    photos: Iterable[Any],
    backbone: str | Backbone = "pocket",
    *,
    content_weight: float = 1.0,
    style_weight: float = 5.0,
    tv_weight: float = 4.0,
    style_scale: float = 1.5,
    side: int = 160,
    shift: int = 8,
    batch: int = 2,
    steps: int = 500,
    learning_rate: float = 1e-3,
    **options: Any,
) -> Iterator[Trained]:
    """Teach the network its paintings, yielding `Trained` after every step.

    The loss is that of `stylizing`; its gradient is handed on from the pixels to the weights.

    Args:
        network: trained in place.
        paintings: name -> anything `as_picture` takes; each step is about one of them, drawn at random.
        photos: anything `as_picture` takes; a step sees ``batch`` squares of ``side`` pixels.
        style_scale: the paintings' longer side relative to ``side``: 2 paints with the strokes of a picture twice as
            large.
        shift: before they are judged, photos and pictures are cut by up to so many pixels at random: otherwise the
            network's own grid would always meet the same phase of the backbone's pools, and leave checks that they
            cannot see.
        options: see `train_steps`.
    """
    check_numbers(1, Integral, most=4096, side=side, batch=batch)
    check_numbers(0, Integral, most=4096, shift=shift)
    check_numbers(0, content_weight=content_weight, style_weight=style_weight, tv_weight=tv_weight)
    device = next(network.parameters()).device
    backbone = load_backbone(backbone, device)
    mixtures = [network.mixture(name) for name in paintings]
    stacks = large_enough(([as_picture(photo).to(device)] for photo in photos), side + shift)
    evaluators = [
        Evaluator(
            backbone,
            style_weight * style(painting, scale=style_scale) + tv_weight * total_variation(),
            (side, side),
            options.get("precision", "auto"),
            tile=None,
        )
        for painting in paintings.values()
    ]

    def of_batch(generator: Generator) -> Tensor:
        (squares,) = crops(stacks, side + shift, batch, generator, turns=False)
        index = int(torch.randint(len(mixtures), (), generator=generator))
        cut = shifted(side, shift, generator)
        painted = network(squares, mixtures[index])[cut]
        with torch.autocast(device.type, enabled=False):  # the engine knows what must stay in float32
            return evaluators[index].plus(content_weight * content(squares[cut])).differentiable(painted).mean()

    return train_steps(network, of_batch, steps=steps, learning_rate=learning_rate, **options)
