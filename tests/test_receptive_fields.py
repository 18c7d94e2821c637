"""Receptive fields are measured: equal to the closed form where there is one, exact in tiles, refused where none is."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from test_tiles import relative_error
from test_wrapping import made, wrapped
from test_zoo import NETWORKS, network, noise
from torch import Tensor, nn

import labkit as lk


def steps(module: nn.Module) -> Iterator[nn.Module]:
    """The convolutions and pools that a unit sees furthest through, in turn."""
    kind = type(module).__name__
    if isinstance(module, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)):
        yield module
    elif kind == "Inception":
        reach = {branch: sum(side(step.kernel_size) - 1 for step in steps(branch)) for branch in module.children()}
        yield from steps(max(reach, key=reach.get))
    elif kind == "Fire":
        yield from (module.squeeze, module.expand3x3)
    elif kind in ("Bottleneck", "BasicBlock"):
        yield from (child for name, child in module.named_children() if name.startswith("conv"))
    else:
        for child in module.children():
            yield from steps(child)


def side(value: int | tuple[int, int]) -> int:
    return value if isinstance(value, int) else value[0]


def closed_form(*modules: nn.Module) -> lk.ReceptiveField:
    """r += (k - 1) j, start -= p j, j *= s (Araujo et al. 2019)."""
    r, j, start = 1, 1, 0
    for step in (step for module in modules for step in steps(module)):
        r, start = r + (side(step.kernel_size) - 1) * j, start - side(step.padding) * j
        j *= side(step.stride)
    return lk.ReceptiveField(r, j, start)


@pytest.mark.parametrize("name", NETWORKS)
def test_measured_is_the_closed_form(name: str) -> None:
    net = network(name)
    for count, layer in enumerate(net.names, 1):
        if count % 3 == 1 or count == len(net.names):
            assert net.receptive_field(layer) == closed_form(*net.stages[:count]), layer


def test_resnet18_is_the_closed_form() -> None:
    net = wrapped("resnet18")
    blocks = [net.model.conv1, net.model.maxpool]
    for number in range(1, 5):
        blocks.append(getattr(net.model, f"layer{number}"))
        assert net.receptive_field(f"layer{number}") == closed_form(*blocks)
    assert net.receptive_field("layer2.0.downsample") == lk.ReceptiveField(43, 8, -21)


STRANGE = {
    "even kernels": (lambda: nn.Conv2d(3, 4, 4, 2), (4, 2, 0)),
    "a border on one side": (lambda: nn.Sequential(nn.ZeroPad2d((2, 0, 2, 0)), nn.Conv2d(3, 4, 3)), (3, 1, -2)),
    "dilation": (lambda: nn.Conv2d(3, 4, 3, dilation=3, padding=3), (7, 1, -3)),
    "wide": (lambda: nn.Conv2d(3, 4, (1, 7), padding=(0, 3)), (7, 1, -3)),
    "ceil": (lambda: nn.MaxPool2d(3, 2, ceil_mode=True), (3, 2, 0)),
    "same": (lambda: nn.Conv2d(3, 4, 5, padding="same", padding_mode="reflect"), (5, 1, -2)),
    "thrice": (lambda: nn.Sequential(nn.Conv2d(3, 4, 5, 3, 1), nn.Conv2d(4, 4, 3, 4, 1)), (11, 12, -4)),
    "groups": (lambda: nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), nn.BatchNorm2d(6), nn.GELU()), (3, 1, 0)),
    "a head of its own": (lambda: nn.Sequential(nn.Conv2d(3, 4, 1, padding=1), nn.Conv2d(4, 4, 3)), (3, 1, -1)),
}


def stages(*modules: nn.Module) -> lk.Backbone:
    named = OrderedDict((f"stage{number}", module) for number, module in enumerate(modules, 1))
    return lk.Backbone("strange", named, nn.Identity())


@pytest.mark.parametrize("name", STRANGE)
def test_strange_layers(name: str) -> None:
    make, expected = STRANGE[name]
    assert stages(made(make)).receptive_field("stage1") == lk.ReceptiveField(*expected)


def test_a_stage_of_its_own_kind_is_looked_through() -> None:
    """Modules that the lab cannot know, with convolutions called as functions."""

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(0.1 * torch.randn(3, 3, 5, 5))

        def forward(self, x: Tensor) -> Tensor:
            shifted = x + torch.roll(F.pad(x, (0, 2, 0, 2)), (2, 2), (2, 3))[..., 2:, 2:]  # which is x
            return F.conv2d(shifted, self.weight, padding=2).clamp_min(0) + F.avg_pool2d(x, 3, 1, 1)

    net = stages(made(Mixed), made(Mixed))
    assert net.receptive_field("stage2") == lk.ReceptiveField(9, 1, -4)
    assert_tiles_are_exact(net, "stage2")


class Squeeze(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x.mean((2, 3), keepdim=True).sigmoid()


class Drops(nn.Module):
    """NaN gets lost on its way through the second convolution, numbers do not."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) + self.second(torch.where(x > -100, x, 0))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (Squeeze, "a unit of stage1 sees the whole picture"),
        (lambda: nn.GroupNorm(1, 3), "a unit of stage1 sees the whole picture"),
        (lambda: nn.AdaptiveAvgPool2d(4), "its map grows by 0 rows with 16384 more of the picture"),
        (lambda: nn.Upsample(scale_factor=2), "its map grows by 32768 rows"),
        (lambda: nn.Sequential(nn.MaxPool2d(4), nn.Upsample(scale_factor=4)), "units do not see the same pixels"),
        (
            lambda: nn.Sequential(nn.PixelUnshuffle(4), nn.Conv2d(48, 3, 1)),
            "pixel_unshuffle expects height to be divis",
        ),
        # PyTorch before 2.15 stops earlier, as the pool leaves too few columns for the convolution.
        (lambda: nn.MaxPool2d((2, 3)), "(units do not see the same pixels|Calculated padded input size)"),
        (Drops, "it changes with pixels beyond those that were found to matter"),
    ],
)
def test_what_has_none_is_refused_in_one_line(make: object, reason: str) -> None:
    net = stages(made(make), made(lambda: nn.Conv2d(3, 3, 3)))
    for _ in range(2):  # measured, and remembered
        with pytest.raises(
            ValueError, match=f"stage2 of strange has no receptive field.*cut into tiles.*{reason}"
        ) as caught:
            net.receptive_field("stage2")
        assert "\n" not in str(caught.value)
    loss = -lk.activation("stage2")
    with pytest.raises(ValueError, match="cannot be cut into tiles"):
        lk.Evaluator(net, loss, (96, 96), "float32", tile=64)(noise(96, 96))
    assert lk.Evaluator(net, loss, (96, 96), "float32", tile=None)(noise(96, 96)).gradient.any()


def test_nothing_is_left_of_the_measuring() -> None:
    net = wrapped("small")
    before, field = net.logits(noise(64, 64)), net.receptive_field("deep")
    net.answers.clear()
    assert net.receptive_field("deep") == field
    assert torch.equal(net.logits(noise(64, 64)), before)


# --- tiles -----------------------------------------------------------------------------------------------------------


def assert_tiles_are_exact(net: lk.Backbone, *layers: str, size: tuple[int, int] = (149, 203)) -> None:
    picture = lk.photo("chelsea", size)
    loss = sum(-lk.activation(layer, relative=True) for layer in layers)
    whole, cut = (lk.Evaluator(net, loss, size, "float32", tile=tile)(picture) for tile in (None, 64))
    assert relative_error(cut.gradient, whole.gradient) < 1e-5
    torch.testing.assert_close(cut.loss, whole.loss, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layers", [["layer1"], ["layer2"], ["layer3"], ["layer1.0.bn1", "layer2.0.downsample"]])
def test_tiles_are_exact_on_resnet18(layers: list[str]) -> None:
    assert_tiles_are_exact(wrapped("resnet18"), *layers)


@pytest.mark.parametrize("name", ["small", "timm", "chain"])
def test_tiles_are_exact_on_other_networks(name: str) -> None:
    assert_tiles_are_exact(wrapped(name), *wrapped(name).names)


def test_tiles_of_layers_whose_steps_do_not_divide_each_other() -> None:
    net = made(lambda: nn.ModuleList([nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(3, 4, 3, 3, 1)]))

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.two, self.three = net

        def forward(self, x: Tensor) -> Tensor:
            return self.two(x).mean((2, 3)) + self.three(x).mean((2, 3))

    assert_tiles_are_exact(lk.wrap(Two()), "two", "three")


def test_a_style_in_a_mask_takes_a_wrapped_network() -> None:
    loss = lk.style(lk.painting("koi_mosaic", 64), ["relu", "layer1"], mask="center")
    assert lk.Evaluator(wrapped("resnet18"), loss, (64, 64), "float32")(noise(64, 64)).gradient.any()
