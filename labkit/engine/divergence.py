"""Has a run diverged? Asked after every step, and answered without making the device wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class Watch:
    """Watches a run for losses and parameters that are not finite, and goes back to the last whose loss was finite.

    Call `before_step` and `after_step` around every step that changes ``parameters`` in place.
    """

    def __init__(self, parameters: Sequence[Tensor]):
        self.parameters = parameters
        self.late = parameters[0].device.type != "cpu"  # reading a number waits for the device
        self.unread: deque[tuple[int, Tensor, list[Tensor], Callable[[], list[bool]]]] = deque()
        self.before_step()
        self.good = self.before

    def before_step(self) -> None:
        """Keep the parameters as they are."""
        self.before = [parameter.detach().clone() for parameter in self.parameters]

    def after_step(self, number: int, loss: Tensor, last: bool) -> tuple[int, Tensor] | None:
        """The number and loss of the step that diverged, if one has; the parameters are back at the last good ones.

        A GPU is asked about the step before, so that it never runs dry, unless this step is the ``last``.
        """
        finite = torch.stack([parameter.isfinite().all() for parameter in self.parameters]).all()
        flags = on_its_way(torch.stack([loss.isfinite().all(), finite]))
        self.unread.append((number, loss, self.before, flags))
        while len(self.unread) > (self.late and not last):
            number, loss, before, flags = self.unread.popleft()
            loss_is_finite, parameters_are_finite = flags()
            if loss_is_finite:
                self.good = before
            if not (loss_is_finite and parameters_are_finite):
                for parameter, saved in zip(self.parameters, self.good, strict=True):
                    parameter.data.copy_(saved)
                return number, loss
        return None


def on_its_way(flags: Tensor) -> Callable[[], list[bool]]:
    """Flags on their way to the host: what is returned waits for them, but not for what the device is told later."""
    if flags.device.type != "cuda":
        return flags.tolist
    arriving = torch.empty_like(flags, device="cpu", pin_memory=True).copy_(flags, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record(torch.cuda.current_stream(flags.device))
    return lambda: arrived.synchronize() or arriving.tolist()
