"""What a long computation yields, how it is finished, saved and gone on with."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..base.files import written_whole
from ..base.memory import release_memory
from .evaluator import Evaluation


class Resumable:
    """What a long computation yields: where it stands, and a ``snapshot`` of all that is needed to go on from there."""

    snapshot: Callable[[], dict[str, Any]]

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on from here: pass it, or a file that `save` wrote, as ``resume``."""
        return self.snapshot()

    def save(self, path: str | Path) -> None:
        """Write the state to a file, whole or not at all."""
        import torch

        with written_whole(path) as temporary:
            torch.save(self.state_dict(), temporary)


State = dict[str, Any]


@dataclass
class Progress(Resumable):
    """Where a computation stands after a step: what `dreaming` and `stylizing` yield.

    ``step`` of ``of``, counted over all stages; ``stage`` of ``stages`` (octaves or scales); ``elapsed`` in seconds;
    ``plan`` says how this stage's picture is cut into tiles, if it is.
    `picture`, `terms` and `loss` are read when asked for, so that a step costs no copy from the device; ``develop``
    makes the picture to show from the pixels.
    """

    step: int
    of: int
    stage: int
    stages: int
    elapsed: float
    evaluation: Evaluation = field(repr=False)
    pixels: Tensor = field(repr=False)
    snapshot: Callable[[], State] = field(repr=False)
    plan: str = field(default="", repr=False)
    develop: Callable[[Tensor], Tensor] | None = field(default=None, repr=False)

    @property
    def picture(self) -> Tensor:
        """The picture so far: a copy (N, 3, H, W) in [0, 1], on the CPU."""
        pixels = self.pixels.detach().clamp(0, 1)
        return (self.develop(pixels) if self.develop else pixels).cpu()

    @property
    def terms(self) -> dict[str, float]:
        """The terms of the loss before this step, weighted, averaged over the batch."""
        return {name: term.mean().item() for name, term in self.evaluation.terms.items()}

    @property
    def loss(self) -> float:
        """The loss before this step, averaged over the batch."""
        return self.evaluation.loss.mean().item()


def restored(resume: State | str | Path | None) -> State | None:
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


def finish(run: Iterable[Progress], progress: bool = True) -> Tensor:
    """Run a generator of progress to its end, with a progress bar, and return the picture.

    An interrupt (Ctrl-C, or the stop button) ends it early and returns the picture so far. Above the bar stands how
    large pictures are cut into tiles, and how much memory they take.
    """
    from tqdm.auto import tqdm

    latest: Progress | None = None
    plan = ""
    quiet = not progress or bool(os.environ.get("TQDM_DISABLE"))  # tqdm's notebook bar forgets its own variable
    with tqdm(leave=False, unit="step", disable=quiet) as bar:
        try:
            for latest in run:
                if latest.plan != plan and not quiet:
                    bar.write(plan := latest.plan, file=bar.fp)
                bar.total = latest.of
                bar.update(latest.step - bar.n)
        except KeyboardInterrupt:
            if latest is None:
                raise
    if latest is None:
        raise ValueError("the run has no steps left to take")
    picture = latest.picture
    release_memory()
    return picture
