"""Drawn pictures whose evidence is known, because a mask says which pixels carry the answer, and networks for them."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise
from numbers import Integral
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..base.checks import check_numbers
from ..base.devices import arithmetic
from ..networks.backbone import Backbone
from ..networks.recommended import Recommended

NAMES = ("plus", "cross", "square", "ring")
GLYPH, DISC = 7, 5  # sides in pixels of what is drawn
GRAY = 0.5  # the mean of the background: a pixel of this value says nothing


class Shapes(NamedTuple):
    """``pictures`` (N, 3, S, S) in [0, 1], their ``labels`` (N,), and ``masks`` (N, 1, S, S), True on the shape."""

    pictures: Tensor
    labels: Tensor
    masks: Tensor


def draw(count: int, seed: int = 0, size: int = 24) -> Shapes:
    """``count`` pictures of ``size`` pixels a side from ``seed``: noise, one shape of `NAMES`, a disc apart from it.

    Places and hues are random, so that only the form of the shape says the class.
    """
    check_numbers(1, Integral, most=1_000_000, count=count)
    check_numbers(GLYPH + DISC + 2, Integral, most=4096, size=size)  # shape and disc side by side
    random = torch.Generator().manual_seed(seed)
    pictures = GRAY + 0.08 * torch.randn(count, 3, size, size, generator=random)
    labels = torch.randint(len(NAMES), (count,), generator=random)
    masks = torch.zeros(count, 1, size, size, dtype=torch.bool)
    glyphs, disc = _glyphs(), _ring(DISC, 0, 2.3)
    for picture, label, mask in zip(pictures, labels, masks, strict=True):
        while True:
            (row, column), (above, left) = (_place(size - side, random) for side in (GLYPH, DISC))
            if row + GLYPH < above or above + DISC < row or column + GLYPH < left or left + DISC < column:
                break
        picture[:, row : row + GLYPH, column : column + GLYPH] += 0.3 * _hue(random) * glyphs[label]
        picture[:, above : above + DISC, left : left + DISC] += 0.5 * _hue(random) * disc
        mask[:, row : row + GLYPH, column : column + GLYPH] = True
    return Shapes(pictures.clamp(0, 1), labels, masks)


def _place(room: int, random: torch.Generator) -> tuple[int, int]:
    return tuple(torch.randint(room + 1, (2,), generator=random).tolist())


def _hue(random: torch.Generator) -> Tensor:
    """A contrast (3, 1, 1) between the colors, in [-1, 1], one of them at the end of the scale."""
    color = 2 * torch.rand(3, 1, 1, generator=random) - 1
    return color / color.abs().max()


def _ring(side: int, inner: float, outer: float) -> Tensor:
    away = torch.arange(side) - (side - 1) / 2
    distance = torch.hypot(away[:, None], away)
    return ((distance >= inner) & (distance <= outer)).float()


def _glyphs() -> Tensor:
    """The shapes of `NAMES` (4, 7, 7), 1 on their lines."""
    diagonal, middle = torch.eye(GLYPH), torch.arange(GLYPH) == GLYPH // 2
    plus, cross = (middle[:, None] | middle).float(), torch.maximum(diagonal, diagonal.flip(0))
    square = nn.functional.pad(torch.zeros(GLYPH - 2, GLYPH - 2), [1] * 4, value=1.0)
    return torch.stack([plus, cross, square, _ring(GLYPH, 2.3, 3.3)])


# --- small networks for them -------------------------------------------------------------------------------------


class _Total(nn.Module):
    """The sum over positions, from their mean: the head of the gated network."""

    def __init__(self, positions: int):
        super().__init__()
        self.positions = positions

    def forward(self, mean: Tensor) -> Tensor:
        return mean * self.positions


def network(gated: bool = False, size: int = 24, seed: int = 0) -> Backbone:
    """An untrained network of four convolutions for drawn pictures, with named layers and the classes `NAMES`.

    Plain, its head reads the mean over positions of the last features. ``gated``, a layer ``glu`` (Dauphin et al. 2017,
    arXiv:1612.08083) multiplies, at each position, the evidence for each class by a gate in [0, 1], and a logit is
    nothing but the sum of the products: ``features(picture, ["glu"])`` (N, 4, S/2, S/2) is its own explanation.
    """
    check_numbers(2, Integral, most=4096, size=size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        stages: OrderedDict[str, nn.Module] = OrderedDict()
        for number, (inputs, outputs) in enumerate(pairwise((3, 16, 16, 32, 32)), 1):
            convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
            stages[f"conv{number}"] = nn.Sequential(convolution, nn.BatchNorm2d(outputs))
            stages[f"relu{number}"] = nn.ReLU()
            if number == 2:
                stages["pool2"] = nn.MaxPool2d(2)
        head: nn.Module = nn.Linear(32, len(NAMES))
        if gated:
            stages["gates"] = nn.Conv2d(32, 2 * len(NAMES), 1)  # evidence for each class, then its gate
            stages["glu"] = nn.GLU(1)
            head = _Total((size // 2) ** 2)
    recommended = Recommended({"relu4": 1.0}, ("relu4",), {"relu2": 1.0, "relu4": 1.0})
    return Backbone("shapes", stages, head, recommended, mean=GRAY, std=0.25, classes=NAMES)


@arithmetic()
def fit(backbone: Backbone, drawn: Shapes, epochs: int = 10, sparsity: float = 0, seed: int = 0) -> Backbone:
    """Train a network on drawn pictures, in place, and return it, frozen again. Prints nothing; takes seconds.

    Adam with one cycle of the learning rate, batches of 64. ``sparsity``: the price of an open gate, if it is gated.
    """
    check_numbers(1, Integral, most=10_000, epochs=epochs)
    check_numbers(0, sparsity=sparsity)
    random = torch.Generator().manual_seed(seed)
    pictures, labels = drawn.pictures.to(backbone.device), drawn.labels.to(backbone.device)
    backbone.train().requires_grad_(True)
    optimizer = torch.optim.Adam(backbone.parameters())
    batches = [batch for _ in range(epochs) for batch in torch.randperm(len(drawn.labels), generator=random).split(64)]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.02, total_steps=len(batches))
    layers = ["gates", "logits"] if sparsity else ["logits"]
    for batch in batches:
        features = backbone.features(pictures[batch], layers)
        loss = nn.functional.cross_entropy(features["logits"], labels[batch])
        if sparsity:
            loss = loss + sparsity * gates(features["gates"]).sum((1, 2, 3)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return backbone.eval().requires_grad_(False)


def gates(features: Tensor) -> Tensor:
    """How far each gate is open, in [0, 1], from the layer ``gates`` of a gated network."""
    return features.chunk(2, 1)[1].sigmoid()
