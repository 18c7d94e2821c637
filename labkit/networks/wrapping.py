"""Any network as a backbone: layers by the names of its modules, found by running it once on shapes alone."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from functools import partial
from numbers import Integral
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn

from ..base.checks import check_numbers
from ..pictures.geometry import Size
from .backbone import IMAGENET, Backbone, Keep
from .meta import Trial, dtype_of, first_line, tensors_of, try_out
from .recommended import Recommended

RESERVED = ("logits", "pixels")  # layers that every network has, or every loss
LINEAR = (nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.Dropout, nn.Dropout2d, nn.Identity)
LINEAR += tuple(getattr(nn, f"{kind}Pool2d") for kind in ("Max", "Avg", "AdaptiveAvg", "AdaptiveMax"))


def wrap(
    model: nn.Module,
    layers: str | Iterable[str] | None = None,
    *,
    classes: int | Iterable[str] | None = None,
    mean: float | Iterable[float] = IMAGENET[0],
    std: float | Iterable[float] = IMAGENET[1],
    size: int | tuple[int, int] | None = None,
    name: str | None = None,
    recommended: Recommended | None = None,
) -> Backbone:
    """A `Backbone` of any module that maps pictures, in three colors or in gray, to class logits or to features.

    The backbone has a copy of the module, in evaluation, frozen, on its device and in its dtype; the module itself
    stays as it is. Pictures given to it are always RGB in [0, 1].

    Args:
        model: any `nn.Module`, trained.
        layers: names of submodules, such as "layer3.1"; None: every one that is called once and answers maps.
        classes: names of the classes, or how many; None: ImageNet's if there are a thousand logits, else numbers.
        mean, std: what the module's pictures are normalized with; three values or one.
        size: the side, or (height, width), of the pictures that the module was made for, up to 4096; None: 224.
        name: what to call it; None: the name of its class.
        recommended: its good layers, as ``lk.Recommended(dream="layer3", content="layer2", style=["layer1"])``;
            None: a guess by depth. It can be changed later: ``backbone.recommended``.

    Raises:
        ValueError: in one line, for a module that does not take pictures, and for layers that do not exist, are called
            several times, or answer something else than maps (N, C, h, w), such as the tokens of a transformer.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> lk.wrap(model).layers
        ['0', '1', 'logits']
    """
    while isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)) or hasattr(model, "_orig_mod"):
        model = model.get_submodule("_orig_mod" if hasattr(model, "_orig_mod") else "module")
    name = type(model).__name__ if name is None else name
    if not isinstance(model, nn.Module) or isinstance(model, (Backbone, torch.jit.ScriptModule)):
        raise ValueError(f"wrap takes a plain nn.Module, not a {type(model).__name__}")
    height, width = size if isinstance(size, Sequence) else (224 if size is None else size,) * 2
    check_numbers(1, Integral, most=4096, height=height, width=width)
    wrapped = Wrapped(name, _copied(model), layers, (height, width), recommended, mean, std)
    if classes is not None:
        wrapped.name_classes(classes)
    return wrapped


def _copied(model: nn.Module) -> nn.Module:
    """A copy of a module, whose tensors that are plain attributes have become buffers, so that they move along."""
    loose = [value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    # What is computed from parameters, as by pruning, cannot be copied otherwise.
    copy = deepcopy(model, {id(value): value.detach().clone() for value in loose})
    for module in copy.modules():
        for name in [name for name, value in vars(module).items() if isinstance(value, Tensor)]:
            module.register_buffer(name, vars(module).pop(name), persistent=False)
    return copy


def _described(answer: Any) -> str:
    return f"a tensor of shape {tuple(answer.shape)}" if isinstance(answer, Tensor) else f"a {type(answer).__name__}"


def class_logits(answer: Any) -> Tensor | None:
    """The class logits (N, classes) in what a network answers: a tensor, or something with ``logits``."""
    answer = answer.get("logits") if isinstance(answer, Mapping) else getattr(answer, "logits", answer)
    return answer if isinstance(answer, Tensor) and answer.ndim == 2 else None


class Enough(BaseException):
    """Raised to leave a network when the deepest layer that was asked for is there; not an error."""


class Wrapped(Backbone):
    """A backbone of any module: its layers are what forward hooks see. Made by `wrap`."""

    def __init__(
        self,
        name: str,
        model: nn.Module,
        layers: str | Iterable[str] | None,
        size: Size,
        recommended: Recommended | None,
        mean: float | Iterable[float],
        std: float | Iterable[float],
    ):
        super().__init__(name, {}, None, mean=mean, std=std)
        self.model, self.size = model.eval().requires_grad_(False), size
        self.to(next(tensors_of(model), self.mean).device, dtype_of(model))
        trial = self._first_trial()
        wider = try_out(model, (size[0], 2 * size[1]), trial.colors)
        self.colors, self.any_size = trial.colors, wider.error is None

        def is_layer(name: str) -> bool:
            f, wide = trial.map_of(name), wider.map_of(name)
            return f is not None and (wide is None or (f.shape[1:3] == wide.shape[1:3] and f.shape[3] < wide.shape[3]))

        if layers is None:
            self.names = [name for name in trial.calls if name not in RESERVED and is_layer(name)]
            if not self.names:
                raise ValueError(f"no submodule of {self.name} answers maps (N, C, h, w): it has no layers to look at")
        else:
            layers = [layers] if isinstance(layers, str) else list(layers)
            if wrong := [layer for layer in layers if not is_layer(layer)]:
                raise ValueError(self._why_no_layer(wrong[0], trial))
            self.names = [name for name in trial.calls if name in layers]
        self.order = list(trial.calls)
        self.counts = {name: trial.calls[name][0].shape[1] for name in self.names}
        if (logits := class_logits(trial.answer)) is None:
            self.no_logits = _described(trial.answer)
        else:
            self.counts["logits"] = logits.shape[1]
        self.recommended = recommended or Recommended.guess(self._outstanding(trial))
        self.check_layers([*self.recommended.dream, *self.recommended.content, *self.recommended.style])
        self._choose_layout()

    def _first_trial(self) -> Trial:
        trials = [try_out(self.model, self.size, colors) for colors in (3, 1)]
        for trial in trials:
            if trial.error is None:
                return trial
        trial = max(trials, key=lambda trial: len(trial.calls))  # which came furthest
        raise ValueError(
            f"{self.name} fails on a picture of {self.size[1]}x{self.size[0]} pixels and {trial.colors} colors: "
            f"{first_line(trial.error or ValueError())} (size= gives it another picture)"
        ) from trial.error

    def _why_no_layer(self, layer: str, trial: Trial) -> str:
        answers = trial.calls.get(layer, [])
        if layer not in dict(self.model.named_modules()):
            near = difflib.get_close_matches(layer, trial.calls, n=2, cutoff=0.3)
            return f"{self.name} has no module {layer!r}" + (f": did you mean {' or '.join(near)}?" if near else "")
        if len(answers) != 1:
            hint = "a layer is what is called once: choose a module beside or around it"
            return f"{layer} of {self.name} is called {len(answers)} times for a picture, and {hint}"
        hint = "a layer answers maps (N, C, h, w) that grow with the picture"
        return f"{layer} of {self.name} answers {_described(answers[0])}, and {hint}"

    @torch.no_grad()
    def _choose_layout(self) -> None:
        """Channels last, if the module works with it: a view of its features, as many flatten them, may not."""
        self.to(memory_format=self.layout)
        picture = torch.zeros(1, self.colors, *self.size, dtype=self.mean.dtype, device=self.device)
        try:
            self.model(picture.contiguous(memory_format=self.layout))
        except RuntimeError:
            self.layout = torch.contiguous_format
            self.to(memory_format=self.layout)

    def _outstanding(self, trial: Trial) -> list[str]:
        """The layers to choose from: blocks and activations, as few levels deep as gives seven; one name a tensor."""

        def is_linear(module: nn.Module) -> bool:
            return all(map(is_linear, module)) if type(module) is nn.Sequential else isinstance(module, LINEAR)

        named = {id(trial.calls[name][0]): name for name in self.names}  # of several, the last: the outermost
        chosen = [name for name in named.values() if not is_linear(self.model.get_submodule(name))] or self.names
        levels = [[name for name in chosen if name.count(".") <= level] for level in range(9)]
        return next((names for names in levels if len(names) >= 7), chosen)

    def _explain(self, error: Exception, size: Size, layers: list[str]) -> None:
        if not self.any_size and size != self.size:
            (height, width), (rows, columns) = self.size, size
            takes = f"{self.name} takes pictures of {width}x{height} pixels, not {columns}x{rows}"
            raise ValueError(f"{takes}: {first_line(error)}") from error
        super()._explain(error, size, layers)

    def propagate(self, x: Tensor, layers: list[str], keep: Keep) -> None:
        left, thread = set(layers), get_ident()

        def see(layer: str, module: nn.Module, inputs: Any, answer: Tensor) -> Tensor | None:
            if get_ident() != thread:  # the lab computes in several
                return None
            answer = keep(layer, answer)
            left.discard(layer)
            if not left:
                raise Enough
            return answer

        if not layers:
            return
        parts = {name: self.model.get_submodule(name) for name in self.names if name in left}
        hooks = [part.register_forward_hook(partial(see, name)) for name, part in parts.items()]
        try:
            if (logits := class_logits(self.model(x))) is not None:
                keep("logits", logits)
        except Enough:
            pass
        finally:
            for hook in hooks:
                hook.remove()

    def channels(self, layer: str) -> int:
        self.check_layers([layer])
        return self.counts[layer]

    def minimum_size(self, layer: str) -> int:
        try:
            return super().minimum_size(layer)
        except Exception:
            if self.any_size:
                raise
            return min(self.size)  # it takes no other

    def least_side(self, layers: Iterable[str], size: Size) -> int:
        least = super().least_side(layers := list(layers), size)
        if not self.any_size and size != self.size:
            try:
                self.map_size(max(layers, key=self.layers.index), size)
            except RuntimeError as error:
                self._explain(error, size, layers)
        return least

    def parameters_from(self, layer: str | None) -> Iterator[nn.Parameter]:
        first = 0
        if layer is not None:
            first = next(n for n, name in enumerate(self.order) if f"{name}.".startswith(f"{layer}."))
        for name in self.order[first:]:
            yield from self.model.get_submodule(name).parameters(recurse=False)
