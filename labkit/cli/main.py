"""The command line: what it takes, and one line for every mistake."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import partial
from typing import Any

from .. import __version__
from ..networks.zoo import BACKBONES
from ..pictures.reading import paintings
from .commands import RECIPES, backbones, command_options, layers, presets_of, repaint, run_recipe, upscale
from .options import add_options, options_of


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status (2 for a mistake of the user's, with one line that explains it)."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: _say(message)
        try:
            said = vars(_parser().parse_args(arguments))
            said.pop("run")(**said)
        except (ValueError, OSError) as error:
            _say(error)
            return 2
        except KeyboardInterrupt:  # before there was a picture to keep
            return 130
    return 0


def _say(message: Warning | str | Exception) -> None:
    from tqdm import tqdm

    tqdm.write(" ".join(["labkit:", *str(message).split()]), file=sys.stderr)  # on a line of its own, below no bar


class Parser(argparse.ArgumentParser):
    """A parser whose mistakes are ValueErrors, and which knows what an unknown option may have been meant to be."""

    def error(self, message: str) -> Any:
        raise ValueError(message)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # pyright: ignore
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            near = get_close_matches(unknown[0].partition("=")[0], self._option_string_actions, 1)
            advice = f"did you mean {near[0]}?" if near else f"see {self.prog} --help"
            raise ValueError(f"{self.prog} does not take {unknown[0]}: {advice}")
        return options, unknown


def _parser() -> Parser:
    parser = Parser(prog="labkit", description="DeepDream and neural style transfer.", usage="labkit COMMAND ...")
    parser.add_argument("-V", "--version", action="version", version=__version__, help="show the version and exit")
    commands = parser.add_subparsers(title="commands", prog="labkit", required=True, metavar="COMMAND")
    known = f"the lab's: {', '.join(paintings())}"

    def add(name: str, text: str, run: Callable[..., None], takes: str = "") -> Parser:
        """A command; ``takes``: what its usage shows."""
        usage = f"labkit {name} {takes}".rstrip()
        sub = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", usage=usage)
        sub.set_defaults(run=run)
        return sub

    for name, recipe in RECIPES.items():
        paints, films = name == "stylize", recipe.films_alone
        sub = add(name, recipe.text, partial(run_recipe, name), f"PHOTO {'PAINTING... ' * paints}-o OUT [options]")
        many = "" if films else ", film, or folder, which becomes a folder or a film (.webp, .mp4, .gif)"
        sub.add_argument("photo", metavar="PHOTO", help=f"picture file{many}")
        if paints:
            text = f"picture files, whose styles are mixed, or {known}"
            sub.add_argument("painting", metavar="PAINTING", nargs="+", help=text)
        others = ", ".join(f"{option} is {value}" for option, value in recipe.film_defaults.items())
        sub.epilog = None if films else f"The options of films are for films alone, where by default {others}."
        add_options(sub, command_options(name), presets_of(name))
    for run, takes in ((repaint, "PHOTO PAINTING"), (upscale, "PHOTO")):
        sub = add(run.__name__, run.__doc__ or "", run, f"{takes} -o OUT [options]")
        sub.add_argument("photo", metavar="PHOTO", help="picture file")
        if run is repaint:
            sub.add_argument("painting", metavar="PAINTING", help=f"picture file, or one of {known}")
        add_options(sub, options_of(run))
    add("backbones", "list the networks", backbones)
    sub = add("layers", "list the layers of a network", layers, "NAME")
    sub.add_argument("backbone", metavar="NAME", choices=BACKBONES, help=", ".join(BACKBONES))
    return parser
