"""Networks with few bits. Round weights and activations, calibrate, correct, train, and share out bits."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .classifiers import check_batch, logits_of
from .rounding import Affine, magnitude, pack, signs, straight_through, uniform, xnor_dot

Layer: TypeAlias = nn.Conv2d | nn.Linear
Rounder: TypeAlias = Callable[[Tensor], Tensor]  # weights -> rounded weights of the same shape


def layers_of(network: nn.Module) -> dict[str, Layer]:
    """The convolutions and linear layers, whose weights are rounded, by name. ValueError if there are none."""
    layers = {name: module for name, module in network.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))}
    if not layers:
        raise ValueError(f"{type(network).__name__} has no convolution and no linear layer to quantize")
    return layers


def quantized(
    network: nn.Module,
    weights: int | Rounder | Mapping[str, int | Rounder],
    inputs: Mapping[str, Affine] | None = None,
    *,
    trainable: bool = False,
    **options: bool | str | int | None,
) -> nn.Module:
    """A copy of ``network`` that computes with rounded numbers.

    Args:
        weights: how to round those of all layers (see `layers_of`), or of the named ones: a number of bits, or any
            function such as `ternary`. With bits, `uniform` makes the grids, symmetric and one a channel unless
            ``options`` of it say otherwise.
        inputs: grids for what flows into the named layers, as `calibrate` computes them.
        trainable: False rounds the weights once and for all. True rounds them anew whenever they are used, with
            straight-through gradients: quantization-aware training; its parameters are the unrounded weights.
    """
    network = copy.deepcopy(network)
    layers = layers_of(network)
    plan = weights if isinstance(weights, Mapping) else dict.fromkeys(layers, weights)
    if unknown := [name for name in [*plan, *(inputs or {})] if name not in layers]:
        raise ValueError(f"there is no layer {unknown[0]!r} with weights; there are {', '.join(layers)}")
    for name, how in plan.items():
        parametrize.register_parametrization(layers[name], "weight", _Rounding(how, options))
        if not trainable:
            parametrize.remove_parametrizations(layers[name], "weight", leave_parametrized=True)
    for name, grid in (inputs or {}).items():
        layers[name].register_forward_pre_hook(lambda layer, inputs, *, grid=grid: grid(inputs[0]))
    return network


class _Rounding(nn.Module):
    def __init__(self, how: int | Rounder, options: Mapping[str, bool | str | int | None]):
        super().__init__()
        self.how, self.options = how, {"axis": 0, **options}

    def forward(self, weight: Tensor) -> Tensor:
        return uniform(weight, self.how, **self.options)(weight) if isinstance(self.how, int) else self.how(weight)


def calibrate(network: nn.Module, pictures: Tensor, bits: int = 8, **options: bool | str) -> dict[str, Affine]:
    """A grid for the input of every layer, from what flows through the network when it sees ``pictures``.

    One grid a layer, asymmetric unless ``options`` say otherwise (see `uniform`).
    """
    grids: dict[str, Affine] = {}

    def observe(name: str, layer: Layer, inputs: tuple[Tensor], output: Tensor) -> None:
        grids[name] = uniform(inputs[0], bits, **{"symmetric": False, **options})

    _watch(network, pictures, observe)
    return grids


def bias_corrected(rounded: nn.Module, network: nn.Module, pictures: Tensor) -> nn.Module:
    """A copy of ``rounded`` in which the mean output of every channel is what it is in ``network``, on ``pictures``.

    Rounding errors do not cancel: they shift means, as a DC offset does. The shift is moved into the biases, layer by
    layer, each one seeing what the layers before it have become (Nagel et al. 2019, arXiv:1906.04721).
    """
    means: dict[str, Tensor] = {}

    def note(name: str, layer: Layer, inputs: tuple[Tensor], output: Tensor) -> None:
        means[name] = output.transpose(0, 1).flatten(1).mean(1)

    def correct(name: str, layer: Layer, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        shift = means[name] - output.transpose(0, 1).flatten(1).mean(1)
        layer.bias = nn.Parameter(shift if layer.bias is None else layer.bias + shift, layer.weight.requires_grad)
        return output + shift.view(-1, *[1] * (output.ndim - 2))

    corrected = copy.deepcopy(rounded)
    _watch(network, pictures, note)
    _watch(corrected, pictures, correct)
    return corrected


@torch.no_grad()
def _watch(network: nn.Module, pictures: Tensor, watch: Callable[..., Tensor | None]) -> None:
    """Ask once; ``watch(name, layer, inputs, output)`` follows every layer, and what it returns replaces the output."""
    with ExitStack() as hooks:
        for name, layer in layers_of(network).items():
            hooks.enter_context(layer.register_forward_hook(partial(watch, name)))
        logits_of(network, pictures)


def as_int8(network: nn.Module, pictures: Tensor) -> nn.Module:
    """A copy that stores int8 weights and calls PyTorch's quantized operations: torchao's export path for x86 CPUs.

    Calibrated on ``pictures``; takes batches of their shape, on the CPU. It is slower than ``network`` until
    `torch.compile` has turned it into a program for whole numbers, which needs a C++ compiler.

    Raises:
        RuntimeError: with a torchao that is too old for this PyTorch.
    """
    check_batch(pictures)
    with torch.no_grad(), warnings.catch_warnings(), ExitStack() as afterwards:
        warnings.simplefilter("ignore")  # the remarks of torchao and torch.export about their own future
        afterwards.callback(logging.disable, logging.root.manager.disable)
        logging.disable(logging.WARNING)
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
        from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

        quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
        exported = torch.export.export(copy.deepcopy(network).cpu(), (pictures.cpu(),)).module()
        prepared = prepare_pt2e(exported, quantizer)
        prepared(pictures.cpu())
        converted = convert_pt2e(prepared)
    if not any(value.dtype == torch.int8 for value in converted.state_dict().values()):
        raise RuntimeError(f"torchao finds no layers in what torch {torch.__version__} exports: update torchao")
    return converted


# --- mixed precision ---------------------------------------------------------------------------------------------


@torch.no_grad()
def divergence(network: nn.Module, other: nn.Module, pictures: Tensor) -> float:
    """How differently two networks judge: the mean over pictures of KL(network's classes || other's), in nats."""
    p, q = (logits_of(judge, pictures).log_softmax(1) for judge in (network, other))
    return F.kl_div(q, p, reduction="batchmean", log_target=True).item()


def sensitivity(
    network: nn.Module, pictures: Tensor, choices: Sequence[int] = (2, 3, 4, 8), **options: Any
) -> dict[str, dict[int, float]]:
    """What it costs to round the weights of one layer alone: layer -> bits -> `divergence` from ``network``."""
    return {
        name: {bits: divergence(network, quantized(network, {name: bits}, **options), pictures) for bits in choices}
        for name in layers_of(network)
    }


def allocate(costs: Mapping[str, Mapping[int, float]], sizes: Mapping[str, int], budget: float) -> dict[str, int]:
    """Bits for each layer: the least sum of ``costs`` (layer -> bits -> cost) that fits a ``budget`` of bits in all.

    Exact: layer by layer, only choices survive that no other beats in both size and cost. ``sizes``: how many weights
    each layer has. ValueError, with the least budget that will do, if nothing fits.

    Example:
        >>> allocate({"a": {2: 5, 4: 0}, "b": {2: 1, 4: 0}}, {"a": 10, "b": 10}, budget=60)
        {'a': 4, 'b': 2}
    """
    front: list[tuple[float, float, dict[str, int]]] = [(0, 0.0, {})]
    for name, options in costs.items():
        grown = [(s + b * sizes[name], c + options[b], {**bits, name: b}) for s, c, bits in front for b in options]
        front = []
        for choice in sorted(grown, key=lambda choice: choice[:2]):
            if choice[0] <= budget and (not front or choice[1] < front[-1][1]):
                front.append(choice)
    if not front:
        least = sum(min(options) * sizes[name] for name, options in costs.items())
        raise ValueError(f"a budget of {budget:g} bits is too small: the least that will do is {least:g}")
    return front[-1][2]


def macs(network: nn.Module, pictures: Tensor) -> dict[str, int]:
    """How many products a layer adds up for one of ``pictures`` (multiply-accumulates), counted as they flow through.

    Times the bits of a weight and those of an input, it is the number of one-bit products behind them.
    """
    counts = dict.fromkeys(layers_of(network), 0)

    def count(name: str, layer: Layer, inputs: tuple[Tensor], output: Tensor) -> None:
        counts[name] += output[0].numel() * layer.weight[0].numel()

    _watch(network, pictures, count)
    return counts


# --- XNOR-Net ------------------------------------------------------------------------------------------------------


class XnorConv2d(nn.Conv2d):
    """XNOR-Net's convolution: signs of the input times signs of the weights (Rastegari et al. 2016, arXiv:1603.05279).

    y = (sign(x) * sign(w)) K a + bias, with the scale factors a, the mean |w| of each output channel, and K, the mean
    |x| over the window at each position. Gradients pass a sign where its argument lies in [-1, 1].
    Padding is laid around x before the sign is taken, so that it has one, too. `packed` computes the same by bits.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0, bias: bool = True):
        super().__init__(inputs, outputs, kernel, stride, padding, bias=bias)
        self.border = [padding] * 4

    def forward(self, input: Tensor) -> Tensor:
        """The output (N, C, h, w), computed on signs that are floating-point numbers."""
        x = F.pad(input, self.border)
        bits = (straight_through(signs(numbers), numbers.clamp(-1, 1)) for numbers in (x, self.weight))
        return self._scaled(F.conv2d(*bits, stride=self.stride), x)

    def packed(self, x: Tensor) -> Tensor:
        """The output computed with XOR and popcount alone, on signs packed eight to a byte."""
        x = F.pad(x, self.border)
        columns = F.unfold(x, self.kernel_size, stride=self.stride)  # (N, C k k, positions)
        dots = xnor_dot(pack(self.weight.flatten(1))[:, None], pack(columns.mT)[:, None], columns.shape[1])
        places = [(side - k) // s + 1 for side, k, s in zip(x.shape[2:], self.kernel_size, self.stride, strict=True)]
        return self._scaled(dots.unflatten(2, places).to(x.dtype), x)

    def _scaled(self, dots: Tensor, x: Tensor) -> Tensor:
        k = F.avg_pool2d(x.abs().mean(1, keepdim=True), self.kernel_size, self.stride)
        y = dots * k * magnitude(self.weight).view(-1, 1, 1)
        return y if self.bias is None else y + self.bias.view(-1, 1, 1)
