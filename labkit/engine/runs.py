"""A run in stages, from small pictures to large ones, which can be stopped and gone on with."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from numbers import Integral
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from ..base.checks import MOST_STEPS, check_numbers
from ..pictures.geometry import Size

State: TypeAlias = dict[str, Any]
Saved: TypeAlias = State | str | Path | None  # what `resume` takes


@dataclass(frozen=True)
class Stage:
    """One stretch of a ``run``: ``steps`` at one ``size`` (height, width), after ``steps_before`` in earlier stages.

    ``state``: what to go on from, if the run was saved in this stage.
    """

    run: Run
    number: int
    size: Size
    steps: int
    steps_before: int
    state: State | None


@dataclass
class Run:
    """The stages of a run.

    Args:
        sizes: (height, width) of each stage, small to large.
        steps: in each stage, at most a million.
        resume: what `Progress.state_dict` returned or `Progress.save` wrote.
        identity: what must be as it was then, by name, asked for when a run is saved or resumed.
        home: the device of its pictures.

    Raises:
        ValueError: for a file without a saved run, and, naming what differs, for a saved run of another identity.
    """

    sizes: Sequence[Size]
    steps: Sequence[int]
    resume: Saved = None
    identity: Callable[[], Mapping[str, Any]] = dict
    home: torch.device = field(default_factory=lambda: torch.device("cpu"))
    state: State | None = field(init=False)
    started: float = field(init=False)

    def __post_init__(self) -> None:
        for steps in self.steps:
            check_numbers(0, Integral, most=MOST_STEPS, steps=steps)
        self.state = restored(self.resume)
        if self.state is not None and (changed := differences(self.state.get("identity", {}), self.identity())):
            raise ValueError(f"the saved run was another one: {changed}; go on with the same, or start anew")

    def __iter__(self) -> Iterator[Stage]:
        """The stages that are left, from the one that was saved on."""
        self.started = time.perf_counter()
        saved = self.state["stage"] if self.state else 0
        for number in range(saved, len(self.sizes)):
            state = self.state if number == saved else None
            yield Stage(self, number, self.sizes[number], self.steps[number], sum(self.steps[:number]), state)


def single_stage(size: Size, steps: int, **options: Any) -> Stage:
    """The only stage of a run at one size. For the options see `Run`."""
    (stage,) = Run([size], [steps], **options)
    return stage


def restored(resume: Saved) -> State | None:
    """A saved state, from a dictionary or from a file that `Progress.save` wrote."""
    if resume is None or isinstance(resume, Mapping):
        return resume
    try:
        state = torch.load(resume, map_location="cpu", weights_only=True)
        return {"stage": state["stage"], **state}
    except OSError:
        raise
    except Exception as error:  # whatever zip, pickle or the wrong content say
        raise ValueError(f"{resume} holds no saved run: name another file, or delete it to start anew") from error


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """In words, what was saved otherwise than it is now; empty if nothing was."""
    changed = [name for name in {**saved, **now} if saved.get(name) != now.get(name)]
    return ", ".join(f"{name} was {saved.get(name)} and is now {now.get(name)}" for name in changed)


def digest(thing: Tensor | nn.Module) -> str:
    """A short name for the values of a tensor or of all the weights of a network: others have another."""
    tensors = [thing] if isinstance(thing, Tensor) else [*thing.parameters(), *thing.buffers()]
    hashed = blake2b(digest_size=6)
    for tensor in tensors:
        hashed.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return hashed.hexdigest()
