"""DeepDream. A photo is changed so that a layer of a network responds more strongly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from numbers import Integral
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from ..base.checks import MOST_STEPS, as_list, check_choice, check_numbers
from ..base.devices import Precision
from ..engine.evaluator import Evaluator, least_side
from ..engine.optimization import descend, make_optimizer, pyramid
from ..engine.parameters import Pixels
from ..engine.progress import Progress, finished, with_bar
from ..engine.runs import Run, Saved, digest
from ..losses.activations import activation, class_logit, per_picture
from ..losses.algebra import Loss, Sum, layer_names
from ..losses.reconstruction import content
from ..networks.backbone import Backbone
from ..networks.zoo import load_backbone
from ..pictures.filters import blurred
from ..pictures.geometry import Size, resize, size_of
from ..pictures.masks import Mask, as_mask, emphasis, texture_mask
from ..pictures.reading import PictureLike, as_picture
from .dream_gradients import dream_gradient

Order: TypeAlias = Literal["strongest", "weakest", "random"]


def dreaming(
    photo: PictureLike,
    layers: str | Mapping[str, float] | Loss | None = None,
    *,
    backbone: str | Backbone = "pocket",
    octaves: int = 5,
    octave_scale: float = 1.4,
    steps: int | tuple[int, int] = (20, 6),
    step_size: float = 2.0,
    step_decay: float = 0.3,
    jitter: int = 32,
    smoothing: float = 1.0,
    laplacian: int = 0,
    decorrelate: float = 0.5,
    anchor: float = 0.3,
    mask: Mask = "texture",
    variations: int = 1,
    shuffle: bool | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    precision: Precision = "auto",
    tile: str | int | None = "auto",
    distributed: bool = False,
    resume: Saved = None,
    progress: bool | None = None,
) -> Iterator[Progress]:
    """Dream, yielding `Progress` after every step (Mordvintsev, Olah and Tyka 2015).

    Args:
        photo: anything `as_picture` takes.
        layers: a layer whose mean squared features are raised; or layer -> weight (the relative growth of each counts,
            so that no layer drowns the others); or any loss, which is minimized, such as
            ``lk.style(painting) - 0.5 * lk.activation("relu4_3", relative=True)``. None: the network's recommended
            ones; the pocket network's draws a few whole animals where the photo has a place for them.
        backbone: a name or a loaded network.
        octaves, octave_scale: sizes from small to large, each ``octave_scale`` times the last; the photo's detail that
            the small sizes lack is kept apart and put back. Octaves too small for the network are left out.
        steps: per octave; two numbers: of the smallest and of the largest, evenly between.
        step_size: the mean change of a pixel value in one step, in 255ths.
        step_decay: the last step of an octave relative to the first; between they shrink evenly. Small last steps leave
            less noise.
        jitter: the picture is rolled by up to so many pixels each way before every step, and rolled back.
        smoothing: the width in pixels of the Gaussians that smooth the gradient (see `smoothed`). 0: none.
        laplacian: how often the gradient is split into fine and coarse, each part then made equally strong, so that
            dreams have detail of every size (see `balanced`; the TensorFlow tutorial splits 4 times). 0: not at all.
        decorrelate: how much natural colors grow and garish ones do not, from 0 to 1 (see `color_mixing`).
        anchor: how strongly the picture is held to the photo's shallow features, up to 100: at a relative distance r
            of those it is pulled back with ``anchor`` * r of the dream's own strength. 0: not.
        mask: where to dream: "texture", so that calm places stay calm (see `texture_mask`); "salient", on what the
            network sees (see `saliency_mask`); None: everywhere; (H, W) or (N, 1, H, W) in [0, 1], "center", or a
            function (height, width) -> (H, W). Resized, with a warning, if only its size is not the photo's. N masks
            are for N photos, or for N dreams.
        variations: how many dreams of the photo, as one batch, each with its own jitter.
        shuffle: draw each variation's layer weights at random, in proportion to the given ones; None: only if there are
            several variations.
        seed: of jitter and layer weights.
        device, precision: see `load_backbone` and `pick_precision`.
        tile, distributed: how a picture that memory cannot hold is cut, and shared among processes (see `Evaluator`).
        resume: what `Progress.state_dict` returned or `Progress.save` wrote in a run with the same arguments.
        progress: show a progress bar; None: `dream` does, `dreaming` does not.

    Raises:
        ValueError: for arguments that make no sense, saying what would; at the call, not at the first step.
    """
    check_numbers(0, most=1, step_decay=step_decay, decorrelate=decorrelate)
    check_numbers(0, most=100, anchor=anchor)
    check_numbers(1, Integral, most=1000, octaves=octaves, variations=variations)
    check_numbers(0, Integral, most=10_000, jitter=jitter, laplacian=laplacian)
    check_numbers(0, most=1000, step_size=step_size, smoothing=smoothing)
    check_numbers(1.01, most=100, octave_scale=octave_scale)
    original = as_picture(photo)
    network = load_backbone(backbone, device)
    pictures = original.to(network.device).repeat(variations, 1, 1, 1)
    generator = torch.Generator().manual_seed(seed)
    loss = dream_loss(network, layers, len(pictures), variations > 1 if shuffle is None else shuffle, generator)
    shallow = [*network.recommended.style, *network.names][:2]
    likeness = content(pictures, shallow[-1]) if anchor and shallow else None
    size = size_of(original)
    least = max(least_side(network, wanted, size) for wanted in (loss, likeness) if wanted)
    sizes = octave_sizes(size, octaves, octave_scale, least)
    shares = octave_steps(steps, len(sizes))
    masks = None if mask is None else dream_masks(network, mask, pictures, variations)

    @cache
    def identity() -> dict[str, Any]:
        known = {"photo": digest(original), "network": digest(network)}
        return known | {"octaves": sizes, "steps": shares, "seed": seed, "variations": variations}

    run = Run(sizes, shares, resume, identity, original.device)

    @lru_cache(1)
    def evaluator_of(size: Size) -> Evaluator:
        return Evaluator(network, loss, size, precision, tile, distributed)

    evaluator_of(sizes[0]).plan(size)  # what cannot be evaluated is refused at the call

    def octave_by_octave() -> Iterator[Progress]:
        detail = torch.zeros_like(pictures[..., :1, :1])
        for stage in run:
            base = resize(pictures, stage.size)
            octave_mask = None if masks is None else resize(masks, stage.size)
            detail = F.interpolate(detail, stage.size, mode="bicubic")
            if octave_mask is not None:
                detail = detail * (octave_mask > 0)  # enlarging has carried it over the mask's edge
            pixels = Pixels((base + detail).clamp(0, 1))
            evaluator = evaluator_of(stage.size)
            evaluate = dream_gradient(
                evaluator,
                jitter=jitter,
                smoothing=smoothing,
                laplacian=laplacian,
                decorrelate=decorrelate,
                anchor=anchor,
                photo=likeness and Evaluator(network, likeness, stage.size, precision, tile, distributed),
                mask=octave_mask,
                generator=generator,
            )
            optimizer = make_optimizer("ascent", pixels.parameters, step_size / 255)
            plan = evaluator.plan(stage.size)
            healthy = yield from descend(
                stage, pixels, evaluate, optimizer, decay=step_decay, generator=generator, plan=plan
            )
            if not healthy:
                return
            detail = pixels.picture() - base

    return with_bar(octave_by_octave(), progress)


dream = finished(dreaming, "Dream to the end and return the picture (N, 3, H, W), on the photo's device.")


def ranked_channels(
    photo: PictureLike,
    layer: str,
    count: int = 8,
    *,
    backbone: str | Backbone = "pocket",
    order: Order = "strongest",
    seed: int = 0,
    device: str | torch.device | None = None,
) -> list[int]:
    """The numbers of ``count`` channels of a layer, to dream of one by one: ``-lk.activation(layer, channel=number)``.

    Args:
        order: by the mean square of their features on the photo, "strongest" first or "weakest" first (silent channels
            among them), or "random", drawn with ``seed``.

    Raises:
        ValueError: when the layer has fewer channels.
    """
    check_choice("order", order, Order)
    backbone, photo = load_backbone(backbone, device), as_picture(photo)
    backbone.check_layers([layer])
    channels = backbone.channels(layer)
    check_numbers(1, Integral, most=channels, count=count)
    if order == "random":
        return torch.randperm(channels, generator=torch.Generator().manual_seed(seed))[:count].tolist()
    with torch.no_grad():
        features = Evaluator(backbone, activation(layer), size_of(photo), "float32").features(photo, [layer])[layer]
    strength = features.square().transpose(0, 1).flatten(1).mean(1)
    return strength.sort(descending=order == "strongest", stable=True).indices[:count].tolist()


def dream_loss(
    backbone: Backbone,
    layers: str | Mapping[str, float] | Loss | None,
    variations: int = 1,
    shuffle: bool = False,
    generator: torch.Generator | None = None,
) -> Loss:
    """The loss of a dream, from a layer, layer -> weight, a loss, or None; with shuffled weights (see `dreaming`)."""
    if layers is None:
        if not backbone.recommended.dream:
            raise ValueError(f"{backbone.name} recommends no layer to dream of: name one of {backbone.layers}")
        layers = backbone.recommended.dream
    if isinstance(layers, Backbone):
        raise ValueError("layers are names, names with weights, or a loss: pass a network as backbone=")
    if isinstance(layers, Loss):
        loss = Sum([(1.0, layers)]) if not isinstance(layers, Sum) else layers
    else:
        weights = {name: layers[name] if isinstance(layers, Mapping) else 1.0 for name in layer_names(layers)}
        check_numbers(0, **{f"the weight of {layer}": weight for layer, weight in weights.items()})
        backbone.check_layers(weights)
        loss = Sum([(-weight, activation(layer, relative=len(weights) > 1)) for layer, weight in weights.items()])
    if not shuffle:
        return loss
    # Exponential draws divided by their sum are uniform on the simplex: no layer is favored (Dirichlet with alpha 1).
    draws = torch.empty(len(loss.summands), variations).exponential_(generator=generator)
    weights = torch.stack([torch.as_tensor(w).abs().expand(variations) for w, _ in loss.summands])
    draws *= weights.sum(0) / (weights * draws).sum(0)  # so that each variation's weights sum to what was given
    return Sum([(w * draw, part) for (w, part), draw in zip(loss.summands, draws, strict=True)])


def dream_masks(network: Backbone, mask: Mask, pictures: Tensor, variations: int) -> Tensor:
    """Where to dream, (1, 1, H, W) or one for each of the dreams (see `dreaming`)."""
    if isinstance(mask, str) and mask in ("texture", "salient"):
        photos = pictures[: len(pictures) // variations]
        masks = texture_mask(photos) if mask == "texture" else saliency_mask(network, photos)
        return masks.repeat(variations, 1, 1, 1)
    masks = as_mask(mask, size_of(pictures)).to(pictures.device)
    if len(masks) in (1, len(pictures)):
        return masks
    if len(masks) * variations != len(pictures):
        raise ValueError(f"{len(masks)} masks for {len(pictures)} dreams: give one, or one for each photo or dream")
    return masks.repeat(variations, 1, 1, 1)


def saliency_mask(network: Backbone, pictures: Tensor) -> Tensor:
    """Where pictures (N, 3, H, W) have what the network names them after: a mask (N, 1, H, W) (see `emphasis`).

    The size of the gradient of the most probable class's logit, less the mean of all classes' (Simonyan, Vedaldi and
    Zisserman 2014, arXiv:1312.6034), blurred. It is taken at 384 pixels at most, which is what networks are used to.
    """
    size = size_of(pictures)
    small = resize(pictures, 384) if max(size) > 384 else pictures
    loss = per_picture([class_logit(int(name)) for name in network.logits(small).argmax(1)])
    gradient = Evaluator(network, loss, size_of(small), "float32")(small).gradient
    mask = emphasis(blurred(gradient.abs().mean(1, keepdim=True), max(size_of(small)) / 25))
    return resize(mask, size).clamp(0, 1)


def octave_sizes(size: tuple[int, int], octaves: int, octave_scale: float, least: int = 1) -> list[tuple[int, int]]:
    """The sizes (height, width) of the octaves, small to large, without those with a side below ``least``."""
    return pyramid(size, [octave_scale**-k for k in reversed(range(octaves))], least)


def octave_steps(steps: int | tuple[int, int], octaves: int) -> list[int]:
    """The steps of each octave, small to large: all alike, or evenly from the first number to the second.

    Example:
        >>> octave_steps((20, 8), 4)
        [20, 16, 12, 8]
    """
    ends = as_list(steps)
    if len(ends) > 2:
        raise ValueError(f"steps are a number, or two of the smallest and the largest octave, not {steps}")
    for number in ends:
        check_numbers(1, Integral, most=MOST_STEPS, steps=number)
    return [round(ends[0] + (ends[-1] - ends[0]) * octave / max(1, octaves - 1)) for octave in range(octaves)]
