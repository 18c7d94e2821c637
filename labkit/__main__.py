"""Floor 5: the command line. Its options and their defaults are read off `dreaming` and `stylizing`."""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import __version__, adain, faststyle, presets, superres
from .algebra import as_list
from .backbones import BACKBONES, load_backbone, pick_device
from .dream import dreaming
from .files import check_writable
from .images import PICTURE_SUFFIXES, check_place, load, luma, painting, paintings, resize, save
from .optimize import Progress, finish
from .processes import joined, own_device, rank_and_count
from .style import stylizing

RECIPES: dict[str, tuple[Callable[..., Any], tuple[str, ...], str]] = {
    "dream": (dreaming, ("photo",), "let a network dream a photo"),
    "stylize": (stylizing, ("photo", "painting"), "repaint a photo in the style of a painting"),
}
NOT_OPTIONS = ("resume", "spread", "also")  # --checkpoint does the first, torchrun the second
CHECKPOINT_EVERY = 10.0  # seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status (2 for a mistake of the user's, with one line that explains it)."""
    options = _parser().parse_args(arguments)
    try:
        if getattr(options, "preset", None):  # once more, so that what is said on the command line wins
            options = _parser(_preset(options.recipe, options.preset)).parse_args(arguments)
        options.run(options)
    except (ValueError, OSError) as error:
        print("labkit:", *str(error).split(), file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # before there was a picture to keep
        return 130
    return 0


def _parser(defaults: Mapping[str, Any] | None = None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="labkit", description="DeepDream and neural style transfer")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command, (recipe, pictures, text) in RECIPES.items():
        sub = commands.add_parser(
            command, help=text, description=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        for picture in pictures:
            named = f", or one of the lab's: {', '.join(paintings())}" if picture == "painting" else ""
            kind = "a picture file, or a folder of them" if picture == "photo" else "a picture file"
            kind = "picture files, whose styles are mixed" if picture == "painting" else kind
            many = {"nargs": "+"} if picture == "painting" else {}
            sub.add_argument(picture, metavar=picture.upper(), help=kind + named, **many)
        where = "where to write (.png, .jpg, ...); for a folder, another one"
        sub.add_argument("-o", "--output", required=True, metavar="OUT.png", help=where)
        sub.add_argument(
            "--size", type=int, default=768, help="longer side to work at, in pixels; 0 is the photo's own"
        )
        sub.add_argument("--preset", help=f"settings with a name: {', '.join(_presets(command))}")
        sub.add_argument("--quality", type=int, default=90, help="of JPEG and WebP")
        sub.add_argument("--bits", type=int, default=8, help="a colour: 8, or 16 for PNG and TIFF")
        sub.add_argument(
            "--checkpoint", metavar="RUN.pt", help="keep the run's state here, and go on from it if it exists"
        )
        sub.add_argument("--quiet", action="store_true", help="no progress bar")
        _add_options(sub, recipe)
        sub.set_defaults(run=_run_recipe, recipe=command, **(defaults or {}))
    for command, (run, text) in PASSES.items():
        sub = commands.add_parser(command, help=text, description=text)
        sub.add_argument("photo", metavar="PHOTO", help="a picture file")
        if command == "repaint":
            known = "one of the lab's, of which some were learnt by heart"
            sub.add_argument(
                "painting", metavar="PAINTING", help=f"a picture file, or {known}: {', '.join(paintings())}"
            )
        sub.add_argument("-o", "--output", required=True, metavar="OUT.png", help="where to write (.png, .jpg, ...)")
        sub.add_argument("--size", type=int, default=0, help="longer side to work at, in pixels; 0 is the photo's own")
        sub.add_argument("--device", help="cuda, mps or cpu; the best there is if not given")
        sub.set_defaults(run=run)
    sub = commands.add_parser("backbones", help="list the networks")
    sub.set_defaults(run=_list_backbones)
    sub = commands.add_parser("layers", help="list the layers of a network")
    sub.add_argument("backbone", metavar="NAME", help=", ".join(BACKBONES))
    sub.set_defaults(run=_list_layers)
    return parser


def _add_options(parser: argparse.ArgumentParser, recipe: Callable[..., Any]) -> None:
    help_of = _documented(recipe)
    for name, parameter in inspect.signature(recipe).parameters.items():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY and name not in ("backbone", "layers"):
            continue
        if name in NOT_OPTIONS:
            continue
        default = parameter.default
        kind: Callable[[str], Any] = type(default) if isinstance(default, (int, float, str)) else str
        if "layers" in name:
            kind = _layers
        elif name == "learning_rate":
            kind = float
        elif name == "style_weights":
            kind = _numbers
        elif name in ("masks", "painting_masks"):
            kind = _files
        elif name == "tile":
            kind = _tile
        flag = f"--{name.replace('_', '-')}"
        if name == "shuffle" or isinstance(default, bool):
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=default, help=help_of.get(name))
        else:
            parser.add_argument(flag, type=kind, default=default, help=help_of.get(name, name))


def _documented(recipe: Callable[..., Any]) -> dict[str, str]:
    """What a recipe's docstring says of its arguments: "a, b: text" lines, continued by deeper indentation."""
    found: dict[str, str] = {}
    text = inspect.getdoc(recipe) or ""
    for names, said in re.findall(r"^([a-z_]+(?:, [a-z_]+)*): (.*(?:\n    .*)*)", text, re.MULTILINE):
        for name in names.split(", "):
            found[name] = " ".join(said.split()).replace("``", "").replace("`", "").replace("%", "%%")
    return found


def _layers(text: str) -> dict[str, float]:
    """``relu3_3,relu4_3`` or ``relu3_3=0.5,relu4_3=1``."""
    pairs = (part.partition("=") for part in text.split(","))
    try:
        return {name.strip(): float(weight or 1) for name, _, weight in pairs}
    except ValueError:
        raise argparse.ArgumentTypeError(f"layers are written like relu3_3=0.5,relu4_3=1, not {text!r}") from None


def _numbers(text: str) -> list[float]:
    try:
        return [float(number) for number in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"numbers are written like 1,0.5,2, not {text!r}") from None


def _files(text: str) -> list[str | None]:
    """``left.png,none,right.png``"""
    return [None if name == "none" else name for name in text.split(",")]


def _tile(text: str) -> str | int | None:
    if text in ("auto", "none"):
        return None if text == "none" else text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f'a tile is "auto", "none" or a number of pixels, not {text!r}') from None


def _presets(command: str) -> dict[str, Mapping[str, Any]]:
    """The presets of a command: those whose settings it has."""
    takes = inspect.signature(RECIPES[command][0]).parameters
    found = {name: value for name, value in vars(presets).items() if name.isupper()}
    return {name: value for name, value in found.items() if value.keys() <= takes.keys()}


def _preset(command: str, name: str) -> Mapping[str, Any]:
    known = _presets(command)
    if name not in known:
        raise ValueError(f"no preset {name!r} for {command}; there are {', '.join(known)}")
    return known[name]


def _run_recipe(options: argparse.Namespace) -> None:
    recipe, pictures, _ = RECIPES[options.recipe]
    if options.size < 0:
        raise ValueError(f"size must be a number of at least 0, not {options.size}")
    takes = inspect.signature(recipe).parameters
    chosen = {name: value for name, value in vars(options).items() if name in takes and name not in pictures}
    settings = {"labkit": __version__, "recipe": options.recipe, "size": options.size, **chosen}
    for name in (*pictures, "mask", "masks", "painting_masks"):
        if getattr(options, name, None):
            named = [path and Path(path).name for path in as_list(getattr(options, name))]
            settings[name] = named if len(named) > 1 else named[0]
    chosen["device"] = own_device(options.device)
    if Path(options.photo).is_dir():
        _run_folder(options, chosen, settings)
        return
    check_place(options.output, options.quality, options.bits)  # now, not after a long run
    if options.checkpoint:
        check_writable(options.checkpoint)
    with joined(pick_device(chosen["device"])) as several:
        _run_one(options, chosen | {"spread": several}, settings, options.photo, Path(options.output), finish)


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
    recipe, pictures, _ = RECIPES[options.recipe]
    inputs = [_picture(str(photo)), *([_picture(one) for one in getattr(options, name)] for name in pictures[1:])]
    inputs[0] = resize(inputs[0], options.size) if options.size else inputs[0]
    if chosen.get("mask") not in (None, "centre"):
        chosen = chosen | {"mask": luma(resize(load(chosen["mask"]), tuple(inputs[0].shape[-2:])))}
    for name, size in (("masks", options.size), ("painting_masks", 0)):
        if chosen.get(name):
            chosen = chosen | {name: [_mask(one, size) for one in chosen[name]]}
    first = not chosen.get("spread") or rank_and_count()[0] == 0
    checkpoint = Path(options.checkpoint) if options.checkpoint else None
    run = recipe(*inputs, **chosen, resume=checkpoint if checkpoint and checkpoint.exists() else None)
    run = _kept(run, checkpoint) if checkpoint and first else run
    picture = end(run, progress=first and not options.quiet)
    if first:
        for one, path in zip(picture, _outputs(out, len(picture)), strict=True):
            print(save(one, path, settings, options.quality, options.bits), flush=True)


def _run_folder(options: argparse.Namespace, chosen: dict[str, Any], settings: dict[str, Any]) -> None:
    """Every picture of a folder into another folder, shared among the processes; what is there already is skipped."""
    if options.checkpoint:
        raise ValueError("a folder needs no checkpoint: finished pictures are skipped when it is run again")
    out = Path(options.output)
    if out.suffix or out.is_file():
        raise ValueError(f"the pictures of a folder go into a folder, not into {out}")
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


def _finish_whole(run: Iterable[Progress], **options: Any) -> Any:
    """What `finish` returns, but an interrupt goes on upwards: half a picture in a folder would be taken for a whole
    one when the folder is run again."""
    ended = False

    def watched() -> Iterator[Progress]:
        nonlocal ended
        yield from run
        ended = True

    picture = finish(watched(), **options)
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


def _mask(name: str | None, size: int) -> Any:
    """A mask from a file, its longer side at most ``size`` (0: as it is); what is no file keeps its name."""
    return name if name in (None, "centre") else luma(load(name, size or None))


def _run_upscale(options: argparse.Namespace) -> None:
    _run_pass(options, lambda photo: superres.upscale(photo, superres.load_upscaler(device=options.device)))


def _run_repaint(options: argparse.Namespace) -> None:
    """A painting that the network has learnt by heart, or any other."""
    learnt = faststyle.load_network(device=options.device)
    if options.painting in learnt.names and not Path(options.painting).exists():
        _run_pass(options, lambda photo: faststyle.repaint(photo, options.painting, learnt))
    else:
        painted = _picture(options.painting)
        _run_pass(options, lambda photo: adain.transfer(photo, painted, adain.load_decoder(device=options.device)))


def _run_pass(options: argparse.Namespace, work: Callable[[Any], Any]) -> None:
    check_place(options.output)
    photo = _picture(options.photo)
    print(save(work(resize(photo, options.size) if options.size else photo), options.output))


PASSES = {
    "repaint": (_run_repaint, "repaint a photo in one pass of a network, in a second"),
    "upscale": (_run_upscale, "make a picture twice as large"),
}


def _list_backbones(options: argparse.Namespace) -> None:
    for name, (_, text) in BACKBONES.items():
        print(f"{name:16s}{text}")


def _list_layers(options: argparse.Namespace) -> None:
    backbone = load_backbone(options.backbone, "cpu")
    print(f"{'layer':20s}{'channels':>9s}{'stride':>8s}{'sees (px)':>11s}")
    for layer in backbone.layers[:-1]:
        field = backbone.receptive_field(layer)
        print(f"{layer:20s}{backbone.channels(layer):9d}{field.stride:8d}{field.size:11d}")
    print(f"{'logits':20s}{backbone.channels('logits'):9d}{'':8s}{'all':>11s}")


if __name__ == "__main__":
    sys.exit(main())
