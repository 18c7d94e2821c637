"""The lab's own forms of PyTorch's operations agree with them, on the CPU and, written otherwise, on other devices."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from elsewhere import ELSEWHERE, Device
from torch import Tensor, nn

from labkit.base.deterministic import Conv2d, enlarged, padded, sampled, shrunk


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


MAPS, GRID = noise(2, 3, 7, 10), 1.5 * noise(2, 5, 6, 2, seed=1)  # a grid that reaches beyond the borders, twice


def like(mode: str) -> tuple[nn.Module, nn.Module]:
    ours, theirs = (
        Conv2d(3, 4, (3, 5), 2, (1, 2), padding_mode=mode),
        nn.Conv2d(3, 4, (3, 5), 2, (1, 2), padding_mode=mode),
    )
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


CASES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "sampled": (
        lambda x: sampled(x, GRID.to(x.device)),
        lambda x: F.grid_sample(x, GRID, "bilinear", "reflection", align_corners=False),
    ),
    "enlarged": (lambda x: enlarged(x, (13, 20)), lambda x: F.interpolate(x, (13, 20), mode="bilinear")),
    "not enlarged": (lambda x: enlarged(x, (7, 10)), lambda x: x),
    "shrunk": (lambda x: enlarged(x, (3, 4)), lambda x: F.interpolate(x, (3, 4), mode="bilinear")),
    "averaged": (lambda x: shrunk(x, (3, 4)), lambda x: F.interpolate(x, (3, 4), mode="bilinear", antialias=True)),
    "zeros": (lambda x: padded(x, (2, 3), "zeros"), lambda x: F.pad(x, (3, 3, 2, 2))),
    "reflect": (lambda x: padded(x, (2, 3), "reflect"), lambda x: F.pad(x, (3, 3, 2, 2), "reflect")),
    "replicate": (lambda x: padded(x, (9, 1), "replicate"), lambda x: F.pad(x, (1, 1, 9, 9), "replicate")),
    "none": (lambda x: padded(x, (0, 0), "reflect"), lambda x: x),
    "in one direction": (lambda x: padded(x, (0, 2), "replicate"), lambda x: F.pad(x, (2, 2, 0, 0), "replicate")),
}


def answers(operation: Callable[[Tensor], Tensor], maps: Tensor) -> tuple[Tensor, Tensor]:
    """The result, and the gradient of a sum in which each number counts otherwise."""
    maps = maps.clone().requires_grad_()
    found = operation(maps)
    weights = noise(*found.shape, seed=2).to(found.device)
    return found.detach().cpu(), torch.autograd.grad((weights * found).sum(), maps)[0].cpu()


@pytest.mark.parametrize("apple", [None, False, True], ids=["here", "GPU", "Apple's GPU"])
@pytest.mark.parametrize("case", CASES)
def test_it_is_pytorchs_operation(case: str, apple: bool | None) -> None:
    ours, theirs = CASES[case]
    wanted = answers(theirs, MAPS)
    if apple is None:
        found = answers(ours, MAPS)
    else:
        with Device(apple):
            found = answers(ours, MAPS.to(ELSEWHERE))
    for mine, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate"])
def test_a_convolution_has_the_border_that_pytorchs_has(mode: str, there: bool) -> None:
    ours, theirs = (net.requires_grad_(False) for net in like(mode))
    wanted = answers(theirs, MAPS)
    if there:
        with Device():
            found = answers(ours.to(ELSEWHERE), MAPS.to(ELSEWHERE))
    else:
        found = answers(ours, MAPS)
    for mine, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", ["sampled", "enlarged", "shrunk", "averaged", "reflect", "replicate"])
def test_no_other_device_is_asked_for_a_gradient_that_does_not_repeat_itself(case: str) -> None:
    atomic = ("grid_sampler_2d_backward", "upsample_bilinear2d", "reflection_pad2d", "replication_pad2d")
    with Device() as device:
        answers(CASES[case][0], MAPS.to(ELSEWHERE))
    assert device.ran and not any(name in ran for ran in device.ran for name in atomic)
