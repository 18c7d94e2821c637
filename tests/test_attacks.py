"""Attacks and certificates against closed forms on linear models, and against an independent library on digits."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from operator import attrgetter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from elsewhere import ELSEWHERE, Device, distant
from torch import Tensor, nn

import labkit as lk
from labkit.networks.recommended import Recommended
from labkit.outlook.attacks import Threat, attacking, deepfool, fgsm, pgd, targeted, untargeted
from labkit.outlook.blackbox import certify, hop_skip_jump, margin, nes, square, votes
from labkit.outlook.classifiers import logits_of

SHAPE = (3, 1, 4, 4)


pytestmark = pytest.mark.usefixtures("one_thread")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Linear(nn.Module):
    """Logits that are linear in the pixels, and 0 for the middle gray; counts the pictures it is asked about."""

    def __init__(self, classes: int = 2, seed: int = 1):
        super().__init__()
        self.weight, self.asked = normal(classes, 16, seed=seed), 0

    def forward(self, pictures: Tensor) -> Tensor:
        self.asked += len(pictures)
        return (pictures - 0.5).flatten(1) @ self.weight.T

    def slope(self, a: int, b: int) -> Tensor:
        """The gradient of logit a minus logit b."""
        return (self.weight[a] - self.weight[b]).view(1, 1, 4, 4)


PICTURES = 0.4 + 0.2 * random(*SHAPE)  # so far inside [0, 1] that small attacks do not touch its ends
THREATS = [Threat("linf", 0.1), Threat("l2", 0.3)]
both = pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat.norm)


# --- threats ------------------------------------------------------------------------------------------------------


@both
def test_what_is_projected_is_allowed_and_stays(threat: Threat) -> None:
    originals = random(*SHAPE, seed=1)
    projected = threat.project(originals + normal(*SHAPE), originals)
    threat.check(projected, originals)
    assert threat.size(projected - originals).max() > 0.9 * threat.epsilon
    torch.testing.assert_close(threat.project(projected, originals), projected)
    assert threat.project(originals, originals).equal(originals)
    little = (originals + 1e-3 * normal(*SHAPE)).clamp(0, 1)
    torch.testing.assert_close(threat.project(little, originals), little)


@both
def test_no_direction_of_norm_one_is_steeper(threat: Threat) -> None:
    """The steepest one reaches the dual norm of the gradient."""
    gradient = normal(*SHAPE)
    steepest = threat.steepest(gradient)
    torch.testing.assert_close(threat.size(steepest), torch.ones(3))
    dual = gradient.flatten(1).norm(p=1 if threat.norm == "linf" else 2, dim=1)
    torch.testing.assert_close((gradient * steepest).sum((1, 2, 3)), dual)
    assert threat.steepest(torch.zeros(SHAPE)).equal(torch.zeros(SHAPE))


@both
def test_noise_uses_the_whole_budget_and_its_seed(threat: Threat) -> None:
    noisy = threat.noise(PICTURES, seed=3)
    torch.testing.assert_close(threat.size(noisy - PICTURES), torch.full((3,), threat.epsilon))
    assert noisy.equal(threat.noise(PICTURES, seed=3))
    assert not noisy.equal(threat.noise(PICTURES, seed=4))


@pytest.mark.parametrize(
    ("norm", "epsilon", "said"),
    [("linf", 8, "from 0 to 1, not 8"), ("linf", -0.1, "from 0"), ("l2", math.nan, "nan"), ("l1", 1, "l1")],
)
def test_threats_that_make_no_sense(norm: str, epsilon: float, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Threat(norm, epsilon)


@pytest.mark.parametrize(("moved", "said"), [(PICTURES + 0.2, "0.2 in linf"), (PICTURES - 1, r"not from -0\.")])
def test_what_is_not_allowed_is_named(moved: Tensor, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Threat("linf", 0.1).check(moved, PICTURES)


# --- along the gradient -------------------------------------------------------------------------------------------


def test_objectives_are_cross_entropies_with_their_gradient() -> None:
    """For linear logits the gradient is (p - onehot) W."""
    model, labels = Linear(classes=5), torch.tensor([0, 3, 4])
    wanted, unwanted = targeted(model, labels)(PICTURES), untargeted(model, labels)(PICTURES)
    logits = model(PICTURES)
    slope = (logits.softmax(1) - F.one_hot(labels, 5)) @ model.weight
    torch.testing.assert_close(wanted.gradient.flatten(1), slope)
    torch.testing.assert_close(wanted.loss, -logits.log_softmax(1)[torch.arange(3), labels])
    assert unwanted.loss.equal(-wanted.loss)
    assert unwanted.gradient.equal(-wanted.gradient)


@both
@pytest.mark.parametrize("attack", [fgsm, pgd], ids=lambda attack: attack.__name__)
def test_against_a_linear_model_the_best_attack_is_known(threat: Threat, attack: Callable[..., Tensor]) -> None:
    model, labels = Linear(), torch.tensor([0, 1, 1])
    slope = torch.cat([model.slope(1 - k, k) for k in labels.tolist()])
    best = PICTURES + threat.epsilon * threat.steepest(slope)
    torch.testing.assert_close(attack(untargeted(model, labels), PICTURES, threat), best)
    torch.testing.assert_close(attack(targeted(model, 1 - labels), PICTURES, threat), best)


@both
def test_an_attack_that_hits_the_ends_of_the_pixels_is_allowed(threat: Threat) -> None:
    originals = random(*SHAPE, seed=5).round()
    attacked = pgd(untargeted(Linear(), torch.tensor([0, 1, 0])), originals, threat, seed=1)
    threat.check(attacked, originals)
    assert not attacked.equal(originals)


def test_a_seed_starts_as_far_away_as_allowed() -> None:
    """A model without slope leaves every picture where it started."""
    flat = lambda pictures: pictures.flatten(1)[:, :2] * 0  # noqa: E731
    threat = Threat("linf", 0.1)
    assert pgd(untargeted(flat, torch.tensor([0, 1, 1])), PICTURES, threat).equal(PICTURES)
    assert pgd(untargeted(flat, torch.tensor([0, 1, 1])), PICTURES, threat, seed=2).equal(threat.noise(PICTURES, 2))


def test_attacking_reports_every_step() -> None:
    run = attacking(untargeted(Linear(), torch.tensor([0, 1, 1])), PICTURES, Threat("linf", 0.1), steps=7)
    losses = [progress.loss for progress in run]
    assert len(losses) == 7
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 0.1


def test_steps_too_short_fall_short() -> None:
    attacked = pgd(
        untargeted(Linear(), torch.tensor([0, 1, 1])), PICTURES, Threat("linf", 0.1), steps=5, step_size=0.01
    )
    torch.testing.assert_close(Threat("linf", 1).size(attacked - PICTURES), torch.full((3,), 0.05))


def test_the_engine_attacks_with_the_same_gradient() -> None:
    """The gradient of the cross-entropy is that of logits weighted by probability, which the losses can say."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        stages: OrderedDict[str, nn.Module] = OrderedDict(soft=nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softplus()))
        network = lk.Backbone("tiny", stages, nn.Linear(4, 3), Recommended({}, ("soft",), {}))
    network.classes = ["ant", "bee", "cat"]
    photo, threat = random(1, 3, 8, 8), Threat("linf", 0.1)
    ant, bee, cat = network.logits(photo).softmax(1)[0].tolist()
    loss = ant * lk.class_logit("ant") + (bee - 1) * lk.class_logit("bee") + cat * lk.class_logit("cat")
    evaluate = lk.Evaluator(network, loss, photo.shape[-2:], precision="float32")
    expected = targeted(network.logits, torch.tensor([1]))(photo).gradient
    torch.testing.assert_close(evaluate(photo).gradient, expected, rtol=1e-4, atol=1e-7)
    assert fgsm(evaluate, photo, threat).equal(fgsm(targeted(network.logits, torch.tensor([1])), photo, threat))


def test_deepfool_finds_the_nearest_boundary_of_a_linear_model() -> None:
    model, pictures = Linear(classes=5), 0.4 + 0.2 * random(20, 1, 4, 4)
    logits = model(pictures)
    names = logits.argmax(1)
    distances = [
        min((logits[i, n] - logits[i, k]).item() / model.slope(k, n).norm().item() for k in range(5) if k != n)
        for i, n in enumerate(names.tolist())
    ]
    found = deepfool(model, pictures, overshoot=0.01)
    assert (model(found).argmax(1) != names).all()
    moved = (found - pictures).flatten(1).norm(dim=1)
    torch.testing.assert_close(moved, 1.01 * torch.tensor(distances), rtol=1e-3, atol=1e-5)


def test_deepfool_leaves_what_nothing_can_change() -> None:
    blind = lambda pictures: pictures.flatten(1)[:, :3] * 0 + torch.tensor([1.0, 0, 0])  # noqa: E731
    found = deepfool(blind, PICTURES, steps=3)
    assert found.isfinite().all()
    assert (blind(found).argmax(1) == 0).all()


def test_deepfool_tries_the_classes_that_come_next() -> None:
    """With two, it goes to the boundary with the runner-up, which is not always the nearest."""
    model, pictures = Linear(classes=12), 0.4 + 0.2 * random(20, 1, 4, 4)
    first, second = model(pictures).topk(2).indices.T
    slope = (model.weight[second] - model.weight[first]).norm(dim=1)
    logits, rows = model(pictures), torch.arange(20)
    distance = (logits[rows, first] - logits[rows, second]) / slope
    found = {k: deepfool(model, pictures, overshoot=0.01, classes=k) for k in (2, 12, 1000)}
    moved = {k: (one - pictures).flatten(1).norm(dim=1) for k, one in found.items()}
    torch.testing.assert_close(moved[2], 1.01 * distance, rtol=1e-3, atol=1e-5)
    assert (moved[2] > 1.05 * moved[12]).any()
    assert found[12].equal(found[1000])
    assert all((model(one).argmax(1) != first).all() for one in found.values())


@pytest.mark.parametrize(("options", "passes"), [({}, 10), ({"classes": 3}, 3), ({"classes": 1000}, 40)])
def test_deepfool_costs_a_backward_pass_for_each_class_it_tries(options: dict[str, int], passes: int) -> None:
    model, passed = Linear(classes=40), []

    def counted(pictures: Tensor) -> Tensor:
        logits = model(pictures)
        if logits.requires_grad:
            logits.register_hook(lambda gradient: passed.append(len(gradient)))
        return logits

    deepfool(counted, PICTURES, steps=1, **options)
    assert passed == [len(PICTURES)] * passes


# --- asking only --------------------------------------------------------------------------------------------------


def test_margin() -> None:
    logits = torch.tensor([[1.0, 5.0, 2.0], [1.0, 5.0, 2.0], [3.0, 0.0, 3.0]])
    assert margin(logits, torch.tensor([1, 2, 0])).tolist() == [3, -3, 0]


def test_nes_measures_the_gradient_and_counts_on_two_queries_a_sample() -> None:
    model, labels = Linear(classes=4), torch.tensor([0, 1, 2])
    true = untargeted(model, labels)(PICTURES)
    model.asked = 0
    measured = nes(model, labels, samples=3000, sigma=0.02)(PICTURES)
    assert model.asked == 2 * 3000 * len(PICTURES)
    assert torch.cosine_similarity(measured.gradient.flatten(1), true.gradient.flatten(1)).min() > 0.99
    torch.testing.assert_close(
        measured.gradient.flatten(1).norm(dim=1), true.gradient.flatten(1).norm(dim=1), rtol=0.05, atol=0
    )
    torch.testing.assert_close(measured.loss, true.loss, rtol=0.01, atol=0)


def test_square_needs_few_queries_against_a_linear_model() -> None:
    """Where random signs fail, it ends at the margin's sign, knows what it asked, and stops when it has won."""
    model, threat = Linear(seed=2), Threat("linf", 0.1)
    pictures = 0.4 + 0.2 * random(20, 1, 4, 4, seed=2)
    labels = model(pictures).argmax(1)
    model.asked = 0
    found = square(model, pictures, labels, threat, queries=300)
    assert model.asked == found.queries.sum()
    threat.check(found.pictures, pictures)
    best = margin(model(fgsm(untargeted(model, labels), pictures, threat)), labels)  # exact for a linear model
    reached = margin(model(found.pictures), labels)
    assert ((reached < 0) == (best < 0)).all()
    assert (best < 0).any() and (found.queries[reached < 0] < 300).all() and (found.queries[reached > 0] == 300).all()
    torch.testing.assert_close((found.pictures - pictures).abs(), torch.full_like(pictures, 0.1))


def test_squares_reach_every_corner() -> None:
    for pixel in (0, 3, 12, 15):
        model, pictures = Linear(), 0.45 + 0.1 * random(20, 1, 4, 4)
        model.weight = F.one_hot(torch.tensor(pixel), 16) * torch.tensor([[1.0], [-1.0]])
        labels = model(pictures).argmax(1)
        found = square(model, pictures, labels, Threat("linf", 0.1), queries=200)
        assert (model(found.pictures).argmax(1) != labels).all()


def test_square_leaves_what_is_wrong_already() -> None:
    model = Linear()
    found = square(model, PICTURES, 1 - model(PICTURES).argmax(1), Threat("linf", 1e-3))
    assert found.queries.tolist() == [1, 1, 1]


def test_hop_skip_jump_comes_near_the_boundary_of_a_linear_model() -> None:
    model = Linear()
    labels = model(PICTURES).argmax(1)
    starts = (PICTURES + 5 * torch.cat([model.slope(1 - k, k) for k in labels.tolist()])).clamp(0, 1)
    distance = margin(model(PICTURES), labels) / model.slope(0, 1).norm()
    model.asked, last = 0, math.inf
    for rounds in (1, 3, 8):
        found = hop_skip_jump(model, PICTURES, labels, starts, rounds=rounds)
        assert (model(found.pictures).argmax(1) != labels).all()
        gap = (found.pictures - PICTURES).flatten(1).norm(dim=1)
        assert gap.max() <= last
        last = gap.max().item()
    assert (gap >= distance - 1e-6).all()
    assert (gap / distance).max() < 1.1
    model.asked = 0
    asked = hop_skip_jump(model, PICTURES, labels, starts, rounds=2).queries
    assert model.asked == asked.sum()
    sure = 1 + 3 * 6 + 100 + 141  # the start, three walks of six halvings on 16 pixels, and the probes of two rounds
    assert (sure + 2 <= asked).all() and (asked <= sure + 2 * 6).all()  # and the jumps


def test_hop_skip_jump_must_start_from_something_else() -> None:
    model = Linear()
    with pytest.raises(ValueError, match="named differently"):
        hop_skip_jump(model, PICTURES, model(PICTURES).argmax(1), PICTURES)


def test_a_model_is_asked_in_batches() -> None:
    sizes: list[int] = []

    def model(pictures: Tensor) -> Tensor:
        sizes.append(len(pictures))
        return pictures.flatten(1)

    pictures = random(150, 1, 1, 2)
    assert logits_of(model, pictures, 64).equal(pictures.flatten(1))
    assert sizes == [64, 64, 22]
    labels = pictures[:3].flatten(1).argmax(1)
    hop_skip_jump(model, pictures[:3], labels, pictures[:3].flip(3), rounds=1)
    assert votes(model, pictures[:1], 0.1, samples=130).sum() == 130
    assert max(sizes) == 64
    assert sizes[-3:] == [64, 64, 2]


# --- the certificate ----------------------------------------------------------------------------------------------


def test_the_radius_of_a_linear_model_is_its_distance_to_the_boundary() -> None:
    """There the bound of the theorem is attained: more votes bring the radius up to the distance, never beyond."""
    model, sigma, distances = Linear(), 0.2, torch.tensor([0.1, 0.2, 0.3])
    slope = model.slope(1, 0)
    pictures = 0.5 + distances.view(3, 1, 1, 1) * slope / slope.norm()
    few, many = (certify(model, pictures, sigma, samples=samples) for samples in (500, 50_000))
    for certificate in (few, many):
        assert certificate.classes.tolist() == [1, 1, 1]
        assert (certificate.radii < distances).all()
    assert (few.radii < many.radii).all()
    assert (many.radii > 0.9 * distances).all()


def test_a_unanimous_vote_certifies_what_its_number_allows() -> None:
    """With n of n votes the bound is alpha^(1/n)."""
    always = lambda pictures: torch.tensor([0.0, 1.0]).expand(len(pictures), 2)  # noqa: E731
    certificate = certify(always, PICTURES, 0.5, samples=200, alpha=0.01)
    expected = 0.5 * torch.special.ndtri(torch.tensor(0.01 ** (1 / 200)))
    torch.testing.assert_close(certificate.radii, expected.expand(3))
    assert certificate.classes.tolist() == [1, 1, 1]


def test_it_abstains_where_the_votes_are_even() -> None:
    certificate = certify(Linear(), torch.full((1, 1, 4, 4), 0.5), 0.2)
    assert certificate.classes.tolist() == [-1]
    assert certificate.radii.tolist() == [0]


def test_the_bound_is_too_high_no_more_often_than_promised() -> None:
    """Where the votes are even every certificate is wrong, and a share of alpha may be given."""
    certificate = certify(Linear(), torch.full((2000, 1, 4, 4), 0.5), 0.2, samples=100, alpha=0.05)
    assert 0.01 < (certificate.classes >= 0).float().mean() < 0.06


def test_votes_are_those_of_the_normal_distribution() -> None:
    model, sigma = Linear(), 0.3
    share = votes(model, PICTURES, sigma, samples=20_000)[:, 1] / 20_000
    lead = (model(PICTURES) @ torch.tensor([-1.0, 1.0])) / model.slope(0, 1).norm()
    torch.testing.assert_close(share, torch.special.ndtr(lead / sigma), rtol=0, atol=0.015)
    assert votes(model, PICTURES, sigma, seed=1).equal(votes(model, PICTURES, sigma, seed=1))


# --- other devices ------------------------------------------------------------------------------------------------


ATTACKS: dict[str, Callable[..., Tensor | tuple[Tensor, ...]]] = {
    "untargeted": lambda model, x, labels: attrgetter("loss", "gradient")(untargeted(model, labels)(x)),
    "pgd": lambda model, x, labels: pgd(untargeted(model, labels), x, Threat("l2", 0.3), seed=0),
    "deepfool": lambda model, x, _: deepfool(model, x),
    "nes": lambda model, x, labels: pgd(nes(model, labels), x, Threat("linf", 0.1), steps=2),
    "margin": lambda model, x, labels: margin(model(x), labels),
    "square": lambda model, x, labels: square(model, x, labels, Threat("linf", 0.1), queries=20),
    "hop_skip_jump": lambda model, x, labels: hop_skip_jump(model, x, labels, 1 - x.cpu(), rounds=2),
    "votes": lambda model, x, _: votes(model, x, 0.2, samples=100),
    "certify": lambda model, x, _: certify(model, x, 0.2),
}


@pytest.mark.parametrize("lies", ["here", "there"])
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_a_model_may_lie_on_another_device(attack: Callable[..., Tensor | tuple[Tensor, ...]], lies: str) -> None:
    """The labels stay on the CPU, and the pictures with them or with the model: the numbers are the same."""
    model = Linear()
    labels = model(PICTURES).argmax(1)
    wanted = attack(model, PICTURES, labels)
    with Device():
        found = attack(distant(model), PICTURES if lies == "here" else PICTURES.to(ELSEWHERE), labels)
        for ours, theirs in zip(as_tuple(found), as_tuple(wanted), strict=True):
            assert ours.cpu().equal(theirs)


@pytest.mark.parametrize("want", [untargeted, targeted, nes], ids=lambda want: want.__name__)
def test_losses_come_home_to_the_pictures(want: Callable[..., Callable[[Tensor], lk.Evaluation]]) -> None:
    with Device():
        found = want(distant(Linear()), LABELS)(PICTURES)
        assert {one.device for one in (found.loss, found.gradient, *found.layer_terms.values())} == {PICTURES.device}


def as_tuple(found: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (found,) if isinstance(found, Tensor) else tuple(found)


# --- bad input ----------------------------------------------------------------------------------------------------

LABELS, SMALL = torch.tensor([0, 1, 1]), Threat("linf", 0.1)
BAD: dict[str, tuple[Callable[[], object], str]] = {
    "a class that does not exist": (lambda: pgd(untargeted(Linear(), LABELS + 1), PICTURES, SMALL), "from 0 to 1"),
    "a negative target": (lambda: pgd(targeted(Linear(), LABELS - 1), PICTURES, SMALL), "no class .-1"),
    "too few labels": (lambda: pgd(untargeted(Linear(), LABELS[:2]), PICTURES, SMALL), "3 pictures"),
    "pixels in 0 to 255": (lambda: pgd(untargeted(Linear(), LABELS), 255 * PICTURES, SMALL), "from 0 to 1"),
    "one picture, no batch": (lambda: pgd(untargeted(Linear(), LABELS), PICTURES[0], SMALL), r"\(1, 4, 4\)"),
    "no pictures": (lambda: deepfool(Linear(), PICTURES[:0]), r"\(0, 1, 4, 4\)"),
    "no steps": (lambda: pgd(untargeted(Linear(), LABELS), PICTURES, SMALL, steps=0), "steps"),
    "labels that are no whole numbers": (
        lambda: untargeted(Linear(), LABELS / 2)(PICTURES),
        "whole numbers from 0 to 1",
    ),
    "pixels that are no numbers": (lambda: untargeted(Linear(), LABELS)(PICTURES / 0), "NaN or infinite"),
    "margins of nobody": (lambda: margin(torch.zeros(3, 2), LABELS[:0]), "as many classes, not 0"),
    "steps without end": (lambda: pgd(untargeted(Linear(), LABELS), PICTURES, SMALL, steps=10**5), "from 1 to 10,000"),
    "half a step": (lambda: pgd(untargeted(Linear(), LABELS), PICTURES, SMALL, steps=1.5), "steps"),
    "a step backwards": (lambda: pgd(untargeted(Linear(), LABELS), PICTURES, SMALL, step_size=-1), "step_size"),
    "deepfool without steps": (lambda: deepfool(Linear(), PICTURES, steps=0), "steps"),
    "deepfool with nothing to try": (lambda: deepfool(Linear(), PICTURES, classes=1), "classes"),
    "deepfool with one logit": (lambda: deepfool(lambda x: Linear()(x)[:, :1], PICTURES), "two classes"),
    "nes without samples": (lambda: nes(Linear(), LABELS, samples=0), "samples"),
    "squares in l2": (lambda: square(Linear(), PICTURES, LABELS, Threat("l2", 1)), "not l2"),
    "squares without queries": (lambda: square(Linear(), PICTURES, LABELS, SMALL, queries=0), "queries"),
    "no rounds": (lambda: hop_skip_jump(Linear(), PICTURES, LABELS, PICTURES, rounds=0), "rounds"),
    "no votes": (lambda: certify(Linear(), PICTURES, 0.1, samples=0), "samples"),
    "negative noise": (lambda: votes(Linear(), PICTURES, -0.1), "sigma"),
    "a sure bound": (lambda: certify(Linear(), PICTURES, 0.1, alpha=0), "alpha"),
}


@pytest.mark.parametrize(("call", "said"), BAD.values(), ids=BAD)
def test_bad_input_is_named(call: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()


# --- the adversarial robustness toolbox ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits() -> tuple[nn.Module, Tensor, Tensor]:
    """A small network trained on digits, and sixty pictures that it has not seen."""
    from sklearn.datasets import load_digits

    pictures, labels = (torch.tensor(array) for array in load_digits(return_X_y=True))
    pictures = pictures.float().view(-1, 1, 8, 8) / 16
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(192, 10)]
        model = nn.Sequential(*layers)
        optimizer = torch.optim.Adam(model.parameters(), 5e-3)
        for _ in range(8):
            for batch in torch.randperm(1000).split(50):
                optimizer.zero_grad()
                F.cross_entropy(model(pictures[batch]), labels[batch]).backward()
                optimizer.step()
    model.requires_grad_(False)
    right = (model(pictures[1000:]).argmax(1) == labels[1000:]).nonzero()[:60, 0] + 1000
    return model, pictures[right], labels[right]


def test_hop_skip_jump_never_steps_back(digits) -> None:
    model, pictures, labels = digits
    last = torch.full((len(labels),), math.inf)
    starts = torch.stack([pictures[labels != label][0] for label in labels])
    for rounds in (1, 2, 3, 4):
        found = hop_skip_jump(model, pictures, labels, starts, rounds=rounds, probes=10).pictures
        gap = (found - pictures).flatten(1).norm(dim=1)
        assert (gap <= last).all()
        last = gap


class Float32(nn.Module):
    def forward(self, pictures: Tensor) -> Tensor:
        return pictures.float()


@pytest.fixture(scope="module")
def classifier(digits: tuple[nn.Module, Tensor, Tensor]) -> object:
    """The same network in the toolbox's wrapping."""
    pytest.importorskip("art")
    from art.estimators.classification import PyTorchClassifier

    model, _, _ = digits
    model = nn.Sequential(Float32(), model)  # HopSkipJump hands over float64
    return PyTorchClassifier(model, nn.CrossEntropyLoss(), (1, 8, 8), 10, clip_values=(0, 1), device_type="cpu")


def accuracy(model: nn.Module, pictures: Tensor, labels: Tensor) -> float:
    return (model(pictures).argmax(1) == labels).float().mean().item()


@pytest.mark.parametrize("aimed", [False, True])
@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.15), ("l2", 0.8)])
def test_the_toolbox_makes_the_same_pictures(digits, classifier, norm: str, epsilon: float, aimed: bool) -> None:
    from art.attacks.evasion import ProjectedGradientDescentPyTorch

    model, pictures, labels = digits
    classes = (labels + 1) % 10 if aimed else labels
    evaluate = (targeted if aimed else untargeted)(model, classes)
    ours = pgd(evaluate, pictures, Threat(norm, epsilon), steps=10, step_size=epsilon / 4)
    settings = {"eps": epsilon, "eps_step": epsilon / 4, "max_iter": 10, "targeted": aimed, "verbose": False}
    theirs = ProjectedGradientDescentPyTorch(classifier, norm=np.inf if norm == "linf" else 2, **settings)
    generated = torch.from_numpy(theirs.generate(pictures.numpy(), classes.numpy()))
    # Where a gradient is zero but for rounding its sign is anybody's, so a picture or two may take another way.
    same = (ours - generated).abs().amax((1, 2, 3)) < 1e-4
    assert same.float().mean() > 0.9
    assert abs(accuracy(model, ours, labels) - accuracy(model, generated, labels)) <= 0.02
    assert accuracy(model, ours, labels) < 0.6


def test_the_toolbox_finds_boundaries_as_near(digits, classifier) -> None:
    from art.attacks.evasion import DeepFool

    model, pictures, labels = digits
    theirs = DeepFool(classifier, max_iter=50, epsilon=0.02, nb_grads=10, batch_size=60, verbose=False)
    generated = torch.from_numpy(theirs.generate(pictures.numpy()))
    found = deepfool(model, pictures)
    assert accuracy(model, found, labels) == 0
    ours, other = ((one - pictures).flatten(1).norm(dim=1).median().item() for one in (found, generated))
    assert ours == pytest.approx(other, rel=0.05)


def test_squares_are_as_strong_as_the_toolbox(digits, classifier) -> None:
    """They are stronger on pictures this small: the toolbox's squares never touch the last row and column."""
    from art.attacks.evasion import SquareAttack

    model, pictures, labels = digits
    np.random.seed(0)  # noqa: NPY002  # the toolbox draws from the global one
    theirs = SquareAttack(classifier, eps=0.15, max_iter=300, nb_restarts=1, batch_size=60, verbose=False)
    generated = torch.from_numpy(theirs.generate(pictures.numpy(), labels.numpy()))
    threat = Threat("linf", 0.15)
    ours = accuracy(model, square(model, pictures, labels, threat, queries=300).pictures, labels)
    assert ours <= accuracy(model, generated, labels) + 0.05
    assert ours == pytest.approx(accuracy(model, pgd(untargeted(model, labels), pictures, threat), labels), abs=0.15)


def test_names_alone_lead_as_near_as_with_the_toolbox(digits, classifier) -> None:
    from art.attacks.evasion import HopSkipJump

    model, pictures, labels = (one[:8] if isinstance(one, Tensor) else one for one in digits)
    starts = pictures.roll(1, 0)
    assert (labels != labels.roll(1)).all()
    np.random.seed(0)  # noqa: NPY002
    theirs = HopSkipJump(classifier, max_iter=10, max_eval=1000, init_eval=100, verbose=False)
    generated = torch.from_numpy(theirs.generate(pictures.numpy(), labels.numpy(), x_adv_init=starts.numpy()))
    found = hop_skip_jump(model, pictures, labels, starts, rounds=10).pictures
    ours, other, nearest = (
        (one - pictures).flatten(1).norm(dim=1).median().item() for one in (found, generated, deepfool(model, pictures))
    )
    assert 0.9 * nearest < ours < 1.05 * other
