"""What updates leak, and what hides them, against closed forms and against Opacus."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import combinations, pairwise

import pytest
import torch
from elsewhere import ELSEWHERE, Device
from torch import Tensor, nn

from labkit import federated, privacy
from labkit.outlook.federated import Client

SIZES = (5, 30, 12)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """Smooth, and wide enough to tell pictures apart."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 24), nn.Sigmoid(), nn.Linear(24, 5))


@pytest.fixture(scope="module")
def start(model: nn.Module) -> Tensor:
    return federated.weights_of(model)


def some_data(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, 4, 4, generator=random), torch.randint(5, (count,), generator=random)


@pytest.fixture(scope="module")
def clients() -> list[Client]:
    return [Client(*some_data(size, seed)) for seed, size in enumerate(SIZES)]


# --- the leak -----------------------------------------------------------------------------------------------------


def reconstructed(observed: Tensor, start: Tensor, model: nn.Module, targets: Tensor) -> Tensor:
    *_, final = privacy.reconstructing(observed, start, model, targets, (len(targets), 3, 4, 4), steps=60)
    return final.picture


@pytest.mark.parametrize("count", [1, 3])
def test_pictures_are_reconstructed_from_their_gradient(model: nn.Module, start: Tensor, count: int) -> None:
    pictures, targets = some_data(count)
    targets = torch.arange(count)  # of one class, their order would be open
    observed = federated.gradient(start, model, pictures, targets)
    found = reconstructed(observed, start, model, targets)
    torch.testing.assert_close(found, pictures, rtol=0, atol=1e-3)


def test_one_picture_can_be_read_off_the_first_layer(model: nn.Module, start: Tensor) -> None:
    """dL/dW = d x^T and dL/db = d: the quotient is the picture."""
    picture, target = some_data(1)
    observed = federated.gradient(start, model, picture, target)
    slopes, biases = observed[: 24 * 48].view(24, 48), observed[24 * 48 : 24 * 48 + 24]
    row = biases.abs().argmax()
    read = (slopes[row] / biases[row]).view_as(picture)
    torch.testing.assert_close(read, picture, rtol=0, atol=1e-5)
    torch.testing.assert_close(reconstructed(observed, start, model, target), read, rtol=0, atol=1e-3)


def test_noise_on_the_gradient_hides_the_picture(model: nn.Module, start: Tensor) -> None:
    picture, target = some_data(1)
    observed = federated.gradient(start, model, picture, target)
    noisy = observed + 0.1 * torch.randn(observed.shape, generator=torch.Generator().manual_seed(0))
    assert (reconstructed(noisy, start, model, target) - picture).square().mean() > 0.05


# --- differential privacy -----------------------------------------------------------------------------------------


def test_advantage_is_the_largest_gap_between_the_shares() -> None:
    low, high = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.4, 0.5])
    assert privacy.membership_advantage(low, high) == 1
    assert privacy.membership_advantage(high, low) == 0  # members that lose more are never called members
    assert privacy.membership_advantage(low, low) == 0
    # At the threshold 0.3, two of three members and one of four others: 2/3 - 1/4.
    mixed = privacy.membership_advantage(torch.tensor([0.1, 0.3, 0.9]), torch.tensor([0.2, 0.5, 0.6, 0.7]))
    assert mixed == pytest.approx(2 / 3 - 1 / 4)


def test_advantage_is_the_statistic_of_kolmogorov_and_smirnov() -> None:
    from scipy.stats import ks_2samp

    random = torch.Generator().manual_seed(0)
    members, others = torch.randn(80, generator=random), 0.5 + torch.randn(130, generator=random)
    oracle = ks_2samp(members.numpy(), others.numpy(), alternative="greater").statistic
    assert privacy.membership_advantage(members, others) == pytest.approx(oracle)


def test_each_example_is_clipped_by_itself(model: nn.Module, start: Tensor) -> None:
    inputs, targets = some_data(6)
    each = [federated.gradient(start, model, x[None], y[None]) for x, y in zip(inputs, targets, strict=True)]
    clip = torch.stack([g.norm() for g in each]).median().item()  # half of them are longer
    expected = sum(g * min(1.0, clip / g.norm().item()) for g in each)
    clipped = privacy.clipped_sum(start, model, inputs, targets, clip)
    torch.testing.assert_close(clipped, expected)
    without = privacy.clipped_sum(start, model, inputs[1:], targets[1:], clip)
    assert (clipped - without).norm() <= clip * (1 + 1e-5)


def test_a_step_without_noise_is_that_of_opacus(model: nn.Module, start: Tensor) -> None:
    opacus = pytest.importorskip("opacus")
    inputs, targets = some_data(6)
    copy = opacus.GradSampleModule(nn.Sequential(nn.Flatten(), nn.Linear(48, 24), nn.Sigmoid(), nn.Linear(24, 5)))
    copy._module.load_state_dict(model.state_dict())
    optimizer = opacus.optimizers.DPOptimizer(
        torch.optim.SGD(copy.parameters(), 0.5), noise_multiplier=0, max_grad_norm=0.6, expected_batch_size=6
    )
    nn.functional.cross_entropy(copy(inputs), targets).backward()
    optimizer.step()
    rounds = privacy.private_fedsgd(
        [Client(inputs, targets)], start, model, rounds=1, rate=1, clip=0.6, noise=0, learning_rate=0.5
    )
    torch.testing.assert_close(next(rounds).weights, federated.weights_of(copy._module), rtol=0, atol=1e-6)


def test_without_noise_and_clipping_it_is_fedsgd(model: nn.Module, clients: list[Client], start: Tensor) -> None:
    private = privacy.private_fedsgd(clients, start, model, rounds=5, rate=1, clip=1e6, noise=0, learning_rate=0.5)
    plain = federated.fedavg(clients, start, model, rounds=5, learning_rate=0.5)
    for ours, theirs in zip(private, plain, strict=True):
        torch.testing.assert_close(ours.weights, theirs.weights, rtol=0, atol=1e-5)
        assert ours.sent == theirs.sent


def test_the_clients_noise_adds_up_to_what_was_promised(model: nn.Module, clients: list[Client], start: Tensor) -> None:
    settings = {"rounds": 1, "rate": 1, "clip": 0.7, "learning_rate": 0.5}
    quiet, loud = (next(privacy.private_fedsgd(clients, start, model, noise=n, **settings)).weights for n in (0, 3.0))
    noise = (quiet - loud) * sum(SIZES) / 0.5  # what was added to the sum
    assert noise.std().item() == pytest.approx(3 * 0.7, rel=0.06)  # 1301 draws
    assert abs(noise.mean().item()) < 3 * 2.1 / math.sqrt(len(noise))


def test_examples_take_part_at_the_given_rate(model: nn.Module, start: Tensor) -> None:
    """With a tiny clip every gradient is that long, so the length of the step counts who took part."""
    picture, target = some_data(1)
    crowd = Client(picture.expand(400, -1, -1, -1), target.expand(400))
    settings = {"rate": 0.25, "clip": 0.01, "noise": 0, "learning_rate": 1.0}
    (state,) = privacy.private_fedsgd([crowd], start, model, rounds=1, **settings)
    assert (state.weights - start).norm().item() / 0.01 == pytest.approx(1, rel=0.25)


@pytest.mark.parametrize(("noise", "rate", "steps"), [(0.7, 0.1, 100), (1.1, 0.05, 300), (2, 0.1, 100), (4, 1, 5)])
def test_epsilon_is_that_of_opacus(noise: float, rate: float, steps: int) -> None:
    """Ours takes whole orders only, so it may promise a little less, and never more."""
    accountants = pytest.importorskip("opacus.accountants")
    accountant = accountants.RDPAccountant()
    accountant.history = [(noise, rate, steps)]
    theirs = accountant.get_epsilon(delta=1e-4)
    ours = privacy.epsilon(noise, rate, steps, delta=1e-4)
    assert theirs * (1 - 1e-9) <= ours <= 1.05 * theirs


def test_epsilon_of_the_plain_gaussian_has_a_closed_form() -> None:
    """Rate 1: the Rényi divergence of order a is a / (2 noise^2)."""
    spent = [7 * a / (2 * 3.0**2) - math.log(1e-5 * a) / (a - 1) + math.log(1 - 1 / a) for a in range(2, 257)]
    assert privacy.epsilon(3.0, 1.0, 7, 1e-5) == pytest.approx(min(spent))


def test_epsilon_grows_as_privacy_falls() -> None:
    for worse in (
        [privacy.epsilon(noise, 0.1, 100, 1e-4) for noise in (8, 4, 2, 1, 0.5, 0)],
        [privacy.epsilon(1, rate, 100, 1e-4) for rate in (0.01, 0.1, 0.5, 1)],
        [privacy.epsilon(1, 0.1, steps, 1e-4) for steps in (1, 10, 1000)],
        [privacy.epsilon(1, 0.1, 100, delta) for delta in (1e-2, 1e-4, 1e-8)],
    ):
        assert all(less < more for less, more in pairwise(worse))
    assert privacy.epsilon(0, 0.1, 1, 1e-4) == math.inf


# --- secure aggregation -------------------------------------------------------------------------------------------


def some_updates(clients: int, length: int = 4000) -> Tensor:
    return torch.randn(clients, length, generator=torch.Generator().manual_seed(1))


def messages_of(updates: Tensor, **settings: int) -> list[Tensor]:
    """What the clients send, every pair of them sharing one secret."""
    secrets: list[dict[int, int]] = [{} for _ in updates]
    for number, (i, j) in enumerate(combinations(range(len(updates)), 2)):
        secrets[i][j] = secrets[j][i] = 1000 + number
    return [privacy.mask(update, own, secrets[own], **settings) for own, update in enumerate(updates)]


@pytest.mark.parametrize("clients", [1, 2, 5])
def test_masks_cancel_exactly(clients: int) -> None:
    updates = some_updates(clients)
    messages = messages_of(updates)
    fixed = (updates.double() * 2**16).round()
    assert torch.equal(privacy.unmask(messages), fixed.sum(0) / 2**16)
    assert torch.equal(privacy.unmask(messages[::-1]), privacy.unmask(messages))
    torch.testing.assert_close(privacy.unmask(messages), updates.double().sum(0), rtol=0, atol=clients * 2.0**-17)


def test_bits_set_the_precision() -> None:
    updates = some_updates(3)
    errors = [(privacy.unmask(messages_of(updates, bits=b), bits=b) - updates.sum(0)).abs().max() for b in (4, 8, 20)]
    assert errors[0] > 2**-5 and errors[1] < 3 * 2**-9 and errors[2] < 3 * 2**-20


def test_one_message_says_nothing() -> None:
    """Its digits are uniform, whatever the update, and it has nothing in common with it."""
    updates = some_updates(3, length=40_000)
    updates[1] = 0.125
    for update, message in zip(updates, messages_of(updates), strict=True):
        assert message.min() >= 0 and message.max() < 2**32
        counts = (message // 2**28).bincount(minlength=16).double()
        chi2 = ((counts - 2500).square() / 2500).sum().item()
        assert chi2 < 37.7  # 15 degrees of freedom: exceeded once in a thousand
        if update.std() > 0:
            assert torch.corrcoef(torch.stack([update.double(), message.double()]))[0, 1].abs() < 0.02


def test_without_one_client_the_sum_is_noise() -> None:
    updates = some_updates(4)
    partial = privacy.unmask(messages_of(updates)[:-1])
    assert (partial - updates[:-1].sum(0)).abs().median() > 1000


# --- other devices ------------------------------------------------------------------------------------------------


def test_a_picture_is_reconstructed_where_the_weights_lie(model: nn.Module, start: Tensor) -> None:
    picture, target = some_data(1)
    observed = federated.gradient(start, model, picture, target)
    wanted = reconstructed(observed, start, model, target)
    with Device():
        found = reconstructed(*(x.to(ELSEWHERE) for x in (observed, start)), model, target.to(ELSEWHERE))
        assert found.equal(wanted)


def test_noise_is_added_where_the_weights_lie(model: nn.Module, start: Tensor, clients: list[Client]) -> None:
    settings = {"rounds": 2, "rate": 0.5, "noise": 0.3}
    *_, wanted = privacy.private_fedsgd(clients, start, model, **settings)
    with Device():
        there = [Client(client.inputs.to(ELSEWHERE), client.targets.to(ELSEWHERE)) for client in clients]
        *_, found = privacy.private_fedsgd(there, start.to(ELSEWHERE), model, **settings)
        assert found.weights.device == ELSEWHERE and found.weights.cpu().equal(wanted.weights)


def test_a_message_leaves_the_device() -> None:
    update = some_updates(1)[0]
    with Device():
        message = privacy.mask(update.to(ELSEWHERE), 0, {1: 5})
        assert message.equal(privacy.mask(update, 0, {1: 5}))


# --- bad input ----------------------------------------------------------------------------------------------------

ONE = some_data(1)
BAD = {
    "no steps": (lambda: attack(steps=0), r"steps.*not 0"),
    "nobody to tell members from": (
        lambda: privacy.membership_advantage(torch.ones(3), torch.ones(0)),
        r"at least one example",
    ),
    "no rounds": (lambda: private(rounds=0), r"rounds.*not 0"),
    "rate of zero": (lambda: private(rate=0), r"rate.*not 0"),
    "rate above one": (lambda: private(rate=1.5), r"rate.*not 1\.5"),
    "clip of zero": (lambda: private(clip=0), r"clip.*not 0"),
    "negative noise": (lambda: private(noise=-1.0), r"noise.*-1"),
    "epsilon of negative noise": (lambda: privacy.epsilon(-1, 0.1, 10, 1e-4), r"noise.*-1"),
    "epsilon without steps": (lambda: privacy.epsilon(1, 0.1, 0, 1e-4), r"steps.*not 0"),
    "epsilon at an impossible rate": (lambda: privacy.epsilon(1, 2, 10, 1e-4), r"rate.*2"),
    "epsilon without delta": (lambda: privacy.epsilon(1, 0.1, 10, 0), r"delta.*0"),
    "update too large to hide": (lambda: privacy.mask(torch.tensor([1e5]), 0, {}), r"100000.*32 bits.*bits=16"),
    "update that is not finite": (lambda: privacy.mask(torch.tensor([math.nan]), 0, {}), r"nan.*32 bits"),
    "nothing to unmask": (lambda: privacy.unmask([]), r"no messages"),
}


def small() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 5))


def attack(steps: int) -> Iterator[object]:
    return privacy.reconstructing(torch.zeros(245), torch.zeros(245), small(), ONE[1], ONE[0].shape, steps=steps)


def private(rounds: int = 1, **settings: float) -> Iterator[object]:
    return privacy.private_fedsgd([Client(*ONE)], torch.zeros(245), small(), rounds=rounds, **settings)


@pytest.mark.parametrize(("call", "words"), BAD.values(), ids=BAD)
def test_bad_input_is_refused_in_words(call: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
