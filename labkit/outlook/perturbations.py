"""Explanations that only ask questions. Take parts away, watch the score, and never look inside.

Occlusion slides a patch. LIME and Shapley values play a *game*: a function from coalitions (M, n), booleans that say
which of n parts are kept, to what the model says about each (M,). `erasing` makes one from the segments of a picture,
`replacing` from the columns of a table; for a text it is a line. One game, three readings:

>>> game, players = erasing(score, photo, segments)
>>> lime(game, players), shapley(game, players), kernel_shap(game, players, samples=2000)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from ..base.devices import off_mps
from .explanations import Score

Game: TypeAlias = Callable[[Tensor], Tensor]
MOST_PLAYERS = 16  # 65,536 coalitions


def occlusion(score: Score, pictures: Tensor, size: int = 5, stride: int = 2, fill: Tensor | float = 0.5) -> Tensor:
    """How much the score falls when a square of ``size`` pixels is covered by ``fill``: maps (N, 1, H, W).

    The square moves by ``stride``, the last one of a row ending at the border; a pixel has the mean of the squares that
    covered it (Zeiler and Fergus 2014, arXiv:1311.2901).
    """
    height, width = pictures.shape[-2:]
    if not 1 <= size <= min(height, width) or not 1 <= stride <= size:
        raise ValueError(f"the square must fit into {width}x{height} pixels, and move by 1 to its size, not {stride}")
    fall, covers = torch.zeros_like(pictures[:, :1]), torch.zeros_like(pictures[:1, :1])
    with torch.no_grad():
        whole = score(pictures)
        for top in _starts(height, size, stride):
            for left in _starts(width, size, stride):
                square = torch.zeros_like(covers)
                square[..., top : top + size, left : left + size] = 1
                covered = torch.where(square.bool(), fill, pictures)
                fall += square * (whole - score(covered)).view(-1, 1, 1, 1)
                covers += square
    return fall / covers


def _starts(side: int, size: int, stride: int) -> list[int]:
    starts = list(range(0, side - size + 1, stride))
    return starts if starts[-1] == side - size else [*starts, side - size]


# --- lines -------------------------------------------------------------------------------------------------------


def weighted_line(points: Tensor, values: Tensor, weights: Tensor, ridge: float = 0) -> Tensor:
    """Intercept and slopes (1 + d,) of the line through ``values`` (M,) at ``points`` (M, d) by weighted least squares.

    ``ridge`` penalizes the squared slopes. float64, computed on the CPU; it comes home to a device that has float64.
    """
    home = off_mps(points[:0]).device
    points, values, weights = points.cpu(), values.cpu(), weights.cpu()
    design = torch.cat([torch.ones(len(points), 1), points], 1).double()
    weighted = design * weights.double()[:, None]
    penalty = ridge * torch.eye(design.shape[1], dtype=torch.float64)
    penalty[0, 0] = 0
    found = torch.linalg.lstsq(weighted.T @ design + penalty, weighted.T @ values.double(), driver="gelsd")
    return found.solution.to(home)


def local_line(points: Tensor, values: Tensor, query: Tensor, width: float) -> Tensor:
    """Value and slopes (1 + d,) at ``query`` (d,) of a line that nearby points count most for (Cleveland 1979).

    The weight of a point falls with its distance as a Gaussian of standard deviation ``width``.
    """
    if not width > 0:
        raise ValueError(f"the width of the neighborhood must be positive, not {width}")
    away = points - query
    return weighted_line(away, values, torch.exp(-away.square().sum(1) / (2 * width**2)))


# --- games -------------------------------------------------------------------------------------------------------


def erasing(
    score: Score, picture: Tensor, segments: Tensor, fill: Tensor | float = 0.5, batch: int = 64
) -> tuple[Game, int]:
    """The game of a picture (1, 3, H, W), and its number of players: the ``segments`` (H, W), numbered from 0.

    A segment that is not kept shows ``fill``, a number or a picture. ``batch`` coalitions are scored at a time.
    """
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
    _check_players(players)
    if samples <= players:
        raise ValueError(f"a line through {players} players needs more than {players} samples, not {samples}")
    random = torch.Generator().manual_seed(seed)
    coalitions = torch.randint(2, (samples, players), generator=random).bool()
    coalitions[0] = True
    distance = 1 - coalitions.float().mean(1).sqrt()
    weights = torch.exp(-distance.square() / (2 * width**2))
    return weighted_line(coalitions.float(), game(coalitions), weights, ridge)[1:]


def every_coalition(players: int) -> Tensor:
    """All coalitions (2^n, n); the number of a row, in binary, says who is in it."""
    _check_players(players, MOST_PLAYERS)
    return (torch.arange(2**players)[:, None] >> torch.arange(players) & 1).bool()


def shapley(game: Game, players: int) -> Tensor:
    """The Shapley values (n,) of all players, exactly: what each one adds, averaged over all orders of arrival.

    Plays every coalition, so for at most `MOST_PLAYERS` players (Shapley 1953).
    """
    coalitions = every_coalition(players)
    worth, sizes = game(coalitions).cpu().double(), coalitions.sum(1)
    orders = [math.factorial(k) * math.factorial(players - k - 1) / math.factorial(players) for k in range(players)]
    orders, values = torch.tensor(orders, dtype=torch.float64), []
    for player in range(players):
        (without,) = torch.where(~coalitions[:, player])
        values.append((orders[sizes[without]] * (worth[without + 2**player] - worth[without])).sum())
    return torch.stack(values)


def kernel_shap(game: Game, players: int, samples: int | None = None, seed: int = 0) -> Tensor:
    """Shapley values (n,) as the slopes of a weighted line (Lundberg and Lee 2017, arXiv:1705.07874).

    The line passes exactly through the empty and the full coalition. ``samples`` None plays all others, each with the
    Shapley kernel as weight, which is exact; a number plays that many: half drawn from the kernel, half opposites.
    """
    _check_players(players, MOST_PLAYERS if samples is None else None)
    if players == 1:
        return (game(torch.tensor([[True]])) - game(torch.tensor([[False]]))).cpu().double()
    if samples is None:
        coalitions = every_coalition(players)[1:-1]
        sizes = coalitions.sum(1)
        ways = torch.tensor([math.comb(players, k) for k in range(players + 1)])[sizes]
        weights = (players - 1) / (ways * sizes * (players - sizes)).double()
    else:
        coalitions = _drawn(players, samples, torch.Generator().manual_seed(seed))
        weights = torch.ones(len(coalitions), dtype=torch.float64)
    ends = torch.tensor([[False], [True]]).expand(2, players)
    nothing, everything = game(ends).cpu().double()
    # The last player takes what the others leave of the total: the constraint is solved for, and n - 1 slopes remain.
    others, last = coalitions[:, :-1].double(), coalitions[:, -1:].double()
    design, total = others - last, everything - nothing
    values = game(coalitions).cpu().double() - nothing - last[:, 0] * total
    weighted = design * weights[:, None]
    slopes = torch.linalg.lstsq(weighted.T @ design, weighted.T @ values, driver="gelsd").solution
    return torch.cat([slopes, (total - slopes.sum())[None]])


def _drawn(players: int, samples: int, random: torch.Generator) -> Tensor:
    """Coalitions drawn from the Shapley kernel, then their complements."""
    if samples < 2 * players:
        raise ValueError(f"{players} players need at least {2 * players} samples, not {samples}")
    sizes = torch.arange(1, players)
    chance = 1 / (sizes * (players - sizes)).float()
    drawn = sizes[torch.multinomial(chance, samples // 2, replacement=True, generator=random)]
    rank = torch.rand(samples // 2, players, generator=random).argsort(1).argsort(1)
    coalitions = rank < drawn[:, None]
    return torch.cat([coalitions, ~coalitions])


def _check_players(players: int, most: int | None = None) -> None:
    if players < 1 or (most is not None and players > most):
        raise ValueError(
            f"{players} players: at least one is needed"
            + (f", and at most {most} can play all coalitions; draw samples with kernel_shap instead" if most else "")
        )
