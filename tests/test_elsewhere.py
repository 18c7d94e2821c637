"""What runs on a laptop runs on a GPU: every recipe on a machine with another device (for notebooks: `make machines`).

The device is `elsewhere`'s: its numbers are the CPU's, and what mixes devices, or what Apple's GPUs lack, fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any, get_args

import pytest
import torch
from elsewhere import ELSEWHERE, Device
from torch import Tensor, nn

import labkit as lk
from labkit import (
    adain,
    attack,
    blackbox,
    color,
    explain,
    faststyle,
    perturb,
    prior,
    quantize,
    rounding,
    shapes,
    superres,
)
from labkit.engine.progress import finish
from labkit.outlook.federated import Client, contraction, dirichlet_split, fedavg, gossip, metropolis, ring, weights_of
from labkit.recipes import video

SIZE = (40, 56)
cat = cache(lambda: lk.photo("chelsea", SIZE))
coffee = cache(lambda: lk.photo("coffee", SIZE))
koi = cache(lambda: lk.painting("koi_mosaic", 64))
CLASS = 285
QUIET = {"progress": False, "precision": "float32"}
LEFT = torch.cat([torch.ones(40, 28), torch.zeros(40, 28)], 1)
Recipe = Callable[[Tensor, lk.Backbone], Any]


def dream(photo: Tensor, network: lk.Backbone, layers: Any = None, **options: Any) -> Tensor:
    return lk.dream(photo, layers, backbone=network, **{"octaves": 2, "steps": 2, **QUIET, **options})


def stylize(photo: Tensor, network: lk.Backbone, painting: Any = None, **options: Any) -> Tensor:
    painting = koi() if painting is None else painting
    return lk.stylize(photo, painting, backbone=network, **{"steps": 3, **QUIET, **options})


def create(network: lk.Backbone, loss: lk.Loss | None = None, **options: Any) -> Tensor:
    loss = -lk.activation("relu3_1", channel=5, power=1) if loss is None else loss
    return lk.create(loss, backbone=network, size=48, steps=3, **QUIET, **options)


def attacked(photo: Tensor, network: lk.Backbone) -> list[Any]:
    labels, threat = torch.tensor([CLASS]), attack.Threat("l2", 1.0)
    evaluate = attack.untargeted(network.logits, labels)
    return [
        attack.fgsm(evaluate, photo, attack.Threat("linf", 0.1)),
        attack.pgd(evaluate, photo, threat, steps=2, seed=1),
        attack.deepfool(network.logits, photo, steps=2, classes=3),
        attack.pgd(blackbox.nes(network.logits, labels, samples=2), photo, threat, steps=1),
        blackbox.margin(network.logits(photo), labels),
        *blackbox.square(network.logits, photo, labels, attack.Threat("linf", 0.1), queries=5),
        blackbox.votes(network.logits, photo, 0.1, samples=4),
        *blackbox.certify(network.logits, photo, 0.1, samples=4),
    ]


def explained(photo: Tensor, network: lk.Backbone) -> list[Any]:
    score = explain.class_score(network, "Egyptian cat", "log")
    maps = explain.grad_cam(network, "relu4_3", CLASS, photo)
    segments = (torch.arange(40)[:, None] // 20 * 2 + torch.arange(56) // 28).to(photo.device)
    with explain.guided(network):
        pretty = explain.gradient(score, photo)
    return [
        score(photo),
        maps,
        pretty,
        *explain.smoothgrad(score, photo, samples=2),
        explain.integrated_gradients(score, photo, steps=2),
        explain.deletion_curve(score, photo, maps, 0.5, steps=2),
        explain.overlay(photo, maps),
        lk.heat(maps.clamp(0, 1)),
        perturb.occlusion(score, photo, 20, 20),
        perturb.shapley(*perturb.erasing(score, photo, segments)).float(),
        perturb.lime(*perturb.erasing(score, photo, segments)).float(),
        explain.gradient(explain.class_score(explain.randomized(network, "relu4_1"), CLASS), photo),
    ]


def quantized(photo: Tensor, network: lk.Backbone) -> list[Any]:
    grids = quantize.calibrate(network, photo)
    rounded = quantize.quantized(network, 4, grids, clip="mse")
    first = next(iter(quantize.layers_of(network)))
    xnor = quantize.XnorConv2d(3, 4, 3, padding=1).to(network.device)
    return [
        rounded.logits(photo),
        quantize.bias_corrected(rounded, network, photo).logits(photo),
        quantize.quantized(network, rounding.ternary).logits(photo),
        quantize.divergence(network, rounded, photo),
        quantize.quantized(network, {first: 2}, trainable=True).logits(photo).detach(),
        (xnor.packed(photo.to(network.device)) - xnor(photo.to(network.device))).abs().amax().item(),
    ]


def together(photo: Tensor, network: lk.Backbone) -> list[Any]:
    """Federated, where the photo is."""
    random = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(24, 5, generator=random).to(photo), torch.arange(24).to(photo.device) % 3
    torch.manual_seed(0)
    model = nn.Linear(5, 3).to(photo.device)
    parts = dirichlet_split(targets, 4, 5.0)
    clients = [Client(inputs[part], targets[part]) for part in parts]
    mixing = metropolis(ring(4).to(photo.device))
    *_, mean = fedavg(clients, weights_of(model), model, rounds=2, batch_size=2)
    *_, apart = gossip(clients, weights_of(model), model, mixing, rounds=2)
    *_, private = lk.privacy.private_fedsgd(clients, weights_of(model), model, rounds=2, rate=0.5)
    message = lk.privacy.mask(mean.weights, 0, {1: 5})
    return [*parts, mean.weights, apart.weights, private.weights, contraction(mixing), message.tolist()[:2]]


def trained(photo: Tensor, network: lk.Backbone) -> list[Any]:
    """Of each of the lab's own networks what it says after two steps."""
    device, last = network.device, {"steps": 2, "batch": 1, "precision": "float32"}
    torch.manual_seed(0)
    enlarging, painting, decoder = superres.Upscaler(2, 8, 1), faststyle.StyleNetwork(["koi"], 4, 1), adain.Decoder()
    enlarging, painting, decoder = (net.to(device) for net in (enlarging, painting, decoder))
    large = [lk.photo("coffee", 96)]
    error = superres.perceptual(network)
    runs = [
        superres.training(enlarging, large, side=16, error=error, **last),
        faststyle.training(painting, {"koi": koi()}, large, network, side=48, **last),
        adain.training(decoder, [lk.resize(koi(), 60)], large, network, side=32, **last),
    ]
    return [step.error for run in runs for step in run]


def drawn(photo: Tensor, network: lk.Backbone) -> list[Any]:
    data, net = shapes.draw(32), shapes.network(gated=True).to(network.device)
    found = [net.logits(data.pictures), shapes.gates(net.features(data.pictures, ["gates"])["gates"])]
    shapes.fit(net, data, epochs=1, sparsity=0.01)  # Adam's first step hangs on signs: its numbers are no two machines'
    return [*found, float(net.logits(data.pictures).isfinite().all())]


def read(photo: Tensor, network: lk.Backbone) -> list[Any]:
    """What an evaluator tells: statistics, and what the bound loss makes of them, wherever they are."""
    style = (
        lk.style(koi()) + lk.style(coffee(), ["relu2_1"], statistic="wasserstein") + lk.histogram(coffee(), ["relu1_1"])
    )
    several = (
        torch.tensor([0.5]) * style + lk.content(coffee()) - lk.caricature(coffee(), "relu3_1") - lk.class_logit(CLASS)
    )
    evaluator = lk.Evaluator(network, several - lk.guide(coffee(), "relu2_1"), SIZE)
    found = evaluator(photo)
    terms = evaluator.loss.terms(evaluator.statistics(evaluator.loss, photo))
    features = evaluator.features(photo, ["relu4_1", "pixels"])
    return [
        found.loss,
        found.gradient,
        found.terms.values(),
        terms.values(),
        evaluator.loss.value(evaluator.statistics(evaluator.loss, photo)),
        features.values(),
        evaluator.gradients_by_term(photo).values(),
        evaluator.differentiable(photo),
    ]


def films(photo: Tensor, network: lk.Backbone) -> Iterator[Tensor]:
    def flow(frame: Tensor, other: Tensor) -> Tensor:
        return torch.full_like(frame[:, :2], 1.5)

    frames = [photo, video.zoom_rotate(photo, 1.1, 5.0)]
    yield frames[1]
    yield video.warped(photo, flow(photo, photo))
    yield from video.dream_frames(frames, backbone=network, flow=flow, steps=1, precision="float32")
    yield from video.stylize_frames(
        frames, koi(), backbone=network, flow=flow, steps=2, steps_after=1, precision="float32"
    )
    yield from video.journey(photo, backbone=network, seconds=0.2, fps=10, rotate=10, steps=1, precision="float32")


def restored(photo: Tensor, network: lk.Backbone) -> Tensor:
    return finish(prior.restoring(photo, LEFT[None, None], steps=2, device=network.device))


LOSSES: dict[str, Callable[[], lk.Loss]] = {
    "a direction": lambda: -lk.activation("relu3_1", direction=torch.linspace(-1, 1, 128)),
    "a neuron": lambda: -lk.activation("relu3_1", neuron=(0.5, 0.5), relative=True),
    "a class": lambda: -lk.class_logit("Egyptian cat"),
    "a guide": lambda: -lk.guide(coffee(), "relu3_1"),
    "a caricature": lambda: -lk.caricature(coffee(), "relu3_1"),
    "an anchor": lambda: lk.pixel_mse(coffee(), LEFT[None, None]) - 0.1 * lk.activation("relu3_1"),
    "transport": lambda: lk.relaxed_emd(koi(), ["relu2_1", "relu3_1"]) + lk.self_similarity(coffee(), "relu3_1"),
    "slices": lambda: lk.style(koi(), "pixels", statistic="sliced", projections=4) - lk.activation("relu3_1"),
    "energies": lambda: -lk.log_energy("relu3_1") - lk.class_evidence("castle"),
    "a region": lambda: lk.style(koi(), ["relu2_1"], mask=LEFT) - lk.activation("relu3_1"),
}
OF_A_PHOTO: dict[str, Recipe] = {
    "dream": dream,
    "a dream with everything": lambda p, n: dream(
        p, n, {"relu3_1": 1.0, "relu4_3": 2.0}, laplacian=2, decorrelate=True, mask="center", variations=2
    ),
    **{f"a dream of {name}": lambda p, n, loss=loss: dream(p, n, loss()) for name, loss in LOSSES.items()},
    "a dream on what is seen": lambda p, n: dream(p, n, mask="salient", anchor=0.5),
    "a dream in tiles": lambda p, n: dream(lk.grid([p] * 4, 2), n, tile=64, octaves=1),
    "a dream in another's pools": lambda p, n: dream(p, lk.variant(n, "l2", "reflect")),
    "a redirected dream": lambda p, n: dream(p, n.redirected(), -lk.activation("relu4_3", channel=3, power=1)),
    "gram": stylize,
    "wasserstein": lambda p, n: stylize(p, n, statistic="wasserstein", optimizer="lbfgs"),
    "histogram": lambda p, n: stylize(
        p, n, lk.style_objective(p, [koi(), coffee()], histogram_weight=1.0), min_scale=28
    ),
    "masks": lambda p, n: stylize(
        p, n, lk.style_objective(p, [koi(), coffee()], masks=[LEFT, 1 - LEFT], style_weights=[1, 2])
    ),
    "a border": lambda p, n: stylize(p, lk.variant(n, "average", "replicate"), init="noise"),
    **{f"colors: {c}": lambda p, n, c=c: stylize(p, n, color=c) for c in ("linear", "histogram-after", "luma")},
    "matched": lambda p, n: [color.matched(p, koi().to(p.device), kind) for kind in get_args(color.Kind)],
    "features": lambda p, n: [*n.features(p, ["relu1_1", "logits"]).values(), n.logits(p)],
    "an evaluator": read,
    "attacks": attacked,
    "explanations": explained,
    "quantization": quantized,
    "federated": together,
    "films": films,
    "upscale": lambda p, n: superres.upscale(p, superres.load_upscaler(device=n.device), tile=32),
    "repaint": lambda p, n: faststyle.repaint(p, "koi_mosaic", faststyle.load_network(device=n.device), 32),
    "transfer": lambda p, n: adain.transfer(p, koi(), backbone=n),
    "sheets": lambda p, n: [lk.grid([p, p], 2), lk.difference(p, 1 - p), lk.resize(p, 30)],
    "channels": lambda p, n: lk.ranked_channels(p, "relu3_1", 3, backbone=n),
}
OF_NOTHING: dict[str, Recipe] = {  # or of nothing but what the CPU holds
    **{
        f"create: {name}": lambda p, n, name=name: create(n, parameterization=name)
        for name in ("fourier", "spectrum", "maco", "laplacian", "cppn", "pixels")
    },
    "create: several": lambda p, n: create(n, lk.channels("relu3_1", [1, 2]) + lk.diversity("relu2_1"), variations=2),
    "create: crops": lambda p, n: create(n, crops=2, crop_share=(1, 0.6), crop_size=32, noise=0.1),
    "create: content in crops": lambda p, n: create(
        n, lk.content(p) - lk.class_evidence("castle"), crops=2, crop_size=40
    ),
    "create: from a picture": lambda p, n: create(n, lk.style(koi()), init=coffee(), parameterization="laplacian"),
    "prior": restored,
    "training": trained,
    "drawn pictures": drawn,
}


def tensors(found: Any) -> list[Tensor]:
    """What a recipe gives, numbers too, as tensors."""
    if isinstance(found, (Tensor, int, float)):
        return [found if isinstance(found, Tensor) else torch.tensor(float(found))]
    return [tensor for part in found for tensor in tensors(part)]


def agree(found: Iterable[Tensor], wanted: Iterable[Tensor]) -> None:
    """Within one per cent: optimizers enlarge the last bit, in which sums in another order differ."""
    for mine, other in zip(found, wanted, strict=True):
        assert mine.shape == other.shape and mine.dtype == other.dtype
        assert (mine - other).double().norm() <= 0.01 * other.double().norm()


@pytest.fixture(autouse=True)
def _exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_PRECISION", "float32")


@pytest.fixture(scope="module")
def on_cpu() -> lk.Backbone:
    return lk.load_backbone("pocket", "cpu")


@pytest.mark.slow
@pytest.mark.parametrize("apple", [False, True], ids=["GPU", "Apple's GPU"])
@pytest.mark.parametrize("recipe", [*OF_A_PHOTO, *OF_NOTHING])
def test_answers_come_home(recipe: str, apple: bool, on_cpu: lk.Backbone) -> None:
    """The network computes elsewhere: a photo's answers are where the photo is, and they are the CPU's."""
    work = (OF_A_PHOTO | OF_NOTHING)[recipe]
    wanted = tensors(work(cat(), on_cpu))
    with Device(apple) as device:
        network = lk.load_backbone("pocket")
        assert network.device == ELSEWHERE
        found = tensors(work(cat(), network))
        assert {one.device.type for one in found} == {"cpu"} and device.ran
        agree(found, wanted)
        if recipe in OF_A_PHOTO:
            found = tensors(work(cat().to(ELSEWHERE), network))
            assert any(one.device == ELSEWHERE for one in found if one.ndim) or not any(one.ndim for one in found)
            agree([one.cpu() for one in found], wanted)


def test_a_network_that_is_passed_in_stays_where_it_is(on_cpu: lk.Backbone) -> None:
    before = {name: value.clone() for name, value in on_cpu.state_dict().items()}
    assert lk.load_backbone(on_cpu) is lk.load_backbone(on_cpu, "cpu") is on_cpu
    with Device():
        there = lk.load_backbone(on_cpu, ELSEWHERE)
        assert there is not on_cpu and there.device == ELSEWHERE
        lk.dream(cat(), backbone=on_cpu, device=ELSEWHERE, octaves=1, steps=1, **QUIET)
    assert on_cpu.device.type == "cpu"
    assert all(torch.equal(value, before[name]) for name, value in on_cpu.state_dict().items())


# --- that the device is one ----------------------------------------------------------------------------------------

HERE = torch.arange(3.0)
REFUSED: dict[str, Callable[[Tensor], Any]] = {
    "a sum": lambda there: there + HERE,
    "a sum with a number of the device": lambda there: HERE + there.sum(),
    "a comparison": lambda there: there == torch.arange(3),
    "a list": lambda there: torch.stack([there.sum(), HERE.sum()]),
    "writing into the CPU's": lambda there: HERE.clone().add_(there),
    "an index of the CPU's": lambda there: HERE[there.long()],
    "numpy": lambda there: there.numpy(),
    "a choice": lambda there: torch.where(there > 1, HERE, there),
    "a product": lambda there: torch.eye(3) @ there,
    "a product with picked rows": lambda there: torch.eye(2) @ there[[2, 0]],
}


def slope(there: Tensor) -> Tensor:
    there = there.clone().requires_grad_()
    return torch.autograd.grad(there.square().sum(), there)[0]


TAKEN: dict[str, Callable[[Tensor], Any]] = {
    "a number of the CPU's": lambda there: (there + HERE.sum()).sum(),
    "an index from the CPU": lambda there: there[torch.tensor([2, 0])].sum(),
    "a list of indices": lambda there: there[[2, 0]].sum() + there[None][:, [0]].sum(),
    "a mask from the CPU": lambda there: there[HERE > 0].sum(),
    "a copy": lambda there: there.clone().copy_(HERE).sum(),
    "a picked number": lambda there: float(there[1]) + there.sum().item(),
    "a list of numbers": lambda there: sum(there.tolist()),
    "text": lambda there: float(f"{there.sum():.3f}"),
    "a gradient": lambda there: slope(there).sum() / 2,
}


SUMS = {"a number of the CPU's": 12, "an index from the CPU": 2, "a list of indices": 2, "a picked number": 4}


@pytest.mark.parametrize("case", REFUSED)
def test_it_refuses_what_a_gpu_refuses(case: str) -> None:
    with Device(), pytest.raises((RuntimeError, TypeError), match="device"):
        REFUSED[case](HERE.to(ELSEWHERE))


@pytest.mark.parametrize("case", TAKEN)
def test_it_takes_what_a_gpu_takes(case: str) -> None:
    with Device():
        assert float(TAKEN[case](HERE.to(ELSEWHERE))) == pytest.approx(SUMS.get(case, 3))


def test_apples_has_no_float64() -> None:
    with Device(apple=True):
        there = HERE.to(ELSEWHERE)
        for wide in (there.double, lambda: HERE.double().to(ELSEWHERE), lambda: there.new_zeros(2).double()):
            with pytest.raises(TypeError, match="float64"):
                wide()
        with pytest.raises(NotImplementedError, match="eigh"):
            torch.linalg.eigvalsh(there.diag())
    with Device():
        assert HERE.to(ELSEWHERE).double().sum().item() == 3
