"""Floor 2: how a loss and its gradient with respect to the pixels are computed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .algebra import PIXELS, Features, Loss, Window
from .network import Backbone

PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class Evaluation:
    """The loss (N,) of each picture, its weighted terms by name, and the gradient (N, 3, H, W) of their sum."""

    loss: Tensor
    terms: dict[str, Tensor]
    gradient: Tensor


class Evaluator:
    """Computes loss and gradient for pictures of one size: ``Evaluator(backbone, loss, size)(picture)``.

    ``size`` is (height, width). ``precision``: "float32", "bfloat16" (the network computes in bfloat16; pixels,
    statistics and losses stay in float32) or "auto" (see `pick_precision`). No gradient of the weights is computed,
    and the network runs no further than the deepest layer that the loss reads. A picture on another device is brought
    to the network's, and its gradient back.
    """

    def __init__(self, backbone: Backbone, loss: Loss, size: tuple[int, int], precision: str = "auto"):
        self.backbone = backbone.cast(pick_precision(precision, backbone.device))
        with torch.no_grad():
            self.loss = loss.bound(self.backbone, self.features, size)

    def features(self, picture: Tensor, layers: Sequence[str]) -> Features:
        """Features of the named layers in float32, with the picture itself under "pixels"."""
        found = self.backbone.features(picture, [layer for layer in layers if layer != PIXELS])
        return {PIXELS: picture} | {layer: f.float() for layer, f in found.items()}

    def __call__(self, picture: Tensor) -> Evaluation:
        home = picture.device
        picture = picture.detach().to(self.backbone.device).requires_grad_()
        with torch.enable_grad():
            statistics = self.loss.statistics(self.features(picture, self.loss.layers), Window())
            terms = self.loss.terms(statistics)
            loss = sum(terms.values())
            (gradient,) = torch.autograd.grad(loss.sum(), picture)
        return Evaluation(loss.detach(), {name: term.detach() for name, term in terms.items()}, gradient.to(home))


def pick_precision(precision: str, device: torch.device) -> torch.dtype:
    """The dtype the network computes in.

    "auto" is bfloat16 where the device computes convolutions in it natively (CUDA from Ampere on, CPUs with AMX or
    AVX512-BF16), else float32; the environment variable LABKIT_PRECISION overrides "auto", so that a whole course can
    be run in float32, whose numbers agree between machines.
    """
    if precision == "auto":
        precision = os.environ.get("LABKIT_PRECISION") or "auto"
    if precision not in PRECISIONS:
        raise ValueError(f"precision is one of {', '.join(PRECISIONS)}, not {precision!r}")
    if precision == "auto":
        precision = "bfloat16" if _has_fast_bfloat16(device) else "float32"
    return getattr(torch, precision)


def _has_fast_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")  # not public, so they may go
        return any(getattr(torch.cpu, probe, bool)() for probe in probes)
    return False
