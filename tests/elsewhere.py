"""A device to test on where there is no GPU: its tensors hold real numbers, and to mix them with the CPU's is an error.

>>> with Device():
...     there = picture.to(ELSEWHERE)

With ``apple`` it lacks what Apple's GPUs lack: float64, and the operations that PyTorch 2.6, the oldest the lab runs
on, does not have for them. `tests/machines.py` runs every notebook on a machine whose best device it is.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

import labkit.base.devices
import labkit.engine.training
import labkit.networks.weights
import labkit.networks.zoo
from labkit.networks.backbone import Backbone

# The one other device that every build of torch knows, and whose gradients every build computes. It is meant for
# tensors without data, which stay possible: questions about shapes are still asked on it.
ELSEWHERE = torch.device("meta")
COPYING = ("aten::_to_copy", "aten::copy_")
INDEXING = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index")
JOINING = ("aten::cat", "aten::stack")
WIDE = (torch.float64, torch.complex128)
PLAIN = (int, bool, float, str, torch.dtype)
# Of the operations that labkit and the notebooks use on a device, those without an MPS kernel in PyTorch 2.6.
LACKING = frozenset(
    f"aten::{name}"
    for name in (
        "grid_sampler_2d_backward",
        "_upsample_bilinear2d_aa",
        "_upsample_bilinear2d_aa_backward",
        "_upsample_bicubic2d_aa",
        "_upsample_bicubic2d_aa_backward",
        "_linalg_eigh",
        "linalg_lstsq",
        "special_ndtri",
    )
)


class Elsewhere(Tensor):
    """A tensor that says it lies on `ELSEWHERE`; ``held`` are its numbers."""

    held: Tensor
    is_meta = False
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> Elsewhere:
        layout = held.shape, held.stride(), held.storage_offset()
        made = Tensor._make_wrapper_subclass(cls, *layout, dtype=held.dtype, device=ELSEWHERE)
        made.held = held
        return made

    def new_tensor(self, numbers: Any, **options: Any) -> Tensor:
        return self.held.new_tensor(numbers, **options).to(ELSEWHERE)

    def __getitem__(self, index: Any) -> Tensor:  # lists would become indices on `ELSEWHERE` that hold no numbers
        listed = tuple(torch.tensor(i) if type(i) is list else i for i in (index if type(index) is tuple else (index,)))
        return super().__getitem__(listed)

    def tolist(self) -> Any:
        return self.held.tolist()

    def __format__(self, spec: str) -> str:
        return format(self.held.detach(), spec)

    def numpy(self, **options: Any) -> Any:
        raise TypeError("can't convert a tensor on another device to numpy: use Tensor.cpu() first")

    def quantile(self, *args: Any, **options: Any) -> Tensor:  # whose inner steps are in float64, but not on Apple's
        return self.held.detach().quantile(*args, **options).to(ELSEWHERE)

    def __repr__(self, **options: Any) -> str:
        return f"{self.held!r} elsewhere"

    def __reduce_ex__(self, protocol: Any) -> Any:  # as if it were read again with map_location="cpu"
        return self.held.detach().__reduce_ex__(protocol)

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return _run(operation, args, kwargs or {})


class Kernels(TorchDispatchMode):
    """While it is on, what is made on `ELSEWHERE` or sent there has numbers."""

    def __init__(self, apple: bool = False):
        super().__init__()
        self.apple, self.ran = apple, set()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:  # which would wrap each of the calls below in several others
        return False

    def __torch_dispatch__(self, operation: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return _run(operation, args, kwargs or {}, self.apple, self.ran)


class Device(ExitStack):
    """While it is on there is another device, and it is the best there is (see `labkit.base.devices.pick_device`).

    ``ran``: the names of the operations that it has computed.
    """

    ran: set[str]

    def __init__(self, apple: bool = False):
        super().__init__()
        self.apple = apple

    def __enter__(self) -> Device:
        super().__enter__()
        for name in ("tensor", "as_tensor"):  # which fill a tensor without asking a mode
            self.enter_context(patch.object(torch, name, _sent(getattr(torch, name))))
        self.enter_context(patch.object(torch, "Generator", Generator))
        self.enter_context(patch.object(torch, "autocast", _autocast(torch.autocast)))
        for place, name in ((Backbone, "_propagate_on_meta"), (torch.export, "export")):  # on shapes alone
            self.enter_context(patch.object(place, name, _without_modes(getattr(place, name))))
        self._everywhere(labkit.networks.weights.load_file, _without_modes)  # safetensors' reader breaks under any mode
        self._everywhere(labkit.networks.weights.load_weights, _without_modes)
        self._everywhere(
            labkit.base.devices.pick_device, lambda real: lambda device=None: real(device) if device else ELSEWHERE
        )
        if self.apple:
            self._everywhere(labkit.base.devices.is_mps, lambda _: lambda device: device == ELSEWHERE)
        self.ran = self.enter_context(Kernels(self.apple)).ran
        return self

    def _everywhere(self, function: Callable[..., Any], changed: Callable[[Callable[..., Any]], Any]) -> None:
        """Change a function in every module that has it."""
        for place, module in list(sys.modules.items()):
            for name, value in list(vars(module).items()) if place.partition(".")[0] == "labkit" else ():
                if value is function:
                    self.enter_context(patch.object(module, name, changed(function)))


class Generator(torch.Generator):
    """One that can be on `ELSEWHERE`."""

    def __new__(cls, device: Any = "cpu") -> Generator:
        made = super().__new__(cls, "cpu" if torch.device(device) == ELSEWHERE else device)
        made.place = torch.device(device)
        return made

    @property
    def device(self) -> torch.device:
        return self.place


def distant(model: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """``model`` as if it lay there: pictures are brought to it, as `Backbone.features` does, and its answers stay."""
    return lambda pictures: model(pictures.cpu()).to(ELSEWHERE)


# --- how it computes ------------------------------------------------------------------------------------------------


class Kind(NamedTuple):
    """What matters of an operation."""

    name: str
    copies: bool
    indexes: bool
    joins: bool
    writes: bool
    reshapes: bool


@functools.cache
def _kind(operation: Any) -> Kind:
    name = operation._schema.name
    reshapes = torch.Tag.inplace_view in operation.tags
    return Kind(name, name in COPYING, name in INDEXING, name in JOINING, operation._schema.is_mutable, reshapes)


def _run(operation: Any, args: tuple, kwargs: dict[str, Any], apple: bool = False, ran: set[str] | None = None) -> Any:
    """Compute on the CPU, and refuse what a GPU refuses."""
    kind = _kind(operation)
    there: list[Elsewhere] = []
    here: list[Tensor] = []
    held = [_held(value, there, here) for value in args]
    options = {key: _held(value, there, here) for key, value in kwargs.items()} if kwargs else {}
    if here and any(x.is_meta for x in here):  # a question about shapes
        return operation(*map(_emptied, args), **{key: _emptied(value) for key, value in kwargs.items()})
    if there and here and not kind.copies:
        # A GPU takes numbers (tensors without dimensions) from the CPU, and indices of its own tensors.
        own = isinstance(args[0], Elsewhere)
        strict = [x for x in args[2:] if isinstance(x, Tensor) and not isinstance(x, Elsewhere)]
        strict = strict if kind.indexes and own else here
        if any(x.ndim or kind.joins for x in strict) or (kind.writes and isinstance(args[0], Tensor) and not own):
            raise RuntimeError(f"{kind.name}: expected all tensors on the same device, but found two")
    at_home = not there
    if (device := kwargs.get("device")) is not None:
        at_home, options["device"] = torch.device(device) != ELSEWHERE, "cpu"
    if at_home:
        return operation(*held, **options)
    if ran is not None:
        ran.add(kind.name)
    if apple:
        _check_apples(kind.name, held)
    found = operation(*held, **options)
    if kind.reshapes:  # in place: the wrapper gets the new layout, too
        with torch._C._DisableTorchDispatch():
            operation(*args, **kwargs)
    if kind.writes and (found is None or isinstance(found, Tensor)):
        return next((x for x in there if x.held is found), found)
    return _wrapped(found, apple, kind.name)


def _check_apples(name: str, args: list[Any]) -> None:
    if name in LACKING or (name == "aten::grid_sampler_2d" and (args[2] == 2 or args[3] == 1)):  # bicubic, border
        raise NotImplementedError(f"{name} is not implemented on Apple's GPUs")
    if name == "aten::_adaptive_avg_pool2d" and any(a % b for a, b in zip(args[0].shape[-2:], args[1], strict=True)):
        raise RuntimeError(f"{name}: on Apple's GPUs input sizes must be divisible by output sizes")


def _held(value: Any, there: list[Elsewhere], here: list[Tensor]) -> Any:
    """``value`` as the CPU has it; tensors in it are added to the list of those on their device."""
    kind = type(value)
    if kind is Elsewhere:
        there.append(value)
        return value.held
    if kind in PLAIN:
        return value
    if kind in (list, tuple):
        return value if value and type(value[0]) in PLAIN else kind(_held(x, there, here) for x in value)
    if isinstance(value, Tensor):
        here.append(value)
    return value


def _emptied(value: Any) -> Any:
    if isinstance(value, Elsewhere):
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=ELSEWHERE)
    return type(value)(map(_emptied, value)) if type(value) in (list, tuple) else value


def _wrapped(value: Any, apple: bool, name: str) -> Any:
    if type(value) is Tensor:
        if apple and value.dtype in WIDE:
            raise TypeError(f"{name}: float64 does not exist here, as on Apple's GPUs")
        return Elsewhere(value)
    return type(value)(_wrapped(x, apple, name) for x in value) if type(value) in (list, tuple) else value


def _sent(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function that makes tensors of numbers, on `ELSEWHERE`, too."""

    @functools.wraps(make)
    def made(data: Any, *, device: Any = None, **options: Any) -> Tensor:
        if device is None or torch.device(device) != ELSEWHERE:
            return make(data, device=device, **options)
        return make(data, **options).to(ELSEWHERE)

    return made


def _autocast(real: Callable[..., Any]) -> Callable[..., AbstractContextManager]:
    @functools.wraps(real, updated=())
    def autocast(device_type: str, *args: Any, **options: Any) -> AbstractContextManager:
        return nullcontext() if device_type == ELSEWHERE.type else real(device_type, *args, **options)

    return autocast


def _without_modes(work: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(work)
    def done(*args: Any, **options: Any) -> Any:
        with _disable_current_modes():
            return work(*args, **options)

    return done
