"""DeepDream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...networks.zoo import load_backbone
from ...pictures.reading import photo
from ..exercises import Exercise, choice, is_picture, same_as

PICTURE = torch.linspace(0, 1, 360).reshape(1, 3, 10, 12)
CUP = (267, 400)  # the height and width of the photo of a cup
COFFEE = slice(80, 110), slice(165, 220)  # well inside the cup
AROUND = [(slice(0, 40), slice(0, 400)), (slice(165, 267), slice(0, 400)), (slice(0, 267), slice(0, 110))]


def rolled_back(gradient_of: Callable[[Tensor], Tensor], picture: Tensor, shift: Sequence[int]) -> Tensor:
    """The gradient of the picture rolled by ``shift`` (down, right), rolled back."""
    down, right = shift
    return gradient_of(picture.roll((down, right), (2, 3))).roll((-down, -right), (2, 3))


def with_places(picture: Tensor) -> Tensor:
    """A stand-in for a network's gradient: of the picture, and different at every place."""
    places = torch.arange(picture[0].numel(), dtype=picture.dtype).reshape(picture.shape[1:])
    return picture * torch.sin(places)


def masks_the_coffee(answer: Any) -> bool:
    """Whether it is a mask of the cup's photo that is open on the coffee and closed around the cup."""
    mask = torch.as_tensor(answer).float()
    if tuple(mask.shape[-2:]) != CUP or mask.numel() != CUP[0] * CUP[1] or mask.min() < 0 or mask.max() > 1:
        return False
    mask = mask.reshape(CUP)
    return bool(mask[COFFEE].mean() > 0.9 and all(mask[place].mean() < 0.02 for place in AROUND))


def dreams_of_channel_7(answer: Any) -> bool:
    """Whether it is the cat with five times the response of channel 7 of relu4_3, and still the cat."""
    cat = photo("chelsea", 160)
    if not is_picture(answer, cat.shape):
        return False
    network = load_backbone("pocket", "cpu")
    both = network.features(torch.cat([cat, answer.detach().cpu()]), ["relu4_3"])["relu4_3"][:, 7]
    before, after = both.square().mean((1, 2))
    return bool(after >= 5 * before and (answer.cpu() - cat).abs().mean() < 0.2)


def dreams_of_something(answer: Any) -> bool:
    """Whether it is (photo, layer, dream): twice the layer's mean square, and pixels changed by less than 0.12."""
    if not isinstance(answer, tuple) or len(answer) != 3:
        return False
    mine, layer, dream = answer
    if not is_picture(mine) or len(mine) != 1 or not is_picture(dream, mine.shape):
        return False
    both = torch.cat([mine, dream.detach()]).cpu()
    before, after = load_backbone("pocket", "cpu").features(both, [layer])[layer].square().mean((1, 2, 3))
    return bool(after >= 2 * before and (both[1] - both[0]).abs().mean() < 0.12)


EXERCISES = [
    Exercise(choice("b"), "Look for the line of plain_dream that divides the gradient."),
    Exercise(choice("b"), "Four poolings come before relu5_1: for which of their grids is 8 a whole number of cells?"),
    Exercise(
        same_as(rolled_back, (with_places, PICTURE, (3, -5)), (with_places, PICTURE, (0, 4))),
        "Roll the picture by the shift, and its gradient by minus the shift, in the same dimensions.",
    ),
    Exercise(
        masks_the_coffee,
        "A mask is (267, 400), with values from 0 to 1; read the middle and the half-axes of the coffee off the photo.",
    ),
    Exercise(
        dreams_of_channel_7,
        "It has the size of the cat's photo. If the channel responds too little, take more steps or octaves.",
    ),
    Exercise(
        dreams_of_something,
        "The answer is (photo, layer, dream), of one size; if the change is too large, take fewer steps or octaves.",
    ),
]
