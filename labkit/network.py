"""Floor 1: a frozen network, cut into named layers."""

from __future__ import annotations

import bisect
import copy
import difflib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

from .precision import arithmetic

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ReceptiveField:
    """The square of pixels that one unit of a layer can see: its side and the step between neighbours, in pixels.

    ``start`` is the position, relative to the picture's corner, where the square of the unit (0, 0) begins: negative,
    because padding lets it begin outside. See Araujo et al. 2019, doi:10.23915/distill.00021.
    """

    size: int = 1
    stride: int = 1
    start: int = 0

    def then(self, kernel: int, stride: int, padding: int) -> ReceptiveField:
        """The field after one more convolution or pooling."""
        return ReceptiveField(
            self.size + (kernel - 1) * self.stride, self.stride * stride, self.start - padding * self.stride
        )


@dataclass(frozen=True)
class Recommended:
    """Layers that work well on a network: for dreams, for content, and for style with their weights."""

    dream: Mapping[str, float]
    content: tuple[str, ...]
    style: Mapping[str, float]


def remembered(question: Callable[..., Any]) -> Callable[..., Any]:
    """A question about a network's shapes, which are found by trial and asked hundreds of times: asked once."""

    @wraps(question)
    def answer(self: Backbone, *asked: Any) -> Any:
        key = question.__name__, *asked
        if key not in self.answers:
            self.answers[key] = question(self, *asked)
        return self.answers[key]

    return answer


class Backbone(nn.Module):
    """A frozen network, cut into named stages that run one after the other.

    ``stages``: name -> module; every name is a layer. ``head`` maps the last stage's features, averaged over a
    ``grid`` x ``grid`` of cells and flattened, to class logits. ``recommended`` names good layers. ``mean`` and
    ``std`` normalise RGB in [0, 1]. The parameters are frozen: the picture is what is tuned.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        stages: OrderedDict[str, nn.Module],
        head: nn.Module,
        recommended: Recommended,
        *,
        grid: int = 1,
        mean: Iterable[float] = IMAGENET[0],
        std: Iterable[float] = IMAGENET[1],
    ):
        super().__init__()
        self.name, self.grid, self.head, self.recommended = name, grid, head, recommended
        self.redirects = False
        self.answers: dict[tuple, Any] = {}  # of `remembered` questions
        self.names = list(stages)  # kept apart: nn.ModuleDict forbids dots in its keys
        self.stages = nn.ModuleList(stages.values())
        self.register_buffer("mean", torch.tensor(tuple(mean)).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(tuple(std)).view(1, 3, 1, 1))
        for module in self.modules():
            if hasattr(module, "inplace"):
                module.inplace = False  # an in-place ReLU would overwrite the layer that was asked for
        self.eval().requires_grad_(False)

    @property
    def layers(self) -> list[str]:
        """The names of all layers, shallow to deep."""
        return [*self.names, "logits"]

    @cached_property
    def classes(self) -> list[str]:
        """The names of the thousand ImageNet classes, in the order of the logits."""
        from torchvision.models import VGG16_Weights

        return VGG16_Weights.IMAGENET1K_V1.meta["categories"]

    @property
    def device(self) -> torch.device:
        return self.mean.device

    def check_layers(self, layers: Iterable[str]) -> None:
        """Raise ValueError, naming the nearest layers there are, when one of ``layers`` does not exist."""
        for layer in layers:
            if layer not in self.layers:
                near = difflib.get_close_matches(layer, self.layers, n=2, cutoff=0.3)
                hint = f"did you mean {' or '.join(near)}? " if near else ""
                raise ValueError(f"{self.name} has no layer {layer!r}: {hint}its layers are {', '.join(self.layers)}")

    def features(self, picture: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
        """The features (N, C, h, w) of a picture (N, 3, H, W) at the named layers ("logits": (N, classes)).

        They lie on the picture's device, wherever the network computes. Runs no further than the deepest layer asked
        for. Raises ValueError for an unknown layer and for a picture that is too small, saying how large it must be.
        """
        layers = list(layers)
        self.check_layers(layers)
        with arithmetic():
            return self.run(picture, layers)

    def run(self, picture: Tensor, layers: list[str]) -> dict[str, Tensor]:
        """`features` for loops, which have checked the layers and set the `arithmetic`."""
        home, device = picture.device, self.device
        last = max((self.layers.index(layer) for layer in layers), default=-1)
        # Normalise in float32: the picture keeps its full precision whatever the network computes in.
        x = ((picture.to(device) - self.mean.float()) / self.std.float()).to(self.mean.dtype)
        x = x.contiguous(memory_format=torch.channels_last)
        found = {}
        try:
            with RedirectedReLU() if self.redirects else nullcontext():
                for name, stage in zip(self.names[: last + 1], self.stages, strict=False):
                    # A layer that was asked for is the one that later layers are computed from, wherever it lies: their
                    # gradient with respect to it can be asked for.
                    x = stage(x.to(device))
                    if name in layers:
                        found[name] = x = x.to(home)
        except RuntimeError as error:
            self._explain_small(picture, layers, error)
            raise
        if "logits" in layers:
            found["logits"] = self.read_head(self._cells(x.to(device))).to(home)
        return found

    def _cells(self, x: Tensor) -> Tensor:
        """Features averaged over the head's grid of cells."""
        if self.grid == 1:
            return F.adaptive_avg_pool2d(x, 1)
        rows, columns = (averages(side, self.grid, x.device).to(x.dtype) for side in x.shape[2:])
        return rows @ x @ columns.T

    def read_head(self, pooled: Tensor) -> Tensor:
        """Class logits (N, classes) of the last stage's features averaged over grid x grid cells."""
        return self.head(pooled.flatten(1))

    def logits(self, picture: Tensor) -> Tensor:
        """Class logits (N, classes) of pictures (N, 3, H, W), float32, on the pictures' device."""
        return self.features(picture, ["logits"])["logits"].float()

    @torch.no_grad()
    def classify(self, picture: Tensor, top: int = 5) -> list[list[tuple[str, float]]]:
        """For each picture the ``top`` most probable classes as (name, probability)."""
        probabilities = self.logits(picture).softmax(1)
        probabilities = probabilities.topk(min(top, probabilities.shape[1]))
        rows = zip(probabilities.indices.tolist(), probabilities.values.tolist(), strict=True)
        return [[(self.classes[i], p) for i, p in zip(*row, strict=True)] for row in rows]

    def class_index(self, name: int | str) -> int:
        """The index of a class given by number or by name; ValueError with the nearest names if there is none."""
        if isinstance(name, int):
            if not 0 <= name < len(self.classes):
                raise ValueError(f"there is no class {name}: they run from 0 to {len(self.classes) - 1}")
            return name
        lower = [c.lower() for c in self.classes]
        if name.lower() in lower:
            return lower.index(name.lower())
        near = difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.4) or [c for c in lower if name in c][:3]
        raise ValueError(f"there is no class {name!r}" + (f": did you mean {', '.join(near)}?" if near else ""))

    @remembered
    def channels(self, layer: str) -> int:
        """How many channels a layer has."""
        size = max(64, self.minimum_size(layer))
        return self.on_meta((size, size), layer).shape[1]

    @remembered
    def map_size(self, layer: str, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of a layer's feature map for pictures of ``size`` (height, width)."""
        return self.on_meta(size, layer).shape[2:]

    @remembered
    def minimum_size(self, layer: str) -> int:
        """The smallest side, in pixels, of a picture that reaches ``layer``. Found by trial, on shapes alone."""
        self.check_layers([layer])

        def reaches(size: int) -> bool:
            try:
                self.on_meta((size, size), layer)
            except RuntimeError:  # a pooling window larger than its input
                return False
            return True

        return bisect.bisect_left(range(1, 1024), True, key=reaches) + 1

    def receptive_field(self, layer: str) -> ReceptiveField:
        """What one unit of ``layer`` sees of the picture, computed from kernels, strides and paddings."""
        self.check_layers([layer])
        field = ReceptiveField()
        for name, stage in zip(self.names, self.stages, strict=True):
            field = _through(stage, field)
            if name == layer:
                return field
        raise ValueError(
            "the logits see the whole picture: they have no receptive field of a fixed size, and a loss on them "
            "cannot be cut into tiles (class_logit can)"
        )

    def cast(self, dtype: torch.dtype) -> Backbone:
        """This network computing in ``dtype``, weights laid out channels-last: itself, or a copy."""
        if dtype == self.mean.dtype:
            return self.to(memory_format=torch.channels_last)
        return copy.deepcopy(self).to(dtype=dtype, memory_format=torch.channels_last)

    def redirected(self) -> Backbone:
        """A copy whose ReLUs let the gradient pass where all of it would be blocked (see `RedirectedReLU`).

        With it a channel that is silent on noise can be started: ``-lk.activation(layer, channel=7, power=1)``; the
        square of power 2 has no slope at 0. Of a picture in tiles, each tile decides for itself.
        """
        other = copy.deepcopy(self)
        other.redirects = True
        return other

    def on_meta(self, size: tuple[int, int], layer: str, differentiable: bool = False) -> Tensor:
        """The features of a picture of ``size`` (height, width) as a tensor that has a shape and no data."""
        x = torch.empty(1, 3, *size, device="meta", dtype=self.mean.dtype, requires_grad=differentiable)
        for name, stage in zip(self.names, self.stages, strict=True):
            x = _without_data(stage, x)
            if name == layer:
                return x
        return _without_data(self.head, F.adaptive_avg_pool2d(x, self.grid).flatten(1))[..., None, None]

    def _explain_small(self, picture: Tensor, layers: list[str], error: Exception) -> None:
        deepest = max(layers, key=self.layers.index)
        height, width = picture.shape[-2:]
        least = self.minimum_size(deepest)
        if min(height, width) < least:
            raise ValueError(
                f"a picture of {width}x{height} pixels is too small for {deepest} of {self.name}: "
                f"its sides must be at least {least} pixels, or choose a shallower layer"
            ) from error

    def extra_repr(self) -> str:
        return f"{self.name}: {', '.join(self.layers)}"


def averages(length: int, cells: int, device: torch.device | None = None) -> Tensor:
    """Adaptive average pooling of ``length`` numbers into ``cells`` as a matrix (cells, length).

    PyTorch's own pooling needs, on Apple's MPS, a length that the cells divide.
    """
    return F.adaptive_avg_pool1d(torch.eye(length), cells).T.to(device)


class RedirectedReLU(TorchFunctionMode):
    """While it is on, every ReLU is differentiated as in Lucid (Olah, Mordvintsev and Schubert 2017).

    Where x <= 0 a ReLU blocks the gradient. When that leaves nothing of a picture's gradient, what would raise x in a
    descent (the negative part of the gradient) passes even there; otherwise the gradient is the usual one. A mode, and
    not modules in place of nn.ReLU, because some networks call the function.
    """

    names = frozenset({"relu", "relu_"})  # F.relu, torch.relu, Tensor.relu and their in-place forms

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if getattr(function, "__name__", "") in self.names:
            return _Redirected.apply(*args[:1])
        return function(*args, **(kwargs or {}))


class _Redirected(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.relu()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        passes = x > 0
        alive = (passes & (gradient != 0)).flatten(1).any(1).view(-1, *[1] * (x.ndim - 1))
        return gradient * (passes | (~alive & (gradient < 0)))


def _without_data(module: nn.Module, x: Tensor) -> Tensor:
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return functional_call(module, {key: value.to("meta") for key, value in tensors.items()}, x)


def _through(module: nn.Module, field: ReceptiveField) -> ReceptiveField:
    """The receptive field after ``module``; of parallel branches the widest one counts."""

    def square(value: int | tuple[int, ...]) -> int:
        return value if isinstance(value, int) else value[0]

    kind = type(module).__name__  # torchvision's classes by name, so that pocket need not import it
    if isinstance(module, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)):
        return field.then(square(module.kernel_size), square(module.stride), square(module.padding))
    if isinstance(module, nn.Sequential):
        chain = list(module)
    elif kind == "Inception":
        return max((_through(branch, field) for branch in module.children()), key=lambda f: f.size)
    elif kind == "Fire":
        chain = [module.squeeze, module.expand3x3]
    elif kind == "Bottleneck":
        chain = [module.conv1, module.conv2, module.conv3]
    elif kind == "BasicConv2d":
        chain = [module.conv]
    else:
        return field  # everything else works on each position by itself
    for child in chain:
        field = _through(child, field)
    return field
