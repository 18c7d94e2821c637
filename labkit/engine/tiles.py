"""A picture cut into tiles whose gradients add up, exactly, to the gradient of the whole.

A tile *owns* features: in each layer, the positions above its own square of the picture; the tiles share out every
position once. It *reads* that square and a halo, wide enough that what lies beyond cannot reach an owned feature. Then
statistics add up over tiles, and so do gradients, if the whole gradient of a tile is added, halo included: a pixel near
a border moves features that its neighbor owns.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from numbers import Integral
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from ..base.checks import check_numbers
from ..base.memory import release_memory
from ..losses.algebra import PIXELS, Slices, Window
from ..networks.backbone import Backbone
from ..networks.receptive_fields import ReceptiveField
from ..pictures.geometry import Size, size_of

# A loss on pixels may look at the neighbors to the right and below.
PIXEL_FIELD = ReceptiveField(size=2)
LEAST = 64  # pixels; a smaller tile would be nearly all halo
Fields: TypeAlias = dict[str, ReceptiveField]
Span: TypeAlias = tuple[slice, dict[str, slice], dict[str, slice]]


@dataclass(frozen=True)
class Tile:
    """The (rows, columns) of the picture that a tile ``reads``, and the positions of each layer that it owns."""

    reads: Slices
    window: Window


def fields(backbone: Backbone, layers: Sequence[str]) -> Fields:
    """What a unit of each layer sees. Raises ValueError for the logits, which see everything."""
    return {layer: PIXEL_FIELD if layer == PIXELS else backbone.receptive_field(layer) for layer in layers}


def halo(backbone: Backbone, layers: Sequence[str]) -> tuple[int, int]:
    """How many pixels a tile must read (before, after) its own square, so that the features it owns are exact."""
    seen = fields(backbone, layers).values()
    return max(-f.start for f in seen), max(f.start + f.size - f.stride for f in seen)


def cut(backbone: Backbone, layers: Sequence[str], size: Size, tile: int | None) -> list[Tile]:
    """A picture's tiles, nearly equal, each owning a square of about ``tile`` pixels.

    Borders lie on multiples of the layers' strides, so that every tile's pools and strided convolutions fall on
    the same pixels as the whole picture's. A tile at a true border ends there, with the network's own padding.

    Args:
        backbone, layers: the network, and what is read of it; "pixels" is the picture.
        size: (height, width) of the picture.
        tile: the side of the squares, at least 1; None, or the picture's longer side: one tile, which owns everything.
    """
    if tile is None or max(size) <= tile:
        return [Tile((slice(None), slice(None)), Window())]
    check_numbers(1, Integral, tile=tile)
    seen, (before, after) = fields(backbone, layers), halo(backbone, layers)
    step = math.lcm(*(f.stride for f in seen.values()))
    before = math.ceil(before / step) * step
    rows, columns = (_spans(length, tile, step, before, after, seen) for length in size)
    tiles = []
    for (row, *row_owns), (column, *column_owns) in product(rows, columns):
        owns = [{layer: (r[layer], c[layer]) for layer in layers} for r, c in zip(row_owns, column_owns, strict=True)]
        tiles.append(Tile((row, column), Window(*owns)))
    return tiles


def _spans(length: int, tile: int, step: int, before: int, after: int, seen: Fields) -> list[Span]:
    """One axis: what each tile reads, and what it owns of each layer in its own map and in the whole picture's."""
    count = max(1, min(math.ceil(length / tile), length // step))
    borders = [round(length * k / count / step) * step for k in range(count)]
    spans = []
    for begin, end in zip(borders, [*borders[1:], None], strict=True):
        start, inner, outer = max(0, begin - before), {}, {}
        for layer, field in seen.items():
            last = None if end is None else end // field.stride  # the last owns whatever a padded map has beyond
            offset = start // field.stride
            outer[layer] = slice(begin // field.stride, last)
            inner[layer] = slice(begin // field.stride - offset, None if last is None else last - offset)
        spans.append((slice(start, length if end is None else min(length, end + after)), inner, outer))
    return spans


def in_tiles(work: Callable[[Tensor], Tensor], picture: Tensor, tile: int, radius: int, scale: int = 1) -> Tensor:
    """What ``work`` makes of a picture (N, C, H, W), tile by tile: (N, D, scale H, scale W), the same as of the whole.

    Args:
        work: makes a map, ``scale`` times as large, looks no further than ``radius`` pixels, and at the border of what
            it is given does what it does at the picture's.
        tile: the side of the squares of the picture, whose corners lie on multiples of it.
        radius: in pixels of the picture, at most 4096.
    """
    check_numbers(1, Integral, tile=tile, scale=scale)
    check_numbers(0, Integral, most=4096, radius=radius)
    (height, width), whole = size_of(picture), picture
    for top, left in product(range(0, height, tile), range(0, width, tile)):
        above, before = min(top, radius), min(left, radius)
        part = work(picture[..., top - above : top + tile + radius, left - before : left + tile + radius])
        part = part[..., above * scale :, before * scale :][..., : tile * scale, : tile * scale]
        if whole is picture:
            whole = part.new_empty(*part.shape[:2], height * scale, width * scale)
        whole[..., top * scale : (top + tile) * scale, left * scale : (left + tile) * scale] = part
    return whole


# --- how large may a tile be? --------------------------------------------------------------------------------------


def _bytes_per_pixel(backbone: Backbone, layers: Sequence[str]) -> float:
    layers = [layer for layer in layers if layer != PIXELS]
    if not layers:
        return 64.0
    deepest = max(layers, key=backbone.layers.index)

    def kept(side: int) -> int:
        sizes: list[int] = []
        with torch.enable_grad(), saved_tensors_hooks(lambda x: sizes.append(x.nbytes), lambda size: size):
            backbone.on_meta((side, side), deepest, differentiable=True)
        return sum(sizes)

    least = max(128, backbone.minimum_size(deepest))
    per_pixel = (kept(2 * least) - kept(least)) / (3 * least**2)  # the weights, which are kept too, cancel
    # Losses compute in float32: each of their layers is kept once more, and its gradient stands beside it.
    for layer in layers:
        units = math.prod(backbone.map_size(layer, (2 * least, 2 * least))) / (2 * least) ** 2
        per_pixel += 8 * backbone.channels(layer) * units
    return per_pixel + 64


def estimate(backbone: Backbone, layers: Sequence[str], size: Size) -> int:
    """About how many bytes an untiled evaluation of a picture of ``size`` takes at its peak, weights not counted.

    Counts, on shapes alone, what a forward pass keeps for its backward pass, twice if two operations keep it: that
    makes up for what is in the making, and measured 1.3 to 1.4 times the true peak.
    """
    return round(_bytes_per_pixel(backbone, layers) * size[0] * size[1])


def free_memory(device: torch.device) -> int:
    """The bytes that the device has free (for a CPU: what the system could give without swapping)."""
    if device.type == "cuda":  # what PyTorch keeps for the next evaluation is free, too
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    release_memory()  # the same
    try:
        with open("/proc/meminfo") as lines:
            sizes = {key: int(value.split()[0]) * 1024 for key, value in (line.split(":") for line in lines)}
        return int(min(sizes["MemAvailable"], free_in_container()))
    except (OSError, KeyError, ValueError):  # not Linux
        return 4 << 30


def free_in_container(group: Path = Path("/sys/fs/cgroup")) -> float:
    """The bytes that Linux would still give to this control group (Docker, Binder); infinite if it has no limit."""
    try:
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        (cached,) = re.findall(r"^inactive_file (\d+)$", (group / "memory.stat").read_text(), re.MULTILINE)
    except (OSError, ValueError):  # no limit is "max"
        return math.inf
    return limit - used + int(cached)


def tile_for_memory(backbone: Backbone, layers: Sequence[str], size: Size, memory: int) -> int | None:
    """The largest tile whose evaluation fits into half of ``memory``; None if the whole picture does."""
    per_pixel = _bytes_per_pixel(backbone, layers)
    if per_pixel * math.prod(size) <= memory / 2:
        return None
    side = math.sqrt(memory / 2 / per_pixel) - sum(halo(backbone, layers))
    return max(LEAST, 2 ** math.floor(math.log2(max(side, 1))))


def ran_out(error: Exception) -> bool:
    """Does the error say that memory ran out? CPUs say it as a RuntimeError."""
    if isinstance(error, RuntimeError):
        return any(sign in str(error).lower() for sign in ("allocate memory", "out of memory"))
    return isinstance(error, MemoryError)
