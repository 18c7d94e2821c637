"""The one loop. Parameterization -> picture -> gradient -> step, as a generator of progress."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Generator, Iterable
from copy import deepcopy
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from ..base.checks import check_choice
from ..base.devices import arithmetic
from ..pictures.geometry import Size
from .divergence import Watch
from .evaluator import Evaluation
from .parameters import Parameterization
from .progress import Progress
from .runs import Stage, State

Optimizer: TypeAlias = Literal["adam", "lbfgs", "ascent"]
LARGE = 3 * 2048**2  # numbers in a picture


def make_optimizer(name: Optimizer, parameters: list[Tensor], learning_rate: float) -> torch.optim.Optimizer:
    """The optimizer ``name``: "adam", "lbfgs" (one evaluation a step), or "ascent", plain gradient steps.

    L-BFGS has its tolerances off: they are meant for losses of order one per parameter, and would stop it unasked. It
    remembers 20 steps, of very large pictures 5, because each takes the memory of two pictures.
    """
    check_choice("optimizer", name, Optimizer)
    if name == "adam":
        return torch.optim.Adam(parameters, learning_rate, betas=(0.9, 0.99))
    if name == "ascent":
        return torch.optim.SGD(parameters, learning_rate)
    history = 20 if sum(parameter.numel() for parameter in parameters) <= LARGE else 5
    return torch.optim.LBFGS(
        parameters, learning_rate, max_iter=1, history_size=history, tolerance_grad=-1, tolerance_change=-1
    )


def resized_moments(state: State, size: Size) -> State:
    """The state of an Adam optimizer carried over to pictures of another size, so that a new scale starts warm.

    The first moment is resized bicubically, the second bilinearly, because it must stay positive.
    """
    warm: State = {}
    for index, moments in state["state"].items():
        first = F.interpolate(moments["exp_avg"], size, mode="bicubic", align_corners=False)
        second = F.interpolate(moments["exp_avg_sq"], size, mode="bilinear", align_corners=False)
        warm[index] = {"step": moments["step"], "exp_avg": first, "exp_avg_sq": second.clamp_min(0)}
    return state | {"state": warm}


class Average:
    """A running mean of iterates, exponential with ``decay``, corrected for its start (0: the last iterate itself).

    Example:
        >>> average = Average(0.9)
        >>> average.update(torch.ones(2))
        >>> average.value.tolist()
        [1.0, 1.0]
    """

    def __init__(self, decay: float):
        if not 0 <= decay < 1:
            raise ValueError(f"the decay of an average lies in [0, 1), not {decay}")
        self.decay, self.weight, self.total = decay, 0.0, torch.zeros(())

    def update(self, picture: Tensor) -> None:
        """Take one more iterate into the mean."""
        if self.decay == 0:
            self.total, self.weight = picture, 1.0
            return
        total = self.total if self.weight else torch.zeros_like(picture)
        self.total = total.lerp_(picture, 1 - self.decay)
        self.weight = self.decay * self.weight + 1 - self.decay

    @property
    def value(self) -> Tensor:
        """The mean of what it was updated with."""
        return self.total / self.weight


def descend(
    stage: Stage,
    parameterization: Parameterization,
    evaluate: Callable[[Tensor], Evaluation],
    optimizer: torch.optim.Optimizer,
    *,
    decay: float = 1.0,
    average: Average | None = None,
    generator: torch.Generator | None = None,
    origin: Tensor | None = None,
    plan: str = "",
    display_transform: Callable[[Tensor], Tensor] | None = None,
) -> Generator[Progress, None, bool]:
    """Minimize what ``evaluate`` computes; yield `Progress` after every step; return whether all went well.

    A loss or picture that is not finite ends the run with a warning that names the step, back at the last picture whose
    loss was finite.

    Args:
        evaluate: from a picture to its loss and gradient; may draw from ``generator``, whose state is saved with the
            rest.
        decay: the size of the last step of the stage relative to the first; between they shrink evenly.
        average: of the iterates, which is what progress shows; None: the last iterate.
        origin: the picture that the stage started from, where it is to be saved with the rest.
        plan: see `Progress`.
        display_transform: makes the picture that progress shows from the pixels, and changes nothing in the run.
    """
    average, run, parameters = average or Average(0), stage.run, parameterization.parameters
    learning_rate = optimizer.param_groups[0]["lr"]
    if saved := stage.state:
        for parameter, value in zip(parameters, saved["parameters"], strict=True):
            if parameter.shape != value.shape:
                raise ValueError("the saved run was of another picture, size or setting: go on with the same, or anew")
            parameter.data.copy_(value)
        if saved["optimizer"]["param_groups"][0].keys() != optimizer.state_dict()["param_groups"][0].keys():
            raise ValueError("the saved run had another optimizer: go on with the same, or anew")
        optimizer.load_state_dict(deepcopy(saved["optimizer"]))  # which it would go on to change
        average.weight = saved["average"]["weight"]
        average.total = saved["average"]["total"].to(parameters[0].device, copy=True)
        if generator is not None:
            generator.set_state(saved["generator"])

    def snapshot(at: int) -> State:
        if at != step:
            gone_on = f"the run has gone on from step {at + 1} to step {step + 1}"
            raise ValueError(f"{gone_on}: save before asking for the next")
        return {
            "identity": dict(run.identity()),
            "stage": stage.number,
            "step": step + 1,
            "parameters": [parameter.detach().clone() for parameter in parameters],
            "optimizer": deepcopy(optimizer.state_dict()),
            "average": {"total": average.total.clone(), "weight": average.weight},
            "generator": None if generator is None else generator.get_state(),
            "origin": origin,
        }

    evaluations: list[Evaluation] = []

    @arithmetic()
    def closure() -> Any:
        evaluations.append(evaluate(parameterization.picture()))
        parameterization.backward(evaluations[-1].gradient)
        return evaluations[-1].loss.sum()

    watch = Watch(parameters)
    for step in range(saved["step"] if saved else 0, stage.steps):
        watch.before_step()
        optimizer.param_groups[0]["lr"] = learning_rate * (1 + (decay - 1) * step / max(1, stage.steps - 1))
        optimizer.step(closure)
        parameterization.project()
        evaluation = evaluations.pop()
        diverged = watch.after_step(step, evaluation.loss, last=step + 1 == stage.steps)
        if diverged:
            average.decay = 0  # what it gathered may be infinite
            number, loss = diverged
            warnings.warn(
                f"diverged at step {stage.steps_before + number + 1} (the loss is {loss.mean():g}): stopped, back at "
                "the last good picture; try a smaller learning rate or precision='float32'",
                stacklevel=2,
            )
        average.update(parameterization.picture())
        steps, stages = (stage.steps_before + step + 1, sum(run.steps)), (stage.number + 1, len(run.sizes))
        elapsed, save = time.perf_counter() - run.started, partial(snapshot, step)
        yield Progress(*steps, *stages, elapsed, evaluation, average.value, save, stage, plan, display_transform)
        if diverged:
            return False
    return True


def pyramid(size: Size, factors: Iterable[float], least: int) -> list[Size]:
    """``size`` (height, width) times each factor, but none with a side below ``least``; ``size`` if none is left.

    Example:
        >>> pyramid((100, 200), [0.25, 0.5, 1], least=32)
        [(50, 100), (100, 200)]
    """
    sizes = [(round(size[0] * factor), round(size[1] * factor)) for factor in factors]
    return [s for s in sizes if min(s) >= least] or [size]
