"""What style transfer minimizes, as a loss: content, style and roughness."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

from torch import Tensor

from ..base.checks import as_list, check_choice, check_numbers
from ..losses.algebra import Loss, Sum, summands
from ..losses.histograms import histogram
from ..losses.neighbors import Distance, nearest_neighbors
from ..losses.reconstruction import content
from ..losses.regularizers import chroma_tv, total_variation
from ..losses.styles import Statistic, style
from ..losses.target_statistics import PaintingLoss
from ..pictures.geometry import size_of
from ..pictures.masks import Mask, as_mask
from ..pictures.reading import PictureLike

Layers: TypeAlias = str | Iterable[str] | Mapping[str, float]
MOST_WEIGHT = 1e12  # beyond it, squares leave the range of float32


def style_objective(
    photo: PictureLike,
    painting: PictureLike | Sequence[PictureLike],
    *,
    content_weight: float = 1.0,
    style_weight: float = 30.0,
    tv_weight: float = 1.0,
    tv_exponent: float = 1.0,
    chroma_tv_weight: float = 30.0,
    content_layers: Layers | None = None,
    style_layers: Layers | None = None,
    statistic: Statistic = "wasserstein",
    style_weights: Iterable[float] | None = None,
    masks: Mask | Sequence[Mask] = None,
    painting_masks: Mask | Sequence[Mask] = None,
    style_scale: float = 1.0,
    style_inset: float = 0.05,
    neighbor_weight: float = 0.0,
    neighbor_distance: Distance = "l2",
    histogram_weight: float = 0.0,
) -> Loss:
    """What `stylizing` minimizes, as a loss: content + style + roughness (Gatys, Ecker and Bethge 2016, eq. 7).

    Args:
        photo: anything `as_picture` takes: what is to be seen.
        painting: the same, or a list of paintings, whose styles are mixed: how it is to be painted.
        content_weight, style_weight, tv_weight: of the three terms (see `content`, `style`, `total_variation`).
        tv_exponent: see `total_variation`.
        chroma_tv_weight: of the roughness of the colors alone (see `chroma_tv`); 0: none.
        content_layers, style_layers: names, or name -> weight; None: the backbone's recommended layers.
        statistic: "gram", "wasserstein" or "sliced" (see `style`).
        style_weights: one for each painting, divided by their sum; with masks, the strength of each style in its own
            (1: as strong there as without masks). None: equal ones.
        masks: where in the photo each painting's style goes, one mask for each (None: everywhere); see `as_mask`.
        painting_masks: what of each painting is looked at, likewise.
        style_scale: the painting's longer side relative to the picture's.
        style_inset: the share of the paintings' sides at each border that is not looked at, up to 0.4: 0.05 keeps
            their frames from being painted along the picture's border.
        neighbor_weight: of one more term, `nearest_neighbors` of the same paintings, layers and masks; 0: none.
        neighbor_distance: its own, "l2" or "cosine".
        histogram_weight: of one more term, `histogram` of the same paintings, layers and masks; 0: none.

    Raises:
        ValueError: for negative weights, and for numbers of paintings, masks and weights that do not fit.

    Example:
        >>> cat, night = lk.photo("chelsea", 64), lk.painting("lantern_bay", 64)
        >>> loss = style_objective(cat, night, statistic="wasserstein", style_scale=0.5)
        >>> network = lk.variant(lk.load_backbone("pocket"), "average")
        >>> lk.stylize(cat, loss, backbone=network, steps=1, progress=False).shape
        torch.Size([1, 3, 43, 64])
    """
    weights = {"content_weight": content_weight, "style_weight": style_weight, "tv_weight": tv_weight}
    weights |= {"chroma_tv_weight": chroma_tv_weight, "histogram_weight": histogram_weight}
    check_numbers(0, most=MOST_WEIGHT, **weights, neighbor_weight=neighbor_weight)
    check_choice("neighbor_distance", neighbor_distance, Distance)
    likeness = content(photo, content_layers)
    if masks is not None:
        masks = [mask if mask is None else as_mask(mask, size_of(likeness.photo)) for mask in as_list(masks)]
    mixture = as_list(painting), masks, painting_masks, style_weights
    options: dict[str, Any] = {"layers": style_layers, "scale": style_scale, "inset": style_inset}
    loss = content_weight * likeness + style_weight * mixture_loss(style, *mixture, statistic=statistic, **options)
    if neighbor_weight:
        neighbors = partial(nearest_neighbors, likeness.photo)
        loss += neighbor_weight * mixture_loss(neighbors, *mixture, distance=neighbor_distance, **options)
    if histogram_weight:
        loss += histogram_weight * mixture_loss(histogram, *mixture, **options)
    loss += tv_weight * total_variation(tv_exponent)
    return loss + chroma_tv_weight * chroma_tv() if chroma_tv_weight else loss


def mixture_loss(
    kind: Callable[..., PaintingLoss],
    paintings: Sequence[Any],
    masks: Sequence[Tensor | None] | None = None,
    painting_masks: Any = None,
    weights: Iterable[float] | None = None,
    **options: Any,
) -> Loss:
    """A loss of this kind against the paintings' mixture, or, with masks, the sum of one for each painting.

    masks: where each painting's style goes, (1, 1, H, W), or None for everywhere. A mean over a region pulls at each of
    its pixels the harder the smaller the region is. Each painting is weighed by its mask's area, therefore: a pixel
    feels the style of a small region no more than that of a large one.
    """
    if masks is None:
        return kind(paintings, weights=weights, painting_masks=painting_masks, **options)
    sources = [None] * len(paintings) if painting_masks is None else as_list(painting_masks)
    weights = [1.0] * len(paintings) if weights is None else list(weights)
    if not len(paintings) == len(masks) == len(sources) == len(weights):
        raise ValueError(f"{len(paintings)} paintings need as many masks and weights: give each its own, or None")
    check_numbers(0, **{f"style weight {number}": weight for number, weight in enumerate(weights, 1)})
    areas = [1.0 if mask is None else mask.mean().item() for mask in masks]
    losses = [
        weight * area * kind(painting, mask=mask, painting_masks=source, **options)
        for painting, mask, source, weight, area in zip(paintings, masks, sources, weights, areas, strict=True)
    ]
    return Sum([summand for loss in losses for summand in summands(loss)])
