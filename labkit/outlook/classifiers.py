"""What attacks and explanations ask: a classifier, any function from pictures to logits, wherever it computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from ..base.devices import arithmetic

Model: TypeAlias = Callable[[Tensor], Tensor]  # pictures (N, C, H, W) in [0, 1] -> logits (N, K)


@arithmetic()
def logits_of(model: Model, pictures: Tensor, batch: int | None = None) -> Tensor:
    """The logits (N, K) of checked pictures, on their device, asked for ``batch`` at a time; None: all at once."""
    check_batch(pictures)
    return torch.cat([model(part).to(pictures.device) for part in pictures.split(batch or len(pictures))])


def check_batch(inputs: Tensor) -> None:
    """Raise ValueError for a batch (N, ...) that is empty or holds numbers that are not finite."""
    if not len(inputs) or not inputs.isfinite().all():
        shape = tuple(inputs.shape)
        raise ValueError(f"give at least one example, without NaN or infinite numbers, not such a batch of {shape}")


def class_indices(classes: int | Tensor, logits: Tensor) -> Tensor:
    """Classes (N,), or the same for all, as (N,) on the device of ``logits`` (N, K).

    Raises:
        ValueError: for another number of classes than of pictures, and for a class that does not exist.
    """
    indices, (count, kinds) = torch.as_tensor(classes, device=logits.device), logits.shape
    if indices.ndim and len(indices) != count:
        raise ValueError(f"{count} pictures need as many classes, not {len(indices)}")
    if indices.is_floating_point() or indices.min() < 0 or indices.max() >= kinds:
        raise ValueError(f"there is no class {indices.tolist()}: they are whole numbers from 0 to {kinds - 1}")
    return indices.expand(count)
