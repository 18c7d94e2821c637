"""Numbers and networks with few bits: closed forms, brute force, and PyTorch's and torchao's own quantization."""

from __future__ import annotations

import itertools
import json
import logging
import math
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import labkit as lk
from labkit.networks.recommended import Recommended
from labkit.outlook.quantization import (
    XnorConv2d,
    allocate,
    as_int8,
    bias_corrected,
    calibrate,
    divergence,
    layers_of,
    macs,
    quantized,
    sensitivity,
)
from labkit.outlook.rounding import (
    Affine,
    affine,
    binary,
    magnitude,
    pack,
    popcount,
    signs,
    straight_through,
    ternary,
    uniform,
    xnor_dot,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def network(seed: int = 0) -> nn.Sequential:
    """Two convolutions and a linear layer on pictures of 8 x 8, untrained, with biases of some size."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU(), nn.MaxPool2d(2)]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(72, 5)).eval()


PICTURES = normal(16, 1, 8, 8, seed=9)
GRIDS = pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "asymmetric"])
CLIPS = ("minmax", "percentile", "mse", "kl")


# --- uniform grids -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("power_of_two", [False, True])
@pytest.mark.parametrize("bits", [2, 3, 8, 12])
@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (-0.3, 2.0), (0.0, 5.0), (1.0, 2.0), (-3.0, -1.0)])
@GRIDS
def test_a_grid_covers_its_range_and_holds_zero(
    low: float, high: float, bits: int, symmetric: bool, power_of_two: bool
) -> None:
    grid = affine(low, high, bits, symmetric=symmetric, power_of_two=power_of_two)
    x = torch.linspace(low, high, 1001)
    assert (grid(x) - x).abs().max() <= grid.scale / 2 * 1.001  # at the ends, too: they move by half a step at most
    assert grid(torch.zeros(1)) == 0
    everything = grid.quantize(torch.linspace(-9, 9, 100_001))
    assert everything.unique().tolist() == list(range(-(2 ** (bits - 1)) + symmetric, 2 ** (bits - 1)))
    if power_of_two:
        assert math.log2(grid.scale).is_integer()


def test_every_bit_is_worth_six_decibels() -> None:
    x = torch.rand(200_000, generator=torch.Generator().manual_seed(0)) * 2 - 1
    noise = [(affine(-1, 1, bits)(x) - x).square().mean() for bits in range(4, 10)]
    decibels = [10 * math.log10(a / b) for a, b in itertools.pairwise(noise)]
    assert decibels == pytest.approx([20 * math.log10(2)] * 5, abs=0.6)
    assert sum(decibels) / 5 == pytest.approx(20 * math.log10(2), abs=0.15)


@GRIDS
@pytest.mark.parametrize(("bits", "dtype"), [(2, torch.int8), (8, torch.int8), (9, torch.int32)])
def test_whole_numbers_stand_for_the_rounded_ones(bits: int, dtype: torch.dtype, symmetric: bool) -> None:
    x = normal(1000)
    grid = uniform(x, bits, symmetric=symmetric)
    q = grid.quantize(2 * x)
    assert q.dtype == dtype and q.min() == grid.low and q.max() == grid.high
    assert torch.equal((q - grid.zero_point) * grid.scale, grid(2 * x))
    assert torch.equal(grid(grid(x)), grid(x))


@GRIDS
@pytest.mark.parametrize("bits", [3, 8])
def test_rounding_agrees_with_pytorch(bits: int, symmetric: bool) -> None:
    x = (3 * normal(5000)).requires_grad_()
    grid = affine(-2.0, 1.5, bits, symmetric=symmetric)
    theirs = torch.fake_quantize_per_tensor_affine(x, grid.scale, grid.zero_point.int(), grid.low, grid.high)
    ours = grid(x)
    torch.testing.assert_close(ours, theirs)
    weights = normal(5000, seed=1)
    gradients = [torch.autograd.grad((y * weights).sum(), x)[0] for y in (ours, theirs)]
    torch.testing.assert_close(*gradients)
    assert 0.1 < (gradients[0] == 0).float().mean() < 0.9


@pytest.mark.parametrize("axis", [0, 1])
def test_rounding_of_channels_agrees_with_pytorch(axis: int) -> None:
    x = normal(6, 5, 3, 3) * torch.logspace(-2, 2, 5)[:, None, None]
    grid = uniform(x, axis=axis)
    assert grid.scale.shape == ((6, 1, 1, 1) if axis == 0 else (1, 5, 1, 1))
    scale, zero = grid.scale.flatten(), grid.zero_point.flatten().int()
    torch.testing.assert_close(grid(x), torch.fake_quantize_per_channel_affine(x, scale, zero, axis, -127, 127))


@GRIDS
@pytest.mark.parametrize("bits", [4, 8])
def test_scales_and_whole_numbers_agree_with_torchao(bits: int, symmetric: bool) -> None:
    primitives = pytest.importorskip("torchao.quantization.quant_primitives")
    kinds = primitives.MappingType
    x = normal(8, 40) + 0.3
    ours = uniform(x, bits, axis=0, symmetric=symmetric)
    kind = kinds.SYMMETRIC_NO_CLIPPING_ERR if symmetric else kinds.ASYMMETRIC
    options = (kind, (1, 40), torch.int8, ours.low, ours.high)
    scale, zero = primitives.choose_qparams_affine(x, *options)
    torch.testing.assert_close(ours.scale.flatten(), scale)
    assert torch.equal(ours.zero_point.flatten().int(), zero)
    whole = primitives.quantize_affine(x, (1, 40), scale, zero, torch.int8, ours.low, ours.high)
    assert torch.equal(ours.quantize(x), whole)


def test_a_power_of_two_is_the_next_one_above() -> None:
    x = normal(20, 100)
    ratio, fixed = (uniform(x, 4, axis=0, power_of_two=p).scale for p in (False, True))
    assert ((fixed / ratio >= 1) & (fixed / ratio < 2)).all() and (fixed / ratio).max() > 1.3


def test_channels_of_zeros_stay_zero() -> None:
    x = torch.stack([torch.zeros(9), normal(9)])
    for clip in CLIPS:
        rounded = uniform(x, 4, axis=0, clip=clip)(x)
        assert (rounded[0] == 0).all() and (rounded[1] != 0).any()


# --- the choice of the range -------------------------------------------------------------------------------------


def spread(name: str) -> Tensor:
    x = normal(20_000)
    return {"normal": x, "relu": x.relu(), "heavy": x**3, "outliers": torch.cat([x, torch.full((5,), 30.0)])}[name]


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("name", ["normal", "relu", "heavy", "outliers"])
@GRIDS
def test_mse_finds_the_best_fraction_of_the_range(name: str, bits: int, symmetric: bool) -> None:
    x = spread(name)
    found = (uniform(x, bits, clip="mse", symmetric=symmetric)(x) - x).square().mean()
    tried = [
        (affine(f * x.min(), f * x.max(), bits, symmetric=symmetric)(x) - x).square().mean()
        for f in torch.linspace(0.02, 1, 50)
    ]
    assert min(tried) <= found <= 1.03 * min(tried)
    if bits < 8:
        assert found < 0.8 * tried[-1]


@pytest.mark.parametrize("bits", [2, 4, 5])
def test_mse_finds_the_optimum_of_a_gaussian(bits: int) -> None:
    """Against the expected error of a step, which is an integral over the bell curve."""
    x = torch.linspace(-8, 8, 100_001)
    density = torch.exp(-x.square() / 2)
    top = 2 ** (bits - 1) - 1
    steps = torch.linspace(0.05, 2, 391)
    errors = torch.stack(
        [(density * (x - step * (x / step).round().clamp(-top, top)).square()).sum() for step in steps]
    )
    best = steps[errors.argmin()].item()
    assert uniform(normal(400_000), bits, clip="mse").scale.item() == pytest.approx(best, rel=0.06)


def test_percentile_leaves_out_one_in_a_thousand() -> None:
    x = torch.arange(10_000.0)[torch.randperm(10_000, generator=torch.Generator().manual_seed(0))] - 5000
    grid = uniform(x, 16, clip="percentile", symmetric=False)
    ends = [((q - grid.zero_point) * grid.scale).item() for q in (grid.low, grid.high)]
    assert ends == pytest.approx([-4995, 4994], abs=0.2)


def naive_divergence(counts: np.ndarray, centers: np.ndarray, low: float, high: float, bits: int) -> float:
    """The same with plain loops, for one symmetric grid."""
    top = 2 ** (bits - 1) - 1
    scale = max(-low, high) / top
    level = [round(c / scale) for c in centers]
    inside = [i for i, v in enumerate(level) if abs(v) <= top]
    p = {i: counts[i] for i in inside}
    for i, count in enumerate(counts):
        if i not in p:
            p[inside[0] if i < inside[0] else inside[-1]] += count
    q = {}
    for value in {level[i] for i in inside}:
        members = [i for i in inside if level[i] == value]
        filled = [i for i in members if counts[i] > 0]
        q |= {i: counts[members].sum() / len(filled) if i in filled else 0.0 for i in members}
    total_p, total_q = sum(p.values()), sum(q.values())
    terms = [p[i] / total_p * math.log(p[i] / total_p / max(q[i] / total_q, 1e-9)) for i in inside if p[i] > 0]
    return sum(terms)


@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_divergence_of_histograms_agrees_with_loops(bits: int, fraction: float) -> None:
    from labkit.outlook.rounding import _divergence

    x = normal(3000) ** 3
    counts, edges = torch.histogram(x, 200)
    centers = (edges[1:] + edges[:-1]) / 2
    low, high = fraction * x.min(), fraction * x.max()
    grid = affine(low.view(1, 1), high.view(1, 1), bits, symmetric=True)
    expected = naive_divergence(counts.numpy(), centers.numpy(), low.item(), high.item(), bits)
    assert _divergence(counts[None], centers[None], grid).item() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("clip", ["mse", "kl"])
def test_zeros_do_not_pull_at_the_range(clip: str) -> None:
    x = spread("heavy").relu()
    positive = x[x > 0]
    few, many = (uniform(y, 4, clip=clip, symmetric=False).scale for y in (positive, F.pad(positive, (0, 100_000))))
    assert few == many < uniform(x, 4, symmetric=False).scale


@pytest.mark.parametrize("clip", CLIPS)
def test_numbers_of_one_sign_far_from_zero_are_calibrated_as_well(clip: str) -> None:
    x = torch.linspace(1, 1.1, 9)  # the smallest grids that are tried end long before the first of them
    grid, mirrored = uniform(x, 2, clip=clip), uniform(-x, 2, clip=clip)
    torch.testing.assert_close(mirrored.scale, grid.scale, rtol=0.03, atol=0)
    assert 0.5 < grid.scale <= 1.1


@pytest.mark.parametrize("clip", CLIPS)
def test_numbers_in_half_precision_are_calibrated_as_well(clip: str) -> None:
    x = normal(200_000).half()  # whose counts no half precision holds
    assert uniform(x, 4, clip=clip).scale.item() == uniform(x.float(), 4, clip=clip).scale.item()


@pytest.mark.parametrize("clip", CLIPS)
def test_channels_are_clipped_each_by_itself(clip: str) -> None:
    x = normal(4, 500) ** 3 * torch.logspace(-2, 2, 4)[:, None]
    together = uniform(x, 4, axis=0, clip=clip).scale.flatten()
    torch.testing.assert_close(together, torch.stack([uniform(row, 4, clip=clip).scale for row in x]))


# --- gradients ---------------------------------------------------------------------------------------------------


def test_straight_through_has_one_value_and_the_others_gradient() -> None:
    soft = (normal(1000) * torch.logspace(-6, 6, 1000)).requires_grad_()
    hard = normal(1000, seed=1)
    y = straight_through(hard, soft**2)
    assert torch.equal(y, hard)
    torch.testing.assert_close(torch.autograd.grad(y.sum(), soft)[0], 2 * soft)


def test_a_step_learns_by_the_formula_of_lsq() -> None:
    x = 2 * normal(500)
    grid = affine(-1.0, 1.0, 4, symmetric=True)
    scale = grid.scale.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(type(grid)(scale, grid.zero_point, grid.low, grid.high)(x).sum(), scale)
    v = x / grid.scale
    expected = torch.where(v.abs() > 7.5, 7 * v.sign(), v.round().clamp(-7, 7) - v).sum()
    torch.testing.assert_close(gradient, expected)


# --- three values, two values, bits ------------------------------------------------------------------------------


def test_ternary_is_the_best_of_all_thresholds() -> None:
    weight = normal(5, 3, 2, 2) ** 3
    rounded = ternary(weight)
    for row, found in zip(weight.flatten(1), rounded.flatten(1), strict=True):
        errors = []
        for threshold in row.abs():
            kept = row.abs() >= threshold
            errors.append((row - row[kept].abs().mean() * row.sign() * kept).square().sum())
        torch.testing.assert_close((row - found).square().sum(), min(errors))
        assert len(found.abs().unique()) == 2


def test_binary_has_the_best_scale() -> None:
    weight = normal(3, 2, 3, 3)
    rounded = binary(weight)
    assert torch.equal(rounded.sign(), weight.sign())
    for factor in (0.9, 0.99, 1.01, 1.1):
        assert ((weight - rounded).square().sum((1, 2, 3)) < (weight - factor * rounded).square().sum((1, 2, 3))).all()


@pytest.mark.parametrize("rounder", [ternary, binary])
def test_few_values_pass_the_gradient_on(rounder: Callable[[Tensor], Tensor]) -> None:
    weight, direction = normal(4, 10).requires_grad_(), normal(4, 10, seed=1)
    (gradient,) = torch.autograd.grad((rounder(weight) * direction).sum(), weight)
    torch.testing.assert_close(gradient, direction)


def test_popcount_of_every_byte() -> None:
    words = torch.arange(256, dtype=torch.uint8)
    assert popcount(words).tolist() == [value.bit_count() for value in range(256)]


@pytest.mark.parametrize("n", [1, 7, 8, 9, 64, 100])
def test_products_of_bits_are_products_of_signs(n: int) -> None:
    a, b = normal(6, n), normal(4, n, seed=1)
    assert np.array_equal(pack(a).numpy(), np.packbits(a.numpy() >= 0, axis=1, bitorder="little"))
    dots = xnor_dot(pack(a)[:, None], pack(b), n)
    assert torch.equal(dots, (signs(a) @ signs(b).T).int())


def test_the_sign_of_zero_is_positive_in_both_forms() -> None:
    assert signs(torch.zeros(1)) == 1 and pack(torch.zeros(8)) == 255


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 0), (1, 1, 0), (5, 3, 2)])
@pytest.mark.parametrize("bias", [True, False])
def test_xnor_convolution_by_bits_is_exact(kernel: int, stride: int, padding: int, bias: bool) -> None:
    layer = XnorConv2d(3, 4, kernel, stride, padding, bias=bias)
    x = normal(2, 3, 11, 9)
    with torch.no_grad():
        assert torch.equal(layer.packed(x), layer(x))


def test_xnor_convolution_is_the_papers_formula() -> None:
    layer = XnorConv2d(2, 3, 3, padding=1)
    x = normal(1, 2, 5, 6)
    padded = F.pad(x, (1, 1, 1, 1))
    with torch.no_grad():
        y = layer(x)
    for o, i, j in itertools.product(range(3), range(5), range(6)):
        window, kernel = padded[0, :, i : i + 3, j : j + 3], layer.weight[o]
        expected = (signs(window) * signs(kernel)).sum() * kernel.abs().mean() * window.abs().mean() + layer.bias[o]
        torch.testing.assert_close(y[0, o, i, j], expected, rtol=1e-4, atol=1e-5)


def test_xnor_convolution_approximates_the_full_one() -> None:
    layer, x = XnorConv2d(64, 8, 3, bias=False), normal(4, 64, 9, 9)
    with torch.no_grad():
        y, full = layer(x).flatten(), F.conv2d(x, layer.weight).flatten()
    assert torch.cosine_similarity(y, full, 0).item() == pytest.approx(2 / math.pi, abs=0.08)  # of Gaussians


def test_xnor_convolution_learns() -> None:
    layer, x = XnorConv2d(4, 2, 3), 3 * normal(2, 4, 8, 8)
    x.requires_grad_()
    layer(x).square().sum().backward()
    assert layer.weight.grad.count_nonzero() == layer.weight.numel()
    inside = x.detach().abs() <= 1
    assert x.grad[inside].count_nonzero() > 0.9 * inside.sum()


# --- networks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trainable", [False, True])
def test_quantized_is_a_copy_with_rounded_weights(trainable: bool) -> None:
    net = network()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    rounded = quantized(net, 3, trainable=trainable)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    for name, layer in layers_of(rounded).items():
        expected = torch.stack([uniform(channel, 3)(channel) for channel in layers_of(net)[name].weight])
        torch.testing.assert_close(layer.weight, expected)
        assert torch.equal(layer.bias, layers_of(net)[name].bias)


def test_quantized_takes_options_and_rounders_by_layer() -> None:
    net = network()
    rounded = layers_of(quantized(net, {"0": 4, "6": ternary}, axis=None, clip="mse"))
    weights = {name: layer.weight for name, layer in layers_of(net).items()}
    assert torch.equal(rounded["0"].weight, uniform(weights["0"], 4, clip="mse")(weights["0"]))
    assert torch.equal(rounded["2"].weight, weights["2"])
    assert torch.equal(rounded["6"].weight, ternary(weights["6"]))


def test_inputs_are_rounded_to_calibrated_grids() -> None:
    net = network()
    grids = calibrate(net, PICTURES, 4)
    assert list(grids) == list(layers_of(net)) == ["0", "2", "6"]
    x = PICTURES
    with torch.no_grad():
        for index, module in enumerate(net):
            if str(index) in grids:
                full = net[:index](PICTURES)
                assert grids[str(index)].scale == uniform(full, 4, symmetric=False).scale
                x = grids[str(index)](x)
            x = module(x)
        torch.testing.assert_close(quantized(net, {}, grids)(PICTURES), x)
    assert not torch.equal(x, net(PICTURES))


def test_calibration_leaves_no_trace() -> None:
    net = network()
    before = net(PICTURES)
    with pytest.raises(ValueError, match="NaN"):
        calibrate(net, PICTURES * math.nan)
    calibrate(net, PICTURES)
    assert torch.equal(net(PICTURES), before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


@pytest.mark.slow
def test_eight_bits_agree_with_torchaos_export_path() -> None:
    """The same ranges give the same network; torchao's own observers would choose the ranges by histogram."""
    pytest.importorskip("torchao")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchao.quantization.pt2e import MinMaxObserver, PerChannelMinMaxObserver
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
        from torchao.quantization.pt2e.quantizer import QuantizationSpec
        from torchao.quantization.pt2e.quantizer.utils import QuantizationConfig
        from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import X86InductorQuantizer

        inputs = QuantizationSpec(torch.int8, MinMaxObserver, -128, 127, torch.per_tensor_affine)
        weights = QuantizationSpec(
            torch.int8, PerChannelMinMaxObserver, -127, 127, torch.per_channel_symmetric, ch_axis=0
        )
        net = network()
        prepared = prepare_pt2e(
            torch.export.export(net, (PICTURES,)).module(),
            X86InductorQuantizer().set_global(QuantizationConfig(inputs, None, weights, None)),
        )
        prepared(PICTURES)
        observed = [module for module in prepared.modules() if isinstance(module, PerChannelMinMaxObserver)]
        if not observed:  # in what another version of PyTorch exports
            pytest.skip(f"torchao {version('torchao')} finds no layers in what torch {torch.__version__} exports")
        assert len(observed) == len(layers_of(net))
        theirs = convert_pt2e(prepared)(PICTURES)
    ours = quantized(net, 8, calibrate(net, PICTURES))(PICTURES)
    error = (net(PICTURES) - ours).abs().mean()
    assert (theirs - ours).abs().mean() < 0.2 * error
    assert 0 < error < 0.02 * net(PICTURES).abs().mean()


def test_int8_stores_whole_numbers_and_stays_close() -> None:
    pytest.importorskip("torchao")
    backbone = tiny_backbone()
    pictures = torch.rand(4, 3, 20, 24, generator=torch.Generator().manual_seed(0))
    silenced = logging.root.manager.disable
    try:
        whole = as_int8(backbone, pictures)
    except RuntimeError as error:
        if "finds no layers" not in str(error):
            raise
        pytest.skip(str(error))
    assert logging.root.manager.disable == silenced
    stored = {value.shape: value for value in whole.state_dict().values() if value.dtype == torch.int8}
    kernel = backbone.stages[2].weight
    assert torch.equal(stored[kernel.shape], affine_of(kernel).quantize(kernel))
    full = backbone.logits(pictures)
    error = (whole(pictures) - full).norm() / full.norm()
    assert 0 < error < 0.03


def affine_of(weight: Tensor) -> Affine:
    """torchao's grid: symmetric, but with the whole range of int8, which is a step wider on the negative side."""
    bound = weight.abs().amax((1, 2, 3), keepdim=True)
    return Affine(bound / 127.5, torch.zeros_like(bound), -128, 127)


def test_training_moves_the_unrounded_weights() -> None:
    targets = torch.arange(16) % 5
    net = quantized(network(), 2, trainable=True)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(PICTURES), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
    for layer in layers_of(net).values():
        assert all(len(channel.unique()) <= 3 for channel in layer.weight)
        assert len(layer.parametrizations.weight.original.unique()) == layer.weight.numel()


@pytest.mark.parametrize("bias", [True, False])
def test_bias_correction_restores_the_mean_of_every_channel(bias: bool) -> None:
    net = network()
    if not bias:
        net[2].bias = None
    rounded = quantized(net, 2, calibrate(net, PICTURES, 4))
    corrected = bias_corrected(rounded, net, PICTURES)

    def means(one: nn.Module) -> list[Tensor]:
        with torch.no_grad():
            return [one[:depth](PICTURES).transpose(0, 1).flatten(1).mean(1) for depth in (1, 3, 7)]

    torch.testing.assert_close(means(corrected), means(net), rtol=1e-4, atol=1e-5)
    assert (means(rounded)[-1] - means(net)[-1]).abs().max() > 0.01
    assert torch.equal(corrected[2].weight, rounded[2].weight)


def test_products_are_counted_as_pytorch_counts_them() -> None:
    layers = nn.Conv2d(4, 6, (3, 5), stride=2, padding=1, groups=2), nn.Flatten(), nn.Linear(6 * 5 * 4, 3)
    net, pictures = nn.Sequential(*layers), normal(2, 4, 10, 10)
    with FlopCounterMode(display=False) as oracle:
        net(pictures)
    found = macs(net, pictures)
    assert found == {"0": 6 * 5 * 4 * 2 * 3 * 5, "2": 120 * 3}
    assert 2 * len(pictures) * sum(found.values()) == oracle.get_total_flops()


def test_with_powers_of_two_whole_numbers_give_the_floats_to_the_last_bit() -> None:
    x, weight = normal(20, 300).relu(), normal(7, 300, seed=1)
    xs, ws = uniform(x, power_of_two=True), uniform(weight, 4, axis=0, power_of_two=True)
    whole = xs.quantize(x).int() @ ws.quantize(weight).int().T
    assert torch.equal(whole * (xs.scale * ws.scale).T, xs(x) @ ws(weight).T)


def test_divergence_is_kullbacks() -> None:
    first, second = network(0), network(1)
    p, q = (one(PICTURES).softmax(1).detach().double().numpy() for one in (first, second))
    assert divergence(first, second, PICTURES) == pytest.approx((p * np.log(p / q)).sum(1).mean(), rel=1e-4)
    assert divergence(first, first, PICTURES) == pytest.approx(0, abs=1e-7)


def test_sensitivity_rounds_one_layer_at_a_time() -> None:
    net = network()
    found = sensitivity(net, PICTURES, choices=(2, 8), clip="mse")
    assert {name: list(costs) for name, costs in found.items()} == {name: [2, 8] for name in ("0", "2", "6")}
    assert all(costs[2] > 10 * costs[8] > 0 for costs in found.values())
    alone = divergence(net, quantized(net, {"2": 2}, clip="mse"), PICTURES)
    assert found["2"][2] == alone


@pytest.mark.parametrize("seed", range(5))
def test_allocation_is_as_good_as_trying_everything(seed: int) -> None:
    random = np.random.default_rng(seed)
    sizes = {name: int(random.integers(1, 50)) for name in "abcde"}
    costs = {name: {bits: float(random.exponential() * 4.0**-bits) for bits in (2, 3, 4, 8)} for name in sizes}
    budget = 3.4 * sum(sizes.values())

    def size(bits: tuple[int, ...]) -> int:
        return sum(b * s for b, s in zip(bits, sizes.values(), strict=True))

    def cost(bits: tuple[int, ...]) -> float:
        return sum(costs[name][b] for name, b in zip(sizes, bits, strict=True))

    best = min((c for c in itertools.product((2, 3, 4, 8), repeat=5) if size(c) <= budget), key=cost)
    found = tuple(allocate(costs, sizes, budget).values())
    assert size(found) <= budget and cost(found) == pytest.approx(cost(best))


# --- backbones: the picture is the parameter -----------------------------------------------------------------------


def tiny_backbone() -> lk.Backbone:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        stages: OrderedDict[str, nn.Module] = OrderedDict(
            conv1=nn.Conv2d(3, 8, 3, padding=1), relu1=nn.ReLU(), conv2=nn.Conv2d(8, 8, 3, padding=1), relu2=nn.ReLU()
        )
        return lk.Backbone("tiny", stages, nn.Linear(8, 5), Recommended({"relu2": 1.0}, ("relu2",), {"relu1": 1.0}))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_gradients_of_pixels_pass_a_rounded_backbone(precision: str) -> None:
    backbone = tiny_backbone()
    photo = torch.rand(2, 3, 20, 24, generator=torch.Generator().manual_seed(0))
    loss = -lk.activation("relu2")
    full = lk.Evaluator(backbone, loss, (20, 24), "float32")(photo).gradient.flatten()
    similar = []
    for bits in (8, 4, 2):
        rounded = quantized(backbone, bits, calibrate(backbone, photo, bits))
        gradient = lk.Evaluator(rounded, loss, (20, 24), precision)(photo).gradient.flatten()
        similar.append(torch.cosine_similarity(gradient, full, 0).item())
    assert similar[0] > 0.97 and similar[0] > similar[1] > similar[2]
    assert rounded.receptive_field("relu2") == backbone.receptive_field("relu2")


# --- bad input ---------------------------------------------------------------------------------------------------

NET = network()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: affine(-1, 1, 1), "bits must be a whole number from 2 to 16, not 1"),
        (lambda: affine(-1, 1, 17), "not 17"),
        (lambda: affine(-1, 1, 2.5), "not 2.5"),
        (lambda: affine(1, -1), "from a finite low to a finite high"),
        (lambda: uniform(torch.tensor([1.0, math.nan])), "NaN"),
        (lambda: uniform(torch.tensor([1.0, math.inf]), clip="mse"), "infinite"),
        (lambda: uniform(torch.zeros(0)), "nothing to calibrate on"),
        (lambda: uniform(torch.ones(3), clip="max"), "clip is one of minmax, percentile, mse, kl, not 'max'"),
        (lambda: quantized(nn.ReLU(), 8), "ReLU has no convolution"),
        (lambda: quantized(NET, {"7": 8}), "no layer '7' with weights; there are 0, 2, 6"),
        (lambda: quantized(NET, 8, {"1": affine(0, 1)}), "no layer '1'"),
        (lambda: quantized(NET, 1), "not 1"),
        (lambda: calibrate(NET, PICTURES[:0]), "at least one example"),
        (lambda: bias_corrected(NET, NET, PICTURES[:0]), "at least one example"),
        (lambda: divergence(NET, NET, PICTURES[:0]), "at least one example"),
        (lambda: macs(NET, PICTURES[:0]), "at least one example"),
        (lambda: macs(nn.ReLU(), PICTURES), "ReLU has no convolution"),
        (
            lambda: allocate({"a": {2: 1.0, 4: 0.0}}, {"a": 10}, 19),
            "19 bits is too small: the least that will do is 20",
        ),
    ],
)
def test_bad_input_is_explained(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_magnitudes_broadcast_with_their_weights() -> None:
    for shape in ((4, 3), (4, 3, 2, 2)):
        weight = normal(*shape)
        assert magnitude(weight).flatten().tolist() == pytest.approx(weight.flatten(1).abs().mean(1).tolist())
        assert (weight / magnitude(weight)).shape == weight.shape


# --- the recorded table ------------------------------------------------------------------------------------------


def test_without_a_compiler_the_recorded_table_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).resolve().parent.parent / "benchmarks")
    import int8

    def cannot() -> None:
        raise RuntimeError("no C++ compiler")

    before = int8.RECORD.read_text()
    monkeypatch.setattr(int8, "measure", cannot)
    monkeypatch.setattr(sys, "argv", ["int8.py"])
    try:
        int8.main()
    finally:
        logging.disable(logging.NOTSET)
    said = capsys.readouterr().out
    assert "no C++ compiler" in said and "recorded table" in said
    assert all(row["variant"] in said for row in json.loads(before)["rows"])
    assert int8.RECORD.read_text() == before
