"""A device to test on where there is no GPU: its tensors hold real numbers, and to mix them with the CPU's is an error.

>>> with Device():
...     there = picture.to(ELSEWHERE)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

ELSEWHERE = torch.device("meta")  # the one other device that every build of torch knows
COPYING = ("aten::_to_copy", "aten::copy_")
INDEXING = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")


class Elsewhere(Tensor):
    """A tensor that says it lies on `ELSEWHERE`; ``held`` are its numbers."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> Elsewhere:
        layout = held.shape, held.stride(), held.storage_offset()
        made = Tensor._make_wrapper_subclass(cls, *layout, dtype=held.dtype, device=ELSEWHERE)
        made.held = held
        return made

    def new_tensor(self, numbers: Any) -> Tensor:
        return torch.tensor(numbers, dtype=self.dtype).to(ELSEWHERE)

    def tolist(self) -> Any:
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return _run(operation, args, kwargs or {})


class Device(TorchDispatchMode):
    """While it is on, what is made on `ELSEWHERE` or sent there has numbers."""

    def __torch_dispatch__(self, operation: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return _run(operation, args, kwargs or {})


def distant(model: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """``model`` as if it lay there: pictures are brought to it, as `Backbone.features` does, and its answers stay."""
    return lambda pictures: model(pictures.cpu()).to(ELSEWHERE)


def _run(operation: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Compute on the CPU, and refuse what a GPU refuses."""
    name = operation._schema.name
    # A GPU takes numbers (tensors without dimensions) from the CPU, and indices of its own tensors.
    lax = name in INDEXING and isinstance(args[0], Elsewhere)
    strict = [args[0], *args[2:]] if lax else [args, kwargs]
    places = {isinstance(x, Elsewhere) for x in tree_leaves(strict) if isinstance(x, Tensor) and x.ndim}
    if len(places) == 2 and name not in COPYING:
        raise RuntimeError(f"{name} of tensors on two devices")
    there = any(isinstance(x, Elsewhere) for x in tree_leaves((args, kwargs)))
    if (device := kwargs.get("device")) is not None:
        there, kwargs = torch.device(device) == ELSEWHERE, {**kwargs, "device": "cpu"}
    found = operation(*tree_map(_held, args), **tree_map(_held, kwargs))
    if operation._schema.is_mutable and name.endswith("_"):
        return args[0]
    if there and name == "aten::_to_copy" and found.ndim and found.dtype == torch.float64:
        raise TypeError(f"{name}: float64 does not exist here, as on Apple's GPUs")
    return tree_map(lambda x: Elsewhere(x) if there and isinstance(x, Tensor) else x, found)


def _held(value: Any) -> Any:
    return value.held if isinstance(value, Elsewhere) else value
