"""Pictures that move: journeys into a dream, and films dreamt or repainted along their optical flow.

``lk.save_frames(lk.journey("cat.jpg", zoom=1.5, rotate=20, fps=12), "journey.webp", fps=12)``
"""

from __future__ import annotations

import math
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from numbers import Integral
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..base.checks import MOST_STEPS, check_numbers
from ..base.devices import arithmetic, off_mps
from ..engine.progress import Progress
from ..losses.algebra import Loss
from ..losses.reconstruction import pixel_mse
from ..networks.backbone import Backbone
from ..networks.surgery import Border, Pooling, variant
from ..networks.weights import find_weights, frozen, read_weights
from ..networks.zoo import load_backbone
from ..pictures.films import frames_of
from ..pictures.geometry import size_of
from ..pictures.reading import PictureLike, as_picture
from .deepdream import dreaming
from .style_transfer import stylizing_with

Flow = Callable[[Tensor, Tensor], Tensor]
FRAME: Mapping[str, Any] = {"octaves": 2, "steps": 4, "jitter": 16}  # each frame only goes on with the last one's dream
RAFT = {"raft_large": "raft_large_C_T_SKHT_V2-ff5fadd5.pth", "raft_small": "raft_small_C_T_V2-01064c6d.pth"}


# --- journeys and films -------------------------------------------------------------------------------------------


def journey(
    photo: PictureLike,
    layers: str | Mapping[str, float] | Loss | None = None,
    *,
    backbone: str | Backbone = "pocket",
    seconds: float | None = 4.0,
    fps: float = 12.0,
    zoom: float = 1.5,
    rotate: float = 0.0,
    seed: int = 0,
    device: str | torch.device | None = None,
    **options: Any,
) -> Iterator[Tensor]:
    """Dream the photo, move the dream, dream it again: yield the frames (N, 3, H, W). To stop, take no more of them.

    Args:
        photo, layers, backbone, device, options: of `dreaming`; unless given, octaves=2, steps=4, jitter=16.
        seconds: how long the film is; None: for ever.
        fps: frames a second. Where the journey has come to after a second does not depend on it; how strong the dream
            is does, as every frame is dreamt with the same number of steps.
        zoom: the enlargement in a second, 1 for none; a frame's is zoom ** (1 / fps).
        rotate: degrees in a second, counterclockwise; with a zoom it makes a spiral.
        seed: of the first frame; the others' follow.
    """
    check_numbers(0.01, most=1000, fps=fps, zoom=zoom)
    check_numbers(0.01, most=86_400, seconds=1.0 if seconds is None else seconds)
    check_numbers(-3600, most=3600, rotate=rotate)
    network, first = load_backbone(backbone, device), as_picture(photo)
    begun = _dreaming(first, network, layers, seed, options)  # at the call, which refuses bad options

    def frame_by_frame() -> Iterator[Tensor]:
        picture, run = first, begun
        for number in count() if seconds is None else range(max(1, round(seconds * fps))):
            if number:
                picture = zoom_rotate(picture, zoom ** (1 / fps), rotate / fps)
                run = _dreaming(picture, network, layers, seed + number, options)
            picture = _last(run).picture.to(first.device)
            yield picture

    return frame_by_frame()


def dream_frames(
    frames: Any,
    layers: str | Mapping[str, float] | Loss | None = None,
    *,
    backbone: str | Backbone = "pocket",
    keep: float = 0.5,
    flow: Flow | Literal["auto"] | None = "auto",
    seed: int = 0,
    device: str | torch.device | None = None,
    **options: Any,
) -> Iterator[Tensor]:
    """Dream a film frame by frame, yielding the frames (1, 3, H, W), in which the dream stays from frame to frame.

    Each frame starts as a mix of itself with the dream of the frame before, carried along by the optical flow, except
    where something was hidden before (Ruder, Dosovitskiy and Brox 2016, arXiv:1604.08610).

    Args:
        frames: anything `frames_of` takes.
        layers, backbone, seed, device, options: as in `journey`.
        keep: the share of the last dream in the mix, from 0 to 1.
        flow: a function (frame, other) -> (1, 2, H, W), where each pixel of the frame is in the other, as (right, down)
            in pixels; "auto": torchvision's RAFT if its weights are here (see `raft`), otherwise, with a warning, no
            flow; None: no flow, a plain blend.

    Raises:
        ValueError: for a film without frames and for frames of several sizes.
    """
    backbone = load_backbone(backbone, device)

    def make(number: int, frame: Tensor, past: Past) -> Iterator[Progress]:
        return _dreaming(past.start, backbone, layers, seed + number, options)

    return _film(frames, make, keep, flow, backbone.device)


def stylize_frames(
    frames: Any,
    painting: PictureLike | Sequence[PictureLike],
    *,
    backbone: str | Backbone = "pocket",
    keep: float = 1.0,
    pooling: Pooling = "max",
    border: Border = "zeros",
    temporal_weight: float = 10.0,
    flow: Flow | Literal["auto"] | None = "auto",
    steps: int = 100,
    steps_after: int = 40,
    device: str | torch.device | None = None,
    **options: Any,
) -> Iterator[Tensor]:
    """Repaint a film frame by frame, yielding the frames (1, 3, H, W), without flicker.

    The first frame is `stylizing`'s. Each further one starts from the result of the frame before, carried along by the
    optical flow, and is held to it by a temporal loss, except where something was hidden before (Ruder, Dosovitskiy
    and Brox 2016, arXiv:1604.08610).

    Args:
        frames, flow: as in `dream_frames`.
        painting, backbone, pooling, border, device, options: of `stylizing_with`.
        keep: the share of the last result in what a frame starts from, from 0 to 1.
        temporal_weight: of the temporal loss (see `pixel_mse`); 0 for none.
        steps: of the first frame, coarse to fine.
        steps_after: of the others, at full size.
    """
    check_numbers(0, temporal_weight=temporal_weight)
    check_numbers(1, Integral, most=MOST_STEPS, steps=steps, steps_after=steps_after)
    backbone = variant(load_backbone(backbone, device), pooling, border)

    def make(number: int, frame: Tensor, past: Past) -> Iterator[Progress]:
        schedule: dict[str, Any] = {"steps": steps}
        if past.result is not None:
            schedule = {"steps": steps_after, "init": past.start, "min_scale": max(size_of(frame))}
            if temporal_weight:
                held = temporal_weight * pixel_mse(past.result, past.seen)
                schedule["extra_loss"] = options["extra_loss"] + held if options.get("extra_loss") else held
        return stylizing_with(frame, painting, backbone=backbone, **options | schedule)

    return _film(frames, make, keep, flow, backbone.device)


@dataclass(frozen=True)
class Past:
    """What a frame can begin with: a mix ``start`` of itself with the last ``result``, carried to where things now are
    (None before there is one), and where that is ``seen``, (1, 1, H, W), not hidden before."""

    start: Tensor
    result: Tensor | None = None
    seen: Tensor | None = None


def _film(
    frames: Any,
    make: Callable[[int, Tensor, Past], Iterator[Progress]],
    keep: float,
    flow: Flow | Literal["auto"] | None,
    device: torch.device,
) -> Iterator[Tensor]:
    """What the runs that ``make`` begins, of each frame by its number and its past, end with. See `dream_frames`."""
    check_numbers(0, most=1, keep=keep)
    if flow == "auto":
        flow = raft(device)
        if flow is None:
            warnings.warn(
                f"no weights of RAFT ({' or '.join(RAFT.values())}) are in LABKIT_WEIGHTS or torch's cache: "
                "frames are blended without optical flow",
                stacklevel=3,
            )
    elif flow is not None and not callable(flow):
        raise ValueError(f'flow is "auto", a function or None, not {flow!r}')

    film = frames_of(frames)
    first = next(film)
    begun = make(0, first.cpu(), Past(first.cpu()))  # at the call, which refuses bad options

    def frame_by_frame() -> Iterator[Tensor]:
        before: tuple[Tensor, Tensor] | None = None  # the last frame and its result
        for number, frame in enumerate(chain([first], film)):
            home, frame = frame.device, frame.cpu()
            past = Past(frame)
            if before is not None:
                last, result = before
                if frame.shape != last.shape:
                    sizes = " and ".join(f"{width}x{height}" for height, width in map(size_of, (last, frame)))
                    raise ValueError(f"a film's frames have one size, not {sizes} pixels")
                seen = torch.ones_like(frame[:, :1])
                if flow is not None:
                    forward, backward = flow(frame, last).to(frame), flow(last, frame).to(frame)
                    result, seen = warped(result, forward), visible(forward, backward)
                past = Past((frame + keep * seen * (result - frame)).clamp(0, 1), result, seen)
            made = _last(make(number, frame, past) if number else begun)
            # Not the picture, whose colors may have been changed since.
            before = frame, made.pixels.detach().clamp(0, 1).cpu()
            yield made.picture.to(home)

    return frame_by_frame()


def _dreaming(
    picture: Tensor, backbone: Backbone, layers: Any, seed: int, options: dict[str, Any]
) -> Iterator[Progress]:
    if options.get("variations", 1) != 1:
        raise ValueError(f"a film has one dream a frame, not variations={options['variations']}")
    return dreaming(picture, layers, backbone=backbone, seed=seed, **{**FRAME, **options})


def _last(run: Iterator[Progress]) -> Progress:
    """Where a run has come to at its end. An interrupt is not caught: it ends the film, not only this frame."""
    return deque(run, maxlen=1).pop()


def zoom_rotate(picture: Tensor, scale: float, degrees: float = 0.0) -> Tensor:
    """The picture enlarged about its middle and turned counterclockwise; what comes in at the border is mirrored."""
    angle, aspect = math.radians(degrees), picture.shape[2] / picture.shape[3]
    cosine, sine = math.cos(angle) / scale, math.sin(angle) / scale
    home, picture = picture.device, off_mps(picture)
    matrix = torch.tensor([[cosine, -sine * aspect, 0.0], [sine / aspect, cosine, 0.0]]).to(picture)
    grid = F.affine_grid(matrix.expand(len(picture), 2, 3), list(picture.shape), align_corners=False)
    moved = F.grid_sample(picture, grid, mode="bicubic", padding_mode="reflection", align_corners=False)
    return moved.clamp(0, 1).to(home)


# --- optical flow -------------------------------------------------------------------------------------------------


def warped(picture: Tensor, flow: Tensor) -> Tensor:
    """The picture (N, C, H, W) read at each place plus ``flow`` (N, 2, H, W), (right, down) in pixels."""
    home, picture, flow = picture.device, off_mps(picture), off_mps(flow)
    height, width = size_of(picture)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([columns, rows]).to(flow) + flow
    sides = flow.new_tensor([width, height]).view(2, 1, 1)
    grid = ((2 * places + 1) / sides - 1).permute(0, 2, 3, 1)
    return F.grid_sample(picture, grid, mode="bilinear", padding_mode="border", align_corners=False).to(home)


def visible(forward: Tensor, backward: Tensor) -> Tensor:
    """Where a frame shows what the other one shows too: (N, 1, H, W) of 0 and 1, from the flows (N, 2, H, W) both ways.

    Going there and back must lead home, and the place must lie inside the other frame (thresholds of Sundaram, Brox
    and Keutzer 2010).
    """
    returned = warped(backward, forward)
    error = (forward + returned).square().sum(1, keepdim=True)
    length = forward.square().sum(1, keepdim=True) + returned.square().sum(1, keepdim=True)
    height, width = size_of(forward)
    columns = torch.arange(width).to(forward) + forward[:, :1]
    rows = torch.arange(height).to(forward)[:, None] + forward[:, 1:]
    inside = (columns > -0.5) & (columns < width - 0.5) & (rows > -0.5) & (rows < height - 0.5)
    return ((error <= 0.01 * length + 0.5) & inside).to(forward)


def raft(device: torch.device | str = "cpu") -> Flow | None:
    """Optical flow by torchvision's RAFT (Teed and Deng 2020, arXiv:2003.12039); None if its weights are not here.

    They are looked for in the folder LABKIT_WEIGHTS and in torch's cache; nothing is downloaded.
    """
    path = find_weights(*RAFT.values(), cached=True)
    if path is None:
        return None
    from torchvision.models import optical_flow

    name = next(name for name, file in RAFT.items() if file == path.name)
    network = frozen(getattr(optical_flow, name)(), read_weights(path, name), name, device)

    @torch.no_grad()
    @arithmetic()
    def flow(frame: Tensor, other: Tensor) -> Tensor:
        size = size_of(frame)
        fit = tuple(max(128, 8 * math.ceil(side / 8)) for side in size)  # what the network can take
        first, second = (2 * F.interpolate(p.to(device), fit, mode="bilinear") - 1 for p in (frame, other))
        field = F.interpolate(network(first, second)[-1], tuple(size), mode="bilinear")
        return field * field.new_tensor([size[1] / fit[1], size[0] / fit[0]]).view(2, 1, 1)

    return flow
