"""How good the pictures are, in numbers, so that a change of defaults or presets is measured: writes docs/pictures.md.

    python benchmarks/judge.py style dreams classes                      the defaults and every preset
    python benchmarks/judge.py style --methods default --photos coffee chelsea --paintings koi_mosaic --size 192
    python benchmarks/judge.py dreams --photos folder astronaut --sheets build/sheets

Three tables: styles (photos x paintings), dreams (photos) and classes from nothing, each for every *method*: "default",
and those of `labkit.presets` whose settings the recipe takes, all of them; a preset that several recipes take is judged
with each, and one that the network cannot carry out is named with the reason. "photo" is the photo left as it is.

The referees are networks that did not paint; without any of their weights the painter judges itself, and the page says
so: whoever minimizes a number is no judge of it. A table that is made again replaces its last numbers.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import shlex
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from bench import machine
from report import described, table
from torch import Tensor, nn

import labkit as lk
from labkit.base.checks import check_numbers
from labkit.networks.weights import fill, read_weights
from labkit.pictures.geometry import size_of
from labkit.pictures.masks import texture
from labkit.pictures.reading import PICTURE_SUFFIXES

Row = dict[str, Any]
Subjects = dict[str, tuple[Any, ...]]  # name -> what a recipe is given: photo and painting, photo, or loss
HERE = Path(__file__).resolve().parent
CLASSES = ["monarch", "peacock", "koala", "leopard", "jellyfish", "castle", "volcano", "schooner", "strawberry"]
CLASSES += ["steam locomotive"]
CALM = 1 / 3  # the most that calm places should change, relative to textured ones
TEXTURE = 0.01, 0.03  # calm is what has less, textured what has more


# --- what is measured -----------------------------------------------------------------------------------------------


def distance(referee: lk.Backbone, loss: lk.Loss, picture: Tensor) -> float:
    """A loss of one picture (1, 3, H, W) under a network, in float32.

    Styles and contents are relative: 0 is the painting, or the photo, itself; content is 1 for an empty picture.
    """
    evaluator = lk.Evaluator(referee, loss, size_of(picture), "float32")
    return evaluator.loss.value(evaluator.statistics(evaluator.loss, picture)).item()


def noise(picture: Tensor) -> tuple[float, float]:
    """Luma noise and chroma noise: the mean |Laplacian| (4 neighbors) of the luma, and of the colors minus the luma."""
    gray = lk.luma(picture)
    return roughness(gray), roughness(picture - gray)


def roughness(x: Tensor) -> float:
    neighbors = x[..., 2:, 1:-1] + x[..., :-2, 1:-1] + x[..., 1:-1, 2:] + x[..., 1:-1, :-2]
    return (neighbors - 4 * x[..., 1:-1, 1:-1]).abs().mean().item()


def relative_noise(picture: Tensor, painting: Tensor) -> tuple[float, float]:
    """Luma and chroma noise relative to the painting's, whose longer side is made the picture's: 1 is the painting."""
    theirs = noise(lk.resize(painting, max(size_of(picture))))
    luma, chroma = (mine / max(its, 1e-9) for mine, its in zip(noise(picture), theirs, strict=True))
    return luma, chroma


def fine_share(picture: Tensor) -> float:
    """The share of the luma's energy, without its mean, at frequencies above half of Nyquist's (1/4 a pixel)."""
    gray = lk.luma(picture)[0, 0].double()
    energy = torch.fft.fft2(gray - gray.mean()).abs().square()
    rows, columns = (torch.fft.fftfreq(side) for side in gray.shape)
    return (energy[torch.hypot(rows[:, None], columns) > 0.25].sum() / energy.sum().clamp_min(1e-9)).item()


def calm_ratio(photo: Tensor, dream: Tensor) -> float | None:
    """The mean |dream - photo| in the photo's calm places, relative to that in its textured ones.

    Calm: a texture below 0.01, as a sky's; textured: above 0.03. None if either is less than a fiftieth of the photo.
    """
    detail = texture(photo)
    calm, textured = detail < TEXTURE[0], detail > TEXTURE[1]
    if min(place.float().mean() for place in (calm, textured)) < 0.02:
        return None
    change = (dream - photo).abs().mean(1, keepdim=True)
    return (change[calm].mean() / change[textured].mean().clamp_min(1e-9)).item()


def class_rank(referee: lk.Backbone, picture: Tensor, name: str) -> int:
    """The place of a class among all that a network sees in a picture, at 224 x 224 pixels: 1 is the first."""
    logits = referee.logits(lk.resize(picture, (224, 224)))[0]
    return 1 + int((logits > logits[referee.class_index(name)]).sum())


# --- what is judged -------------------------------------------------------------------------------------------------


def methods_of(recipe: Callable[..., Any]) -> dict[str, Mapping[str, Any]]:
    """The methods of a recipe by name: "default", and the presets whose settings it takes, all of them."""
    settings = inspect.signature(recipe).parameters.keys() - {"photo", "painting", "loss"}
    return {"default": {}} | lk.presets.of(settings)


def judged(
    recipe: Callable[..., Iterator[lk.Progress]],
    subjects: Subjects,
    measure: Callable[..., Row],
    methods: Mapping[str, Mapping[str, Any]],
    settings: Mapping[str, Any],
    given: Mapping[str, Any],
) -> tuple[list[Row], dict[str, str], list[Tensor]]:
    """Every method on every subject: the rows, the methods that were refused and why, and the pictures, subject-major.

    Args:
        measure: subject's name, picture, what the recipe was given -> what a row says.
        settings: what holds unless a preset says otherwise.
        given: what overrules presets, too.
    """
    rows: list[Row] = []
    refused: dict[str, str] = {}
    pictures: list[tuple[str, Tensor]] = []
    for subject, arguments in subjects.items():
        shown = [x for x in arguments if isinstance(x, Tensor)]
        attempts: dict[str, tuple[Tensor, float]] = {"photo": (shown[0], 0.0)} if shown else {}
        pictures += [("", x) for x in shown]
        for method, preset in methods.items():
            started = time.perf_counter()
            if method not in refused:
                try:
                    run = recipe(*arguments, **{**settings, **preset, **given})
                except (ValueError, FileNotFoundError) as error:  # layers and weights that are not there
                    refused[method] = str(error)
                    continue
                picture = deque(run, maxlen=1)[0].picture.cpu()
                attempts[method] = picture, time.perf_counter() - started
        for method, (picture, seconds) in attempts.items():
            found = measure(subject, picture, *arguments)
            rows.append({"method": method, "subject": subject, "seconds": seconds, **found})
            print(f"  {subject}, {method}: {' '.join(f'{k} {v:.3g}' for k, v in found.items() if v is not None)}")
            sys.stdout.flush()
            if method != "photo":
                pictures.append((method, picture))
    rows = [row for row in rows if row["method"] not in refused]  # only whole columns can be compared
    return rows, refused, [picture for method, picture in pictures if method not in refused]


def measure_style(referees: list[lk.Backbone], picture: Tensor, photo: Tensor, painting: Tensor) -> Row:
    row: Row = dict(zip(("luma noise", "chroma noise"), relative_noise(picture, painting), strict=True))
    for referee in referees:
        for statistic in ("gram", "wasserstein"):
            loss = lk.style(painting, statistic=statistic)
            row[f"{referee.name} {statistic}"] = distance(referee, loss, picture)
        row[f"{referee.name} content"] = distance(referee, lk.content(photo), picture)
    return row


def measure_dream(picture: Tensor, photo: Tensor) -> Row:
    change = 255 * (picture - photo).abs().mean().item()
    return {"calm": calm_ratio(photo, picture), "change": change, "noise": fine_share(picture)}


def measure_class(referees: list[lk.Backbone], name: str, picture: Tensor) -> Row:
    return {"noise": fine_share(picture)} | {referee.name: class_rank(referee, picture, name) for referee in referees}


def find_photos(places: Iterable[str], most: int) -> Subjects:
    """The first ``most`` photos by name: labkit's own, files, and all pictures of folders, in this order."""
    found: dict[str, Callable[[], Tensor]] = {}
    for place in places:
        if place in lk.PHOTOS:
            found[place] = partial(lk.photo, place)
            continue
        path = Path(place)
        files = [f for f in path.iterdir() if f.suffix.lower() in PICTURE_SUFFIXES] if path.is_dir() else [path]
        found |= {file.stem: partial(lk.load, file) for file in sorted(files)}
    return {name: (read(),) for name, read in islice(found.items(), most)}


def load_painter(name: str, weights: Path | None, device: str | None) -> lk.Backbone:
    """The network that paints, with its own weights or with those of a file."""
    network = lk.load_backbone(name, device)
    if weights:
        stages = dict(zip(network.names, network.stages, strict=True))
        fill(nn.ModuleDict({**stages, "logits": network.head}), read_weights(weights, name), name)
    return network


def find_referees(names: Iterable[str], painter: lk.Backbone) -> list[lk.Backbone]:
    """The networks of these names whose weights are here, without the painter; the painter itself if there is none."""
    referees = []
    for name in names:
        try:
            referees += [lk.load_backbone(name, painter.device)] if name != painter.name else []
        except FileNotFoundError as error:
            print(f"{name} is no referee: {error}", file=sys.stderr)
    return referees or [painter]


def styles(options: argparse.Namespace, painter: lk.Backbone, referees: list[lk.Backbone]) -> tuple:
    size = options.size or 320
    photos = find_photos(options.photos, options.most or 12)
    pairs: Subjects = {
        f"{photo} x {painting}": (lk.resize(picture, size), lk.painting(painting))
        for photo, (picture,) in photos.items()
        for painting in options.paintings
    }
    return lk.stylizing, pairs, lambda name, *pictures: measure_style(referees, *pictures), {}


def dreams(options: argparse.Namespace, painter: lk.Backbone, referees: list[lk.Backbone]) -> tuple:
    photos = find_photos(options.photos, options.most or 10)
    subjects: Subjects = {name: (lk.resize(photo, options.size or 384),) for name, (photo,) in photos.items()}
    return lk.dreaming, subjects, lambda name, *pictures: measure_dream(*pictures), {}


def classes(options: argparse.Namespace, painter: lk.Backbone, referees: list[lk.Backbone]) -> tuple:
    names = options.classes[: options.most]
    subjects: Subjects = {name: (-lk.class_logit(painter.class_index(name)),) for name in names}
    return lk.creating, subjects, lambda name, x, loss: measure_class(referees, name, x), {"size": options.size or 320}


TABLES: dict[str, Callable[..., tuple]] = {"style": styles, "dreams": dreams, "classes": classes}


# --- the page -------------------------------------------------------------------------------------------------------

HEADER = """\
Written by `benchmarks/judge.py`, which says how each number is measured. The referees are networks that did not paint,
their weights found as `lk.load_backbone` finds them. Each table says which command made it, and on how busy a machine
(the load: how many programs wanted to compute). Twelve photos by eight paintings, half an hour of one core a method:

    python benchmarks/judge.py style --methods default --photos astronaut chelsea coffee rocket hubble_deep_field FOLDER
"""
ABOUT = {
    "style": (
        "## Styles",
        "How far the style is from the painting's under a referee, by Gram matrices and by the 2-Wasserstein distance, "
        "and the content from the photo's (0: none; content 1: an empty picture's), all with its recommended layers; "
        "luma and chroma noise, the mean absolute Laplacian relative to the painting's at the same size (1: the "
        "painting's own). Means over all pairs; the median of the seconds.",
    ),
    "dreams": (
        "## Dreams",
        f"Calm: how much the photo's calm places (texture below {TEXTURE[0]}) change relative to its textured ones "
        f"(above {TEXTURE[1]}); at most {CALM:.2f} is wanted, and photos that lack either are left out. "
        "Change: the mean of a pixel's, "
        "in 255ths; noise: the share of the luma's energy above half of Nyquist's frequency. "
        "Means over all photos; the median of the seconds.",
    ),
    "classes": (
        "## Classes from nothing",
        "Ranks of the wanted classes among all 1000 that a referee knows (1: first), in the order named below; "
        "noise: the share of the luma's energy above half of Nyquist's frequency, its mean; the median of the seconds.",
    ),
}


def written(results: Mapping[str, Any]) -> str:
    """The whole page, from what was stored."""
    parts = ["# Pictures", "", HEADER.strip()]
    for what, found in results.items():
        title, text = ABOUT[what]
        parts += ["", title, "", text, "", *as_table(what, found["rows"]), ""]
        parts += [f"Refused: {method} ({reason.partition(':')[0]}).  " for method, reason in found["refused"].items()]
        subjects = dict.fromkeys(row["subject"] for row in found["rows"])
        parts += [f"{len(subjects)} subjects: {', '.join(subjects)}.  "]
        if found["painter"] in found["referees"] and what != "dreams":
            parts += [f"No referee was at hand: {found['painter']} judges what it painted itself.  "]
        parts += [f"Made by `{found['command']}`  ", f"*{described(found['machine'])}; load {found['load']:.1f}*"]
    return "\n".join(parts) + "\n"


def as_table(what: str, rows: list[Row]) -> list[str]:
    """One line for each method: means over its subjects."""
    measured = [name for name in rows[0] if name not in ("method", "subject", "seconds")]
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        line: list[Any] = [method]
        for name in measured:
            values = [row[name] for row in own if row[name] is not None]
            if not values:
                line.append("")
            elif what == "classes" and name != "noise":
                line.append(" ".join(map(str, values)))
            else:
                line.append(f"{statistics.fmean(values):.{4 if name == 'noise' else 2 if what == 'dreams' else 3}f}")
        if what == "dreams":
            calm = [row["calm"] for row in own if row["calm"] is not None]
            line.append(f"{sum(value <= CALM for value in calm)} of {len(calm)}")
        lines.append([*line, f"{statistics.median(row['seconds'] for row in own):.1f}"])
    return table(["", *measured, *([f"calm at most {CALM:.2f}"] if what == "dreams" else []), "seconds"], lines)


def save_sheet(path: Path, pictures: list[Tensor], rows: list[str], columns: list[str]) -> None:
    """All pictures, a subject a row, cropped to the sides that all have; what is where is written into the file."""
    height, width = (min(sides) for sides in zip(*map(size_of, pictures), strict=True))
    tiles = []
    for picture in pictures:
        sides = size_of(picture)
        scale = max(height / sides[0], width / sides[1])
        picture = lk.resize(picture, [max(1, round(scale * side)) for side in sides])
        top, left = ((side - wanted) // 2 for side, wanted in zip(size_of(picture), (height, width), strict=True))
        tiles.append(picture[..., top : top + height, left : left + width])
    path.parent.mkdir(parents=True, exist_ok=True)
    lk.save(lk.grid(tiles, len(columns)), path, {"rows": rows, "columns": columns})
    print(f"{path}: {', '.join(columns)}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+", choices=list(TABLES))
    parser.add_argument(
        "--methods", nargs="+", help='of presets, and "default"; all that the recipe takes if not given'
    )
    parser.add_argument("--photos", nargs="+", default=lk.PHOTOS, help="labkit's by name, files, and folders of them")
    parser.add_argument("--paintings", nargs="+", default=lk.paintings(), help="labkit's by name; all if not given")
    parser.add_argument("--classes", nargs="+", default=CLASSES)
    parser.add_argument("--most", type=int, help="photos or classes; style 12, dreams 10 and classes all if not given")
    parser.add_argument("--size", type=int, help="the longer side in pixels; 320, of dreams 384, if not given")
    parser.add_argument("--steps", type=int, help="of every run, instead of the methods' own")
    parser.add_argument("--backbone", default="pocket", help="the network that paints")
    parser.add_argument("--weights", type=Path, help="a file with its weights, instead of those that it has")
    parser.add_argument("--referees", nargs="*", default=["googlenet_bvlc", "squeezenet1_1"])
    parser.add_argument("--device", help="cuda, mps or cpu; the best there is if not given")
    parser.add_argument("--sheets", type=Path, help="a folder for one sheet of pictures a table")
    parser.add_argument("--results", type=Path, default=HERE / "judged.json")
    parser.add_argument("--report", type=Path, default=HERE.parent / "docs" / "pictures.md")
    said = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(said)
    numbers = {name: getattr(options, name) for name in ("most", "size", "steps")}
    check_numbers(1, Integral, most=100_000, **{f"--{name}": n for name, n in numbers.items() if n is not None})
    painter = load_painter(options.backbone, options.weights, options.device)
    referees = find_referees(options.referees, painter)
    results = json.loads(options.results.read_text()) if options.results.exists() else {}
    for what in dict.fromkeys(options.tables):
        print(what, flush=True)
        recipe, subjects, measure, settings = TABLES[what](options, painter, referees)
        if not subjects:
            parser.error(f"{what} has nothing to judge: name photos, paintings or classes, and at least one of each")
        methods = methods_of(recipe)
        if unknown := set(options.methods or []) - methods.keys():
            parser.error(f"{what} has no method {', '.join(sorted(unknown))}: it has {', '.join(methods)}")
        methods = {name: methods[name] for name in options.methods or methods}
        given = {"steps": options.steps} if options.steps else {}
        rows, refused, pictures = judged(
            recipe, subjects, measure, methods, {"backbone": painter, "progress": False, **settings}, given
        )
        if refused.keys() == methods.keys():
            raise SystemExit(f"{what}: every method was refused: {refused}")
        results[what] = {
            "command": shlex.join(["python", "benchmarks/judge.py", *said]),
            "painter": painter.name,
            "referees": [referee.name for referee in referees],
            "machine": machine(options.device),
            "load": os.getloadavg()[0],
            "refused": refused,
            "rows": rows,
        }
        options.results.write_text(json.dumps(results, indent=1) + "\n")
        options.report.write_text(written(results), encoding="utf-8")
        if options.sheets:
            shown = {"style": ["photo", "painting"], "dreams": ["photo"], "classes": []}[what]
            columns = [*shown, *(name for name in methods if name not in refused)]
            save_sheet(options.sheets / f"{what}.png", pictures, list(subjects), columns)
    print(f"written to {options.results} and {options.report}")


if __name__ == "__main__":
    main()
