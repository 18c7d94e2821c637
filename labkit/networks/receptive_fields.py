"""Which pixels a unit sees, measured: no layer is too strange, and none is guessed."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .meta import copied_to, first_line

if TYPE_CHECKING:
    from .backbone import Backbone

LONGEST = 2048  # pixels; what sees further is taken to see everything


@dataclass(frozen=True)
class ReceptiveField:
    """The square of pixels that one unit of a layer can see: its side and the step between neighbors, in pixels.

    ``start`` is the position, relative to the picture's corner, where the square of the unit (0, 0) begins: negative,
    because padding lets it begin outside. See Araujo et al. 2019, doi:10.23915/distill.00021.
    """

    size: int = 1
    stride: int = 1
    start: int = 0


class UnboundedError(ValueError):
    """A unit sees the whole picture, or more than can be told from that."""


class Reach(TorchFunctionMode):
    """While it is on, a convolution answers NaN where its kernel touches a NaN, and 1 elsewhere.

    What a unit reads does not depend on weights, nor on how many channels there are: one channel of ones tells it at a
    fraction of the cost, and nothing can overflow. Other operations pass a NaN on by themselves.
    """

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if getattr(function, "__name__", "") == "conv2d":
            function = _touched
        return function(*args, **(kwargs or {}))


def _touched(x: Tensor, weight: Tensor, bias: Any = None, *geometry: Any, groups: int = 1, **named: Any) -> Tensor:
    ones = x.new_ones(1, 1, *weight.shape[2:]).float()
    touched = F.conv2d(x.isnan().any(1, keepdim=True).float(), ones, None, *geometry[:3], **named) > 0.5
    return x.new_ones(()).masked_fill(touched, torch.nan).expand(-1, len(weight), -1, -1).contiguous()


@torch.no_grad()
def measure_receptive_field(network: Backbone, layer: str) -> ReceptiveField | str:
    """The receptive field of a layer; or, if a unit does not see a square of a fixed size, the reason in words."""
    tried = copied_to(network, "cpu", torch.float32)  # where NaN goes where it should

    def look(x: Tensor, layers: Sequence[str] = (layer,)) -> dict[str, Tensor]:
        features: dict[str, Tensor] = {}
        tried.propagate(x, list(layers), features.setdefault)
        return features

    least = 1
    try:
        least = network.minimum_size(layer)
        growth = network.map_size(layer, (20480, least))[0] - network.map_size(layer, (4096, least))[0]
        if not 0 < growth <= 16384:
            return f"its map grows by {growth} rows with 16384 more of the picture"
        down, across = (
            Axis(towards, network.colors, least, round(16384 / growth))
            for towards in (lambda x: look(x)[layer], lambda x: look(x.mT)[layer].mT)
        )
        rows = down.measured()
        columns = rows if across.predicted(rows) else across.measured()
        down.check_numbers(rows)
    except UnboundedError:
        x = torch.ones(1, network.colors, 2 * LONGEST, least, dtype=torch.float32)
        x[:, :, 0] = torch.nan
        with Reach():
            features = look(x, network.names[: network.names.index(layer) + 1])
        first = next((name for name, f in features.items() if f.isnan().any(1).all()), layer)
        return f"a unit of {first} sees the whole picture"
    except (RuntimeError, ValueError, AssertionError) as error:
        return first_line(error)
    begin, end = min(rows[0], columns[0]), max(rows[1], columns[1])
    return ReceptiveField(end - begin, down.stride, begin)


class Axis:
    """A receptive field along the rows: unit u reads rows begin + u * stride to end + u * stride, excluded.

    It is found with pictures of which nothing but a window of rows is known: all else is NaN.
    """

    def __init__(self, look: Callable[[Tensor], Tensor], channels: int, least: int, stride: int):
        self.look, self.channels, self.least, self.stride = look, channels, least, stride
        window = max(32, least, 4 * stride)
        while True:
            self.top, self.bottom, self.length = window // 4, window // 4 + window, window // 4 * 2 + window
            known = self.known(self.top, self.bottom, self.length)
            self.first, self.last = self.around(len(known) // 2, known)
            if self.last - self.first >= 3:
                break
            window += window // 2
            if window > LONGEST:
                raise UnboundedError("a unit sees the whole picture")
        self.middle = self.first + 1

    def known(self, begin: int, end: int, length: int) -> list[bool]:
        """Which units read nothing but rows ``begin`` to ``end``, excluded, of a picture of so many rows."""
        x = torch.ones(1, self.channels, length, self.least, dtype=torch.float32)
        x[:, :, :begin] = x[:, :, end:] = torch.nan
        with Reach():
            return (~self.look(x).isnan().any(3).any(1)[0]).tolist()

    @staticmethod
    def around(unit: int, known: list[bool]) -> tuple[int, int]:
        """The first and the last of the known units around one."""
        above, below = known[:unit][::-1], known[unit:]
        return unit - [*above, False].index(False), unit + [*below, False].index(False) - 1

    def units(self, a: int, b: int, more: int = 0) -> tuple[int, int]:
        """The first and the last unit of the window whose ends are moved down by ``a`` and ``b`` rows."""
        known = self.known(self.top + a, self.bottom + b, self.length + more)
        return self.around(self.middle + max(0, b // self.stride), known)

    def measured(self) -> tuple[int, int]:
        """(begin, end), from when a unit leaves, or enters, the moving window."""
        j, shifts = self.stride, range(1, self.stride)
        leaves = 1 + bisect.bisect_left(shifts, True, key=lambda k: self.units(k, 0)[0] > self.first)
        enters = 1 + bisect.bisect_left(shifts, True, key=lambda k: self.units(0, k)[1] > self.last)
        field = self.top + leaves - 1 - self.first * j, self.bottom + enters - (self.last + 1) * j
        if not self.predicted(field):
            raise ValueError("units do not see the same pixels relative to their places")
        return field

    def predicted(self, field: tuple[int, int]) -> bool:
        """Is this what other windows, in pictures of other lengths, show as well?"""
        (begin, end), j = field, self.stride
        windows = (0, 0, 13), (j, -j, 2 * j + 1), (j // 2, -(j // 3), 7), (7 * j + j // 3, 7 * j, 8 * j + 5)
        return all(
            self.units(a, b, more) == (-((begin - self.top - a) // j), (self.bottom + b - end) // j)
            for a, b, more in windows
        )

    def check_numbers(self, field: tuple[int, int]) -> None:
        """What lies beyond must not matter in numbers either: NaN does not pass everywhere (torch.where drops it)."""
        (begin, end), j = field, self.stride
        shape, generator = (1, self.channels, self.length, self.least), torch.Generator().manual_seed(0)
        x = torch.randn(shape, generator=generator, dtype=torch.float32)
        unit, before = self.middle, max(0, math.ceil(-begin / j))
        whole = self.look(x)[:, :, unit]
        part = self.look(x[:, :, (unit - before) * j : unit * j + end])[:, :, before]
        if not (whole - part).abs().max() <= 1e-4 * whole.abs().max():
            raise ValueError("it changes with pixels beyond those that were found to matter")
