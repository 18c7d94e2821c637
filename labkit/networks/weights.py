"""The weights of networks that the lab trains itself, in files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..base.files import written_whole


def save_weights(model: nn.Module, path: str | Path, metadata: Mapping[str, Any]) -> None:
    """Write a network's weights in float16, with ``metadata`` (as text), to a safetensors file, whole or not at all."""
    from safetensors.torch import save_file

    weights = {name: tensor.half().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with written_whole(path) as temporary:
        save_file(weights, temporary, {name: str(value) for name, value in metadata.items()})


def load_weights(path: str | Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The metadata and the weights, in float32, of a file that `save_weights` wrote."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118, it is no dictionary
        return file.metadata() or {}, weights
