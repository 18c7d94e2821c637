"""Show what the pocket network sees beside what its teacher sees.

    python tools/pocket_pictures.py docs/pictures/pocket.jpg

Above the teacher, below the pocket network: dreams of two photos at a middle and a deep layer, and a photo painted;
then five classes, drawn from noise.
"""

from __future__ import annotations

import sys

from torch import Tensor

import labkit as lk

LAYERS = {"googlenet_bvlc": ("inception_3b", "inception_4c"), "pocket": ("relu4_3", "relu5_1")}
CLASSES = ("zebra", "monarch", "tiger", "goldfinch", "beacon")
WIDTH = 320


def dreams_and_style(network: lk.Backbone) -> list[Tensor]:
    photos = [lk.photo(name, WIDTH) for name in ("chelsea", "coffee")]
    dreams = [lk.dream(photo, layer, backbone=network) for photo in photos for layer in LAYERS[network.name]]
    return [*dreams, lk.stylize(photos[0], lk.painting("lantern_bay"), backbone=network)]


def classes(network: lk.Backbone, size: tuple[int, int]) -> list[Tensor]:
    """A few whole objects of each class."""
    settings = lk.presets.CLASS_PICTURE | {"size": size}
    losses = [-3 * lk.class_evidence(name) - 1.5 * lk.class_log_probability(name) for name in CLASSES]
    return [lk.create(loss, backbone=network, **settings) for loss in losses]


def main(path: str) -> None:
    networks = [lk.load_backbone(name) for name in LAYERS]
    above = [picture for network in networks for picture in dreams_and_style(network)]
    size = tuple(above[0].shape[-2:])
    below = [picture for network in networks for picture in classes(network, size)]
    sheet = lk.grid([picture.cpu() for picture in above + below], columns=5)
    lk.save(sheet, path, {"recipe": "tools/pocket_pictures.py"}, quality=78)


if __name__ == "__main__":
    main(sys.argv[1])
