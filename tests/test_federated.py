"""Federated learning against closed forms, against PyTorch's own optimizer, and against learning in one place."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit import federated
from labkit.outlook.federated import Client, Round

CLASSES, SIZES = 4, (5, 40, 12, 23)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, CLASSES))


@pytest.fixture(scope="module")
def start(model: nn.Module) -> Tensor:
    return federated.weights_of(model)


def some_data(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(count, 6, generator=random), torch.randint(CLASSES, (count,), generator=random)


@pytest.fixture(scope="module")
def clients() -> list[Client]:
    return [Client(*some_data(size, seed)) for seed, size in enumerate(SIZES)]


@pytest.fixture(scope="module")
def equals() -> list[Client]:
    return [Client(*some_data(16, seed)) for seed in range(5)]


def last(rounds: Iterator[Round]) -> Round:
    *_, final = rounds
    return final


def complete(count: int) -> Tensor:
    return ~torch.eye(count, dtype=torch.bool)


# --- a model as a function of its weights -------------------------------------------------------------------------


def test_weights_predict_what_the_model_does(model: nn.Module, start: Tensor) -> None:
    inputs, _ = some_data(7)
    assert start.shape == (6 * 8 + 8 + 8 * CLASSES + CLASSES,)
    torch.testing.assert_close(federated.predict(model, start, inputs), model(inputs))
    assert not torch.allclose(federated.predict(model, start + 0.1, inputs), model(inputs))


def test_weights_are_a_copy() -> None:
    model = nn.Linear(2, 1)
    weights = federated.weights_of(model)
    weights += 1
    assert not torch.equal(weights, federated.weights_of(model))


def test_a_model_with_running_statistics_is_refused() -> None:
    with pytest.raises(ValueError, match=r"1\.running_mean.*group normalization"):
        federated.weights_of(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)))


def test_gradient_is_that_of_backward(model: nn.Module, start: Tensor) -> None:
    inputs, targets = some_data(9)
    model.zero_grad()
    F.cross_entropy(model(inputs), targets).backward()
    expected = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    torch.testing.assert_close(federated.gradient(start, model, inputs, targets), expected)


def test_accuracy_counts_the_right_answers(model: nn.Module, start: Tensor) -> None:
    inputs, _ = some_data(8)
    answers = model(inputs).argmax(1)
    wrong = torch.tensor([1, 0, 0, 0, 1, 0, 0, 0])
    assert federated.accuracy(start, model, inputs, (answers + wrong) % CLASSES) == 0.75
    both = torch.stack([start, torch.zeros_like(start)])  # zeros answer class 0 to everything
    zeros = (answers == 0).float().mean().item()
    assert federated.accuracy(both, model, inputs, answers) == pytest.approx((1 + zeros) / 2)


# --- who holds which data -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", [federated.iid_split(103, 4), federated.dirichlet_split(some_data(103)[1], 4, 0.3)])
def test_a_split_gives_every_example_to_one_client(split: list[Tensor]) -> None:
    assert len(split) == 4 and all(len(part) for part in split)
    assert torch.equal(torch.cat(split).sort().values, torch.arange(103))


def test_iid_shares_are_even_and_shuffled() -> None:
    split = federated.iid_split(103, 4, seed=1)
    assert {len(part) for part in split} == {25, 26}
    assert all(not torch.equal(part, part.sort().values) for part in split)
    assert not torch.equal(split[0], federated.iid_split(103, 4, seed=2)[0])


def test_the_smaller_alpha_the_more_one_sided_the_clients() -> None:
    targets = some_data(2000)[1]

    def largest_share(alpha: float) -> float:
        """Of each class, the part that the client with most of it holds, on average."""
        split = federated.dirichlet_split(targets, 5, alpha)
        counts = torch.stack([targets[part].bincount(minlength=CLASSES) for part in split]).double()
        return (counts.max(0).values / counts.sum(0)).mean().item()

    shares = [largest_share(alpha) for alpha in (0.1, 1, 10, 1e5)]
    assert all(more > less for more, less in pairwise(shares))
    assert shares[0] > 0.6 and shares[-1] == pytest.approx(1 / 5, abs=0.01)


def test_a_dirichlet_split_is_drawn_again_until_nobody_is_empty() -> None:
    targets = torch.zeros(20, dtype=torch.long)
    assert all(len(part) for seed in range(20) for part in federated.dirichlet_split(targets, 4, 0.3, seed))


# --- a client's own training --------------------------------------------------------------------------------------


@pytest.mark.parametrize("proximal", [0.0, 0.7])
def test_training_is_that_of_sgd(model: nn.Module, start: Tensor, proximal: float) -> None:
    """Three epochs in batches, in the client's own order, with PyTorch's optimizer on a real module."""
    inputs, targets = some_data(20)
    copy = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, CLASSES))
    copy.load_state_dict(model.state_dict())
    optimizer = torch.optim.SGD(copy.parameters(), 0.3)
    order = torch.Generator().manual_seed(5)
    for _ in range(3):
        for batch in torch.randperm(20, generator=order).split(8):
            drift = sum(
                (p - q.detach()).square().sum() for p, q in zip(copy.parameters(), model.parameters(), strict=True)
            )
            optimizer.zero_grad()
            (F.cross_entropy(copy(inputs[batch]), targets[batch]) + proximal / 2 * drift).backward()
            optimizer.step()
    settings = {"epochs": 3, "batch_size": 8, "learning_rate": 0.3, "proximal": proximal, "seed": 5}
    trained = Client(inputs, targets).train(start, model, **settings)
    torch.testing.assert_close(trained, federated.weights_of(copy), rtol=0, atol=1e-6)


def test_training_leaves_its_start_alone(model: nn.Module, clients: list[Client], start: Tensor) -> None:
    """The trap of `vector_to_parameters`: clients that share memory would train one after the other."""
    before = start.clone()
    first, second = (clients[1].train(start, model, epochs=2) for _ in range(2))
    assert torch.equal(start, before) and torch.equal(federated.weights_of(model), before)
    assert torch.equal(first, second) and not torch.equal(first, before)


# --- a server -----------------------------------------------------------------------------------------------------


def test_fedsgd_is_gradient_descent_on_the_pooled_data(model: nn.Module, clients: list[Client], start: Tensor) -> None:
    """The test that catches everything: weighting, aliasing, the learning rate."""
    pool = Client(torch.cat([c.inputs for c in clients]), torch.cat([c.targets for c in clients]))
    central = start
    for state in federated.fedavg(clients, start, model, rounds=30, learning_rate=0.5):
        central = pool.train(central, model, learning_rate=0.5)
        torch.testing.assert_close(state.weights, central, rtol=0, atol=1e-5)
    assert (central - start).abs().max() > 0.1


def test_average_counts_each_client_by_its_data() -> None:
    answers = torch.tensor([[1.0, 0.0], [5.0, 8.0]])
    assert federated.average(answers, torch.tensor([3, 1])).tolist() == [2, 2]


def test_a_minority_cannot_move_the_median_out_of_the_rest() -> None:
    random = torch.Generator().manual_seed(0)
    honest, lies = torch.randn(3, 50, generator=random), 1e6 * torch.randn(2, 50, generator=random)
    found = federated.median(torch.cat([lies, honest]), torch.tensor([1000, 1000, 1, 1, 1]))
    assert ((found >= honest.amin(0)) & (found <= honest.amax(0))).all()
    pair = torch.tensor([[1.0], [4.0], [2.0], [100.0]])
    assert federated.median(pair, torch.ones(4)).item() == 3  # halfway between the two in the middle


def test_the_server_combines_as_it_is_told(model: nn.Module, clients: list[Client], start: Tensor) -> None:
    trained = torch.stack([client.train(start, model, learning_rate=0.5, seed=1) for client in clients])
    found = last(federated.fedavg(clients, start, model, rounds=1, learning_rate=0.5, combine=federated.median))
    torch.testing.assert_close(found.weights, trained.quantile(0.5, dim=0))
    assert (found.weights - federated.average(trained, torch.tensor(SIZES))).abs().max() > 1e-3


def test_a_share_of_the_clients_takes_part(model: nn.Module, clients: list[Client], start: Tensor) -> None:
    """One of four: the round's weights are then those of one client, and others in other rounds."""
    alone = [c.train(start, model, seed=1) for c in clients]
    (state,) = federated.fedavg(clients, start, model, rounds=1, share=0.25)
    assert sum(torch.allclose(state.weights, own, atol=1e-7) for own in alone) == 1
    chosen = set()
    for seed in range(12):
        drawn = last(federated.fedavg(clients, start, model, rounds=1, share=0.25, seed=seed)).weights
        chosen |= {k for k, c in enumerate(clients) if torch.allclose(drawn, c.train(start, model), atol=1e-6)}
    assert chosen == {0, 1, 2, 3}
    assert state.sent == 2 * 1 * 4 * len(start)


# --- no server ----------------------------------------------------------------------------------------------------


def test_gossip_with_everybody_is_fedavg(model: nn.Module, equals: list[Client], start: Tensor) -> None:
    mixing = federated.metropolis(complete(5))
    training = {"rounds": 4, "epochs": 2, "batch_size": 8}
    everybody = last(federated.gossip(equals, start, model, mixing, **training)).weights
    server = last(federated.fedavg(equals, start, model, **training)).weights
    torch.testing.assert_close(everybody, server.expand(5, -1), rtol=0, atol=1e-6)


GRAPHS = {"ring": federated.ring(10), "two rings": federated.random_graph(10), "complete": complete(10)}
every_graph = pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)


@every_graph
def test_mixing_keeps_the_mean_and_is_fair(graph: Tensor) -> None:
    mixing = federated.metropolis(graph)
    assert torch.equal(mixing, mixing.T) and (mixing >= 0).all()
    torch.testing.assert_close(mixing.sum(1), torch.ones(10, dtype=torch.float64), rtol=0, atol=1e-14)
    assert torch.equal(mixing > 1e-12, graph | (mixing.diagonal() > 1e-12).diag())


@every_graph
def test_disagreement_shrinks_by_the_second_eigenvalue(model: nn.Module, start: Tensor, graph: Tensor) -> None:
    """With a learning rate of zero nothing but the mixing is left."""
    mixing = federated.metropolis(graph)
    begin = torch.randn(10, len(start), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, CLASSES)).double()
    clients = [Client(inputs.double(), targets) for inputs, targets in [some_data(1)] * 10]
    gaps = []
    for state in federated.gossip(clients, begin, model, mixing, rounds=60, learning_rate=0):
        torch.testing.assert_close(state.weights.mean(0), begin.mean(0), rtol=0, atol=1e-12)
        gaps.append((state.weights - state.weights.mean(0)).norm().item())
    rate = federated.contraction(mixing)
    if rate < 1e-9:
        assert gaps[0] < 1e-12
    else:
        assert gaps[-1] / gaps[-2] == pytest.approx(rate, rel=0.01)


def test_the_eigenvalue_of_a_ring_has_a_closed_form() -> None:
    for clients in (4, 10, 25):
        expected = 1 / 3 + 2 / 3 * math.cos(2 * math.pi / clients)
        assert federated.contraction(federated.metropolis(federated.ring(clients))) == pytest.approx(expected)
    assert federated.ring(2).tolist() == [[False, True], [True, False]]


def test_a_random_graph_cuts_nobody_off() -> None:
    for seed in range(20):
        graph = federated.random_graph(12, seed=seed)
        assert torch.equal(graph, graph.T) and not graph.diagonal().any()
        assert ((graph.sum(1) >= 2) & (graph.sum(1) <= 4)).all()
        assert (torch.linalg.matrix_power(graph.double() + torch.eye(12), 11) > 0).all()
    assert not torch.equal(federated.random_graph(12, seed=1), federated.random_graph(12, seed=2))


def test_bytes_are_counted_on_every_link(model: nn.Module, equals: list[Client], start: Tensor) -> None:
    message = 4 * len(start)
    server = last(federated.fedavg(equals, start, model, rounds=3))
    assert (server.sent, server.busiest) == (3 * 2 * 5 * message, 3 * 2 * 5 * message)
    for graph, links, most in ((federated.ring(5), 10, 4), (complete(5), 20, 8)):
        state = last(federated.gossip(equals, start, model, federated.metropolis(graph), rounds=3))
        assert (state.number, state.sent, state.busiest) == (3, 3 * links * message, 3 * most * message)


# --- bad input ----------------------------------------------------------------------------------------------------

DATA, LABELS = some_data(8)
LOPSIDED = torch.tensor([[False, True], [False, False]])
BAD = {
    "client without data": (lambda: Client(DATA[:0], LABELS[:0]), r"at least one example"),
    "client with too few targets": (lambda: Client(DATA, LABELS[:3]), r"8 inputs .* not 3"),
    "more clients than examples": (lambda: federated.iid_split(3, 4), r"clients must .* from 1 to 3, not 4"),
    "no clients": (lambda: federated.iid_split(3, 0), r"clients must be"),
    "alpha of zero": (lambda: federated.dirichlet_split(LABELS, 2, 0), r"alpha.*not 0"),
    "infinite alpha": (lambda: federated.dirichlet_split(LABELS, 2, math.inf), r"alpha.*not inf"),
    "alpha that is no number": (lambda: federated.dirichlet_split(LABELS, 2, math.nan), r"alpha.*not nan"),
    "more clients than labels": (lambda: federated.dirichlet_split(LABELS, 9, 1.0), r"from 1 to 8, not 9"),
    "clients without data": (lambda: federated.dirichlet_split(LABELS, 8, 1e-3), r"8 clients never all got"),
    "data that are no numbers": (lambda: Client(DATA / 0, LABELS), r"NaN or infinite"),
    "too many rounds": (lambda: averaging(rounds=10**6), r"from 1 to 100,000"),
    "half an epoch": (lambda: train(epochs=0.5), r"epochs.*0.5"),
    "empty batches": (lambda: train(batch_size=0), r"batch_size.*not 0"),
    "no epochs": (lambda: train(epochs=0), r"epochs.*not 0"),
    "negative batch": (lambda: train(batch_size=-1), r"batch_size.*-1"),
    "negative learning rate": (lambda: train(learning_rate=-0.1), r"learning_rate.*-0.1"),
    "negative proximal": (lambda: train(proximal=-1.0), r"proximal.*-1"),
    "share of zero": (lambda: averaging(share=0), r"share.*not 0"),
    "share above one": (lambda: averaging(share=1.5), r"share.*1.5"),
    "no rounds": (lambda: averaging(rounds=0), r"rounds.*not 0"),
    "nobody": (lambda: federated.fedavg([], torch.zeros(3), nn.Linear(2, 1), rounds=1), r"clients.*not 0"),
    "a ring of one": (lambda: federated.ring(1), r"clients.*from 2"),
    "no rings": (lambda: federated.random_graph(5, rings=0), r"rings.*not 0"),
    "one-way graph": (lambda: federated.metropolis(LOPSIDED), r"symmetric"),
    "graph with loops": (lambda: federated.metropolis(torch.ones(2, 2, dtype=torch.bool)), r"diagonal"),
    "mixing of another size": (lambda: mixed(federated.metropolis(federated.ring(3))), r"2 x 2"),
    "mixing that loses weight": (lambda: mixed(torch.full((2, 2), 0.4)), r"summing to 1"),
    "mixing with negative parts": (lambda: mixed(torch.tensor([[2.0, -1.0], [-1.0, 2.0]])), r"not negative"),
}


def train(**settings: float) -> Tensor:
    return Client(DATA, LABELS).train(torch.zeros(28), nn.Linear(6, 4), **settings)


def averaging(rounds: int = 1, **settings: float) -> Iterator[Round]:
    return federated.fedavg([Client(DATA, LABELS)], torch.zeros(28), nn.Linear(6, 4), rounds=rounds, **settings)


def mixed(mixing: Tensor) -> Iterator[Round]:
    return federated.gossip([Client(DATA, LABELS)] * 2, torch.zeros(28), nn.Linear(6, 4), mixing, rounds=1)


@pytest.mark.parametrize(("call", "words"), BAD.values(), ids=BAD)
def test_bad_input_is_refused_in_words(call: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
