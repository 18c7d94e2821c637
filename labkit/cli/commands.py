"""What the commands of the command line do: pictures, folders of pictures, films, one pass of a network."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from torch import Tensor

from .. import __version__
from ..base.checks import as_list, check_numbers
from ..base.devices import pick_device
from ..base.files import check_writable
from ..base.processes import joined, own_device, rank_and_count
from ..engine.progress import Progress, finish, with_bar
from ..networks.zoo import BACKBONES, load_backbone
from ..pictures.color import luma
from ..pictures.films import FILM_SUFFIXES, VIDEOS, animated, check_film, frames_of, rate_of, save_frames
from ..pictures.geometry import resize, size_of
from ..pictures.reading import PICTURE_SUFFIXES, load, painting, paintings
from ..pictures.writing import check_place, save
from ..recipes import adain, presets
from ..recipes import fast_style as faststyle
from ..recipes import super_resolution as superres
from ..recipes.deepdream import dreaming
from ..recipes.style_transfer import stylizing
from ..recipes.video import FRAME, dream_frames, journey, stylize_frames
from .options import options_of

CHECKPOINT_EVERY = 10.0  # seconds


@dataclass(frozen=True)
class Recipe:
    """A command that follows a recipe: ``run`` makes a picture of the ``inputs``, ``film`` frames.

    ``film_defaults``: options of ``run`` that have another default in a film; ``always_film``: it makes no pictures.
    """

    text: str
    inputs: tuple[str, ...]
    run: Callable[..., Iterator[Progress]]
    film: Callable[..., Iterator[Any]]
    film_defaults: Mapping[str, Any]
    always_film: bool = False


RECIPES = {
    "dream": Recipe("let a network dream a photo or a film", ("photo",), dreaming, dream_frames, FRAME),
    "stylize": Recipe(
        "repaint a photo or a film in the style of a painting",
        ("photo", "painting"),
        stylizing,
        stylize_frames,
        {"steps": options_of(stylize_frames)["steps"].default},
    ),
    "journey": Recipe(
        "dream a photo, move the dream, dream it again: a film", ("photo",), dreaming, journey, FRAME, True
    ),
}


def presets_of(command: str) -> dict[str, Mapping[str, Any]]:
    """The presets of a command: those whose settings it has."""
    takes = options_of(RECIPES[command].run).keys()
    found = {name: value for name, value in vars(presets).items() if name.isupper()}
    return {name: value for name, value in found.items() if value.keys() <= takes}


def other_defaults(options: argparse.Namespace) -> Mapping[str, Any]:
    """The defaults that hold for what was said on the command line: those of films, those of the preset."""
    command, name = options.recipe, options.preset
    if name and name not in presets_of(command):
        raise ValueError(f"no preset {name!r} for {command}; there are {', '.join(presets_of(command))}")
    of_films = RECIPES[command].film_defaults if _makes_film(options) else {}
    return {**of_films, **(presets_of(command)[name] if name else {})}


def _makes_film(options: argparse.Namespace) -> bool:
    photo, suffix = Path(options.photo), Path(options.output).suffix.lower()
    if RECIPES[options.recipe].always_film or photo.suffix.lower() in VIDEOS:
        return True
    if suffix in FILM_SUFFIXES and (photo.is_dir() or animated(photo)):
        return True
    if suffix in FILM_SUFFIXES and suffix not in PICTURE_SUFFIXES:
        raise ValueError(f"{photo} does not move: end {options.output} in .png or .jpg")
    return False


# --- recipes --------------------------------------------------------------------------------------------------------


def run_recipe(options: argparse.Namespace) -> None:
    """Pictures or films, as `RECIPES` has them."""
    recipe = RECIPES[options.recipe]
    if options.size < 0:
        raise ValueError(f"size must be a number of at least 0, not {options.size}")
    film = _makes_film(options)
    takes = options_of(recipe.run) | (options_of(recipe.film) if film else {})
    chosen = {name: value for name, value in vars(options).items() if name in takes}
    settings = {"labkit": __version__, "recipe": options.recipe, "size": options.size, **chosen}
    for name in (*recipe.inputs, "mask", "masks", "painting_masks"):
        if getattr(options, name, None):
            named = [path and Path(path).name for path in as_list(getattr(options, name))]
            settings[name] = named if len(named) > 1 else named[0]
    chosen["device"] = own_device(options.device)
    if film:
        _run_film(options, chosen)
        return
    _check_idle(options)
    if Path(options.photo).is_dir():
        _run_folder(options, chosen, settings)
        return
    check_place(options.output, options.quality, options.bits)  # now, not after a long run
    if options.checkpoint:
        check_writable(options.checkpoint)
    with joined(pick_device(chosen["device"])) as several:
        _run_one(options, chosen | {"distributed": several}, settings, options.photo, Path(options.output), finish)


def _check_idle(options: argparse.Namespace) -> None:
    """Raise ValueError when something was said of films, and pictures are to be made."""
    recipe = RECIPES[options.recipe]
    defaults = {name: one.default for name, one in options_of(recipe.film).items()} | {"fps": None}
    said = [name for name in defaults.keys() - options_of(recipe.run) if vars(options)[name] != defaults[name]]
    if said:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(said))
        raise ValueError(f"{flags} is for films alone, and {options.output} is to hold pictures: leave it out")


def _run_one(
    options: argparse.Namespace,
    chosen: dict[str, Any],
    settings: dict[str, Any],
    photo: str | Path,
    out: Path,
    end: Callable[..., Any],
) -> None:
    """Run the recipe on one photo and write the result; of several processes on it, the first one speaks and writes.

    end: `finish`, or `_finish_whole`: what makes a picture of the run.
    """
    picture = _photo(str(photo), options.size)
    chosen = _with_masks(chosen, options.size, picture)
    first = not chosen.get("distributed") or rank_and_count()[0] == 0
    checkpoint = Path(options.checkpoint) if options.checkpoint else None
    run = RECIPES[options.recipe].run(
        picture, *_paintings(options), **chosen, resume=checkpoint if checkpoint and checkpoint.exists() else None
    )
    run = _kept(run, checkpoint) if checkpoint and first else run
    picture = end(with_bar(run, first and not options.quiet))
    if first:
        for one, path in zip(picture, _outputs(out, len(picture)), strict=True):
            print(save(one, path, settings, options.quality, options.bits), flush=True)


def _run_folder(options: argparse.Namespace, chosen: dict[str, Any], settings: dict[str, Any]) -> None:
    """Every picture of a folder into another folder, shared among the processes; what is there already is skipped."""
    if options.checkpoint:
        raise ValueError("a folder needs no checkpoint: finished pictures are skipped when it is run again")
    out = Path(options.output)
    if out.suffix or out.is_file():
        raise ValueError(f"the pictures of a folder go into a folder or a film (.webp, .mp4, .gif), not into {out}")
    photos = sorted(path for path in Path(options.photo).iterdir() if path.suffix.lower() in PICTURE_SUFFIXES)
    if not photos:
        raise ValueError(f"{options.photo} holds no pictures ({', '.join(PICTURE_SUFFIXES)})")
    if len({path.stem for path in photos}) < len(photos):
        raise ValueError(f"two pictures in {options.photo} differ only in their endings: rename one")
    out.mkdir(parents=True, exist_ok=True)
    check_place(out / f"{photos[0].stem}.png", options.quality, options.bits)
    chosen["backbone"] = load_backbone(options.backbone, chosen["device"])
    rank, count = rank_and_count()
    for photo in photos[rank::count]:
        path = out / f"{photo.stem}.png"
        if not all(one.exists() for one in _outputs(path, getattr(options, "variations", 1))):
            _run_one(options, chosen, settings | {"photo": photo.name}, photo, path, _finish_whole)


def _run_film(options: argparse.Namespace, chosen: dict[str, Any]) -> None:
    """A film of a film, or a journey from a photo. An interrupt ends it early, and what there is is written."""
    if getattr(options, "checkpoint", None):
        raise ValueError("a film has no checkpoint: leave it out; an interrupt keeps the frames that are done")
    if getattr(options, "bits", 8) != 8:
        raise ValueError(f"a film has 8 bits a color, not {options.bits}")
    if rank_and_count()[1] > 1:
        raise ValueError("each frame of a film needs the one before: start it without torchrun")
    recipe, total = RECIPES[options.recipe], None
    fps = (rate_of(options.photo) or 12.0) if options.fps is None else options.fps
    check_film(options.output, fps, options.quality)
    if recipe.always_film:
        check_numbers(0.01, seconds=options.seconds)
        source = first = _photo(options.photo, options.size)
        total = max(1, round(options.seconds * fps))
    else:
        found = frames_of(options.photo, options.size or None)
        first = next(found)
        source = chain([first], found)
    frames = recipe.film(source, *_paintings(options), **_with_masks(chosen, options.size, first))
    print(save_frames(frames, options.output, fps, quality=options.quality, total=total, progress=not options.quiet))


def _paintings(options: argparse.Namespace) -> list[Any]:
    """The inputs of a recipe besides the photo."""
    return [[_picture(one) for one in getattr(options, name)] for name in RECIPES[options.recipe].inputs[1:]]


def _with_masks(chosen: dict[str, Any], size: int, photo: Any) -> dict[str, Any]:
    """The options with masks read from their files: ``mask`` as large as the photo, others at most ``size``."""
    read = {"mask": _mask(chosen.get("mask"), size_of(photo))}
    for name, limit in (("masks", size), ("painting_masks", 0)):
        if chosen.get(name):
            read[name] = [_mask(one, limit) for one in chosen[name]]
    return chosen | {name: mask for name, mask in read.items() if name in chosen}


def _mask(name: str | None, size: int | tuple[int, int]) -> Any:
    """A mask from a file, its size or longer side ``size`` (0: as it is); what is no file keeps its name."""
    return name if name in (None, "center") else luma(load(name, size or None))


def _finish_whole(run: Iterable[Progress]) -> Tensor:
    """What `finish` returns, but an interrupt goes on upwards: half a picture in a folder would be taken for a whole
    one when the folder is run again."""
    ended = False

    def watched() -> Iterator[Progress]:
        nonlocal ended
        yield from run
        ended = True

    picture = finish(watched())
    if not ended:
        raise KeyboardInterrupt
    return picture


def _outputs(out: Path, count: int) -> list[Path]:
    """Where the pictures of a batch go: ``out``, or ``out`` with numbers."""
    return [out] if count == 1 else [out.with_stem(f"{out.stem}-{index + 1}") for index in range(count)]


def _kept(run: Iterable[Progress], checkpoint: Path) -> Iterator[Progress]:
    """The same progress, its state written to a file now and then; a finished run leaves no file.

    Nothing is written when a run is interrupted: in the middle of a step its state belongs to no step.
    """
    written = 0.0
    for step in run:
        if step.elapsed - written >= CHECKPOINT_EVERY:
            step.save(checkpoint)
            written = step.elapsed
        yield step
        if step.step == step.of:
            checkpoint.unlink(missing_ok=True)


def _picture(name: str) -> Any:
    return painting(name) if name in paintings() and not Path(name).exists() else load(name)


def _photo(name: str, size: int) -> Any:
    """A picture with its longer side ``size``; 0: as it is."""
    return resize(_picture(name), size) if size else _picture(name)


# --- one pass, and lists --------------------------------------------------------------------------------------------


def run_upscale(options: argparse.Namespace) -> None:
    _run_pass(options, lambda photo: superres.upscale(photo, superres.load_upscaler(device=options.device)))


def run_repaint(options: argparse.Namespace) -> None:
    """A painting that the network has learned by heart, or any other."""
    learned = faststyle.load_network(device=options.device)
    if options.painting in learned.names and not Path(options.painting).exists():
        _run_pass(options, lambda photo: faststyle.repaint(photo, options.painting, learned))
    else:
        painted = _picture(options.painting)
        _run_pass(options, lambda photo: adain.transfer(photo, painted, adain.load_decoder(device=options.device)))


def _run_pass(options: argparse.Namespace, work: Callable[[Any], Any]) -> None:
    check_place(options.output)
    print(save(work(_photo(options.photo, options.size)), options.output))


def list_backbones(options: argparse.Namespace) -> None:
    for name, (_, text) in BACKBONES.items():
        print(f"{name:16s}{text}")


def list_layers(options: argparse.Namespace) -> None:
    backbone = load_backbone(options.backbone, "cpu")
    print(f"{'layer':20s}{'channels':>9s}{'stride':>8s}{'sees (px)':>11s}")
    for layer in backbone.layers[:-1]:
        field = backbone.receptive_field(layer)
        print(f"{layer:20s}{backbone.channels(layer):9d}{field.stride:8d}{field.size:11d}")
    print(f"{'logits':20s}{backbone.channels('logits'):9d}{'':8s}{'all':>11s}")
