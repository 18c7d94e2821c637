"""Style transfer whose options stand in one flat mapping, as those of presets, of the shell and of widgets do."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

from torch import Tensor

from ..base.checks import as_list
from ..engine.progress import Progress
from ..losses.algebra import Loss
from ..networks.surgery import variant
from ..networks.zoo import load_backbone
from ..pictures.color import matched
from ..pictures.reading import PictureLike, as_picture
from .style_transfer import style_objective, stylizing
from .video import stylize_frames

Paintings = PictureLike | Sequence[PictureLike]
PARTS = (variant, style_objective, stylizing)  # whose options the functions here take
OBJECTIVE = tuple(inspect.signature(style_objective).parameters)[2:]
COMPOSES = set(OBJECTIVE) <= inspect.signature(stylizing).parameters.keys()  # `stylizing` does so by itself


def stylizing_photo(photo: Tensor, painting: Paintings, **options: Any) -> Iterator[Progress]:
    """`stylizing` with the options of `style_objective` and `variant`, too."""
    if COMPOSES:
        return stylizing(photo, painting, **options)
    loss_of, rest = _composed(photo, painting, **options)
    return stylizing(photo, loss_of(photo), **rest)


def stylizing_film(frames: Iterable[Tensor], painting: Paintings, **options: Any) -> Iterator[Tensor]:
    """`stylize_frames` with the options of `style_objective` and `variant`, too."""
    if COMPOSES:
        return stylize_frames(frames, painting, **options)
    first = next(frames := iter(frames))
    loss_of, rest = _composed(first, painting, **options)
    return stylize_frames(chain([first], frames), loss_of, **rest)


def _composed(photo: Tensor, painting: Paintings, **rest: Any) -> tuple[Callable[[Tensor], Loss], dict[str, Any]]:
    """What the paintings ask of a photo, as a function of it, and the options that are left for `stylizing`."""
    paintings = [as_picture(one) for one in as_list(painting)]
    objective, changes = (
        {name: rest.pop(name) for name in names if name in rest} for names in (OBJECTIVE, ("pooling", "border"))
    )
    network = variant(load_backbone(rest.get("backbone", "pocket"), rest.get("device")), **changes)
    colors = rest.pop("color") if rest.get("color") in ("linear", "histogram") else None  # of the paintings, before

    def recolored(photo: Tensor) -> list[Tensor]:
        return [matched(one.to(photo), photo, colors) for one in paintings] if colors else paintings

    def loss_of(photo: Tensor) -> Loss:
        photo = photo.to(network.device)
        return style_objective(photo, recolored(photo), **objective)

    if isinstance(rest.get("init"), str) and rest["init"] == "style":
        rest["init"] = recolored(photo)[0]
    return loss_of, rest | {"backbone": network}
