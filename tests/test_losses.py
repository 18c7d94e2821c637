"""Losses against closed forms, finite differences and naive loops, in float64 on a tiny random network."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import reduce

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor, nn

import labkit as lk
from labkit.losses import styles as moments
from labkit.losses.algebra import PIXELS, Features, Statistics
from labkit.losses.styles import RootTrace
from labkit.networks.recommended import Recommended

SIZE = (16, 20)


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    """What losses make for themselves is float64 too, so that differences can be taken."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def random_picture(seed: int, batch: int = 1, size: tuple[int, int] = SIZE) -> Tensor:
    return torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)


@pytest.fixture(scope="module")
def backbone() -> lk.Backbone:
    """Two smooth layers of 4 and 6 channels, and a head on 2 x 2 cells for five classes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        stages: OrderedDict[str, nn.Module] = OrderedDict(
            soft1=nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Softplus()),
            pool1=nn.AvgPool2d(2),
            soft2=nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.Softplus()),
        )
        head = nn.Linear(6 * 4, 5)
    recommended = Recommended({"soft2": 1.0}, ("soft2",), {"soft1": 1.0, "soft2": 3.0})
    backbone = lk.Backbone("tiny", stages, head, recommended, grid=2).double()
    backbone.classes = ["ant", "bee", "cat", "dog", "eel"]
    return backbone


def features_of(backbone: lk.Backbone, picture: Tensor, layers: tuple[str, ...] = ("soft1", "soft2")) -> Features:
    return {PIXELS: picture} | backbone.features(picture, [layer for layer in layers if layer != PIXELS])


class Source:
    """What losses are bound to: the features of a backbone, or given ones."""

    def __init__(self, backbone: lk.Backbone, given: Features | None = None):
        self.backbone, self.given, self.seen = backbone, given, []

    def features(self, picture: Tensor, layers: tuple[str, ...]) -> Features:
        self.seen.append(max(picture.shape[-2:]))
        return self.given or features_of(self.backbone, picture, layers)

    def statistics(self, loss: lk.BoundLoss, picture: Tensor) -> Statistics:
        return loss.statistics(self.features(picture, loss.layers), lk.Window())


def bound(loss: lk.Loss, backbone: lk.Backbone, size: tuple[int, int] = SIZE) -> lk.BoundLoss:
    return loss.bind(Source(backbone), size)


def value(loss: lk.BoundLoss, backbone: lk.Backbone, picture: Tensor) -> Tensor:
    """The bound ``loss`` (N,) of pictures, as a whole."""
    features = features_of(backbone, picture, ("soft1", "soft2", "logits"))
    return loss.value(loss.statistics(features, lk.Window()))


PHOTO, PAINTING, GUIDE = random_picture(1), random_picture(2, size=(18, 14)), random_picture(3)
LOSSES: dict[str, lk.Loss] = {
    "activation": lk.activation("soft2"),
    "power 1": lk.activation("soft2", power=1),
    "channel": lk.activation("soft2", channel=2),
    "neuron": lk.activation("soft2", neuron=(0.8, 0.3)),
    "neuron of a channel": lk.activation("soft1", channel=-1, neuron=(0.2, 0.6), power=1),
    "relative": lk.activation("soft1", relative=True),
    "direction": lk.activation("soft2", direction=torch.tensor([1.0, -2.0, 0.5, 0.0, 3.0, -1.0])),
    "class_logit": lk.class_logit("cat"),
    "class_log_probability": lk.class_log_probability("cat"),
    "guide": lk.guide(GUIDE, "soft2"),
    "caricature": lk.caricature(PHOTO, "soft2", power=2),
    "content": lk.content(PHOTO, ["soft1", "soft2"]),
    "content, absolute": lk.content(PHOTO, relative=False),
    "gram": lk.style(PAINTING),
    "gram, absolute": lk.style(PAINTING, ["soft1"], relative=False),
    "wasserstein": lk.style(PAINTING, statistic="wasserstein"),
    "wasserstein, absolute": lk.style(PAINTING, ["soft2"], statistic="wasserstein", relative=False),
    "sliced": lk.style(PAINTING, statistic="sliced", projections=9),
    "sliced, absolute, in a mask": lk.style(PAINTING, ["soft1"], statistic="sliced", relative=False, mask="center"),
    "three styles": lk.style([PAINTING, GUIDE, PHOTO], weights=[1, 2, 3]),
    "style in a mask": lk.style(PAINTING, mask="center", painting_masks=PAINTING[0, 0]),
    "histogram": lk.histogram(PAINTING, bins=16),
    "histogram, absolute, in a mask": lk.histogram([PAINTING, GUIDE], relative=False, mask="center"),
    "anchor": lk.pixel_mse(PHOTO, torch.linspace(0, 1, PHOTO.shape[-1]).expand_as(PHOTO[:, :1])),
    "total variation 0.5": lk.total_variation(0.5),
    "total variation 1": lk.total_variation(),
    "total variation 1.25": lk.total_variation(1.25),
    "chroma": lk.chroma_tv(),
    "neighbors": lk.nearest_neighbors(PHOTO, PAINTING),
    "neighbors by cosine, in a mask": lk.nearest_neighbors(PHOTO, PAINTING, distance="cosine", mask="center"),
    "sum": lk.content(PHOTO) + 3 * lk.style(PAINTING) - 2 * lk.activation("soft1") + lk.total_variation(0.5),
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
OF_BATCHES: dict[str, lk.Loss] = {"diversity": lk.diversity("soft2")}  # compare the pictures of a batch
every_loss_of_batches = pytest.mark.parametrize(
    "loss", [*LOSSES.values(), *OF_BATCHES.values()], ids=[*LOSSES, *OF_BATCHES]
)


# --- what holds for every loss ------------------------------------------------------------------------------------


@every_loss_of_batches
def test_gradient_is_that_of_finite_differences(loss: lk.Loss, backbone: lk.Backbone) -> None:
    loss = bound(loss, backbone)
    picture = random_picture(4, batch=2).double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: value(loss, backbone, x), picture, eps=1e-6, atol=1e-7, rtol=1e-5, fast_mode=True
    )


def added(a: Statistics, b: Statistics) -> Statistics:
    return {key: a[key] + b[key] for key in a}


def tiles(features: Features, rows: int, columns: int) -> Iterator[tuple[Features, lk.Window]]:
    """The maps cut into rows x columns tiles, each with one position of its neighbors around it, and what it owns."""
    for row in range(rows):
        for column in range(columns):
            parts, inner, outer = {}, {}, {}
            for layer, f in features.items():
                cuts = []
                for number, of, side in ((row, rows, f.shape[-2]), (column, columns, f.shape[-1])):
                    start, stop = side * number // of, side * (number + 1) // of
                    begin, end = max(0, start - 1), min(side, stop + 1)
                    cuts.append((slice(begin, end), slice(start - begin, stop - begin), slice(start, stop)))
                (r, inner_r, outer_r), (c, inner_c, outer_c) = cuts
                parts[layer], inner[layer], outer[layer] = f[..., r, c], (inner_r, inner_c), (outer_r, outer_c)
            yield parts, lk.Window(inner, outer)


@pytest.mark.parametrize(("rows", "columns"), [(2, 1), (1, 2), (2, 2), (3, 2)])
@every_loss_of_batches
def test_statistics_of_tiles_add_up(loss: lk.Loss, backbone: lk.Backbone, rows: int, columns: int) -> None:
    loss = bound(loss, backbone)
    features = features_of(backbone, random_picture(5, batch=2).double())
    whole = loss.statistics(features, lk.Window())
    parts = reduce(added, (loss.statistics(part, window) for part, window in tiles(features, rows, columns)))
    torch.testing.assert_close(parts, whole, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(loss.value(parts), loss.value(whole), rtol=1e-10, atol=1e-12)


@every_loss
def test_a_picture_does_not_feel_its_neighbors_in_the_batch(loss: lk.Loss, backbone: lk.Backbone) -> None:
    loss = bound(loss, backbone)
    batch = random_picture(6, batch=3).double()
    alone = torch.cat([value(loss, backbone, one[None]) for one in batch])
    together = value(loss, backbone, batch)
    assert together.shape == (3,)
    assert together.unique().numel() == 3
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)


@every_loss
def test_binding_leaves_the_loss_as_it_was(loss: lk.Loss, backbone: lk.Backbone) -> None:
    before = dict(vars(loss))
    first, _, again = bound(loss, backbone), bound(loss, backbone, (24, 24)), bound(loss, backbone)
    assert vars(loss) == before
    picture = random_picture(7).double()
    assert torch.equal(value(first, backbone, picture), value(again, backbone, picture))


# --- closed forms and naive loops ---------------------------------------------------------------------------------


def test_activation_is_a_mean_power(backbone: lk.Backbone) -> None:
    picture = random_picture(8, batch=2).double()
    f = backbone.features(picture, ["soft2"])["soft2"].numpy()
    direction = np.arange(6.0)
    expected = {
        lk.activation("soft2"): (f**2).mean((1, 2, 3)),
        lk.activation("soft2", power=1): f.mean((1, 2, 3)),
        lk.activation("soft2", relative=True): np.log((f**2).mean((1, 2, 3))),
        lk.activation("soft2", channel=4): (f[:, 4] ** 2).mean((1, 2)),
        lk.activation("soft2", neuron=(0.99, 0.5), power=1): f[:, :, 7, 5].mean(1),
        lk.activation("soft2", channel=1, neuron=(0, 0)): f[:, 1, 0, 0] ** 2,
        lk.activation("soft2", direction=torch.from_numpy(direction)): (
            np.tensordot(f, direction, axes=(1, 0)) ** 2
        ).mean((1, 2)),
    }
    for loss, truth in expected.items():
        np.testing.assert_allclose(value(bound(loss, backbone), backbone, picture), truth, rtol=1e-12, err_msg=loss)


def test_activation_reads_logits(backbone: lk.Backbone) -> None:
    picture = random_picture(8, batch=2).double()
    logits = backbone.features(picture, ["logits"])["logits"]
    loss = bound(lk.activation("logits", channel=3, power=1), backbone)
    torch.testing.assert_close(value(loss, backbone, picture), logits[:, 3])


@pytest.mark.parametrize("size", [SIZE, (17, 23)], ids=["even", "cells that overlap"])
@pytest.mark.parametrize("target", [0, "dog"])
def test_class_logit_is_the_networks_against_all_others(
    backbone: lk.Backbone, target: int | str, size: tuple[int, int]
) -> None:
    picture = random_picture(9, batch=2, size=size).double()
    loss = bound(lk.class_logit(target), backbone, size)
    logits = backbone.features(picture, ["logits"])["logits"]
    expected = logits[:, backbone.class_index(target)] - logits.mean(1)
    torch.testing.assert_close(value(loss, backbone, picture), expected)


@pytest.mark.parametrize("size", [SIZE, (17, 23)], ids=["even", "cells that overlap"])
def test_class_log_probability_is_the_logarithm_of_the_softmax(backbone: lk.Backbone, size: tuple[int, int]) -> None:
    picture = random_picture(9, batch=2, size=size).double()
    loss = bound(lk.class_log_probability("dog"), backbone, size)
    logits = backbone.features(picture, ["logits"])["logits"].numpy()
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(value(loss, backbone, picture), np.log(chances[:, backbone.class_index("dog")]))
    assert not loss.linear and repr(lk.class_log_probability("dog")) == "class_log_probability('dog')"


def test_log_energy_is_the_mean_logarithm_of_the_channels_energies(backbone: lk.Backbone) -> None:
    picture = random_picture(9, batch=2).double()
    energies = backbone.features(picture, ["soft2"])["soft2"].square().mean((2, 3)).numpy()
    expected = [np.mean([np.log(e + 0.1 * row.mean()) for e in row]) for row in energies]
    found = value(bound(lk.log_energy("soft2", floor=0.1), backbone), backbone, picture)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_in_log_energy_a_quiet_channel_counts_as_much_as_a_loud_one(backbone: lk.Backbone) -> None:
    """Twice as loud is the same gain for each, and their floor is no way to raise them."""
    loss = bound(lk.log_energy("soft2", floor=1e-6), backbone)
    features = torch.ones(1, 6, 4, 4) * torch.tensor([0.5, 1, 10, 0.3, 5, 2]).view(1, 6, 1, 1)
    leaf = features.requires_grad_()
    (gradient,) = torch.autograd.grad(loss.value(loss.statistics({"soft2": leaf}, lk.Window())), leaf)
    gains = (gradient * leaf).sum((2, 3))
    torch.testing.assert_close(gains, torch.full_like(gains, 2 / 6), rtol=0, atol=2e-3)


@pytest.fixture(scope="module")
def linear() -> lk.Backbone:
    """A layer, a pool, and a linear head on averages, for four classes."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        conv = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Softplus())
        return lk.Backbone("linear", {"soft": conv, "pool": nn.AvgPool2d(2)}, nn.Linear(6, 4)).double()


def evidence(loss: lk.Loss, backbone: lk.Backbone, picture: Tensor) -> Tensor:
    ready = bound(loss, backbone)
    return ready.value(ready.statistics(backbone.features(picture, ["soft"]), lk.Window()))


def test_class_evidence_is_the_log_energy_of_the_classes_maps(linear: lk.Backbone) -> None:
    picture, chosen = random_picture(9, batch=2).double(), [0, 2]
    assert isinstance(linear.head, nn.Linear)
    weights = linear.head.weight.numpy()
    f = linear.features(picture, ["soft"])["soft"].numpy()
    maps = np.maximum(np.einsum("nchw,kc->nkhw", f, (weights - weights.mean(0))[chosen]), 0)
    energies = (maps**2).mean((2, 3))
    expected = np.log(energies + 0.02 * energies.mean(1, keepdims=True)).mean(1)
    found = evidence(lk.class_evidence(*chosen), linear, picture)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_class_evidence_does_not_see_what_all_classes_share(linear: lk.Backbone) -> None:
    shifted = lk.Backbone("shifted", dict(zip(linear.names, linear.stages, strict=True)), nn.Linear(6, 4)).double()
    assert isinstance(linear.head, nn.Linear) and isinstance(shifted.head, nn.Linear)
    shifted.head.weight.copy_(linear.head.weight + torch.linspace(-3, 5, 6))
    picture, loss = random_picture(2).double(), lk.class_evidence(1, 3)
    torch.testing.assert_close(evidence(loss, shifted, picture), evidence(loss, linear, picture))


def test_class_evidence_wants_classes_that_have_maps(backbone: lk.Backbone) -> None:
    with pytest.raises(ValueError, match="the classes of tiny have no map: use class_logit"):
        lk.Evaluator(backbone, lk.class_evidence("cat"), SIZE)
    with pytest.raises(ValueError, match="name at least one class"):
        lk.class_evidence()


def test_guide_is_the_mean_best_match(backbone: lk.Backbone) -> None:
    picture = random_picture(10).double()
    f = backbone.features(picture, ["soft2"])["soft2"][0].flatten(1).numpy()
    g = backbone.features(GUIDE, ["soft2"])["soft2"][0].flatten(1).numpy()
    best = [max(f[:, i] @ g[:, j] for j in range(g.shape[1])) for i in range(f.shape[1])]
    found = value(bound(lk.guide(GUIDE, "soft2"), backbone), backbone, picture)
    np.testing.assert_allclose(found, [np.mean(best) / len(f)], rtol=1e-12)


def test_the_guides_gradient_is_its_best_vector(backbone: lk.Backbone) -> None:
    f = features_of(backbone, random_picture(10).double())["soft2"].requires_grad_()
    loss = bound(lk.guide(GUIDE, "soft2"), backbone)
    (gradient,) = torch.autograd.grad(loss.value(loss.statistics({"soft2": f}, lk.Window())).sum(), f)
    g = backbone.features(GUIDE, ["soft2"])["soft2"][0].flatten(1)
    best = g[:, (f[0].flatten(1).T @ g).argmax(1)] / f[0].numel()
    torch.testing.assert_close(gradient[0].flatten(1), best)


def test_a_caricature_is_projection_times_cosine(backbone: lk.Backbone) -> None:
    picture = random_picture(15, batch=2).double()
    f = backbone.features(picture, ["soft2"])["soft2"].flatten(1).numpy()
    p = backbone.features(PHOTO, ["soft2"])["soft2"].flatten().numpy()
    cosine = f @ p / np.linalg.norm(f, axis=1) / np.linalg.norm(p)
    for power in (0, 1, 2.5):
        loss = bound(lk.caricature(PHOTO, "soft2", power=power), backbone)
        np.testing.assert_allclose(value(loss, backbone, picture), f @ p / (p @ p) * cosine**power, rtol=1e-10)


def test_a_photo_is_its_own_caricature_and_louder_is_more(backbone: lk.Backbone) -> None:
    f = features_of(backbone, PHOTO.double())["soft2"]
    loss = bound(lk.caricature(PHOTO, "soft2"), backbone)
    found = [loss.value(loss.statistics({"soft2": k * f}, lk.Window())).item() for k in (1, 2, 0, -3)]
    assert found == pytest.approx([1, 2, 0, -0.3])


def test_diversity_is_the_mean_cosine_of_gram_matrices(backbone: lk.Backbone) -> None:
    picture = random_picture(16, batch=4).double()
    picture[1] = picture[0] ** 3
    loss = bound(lk.diversity("soft2"), backbone)
    grams = lk.gram(backbone.features(picture, ["soft2"])["soft2"]).flatten(1).numpy()
    unit = grams / np.linalg.norm(grams, axis=1, keepdims=True)
    expected = [np.mean([unit[i] @ unit[j] for j in range(4) if j != i]) for i in range(4)]
    np.testing.assert_allclose(value(loss, backbone, picture), expected, rtol=1e-10)


def test_diversity_of_twins_is_one_and_of_strangers_nothing(backbone: lk.Backbone) -> None:
    loss = bound(lk.diversity("soft2"), backbone)
    f = torch.zeros(2, 6, 4, 4)
    f[0, 1], f[1, 5] = 3.0, 0.5  # one channel each
    for maps, expected in ((f, 0), (f[[0, 0]] * torch.tensor([1.0, 7.0]).view(2, 1, 1, 1), 1)):
        found = loss.value(loss.statistics({"soft2": maps}, lk.Window()))
        torch.testing.assert_close(found, torch.full((2,), float(expected)))


@pytest.mark.parametrize("relative", [True, False])
def test_content_is_the_mean_square(backbone: lk.Backbone, relative: bool) -> None:
    picture = random_picture(11).double()
    loss = bound(lk.content(PHOTO, ["soft1", "soft2"], relative=relative), backbone)
    errors = []
    for layer in ("soft1", "soft2"):
        f, p = (backbone.features(x, [layer])[layer].numpy() for x in (picture, PHOTO))
        errors.append(((f - p) ** 2).sum() / ((p**2).sum() if relative else p.size))
    np.testing.assert_allclose(value(loss, backbone, picture), [np.mean(errors)], rtol=1e-10)


def test_content_layers_count_by_their_weights(backbone: lk.Backbone) -> None:
    picture = random_picture(12).double()
    one, two = (value(bound(lk.content(PHOTO, layer), backbone), backbone, picture) for layer in ("soft1", "soft2"))
    both = value(bound(lk.content(PHOTO, {"soft1": 1, "soft2": 3}), backbone), backbone, picture)
    torch.testing.assert_close(both, 0.25 * one + 0.75 * two)


@pytest.mark.parametrize("relative", [True, False])
def test_content_is_zero_at_the_photo(backbone: lk.Backbone, relative: bool) -> None:
    loss = bound(lk.content(PHOTO, relative=relative), backbone)
    assert value(loss, backbone, PHOTO.double()).item() < 1e-12 < value(loss, backbone, GUIDE.double()).item()


@pytest.mark.parametrize("statistic", ["gram", "wasserstein", "sliced"])
@pytest.mark.parametrize("relative", [True, False])
def test_style_is_zero_at_the_painting(backbone: lk.Backbone, statistic: str, relative: bool) -> None:
    loss = bound(lk.style(PHOTO, statistic=statistic, relative=relative), backbone)
    assert abs(value(loss, backbone, PHOTO.double()).item()) < 1e-10
    assert value(loss, backbone, GUIDE.double()).item() > 1e-6


@pytest.mark.parametrize(
    "loss",
    [
        lk.content(PHOTO),
        lk.histogram(PHOTO),
        *(lk.style(PHOTO, statistic=s) for s in ("gram", "wasserstein", "sliced")),
    ],
)
def test_relative_losses_are_one_against_nothing(backbone: lk.Backbone, loss: lk.Loss) -> None:
    nothing = {layer: torch.zeros_like(f) for layer, f in features_of(backbone, PHOTO.double()).items()}
    loss = bound(loss, backbone)
    assert loss.value(loss.statistics(nothing, lk.Window())).item() == pytest.approx(1, abs=1e-4)


def test_style_weights_are_shares_of_their_sum(backbone: lk.Backbone) -> None:
    picture = random_picture(12).double()
    alone = {
        layer: value(bound(lk.style(PAINTING, layer), backbone), backbone, picture) for layer in ("soft1", "soft2")
    }
    mixed = bound(lk.style(PAINTING, {"soft1": 1, "soft2": 3}), backbone)
    torch.testing.assert_close(value(mixed, backbone, picture), 0.25 * alone["soft1"] + 0.75 * alone["soft2"])
    parts = mixed.terms(mixed.statistics(features_of(backbone, picture), lk.Window()))
    torch.testing.assert_close(parts["style", "soft2"], 0.75 * alone["soft2"])


def test_a_batch_of_paintings_is_a_list_of_paintings(backbone: lk.Backbone) -> None:
    picture, pair = random_picture(12).double(), torch.cat([PAINTING, PAINTING.flip(1)])
    batch, listed = (bound(lk.style(given), backbone) for given in (pair, list(pair.split(1))))
    torch.testing.assert_close(value(batch, backbone, picture), value(listed, backbone, picture))
    assert value(batch, backbone, picture).shape == (1,)


@pytest.mark.parametrize("statistic", ["gram", "wasserstein"])
def test_paintings_are_mixed_by_their_moments(backbone: lk.Backbone, statistic: str) -> None:
    """Two halves of one picture, each a painting, ask for nothing but the whole picture's statistics."""
    whole = random_picture(19, size=(16, 20)).double()
    maps = features_of(backbone, whole)
    halves = [{layer: f[..., : f.shape[3] // 2] for layer, f in maps.items()}]
    halves += [{layer: f[..., f.shape[3] // 2 :] for layer, f in maps.items()}]

    class InTurn(Source):
        def features(self, picture: Tensor, layers: tuple[str, ...]) -> Features:
            self.seen.append(max(picture.shape))
            return halves[len(self.seen) - 1]

    loss = lk.style([PAINTING, PHOTO], statistic=statistic).bind(InTurn(backbone), SIZE)
    assert value(loss, backbone, whole).item() == pytest.approx(0, abs=1e-9)
    uneven = lk.style([PAINTING, PHOTO], weights=[3, 1], statistic=statistic).bind(InTurn(backbone), SIZE)
    assert value(uneven, backbone, whole).item() > 1e-6


@pytest.mark.parametrize("statistic", ["gram", "wasserstein"])
def test_a_corner_of_the_simplex_is_one_painting(backbone: lk.Backbone, statistic: str) -> None:
    picture = random_picture(20).double()
    alone = value(bound(lk.style(GUIDE, statistic=statistic), backbone), backbone, picture)
    corner = lk.style([PAINTING, GUIDE, PHOTO], weights=(0, 5, 0), statistic=statistic)
    torch.testing.assert_close(value(bound(corner, backbone), backbone, picture), alone)


@pytest.mark.parametrize(("scale", "side"), [(0.5, 10), (1.0, 18), (3.0, 18)])
def test_style_scale_shrinks_the_painting_and_never_enlarges_it(backbone: lk.Backbone, scale: float, side: int) -> None:
    source = Source(backbone)
    lk.style(PAINTING, scale=scale).bind(source, SIZE)  # the painting has 18 x 14 pixels
    assert source.seen == [side]


def test_gram_of_a_known_map() -> None:
    f = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0], [0.0, -1.0]]]])
    assert torch.equal(lk.gram(f), torch.tensor([[[30.0, -2.0], [-2.0, 2.0]]]) / 4)


def test_gram_style_is_gatys_formula(backbone: lk.Backbone) -> None:
    picture, painting = (random_picture(seed).double() for seed in (13, 14))
    loss = bound(lk.style(painting, ["soft2"], relative=False), backbone)
    f, p = (backbone.features(x, ["soft2"])["soft2"][0].flatten(1).numpy() for x in (picture, painting.float()))
    channels, positions = f.shape
    gatys = ((f @ f.T - p @ p.T) ** 2).sum() / (4 * channels**2 * positions**2)
    np.testing.assert_allclose(value(loss, backbone, picture), [gatys], rtol=1e-10)


def map_with(mean: np.ndarray, covariance: np.ndarray, seed: int) -> Tensor:
    """A random feature map (1, C, 8, 8) that has exactly this mean and covariance."""
    noise = np.random.default_rng(seed).normal(size=(len(mean), 64))
    noise -= noise.mean(1, keepdims=True)
    white = np.linalg.solve(np.linalg.cholesky(noise @ noise.T / 64), noise)
    colored = np.linalg.cholesky(covariance) @ white + mean[:, None]
    return torch.from_numpy(colored.reshape(1, len(mean), 8, 8))


def random_covariance(seed: int) -> np.ndarray:
    factor = np.random.default_rng(seed).normal(size=(6, 9))
    return factor @ factor.T / 9 + 0.01 * np.eye(6)


A, B = np.array([1.0, 2.0, 0.5, 4.0, 0.1, 3.0]), np.array([2.0, 1.0, 0.7, 0.2, 5.0, 3.0])
WIDE = np.logspace(0, -5, 6)
M, N = np.linspace(-1, 1, 6), np.array([0.3, -0.2, 0.9, 0.0, 1.5, -2.0])
S, T = random_covariance(0), random_covariance(1)


@pytest.mark.parametrize(
    ("covariance", "target", "bures"),
    [
        (S, S, 0.0),
        (np.diag(A), np.diag(B), ((np.sqrt(A) - np.sqrt(B)) ** 2).sum()),
        (np.diag(WIDE), np.diag(2 * WIDE), ((np.sqrt(WIDE) - np.sqrt(2 * WIDE)) ** 2).sum()),
        (S, T, np.trace(S + T - 2 * np.real(sqrtm(sqrtm(T) @ S @ sqrtm(T))))),
    ],
    ids=["equal covariances", "commuting covariances", "a wide spectrum", "any covariances"],
)
@pytest.mark.parametrize("relative", [True, False])
def test_wasserstein_distance_of_gaussians(
    backbone: lk.Backbone, covariance: np.ndarray, target: np.ndarray, bures: float, relative: bool
) -> None:
    loss = lk.style(PAINTING, ["soft2"], statistic="wasserstein", relative=relative)
    loss = loss.bind(Source(backbone, {"soft2": map_with(N, target, 2)}), SIZE)
    found = loss.value(loss.statistics({"soft2": map_with(M, covariance, 3)}, lk.Window())).item()
    scale = N @ N + np.trace(target) if relative else 6
    assert found == pytest.approx((((M - N) ** 2).sum() + bures) / scale, rel=1e-9)


def wasserstein(target: Tensor, start: Tensor, backbone: lk.Backbone, **options: object) -> tuple[Tensor, Tensor]:
    """The distance of the map ``start`` from the map ``target``, and its gradient."""
    loss = lk.style(PAINTING, ["soft2"], statistic="wasserstein", **options)
    loss = loss.bind(Source(backbone, {"soft2": target}), SIZE)
    f = start.clone().requires_grad_()
    found = loss.value(loss.statistics({"soft2": f}, lk.Window()))
    return found.detach(), torch.autograd.grad(found.sum(), f)[0]


@pytest.mark.parametrize(("pictures", "weighted"), [(1, False), (2, False), (1, True), (2, True)])
def test_moments_of_a_map_in_bfloat16(monkeypatch: pytest.MonkeyPatch, pictures: int, weighted: bool) -> None:
    """Sums are float32's, chunk by chunk; the gradient is rounded as the map is, in the layout of networks."""
    torch.set_default_dtype(torch.float32)
    monkeypatch.setattr(moments, "CHUNK", 100)
    f = torch.rand(pictures, 6, 13, 17).to(memory_format=torch.channels_last).bfloat16().requires_grad_()
    exact = f.detach().double().requires_grad_()
    slopes = torch.randn(pictures, 6, 6), torch.randn(pictures, 6)
    weights = torch.rand(13, 17).where(torch.rand(13, 17) > 0.3, 0) if weighted else None
    for map_ in (f, exact):
        sums = moments.Moments.apply(map_, weights)
        sum((slope * found).sum() for slope, found in zip(slopes, sums, strict=True)).backward()
        flat = map_.detach().flatten(2).to(sums[0].dtype)
        counted = flat if weights is None else flat * weights.flatten().to(flat)
        torch.testing.assert_close(sums, (counted @ flat.mT, counted.sum(2)), rtol=1e-5, atol=0)
    torch.testing.assert_close(f.grad.double(), exact.grad, rtol=0.01, atol=0.02 * exact.grad.abs().max().item())
    assert f.grad.stride() == torch.empty(f.shape).to(memory_format=torch.channels_last).stride()


def test_moments_with_weights_have_autograds_gradient() -> None:
    weights = torch.rand(4, 5).where(torch.rand(4, 5) > 0.3, 0)
    f = torch.rand(2, 3, 4, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda f: moments.Moments.apply(f, weights), f)


@pytest.mark.parametrize("positions", [2, 5, 400])
def test_wasserstein_gradient_survives_float32(backbone: lk.Backbone, positions: int) -> None:
    """Fewer positions than channels make the covariances singular; sizes differ by 10^4 between channels."""
    generator = torch.Generator().manual_seed(0)
    size = torch.logspace(-2, 2, 48)[:, None, None]
    target, start = (size * torch.randn(1, 48, positions, 4, generator=generator).relu() for _ in range(2))
    torch.set_default_dtype(torch.float32)
    _, truth = wasserstein(target, start, backbone)
    _, found = wasserstein(target.float(), start.float(), backbone)
    assert (found - truth).norm() < 0.02 * truth.norm()


@pytest.mark.parametrize("positions", [3, 8, 100])
def test_wasserstein_in_float32_is_that_of_float64(backbone: lk.Backbone, positions: int) -> None:
    """Also where channels never fire, and where a map has fewer positions than channels."""
    generator = torch.Generator().manual_seed(1)
    mixing = torch.randn(64, 64, generator=generator) / 8
    mixing[::5] = 0
    maps = torch.randn(2, 64, positions * 4, generator=generator)
    target, start = (mixing @ maps).relu().view(2, 1, 64, positions, 4)
    torch.set_default_dtype(torch.float32)
    truth, slope = wasserstein(target, start, backbone)
    found, gradient = wasserstein(target.float(), start.float(), backbone)
    assert found.dtype == gradient.dtype == torch.float32
    assert found.item() == pytest.approx(truth.item(), rel=1e-5)
    assert (gradient - slope).norm() < 1e-3 * slope.norm()


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e3])
def test_wasserstein_does_not_depend_on_the_unit_of_features(backbone: lk.Backbone, scale: float) -> None:
    target, start = map_with(N, T, 4), map_with(M, S, 5)
    truth, slope = wasserstein(target, start, backbone)
    found, gradient = wasserstein(scale * target, scale * start, backbone)
    torch.testing.assert_close(found, truth, rtol=1e-9, atol=0)
    torch.testing.assert_close(gradient * scale, slope, rtol=1e-6, atol=1e-9)


def test_wasserstein_of_what_is_not_finite_is_not_finite(backbone: lk.Backbone) -> None:
    start = map_with(M, S, 5)
    start[0, 0, 0, 0] = float("inf")
    found, _ = wasserstein(map_with(N, T, 4), start, backbone)
    assert not found.isfinite().any()


@pytest.mark.parametrize("rank", [0, 2, 6])
def test_root_trace_is_a_sum_of_roots(rank: int) -> None:
    """Of the eigenvalues of S S', each picture of the batch on its own; and its gradient that of differences."""
    generator = torch.Generator().manual_seed(2)
    factor, roots = torch.randn(1, 6, rank, generator=generator), torch.randn(3, 6, 6, generator=generator)
    covariance = (roots @ roots.mT).requires_grad_()
    found = RootTrace.apply(covariance, factor)
    for value, own in zip(found.tolist(), covariance.detach().numpy(), strict=True):
        eigenvalues = np.linalg.eigvals(own @ (factor[0] @ factor[0].T).numpy()).real
        assert value == pytest.approx(np.sqrt(np.sort(eigenvalues)[6 - rank :]).sum(), rel=1e-8)
    assert torch.autograd.gradcheck(lambda x: RootTrace.apply((x + x.mT) / 2, factor), covariance, rtol=1e-5)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.25])
def test_total_variation_of_a_ramp(exponent: float, backbone: lk.Backbone) -> None:
    height, width, down, right = 5, 7, 0.03, 0.04
    ramp = down * torch.arange(height)[:, None] + right * torch.arange(width)[None, :]
    loss = lk.total_variation(exponent).bind(Source(backbone), SIZE)
    found = loss.value(loss.statistics({PIXELS: ramp.expand(2, 3, -1, -1).double()}, lk.Window()))
    inside = (height - 1) * (width - 1) * (down**2 + right**2) ** exponent
    last_row, last_column = (width - 1) * right ** (2 * exponent), (height - 1) * down ** (2 * exponent)
    truth = (inside + last_row + last_column) / (height * width)
    np.testing.assert_allclose(found, [truth, truth], rtol=1e-5)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.25])
def test_total_variation_is_a_sum_over_pixels(exponent: float, backbone: lk.Backbone) -> None:
    picture = random_picture(18, size=(4, 5)).double()
    x = picture[0].numpy()
    truth = 0.0
    for c, i, j in np.ndindex(*x.shape):
        down = x[c, i + 1, j] - x[c, i, j] if i < 3 else 0
        right = x[c, i, j + 1] - x[c, i, j] if j < 4 else 0
        truth += (down**2 + right**2) ** exponent
    loss = lk.total_variation(exponent).bind(Source(backbone), SIZE)
    found = loss.value(loss.statistics({PIXELS: picture}, lk.Window()))
    np.testing.assert_allclose(found, [truth / x.size], rtol=1e-6)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.25])
def test_total_variation_of_a_flat_picture_pushes_nowhere(exponent: float, backbone: lk.Backbone) -> None:
    flat_picture = torch.full((1, 3, 4, 4), 0.5, requires_grad=True)
    loss = lk.total_variation(exponent).bind(Source(backbone), SIZE)
    found = loss.value(loss.statistics({PIXELS: flat_picture}, lk.Window()))
    (gradient,) = torch.autograd.grad(found.sum(), flat_picture)
    assert found.item() < 1e-5
    assert not gradient.any()


# --- invariances --------------------------------------------------------------------------------------------------


def test_chroma_tv_is_the_total_variation_of_u_and_v(backbone: lk.Backbone) -> None:
    """R - Y, G - Y and B - Y are 1.402 v, -0.714 v - 0.344 u and 1.772 u in the U and V of BT.601."""
    picture = random_picture(9).double()
    red, green, blue = picture[0]
    y = 0.299 * red + 0.587 * green + 0.114 * blue
    u, v = (blue - y) / 1.772, (red - y) / 1.402
    rough = [(d.diff(dim=0) ** 2).sum() + (d.diff(dim=1) ** 2).sum() for d in (1.402 * v, 1.772 * u)]
    rough += [(d.diff(dim=0) ** 2).sum() + (d.diff(dim=1) ** 2).sum() for d in [0.344136 * u + 0.714136 * v]]
    expected = sum(rough) / picture.numel()
    chroma = bound(lk.chroma_tv(), backbone)
    assert value(chroma, backbone, picture).item() == pytest.approx(expected.item(), rel=1e-5)
    gray = lk.luma(picture).expand_as(picture)
    assert value(chroma, backbone, gray).item() < 1e-20


def test_gram_does_not_change_when_a_texture_is_tiled() -> None:
    f = torch.randn(2, 5, 4, 6)
    torch.testing.assert_close(lk.gram(f.repeat(1, 1, 2, 3)), lk.gram(f))


@pytest.mark.parametrize("statistic", ["gram", "wasserstein"])
def test_style_does_not_see_where_things_are(backbone: lk.Backbone, statistic: str) -> None:
    loss = bound(lk.style(PAINTING, statistic=statistic), backbone)
    features = features_of(backbone, random_picture(15).double())
    shuffled = {layer: f.flatten(2)[..., torch.randperm(f[0, 0].numel())].view_as(f) for layer, f in features.items()}
    there, here = (loss.value(loss.statistics(x, lk.Window())) for x in (shuffled, features))
    torch.testing.assert_close(there, here)


# --- the algebra --------------------------------------------------------------------------------------------------


def test_operators_are_linear_in_value_and_gradient(backbone: lk.Backbone) -> None:
    losses = lk.content(PHOTO), lk.style(PAINTING), lk.activation("soft1")
    picture = random_picture(16).double()

    def evaluated(loss: lk.Loss) -> tuple[Tensor, Tensor]:
        x = picture.clone().requires_grad_()
        found = value(bound(loss, backbone), backbone, x)
        return found, torch.autograd.grad(found.sum(), x)[0]

    a, b, c = map(evaluated, losses)
    mixed = evaluated(0.5 * -(losses[0] + 2 * losses[1] - losses[2] * 4))
    for index in range(2):
        torch.testing.assert_close(mixed[index], -0.5 * (a[index] + 2 * b[index] - 4 * c[index]))


def test_parts_are_weighted_and_those_of_one_name_and_layer_are_added(backbone: lk.Backbone) -> None:
    picture = random_picture(16).double()
    first = lk.activation("soft1")
    loss = bound(2 * first - 3 * lk.activation("soft2") + 5 * lk.total_variation() + 4 * first, backbone)
    parts = loss.terms(loss.statistics(features_of(backbone, picture), lk.Window()))
    one, two, three = (
        value(bound(part, backbone), backbone, picture)
        for part in (lk.activation("soft1"), lk.activation("soft2"), lk.total_variation())
    )
    assert list(parts) == [("activation", "soft1"), ("activation", "soft2"), ("total_variation", "")]
    torch.testing.assert_close(parts["activation", "soft1"], 6 * one)
    torch.testing.assert_close(parts["activation", "soft2"], -3 * two)
    torch.testing.assert_close(parts["total_variation", ""], 5 * three)


def test_weights_for_other_pictures_than_there_are_are_refused(backbone: lk.Backbone) -> None:
    loss = bound(torch.tensor([1.0, 2.0, 3.0]) * lk.activation("soft2"), backbone)
    with pytest.raises(ValueError, match="weights for 3 pictures needs as many, not 2: variations=3"):
        value(loss, backbone, random_picture(17, batch=2).double())


def test_a_tensor_weighs_each_picture_of_the_batch(backbone: lk.Backbone) -> None:
    weights, picture = torch.tensor([0.0, 1.0, -2.0]), random_picture(17, batch=3).double()
    plain = value(bound(lk.activation("soft2"), backbone), backbone, picture)
    for loss in (lk.activation("soft2") * weights, weights * lk.activation("soft2")):
        torch.testing.assert_close(value(bound(loss, backbone), backbone, picture), weights * plain)


@pytest.mark.parametrize(
    ("loss", "text"),
    [
        (-lk.activation("soft2"), "-activation(soft2)"),
        (
            lk.content(PHOTO, "soft2") + 1e3 * lk.style(PAINTING, ["soft1"]) + 2 * lk.total_variation(),
            "content(soft2) + 1000 * style(soft1) + 2 * total_variation()",
        ),
        (
            lk.activation("soft1", channel=3, power=1) - 0.5 * lk.class_logit("cat"),
            "activation(soft1, channel=3, power=1) - 0.5 * class_logit('cat')",
        ),
        (
            lk.total_variation(1.25) * 3 - lk.activation("soft1", direction=torch.ones(4)),
            "3 * total_variation(exponent=1.25) - activation(soft1, direction)",
        ),
        (torch.ones(2) * lk.guide(GUIDE, "soft1"), "w * guide(soft1)"),
        (lk.activation("soft1") - torch.ones(2) * lk.guide(GUIDE, "soft1"), "activation(soft1) + w * guide(soft1)"),
    ],
    ids=["minus", "style transfer", "features", "arguments", "tensor", "minus a tensor"],
)
def test_a_loss_reads_like_its_formula(loss: lk.Loss, text: str) -> None:
    assert repr(loss) == text


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), -float("inf")])
def test_weights_must_be_finite(weight: float) -> None:
    with pytest.raises(ValueError, match="a weight must be a finite number, not"):
        weight * lk.total_variation()


# --- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: lk.activation("soft1", channel=1, direction=torch.ones(4)), "a channel or a direction, not both"),
        (lambda: lk.activation("soft1", neuron=(1.0, 0.5)), "fractions from 0 to 1, not (1.0, 0.5)"),
        (lambda: lk.activation("soft1", neuron=(0.5, -0.1)), "fractions from 0 to 1, not (0.5, -0.1)"),
        (lambda: lk.style(PAINTING, statistic="mean"), "statistic is one of gram, wasserstein, sliced, not 'mean'"),
        (lambda: lk.histogram(PAINTING, bins=1), "bins must be a whole number from 2 to 1,024, not 1"),
        (lambda: lk.style(PAINTING, scale=0), "scale must be a number from 0.001 to 100, not 0"),
        (lambda: lk.style(PAINTING, scale=float("nan")), "scale must be a number from 0.001 to 100, not nan"),
        (lambda: lk.style(PAINTING, {"soft1": 2, "soft2": -1}), "at least 0, and not all 0, not [2.0, -1.0]"),
        (lambda: lk.style(PAINTING, {"soft1": 0}), "at least 0, and not all 0, not [0.0]"),
        (lambda: lk.style(PAINTING, {"soft1": float("nan")}), "at least 0, and not all 0, not [nan]"),
        (lambda: lk.style(PAINTING, []), "name at least one layer"),
        (lambda: lk.content(PHOTO, ()), "name at least one layer"),
        (lambda: lk.content(PHOTO * 255), "pixels must lie in [0, 1]"),
        (lambda: lk.guide(PHOTO[:, :2], "soft1"), "shape (N, 3, height, width), this one has (1, 2, 16, 20)"),
        (lambda: lk.guide(torch.cat([PHOTO, PHOTO]), "soft1"), "one picture, not a batch of 2"),
        (lambda: lk.caricature(PHOTO, "soft1", power=-1), "power must be a number from 0 to 100, not -1"),
        (lambda: lk.total_variation(0), "exponent must be a number from 0.001 to 10, not 0"),
        (lambda: lk.total_variation(-1), "exponent must be a number from 0.001 to 10, not -1"),
        (lambda: lk.total_variation(float("nan")), "exponent must be a number from 0.001 to 10, not nan"),
    ],
)
def test_losses_that_make_no_sense_are_refused(build: Callable[[], lk.Loss], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        build()


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lk.activation("soft2", channel=6), "soft2 of tiny has 6 channels, numbered from 0 to 5"),
        (lk.activation("soft1", channel=-5), "soft1 of tiny has 4 channels, numbered from 0 to 3"),
        (lk.activation("soft1", direction=torch.ones(3)), "soft1 of tiny has 4 channels"),
        (lk.activation("logits", channel=5), "logits of tiny has 5 channels, numbered from 0 to 4"),
        (lk.activation("sof2"), "no layer 'sof2': did you mean soft2"),
        (lk.guide(GUIDE, "sof1"), "no layer 'sof1': did you mean soft1"),
        (lk.content(PHOTO, "relu9"), "its layers are soft1, pool1, soft2, logits"),
        (lk.style(PAINTING, ["soft1", "relu9"]), "no layer 'relu9'"),
        (2 * lk.activation("soft3") + lk.total_variation(), "no layer 'soft3'"),
    ],
)
def test_losses_that_do_not_fit_the_network_are_refused(backbone: lk.Backbone, loss: lk.Loss, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        lk.Evaluator(backbone, loss, SIZE)


@pytest.mark.parametrize(("target", "message"), [(5, "no class 5: they run from 0 to 4"), ("cta", "did you mean cat")])
def test_a_class_that_does_not_exist_is_refused(backbone: lk.Backbone, target: int | str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bound(lk.class_logit(target), backbone)


def test_one_picture_has_no_diversity(backbone: lk.Backbone) -> None:
    with pytest.raises(ValueError, match="ask for variations=2 or more"):
        value(bound(lk.diversity("soft2"), backbone), backbone, PHOTO.double())


def test_sum_adds_losses() -> None:
    parts = [lk.activation("relu1_1"), 2 * lk.total_variation()]
    assert repr(sum(parts)) == repr(parts[0] + parts[1])
    with pytest.raises(TypeError):
        1 + lk.total_variation()


@pytest.mark.parametrize(
    ("layer", "options", "message"),
    [
        ("logits", {"neuron": (0.5, 0.5)}, "the logits have no places"),
        ("relu1_1", {"relative": True, "power": 1}, "use power=2"),
    ],
)
def test_activations_without_a_meaning_are_refused(layer: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lk.activation(layer, **options)
