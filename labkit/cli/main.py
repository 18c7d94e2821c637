"""The command line: what it takes, and one line for every mistake."""

from __future__ import annotations

import argparse
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import partial
from typing import Any

from .. import __version__
from ..engine.tiles import ran_out
from ..networks.zoo import BACKBONES
from ..pictures.reading import paintings
from .commands import RECIPES, backbones, check_said, command_options, layers, repaint, run_recipe, upscale
from .options import TEXTS, add_options, choice, flag, options_of


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status (2 for a mistake of the user's, with one line that explains it)."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: _say(message)
        try:
            said = vars(_parser().parse_args(arguments))
            check_said(said)
            said.pop("run")(**said)
        except (KeyboardInterrupt, BrokenPipeError):  # before there was a picture to keep; nobody reads on
            return 130
        except (ValueError, OSError, RuntimeError, MemoryError) as error:
            if isinstance(error, RuntimeError) and not ran_out(error):
                raise  # a mistake of the lab's
            _say("memory ran out: choose a smaller --size" if ran_out(error) else error)
            return 2
    return 0


def _say(message: Warning | str | Exception) -> None:
    """Say it in one line and in the shell's words: --octave-scale and none for a function's octave_scale and None."""
    from tqdm import tqdm

    if isinstance(message, OSError) and message.strerror:
        message = f"{message.filename or 'writing'}: {message.strerror}"
    text = " ".join(str(message).split())
    text = re.sub(f'^({"|".join(TEXTS)})(?= must be | is one of | is ")', lambda name: flag(name[0]), text)
    text = re.sub(r"(?<![\w./'-])None(?![\w./'-])", "none", text)
    tqdm.write(f"labkit: {text}", file=sys.stderr)  # on a line of its own, below no bar


class Parser(argparse.ArgumentParser):
    """A parser whose mistakes are ValueErrors, and which knows what an unknown option may have been meant to be."""

    def error(self, message: str) -> Any:
        raise ValueError(message.removeprefix("argument "))

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # pyright: ignore
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            near = get_close_matches(unknown[0].partition("=")[0], self._option_string_actions, 1, 0.8)
            advice = f"did you mean {near[0]}?" if near else f"see {self.prog} --help"
            raise ValueError(f"{unknown[0]} is not known here: {advice}")
        return options, unknown


def _parser() -> Parser:
    parser = Parser(prog="labkit", description="DeepDream and neural style transfer.", usage="labkit COMMAND ...")
    parser.add_argument("-V", "--version", action="version", version=__version__, help="show the version and exit")
    commands = parser.add_subparsers(title="commands", prog="labkit", required=True, metavar="COMMAND")
    known = f"the lab's: {', '.join(paintings())}"

    def add(name: str, text: str, run: Callable[..., None], takes: str = "") -> Parser:
        """A command, which leaves out what is not said; ``takes``: what its usage shows."""
        usage, about = f"labkit {name} {takes}".rstrip(), f"{text[0].upper()}{text[1:]}."
        unsaid = argparse.SUPPRESS
        sub = commands.add_parser(name, help=text, description=about, usage=usage, argument_default=unsaid)
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
        add_options(sub, command_options(name))
    for run, takes in ((repaint, "PHOTO PAINTING"), (upscale, "PHOTO")):
        sub = add(run.__name__, run.__doc__ or "", run, f"{takes} -o OUT [options]")
        sub.add_argument("photo", metavar="PHOTO", help="picture file")
        if run is repaint:
            sub.add_argument("painting", metavar="PAINTING", help=f"picture file, or one of {known}")
        add_options(sub, options_of(run))
    add("backbones", "list the networks", backbones)
    sub = add("layers", "list the layers of a network", layers, "NAME")
    sub.add_argument("backbone", help=", ".join(BACKBONES), metavar="NAME", type=choice(*BACKBONES)["type"])
    return parser
