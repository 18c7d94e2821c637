"""The loop over the weights of a network, for the few that the lab trains itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from ..base.checks import check_numbers
from ..base.devices import Precision, arithmetic, pick_precision, requested_precision
from ..base.files import written_whole
from ..base.memory import keep_memory
from .progress import Resumable
from .runs import State, differences


@dataclass
class Trained(Resumable):
    """Where a training stands: ``step`` of ``of``, the error of the last batch, seconds."""

    step: int
    of: int
    error: float
    elapsed: float
    snapshot: Callable[[], State] = field(repr=False)


def train_steps(
    model: nn.Module,
    error: Callable[[Generator], Tensor],
    *,
    steps: int,
    learning_rate: float = 1e-3,
    clip: float = 1.0,
    precision: Precision = "auto",
    seed: int = 0,
    resume: State | str | Path | None = None,
) -> Iterator[Trained]:
    """Train ``model`` in place, yielding `Trained` after every step: Adam, its step falling to zero along a cosine.

    Args:
        error: of one random batch, drawn with the generator that it gets: a number that depends on the weights.
        steps: at most ten million.
        learning_rate: of the first step.
        clip: the largest norm of the gradient; a longer one is shortened to it.
        precision: of the products in ``error``: see `pick_precision`; weights and their steps stay in float32.
        seed: of the batches.
        resume: what `Trained.save` wrote in a training with the same arguments.
    """
    check_numbers(1, Integral, most=10**7, steps=steps)
    check_numbers(0, most=1e6, learning_rate=learning_rate, clip=clip)
    device = next(model.parameters()).device
    if device.type == "cpu":
        keep_memory()
    dtype = pick_precision(precision, device)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    first, parts = 0, (model, optimizer, schedule)
    if resume is not None:  # read on the CPU, where Adam's counters stay: on a GPU each step would wait for them
        state = resume if isinstance(resume, dict) else torch.load(resume, map_location="cpu", weights_only=True)
        for part, saved in zip(parts, state["parts"], strict=True):
            part.load_state_dict(saved)
        generator.set_state(state["generator"].cpu())
        first = state["step"]

    def step_by_step() -> Iterator[Trained]:
        def snapshot() -> State:
            states = [part.state_dict() for part in parts]
            return {"parts": states, "generator": generator.get_state(), "step": step}

        started = time.perf_counter()
        for step in range(first + 1, steps + 1):
            with torch.enable_grad(), arithmetic(requested_precision(precision) == "tf32"):
                with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                    loss = error(generator)
                optimizer.zero_grad()
                loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            schedule.step()
            yield Trained(step, steps, loss.item(), time.perf_counter() - started, snapshot)

    return step_by_step()


def save_checkpoint(now: Trained, path: str | Path, settings: Mapping[str, Any]) -> None:
    """Write the state of a training and the ``settings`` that decide its result, whole or not at all."""
    with written_whole(path) as temporary:
        torch.save(now.state_dict() | {"settings": dict(settings)}, temporary)


def load_checkpoint(path: str | Path, settings: Mapping[str, Any]) -> State | None:
    """The state that `save_checkpoint` wrote, to be given as ``resume``; None when there is no such file.

    Raises ValueError, naming what differs, when it is of a training with other settings: they would be overridden.
    """
    if not Path(path).exists():
        return None
    state = torch.load(path, map_location="cpu", weights_only=True)
    old = state.get("settings", dict.fromkeys(settings, "not kept"))
    if changed := differences(old, settings):
        raise ValueError(f"{path} is of another training: {changed}; delete it, or choose another --output")
    return state


def large_enough(photos: Iterable[Sequence[Tensor]], side: int) -> list[Sequence[Tensor]]:
    """The photos that `crops` can cut squares of ``side`` pixels from. ValueError if there is none."""
    found = [photo for photo in photos if min(photo[0].shape[-2:]) >= side]
    if not found:
        raise ValueError(f"no photo is large enough for crops of {side} pixels")
    return found


def crops(
    photos: Sequence[Sequence[Tensor]], side: int, count: int, generator: Generator, turns: bool = True
) -> list[Tensor]:
    """Random squares of random photos, mirrored, and turned by right angles; each pixel is as likely as any other.

    Args:
        photos: each a sequence of pictures (1, C, H, W) of the same thing, whose sizes are whole multiples of the
            first's; all `large_enough`.
        side: of the squares, in pixels of the first pictures.
        count: how many squares, at most 4096.
        turns: False: they are mirrored, but not turned.

    Returns:
        For each picture of a photo a batch (count, C, side, side) of the same squares.
    """
    check_numbers(1, Integral, most=4096, count=count, side=side)
    areas = torch.tensor([float(photo[0].numel()) for photo in photos])
    rows: list[list[Tensor]] = []
    for index in torch.multinomial(areas, count, replacement=True, generator=generator).tolist():
        height, width = photos[index][0].shape[-2:]
        top, left, turn, mirror = (
            int(torch.randint(n, (), generator=generator)) for n in (height - side + 1, width - side + 1, 4, 2)
        )
        rows.append([])
        for picture in photos[index]:
            times = picture.shape[-1] // width
            part = picture[..., top * times : (top + side) * times, left * times : (left + side) * times]
            part = part.rot90(turn if turns else 0, (2, 3))
            rows[-1].append(part.flip(3) if mirror else part)
    return [torch.cat(batch) for batch in zip(*rows, strict=True)]


def shifted(side: int, shift: int, generator: Generator) -> tuple[Any, slice, slice]:
    """A random square of ``side`` pixels in one that is larger by ``shift``, as an index."""
    top, left = torch.randint(shift + 1, (2,), generator=generator).tolist()
    return ..., slice(top, top + side), slice(left, left + side)
