"""Make the picture at the top of the README: one photo, dreamt and painted. `python tools/hero.py docs/hero.jpg`"""

from __future__ import annotations

import sys

import labkit as lk


def main(path: str) -> None:
    photo, network = lk.photo("chelsea", 384), lk.load_backbone("pocket")
    dreams = [lk.dream(photo, layer, backbone=network) for layer in ("relu4_3", "relu5_2")]
    styles = [
        lk.stylize(photo, lk.painting(name), backbone=network)
        for name in ("lantern_bay", "window_of_the_sun", "carved_sea")
    ]
    lk.save(lk.grid([photo, *dreams, *styles], columns=3), path, {"recipe": "tools/hero.py"}, quality=88)


if __name__ == "__main__":
    main(sys.argv[1])
