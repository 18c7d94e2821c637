"""Redirected ReLUs: a gradient where all of it would be blocked, and the usual one everywhere else."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import labkit as lk
from labkit.networks.recommended import Recommended
from labkit.networks.redirected_relu import RedirectedReLU


class Functional(nn.Module):
    """A ReLU that is a call, as in torchvision's GoogLeNet."""

    def __init__(self, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


RELUS = {
    "module": nn.ReLU(),
    "in place": Functional(lambda x: F.relu(x, inplace=True)),
    "functional": Functional(F.relu),
    "torch": Functional(torch.relu),
    "method": Functional(lambda x: x.relu()),
}


def silent(relu: nn.Module) -> lk.Backbone:
    """A network whose one channel is the red of a picture minus 0.9: silent on gray."""
    convolution = nn.Conv2d(3, 1, 1)
    convolution.weight.data = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    convolution.bias.data.fill_(-0.9)
    stages = OrderedDict(conv=convolution, relu=relu)
    recommended = Recommended({"relu": 1.0}, ("relu",), {"relu": 1.0})
    return lk.Backbone("silent", stages, nn.Identity(), recommended, mean=(0.0,) * 3, std=(1.0,) * 3)


def slope(backbone: lk.Backbone, picture: Tensor, loss: lk.Loss) -> Tensor:
    return lk.Evaluator(backbone, loss, picture.shape[-2:], "float32")(picture).gradient


@pytest.mark.parametrize("relu", RELUS.values(), ids=RELUS)
def test_a_silent_channel_gets_a_gradient(relu: nn.Module) -> None:
    backbone, gray, rise = silent(relu), torch.full((1, 3, 4, 5), 0.5), -lk.activation("relu", channel=0, power=1)
    assert not slope(backbone, gray, rise).any()
    found = slope(backbone.redirected(), gray, rise)
    torch.testing.assert_close(found[:, 0], torch.full((1, 4, 5), -1 / 20))
    assert not found[:, 1:].any()


def test_what_would_lower_a_silent_channel_stays_blocked() -> None:
    backbone, gray = silent(nn.ReLU()).redirected(), torch.full((1, 3, 4, 5), 0.5)
    assert not slope(backbone, gray, lk.activation("relu", channel=0, power=1)).any()


def test_only_a_picture_whose_whole_gradient_is_blocked_is_redirected() -> None:
    pictures = torch.full((2, 3, 4, 5), 0.5)
    pictures[1, 0, 2, 2] = 1.0
    found = slope(silent(nn.ReLU()).redirected(), pictures, -lk.activation("relu", channel=0, power=1))
    assert (found[0, 0] != 0).all()
    assert found[1].nonzero().tolist() == [[0, 2, 2]]


def test_where_the_gradient_passes_nothing_changes() -> None:
    backbone, photo = lk.load_backbone("pocket", "cpu"), lk.photo("chelsea", 48)
    loss = -lk.activation("relu3_3") - lk.activation("relu2_1", power=1)
    assert torch.equal(slope(backbone.redirected(), photo, loss), slope(backbone, photo, loss))
    assert not backbone.redirects
    assert torch.equal(backbone.redirected().logits(photo), backbone.logits(photo))


def test_the_setting_survives_a_change_of_precision() -> None:
    backbone, gray = silent(nn.ReLU()).redirected(), torch.full((1, 3, 4, 5), 0.5)
    evaluator = lk.Evaluator(backbone, -lk.activation("relu", channel=0, power=1), (4, 5), "bfloat16")
    assert evaluator(gray).gradient.any()


def test_a_relu_in_place_takes_place_even_if_its_answer_is_not_looked_at() -> None:
    def statement(x: Tensor) -> Tensor:
        F.relu_(x)
        return x

    backbone, gray, rise = silent(Functional(statement)), torch.full((1, 3, 4, 5), 0.5), -lk.activation("relu", power=1)
    assert not backbone.redirected().features(gray, ["relu"])["relu"].any()
    torch.testing.assert_close(slope(backbone.redirected(), gray, rise)[:, 0], torch.full((1, 4, 5), -1 / 20))


def test_creation_leaves_a_network_as_it_was() -> None:
    """One that overwrites what was asked for: the layer is copied before, in the mode and after it."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3)]
    wrapped, photo = lk.wrap(nn.Sequential(*layers), layers=["0", "1", "2"]), lk.photo("chelsea", 32)
    loss = lk.activation("0", power=1) + lk.activation("2", power=1)
    lk.create(loss, backbone=wrapped, size=16, steps=1, device="cpu", progress=False)
    fresh = lk.wrap(nn.Sequential(*layers), layers=["0", "1", "2"])
    values = [lk.Evaluator(net, loss, photo.shape[-2:], "float32")(photo).loss for net in (wrapped, fresh)]
    torch.testing.assert_close(*values)
    assert not wrapped.redirects


def test_a_resumed_creation_is_the_whole_one() -> None:
    options = {"backbone": silent(nn.ReLU()), "size": 16, "steps": 8, "parameterization": "pixels", "crops": 2}
    options |= {"crop_share": (0.3, 0.3), "device": "cpu", "precision": "float32"}
    loss, bright = -lk.activation("relu", channel=0, power=1), torch.full((1, 3, 16, 16), 0.5)
    bright[..., :4, :4] = 1
    states, picture = [], bright
    for step in lk.creating(loss, init=bright, **options):
        states, picture = [*states, step.state_dict()], step.picture
    for state in states[:-1]:
        *_, resumed = lk.creating(loss, init=bright, resume=state, **options)
        torch.testing.assert_close(resumed.picture, picture)


def test_creation_starts_a_silent_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"size": 16, "steps": 30, "parameterization": "pixels", "jitter": 0, "zoom": 0, "rotate": 0}
    options |= {"backbone": silent(nn.ReLU()), "device": "cpu", "precision": "float32", "progress": False}
    loss, backbone = -lk.activation("relu", channel=0, power=1), silent(nn.ReLU())
    started = lk.create(loss, **options)
    monkeypatch.setattr(RedirectedReLU, "names", frozenset())
    still = lk.create(loss, **options)
    assert not backbone.features(still, ["relu"])["relu"].any()
    assert backbone.features(started, ["relu"])["relu"].mean() > 0.01


def test_outside_the_mode_a_relu_is_a_relu() -> None:
    x = torch.tensor([[-1.0]], requires_grad=True)
    with RedirectedReLU():
        inside = F.relu(x)
    (redirected,) = torch.autograd.grad(-inside.sum(), x)
    (usual,) = torch.autograd.grad(-F.relu(x).sum(), x)
    assert redirected.item() == -1 and usual.item() == 0
