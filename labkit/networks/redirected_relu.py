"""The redirected ReLU, which lets a gradient through where all of it would be blocked."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class RedirectedReLU(TorchFunctionMode):
    """While it is on, every ReLU is differentiated as in Lucid (Olah, Mordvintsev and Schubert 2017).

    Where x <= 0 a ReLU blocks the gradient. When that leaves nothing of a picture's gradient, what would raise x in a
    descent (the negative part of the gradient) passes even there; otherwise the gradient is the usual one. A mode, and
    not modules in place of nn.ReLU, because some networks call the function.
    """

    names = frozenset({"relu", "relu_"})  # F.relu, torch.relu, Tensor.relu and their in-place forms

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if getattr(function, "__name__", "") in self.names:
            return _Redirected.apply(*args[:1])
        return function(*args, **(kwargs or {}))


class _Redirected(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.relu()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,), (gradient,) = ctx.saved_tensors, gradients
        passes = x > 0
        alive = (passes & (gradient != 0)).flatten(1).any(1).view(-1, *[1] * (x.ndim - 1))
        return gradient * (passes | (~alive & (gradient < 0)))
