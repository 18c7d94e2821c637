"""The command line. The options of a recipe and their defaults are read off its function."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from .. import __version__
from ..networks.zoo import BACKBONES
from ..pictures.reading import paintings
from .commands import (
    RECIPES,
    list_backbones,
    list_layers,
    other_defaults,
    presets_of,
    run_recipe,
    run_repaint,
    run_upscale,
)
from .options import add_options, options_of


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status (2 for a mistake of the user's, with one line that explains it)."""
    options = _parser().parse_args(arguments)
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: _say(message)
        return _run(options, arguments)


def _run(options: argparse.Namespace, arguments: Sequence[str] | None) -> int:
    try:
        if "recipe" in options and (defaults := other_defaults(options)):
            # once more, so that what is said on the command line wins
            options = _parser(defaults).parse_args(arguments)
        options.run(options)
    except (ValueError, OSError) as error:
        _say(error)
        return 2
    except KeyboardInterrupt:  # before there was a picture to keep
        return 130
    return 0


def _say(message: Warning | str | Exception) -> None:
    from tqdm import tqdm

    tqdm.write(" ".join(["labkit:", *str(message).split()]), file=sys.stderr)  # on a line of its own, below no bar


def _parser(defaults: Mapping[str, Any] | None = None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="labkit", description="DeepDream and neural style transfer")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in RECIPES:
        _add_recipe(commands, command, defaults or {})
    sub = _add_pass(commands, "repaint", "repaint a photo in one pass of a network, in a second")
    known = f"one of the lab's, of which some were learned by heart: {', '.join(paintings())}"
    sub.add_argument("painting", metavar="PAINTING", help=f"a picture file, or {known}")
    sub.set_defaults(run=run_repaint)
    sub = _add_pass(commands, "upscale", "make a picture twice as large")
    sub.set_defaults(run=run_upscale)
    sub = commands.add_parser("backbones", help="list the networks")
    sub.set_defaults(run=list_backbones)
    sub = commands.add_parser("layers", help="list the layers of a network")
    sub.add_argument("backbone", metavar="NAME", help=", ".join(BACKBONES))
    sub.set_defaults(run=list_layers)
    return parser


def _add_recipe(commands: Any, command: str, defaults: Mapping[str, Any]) -> None:
    recipe = RECIPES[command]
    sub = commands.add_parser(
        command, help=recipe.text, description=recipe.text, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    photo = "a picture file" if recipe.always_film else "a picture file, a folder of them, or a film"
    sub.add_argument("photo", metavar="PHOTO", help=photo)
    if "painting" in recipe.inputs:
        named = f"picture files, whose styles are mixed, or the lab's: {', '.join(paintings())}"
        sub.add_argument("painting", metavar="PAINTING", help=named, nargs="+")
    film = "where to write (.webp, .mp4, .gif)"
    where = film if recipe.always_film else "where to write (.png, .jpg, ...); for a folder, another one, or a film"
    sub.add_argument("-o", "--output", required=True, metavar="OUT", help=where)
    sub.add_argument("--size", type=int, default=768, help="longer side to work at, in pixels; 0 is the photo's own")
    sub.add_argument("--preset", help=f"settings with a name: {', '.join(presets_of(command))}")
    sub.add_argument("--quality", type=int, default=90, help="of JPEG, WebP and MP4")
    sub.add_argument("--quiet", action="store_true", help="no progress bar")
    if recipe.always_film:
        add_options(sub, recipe.film, but=options_of(recipe.run))
        add_options(sub, recipe.run, but=("variations",))
        sub.set_defaults(**recipe.film_defaults)
    else:
        sub.add_argument("--bits", type=int, default=8, help="a color: 8, or 16 for PNG and TIFF")
        kept = "keep the run's state here, and go on from it if it exists"
        sub.add_argument("--checkpoint", metavar="RUN.pt", help=kept)
        add_options(sub, recipe.run)
        others = ", ".join(f"{name} is {value}" for name, value in recipe.film_defaults.items())
        films = sub.add_argument_group("options of films", f"unless given, {others}")
        add_options(films, recipe.film, but=options_of(recipe.run))
        films.add_argument("--fps", type=float, help="frames a second; None: the film's own, 12 for a folder")
    sub.set_defaults(run=run_recipe, recipe=command, **defaults)


def _add_pass(commands: Any, command: str, text: str) -> argparse.ArgumentParser:
    sub = commands.add_parser(command, help=text, description=text)
    sub.add_argument("photo", metavar="PHOTO", help="a picture file")
    sub.add_argument("-o", "--output", required=True, metavar="OUT.png", help="where to write (.png, .jpg, ...)")
    sub.add_argument("--size", type=int, default=0, help="longer side to work at, in pixels; 0 is the photo's own")
    sub.add_argument("--device", help="cuda, mps or cpu; the best there is if not given")
    return sub
