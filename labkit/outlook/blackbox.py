"""Attacks, and a certificate, that need nothing of a model but its answers."""

from __future__ import annotations

import math
from numbers import Integral
from typing import NamedTuple

import torch
from torch import Tensor

from ..base.checks import check_numbers
from ..engine.evaluator import Evaluation
from .attacks import Evaluate, Threat, check_range, cross_entropy
from .classifiers import Model, class_indices, logits_of


def nes(model: Model, labels: Tensor, *, samples: int = 20, sigma: float = 0.05, seed: int = 0) -> Evaluate:
    """What `untargeted` gives, measured without gradients: natural evolution strategies (Ilyas et al. 2018).

    It costs ``2 * samples`` queries a picture: the losses a step of size ``sigma`` to and fro (arXiv:1804.08598).
    """
    check_numbers(1, Integral, most=1_000_000, samples=samples)
    check_numbers(1e-9, most=1.0, sigma=sigma)
    generator = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def evaluate(pictures: Tensor) -> Evaluation:
        loss, gradient = torch.zeros(len(pictures)).to(pictures), torch.zeros_like(pictures)
        for _ in range(samples):
            step = torch.randn(pictures.shape, generator=generator).to(pictures)
            sides = ((pictures + s * step).clamp(0, 1) for s in (sigma, -sigma))
            ahead, behind = (-cross_entropy(logits_of(model, side), labels) for side in sides)
            gradient += (ahead - behind)[:, None, None, None] * step / (2 * sigma * samples)
            loss += (ahead + behind) / (2 * samples)
        return Evaluation(loss, {("cross_entropy", ""): loss}, gradient)

    return evaluate


class Attacked(NamedTuple):
    """Attacked pictures (N, C, H, W), and how many queries (N,) each of them took."""

    pictures: Tensor
    queries: Tensor


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """How far (N,) the logit of the true class is ahead of the best other: negative when the model is wrong."""
    classes = class_indices(labels, logits)[:, None]
    return logits.gather(1, classes)[:, 0] - logits.scatter(1, classes, -math.inf).amax(1)


@torch.no_grad()
def square(
    model: Model,
    pictures: Tensor,
    labels: Tensor,
    threat: Threat,
    *,
    queries: int = 500,
    share: float = 0.8,
    seed: int = 0,
) -> Attacked:
    """The Square Attack (Andriushchenko et al. 2020, arXiv:1912.00049): random squares, kept when the score falls.

    It asks for scores and no gradients, in "linf" only. The first square covers a ``share`` of the picture; they shrink
    as the ``queries`` are used up. A picture that fools the model is left alone.
    """
    if threat.norm != "linf":
        raise ValueError(f"these squares are for linf, not {threat.norm}")
    check_numbers(1, Integral, most=1_000_000, queries=queries)
    check_numbers(1e-9, most=1.0, share=share)
    check_range(pictures)
    generator = torch.Generator().manual_seed(seed)
    labels = labels.to(pictures.device)
    number, colors, height, width = pictures.shape
    rows, columns = torch.arange(height)[:, None], torch.arange(width)

    def signs(*shape: int) -> Tensor:
        return threat.epsilon * (2.0 * torch.randint(2, shape, generator=generator) - 1).to(pictures)

    def score(change: Tensor, which: Tensor | slice) -> Tensor:
        changed = threat.project(pictures[which] + change, pictures[which])
        return margin(logits_of(model, changed), labels[which])

    change = signs(number, colors, 1, width).expand(pictures.shape).clone()  # stripes: a good start
    best, used = score(change, slice(None)), torch.ones_like(labels)
    for query in range(1, queries):
        right = (best > 0).nonzero()[:, 0]
        if not len(right):
            break
        halvings = sum(query / queries > mark for mark in (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8))
        side = max(1, min(height, width, round(math.sqrt(share * height * width / 2**halvings))))
        room = height - side + 1, width - side + 1
        top, left = (torch.randint(places, (len(right), 1, 1, 1), generator=generator) for places in room)
        inside = (rows >= top) & (rows < top + side) & (columns >= left) & (columns < left + side)
        trial = torch.where(inside.to(pictures.device), signs(len(right), colors, 1, 1), change[right])
        now = score(trial, right)
        better = now < best[right]
        change[right[better]], best[right[better]] = trial[better], now[better]
        used[right] += 1
    return Attacked(threat.project(pictures + change, pictures), used)


@torch.no_grad()
def hop_skip_jump(
    model: Model,
    pictures: Tensor,
    labels: Tensor,
    starts: Tensor,
    *,
    rounds: int = 10,
    probes: int = 100,
    seed: int = 0,
) -> Attacked:
    """HopSkipJump (Chen et al. 2020, arXiv:1904.02144): pictures near in l2, computed from the named classes alone.

    Args:
        starts: for every picture another, of any kind, that the model does not name as ``labels`` say.
        rounds: how often it feels out the boundary's direction with random steps, jumps off, and halves its way back.
        probes: random steps in the first round; the round number's root times as many in a later one.

    Raises:
        ValueError: for starts that are named like the pictures.
    """
    check_numbers(1, Integral, most=10_000, rounds=rounds, probes=probes)
    check_range(pictures)
    check_range(starts)
    generator = torch.Generator().manual_seed(seed)
    labels, starts = labels.to(pictures.device), starts.to(pictures.device)
    number, size = len(pictures), pictures[0].numel()
    everyone, used = torch.arange(number, device=pictures.device), torch.zeros_like(labels)
    bisections = math.ceil(1.5 * math.log2(size))  # the paper's precision

    def wrong(candidates: Tensor, which: Tensor) -> Tensor:
        """Whether the model is wrong about ``candidates`` for the pictures ``which``: one query each."""
        used.index_add_(0, which, torch.ones_like(which))
        return logits_of(model, candidates, batch=64).argmax(1) != labels[which]

    def to_boundary(beyond: Tensor) -> Tensor:
        """The last wrong ones on the way from pictures that are ``beyond`` the boundary to the originals."""
        right, share = pictures.new_zeros(number), pictures.new_ones(number)
        for _ in range(bisections):
            middle = (right + share) / 2
            fools = wrong(torch.lerp(pictures, beyond, middle[:, None, None, None]), everyone)
            right, share = torch.where(fools, right, middle), torch.where(fools, middle, share)
        return torch.lerp(pictures, beyond, share[:, None, None, None])

    if not wrong(starts, everyone).all():
        raise ValueError("some starts are named as the labels say: give each picture one that is named differently")
    nearest = to_boundary(starts)
    for turn in range(1, rounds + 1):
        gap = (nearest - pictures).flatten(1).norm(dim=1)
        count = round(probes * math.sqrt(turn))
        steps = torch.randn(number, count, *pictures.shape[1:], generator=generator).to(pictures)
        steps *= (gap / size).view(-1, 1, 1, 1, 1) / steps.flatten(2).norm(dim=2)[..., None, None, None]
        tried = (nearest[:, None] + steps).clamp(0, 1)
        answers = 2.0 * wrong(tried.flatten(0, 1), everyone.repeat_interleave(count)).view(number, count) - 1
        mean = answers.mean(1, keepdim=True)
        answers -= mean * (mean.abs() < 1)  # a baseline, which lowers the variance of the estimate
        direction = torch.einsum("nk,nkchw->nchw", answers, tried - nearest[:, None])
        direction /= direction.flatten(1).norm(dim=1).clamp_min(1e-30)[:, None, None, None]
        jump, jumped, short = gap / math.sqrt(turn), nearest.clone(), everyone
        for _ in range(bisections):
            jumped[short] = (nearest + jump[:, None, None, None] * direction).clamp(0, 1)[short]
            short = short[~wrong(jumped[short], short)]
            if not len(short):
                break
            jump[short] /= 2
        jumped[short] = nearest[short]
        landed = to_boundary(jumped)
        better = (landed - pictures).flatten(1).norm(dim=1) < gap
        nearest = torch.where(better[:, None, None, None], landed, nearest)
    return Attacked(nearest, used)


# --- a promise ----------------------------------------------------------------------------------------------------


class Certificate(NamedTuple):
    """Classes (N,), -1 where it abstains, and l2 radii (N,) within which they cannot change, 0 where it abstains."""

    classes: Tensor
    radii: Tensor


@torch.no_grad()
def votes(model: Model, pictures: Tensor, sigma: float, *, samples: int = 1000, seed: int = 0) -> Tensor:
    """How often (N, K) the model gives each class when Gaussian noise of standard deviation ``sigma`` is added."""
    check_numbers(1, Integral, most=1_000_000, samples=samples)
    check_numbers(0, most=100.0, sigma=sigma)
    generator, counts = torch.Generator().manual_seed(seed), []
    for picture in pictures:
        noise = torch.randn(samples, *picture.shape, generator=generator)
        logits = logits_of(lambda some, picture=picture: model(picture + sigma * some.to(picture)), noise, batch=64)
        counts.append(logits.argmax(1).bincount(minlength=logits.shape[1]))
    return torch.stack(counts).to(pictures.device)


def certify(
    model: Model, pictures: Tensor, sigma: float, *, samples: int = 1000, alpha: float = 0.001, seed: int = 0
) -> Certificate:
    """Randomized smoothing (Cohen et al. 2019, arXiv:1902.02918): the class that a model gives most often under noise.

    It holds within the radius ``sigma * Phi^-1(p)``, where ``p`` bounds that class's probability from below.

    Args:
        sigma: the standard deviation of the noise, see `votes`.
        samples: how many votes the bound is read off.
        alpha: with at most this probability the bound of a picture is too high.
    """
    from scipy.special import betaincinv  # an import that only this needs

    check_numbers(1e-12, most=0.5, alpha=alpha)
    # The class is chosen on votes of its own: chosen on those that are counted, it would be flattered.
    classes = votes(model, pictures, sigma, samples=100, seed=seed).argmax(1)
    wins = votes(model, pictures, sigma, samples=samples, seed=seed + 1).gather(1, classes[:, None])[:, 0]
    lowest = betaincinv(wins.cpu().numpy(), (samples - wins + 1).cpu().numpy(), alpha)  # Clopper and Pearson 1934
    bound = torch.from_numpy(lowest).nan_to_num(0)  # no wins
    sure = bound > 0.5
    radii = torch.where(sure, sigma * torch.special.ndtri(bound), 0.0)
    return Certificate(torch.where(sure.to(classes.device), classes, -1), radii.float().to(classes.device))
