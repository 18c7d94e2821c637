"""The weights of networks in files: found, read, checked and put into a network, in one way for all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeAlias, TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..base.devices import pick_device
from ..base.files import written_whole

State: TypeAlias = dict[str, Tensor]
Network = TypeVar("Network", bound=nn.Module)


def find_weights(*files: str, cached: bool = False) -> Path | None:
    """The first of these files in the folder that LABKIT_WEIGHTS names or, if asked for, in torch's cache."""
    folders = [os.environ.get("LABKIT_WEIGHTS"), Path(torch.hub.get_dir(), "checkpoints") if cached else None]
    places = [Path(folder, file) for folder in folders if folder for file in files]
    return next((path for path in places if path.is_file()), None)


def missing(name: str, file: str, size: str, how: str, cause: Exception | None = None) -> NoReturn:
    """Raise FileNotFoundError: which file of which size is needed, how it is made or had, and where it goes."""
    raise FileNotFoundError(
        f"the weights of {name} are not here: {how} ({size}) as {file}, put it into a folder and name the folder "
        'in the environment variable LABKIT_WEIGHTS; or use "pocket", which needs no download'
    ) from cause


def read_weights(path: Path, name: str) -> State:
    """A state dict in float32 from .safetensors, or from .pth with weights_only.

    It may lie in a checkpoint under "state_dict" or "model", and its keys may begin with "module.".
    """
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
            state = next((state[key] for key in ("state_dict", "model") if isinstance(state.get(key), dict)), state)
        return {k.removeprefix("module."): v.float() if v.is_floating_point() else v for k, v in state.items()}
    except Exception as error:  # safetensors, zip and pickle each have errors of their own
        raise unreadable(path, name) from error


def unreadable(path: Path, name: str) -> ValueError:
    """The error of a file that cannot be read, or not safely."""
    return ValueError(f"{path} is damaged or holds more than plain weights of {name}: delete it and fetch it again")


def fill(module: nn.Module, state: State, name: str) -> None:
    """Copy a state dict into a module. ValueError, naming the first key that does not fit, if one does not."""
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        wanted, read = ({key: tuple(value.shape) for key, value in s.items()} for s in (module.state_dict(), state))
        counters = [key for key in wanted if key.endswith("num_batches_tracked")]  # old files have none
        key = next(k for k in [*wanted, *read] if k not in counters and wanted.get(k) != read.get(k))
        what = f"has the shape {read.get(key)}, not {wanted.get(key)}"
        what = "is missing" if key not in read else what if key in wanted else "does not belong to it"
        raise ValueError(f"the weights file is not one of {name}: {key} {what}") from error


def frozen(network: Network, state: State, name: str, device: str | torch.device | None = None) -> Network:
    """A network with the weights ``state``, put to evaluation and frozen, on ``device`` (see `pick_device`)."""
    fill(network, state, name)
    return network.requires_grad_(False).eval().to(pick_device(device))


def save_weights(model: nn.Module, path: str | Path, metadata: Mapping[str, Any]) -> None:
    """Write a network's weights in float16, with ``metadata`` (as text), to a safetensors file, whole or not at all."""
    weights = {key: tensor.half().cpu().contiguous() for key, tensor in model.state_dict().items()}
    with written_whole(path) as temporary:
        save_file(weights, temporary, {key: str(value) for key, value in metadata.items()})


def load_weights(path: str | Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The metadata and the weights, in float32, of a file that `save_weights` wrote."""
    with safe_open(path, "pt") as file:
        weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118, it is no dictionary
        return file.metadata() or {}, weights
