"""A frozen network, cut into named layers."""

from __future__ import annotations

import bisect
import copy
import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from functools import cached_property, wraps
from numbers import Integral
from typing import Any, Concatenate, ParamSpec, TypeAlias, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base.checks import check_numbers
from ..base.devices import arithmetic
from ..pictures.color import luma
from ..pictures.geometry import Size, size_of
from .meta import first_line, on_meta
from .receptive_fields import ReceptiveField, measure_receptive_field
from .recommended import Recommended
from .redirected_relu import RedirectedReLU

Keep: TypeAlias = Callable[[str, Tensor], Tensor]
P = ParamSpec("P")
R = TypeVar("R")
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def remembered(question: Callable[Concatenate[Backbone, P], R]) -> Callable[Concatenate[Backbone, P], R]:
    """A question about a network's shapes, which are tried out and needed hundreds of times: asked once."""

    @wraps(question)
    def answer(self: Backbone, *args: P.args, **kwargs: P.kwargs) -> R:
        key = question.__name__, *args, *kwargs.items()
        if key not in self.answers:
            self.answers[key] = question(self, *args, **kwargs)
        return self.answers[key]

    return answer


class Backbone(nn.Module):
    """A frozen network, cut into named stages that run one after the other.

    The modules become the backbone's own: parameters are frozen (the picture is what is tuned), modules are put to
    evaluation and out of place. `labkit.wrap` makes a backbone of any module and leaves it as it is.

    Args:
        name: what errors call it.
        stages: name -> module; every name is a layer.
        head: maps the last stage's features, averaged over a ``grid`` x ``grid`` of cells and flattened, to logits.
        recommended: good layers; None: a guess.
        mean, std: normalize RGB in [0, 1]; three values or one.
        classes: their names, or how many there are; None: ImageNet's if there are a thousand, else numbers.
        colors: 3, or 1 for a network that takes gray pictures.

    Example:
        >>> stages = {"conv": nn.Conv2d(3, 8, 3), "relu": nn.ReLU()}
        >>> lk.Backbone("small", stages, nn.Linear(8, 10)).layers
        ['conv', 'relu', 'logits']
    """

    mean: Tensor
    std: Tensor
    layout: torch.memory_format = torch.channels_last  # of features and weights: what convolutions are fastest in
    head: nn.Module | None
    no_logits = ""  # what a network answers that has none

    def __init__(
        self,
        name: str,
        stages: Mapping[str, nn.Module],
        head: nn.Module | None,
        recommended: Recommended | None = None,
        *,
        grid: int = 1,
        mean: float | Iterable[float] = IMAGENET[0],
        std: float | Iterable[float] = IMAGENET[1],
        classes: int | Iterable[str] | None = None,
        colors: int = 3,
    ):
        super().__init__()
        check_numbers(1, Integral, most=64, grid=grid)
        self.name, self.grid, self.head, self.colors = name, grid, head, colors
        self.redirects = False
        self.answers: dict[tuple, Any] = {}  # of `remembered` questions
        self.names = list(stages)  # kept apart: nn.ModuleDict forbids dots in its keys
        self.stages = nn.ModuleList(stages.values())
        self.recommended = Recommended.guess(self.names) if recommended is None else recommended
        self.register_buffer("mean", _rgb(mean, "mean"))
        self.register_buffer("std", _rgb(std, "std"))
        if not (self.std > 0).all():
            raise ValueError(f"std must be positive, not {self.std.flatten().tolist()}")
        for module in self.modules():
            if hasattr(module, "inplace"):
                vars(module)["inplace"] = False  # an in-place ReLU would overwrite the layer that was asked for
        self.eval().requires_grad_(False)
        if classes is not None:
            self.name_classes(classes)

    @property
    def layers(self) -> list[str]:
        """The names of all layers, shallow to deep."""
        return self.names if self.no_logits else [*self.names, "logits"]

    @cached_property
    def classes(self) -> list[str]:
        """The names of the classes, in the order of the logits."""
        count = self.channels("logits")
        if count != 1000:
            return [str(number) for number in range(count)]
        from torchvision.models import VGG16_Weights

        return VGG16_Weights.IMAGENET1K_V1.meta["categories"]

    def name_classes(self, classes: int | Iterable[str]) -> None:
        """Name the classes; ValueError if there are not as many as logits."""
        names = [str(name) for name in (classes if isinstance(classes, Iterable) else range(classes))]
        if len(names) != (count := self.channels("logits")):
            raise ValueError(f"{self.name} has {count} classes, not {len(names)}")
        self.classes = names

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return self.mean.device

    def check_layers(self, layers: Iterable[str]) -> None:
        """Raise ValueError, naming the nearest layers there are, when one of ``layers`` does not exist."""
        for layer in layers:
            if layer == "logits" and self.no_logits:
                raise ValueError(f"{self.name} has no classes: it answers {self.no_logits}, not logits (N, classes)")
            if layer not in self.layers:
                near = difflib.get_close_matches(layer, self.layers, n=2, cutoff=0.3)
                hint = f"did you mean {' or '.join(near)}? " if near else ""
                raise ValueError(f"{self.name} has no layer {layer!r}: {hint}its layers are {', '.join(self.layers)}")

    def features(self, picture: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
        """The features of pictures (N, 3, H, W) in [0, 1]. Runs no further than the deepest layer asked for.

        Returns:
            Layer -> (N, C, h, w), "logits": (N, classes), on the picture's device, wherever the network computes.

        Raises:
            ValueError: for an unknown layer, and for a picture that is too small, saying how large it must be.
        """
        layers = list(layers)
        self.check_layers(layers)
        with arithmetic():
            return self.run(picture, layers)

    def run(self, picture: Tensor, layers: list[str]) -> dict[str, Tensor]:
        """`features` for loops, which have checked the layers and set the `arithmetic`."""
        home, device = picture.device, self.device
        # Normalize in float32: the picture keeps its full precision whatever the network computes in.
        x = (picture.to(device) - self.mean.float()) / self.std.float()
        x = (luma(x) if self.colors == 1 else x).to(self.mean.dtype).contiguous(memory_format=self.layout)
        overwritten, features = set(), {}

        def keep(name: str, x: Tensor) -> Tensor:
            # A layer that was asked for is the one that later layers are computed from, wherever it lies: their
            # gradient with respect to it can be asked for.
            fragile = name in overwritten
            features[name] = x = (x.clone() if fragile else x).to(home)
            return (x.clone() if fragile else x).to(device)

        try:
            overwritten = self._overwritten(x, layers)
            with RedirectedReLU() if self.redirects else nullcontext():
                self.propagate(x, layers, keep)
        except Exception as error:
            self._explain(error, size_of(picture), layers)
            raise
        return features

    def propagate(self, x: Tensor, layers: list[str], keep: Keep) -> None:
        """Call ``keep`` with the name and the features of every one of ``layers``, for a normalized picture ``x``.

        What it returns is what later layers are computed from.
        """
        last = max(map(self.layers.index, layers), default=-1)
        for name, stage in zip(self.names[: last + 1], self.stages, strict=False):
            x = stage(x)
            if name in layers:
                x = keep(name, x)
        if "logits" in layers:
            keep("logits", self.read_head(self._cells(x)))

    def _overwritten(self, x: Tensor, layers: list[str]) -> set[str]:
        """Which of the layers later ones overwrite, with an operation in place: they must be copied."""
        key = "overwritten", *layers
        if len(layers) > 1 and key not in self.answers:
            kept: dict[str, tuple[Tensor, int]] = {}
            self._propagate_on_meta(size_of(x), layers, lambda name, x: kept.setdefault(name, (x, x._version))[0])
            self.answers[key] = {name for name, (f, version) in kept.items() if f._version != version}
        return self.answers.get(key, set())

    def _cells(self, x: Tensor) -> Tensor:
        """Features averaged over the head's grid of cells."""
        if self.grid == 1:
            return F.adaptive_avg_pool2d(x, 1)
        rows, columns = (averages(side, self.grid, x.device).to(x.dtype) for side in x.shape[2:])
        return rows @ x @ columns.T

    def read_head(self, pooled: Tensor) -> Tensor:
        """Class logits (N, classes) of the last stage's features averaged over grid x grid cells."""
        if self.head is None:
            raise ValueError(f"{self.name} has no head to read")
        return self.head(pooled.flatten(1))

    def logits(self, picture: Tensor) -> Tensor:
        """Class logits (N, classes) of pictures (N, 3, H, W), float32, on the pictures' device."""
        return self.features(picture, ["logits"])["logits"].float()

    forward = logits  # a backbone can be called as any classifier can

    @torch.no_grad()
    def classify(self, picture: Tensor, top: int = 5) -> list[list[tuple[str, float]]]:
        """For each picture the ``top`` most probable classes as (name, probability)."""
        check_numbers(1, Integral, top=top)
        best = self.logits(picture).softmax(1).topk(min(top, self.channels("logits")))
        rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [[(self.classes[i], p) for i, p in zip(*row, strict=True)] for row in rows]

    def class_index(self, name: int | str) -> int:
        """The index of a class given by number or by name; ValueError with the nearest names if there is none."""
        if not isinstance(name, str):
            if not (isinstance(name, Integral) and 0 <= int(name) < len(self.classes)):
                raise ValueError(f"there is no class {name}: they run from 0 to {len(self.classes) - 1}")
            return int(name)
        lower = [c.lower() for c in self.classes]
        if name.lower() in lower:
            return lower.index(name.lower())
        near = difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.4) or [c for c in lower if name in c][:3]
        hint = f"did you mean {', '.join(near)}?" if near else f"they run from {self.classes[0]} to {self.classes[-1]}"
        raise ValueError(f"there is no class {name!r}: {hint}")

    @remembered
    def channels(self, layer: str) -> int:
        """How many channels a layer has."""
        size = max(64, self.minimum_size(layer))
        return self.on_meta((size, size), layer).shape[1]

    @remembered
    def map_size(self, layer: str, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of a layer's feature map for pictures of ``size`` (height, width), which must reach it."""
        self.least_side([layer], size)
        return size_of(self.on_meta(size, layer))

    @remembered
    def minimum_size(self, layer: str) -> int:
        """The smallest side, in pixels, of a picture that reaches ``layer``; ValueError if not even 1024 pixels do."""
        self.check_layers([layer])

        def reaches(size: int) -> bool:
            layers, reason = self._reached(size)
            if layer not in layers and size >= 1024:
                raise ValueError(f"{layer} of {self.name} takes no picture: {reason}")
            return layer in layers

        size = next(size for size in (2**k for k in range(11)) if reaches(size))
        smaller = range(size // 2 + 1, size)
        return size // 2 + 1 + bisect.bisect_left(smaller, True, key=reaches)

    def least_side(self, layers: Iterable[str], size: Size) -> int:
        """The least side, in pixels, of pictures that reach ``layers``; ValueError when ``size`` has a smaller one."""
        self.check_layers(layers := list(layers))
        deepest = max(layers, key=self.layers.index)  # a picture that reaches it reaches all
        least = self.minimum_size(deepest)
        if min(size) < least:
            raise ValueError(
                f"a picture of {size[1]}x{size[0]} pixels is too small for {deepest} of {self.name}: "
                f"its sides must be at least {least} pixels, or choose a shallower layer"
            )
        return least

    @remembered
    def _reached(self, size: int) -> tuple[set[str], str]:
        """The layers that a square picture reaches, and why it goes no further, such as a window larger than a map."""
        features: dict[str, Tensor] = {}
        try:
            self._propagate_on_meta((size, size), self.layers, features.setdefault)
        except Exception as error:  # whatever a module's own code may raise
            return set(features), first_line(error)
        return set(features), ""

    def receptive_field(self, layer: str) -> ReceptiveField:
        """What one unit of ``layer`` sees of the picture, measured once; ValueError if that is no fixed square."""
        self.check_layers([layer])
        if layer == "logits":
            part = " (class_logit can)" if self.head else ""
            raise ValueError(f"the logits see the whole picture: a loss on them cannot be cut into tiles{part}")
        field = self._measured(layer)
        if isinstance(field, ReceptiveField):
            return field
        raise ValueError(
            f"{layer} of {self.name} has no receptive field of a fixed size, so that it cannot be cut into tiles "
            f"(tile=None computes the whole): {field}"
        )

    _measured = remembered(measure_receptive_field)

    def parameters_from(self, layer: str | None) -> Iterator[nn.Parameter]:
        """The parameters of a layer and of all that comes after it; None: all."""
        first = 0 if layer is None else self.layers.index(layer)
        for module in (*self.stages[first:], *([self.head] if self.head else [])):
            yield from module.parameters()

    def cast(self, dtype: torch.dtype) -> Backbone:
        """This network computing in ``dtype``, weights laid out channels-last: itself, or a copy."""
        if dtype == self.mean.dtype:
            return self.to(memory_format=self.layout)
        other = copy.deepcopy(self).to(dtype=dtype).to(memory_format=self.layout)
        other.answers = self.answers  # its shapes are the same
        return other

    def redirected(self) -> Backbone:
        """This network, the very same modules, with ReLUs that let the gradient pass where all of it would be blocked.

        With it a channel that is silent on noise can be started: ``-lk.activation(layer, channel=7, power=1)``; the
        square of power 2 has no slope at 0. Of a picture in tiles, each tile decides for itself. See `RedirectedReLU`.
        """
        other = copy.copy(self)
        other.redirects = True
        return other

    def on_meta(self, size: tuple[int, int], layer: str, differentiable: bool = False) -> Tensor:
        """The features of a picture of ``size`` (height, width) as a tensor that has a shape and no data."""
        maps: dict[str, Tensor] = {}
        self._propagate_on_meta(size, [layer], maps.setdefault, differentiable)
        return maps[layer][..., None, None] if maps[layer].ndim == 2 else maps[layer]

    def _propagate_on_meta(self, size: Size, layers: list[str], keep: Keep, differentiable: bool = False) -> None:
        with torch.inference_mode(False), torch.device("meta"):
            x = torch.empty(1, self.colors, *size, dtype=self.mean.dtype, requires_grad=differentiable)
            self._shapes(x.dtype).propagate(x, layers, keep)

    @remembered
    def _shapes(self, dtype: torch.dtype) -> Backbone:
        return on_meta(self)  # which has this dtype

    def _explain(self, error: Exception, size: Size, layers: list[str]) -> None:
        """Raise a better error for one that came of a picture too small."""
        if isinstance(error, RuntimeError):
            self.least_side(layers, size)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "answers": {}}  # a copy may be changed, and is asked anew

    def extra_repr(self) -> str:
        return f"{self.name}: {', '.join(self.layers)}"


def averages(length: int, cells: int, device: torch.device | None = None) -> Tensor:
    """Adaptive average pooling of ``length`` numbers into ``cells`` as a matrix (cells, length).

    PyTorch's own pooling needs, on Apple's MPS, a length that the cells divide.
    """
    return F.adaptive_avg_pool1d(torch.eye(length), cells).T.to(device)


def _rgb(values: float | Iterable[float], what: str) -> Tensor:
    """Three numbers, or one for all colors, as a tensor (1, 3, 1, 1)."""
    numbers = torch.tensor([float(value) for value in (values if isinstance(values, Iterable) else [values])])
    if len(numbers) not in (1, 3):
        raise ValueError(f"{what} has three values, one a color, or one for all, not {len(numbers)}")
    return numbers.expand(3).reshape(1, 3, 1, 1).clone()
