"""Settings that have a name, as keyword arguments: ``lk.dream(photo, **lk.presets.ORIGINAL_DREAM)``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..losses.energies import class_evidence, log_energy

# Plain gradient ascent, without the additions that are defaults today.
PLAIN: Mapping[str, Any] = {
    "octaves": 4,
    "steps": 10,
    "step_decay": 1.0,
    "decorrelate": 0.0,
    "anchor": 0.0,
    "mask": None,
}
# Google's notebook of 2015, for googlenet_bvlc (torchvision's googlenet has the same layer).
ORIGINAL_DREAM: Mapping[str, Any] = {
    **PLAIN,
    "layers": "inception_4c",
    "octave_scale": 1.4,
    "step_size": 1.5,
    "jitter": 32,
    "smoothing": 0,
}
# The article's listing 4.1: five layers of VGG16, each with the weight 0.2. Its 1000 iterations of step 10 are meant
# without octaves or normalization; the lab's schedule reaches the same strength in 40.
ARTICLE_DREAM: Mapping[str, Any] = {
    **PLAIN,
    "layers": {"relu1_2": 0.2, "relu2_2": 0.2, "relu3_3": 0.2, "relu4_3": 0.2, "relu5_3": 0.2},
}
# Dreams of the pocket network; those of layers are VGG16's, too. More kinds of animals than by default, since all
# channels count alike:
CREATURES: Mapping[str, Any] = {"layers": -log_energy("relu5_1")}
# Birds and butterflies, castles, a reef: classes where the photo has a place for them, of any network that averages its
# last map.
BIRDS: Mapping[str, Any] = {"layers": -class_evidence("monarch", "peacock", "lorikeet", "macaw")}
CASTLES: Mapping[str, Any] = {
    "layers": -class_evidence("castle", "palace", "monastery", "dome", "stupa", "church"),
    "steps": (20, 8),
    "decorrelate": 0.7,
}
REEF: Mapping[str, Any] = {
    "layers": -class_evidence("coral reef", "sea anemone", "brain coral", "sea slug", "starfish", "jellyfish"),
}
# Fur and eyes on what has texture:
FUR_AND_EYES: Mapping[str, Any] = {
    "layers": -log_energy("relu4_2") - log_energy("relu4_3"),
    "steps": (14, 6),
    "decorrelate": 0.6,
    "anchor": 0.0,
}
# Everything carved in swirls:
CARVED: Mapping[str, Any] = {
    "layers": -log_energy("relu3_3"),
    "octaves": 6,
    "steps": 10,
    "decorrelate": 0.8,
    "anchor": 0.0,
    "mask": None,
}
# Gram matrices on pixels, as style transfer was in 2016.
GRAM: Mapping[str, Any] = {
    "statistic": "gram",
    "chroma_tv_weight": 0.0,
    "style_inset": 0.0,
    "parameterization": "pixels",
}
# Gatys, Ecker and Bethge 2016: one scale, L-BFGS on pixels, no total variation, five equally weighted style layers.
GATYS: Mapping[str, Any] = {
    **GRAM,
    "content_layers": ("relu4_2",),
    "style_layers": ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"),
    "content_weight": 1.0,
    "style_weight": 100.0,
    "tv_weight": 0.0,
    "optimizer": "lbfgs",
    "steps": 500,
    "min_scale": 100_000,
    "avg_decay": 0.0,
}
# The article's listing 4.2, with its weights, exponent, rate (1 on pixels from 0 to 255) and number of iterations.
ARTICLE_STYLE: Mapping[str, Any] = {
    **GRAM,
    "content_weight": 0.015,
    "style_weight": 5.0,
    "tv_weight": 1e-3,
    "tv_exponent": 1.25,
    "optimizer": "adam",
    "learning_rate": 1 / 255,
    "steps": 500,
}
# Defaults of crowsonkb/style-transfer-pytorch, after which the lab's scales and averages are made: five layers by their
# Wasserstein distances, rate, average and the ratio of content to style, 0.015. Its 500 steps are meant for each scale.
CROWSON: Mapping[str, Any] = {
    **GRAM,
    "content_layers": ("relu4_2",),
    "style_layers": ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"),
    "statistic": "wasserstein",
    "content_weight": 1.0,
    "style_weight": 1 / 0.015,
    "optimizer": "adam",
    "learning_rate": 0.02,
    "steps": 1000,
    "min_scale": 128,
    "avg_decay": 0.99,
}
# The default: the painting's distribution of features, on a Laplacian pyramid, on which Adam leaves the colors clean.
PAINTED: Mapping[str, Any] = {
    "content_weight": 1.0,
    "style_weight": 30.0,
    "statistic": "wasserstein",
    "chroma_tv_weight": 30.0,
    "style_inset": 0.05,
    "parameterization": "laplacian",
}
# Nearly that, in less than a third of the time.
FAST: Mapping[str, Any] = {**PAINTED, "steps": 60, "learning_rate": 0.06}
# With the painting's features at the photo's nearest neighbors: calmer planes, and half as fast.
NEIGHBORS: Mapping[str, Any] = {
    "content_weight": 0.5,
    "neighbor_weight": 1.0,
    "style_weight": 10.0,
    "chroma_tv_weight": 10.0,
}
# Of the photo only what its neighbors have: large forms of the painting, fewer of the photo's.
BOLD: Mapping[str, Any] = {**NEIGHBORS, "content_weight": 0.0}
# Neighbors without the distribution: the photo in the painting's colors and its softest strokes.
CALM: Mapping[str, Any] = {**NEIGHBORS, "style_weight": 0.0}
# A class, for `lk.create` with -3 * lk.class_evidence(c) - 1.5 * lk.class_log_probability(c): few objects, whole ones.
CLASS_PICTURE: Mapping[str, Any] = {
    "parameterization": "spectrum",
    "size": 320,
    "steps": 130,
    "learning_rate": 0.1,
    "step_decay": 0.3,
    "jitter": 16,
    "zoom": 0.15,
    "crops": 3,
    "crop_share": (0.85, 0.5),
    "crop_size": 128,
    "noise": 0.03,
}
# A painting's texture, for `lk.create` with lk.style(painting, scale=1.5, statistic="wasserstein") + lk.chroma_tv().
# Without movement: every statistic has a target already. Twice, small and then from the result at twice the size, comes
# nearer to the painting than once with as many pixels in all.
TEXTURE: Mapping[str, Any] = {
    "parameterization": "laplacian",
    "learning_rate": 0.08,
    "step_decay": 0.4,
    "jitter": 0,
    "zoom": 0,
    "rotate": 0,
}


def of(settings: Iterable[str]) -> dict[str, Mapping[str, Any]]:
    """The presets by name, those that consist of these settings.

    Example:
        >>> [*lk.presets.of(["content_weight", "neighbor_weight", "style_weight", "chroma_tv_weight"])]
        ['NEIGHBORS', 'BOLD', 'CALM']
    """
    known = set(settings)
    presets = {name: value for name, value in globals().items() if name.isupper()}
    return {name: preset for name, preset in presets.items() if preset.keys() <= known}
