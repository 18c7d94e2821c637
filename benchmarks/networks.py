"""The networks that are measured: with random weights where the true ones are not here, which take the same time."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

import labkit as lk
from labkit.networks import zoo as backbones


def shared_network(name: str) -> nn.Module:
    """torchvision's ``name``, a VGG: ImageNet weights if LABKIT_WEIGHTS has them, else random ones of a fixed seed."""
    from torchvision import models as zoo

    try:
        net = backbones._torchvision(name) if os.environ.get("LABKIT_WEIGHTS") else None
    except (FileNotFoundError, ValueError):
        net = None
    if net is None:
        torch.manual_seed(0)
        with torch.device("meta"):
            net = zoo.get_model(name, weights=None)
            net.classifier = nn.Linear(512 * 49, 10)  # nobody reads it, and the true one has 120 million weights
        net.to_empty(device="cpu")
        for module in net.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)
    return net.eval()


@contextmanager
def in_every_program(net: nn.Module) -> Iterator[None]:
    """Whoever asks torchvision, or the lab, for a VGG gets a copy of ``net``."""
    from torchvision import models as zoo

    def given(*arguments: Any, **options: Any) -> nn.Module:
        return copy.deepcopy(net)

    kept = zoo.vgg19, zoo.vgg16, backbones._torchvision
    zoo.vgg19 = zoo.vgg16 = backbones._torchvision = given
    try:
        yield
    finally:
        zoo.vgg19, zoo.vgg16, backbones._torchvision = kept


def measured_network(name: str, device: str | None) -> lk.Backbone:
    """The lab's network ``name``; a VGG with `shared_network`'s weights."""
    if not name.startswith("vgg"):
        return lk.load_backbone(name, device)
    with in_every_program(shared_network(name)):
        return lk.load_backbone(name, device)
