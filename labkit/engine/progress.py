"""What a long computation yields, and how it is run to its end."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec

import torch
from torch import Tensor

from ..base.bars import shows_bar
from ..base.files import written_whole
from ..base.memory import release_memory
from ..pictures.geometry import resize
from .evaluator import Evaluation
from .runs import Stage, State

P = ParamSpec("P")


class Resumable:
    """What a long computation yields: where it stands, and a ``snapshot`` of all that is needed to go on from there."""

    snapshot: Callable[[], State]

    def state_dict(self) -> State:
        """Everything needed to go on from here: pass it, or a file that `save` wrote, as ``resume``."""
        return self.snapshot()

    def save(self, path: str | Path) -> None:
        """Write the state to a file, whole or not at all."""
        with written_whole(path) as temporary:
            torch.save(self.state_dict(), temporary)


@dataclass
class Progress(Resumable):
    """Where a computation stands after a step: what `dreaming` and `stylizing` yield.

    ``step`` of ``of``, counted over all stages; ``stage`` of ``stages`` (octaves or scales); ``elapsed`` in seconds;
    ``plan``: how this stage's picture is cut into tiles, if it is; ``display_transform``: from the pixels to what is
    shown. `picture`, `terms` and `loss` are read when asked for, so that a step costs no copy from the device.
    """

    step: int
    of: int
    stage: int
    stages: int
    elapsed: float
    evaluation: Evaluation = field(repr=False)
    pixels: Tensor = field(repr=False)
    snapshot: Callable[[], State] = field(repr=False)
    current: Stage = field(repr=False)
    plan: str = field(default="", repr=False)
    display_transform: Callable[[Tensor], Tensor] | None = field(default=None, repr=False)

    @property
    def picture(self) -> Tensor:
        """The picture so far: a copy (N, 3, H, W) in [0, 1], on the CPU."""
        pixels = self.pixels.detach().clamp(0, 1)
        return (self.display_transform(pixels) if self.display_transform else pixels).cpu()

    @property
    def terms(self) -> dict[str, float]:
        """The terms of the loss before this step, weighted, averaged over the batch."""
        return {name: term.mean().item() for name, term in self.evaluation.terms.items()}

    @property
    def loss(self) -> float:
        """The loss before this step, averaged over the batch."""
        return self.evaluation.loss.mean().item()


def finish(run: Iterable[Progress]) -> Tensor:
    """Run a generator of progress to its end and return the picture (N, 3, H, W), on the device of the run's pictures.

    An interrupt (Ctrl-C, or the stop button) ends it early and returns the picture so far, in the final size.
    """
    latest: Progress | None = None
    try:
        for step in run:
            latest = step
    except KeyboardInterrupt:
        if latest is None:
            raise
    if latest is None:
        raise ValueError("the run has no steps left to take")
    whole = latest.current.run
    picture = resize(latest.picture, whole.sizes[-1]).to(whole.home)
    release_memory()
    return picture


def finished(run: Callable[P, Iterator[Progress]], doc: str) -> Callable[P, Tensor]:
    """A function with the arguments of ``run`` that takes it to its end, with a progress bar unless told otherwise."""

    @functools.wraps(run)
    def to_the_end(*args: P.args, **options: P.kwargs) -> Tensor:
        if options.get("progress") is None:
            options["progress"] = True
        return finish(run(*args, **options))

    vars(to_the_end)["__signature__"] = inspect.signature(run).replace(return_annotation=Tensor)
    to_the_end.__doc__ = doc + "\n" + (inspect.getdoc(run) or "").partition("\n")[2]
    return to_the_end


def with_bar(run: Iterator[Progress], progress: bool | None) -> Iterator[Progress]:
    """The same progress, with a bar if asked for. Above it stands how large pictures are cut into tiles."""
    if not shows_bar(progress):
        yield from run
        return
    from tqdm.auto import tqdm

    plan = ""
    with tqdm(leave=False, unit="step") as bar:
        for latest in run:
            if latest.plan != plan:
                bar.write(plan := latest.plan, file=bar.fp)
            bar.total = latest.of
            bar.update(latest.step - bar.n)
            yield latest
