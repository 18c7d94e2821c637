"""Federated learning: many clients train one model together, and their data stay where they are.

The weights of a model are one flat vector, and training is a function from vector to vector: nothing is changed in
place. Averaging, gossip, masking and the attack on a client's privacy are then linear algebra on vectors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from ..base.checks import check_numbers
from ..base.devices import arithmetic, off_mps
from ..losses.algebra import float64

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
    return F.cross_entropy(predict(model, weights, inputs), targets)


@arithmetic()
def gradient(weights: Tensor, model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """The gradient (P,) of `loss` with respect to ``weights``."""
    weights = weights.detach().requires_grad_()
    return torch.autograd.grad(loss(weights, model, inputs, targets), weights)[0]


@arithmetic()
def accuracy(weights: Tensor, model: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    """The share of ``inputs`` (n, ...) that are given their class; of several models (K, P) the mean."""
    answers = [predict(model, own, inputs).argmax(1) for own in weights.view(-1, weights.shape[-1])]
    return (torch.stack(answers) == targets).float().mean().item()


# --- who holds which data -----------------------------------------------------------------------------------------


def iid_split(count: int, clients: int, seed: int = 0) -> list[Tensor]:
    """The indices 0 to ``count`` - 1, shuffled and dealt out evenly: every client's data look alike."""
    check_whole(clients=clients)
    if count < clients:
        raise ValueError(f"{count} examples are too few for {clients} clients")
    return list(torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tensor_split(clients))


def dirichlet_split(targets: Tensor, clients: int, alpha: float, seed: int = 0) -> list[Tensor]:
    """The indices of ``targets`` (n,), dealt out so that clients hold different classes (Hsu et al., arXiv:1909.06335).

    Each class is shared out in proportions drawn from a symmetric Dirichlet distribution: the smaller ``alpha``, the
    fewer clients hold most of a class. Drawn again until every client holds something; ValueError if none does so.
    """
    check_whole(clients=clients)
    if not 0 < alpha < math.inf:
        raise ValueError(f"alpha must be a positive number, not {alpha}")
    random = np.random.default_rng(seed)
    for _ in range(1000):
        held: list[list[Tensor]] = [[] for _ in range(clients)]
        for label in targets.unique():
            indices = torch.from_numpy(random.permutation((targets == label).nonzero()[:, 0].cpu().numpy()))
            cuts = random.dirichlet([alpha] * clients).cumsum()[:-1] * len(indices)
            for mine, part in zip(held, indices.tensor_split(cuts.astype(int).tolist()), strict=True):
                mine.append(part)
        split = [torch.cat(parts).to(targets.device) for parts in held]
        if all(len(part) for part in split):
            return split
    raise ValueError(f"with alpha={alpha:g}, {clients} clients never all got some of {len(targets)} examples")


@dataclass(frozen=True)
class Client:
    """One participant and the data that never leave it: ``inputs`` (n, ...) and their classes ``targets`` (n,)."""

    inputs: Tensor
    targets: Tensor

    def __post_init__(self) -> None:
        if not len(self.inputs) == len(self.targets) > 0:
            raise ValueError(
                f"a client needs data: {len(self.inputs)} inputs and {len(self.targets)} targets will not do"
            )

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
        """The weights (P,) after stochastic gradient descent on the client's own data, starting from ``weights``.

        ``batch_size`` None takes all data at once. ``proximal`` is FedProx's mu (Li et al. 2020, arXiv:1812.06127):
        it adds mu / 2 times the squared distance from the start to the loss.
        """
        batch_size = len(self) if batch_size is None else batch_size
        check_whole(epochs=epochs, batch_size=batch_size)
        check_numbers(learning_rate=learning_rate, proximal=proximal)
        order = torch.Generator().manual_seed(seed)
        local = weights
        for _ in range(epochs):
            for batch in torch.randperm(len(self), generator=order).split(batch_size):
                slope = gradient(local, model, self.inputs[batch], self.targets[batch])
                local = local - learning_rate * (slope + proximal * (local - weights))
        return local


# --- learning together --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Round:
    """What stands after a round of `fedavg` or `gossip`.

    ``weights``: the common model (P,), or after gossip each client's own (K, P). ``sent``: bytes sent by all since the
    start; ``busiest``: bytes that went in and out of the participant with most traffic.
    """

    number: int
    weights: Tensor
    sent: int
    busiest: int


def average(answers: Tensor, sizes: Tensor) -> Tensor:
    """The mean (P,) of the clients' weights (K, P), each counting by how much data it has seen."""
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
    **training: Any,
) -> Iterator[Round]:
    """Federated averaging (McMahan et al. 2017, arXiv:1602.05629): a server averages what the clients train.

    In each round a random ``share`` of the clients starts from the server's ``weights``; ``training`` goes to
    `Client.train`, and ``combine``, `average` or `median`, makes new weights of the answers. One epoch with
    ``batch_size=None`` is FedSGD, which equals gradient descent on the pooled data.
    """
    check_whole(clients=len(clients), rounds=rounds)
    if not 0 < share <= 1:
        raise ValueError(f"the share of clients must lie in (0, 1], not {share}")
    draw = torch.Generator().manual_seed(seed)
    taking_part = max(1, round(share * len(clients)))
    for number in range(1, rounds + 1):
        chosen = [clients[k] for k in torch.randperm(len(clients), generator=draw)[:taking_part].tolist()]
        answers = torch.stack([c.train(weights, model, seed=seed + number, **training) for c in chosen])
        weights = combine(answers, torch.tensor([len(client) for client in chosen]))
        sent = 2 * number * taking_part * message_bytes(weights)  # down to each client and up again
        yield Round(number, weights, sent, busiest=sent)  # all of it through the server


def gossip(
    clients: Sequence[Client],
    weights: Tensor,
    model: nn.Module,
    mixing: Tensor,
    *,
    rounds: int,
    seed: int = 0,
    **training: Any,
) -> Iterator[Round]:
    """Decentralized averaging (Lian et al. 2017, arXiv:1705.09056): no server, each client averages with neighbors.

    ``weights``: where all start (P,), or each (K, P). ``mixing`` (K, K), such as `metropolis` gives, says how much of
    whose weights a client takes; ``training`` goes to `Client.train`. There is no common model, only each client's.
    """
    check_whole(clients=len(clients), rounds=rounds)
    ones, count = mixing.new_ones(len(mixing)), len(clients)
    if mixing.shape != (count, count) or not (
        (mixing >= 0).all() and torch.allclose(mixing @ ones, ones) and torch.allclose(ones @ mixing, ones)
    ):
        raise ValueError(
            f"the mixing matrix must be {count} x {count}, not negative, every row and column summing to 1"
        )
    links = (mixing > 0) & ~torch.eye(count, dtype=torch.bool, device=mixing.device)
    weights = weights.expand(count, -1)
    for number in range(1, rounds + 1):
        trained = [c.train(own, model, seed=seed + number, **training) for c, own in zip(clients, weights, strict=True)]
        weights = mixing.to(weights) @ torch.stack(trained)
        traffic = number * message_bytes(weights[0]) * links
        yield Round(number, weights, int(traffic.sum()), busiest=int((traffic.sum(0) + traffic.sum(1)).max()))


def message_bytes(weights: Tensor) -> int:
    """The size of one message that carries ``weights``."""
    return weights.numel() * weights.element_size()


def ring(clients: int) -> Tensor:
    """Who talks to whom (K, K), true and false: everybody with the next and the last, in a circle."""
    check_numbers(2, Integral, clients=clients)
    next_one = torch.eye(clients, dtype=torch.bool).roll(1, 0)
    return (next_one | next_one.T) & ~torch.eye(clients, dtype=torch.bool)


def random_graph(clients: int, rings: int = 2, seed: int = 0) -> Tensor:
    """Who talks to whom (K, K): several `ring` graphs, each in a random order, so that nobody is cut off."""
    check_whole(rings=rings)
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
    """By how much a round of gossip shrinks the clients' disagreement, at least: the second largest |eigenvalue|."""
    return torch.linalg.eigvalsh(float64(mixing)).abs().sort().values[-2].item()


def check_whole(**numbers: int) -> None:
    """Raise ValueError, naming the argument, when one of ``numbers`` is not a whole number of at least one."""
    check_numbers(1, Integral, **numbers)
