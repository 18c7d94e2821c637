"""Federated learning: many clients train one model together, and their data stay where they are.

The weights of a model are one flat vector, and training is a function from vector to vector: nothing is changed in
place. Averaging, gossip, masking and the attack on a client's privacy are then linear algebra on vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import TypedDict, Unpack

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..base.checks import check_numbers
from ..base.devices import arithmetic, off_mps
from ..losses.algebra import float64
from .classifiers import check_batch

# --- a model as a function of its weights -------------------------------------------------------------------------


def weights_of(model: nn.Module) -> Tensor:
    """A copy of all parameters of ``model`` as one vector (P,).

    Raises ValueError for a model with buffers, such as batch normalization's running means: they are not in the vector.
    """
    if buffers := [name for name, _ in model.named_buffers()]:
        raise ValueError(f"the model keeps state beside its parameters ({buffers[0]}): use group normalization instead")
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def predict(model: nn.Module, weights: Tensor, inputs: Tensor) -> Tensor:
    """What ``model`` answers to ``inputs`` (n, ...) with the vector ``weights`` (P,) in place of its parameters."""
    named = dict(model.named_parameters())
    parts = weights.split([parameter.numel() for parameter in named.values()])
    shaped = {name: part.view_as(named[name]) for name, part in zip(named, parts, strict=True)}
    return functional_call(model, shaped, (inputs,))


def loss(weights: Tensor, model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """The mean cross-entropy of the classes ``targets`` (n,)."""
    return nn.functional.cross_entropy(predict(model, weights, inputs), targets)


@arithmetic()
def gradient(weights: Tensor, model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """The gradient (P,) of `loss` with respect to ``weights``."""
    weights = weights.detach().requires_grad_()
    return torch.autograd.grad(loss(weights, model, inputs, targets), weights)[0]


@arithmetic()
def accuracy(weights: Tensor, model: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    """The share of ``inputs`` (n, ...) that are given their class; of several models (K, P) the mean."""
    answers = [predict(model, vector, inputs).argmax(1) for vector in weights.view(-1, weights.shape[-1])]
    return (torch.stack(answers) == targets).float().mean().item()


# --- who holds which data -----------------------------------------------------------------------------------------


def iid_split(count: int, clients: int, seed: int = 0) -> list[Tensor]:
    """The indices 0 to ``count`` - 1, shuffled and dealt out evenly: every client's data look alike."""
    check_numbers(1, Integral, most=count, clients=clients)
    return list(torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tensor_split(clients))


def dirichlet_split(targets: Tensor, clients: int, alpha: float, seed: int = 0) -> list[Tensor]:
    """The indices of ``targets`` (n,), dealt out so that clients hold different classes (Hsu et al., arXiv:1909.06335).

    Each class is shared out in proportions drawn from a symmetric Dirichlet distribution: the smaller ``alpha``, the
    fewer clients hold most of a class. Drawn again until every client holds something; ValueError if none does so.
    """
    check_numbers(1, Integral, most=len(targets), clients=clients)
    check_numbers(1e-6, alpha=alpha)
    random = np.random.default_rng(seed)
    for _ in range(1000):
        classes = []
        for label in targets.unique():
            indices = torch.from_numpy(random.permutation((targets == label).nonzero()[:, 0].cpu().numpy()))
            cuts = random.dirichlet([alpha] * clients).cumsum()[:-1] * len(indices)
            classes.append(indices.tensor_split(cuts.astype(int).tolist()))
        split = [torch.cat(parts).to(targets.device) for parts in zip(*classes, strict=True)]
        if all(map(len, split)):
            return split
    raise ValueError(f"with alpha={alpha:g}, {clients} clients never all got some of {len(targets)} examples")


class Training(TypedDict, total=False):
    """The arguments of `Client.train` that `fedavg` and `gossip` hand on."""

    epochs: int
    batch_size: int | None
    learning_rate: float
    proximal: float


def check_training(epochs: int = 1, batch_size: int | None = 1, learning_rate: float = 0, proximal: float = 0) -> None:
    """Raise ValueError for arguments of `Client.train` that make no sense."""
    check_numbers(1, Integral, most=1_000_000, epochs=epochs, batch_size=1 if batch_size is None else batch_size)
    check_numbers(learning_rate=learning_rate, proximal=proximal)


@dataclass(frozen=True)
class Client:
    """One participant and the data that never leave it: ``inputs`` (n, ...) and their classes ``targets`` (n,)."""

    inputs: Tensor
    targets: Tensor

    def __post_init__(self) -> None:
        check_batch(self.inputs)
        if len(self.inputs) != len(self.targets):
            raise ValueError(f"{len(self.inputs)} inputs need as many targets, not {len(self.targets)}")

    def __len__(self) -> int:
        return len(self.targets)

    def train(
        self,
        weights: Tensor,
        model: nn.Module,
        *,
        epochs: int = 1,
        batch_size: int | None = None,
        learning_rate: float = 0.1,
        proximal: float = 0.0,
        seed: int = 0,
    ) -> Tensor:
        """The weights (P,) after stochastic gradient descent on the client's data, starting from ``weights``.

        Args:
            batch_size: None takes all data at once.
            proximal: mu of FedProx (arXiv:1812.06127): the loss has mu / 2 |w - weights|^2 in addition.
        """
        check_training(epochs, batch_size, learning_rate, proximal)
        order = torch.Generator().manual_seed(seed)
        local = weights
        for _ in range(epochs):
            for batch in torch.randperm(len(self), generator=order).split(batch_size or len(self)):
                slope = gradient(local, model, self.inputs[batch], self.targets[batch])
                local = local - learning_rate * (slope + proximal * (local - weights))
        return local


# --- learning together --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Round:
    """What stands after a round: the common model's ``weights`` (P,), or after `gossip` each client's (K, P).

    ``sent``: bytes since the start; ``busiest``: those that went in and out of the participant with most traffic.
    """

    number: int
    weights: Tensor
    sent: int
    busiest: int


def run_rounds(
    rounds: int, weights: Tensor, step: Callable[[int, Tensor], Tensor], sent: int, busiest: int
) -> Iterator[Round]:
    """Yield every `Round` of ``step``, from its number and old weights to new ones, with bytes for each round."""
    for number in range(1, rounds + 1):
        weights = step(number, weights)
        yield Round(number, weights, number * sent, number * busiest)


def average(answers: Tensor, sizes: Tensor) -> Tensor:
    """The mean (P,) of the clients' weights (K, P), each counting by the ``sizes`` (K,) of its data."""
    return (sizes / sizes.sum()).to(answers) @ answers


def median(answers: Tensor, sizes: Tensor) -> Tensor:
    """The median (P,) of the clients' weights (K, P), one by one: a minority that lies cannot move it out of the rest.

    Yin et al. 2018 (arXiv:1803.01498). All count alike: whoever could claim a size could claim a majority.
    """
    return answers.quantile(0.5, dim=0)


def fedavg(
    clients: Sequence[Client],
    weights: Tensor,
    model: nn.Module,
    *,
    rounds: int,
    share: float = 1.0,
    combine: Callable[[Tensor, Tensor], Tensor] = average,
    seed: int = 0,
    **training: Unpack[Training],
) -> Iterator[Round]:
    """Federated averaging (McMahan et al. 2017, arXiv:1602.05629): a server averages what the clients train.

    Yields a `Round` after each. With ``epochs=1, batch_size=None`` it is FedSGD: gradient descent on the pooled data.

    Args:
        weights: where the server starts (P,).
        share: of the clients, drawn at random, that takes part in a round.
        combine: `average` or `median`, makes new weights of the answers.
        training: goes to `Client.train`.
    """
    check_numbers(1, Integral, most=100_000, clients=len(clients), rounds=rounds)
    check_numbers(1e-9, most=1.0, share=share)
    check_training(**training)
    draw, taking_part = torch.Generator().manual_seed(seed), max(1, round(share * len(clients)))

    def step(number: int, weights: Tensor) -> Tensor:
        chosen = [clients[k] for k in torch.randperm(len(clients), generator=draw)[:taking_part].tolist()]
        answers = torch.stack([client.train(weights, model, seed=seed + number, **training) for client in chosen])
        return combine(answers, torch.tensor([len(client) for client in chosen]))

    sent = 2 * taking_part * weights.nbytes  # down to each client and up again, all of it through the server
    return run_rounds(rounds, weights, step, sent, busiest=sent)


def gossip(
    clients: Sequence[Client],
    weights: Tensor,
    model: nn.Module,
    mixing: Tensor,
    *,
    rounds: int,
    seed: int = 0,
    **training: Unpack[Training],
) -> Iterator[Round]:
    """Decentralized averaging (Lian et al. 2017, arXiv:1705.09056): no server, each client averages with neighbors.

    Yields a `Round` after each. There is no common model, only each client's.

    Args:
        weights: where all start (P,), or each (K, P).
        mixing: (K, K), such as `metropolis` gives: how much of whose weights a client takes.
        training: goes to `Client.train`.
    """
    check_numbers(1, Integral, most=100_000, clients=len(clients), rounds=rounds)
    check_training(**training)
    ones, sums, count = mixing.new_ones(len(mixing)), (mixing.sum(0), mixing.sum(-1)), len(clients)
    if mixing.shape != (count, count) or (mixing < 0).any() or not all(torch.allclose(each, ones) for each in sums):
        raise ValueError(f"mixing must be {count} x {count} and not negative, every row and column summing to 1")
    weights = weights.expand(count, -1)

    def step(number: int, weights: Tensor) -> Tensor:
        pairs = zip(clients, weights, strict=True)
        return mixing.to(weights) @ torch.stack([c.train(w, model, seed=seed + number, **training) for c, w in pairs])

    traffic = weights[0].nbytes * ((mixing > 0) & ~torch.eye(count, dtype=torch.bool, device=mixing.device))
    busiest = (traffic.sum(0) + traffic.sum(1)).max()
    return run_rounds(rounds, weights, step, int(traffic.sum()), int(busiest))


def ring(clients: int) -> Tensor:
    """Who talks to whom (K, K), true and false: everybody with the next and the last, in a circle."""
    check_numbers(2, Integral, most=10_000, clients=clients)
    following = torch.eye(clients, dtype=torch.bool).roll(1, 0)
    return following | following.T


def random_graph(clients: int, rings: int = 2, seed: int = 0) -> Tensor:
    """Who talks to whom (K, K): several `ring` graphs, each in a random order, so that nobody is cut off."""
    check_numbers(1, Integral, most=1000, rings=rings)
    random, graph = torch.Generator().manual_seed(seed), ring(clients)
    orders = [torch.randperm(clients, generator=random) for _ in range(rings)]
    return torch.stack([graph[order][:, order] for order in orders]).any(0)


def metropolis(graph: Tensor) -> Tensor:
    """The mixing matrix (K, K), float64, of a symmetric graph: w_ij = 1 / (1 + the larger number of neighbors).

    The rest stays with the client itself, so every row and column sums to one and the mean of all clients is kept.
    """
    if graph.ndim != 2 or not torch.equal(graph, graph.T) or graph.diagonal().any():
        raise ValueError("a graph is a symmetric square matrix of true and false, false on the diagonal")
    degree = off_mps(graph).sum(1)
    mixing = float64(graph) / (1 + torch.maximum(degree[:, None], degree))
    return mixing + (1 - mixing.sum(1)).diag()


def contraction(mixing: Tensor) -> float:
    """By how much a round of gossip shrinks the clients' disagreement, at least: the second largest |eigenvalue|.

    Example:
        >>> round(contraction(metropolis(ring(4))), 4)
        0.3333
    """
    return torch.linalg.eigvalsh(float64(mixing)).abs().sort().values[-2].item()
