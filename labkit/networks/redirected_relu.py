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
        name, options = getattr(function, "__name__", ""), kwargs or {}
        if name not in self.names:
            return function(*args, **options)
        x = args[0] if args else options["input"]
        if name == "relu_" or any(args[1:]) or options.get("inplace"):  # the answer may never be looked at
            return x.copy_(_Redirected.apply(x.clone()))
        return _Redirected.apply(x)


class _Redirected(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.relu()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (y,), (gradient,) = ctx.saved_tensors, gradients
        usual = torch.ops.aten.threshold_backward(gradient, y, 0)
        alive = usual.abs().amax(tuple(range(1, usual.ndim)), keepdim=True) > 0
        return torch.where(alive, usual, gradient.clamp_max(0))
