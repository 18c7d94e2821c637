"""Networks run on shapes alone, on PyTorch's meta device: no data, no cost, and nothing of them is changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers of a module, by name."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def dtype_of(module: nn.Module) -> torch.dtype:
    """The dtype that a module computes in: that of its first weights."""
    return next((value.dtype for value in tensors_of(module).values() if value.is_floating_point()), torch.float32)


def run_on_meta(module: nn.Module, *inputs: Any) -> Any:
    """What a module answers ``inputs``, which are on the meta device."""
    tensors = {key: value.to("meta") for key, value in tensors_of(module).items()}
    with torch.device("meta"):  # for what a forward makes itself
        return functional_call(module, tensors, inputs)


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


def try_out(model: nn.Module, size: tuple[int, int], colors: int, *more: Any) -> Trial:
    """Run a module on a picture (1, colors, height, width) of this ``size``, and ``more`` arguments."""
    trial = Trial(colors, {})

    def note(name: str) -> Any:
        return lambda module, inputs, answer: trial.calls.setdefault(name, []).append(answer)

    def check_channels(name: str) -> Any:
        def check(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if inputs and inputs[0].ndim == 4 and inputs[0].shape[1] != module.in_channels:
                raise ValueError(f"{name} takes {module.in_channels} channels, not {inputs[0].shape[1]}")

        return check

    hooks = [module.register_forward_hook(note(key)) for key, module in model.named_modules() if key]
    hooks += [
        module.register_forward_pre_hook(check_channels(key))  # torch does not say the numbers without data
        for key, module in model.named_modules()
        if isinstance(module, nn.Conv2d)
    ]
    picture = torch.empty(1, colors, *size, device="meta", dtype=dtype_of(model))
    try:
        with torch.no_grad():
            trial.answer = run_on_meta(model, picture, *more)
    except Exception as error:  # whatever the module's own code may raise
        trial.error = error
    finally:
        for hook in hooks:
            hook.remove()
    return trial


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__
