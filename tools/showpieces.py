"""Make the pictures that `lk.showpiece` shows, each by one line, their page docs/gallery.md, and the README's sheet.

    python tools/showpieces.py                     all of them: some ten minutes on two cores
    python tools/showpieces.py castles_in_the_mist

The line is stored in the picture's file, too: `lk.settings_of(path)`. One needs the weights of googlenet_bvlc.
"""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

import labkit as lk
from labkit.pictures.geometry import size_of

ROOT = Path(__file__).resolve().parent.parent
DOCS, PICTURES = ROOT / "docs", ROOT / "data" / "showpieces"
HERO = [
    "faces_of_the_carp",
    "castles_in_the_mist",
    "launch_under_whirls",
    "dotted_cat",
    "birds_in_the_wave",
    "six_from_nothing",
]


class Showpiece(NamedTuple):
    seen: str
    recipe: str  # one expression, in which the longer side is about 768


SHOWPIECES = {
    "faces_of_the_carp": Showpiece(
        "A mosaic of two carp, dreamt in six octaves: furry faces look out of the fish and the water lily, and the "
        "tiles run round them.",
        'lk.dream(lk.painting("koi_mosaic", 768), octaves=6)',
    ),
    "guitar_with_dogs": Showpiece(
        "A cubist table, dreamt in six octaves: the guitar has become a dog's bed, its head a dog's.",
        'lk.dream(lk.painting("table_with_guitar", 768), octaves=6)',
    ),
    "castles_in_the_mist": Showpiece(
        "A drawn landscape, in whose peaks a network looks for castles and monasteries: they become towers with "
        "windows, and one spire grows around the writing.",
        'lk.dream(lk.painting("mist_peaks", 768), octaves=6, **lk.presets.CASTLES)',
    ),
    "palaces_in_the_harbor": Showpiece(
        "A harbor in red, in which a network looks for castles: sails are towers now, and domes rise behind them.",
        'lk.dream(lk.painting("harbour_in_red", 768), octaves=6, **lk.presets.CASTLES)',
    ),
    "birds_in_the_wave": Showpiece(
        "A printed wave, in which a network looks for birds and butterflies: a wing in the spray, a swarm on the "
        "water, and the sun has an eye.",
        'lk.dream(lk.painting("carved_sea", 768), octaves=6, **lk.presets.BIRDS)',
    ),
    "eyes_in_the_night": Showpiece(
        "A night sky, dreamt by the network and with the settings of 2015: the stars look back, and there are cars "
        "among the boats.",
        'lk.dream(lk.painting("lantern_bay", 768), backbone="googlenet_bvlc", **lk.presets.ORIGINAL_DREAM)',
    ),
    "launch_under_whirls": Showpiece(
        "A rocket in the strokes of a night sky: the smoke is lantern light, and the lamps have halos.",
        'lk.stylize(lk.resize(lk.photo("rocket"), (512, 768)), lk.painting("lantern_bay"))',
    ),
    "starry_coffee": Showpiece(
        "A cup of coffee in the strokes of a night sky, which run round the rim and whirl in the cup.",
        'lk.stylize(lk.resize(lk.photo("coffee"), (512, 768)), lk.painting("lantern_bay"))',
    ),
    "dotted_cat": Showpiece(
        "A cat in the dots of a pond at noon.",
        'lk.stylize(lk.resize(lk.photo("chelsea"), (511, 768)), lk.painting("noon_pond"))',
    ),
    "stained_cat": Showpiece(
        "The cat as a stained-glass window: the leads follow the fur and the lids of the eyes.",
        'lk.stylize(lk.resize(lk.photo("chelsea"), (511, 768)), lk.painting("window_of_the_sun"))',
    ),
    "cubist_astronaut": Showpiece(
        "An astronaut in the planes of a cubist table, by nearest neighbors and without a term for content.",
        'lk.stylize(lk.resize(lk.photo("astronaut"), (768, 768)), lk.painting("table_with_guitar"), **lk.presets.BOLD)',
    ),
    "wishes_of_channels": Showpiece(
        "What six channels of one layer want to see: monarchs, parrots, dalmatians, steel arches, yellow-green balls "
        "in fur, and broccoli in pots.",
        'lk.grid([lk.create(-lk.activation("conv5_3", channel=c, power=1), '
        '**lk.presets.CLASS_PICTURE | {"size": 256}) for c in (364, 162, 191, 35, 120, 54)], 3)',
    ),
    "one_pass_four_paintings": Showpiece(
        "The cat, painted four times by one trained network, each time in a fraction of a second: in the colors of a "
        "night, of a mosaic, of a window in small panes, and in the lines of a print.",
        'lk.grid([lk.faststyle.repaint(lk.resize(lk.photo("chelsea"), (256, 384)), name) '
        'for name in ("lantern_bay", "koi_mosaic", "window_of_the_sun", "carved_sea")], 2)',
    ),
    "six_from_nothing": Showpiece(
        "From nothing: a monarch, goldfish, lorikeets; schooners, volcanoes, a palace: each drawn by a network that "
        "saw random parts of the picture in several sizes.",
        "lk.grid([lk.create(-3 * lk.class_evidence(c) - 1.5 * lk.class_log_probability(c), seed=seed, "
        '**lk.presets.CLASS_PICTURE | {"size": 256, "crop_share": (0.95, 0.65), "noise": 0.02}) '
        'for c, seed in zip(("monarch", "goldfish", "lorikeet", "schooner", "volcano", "palace"), '
        "(0, 7, 8, 0, 0, 3))], 3)",
    ),
}

# By name, the section that explains how it was made.
DREAMS = "02_deepdream.ipynb", "What lk.dream does today"
CLASSES = "05_dream_lab.ipynb", "What may grow: channels and classes"
PAINT = "03_style_transfer.ipynb", "Step 6: a better picture, by means and covariances"
SECTIONS = {
    "faces_of_the_carp": DREAMS,
    "guitar_with_dogs": DREAMS,
    "castles_in_the_mist": CLASSES,
    "palaces_in_the_harbor": CLASSES,
    "birds_in_the_wave": CLASSES,
    "eyes_in_the_night": DREAMS,
    "launch_under_whirls": PAINT,
    "starry_coffee": PAINT,
    "dotted_cat": PAINT,
    "stained_cat": PAINT,
    "cubist_astronaut": ("06_style_lab.ipynb", "Where each knob acts"),
    "wishes_of_channels": ("04_image_creation.ipynb", "A contact sheet of channels"),
    "one_pass_four_paintings": ("07_fast_style.ipynb", "Six thousand steps later"),
    "six_from_nothing": ("04_image_creation.ipynb", "Classes"),
}


def make(showpiece: Showpiece, size: int = 768) -> Tensor:
    """The picture (1, 3, H, W) by its recipe, its longer side about ``size`` pixels."""
    recipe = re.sub(r"\b(256|384|511|512|576|768)\b", lambda s: str(round(int(s[0]) * size / 768)), showpiece.recipe)
    return eval(recipe, {"lk": lk})  # a recipe from above


def title(name: str) -> str:
    """
    >>> title("faces_of_the_carp")
    'Faces of the carp'
    """
    return name.replace("_", " ").capitalize()


def page() -> str:
    """docs/gallery.md."""
    parts = ["# Gallery", "", "Made by `tools/showpieces.py`: each picture by the one line below it."]
    for name, (seen, recipe) in SHOWPIECES.items():
        notebook, section = SECTIONS[name]
        link = f"[{section}](../notebooks/{notebook}#{section.replace(' ', '-')})"  # as Jupyter names the places
        parts += ["", f"## {title(name)}", "", f"![{seen}](../data/showpieces/{name}.jpg)", "", f"{seen} How: {link}."]
        parts += ["", "```python", recipe, "```"]
    return "\n".join(parts) + "\n"


def hero(columns: int = 3, height: int = 288, width: int = 400) -> Tensor:
    """Some of them as a sheet (1, 3, H, W), each the middle of its picture."""
    tiles = []
    for name in HERO:
        picture = lk.load(PICTURES / f"{name}.jpg")
        scale = max(wanted / side for wanted, side in zip((height, width), size_of(picture), strict=True))
        picture = lk.resize(picture, tuple(round(scale * side) for side in size_of(picture)))
        top, left = (size_of(picture)[0] - height) // 2, (size_of(picture)[1] - width) // 2
        tiles.append(picture[..., top : top + height, left : left + width])
    return lk.grid(tiles, columns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(SHOWPIECES)}")
    names = parser.parse_args().names
    if unknown := set(names) - SHOWPIECES.keys():
        parser.error(f"there is no {', '.join(sorted(unknown))}: there are {', '.join(SHOWPIECES)}")
    for name in names or SHOWPIECES:
        started, showpiece = time.perf_counter(), SHOWPIECES[name]
        picture = make(showpiece)
        lk.save(picture, PICTURES / f"{name}.jpg", showpiece._asdict(), quality=88)
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
    (DOCS / "gallery.md").write_text(page(), encoding="utf-8")
    lk.save(hero(), DOCS / "hero.jpg", {"recipe": "tools/showpieces.py"}, quality=88)


if __name__ == "__main__":
    main()
