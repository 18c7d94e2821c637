"""Settings that have a name, as keyword arguments: ``lk.dream(photo, **lk.presets.ORIGINAL_DREAM)``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..losses.energies import class_evidence, log_energy

# Plain gradient ascent, as dreams were in 2015.
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
# Dreams of the pocket network, or of VGG16. One or a few whole animals (the default):
CREATURES: Mapping[str, Any] = {"layers": -log_energy("relu5_1")}
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
# Gatys, Ecker and Bethge 2016: one scale, L-BFGS, no total variation, five equally weighted style layers.
GATYS: Mapping[str, Any] = {
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
    "content_weight": 0.015,
    "style_weight": 5.0,
    "tv_weight": 1e-3,
    "tv_exponent": 1.25,
    "optimizer": "adam",
    "learning_rate": 1 / 255,
    "steps": 500,
}
