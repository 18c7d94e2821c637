"""Has a run diverged? Asked after every step, and answered without making the device wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Step(NamedTuple):
    """A step whose verdict may still be on its way: its number, its loss, the parameters before it."""

    number: int
    loss: Tensor
    before: list[Tensor]
    verdict: Callable[[], list[bool]]


class Watch:
    """Watches a run for losses and parameters that are not finite, and goes back to the last whose loss was finite.

    Call `before_step` and `after_step` around every step that changes ``parameters`` in place.
    """

    def __init__(self, parameters: Sequence[Tensor]):
        self.parameters = parameters
        self.good = self.before = self._copies()
        self.unread: deque[Step] = deque()
        self.late = parameters[0].device.type != "cpu"  # reading a number waits for the device

    def before_step(self) -> None:
        self.before = self._copies()

    def after_step(self, number: int, loss: Tensor, last: bool) -> Step | None:
        """The step that diverged, if one has: the parameters are back at the last ones whose loss was finite.

        A GPU is asked about the step before, so that it never runs dry, unless this step is the ``last``.
        """
        whole = torch.stack([parameter.isfinite().all() for parameter in self.parameters]).all()
        verdict = on_its_way(torch.stack([loss.isfinite().all(), whole]))
        self.unread.append(Step(number, loss, self.before, verdict))
        while len(self.unread) > (self.late and not last):
            step = self.unread.popleft()
            loss_is_finite, parameters_are_finite = step.verdict()
            if loss_is_finite:
                self.good = step.before
            if not (loss_is_finite and parameters_are_finite):
                for parameter, saved in zip(self.parameters, self.good, strict=True):
                    parameter.data.copy_(saved)
                return step
        return None

    def _copies(self) -> list[Tensor]:
        return [parameter.detach().clone() for parameter in self.parameters]


def on_its_way(flags: Tensor) -> Callable[[], list[bool]]:
    """Flags on their way to the host: what is returned waits for them, but not for what the device is told later."""
    if flags.device.type != "cuda":
        return flags.tolist
    arriving = torch.empty_like(flags, device="cpu", pin_memory=True).copy_(flags, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record(torch.cuda.current_stream(flags.device))

    def read() -> list[bool]:
        arrived.synchronize()
        return arriving.tolist()

    return read
