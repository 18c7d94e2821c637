"""Copies of networks that may be tried out: on PyTorch's meta device they cost nothing, and the network stays as is."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


def tensors_of(module: nn.Module) -> Iterator[Tensor]:
    """All tensors of a module: parameters, buffers, and those that are plain attributes."""
    for part in module.modules():
        for value in (*part._parameters.values(), *part._buffers.values(), *vars(part).values()):
            if isinstance(value, Tensor):
                yield value


def dtype_of(module: nn.Module) -> torch.dtype:
    """The dtype that a module computes in: that of its first weights."""
    values = chain(module.parameters(), module.buffers())
    return next((value.dtype for value in values if value.is_floating_point()), torch.float32)


def copied_to(module: Network, device: str, dtype: torch.dtype | None = None) -> Network:
    """A copy of a module for ``device``, its numbers in ``dtype`` (None: as they are); only parameters are shared."""
    copies = {}
    for value in tensors_of(module):
        kind = dtype if value.is_floating_point() else None
        copies[id(value)] = value.detach().to(device, kind, copy=not isinstance(value, nn.Parameter))
    return copy.deepcopy(module, copies)


def on_meta(module: Network) -> Network:
    """A copy of a module on the meta device, whose convolutions say how many channels they take: torch does not there.

    To be called as ``with torch.device("meta")``, for what a forward makes itself.
    """
    shapes = copied_to(module, "meta")
    for name, part in shapes.named_modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_pre_hook(partial(_check_channels, name))
    return shapes


def _check_channels(name: str, module: nn.Conv2d, inputs: tuple[Tensor, ...]) -> None:
    if inputs and inputs[0].ndim == 4 and inputs[0].shape[1] != module.in_channels:
        raise RuntimeError(f"{name} takes {module.in_channels} channels, not {inputs[0].shape[1]}")


@dataclass
class Trial:
    """What a module did with a picture: what its submodules answered, in this order, and its own answer or error."""

    colors: int
    calls: dict[str, list[Any]]
    answer: Any = None
    error: Exception | None = None

    def map_of(self, name: str) -> Tensor | None:
        """The map (N, C, h, w) that a submodule answered, if that is what it answered, and once."""
        answers = self.calls.get(name, [])
        return answers[0] if len(answers) == 1 and isinstance(answers[0], Tensor) and answers[0].ndim == 4 else None


def try_out(module: nn.Module, size: tuple[int, int], colors: int) -> Trial:
    """Run a module on the shape of a picture (1, colors, height, width) of this ``size``."""
    trial, shapes = Trial(colors, {}), on_meta(module)

    def note(name: str, part: nn.Module, inputs: Any, answer: Any) -> None:
        trial.calls.setdefault(name, []).append(answer)

    for name, part in shapes.named_modules():
        if name:
            part.register_forward_hook(partial(note, name))
    try:
        with torch.device("meta"), torch.no_grad():
            trial.answer = shapes(torch.empty(1, colors, *size, dtype=dtype_of(module)))
    except Exception as error:  # whatever the module's own code may raise
        trial.error = error
    return trial


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__
