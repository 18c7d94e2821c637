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
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from ..base.memory import release_memory
from ..losses.algebra import PIXELS, Slices, Window
from ..networks.backbone import Backbone
from ..networks.receptive_fields import ReceptiveField

# A loss on pixels may look at the neighbors to the right and below.
PIXEL_FIELD = ReceptiveField(size=2)
LEAST = 64  # pixels; a smaller tile would be nearly all halo


@dataclass(frozen=True)
class Tile:
    """The (rows, columns) of the picture that a tile ``reads``, and the positions of each layer that it owns."""

    reads: Slices
    window: Window


def fields(backbone: Backbone, layers: Sequence[str]) -> dict[str, ReceptiveField]:
    """What a unit of each layer sees. Raises ValueError for the logits, which see everything."""
    return {layer: PIXEL_FIELD if layer == PIXELS else backbone.receptive_field(layer) for layer in layers}


def halo(backbone: Backbone, layers: Sequence[str]) -> tuple[int, int]:
    """How many pixels a tile must read (before, after) its own square, so that the features it owns are exact."""
    seen = fields(backbone, layers).values()
    return max(-f.start for f in seen), max(f.start + f.size - f.stride for f in seen)


def cut(backbone: Backbone, layers: Sequence[str], size: tuple[int, int], tile: int) -> list[Tile]:
    """Tiles for pictures of ``size`` (height, width), nearly equal, each owning a square of about ``tile`` pixels.

    Borders lie on multiples of the layers' strides, so that every tile's pools and strided convolutions fall on
    the same pixels as the whole picture's. A tile at a true border ends there, with the network's own padding.
    """
    if max(size) <= tile:
        return [Tile((slice(None), slice(None)), Window())]
    seen, (before, after) = fields(backbone, layers), halo(backbone, layers)
    step = math.lcm(*(f.stride for f in seen.values()))
    before = math.ceil(before / step) * step
    rows, columns = (_spans(length, tile, step, before, after, seen) for length in size)
    return [
        Tile(
            (row, column),
            Window(
                {layer: (row_inner[layer], column_inner[layer]) for layer in layers},
                {layer: (row_outer[layer], column_outer[layer]) for layer in layers},
            ),
        )
        for row, row_inner, row_outer in rows
        for column, column_inner, column_outer in columns
    ]


Owned = dict[str, slice]


def _spans(
    length: int, tile: int, step: int, before: int, after: int, seen: dict[str, ReceptiveField]
) -> list[tuple[slice, Owned, Owned]]:
    """One axis: what each tile reads, and what it owns of each layer in its own map and in the whole picture's."""
    count = max(1, min(math.ceil(length / tile), length // step))
    borders = [round(length * k / count / step) * step for k in range(count)]
    spans = []
    for begin, end in zip(borders, [*borders[1:], None], strict=True):
        start = max(0, begin - before)
        stop = length if end is None else min(length, end + after)
        inner, outer = {}, {}
        for layer, field in seen.items():
            stride = field.stride
            last = None if end is None else end // stride  # the last tile owns whatever a padded map has beyond
            outer[layer] = slice(begin // stride, last)
            inner[layer] = slice((begin - start) // stride, None if last is None else last - start // stride)
        spans.append((slice(start, stop), inner, outer))
    return spans


# --- how large may a tile be? --------------------------------------------------------------------------------------


def _bytes_per_pixel(backbone: Backbone, layers: Sequence[str]) -> float:
    layers = [layer for layer in layers if layer != PIXELS]
    if not layers:
        return 64.0
    deepest = max(layers, key=backbone.layers.index)

    def kept(side: int) -> int:
        total = 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal total
            total += tensor.nbytes
            return tensor

        with torch.enable_grad(), saved_tensors_hooks(count, lambda tensor: tensor):
            backbone.on_meta((side, side), deepest, differentiable=True)
        return total

    least = max(128, backbone.minimum_size(deepest))
    per_pixel = (kept(2 * least) - kept(least)) / (3 * least**2)  # the weights, which are kept too, cancel
    # Losses compute in float32: each of their layers is kept once more, and its gradient stands beside it.
    side = 2 * least
    places = {layer: math.prod(backbone.map_size(layer, (side, side))) / side**2 for layer in layers}
    per_pixel += sum(8 * backbone.channels(layer) * share for layer, share in places.items())
    return per_pixel + 64


def in_tiles(work: Callable[[Tensor], Tensor], picture: Tensor, tile: int, radius: int, scale: int = 1) -> Tensor:
    """What ``work`` makes of a picture (N, C, H, W), tile by tile: (N, D, scale H, scale W), the same as of the whole.

    work: a map, ``scale`` times as large, that looks no further than ``radius`` pixels, and at the picture's border
    does what it does there. tile: the side of the squares of the picture, whose corners lie on multiples of it.
    """
    height, width = picture.shape[-2:]
    whole: list[Tensor] = []  # one, once its channels are known
    for top, left in product(range(0, height, tile), range(0, width, tile)):
        above, before = min(top, radius), min(left, radius)
        part = work(picture[..., top - above : top + tile + radius, left - before : left + tile + radius])
        part = part[..., above * scale :, before * scale :][..., : tile * scale, : tile * scale]
        if not whole:
            whole.append(part.new_empty(*part.shape[:2], height * scale, width * scale))
        whole[0][..., top * scale : (top + tile) * scale, left * scale : (left + tile) * scale] = part
    return whole[0]


def estimate(backbone: Backbone, layers: Sequence[str], size: tuple[int, int]) -> int:
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
            found = {key: int(value.split()[0]) * 1024 for key, value in (line.split(":") for line in lines)}
        return int(min(found["MemAvailable"], free_in_container()))
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


def tile_for_memory(backbone: Backbone, layers: Sequence[str], size: tuple[int, int], memory: int) -> int | None:
    """The largest tile whose evaluation fits into half of ``memory``; None if the whole picture does."""
    if estimate(backbone, layers, size) <= memory / 2:
        return None
    around = sum(halo(backbone, layers))
    per_pixel = _bytes_per_pixel(backbone, layers)
    side = math.sqrt(memory / 2 / per_pixel) - around
    return max(LEAST, 2 ** math.floor(math.log2(max(side, 1))))


def ran_out(error: Exception) -> bool:
    """Does the error say that memory ran out? CPUs say it as a RuntimeError."""
    said = str(error).lower()
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and ("allocate memory" in said or "out of memory" in said)
    )
