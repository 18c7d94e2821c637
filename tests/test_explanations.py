"""Explanations against closed forms, against the truth of drawn pictures, and against Captum."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from elsewhere import ELSEWHERE, Device
from sklearn.linear_model import LinearRegression, Ridge
from torch import Tensor, nn

import labkit as lk
from labkit import explain, perturb, shapes

pytestmark = pytest.mark.usefixtures("one_thread")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def drawn() -> shapes.Shapes:
    return shapes.draw(60, seed=1)


@pytest.fixture(scope="module")
def trained() -> lk.Backbone:
    return shapes.fit(shapes.network(), shapes.draw(1500), epochs=9)


@pytest.fixture(scope="module")
def gated() -> lk.Backbone:
    return shapes.fit(shapes.network(gated=True), shapes.draw(1500), epochs=9, sparsity=0.02)


# --- drawn pictures ----------------------------------------------------------------------------------------------


def test_the_shape_is_in_the_mask_and_the_disc_is_not() -> None:
    drawn = shapes.draw(200, seed=3)
    glyphs = torch.stack([drawn.pictures[i, :, m[0]].view(3, 7, 7) for i, m in enumerate(drawn.masks)])
    contrast = (glyphs - shapes.GRAY).abs().sum(1).flatten(1)
    templates = shapes._glyphs().flatten(1)
    assert ((contrast @ (templates / templates.sum(1, keepdim=True)).T).argmax(1) == drawn.labels).float().mean() > 0.9
    loudest = (drawn.pictures - shapes.GRAY).abs().sum(1, keepdim=True)
    assert explain.pointing_game(loudest, drawn.masks) < 0.2
    assert drawn.masks.sum((1, 2, 3)).eq(49).all()


def test_drawing_is_a_function_of_the_seed() -> None:
    one, same, other = shapes.draw(5, 7), shapes.draw(5, 7), shapes.draw(5, 8)
    assert torch.equal(one.pictures, same.pictures) and torch.equal(one.labels, same.labels)
    assert not torch.equal(one.pictures, other.pictures)
    assert one.pictures.min() >= 0 and one.pictures.max() <= 1
    assert shapes.draw(400).labels.bincount(minlength=4).min() > 70
    assert shapes.draw(3, size=40).pictures.shape == (3, 3, 40, 40)


@pytest.mark.parametrize(("count", "size"), [(0, 24), (3, 13)])
def test_a_drawing_needs_a_count_and_room(count: int, size: int) -> None:
    with pytest.raises(ValueError, match="must be a whole number"):
        shapes.draw(count, size=size)


def test_training_leaves_the_callers_seed_and_freezes(drawn: shapes.Shapes) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    network = shapes.fit(shapes.network(), drawn, epochs=1)
    assert torch.equal(torch.rand(1), expected)
    assert not network.training and not any(p.requires_grad for p in network.parameters())


# --- scores and gradients ----------------------------------------------------------------------------------------


def logits_of(inputs: Tensor) -> Tensor:
    return torch.stack([inputs.sum((1, 2, 3)), (inputs**2).sum((1, 2, 3)), -inputs.mean((1, 2, 3))], 1)


def test_class_score_on_every_scale() -> None:
    batch = noise(3, 3, 4, 4)
    for scale, reading in {"logit": logits_of(batch), "probability": logits_of(batch).softmax(1)}.items():
        assert torch.equal(explain.class_score(logits_of, 1, scale)(batch), reading[:, 1])
        each = explain.class_score(logits_of, torch.tensor([2, 0, 1]), scale)(batch)
        assert torch.equal(each, reading[[0, 1, 2], [2, 0, 1]])
    log = explain.class_score(logits_of, 2, "log")(batch)
    torch.testing.assert_close(log, logits_of(batch).softmax(1)[:, 2].log())


@pytest.mark.parametrize("target", [3, -1, torch.tensor([0, 4, 1])])
def test_a_class_that_does_not_exist(target: int | Tensor) -> None:
    with pytest.raises(ValueError, match="from 0 to 2"):
        explain.class_score(logits_of, target)(noise(3, 3, 4, 4))


@pytest.mark.parametrize("batch", [noise(0, 3, 4, 4), torch.full((1, 3, 4, 4), torch.nan)])
def test_a_score_of_nothing(batch: Tensor) -> None:
    with pytest.raises(ValueError, match="at least one example, without NaN"):
        explain.class_score(logits_of, 0)(batch)


def test_names_and_scales_that_do_not_exist() -> None:
    with pytest.raises(ValueError, match="number instead of 'ring'"):
        explain.class_score(logits_of, "ring")
    with pytest.raises(ValueError, match="logit, log, probability, not 'odds'"):
        explain.class_score(logits_of, 0, "odds")
    with pytest.raises(ValueError, match="did you mean ring"):
        explain.class_score(shapes.network(), "rings")


@pytest.mark.parametrize("target", [2, "ring"])
def test_gradient_is_the_engines(drawn: shapes.Shapes, target: int | str) -> None:
    network, pictures = shapes.network(), drawn.pictures[:4]
    engine = lk.Evaluator(network, lk.class_logit(target), (24, 24), precision="float32")(pictures)
    score = explain.class_score(network, target)
    found = explain.gradient(lambda x: score(x) - network.logits(x).mean(1), pictures)
    torch.testing.assert_close(found, engine.gradient, rtol=1e-4, atol=1e-7)


def quadratic(inputs: Tensor) -> Tensor:
    return (torch.arange(12.0).view(3, 2, 2) * inputs**2).sum((1, 2, 3))


def test_smoothgrad_has_the_mean_and_variance_of_a_quadratic() -> None:
    picture, slopes = noise(1, 3, 2, 2), 2 * torch.arange(12.0).view(1, 3, 2, 2)
    mean, variance = explain.smoothgrad(quadratic, picture, noise=0.2, samples=4000)
    torch.testing.assert_close(mean, slopes * picture, atol=0.3, rtol=0)
    torch.testing.assert_close(variance, (0.2 * slopes) ** 2, rtol=0.1, atol=0)
    still, none = explain.smoothgrad(quadratic, picture, noise=0, samples=2)
    torch.testing.assert_close(still, slopes * picture)
    assert none.abs().max() == 0


@pytest.mark.parametrize("arguments", [{"samples": 1}, {"noise": -0.1}])
def test_smoothgrad_needs_noise_and_samples(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        explain.smoothgrad(quadratic, noise(1, 3, 2, 2), **arguments)


def test_integrated_gradients_of_a_quadratic_are_exact_in_one_step() -> None:
    pictures, baseline = noise(2, 3, 2, 2), noise(2, 3, 2, 2, seed=1)
    expected = torch.arange(12.0).view(3, 2, 2) * (pictures**2 - baseline**2)
    found = explain.integrated_gradients(quadratic, pictures, baseline, steps=1)
    torch.testing.assert_close(found, expected)


def test_integrated_gradients_share_a_product_and_give_nothing_to_a_bystander() -> None:
    inputs = torch.tensor([[3.0, 2.0, 5.0]])
    found = explain.integrated_gradients(lambda x: x[:, 0] * x[:, 1], inputs, 0.0)
    torch.testing.assert_close(found, torch.tensor([[3.0, 3.0, 0.0]]))


@pytest.mark.slow
def test_integrated_gradients_add_up(trained: lk.Backbone, drawn: shapes.Shapes) -> None:
    pictures = drawn.pictures[:8]
    score = explain.class_score(trained, drawn.labels[:8])
    gap = score(pictures) - score(torch.full_like(pictures, 0.5))
    errors = [
        (explain.integrated_gradients(score, pictures, steps=n).sum((1, 2, 3)) - gap).abs().mean() for n in (8, 128)
    ]
    assert errors[1] < 0.01 * gap.abs().mean() and errors[1] < 0.3 * errors[0]
    with pytest.raises(ValueError, match="steps"):
        explain.integrated_gradients(score, pictures, steps=0)


def test_grad_cam_of_a_pooled_linear_head_is_cam(drawn: shapes.Shapes) -> None:
    """Zhou et al. 2016: the features, weighted with the head's own weights."""
    network, pictures, labels = shapes.network(), drawn.pictures[:5], drawn.labels[:5]
    features = network.features(pictures, ["relu4"])["relu4"]
    cam = torch.einsum("nc,nchw->nhw", network.head.weight[labels], features).relu()[:, None] / 144
    expected = F.interpolate(cam, (24, 24), mode="bilinear")
    torch.testing.assert_close(explain.grad_cam(network, "relu4", labels, pictures), expected, rtol=1e-4, atol=1e-8)


def test_grad_cam_explains_what_it_is_asked(drawn: shapes.Shapes) -> None:
    network, pictures = shapes.network(), drawn.pictures[:5]
    logit, log = (explain.grad_cam(network, "relu4", "ring", pictures, scale) for scale in ("logit", "log"))
    assert torch.equal(logit, explain.grad_cam(network, "relu4", 3, pictures))
    assert (logit - log).abs().max() > 0.1 * log.max()
    with pytest.raises(ValueError, match="no layer 'relu9'"):
        explain.grad_cam(network, "relu9", 0, pictures)
    with pytest.raises(ValueError, match="no places"):
        explain.grad_cam(network, "logits", 0, pictures)
    with pytest.raises(ValueError, match="no class 4"):
        explain.grad_cam(network, "relu4", 4, pictures)


@pytest.mark.parametrize("inplace", [False, True])
def test_guided_backpropagation_cuts_what_is_negative(inplace: bool) -> None:
    """relu(x) - 2 relu(y) + relu(z), seen through two ReLUs: y's path is cut; z's own ReLU is shut."""
    model = nn.Sequential(nn.ReLU(), nn.Linear(3, 3, bias=False), nn.ReLU(inplace))
    model[1].weight.data = torch.tensor([[1.0, -2.0, 1.0], [0, 0, 0], [0, 0, 0]])
    inputs = torch.tensor([[9.0, 1.0, -1.0]])

    def found() -> Tensor:
        return explain.gradient(lambda x: model(x).sum(1), inputs)

    plain, cut = torch.tensor([[1.0, -2.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    assert torch.equal(found(), plain)
    with pytest.raises(KeyError), explain.guided(model):
        assert torch.equal(found(), cut)
        raise KeyError
    assert torch.equal(found(), plain)
    with pytest.raises(ValueError, match="no ReLU"), explain.guided(nn.Linear(2, 2)):
        pass


# --- marking -----------------------------------------------------------------------------------------------------


def test_randomizing_shuffles_a_copy_from_the_head_down() -> None:
    network = shapes.network()
    before = {name: value.clone() for name, value in network.named_parameters()}
    copy = explain.randomized(network, "conv3")
    changed = {name.split(".")[1] for name, value in copy.named_parameters() if not torch.equal(value, before[name])}
    assert changed == {"5", "7", "weight", "bias"}  # conv3, conv4 and the head
    for name, value in network.named_parameters():
        assert torch.equal(value, before[name])
        assert torch.equal(dict(copy.named_parameters())[name].flatten().sort()[0], value.flatten().sort()[0])
    first = explain.randomized(network).stages[0][0].weight
    assert not torch.equal(first, before["stages.0.0.weight"])
    assert not torch.equal(first, explain.randomized(network, seed=1).stages[0][0].weight)
    only_head = explain.randomized(network, "logits")
    assert torch.equal(only_head.stages[-2][0].weight, network.stages[-2][0].weight)
    with pytest.raises(ValueError, match="no layer 'conv9'"):
        explain.randomized(network, "conv9")


def test_marks_of_known_maps() -> None:
    masks = torch.zeros(2, 1, 2, 2, dtype=torch.bool)
    masks[:, 0, 0] = True
    maps = torch.tensor([[3.0, -5.0, 1.0, 0.0], [0.0, 1.0, 2.0, 1.0]]).view(2, 1, 2, 2)
    assert [explain.pointing_game(m[None], k[None]) for m, k in zip(maps, masks, strict=True)] == [1, 0]
    assert [explain.mass_inside(m[None], k[None]) for m, k in zip(maps, masks, strict=True)] == [0.75, 0.25]
    assert (explain.pointing_game(maps, masks), explain.mass_inside(maps, masks)) == (0.5, 0.5)
    assert explain.mass_inside(-maps.abs(), masks) == 0
    for mark in (explain.pointing_game, explain.mass_inside):
        with pytest.raises(ValueError, match=r"\.sum\(1, keepdim=True\)"):
            mark(maps.expand(-1, 3, -1, -1), masks)


def test_deletion_curve_of_a_sum_of_pixels() -> None:
    pictures, value = noise(2, 3, 4, 5), noise(2, 1, 4, 5, seed=1)
    curve = explain.deletion_curve(lambda x: x.sum((1, 2, 3)), pictures, value, 0.0, steps=5)
    totals = pictures.sum(1).flatten(1).gather(1, value.flatten(1).argsort(1, descending=True))
    expected = [totals[:, 4 * k :].sum(1).mean() for k in range(6)]
    torch.testing.assert_close(curve, torch.stack(expected))
    insertion = explain.deletion_curve(lambda x: x.sum((1, 2, 3)), torch.zeros_like(pictures), value, pictures, steps=5)
    torch.testing.assert_close(insertion, curve[0] - curve)
    start = explain.deletion_curve(lambda x: x.sum((1, 2, 3)), pictures, value, 0.0, steps=2, until=0.4)
    torch.testing.assert_close(start, curve[:3])
    for arguments in ({"steps": 0}, {"until": 0}, {"until": 1.1}):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            explain.deletion_curve(lambda x: x.sum((1, 2, 3)), pictures, value, 0.0, **arguments)
    with pytest.raises(ValueError, match="maps of shape"):
        explain.deletion_curve(lambda x: x.sum((1, 2, 3)), pictures, value[:1], 0.0)


def test_overlay_glows_where_the_map_is_high() -> None:
    picture, maps = noise(1, 3, 6, 6), torch.zeros(2, 1, 6, 6)
    maps[1, 0, 2, 3] = 7
    gray, spot = explain.overlay(picture, maps)
    torch.testing.assert_close(gray, 0.6 * lk.luma(picture)[0].expand(3, -1, -1))
    assert spot[:, 2, 3].min() > 0.6 and torch.equal(spot[:, 0], gray[:, 0])
    assert spot.min() >= 0 and spot.max() <= 1
    assert explain.overlay(noise(1, 3, 24, 20), maps).shape == (2, 3, 24, 20)
    with pytest.raises(ValueError, match="one picture and maps"):
        explain.overlay(picture, picture)


def test_an_overlay_lies_where_its_picture_does() -> None:
    picture, maps = noise(1, 3, 6, 6), noise(2, 1, 4, 3)
    wanted = explain.overlay(picture, maps)
    with Device():
        found = explain.overlay(picture.to(ELSEWHERE), maps.to(ELSEWHERE))
        assert found.device == ELSEWHERE and found.cpu().equal(wanted)


# --- the truth is known ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_explanations_of_a_trained_network_find_the_shape(trained: lk.Backbone, drawn: shapes.Shapes) -> None:
    pictures, labels, masks = drawn.pictures, drawn.labels, drawn.masks
    assert (trained.logits(pictures).argmax(1) == labels).float().mean() > 0.9
    score = explain.class_score(trained, labels)
    slope = explain.gradient(score, pictures)
    integrated = explain.integrated_gradients(score, pictures, steps=32).sum(1, keepdim=True)
    cam = explain.grad_cam(trained, "relu4", labels, pictures)
    covered = perturb.occlusion(score, pictures)
    mass = [explain.mass_inside(m, masks) for m in (slope.abs().sum(1, keepdim=True), covered, cam, integrated)]
    area = 49 / 24**2
    assert mass[0] > 1.5 * area and min(mass[1:]) > 2.5 * area and mass[3] > 1.3 * mass[0]
    assert explain.pointing_game(cam, masks) > 0.85
    assert explain.pointing_game(integrated, masks) > 0.85


@pytest.mark.slow
def test_a_gated_network_is_its_own_explanation(gated: lk.Backbone, drawn: shapes.Shapes) -> None:
    features = gated.features(drawn.pictures, ["gates", "glu", "logits"])
    torch.testing.assert_close(features["glu"].sum((2, 3)), features["logits"], rtol=1e-4, atol=1e-4)
    gate = shapes.gates(features["gates"])
    torch.testing.assert_close(gate * features["gates"][:, :4], features["glu"])
    assert gate.sum((1, 2, 3)).mean() < 0.1 * gate[0].numel()
    assert (features["logits"].argmax(1) == drawn.labels).float().mean() > 0.9
    evidence = features["glu"][torch.arange(60), drawn.labels][:, None]
    assert explain.mass_inside(F.interpolate(evidence, (24, 24)), drawn.masks) > 0.5


# --- by removing parts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_occlusion_of_a_linear_score_is_the_mean_of_the_squares(stride: int) -> None:
    weights, pictures = noise(3, 7, 8), noise(2, 3, 7, 8, seed=1)
    found = perturb.occlusion(lambda x: (weights * x).sum((1, 2, 3)), pictures, size=3, stride=stride, fill=0.25)
    each, total, covers = (weights * (pictures - 0.25)).sum(1), torch.zeros(2, 7, 8), torch.zeros(7, 8)
    rows, columns = ({*range(0, side - 2, stride), side - 3} for side in (7, 8))
    for top in rows:
        for left in columns:
            square = (slice(None), slice(top, top + 3), slice(left, left + 3))
            total[square] += each[square].sum((1, 2), keepdim=True)
            covers[square[1:]] += 1
    torch.testing.assert_close(found[:, 0], total / covers)


@pytest.mark.parametrize(("size", "stride"), [(9, 1), (0, 1), (3, 4), (3, 0)])
def test_occlusion_needs_a_square_that_fits(size: int, stride: int) -> None:
    with pytest.raises(ValueError, match="whole number from 1"):
        perturb.occlusion(quadratic, noise(1, 3, 8, 8), size, stride)


@pytest.mark.parametrize("ridge", [0, 0.7])
def test_weighted_line_is_scikit_learns(ridge: float) -> None:
    points, values, weights = noise(40, 3), noise(40, seed=1), noise(40, seed=2)
    reference = Ridge(ridge) if ridge else LinearRegression()
    reference.fit(points.double(), values.double(), sample_weight=weights.double())
    found = perturb.weighted_line(points, values, weights, ridge).numpy()
    np.testing.assert_allclose(found, [reference.intercept_, *reference.coef_], rtol=1e-6)


def test_local_line_is_value_and_derivative() -> None:
    x = torch.linspace(-3, 3, 2001, dtype=torch.float64)[:, None]
    query = torch.tensor([0.4], dtype=torch.float64)
    found = perturb.local_line(x, torch.sin(2 * x[:, 0]), query, width=0.02)
    np.testing.assert_allclose(found, [math.sin(0.8), 2 * math.cos(0.8)], rtol=2e-3)
    gaussian = torch.exp(-((x[:, 0] - 0.4) ** 2) / (2 * 0.7**2)).numpy()
    reference = LinearRegression().fit((x - 0.4).numpy(), torch.sin(2 * x[:, 0]).numpy(), sample_weight=gaussian)
    found = perturb.local_line(x, torch.sin(2 * x[:, 0]), query, width=0.7)
    np.testing.assert_allclose(found, [reference.intercept_, *reference.coef_], rtol=1e-8)
    with pytest.raises(ValueError, match="width"):
        perturb.local_line(x, x[:, 0], query, width=0)


def random_game(players: int, seed: int = 0) -> perturb.Game:
    worth = torch.randn(2**players, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return lambda coalitions: worth[(coalitions.long() << torch.arange(players)).sum(1)]


def test_shapley_of_the_glove_game() -> None:
    """Two own a left glove, one a right glove, and a pair is worth 1: the right one is scarce."""
    found = perturb.shapley(lambda c: ((c[:, 0] | c[:, 1]) & c[:, 2]).double(), 3)
    torch.testing.assert_close(found, torch.tensor([1 / 6, 1 / 6, 4 / 6], dtype=torch.float64))


def test_shapley_values_are_fair() -> None:
    """Efficiency, linearity, nothing for a bystander, the same for equals."""
    one, two = random_game(6), random_game(6, seed=1)
    a, b = perturb.shapley(one, 6), perturb.shapley(two, 6)
    ends = one(torch.tensor([[False] * 6, [True] * 6]))
    torch.testing.assert_close(a.sum(), ends[1] - ends[0])
    torch.testing.assert_close(perturb.shapley(lambda c: one(c) + 3 * two(c), 6), a + 3 * b)
    with_bystander = perturb.shapley(lambda c: one(c[:, :6]), 7)
    torch.testing.assert_close(with_bystander, torch.cat([a, a.new_zeros(1)]))
    equals = perturb.shapley(lambda c: c.double().sum(1) ** 3, 4)
    torch.testing.assert_close(equals, torch.full((4,), 16.0, dtype=torch.float64))


@pytest.mark.parametrize("players", [1, 2, 5, 9])
def test_kernel_shap_is_exact_with_all_coalitions(players: int) -> None:
    game = random_game(players)
    torch.testing.assert_close(perturb.kernel_shap(game, players), perturb.shapley(game, players), rtol=1e-8, atol=1e-9)


def test_kernel_shap_converges_from_samples() -> None:
    game = random_game(8)
    exact = perturb.shapley(game, 8)
    errors = [(perturb.kernel_shap(game, 8, samples=n) - exact).abs().max().item() for n in (100, 20_000)]
    assert errors[1] < 0.05 and errors[1] < 0.3 * errors[0]
    assert perturb.kernel_shap(game, 8, samples=100).sum() == pytest.approx(exact.sum().item())


def test_an_additive_game_has_one_explanation() -> None:
    parts = torch.tensor([2.0, -1.0, 0.5, 0.0, 3.0])

    def game(coalitions: Tensor) -> Tensor:
        return 7 + (coalitions * parts).sum(1)

    for found in (perturb.shapley(game, 5), perturb.kernel_shap(game, 5), perturb.kernel_shap(game, 5, samples=60)):
        torch.testing.assert_close(found.float(), parts, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(perturb.lime(game, 5, ridge=0).float(), parts, atol=1e-4, rtol=1e-4)
    assert perturb.lime(game, 5, ridge=100).abs().sum() < 0.9 * parts.abs().sum()


def test_shapley_of_a_linear_model_is_weight_times_deviation() -> None:
    weights, background, row = noise(6), noise(30, 6, seed=1), noise(6, seed=2)
    game = perturb.replacing(lambda x: x @ weights, row, background)
    torch.testing.assert_close(
        perturb.shapley(*game).float(), weights * (row - background.mean(0)), rtol=1e-4, atol=1e-6
    )


def photos_game(picture: Tensor, fill: Tensor | float) -> tuple[perturb.Game, int]:
    segments = torch.tensor([[0, 0, 1, 1]] * 2 + [[2, 2, 1, 1]] * 2)
    return perturb.erasing(lambda x: x.square().sum((1, 2, 3)), picture, segments, fill)


GAMES = {
    "a picture": lambda device: photos_game(noise(1, 3, 4, 4).to(device), 0.5),
    "a filled picture": lambda device: photos_game(noise(1, 3, 4, 4).to(device), noise(1, 3, 4, 4, seed=1).to(device)),
    "a row": lambda device: perturb.replacing(lambda x: x.prod(1), noise(4).to(device), noise(9, 4, seed=1).to(device)),
    "one column": lambda device: perturb.replacing(lambda x: x[:, 0], noise(1).to(device), noise(9, 1).to(device)),
}


@pytest.mark.parametrize("game", GAMES.values(), ids=GAMES)
@pytest.mark.parametrize("read", [perturb.lime, perturb.shapley, perturb.kernel_shap], ids=lambda read: read.__name__)
def test_games_are_played_on_any_device(read: Callable[..., Tensor], game: Callable[..., tuple]) -> None:
    wanted = read(*game("cpu"))
    with Device():
        assert read(*game(ELSEWHERE)).equal(wanted)


def test_a_line_is_fitted_through_points_on_any_device() -> None:
    points, values, query = noise(40, 3), noise(40, seed=1), noise(3, seed=2)
    wanted = perturb.local_line(points, values, query, width=0.3)
    with Device():
        found = perturb.local_line(points.to(ELSEWHERE), values.to(ELSEWHERE), query.to(ELSEWHERE), width=0.3)
        assert found.device == ELSEWHERE and found.cpu().equal(wanted)


def test_erasing_fills_the_segments_that_are_not_kept() -> None:
    picture, segments = noise(1, 3, 4, 4), torch.tensor([[0, 0, 1, 1]] * 2 + [[2, 2, 1, 1]] * 2)
    game, players = perturb.erasing(lambda x: x.sum((1, 2, 3)), picture, segments, fill=0.0, batch=3)
    sums = torch.stack([picture[..., segments == k].sum() for k in range(3)])
    coalitions = perturb.every_coalition(players)
    assert coalitions.shape == (8, 3)
    torch.testing.assert_close(game(coalitions), (coalitions * sums).sum(1))
    photo = noise(1, 3, 4, 4, seed=1)
    filled, _ = perturb.erasing(lambda x: x.sum((1, 2, 3)), picture, segments, fill=photo)
    torch.testing.assert_close(filled(torch.zeros(1, 3)), photo.sum()[None])


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: perturb.shapley(random_game(1), 17), "from 1 to 16, not 17"),
        (lambda: perturb.kernel_shap(random_game(1), 17), "from 1 to 16, not 17"),
        (lambda: perturb.shapley(random_game(1), 0), "players .* not 0"),
        (lambda: perturb.lime(random_game(1), 0), "players .* not 0"),
        (lambda: perturb.lime(random_game(5), 5, samples=5), "samples .* from 6"),
        (lambda: perturb.kernel_shap(random_game(5), 5, samples=9), "samples .* from 10"),
        (lambda: perturb.erasing(quadratic, noise(1, 3, 4, 4), torch.zeros(4, 5).long()), "segment for each pixel"),
        (lambda: perturb.erasing(quadratic, noise(2, 3, 4, 4), torch.zeros(4, 4).long()), "one picture"),
        (lambda: perturb.replacing(quadratic, noise(4), noise(0, 4)), "rows of 4 columns"),
        (lambda: perturb.replacing(quadratic, noise(4), noise(5, 3)), "rows of 4 columns"),
    ],
)
def test_games_say_what_they_need(call, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        call()


# --- Captum ------------------------------------------------------------------------------------------------------


class Whole(nn.Module):
    """Captum calls modules."""

    def __init__(self, backbone: lk.Backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, pictures: Tensor) -> Tensor:
        return self.backbone.logits(pictures)


def agree(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-3, atol=1e-4 * theirs.abs().max().item())


@pytest.fixture(scope="module")
def captum():
    return pytest.importorskip("captum.attr")


@pytest.mark.filterwarnings("ignore")  # Captum announces its hooks
def test_gradients_agree_with_captum(captum, trained: lk.Backbone, drawn: shapes.Shapes) -> None:
    x, y, model = drawn.pictures[:6], drawn.labels[:6], Whole(trained)
    score, gray = explain.class_score(trained, y), torch.full_like(x, 0.5)
    agree(explain.gradient(score, x), captum.Saliency(model).attribute(x, target=y, abs=False))
    ig = captum.IntegratedGradients(model).attribute(x, gray, target=y, n_steps=20, method="riemann_middle")
    agree(explain.integrated_gradients(score, x, steps=20), ig)
    for layer, position in (("relu4", -1), ("relu3", 6)):
        cam = captum.LayerGradCam(model, trained.stages[position]).attribute(x, target=y, relu_attributions=True)
        agree(explain.grad_cam(trained, layer, y, x), F.interpolate(cam, (24, 24), mode="bilinear"))
    with explain.guided(trained):
        ours = explain.gradient(score, x)
    agree(ours, captum.GuidedBackprop(model).attribute(x, target=y))


def test_noise_agrees_with_captum(captum, trained: lk.Backbone, drawn: shapes.Shapes) -> None:
    """The same seed draws the same noise; Captum's variance divides by n and not by n - 1."""
    x, y, n = drawn.pictures[:2], drawn.labels[:2], 20
    tunnel = captum.NoiseTunnel(captum.Saliency(Whole(trained)))
    for picture, label in zip(x.split(1), y.split(1), strict=True):
        mean, variance = explain.smoothgrad(explain.class_score(trained, label), picture, noise=0.05, samples=n)
        options = {"target": label, "abs": False, "nt_samples": n, "stdevs": 0.05}
        for kind, ours in {"smoothgrad": mean, "vargrad": variance * (n - 1) / n}.items():
            with torch.random.fork_rng():
                torch.manual_seed(0)
                agree(ours, tunnel.attribute(picture, nt_type=kind, **options))


def test_occlusion_agrees_with_captum(captum, trained: lk.Backbone, drawn: shapes.Shapes) -> None:
    x, y = drawn.pictures[:3], drawn.labels[:3]
    theirs = captum.Occlusion(trained.logits).attribute(
        x, target=y, sliding_window_shapes=(3, 6, 6), strides=(3, 3, 3), baselines=0.5
    )
    agree(perturb.occlusion(explain.class_score(trained, y), x, size=6, stride=3), theirs[:, :1])


@pytest.mark.slow
def test_games_agree_with_captum(captum, trained: lk.Backbone, drawn: shapes.Shapes) -> None:
    x, y = drawn.pictures[:1], int(drawn.labels[0])
    segments = torch.arange(24)[:, None] // 12 * 3 + torch.arange(24) // 8
    game = perturb.erasing(explain.class_score(trained, y), x, segments)
    options = {"target": y, "feature_mask": segments[None, None], "baselines": 0.5}
    exact = captum.ShapleyValues(trained.logits).attribute(x, perturbations_per_eval=64, **options)
    ours = perturb.shapley(*game)
    agree(ours[segments].float(), exact[0, 0])
    torch.manual_seed(0)
    theirs = captum.KernelShap(trained.logits).attribute(x, n_samples=3000, perturbations_per_eval=500, **options)
    assert (theirs[0, 0] - ours[segments]).abs().max() < 0.15 * ours.abs().max()


def test_lime_agrees_with_captum_on_the_same_coalitions(captum) -> None:
    from captum._utils.models.linear_model import SkLearnLinearRegression

    game, n = random_game(6), 300
    coalitions = torch.randint(2, (n, 6), generator=torch.Generator().manual_seed(0))
    coalitions[0] = 1

    def similarity(original: Tensor, kept: Tensor, *_, **__) -> float:
        return math.exp(-((1 - math.sqrt(kept.float().mean())) ** 2) / (2 * 0.25**2))

    def one_by_one(*_, **__) -> Iterator[Tensor]:
        yield from coalitions[:, None].float()

    explainer = captum.LimeBase(
        lambda kept: game(kept.bool()),
        SkLearnLinearRegression(),
        similarity,
        one_by_one,
        True,
        lambda kept, *_, **__: kept,
        lambda inputs, *_, **__: inputs,
    )
    theirs = explainer.attribute(torch.ones(1, 6), n_samples=n)
    torch.testing.assert_close(perturb.lime(game, 6, samples=n, ridge=0).float(), theirs[0], rtol=1e-3, atol=1e-4)
