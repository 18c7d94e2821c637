"""Options of a command line, with their defaults and help, read off a function and its docstring."""

from __future__ import annotations

import argparse
import inspect
import re
import textwrap
from collections.abc import Callable, Container
from typing import Any

NOT_OPTIONS = ("resume", "distributed", "extra_loss", "progress")  # --checkpoint, torchrun, nothing, --quiet
ALSO_OPTIONS = ("backbone", "layers")  # though they may be given by position


def options_of(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters of a function that are options: what can be given by its name."""
    parameters = inspect.signature(function).parameters
    return {
        name: parameter
        for name, parameter in parameters.items()
        if (parameter.kind is inspect.Parameter.KEYWORD_ONLY or name in ALSO_OPTIONS) and name not in NOT_OPTIONS
    }


def add_options(parser: Any, function: Callable[..., Any], but: Container[str] = ()) -> None:
    """Give a parser, or a group of its options, the options of ``function``, ``but`` those."""
    help_of = _documented(function)
    for name, parameter in options_of(function).items():
        if name not in but:
            _add_option(parser, name, parameter.default, help_of.get(name, name))


def _add_option(parser: Any, name: str, default: Any, text: str) -> None:
    flag = f"--{name.replace('_', '-')}"
    if name == "shuffle" or isinstance(default, bool):
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=default, help=text)
        return
    kind: Callable[[str], Any] = type(default) if isinstance(default, (int, float, str)) else str
    kind = _layers if "layers" in name else KINDS.get(name, kind)
    parser.add_argument(flag, type=kind, default=default, help=text)


def _documented(function: Callable[..., Any]) -> dict[str, str]:
    """What a docstring says of its arguments: "a, b: text" lines, continued by deeper indentation."""
    found: dict[str, str] = {}
    text = inspect.getdoc(function) or ""
    if section := re.search(r"^Args:\n((?:    .*\n|\n)*)", text + "\n", re.MULTILINE):
        text = textwrap.dedent(section[1])
    pair = r"[a-z_]+(?:, [a-z_]+)*: "
    for line in re.findall(rf"^{pair}.*(?:\n    .*)*", text, re.MULTILINE):
        for names, said in re.findall(rf"({pair})(.*?)(?=; {pair}|$)", line, re.DOTALL):
            for name in names[:-2].split(", "):
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


def _flow(text: str) -> str | None:
    if text not in ("auto", "none"):
        raise argparse.ArgumentTypeError(f'flow is "auto" or "none", not {text!r}')
    return None if text == "none" else text


# What an option is made of, where its default does not tell.
KINDS: dict[str, Callable[[str], Any]] = {
    "learning_rate": float,
    "style_weights": _numbers,
    "masks": _files,
    "painting_masks": _files,
    "tile": _tile,
    "flow": _flow,
}
