"""Explanations that only ask questions. Take parts away, watch the score, and never look inside.

Occlusion slides a patch. LIME and Shapley values play a *game*: a function from coalitions (M, n), booleans that say
which of n parts are kept, to what the model says about each (M,). `erasing` makes one from the segments of a picture,
`replacing` from the columns of a table; for a text it is a line.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from numbers import Integral
from typing import TypeAlias

import torch
from torch import Tensor

from ..base.checks import check_numbers
from ..base.devices import off_mps
from .explanations import Score

Game: TypeAlias = Callable[[Tensor], Tensor]
MOST_PLAYERS = 16  # that play all of their 65,536 coalitions


@torch.no_grad()
def occlusion(score: Score, pictures: Tensor, size: int = 5, stride: int = 2, fill: Tensor | float = 0.5) -> Tensor:
    """How much the score falls when a square of ``size`` pixels is covered by ``fill``: maps (N, 1, H, W).

    The square moves by ``stride``, the last one of a row ending at the border; a pixel has the mean of the squares that
    covered it (Zeiler and Fergus 2014, arXiv:1311.2901).
    """
    sides = pictures.shape[-2:]
    check_numbers(1, Integral, most=min(sides), size=size)
    check_numbers(1, Integral, most=size, stride=stride)
    fall, covers = torch.zeros_like(pictures[:, :1]), torch.zeros_like(pictures[:1, :1])
    whole = score(pictures)
    for top, left in product(*([*range(0, side - size, stride), side - size] for side in sides)):
        square = torch.zeros_like(covers)
        square[..., top : top + size, left : left + size] = 1
        fall += square * (whole - score(torch.where(square.bool(), fill, pictures))).view(-1, 1, 1, 1)
        covers += square
    return fall / covers


# --- lines -------------------------------------------------------------------------------------------------------


def weighted_line(points: Tensor, values: Tensor, weights: Tensor, ridge: float = 0) -> Tensor:
    """Intercept and slopes (1 + d,) of the line through ``values`` (M,) at ``points`` (M, d) by weighted least squares.

    ``ridge`` penalizes the squared slopes. float64, computed on the CPU; it comes home to a device that has float64.
    """
    design = torch.cat([torch.ones(len(points), 1), points.cpu()], 1).double()
    penalty = ridge * torch.eye(design.shape[1], dtype=torch.float64)
    penalty[0, 0] = 0
    return _least_squares(design, values, weights, penalty).to(off_mps(points[:0]).device)


def _least_squares(design: Tensor, values: Tensor, weights: Tensor, penalty: Tensor | float = 0) -> Tensor:
    weighted = design * weights.cpu().double()[:, None]
    targets = weighted.T @ values.cpu().double()
    return torch.linalg.lstsq(weighted.T @ design + penalty, targets, driver="gelsd").solution


def local_line(points: Tensor, values: Tensor, query: Tensor, width: float) -> Tensor:
    """Value and slopes (1 + d,) at ``query`` (d,) of a line that nearby points count most for (Cleveland 1979).

    The weight of a point falls with its distance as a Gaussian of standard deviation ``width``.
    """
    check_numbers(1e-12, width=width)
    away = points - query
    return weighted_line(away, values, torch.exp(-away.square().sum(1) / (2 * width**2)))


# --- games -------------------------------------------------------------------------------------------------------


def erasing(
    score: Score, picture: Tensor, segments: Tensor, fill: Tensor | float = 0.5, batch: int = 64
) -> tuple[Game, int]:
    """The game of a picture (1, 3, H, W), and its number of players: the ``segments`` (H, W), numbered from 0.

    A segment that is not kept shows ``fill``, a number or a picture. ``batch`` coalitions are scored at a time.
    """
    check_numbers(1, Integral, most=100_000, batch=batch)
    if segments.shape != picture.shape[-2:] or len(picture) != 1:
        raise ValueError(f"one picture and a segment for each pixel are needed, not {tuple(segments.shape)}")
    players = int(segments.max()) + 1

    def game(coalitions: Tensor) -> Tensor:
        kept = (part[:, segments][:, None] for part in coalitions.to(picture.device).bool().split(batch))
        with torch.no_grad():
            return torch.cat([score(torch.where(shown, picture, fill)) for shown in kept])

    return game, players


def replacing(score: Score, row: Tensor, background: Tensor) -> tuple[Game, int]:
    """The game of a row (d,) of a table, and its number of players: the columns.

    A column that is not kept takes its values from every row of ``background`` (B, d), and the scores are averaged.
    """
    if background.ndim != 2 or len(background) < 1 or background.shape[1] != len(row):
        raise ValueError(f"the background needs rows of {len(row)} columns, not the shape {tuple(background.shape)}")

    def game(coalitions: Tensor) -> Tensor:
        mixed = torch.where(coalitions.to(row.device).bool()[:, None], row, background)
        with torch.no_grad():
            return score(mixed.flatten(0, 1)).view(len(coalitions), -1).mean(1)

    return game, len(row)


def lime(
    game: Game, players: int, samples: int = 1000, width: float = 0.25, ridge: float = 1e-3, seed: int = 0
) -> Tensor:
    """The slopes (n,) of a line through random coalitions, those near the whole counting most (arXiv:1602.04938).

    LIME of Ribeiro et al. 2016: each player is kept with probability 1/2; the weight is a Gaussian of ``width`` in the
    cosine distance 1 - sqrt(kept share). ``ridge`` keeps the line from leaning on chance.
    """
    check_numbers(1, Integral, most=10_000, players=players)
    check_numbers(players + 1, Integral, most=1_000_000, samples=samples)
    check_numbers(1e-12, width=width)
    check_numbers(0, ridge=ridge)
    random = torch.Generator().manual_seed(seed)
    coalitions = torch.randint(2, (samples, players), generator=random).bool()
    coalitions[0] = True
    distance = 1 - coalitions.float().mean(1).sqrt()
    weights = torch.exp(-distance.square() / (2 * width**2))
    return weighted_line(coalitions.float(), game(coalitions), weights, ridge)[1:]


def every_coalition(players: int) -> Tensor:
    """All coalitions (2^n, n); the number of a row, in binary, says who is in it.

    Example:
        >>> every_coalition(2).int().tolist()
        [[0, 0], [1, 0], [0, 1], [1, 1]]
    """
    check_numbers(1, Integral, most=MOST_PLAYERS, players=players)
    return (torch.arange(2**players)[:, None] >> torch.arange(players) & 1).bool()


def shapley(game: Game, players: int) -> Tensor:
    """The Shapley values (n,) of all players, exactly: what each one adds, averaged over all orders of arrival.

    Plays every coalition, so for at most `MOST_PLAYERS` players (Shapley 1953); for more see `kernel_shap`.

    Example:
        >>> shapley(lambda kept: kept.all(1).double(), 4)  # only all together are worth something
        tensor([0.2500, 0.2500, 0.2500, 0.2500], dtype=torch.float64)
    """
    coalitions = every_coalition(players)
    worth, sizes = game(coalitions).cpu().double(), coalitions.sum(1)
    orders = [math.factorial(k) * math.factorial(players - k - 1) / math.factorial(players) for k in range(players)]
    # Its worth counts for those who may have come last, and against those who may come next.
    shares = torch.tensor([0, *orders, 0], dtype=torch.float64)
    return worth @ torch.where(coalitions, shares[sizes, None], -shares[sizes + 1, None])


def kernel_shap(game: Game, players: int, samples: int | None = None, seed: int = 0) -> Tensor:
    """Shapley values (n,) as the slopes of a weighted line (Lundberg and Lee 2017, arXiv:1705.07874).

    The line passes exactly through the empty and the full coalition. ``samples`` None plays all others, each with the
    Shapley kernel as weight, which is exact; a number plays that many: half drawn from the kernel, half opposites.
    """
    check_numbers(1, Integral, most=MOST_PLAYERS if samples is None else 10_000, players=players)
    nothing, everything = game(torch.tensor([[False], [True]]).expand(2, players)).cpu().double()
    total = everything - nothing
    if players == 1:
        return total[None]
    if samples is None:
        coalitions = every_coalition(players)[1:-1]
        sizes = coalitions.sum(1)
        ways = torch.tensor([math.comb(players, k) for k in range(players + 1)])[sizes]
        weights = (players - 1) / (ways * sizes * (players - sizes)).double()
    else:
        coalitions = _drawn(players, samples, torch.Generator().manual_seed(seed))
        weights = torch.ones(len(coalitions))
    # The last player takes what the others leave of the total: the constraint is solved for, and n - 1 slopes remain.
    others, last = coalitions[:, :-1].double(), coalitions[:, -1:].double()
    values = game(coalitions).cpu().double() - nothing - last[:, 0] * total
    slopes = _least_squares(others - last, values, weights)
    return torch.cat([slopes, (total - slopes.sum())[None]])


def _drawn(players: int, samples: int, random: torch.Generator) -> Tensor:
    """Coalitions drawn from the Shapley kernel, then their complements."""
    check_numbers(2 * players, Integral, most=1_000_000, samples=samples)
    sizes = torch.arange(1, players)
    chance = 1 / (sizes * (players - sizes)).float()
    drawn = sizes[torch.multinomial(chance, samples // 2, replacement=True, generator=random)]
    rank = torch.rand(samples // 2, players, generator=random).argsort(1).argsort(1)
    coalitions = rank < drawn[:, None]
    return torch.cat([coalitions, ~coalitions])
