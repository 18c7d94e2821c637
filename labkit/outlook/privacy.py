"""What an update of federated learning gives away, and two ways to keep it: noise, and masks that cancel."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from numbers import Integral

import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from ..base.checks import check_numbers
from ..base.devices import arithmetic
from ..engine.evaluator import Evaluation
from ..engine.optimization import descend, make_optimizer
from ..engine.parameters import Pixels
from ..engine.progress import Progress
from ..engine.runs import single_stage
from ..losses.algebra import float64
from ..pictures.geometry import size_of
from .classifiers import check_batch
from .federated import Client, Round, loss, run_rounds

# --- what an update gives away ------------------------------------------------------------------------------------


def reconstructing(
    observed: Tensor,
    weights: Tensor,
    model: nn.Module,
    targets: Tensor,
    shape: tuple[int, ...],
    *,
    steps: int = 100,
    seed: int = 0,
) -> Generator[Progress, None, bool]:
    """Deep leakage (Zhu et al. 2019, arXiv:1906.08935): the pictures that explain a client's gradient.

    This is the engine of the lab: the picture is the parameter, the loss the squared distance between its gradient and
    the client's. The model must be twice differentiable (sigmoid, not ReLU, whose second derivative is 0).

    Args:
        observed: the gradient (P,) at ``weights``.
        targets: the classes (n,).
        shape: (n, ...), of the inputs.
    """
    check_numbers(1, Integral, most=100_000, steps=steps)

    def evaluate(picture: Tensor) -> Evaluation:
        picture = picture.detach().requires_grad_()
        mismatch = (grad(loss)(weights, model, picture, targets) - observed).square().sum()
        (slope,) = torch.autograd.grad(mismatch, picture)
        mismatch = mismatch.detach()[None]
        return Evaluation(mismatch, {("mismatch", ""): mismatch}, slope)

    start = torch.rand(shape, generator=torch.Generator().manual_seed(seed)).to(weights)
    pixels = Pixels(start, clamp=False)
    optimizer = make_optimizer("lbfgs", pixels.parameters, 1.0)
    return descend(single_stage(size_of(start), steps), pixels, evaluate, optimizer)


def membership_advantage(members: Tensor, others: Tensor) -> float:
    """How well losses tell training examples from others: 0 not at all, 1 without fail (Yeom et al. 2018).

    An example counts as a member when its loss is at most a threshold. Of all thresholds the best: the largest
    difference between the shares of ``members`` (n,) and of ``others`` (m,) that are called so (arXiv:1709.01604).
    """
    check_batch(members)
    check_batch(others)
    thresholds = torch.cat([members, others])
    called = [torch.searchsorted(x.sort().values, thresholds, right=True) / len(x) for x in (members, others)]
    return (called[0] - called[1]).max().item()


# --- differential privacy -----------------------------------------------------------------------------------------


@arithmetic()
def clipped_sum(weights: Tensor, model: nn.Module, inputs: Tensor, targets: Tensor, clip: float) -> Tensor:
    """The sum (P,) of the examples' gradients, each cut down to at most the length ``clip``: nobody counts for more."""
    each = vmap(grad(loss), (None, None, 0, 0))(weights, model, inputs[:, None], targets[:, None])
    return (clip / each.norm(dim=1).clamp_min(clip)) @ each


def private_fedsgd(
    clients: Sequence[Client],
    weights: Tensor,
    model: nn.Module,
    *,
    rounds: int,
    rate: float = 0.1,
    clip: float = 1.0,
    noise: float = 1.0,
    learning_rate: float = 0.5,
    seed: int = 0,
) -> Iterator[Round]:
    """DP-SGD (Abadi et al. 2016, arXiv:1607.00133) over clients, differentially private for each *example*.

    Yields a `Round` after each. Each of K clients adds Gaussian noise of deviation ``noise * clip / sqrt(K)``, so that
    the sum, which is all the server may see (`mask`), carries ``noise * clip``. `epsilon` says what this guarantees.

    Args:
        rate: the probability with which an example takes part in a round.
        clip: the length that gradients of examples are cut down to.
    """
    check_numbers(1, Integral, most=100_000, clients=len(clients), rounds=rounds)
    check_numbers(noise=noise, learning_rate=learning_rate)
    check_numbers(1e-9, most=1.0, rate=rate)
    check_numbers(1e-9, clip=clip)
    random, expected = torch.Generator().manual_seed(seed), rate * sum(map(len, clients))

    def step(number: int, weights: Tensor) -> Tensor:
        total = torch.zeros_like(weights)
        for client in clients:
            chosen = torch.rand(len(client), generator=random) < rate
            if chosen.any():
                total = total + clipped_sum(weights, model, client.inputs[chosen], client.targets[chosen], clip)
            drawn = torch.randn(weights.shape, generator=random).to(weights)
            total = total + noise * clip / len(clients) ** 0.5 * drawn
        return weights - learning_rate / expected * total

    sent = 2 * len(clients) * weights.nbytes
    return run_rounds(rounds, weights, step, sent, busiest=sent)


def epsilon(noise: float, rate: float, steps: int, delta: float) -> float:
    """The epsilon that ``steps`` noisy gradients guarantee with ``delta``: the smaller, the more private.

    Rényi accounting of the subsampled Gaussian mechanism at integer orders (Mironov et al. 2019, arXiv:1908.10530),
    converted after Balle et al. 2020 (arXiv:1905.09982).

    Example:
        >>> round(epsilon(2, rate=0.1, steps=100, delta=1e-4), 1)
        2.2
    """
    check_numbers(noise=noise)
    check_numbers(1, Integral, most=10**9, steps=steps)
    check_numbers(1e-12, most=1.0, rate=rate, delta=delta)
    if noise == 0:
        return math.inf
    best = math.inf
    for order in range(2, 257):
        k = torch.arange(order + 1, dtype=torch.float64)
        choose = math.lgamma(order + 1) - torch.lgamma(k + 1) - torch.lgamma(order - k + 1)
        chances = torch.special.xlogy(k, rate) + torch.special.xlogy(order - k, 1 - rate)
        moment = torch.logsumexp(choose + chances + k * (k - 1) / (2 * noise**2), 0).item()
        spent = (steps * moment - math.log(delta * order)) / (order - 1) + math.log1p(-1 / order)
        best = min(best, spent)
    return best


# --- secure aggregation -------------------------------------------------------------------------------------------

MODULUS = 2**32


def mask(update: Tensor, client: int, secrets: Mapping[int, int], bits: int = 16) -> Tensor:
    """The message (P,), int64 in [0, 2^32), in which a ``client`` hides ``update`` (Bonawitz et al. 2017).

    The update is rounded to ``bits`` binary places, and for each other client a pad is added or subtracted that only
    the two can draw, from the number ``secrets[other]`` they share. Fresh secrets for every round, or differences leak.
    The message lies on the CPU. A teaching version: no client may drop out, and no random number is cryptographic.

    Example:
        >>> unmask([mask(torch.tensor([1.5]), 0, {1: 42}), mask(torch.tensor([2.0]), 1, {0: 42})])
        tensor([3.5000], dtype=torch.float64)
    """
    check_numbers(0, Integral, most=30, bits=bits)
    fixed = (update.cpu().double() * 2**bits).round()
    if not (fixed.abs() * (len(secrets) + 1) < MODULUS / 2).all():
        raise ValueError(f"updates up to {update.abs().max():g} of all clients overflow 32 bits: take under {bits=}")
    message = fixed.long()
    for other, secret in secrets.items():
        pad = torch.randint(MODULUS, update.shape, generator=torch.Generator().manual_seed(secret))
        message = message + (pad if client < other else -pad)
    return message % MODULUS


def unmask(messages: Sequence[Tensor], bits: int = 16) -> Tensor:
    """The sum (P,) of the updates of *all* clients, in which the pads cancel exactly; float64."""
    if not messages:
        raise ValueError("there are no messages to add up")
    total = torch.stack(list(messages)).sum(0) % MODULUS
    return float64(torch.where(total < MODULUS // 2, total, total - MODULUS)) / 2**bits
