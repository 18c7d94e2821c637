"""What a network sees."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...networks.wrapping import wrap
from ...networks.zoo import load_backbone
from ...pictures.reading import photo
from ..exercises import Exercise, is_picture, same_as


def cats_after_changes(probabilities: Any) -> bool:
    """Whether they are an Egyptian cat's after exchanging red and blue, turning upside down, and mirroring."""
    if not isinstance(probabilities, Sequence | Tensor) or isinstance(probabilities, str) or len(probabilities) != 3:
        return False
    network, cat = load_backbone("pocket", "cpu"), photo("chelsea", 192)
    wanted = [dict(network.classify(cat.flip(axis), top=1000)[0])["Egyptian cat"] for axis in (1, 2, 3)]
    return all(abs(float(got) - p) < 0.01 for got, p in zip(probabilities, wanted, strict=True))


def side_seen(kernels: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> int:
    """The side of the square that a unit at the end of a chain of layers sees."""
    r, j = 1, 1
    for k, s, d in zip(kernels, strides, dilations, strict=True):
        r, j = r + (k - 1) * d * j, j * s
    return r


def from_caffe(x: Tensor) -> Tensor:
    """The picture, red, green, blue in [0, 1], of a tensor blue, green, red in [0, 255] less the means."""
    return (x + torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1)).flip(1) / 255


def gains_most_from_zeros(channel: Any) -> bool:
    """Whether it is the channel of relu3_3 whose peak on the coffee falls most when a mirror image is around."""
    if not isinstance(channel, Integral) or isinstance(channel, bool):
        return False
    network, coffee, layer = load_backbone("pocket", "cpu"), photo("coffee", 288), "relu3_3"
    mirror = network.features(F.pad(coffee, [96] * 4, mode="reflect"), [layer])[layer][..., 24:-24, 24:-24]
    zeros = network.features(coffee, [layer])[layer]
    return int(channel) == (zeros - mirror.amax((2, 3), keepdim=True)).amax((0, 2, 3)).argmax().item()


def sees_31_pixels(module: Any) -> bool:
    """Whether a unit of a small module's last layer sees a square of 31 pixels."""
    if not isinstance(module, nn.Sequential) or sum(p.numel() for p in module.parameters()) > 5000:
        return False
    network = wrap(module)
    return network.receptive_field(network.names[-1]).size == 31


def pleases_both(picture: Any) -> bool:
    """Whether two channels of conv5_3 have a high mean in a picture in [0, 1]."""
    if not is_picture(picture) or min(picture.shape[2:]) < 128:
        return False
    with torch.no_grad():
        means = load_backbone("pocket", "cpu").features(picture.cpu(), ["conv5_3"])["conv5_3"].mean((0, 2, 3))
    return min(means[364].item(), means[150].item()) > 4


CHAINS = (
    ([3], [1], [1]),
    ([3, 2, 3], [1, 2, 1], [1, 1, 2]),
    ([7, 2, 5], [2, 2, 1], [1, 1, 4]),
    ([3] * 4, [2] * 4, [2] * 4),
)
CAFFE = torch.linspace(-100, 120, 96).view(2, 3, 4, 4)

EXERCISES = [
    Exercise(
        cats_after_changes,
        "classify the cat of 192 pixels after each change, with top=1000, and read off Egyptian cat; a, b, c.",
    ),
    Exercise(
        same_as(side_seen, *CHAINS),
        "which step separates neighbors before a layer, and which one after it? How far apart are a kernel's first and "
        "last input?",
    ),
    Exercise(
        gains_most_from_zeros,
        "take each channel's highest answer over the whole map, once with zeros and once with the mirror image; "
        "how many units are 96 pixels?",
    ),
    Exercise(sees_31_pixels, "follow r and j through your modules by the recursion, and count the weights."),
    Exercise(
        same_as(from_caffe, (CAFFE,)), "undo one thing after the other, the last first; whose order do the means have?"
    ),
    Exercise(pleases_both, "add the two losses, as formulas are added, and give the optimization enough steps."),
]
