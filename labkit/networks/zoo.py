"""Where trained networks come from. `load_backbone("pocket")` needs no download."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base.devices import pick_device
from ..base.files import bundled
from .backbone import Backbone
from .recommended import Recommended
from .weights import fill, find_weights, missing, read_weights, unreadable

VGG16_LAYERS = Recommended("relu4_3", "relu4_2", ("relu1_2", "relu2_2", "relu3_3", "relu4_3"))  # Johnson et al. 2016
POCKET_LAYERS = Recommended("relu5_1", "relu4_2", VGG16_LAYERS.style)
VGG19_LAYERS = Recommended("relu4_3", "relu4_2", [f"relu{block}_1" for block in range(1, 6)])  # Gatys et al. 2016


def _vgg_stages(channels: Iterable[int | str]) -> dict[str, nn.Module]:
    """3x3 convolutions, each followed by a ReLU, and 2x2 max pools ("M"), named as in the VGG paper."""
    stages, block, number, width = {}, 1, 1, 3
    for c in channels:
        if c == "M":
            stages[f"pool{block}"] = nn.MaxPool2d(2)
            block, number = block + 1, 1
        else:
            stages[f"conv{block}_{number}"] = nn.Conv2d(width, int(c), 3, padding=1)
            stages[f"relu{block}_{number}"] = nn.ReLU()
            width, number = int(c), number + 1
    return stages


def _pocket(name: str) -> Backbone:
    plan = (32, 32, "M", 64, 64, "M", 128, 128, 128, "M", 256, 256, 256, "M", 384, 384, 384, "M")
    stages, head = _vgg_stages(plan), nn.Linear(384, 1000)
    convolutions = {key: stage for key, stage in stages.items() if isinstance(stage, nn.Conv2d)}
    state = read_weights(bundled("pocket/pocket.safetensors"), name)
    fill(nn.ModuleDict({**convolutions, "logits": head}), state, name)
    return Backbone(name, stages, head, POCKET_LAYERS)


def _vgg(name: str) -> Backbone:
    net = _torchvision(name)
    plan = [m.out_channels if isinstance(m, nn.Conv2d) else "M" for m in net.features if not isinstance(m, nn.ReLU)]
    stages = dict(zip(_vgg_stages(plan), net.features, strict=True))
    return Backbone(name, stages, net.classifier, VGG19_LAYERS if name == "vgg19" else VGG16_LAYERS, grid=7)


def _googlenet(name: str) -> Backbone:
    net = _torchvision(name, aux_logits=True, transform_input=False)
    stages = {
        key.replace("maxpool", "pool").replace("inception", "inception_"): module
        for key, module in net.named_children()
        if key.startswith(("conv", "maxpool", "inception"))
    }
    style = ("conv1", "conv3", "inception_3a", "inception_3b", "inception_4a")
    recommended = Recommended("inception_4c", "inception_4a", style)
    return Backbone(name, stages, net.fc, recommended, mean=0.5, std=0.5)


def _squeezenet(name: str) -> Backbone:
    net, stages, number = _torchvision(name), {}, 0
    for module in net.features:
        kind = {"Conv2d": "conv", "ReLU": "relu", "MaxPool2d": "pool", "Fire": "fire"}[type(module).__name__]
        number += kind in ("conv", "fire")  # a ReLU or pool has the number of what it follows
        stages[f"{kind}{number}"] = module
    stages["conv10"] = nn.Sequential(net.classifier[1], net.classifier[2])  # without the dropout and the average
    recommended = Recommended("fire8", "fire6", ("relu1", "fire2", "fire3", "fire5", "fire7"))
    return Backbone(name, stages, nn.Identity(), recommended)


def _resnet(name: str) -> Backbone:
    net = _torchvision(name)
    stages = {"conv1": nn.Sequential(net.conv1, net.bn1), "relu1": net.relu, "pool1": net.maxpool}
    for group in range(1, 5):
        for number, block in enumerate(getattr(net, f"layer{group}"), 1):
            stages[f"layer{group}_{number}"] = block
    recommended = Recommended("layer3_3", "layer2_4", ("relu1", "layer1_3", "layer2_2", "layer2_4", "layer3_3"))
    return Backbone(name, stages, net.fc, recommended)


class Inception(nn.Module):
    """The module of Szegedy et al. 2015 (arXiv:1409.4842) as in BVLC's Caffe model: four branches, concatenated."""

    def __init__(self, inputs: int, ones: int, threes: tuple[int, int], fives: tuple[int, int], pool: int):
        super().__init__()

        def conv(i: int, o: int, k: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(i, o, k, padding=k // 2), nn.ReLU())

        self.branch1 = conv(inputs, ones, 1)
        self.branch3 = nn.Sequential(conv(inputs, threes[0], 1), conv(threes[0], threes[1], 3))
        self.branch5 = nn.Sequential(conv(inputs, fives[0], 1), conv(fives[0], fives[1], 5))
        self.branch_pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(inputs, pool, 1))

    def named_convolutions(self) -> dict[str, nn.Module]:
        """The six convolutions by their names in Caffe."""
        names = ("1x1", "3x3_reduce", "3x3", "5x5_reduce", "5x5", "pool_proj")
        return dict(zip(names, (m for m in self.modules() if isinstance(m, nn.Conv2d)), strict=True))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.children()], 1)


class ChannelNorm(nn.Module):
    """Caffe's local response normalization over 5 channels: nn.LocalResponseNorm(5, 1e-4, 0.75).

    The sum over neighbors is a 1x1 convolution with a band of ones: as fast as convolutions are, in bfloat16 too,
    where PyTorch's own goes through a 3-D pooling that CPUs lack.
    """

    band: Tensor

    def __init__(self, channels: int):
        super().__init__()
        place = torch.arange(channels)
        near = (place[:, None] - place).abs() <= 2
        self.register_buffer("band", near.float()[..., None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        root = (1 + 1e-4 / 5 * F.conv2d(x.square(), self.band)).rsqrt()
        return x * root * root.sqrt()  # to the power -3/4


def _googlenet_bvlc(name: str) -> Backbone:
    how = "convert BVLC's bvlc_googlenet.caffemodel with tools/convert_caffe.py"
    path = find_weights(*_own_files(name)) or missing(name, f"{name}.safetensors", "14 MB", how)
    pool = partial(nn.MaxPool2d, 3, 2, ceil_mode=True)
    stages: dict[str, nn.Module] = {
        "conv1/7x7_s2": nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3), nn.ReLU()),
        "pool1/3x3_s2": pool(),
        "pool1/norm1": ChannelNorm(64),
        "conv2/3x3_reduce": nn.Sequential(nn.Conv2d(64, 64, 1), nn.ReLU()),
        "conv2/3x3": nn.Sequential(nn.Conv2d(64, 192, 3, padding=1), nn.ReLU()),
        "conv2/norm2": ChannelNorm(192),
        "pool2/3x3_s2": pool(),
        "inception_3a": Inception(192, 64, (96, 128), (16, 32), 32),
        "inception_3b": Inception(256, 128, (128, 192), (32, 96), 64),
        "pool3/3x3_s2": pool(),
        "inception_4a": Inception(480, 192, (96, 208), (16, 48), 64),
        "inception_4b": Inception(512, 160, (112, 224), (24, 64), 64),
        "inception_4c": Inception(512, 128, (128, 256), (24, 64), 64),
        "inception_4d": Inception(512, 112, (144, 288), (32, 64), 64),
        "inception_4e": Inception(528, 256, (160, 320), (32, 128), 128),
        "pool4/3x3_s2": pool(),
        "inception_5a": Inception(832, 256, (160, 320), (32, 128), 128),
        "inception_5b": Inception(832, 384, (192, 384), (48, 128), 128),
    }
    modules: dict[str, nn.Module] = {"loss3/classifier": (head := nn.Linear(1024, 1000))}
    for key, stage in stages.items():
        if isinstance(stage, Inception):
            modules |= {f"{key}/{k}": convolution for k, convolution in stage.named_convolutions().items()}
        elif isinstance(stage, nn.Sequential):
            modules[key] = stage[0]
    fill(nn.ModuleDict(modules), read_weights(path, name), name)
    # Caffe feeds BGR in 0-255 minus a mean; we feed RGB in [0, 1], and turn the first kernel round instead.
    first = stages["conv1/7x7_s2"].get_parameter("0.weight").data
    first.copy_(first.flip(1))
    style = ("conv1/7x7_s2", "conv2/3x3", "inception_3a", "inception_3b", "inception_4a")
    recommended = Recommended("inception_4c", "inception_4a", style)
    return Backbone(name, stages, head, recommended, mean=(123 / 255, 117 / 255, 104 / 255), std=1 / 255)


BACKBONES: dict[str, tuple[Callable[[str], Backbone], str]] = {
    "pocket": (_pocket, "the lab's own small VGG16, inside the package"),
    "vgg16": (_vgg, "Simonyan and Zisserman 2015; 528 MB from torchvision"),
    "vgg19": (_vgg, "Simonyan and Zisserman 2015, the network of style transfer; 548 MB from torchvision"),
    "googlenet": (_googlenet, "Szegedy et al. 2015, torchvision's version; 50 MB from torchvision"),
    "googlenet_bvlc": (_googlenet_bvlc, "the network of the original DeepDream; 14 MB, a file in LABKIT_WEIGHTS"),
    "squeezenet1_1": (_squeezenet, "Iandola et al. 2016; 5 MB from torchvision"),
    "resnet50": (_resnet, "He et al. 2016; 98 MB from torchvision"),
}


def load_backbone(name: str | Backbone = "pocket", device: str | torch.device | None = None) -> Backbone:
    """A trained network, frozen.

    Weights are looked for in the folder that the environment variable LABKIT_WEIGHTS names, then, for torchvision's
    networks, in torchvision's cache and on its server.

    Args:
        name: one of `BACKBONES`, or a loaded network, which is returned as it is, or, if it is to compute on another
            device, as a copy there.
        device: where it computes; None: CUDA, then MPS, then CPU.

    Raises:
        ValueError: for an unknown name, a damaged file or a device that cannot be used.
        FileNotFoundError: when weights cannot be had, saying which file, how large, and where to put it.

    Example:
        >>> network = lk.load_backbone("pocket", "cpu")
        >>> network.features(lk.photo("chelsea", 64), ["relu2_1"])["relu2_1"].shape[1]
        64
    """
    if isinstance(name, Backbone):
        device = name.device if device is None else pick_device(device)
        return name if device == name.device else copy.deepcopy(name).to(device)
    if name not in BACKBONES:
        raise ValueError(f"no backbone named {name!r}; there are {', '.join(BACKBONES)}")
    return BACKBONES[name][0](name).to(pick_device(device))


def _own_files(name: str) -> tuple[str, str]:
    """What a folder of weights may call those of ``name``."""
    return f"{name}.safetensors", f"{name}.fp16.safetensors"


def _torchvision(name: str, **options: bool) -> Any:
    """A torchvision network with its ImageNet weights, from LABKIT_WEIGHTS or through torchvision."""
    from torchvision import models as zoo  # here, because it takes longer to import than pocket takes to dream

    weights = zoo.get_model_weights(name)["IMAGENET1K_V1"]
    file = Path(weights.url).name
    path = find_weights(*_own_files(name), file)
    if path is not None:
        state = read_weights(path, name)
    else:
        try:
            state = weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
        except OSError as error:  # URLError is one
            missing(name, file, f"{weights.meta['_file_size']:.0f} MB", f"download it from {weights.url}", error)
        except Exception as error:  # a download that was cut off, now or in the past
            raise unreadable(Path(torch.hub.get_dir(), "checkpoints", file), name) from error
    if name.startswith(("vgg", "googlenet")):
        options["init_weights"] = False  # which takes seconds, to be overwritten
    net = zoo.get_model(name, weights=None, **options)
    fill(net, state, f"torchvision's {name}")
    return net
