"""The options of the shell. Names, defaults and kinds are those of the functions; what is said of each stands here."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ..networks.zoo import BACKBONES

HELP: dict[str, dict[str, str]] = {
    "what": {
        "preset": "settings with a name, which other options overrule",
        "backbone": "network",
        "layers": "layers to dream, as relu3_3=0.5,relu4_3 (default: recommended for the network)",
        "variations": "number of dreams of the photo",
        "shuffle": "draw the layers' weights at random (default: for several variations)",
        "mask": "where to dream: a file, white there; or center, texture, salient; none: everywhere",
        "content_weight": "weight of the photo's content",
        "content_layers": "layers that hold content (default: recommended for the network)",
        "style_weight": "weight of the paintings' style",
        "style_layers": "layers that hold style (default: recommended for the network)",
        "style_weights": "weight of each painting, as 1,0.5,2 (default: equal)",
        "style_scale": "painting's longer side relative to the picture's",
        "style_inset": "share of the painting's sides, its frame, that is not looked at",
        "statistic": "statistic of features that stands for style",
        "neighbor_weight": "weight of the painting's features where it is most like the photo, 0: none",
        "neighbor_distance": "how far neighbors are: squared difference or cosine",
        "masks": "where each painting's style goes: files, white there; none: everywhere",
        "painting_masks": "what of each painting counts, likewise",
        "tv_weight": "weight of total variation: more is smoother",
        "tv_exponent": "exponent of the squared gradient in total variation",
        "chroma_tv_weight": "weight of the colors' own total variation: more is less colored noise, 0: none",
        "histogram_weight": "weight of the features' histograms, 0: none",
        "color": "keep the photo's colors: give them to the painting (linear, histogram) or to the result",
    },
    "how": {
        "octaves": "number of sizes, from small to large",
        "octave_scale": "ratio of each size to the one before",
        "steps": "number of steps (styles: in all; dreams: at each size, or, as 20,6, at first and last)",
        "step_size": "mean change of a pixel in a step, in 255ths",
        "jitter": "largest shift of the picture before each step, in pixels",
        "smoothing": "width of the gaussians that smooth the gradient, in pixels, 0: none",
        "laplacian": "splits of the gradient into fine and coarse, made equally strong",
        "step_decay": "last step at each size relative to the first; small ones leave less noise",
        "decorrelate": "growth of natural colors at the cost of garish ones, 0 to 1",
        "anchor": "pull back to the photo, 0: none",
        "init": "picture to start from",
        "parameterization": "what steps are taken on; laplacian leaves less noise in the colors",
        "optimizer": "method of descent",
        "learning_rate": "size of a step (default: 0.03 for adam, else 1)",
        "min_scale": "longer side of the smallest size, in pixels",
        "avg_decay": "decay of the mean of steps that is shown, from 0 (none) to below 1",
        "pooling": "pooling in the network",
        "border": "what the network sees around the picture",
        "seed": "seed of all that is random",
    },
    "films": {
        "fps": "frames a second; if not said, a film's own",
        "seconds": "length of the film, in seconds",
        "zoom": "enlargement in a second, 1: none",
        "rotate": "turn in a second, in degrees, counterclockwise",
        "keep": "share of the frame before in what a frame starts from, 0 to 1",
        "flow": "optical flow from frame to frame; auto: by RAFT, if its weights are here",
        "steps_after": "number of steps for each frame after the first",
        "temporal_weight": "weight of likeness to the frame before, 0: none",
    },
    "speed": {
        "device": "cuda, mps or cpu (default: the best there is)",
        "precision": "precision of the network's arithmetic",
        "tile": "side of what is computed at once, in pixels; auto: what memory holds",
    },
    "output": {
        "output": "where to write; the ending tells the kind: .png, .jpg, .tif; films .webp, .mp4, .gif",
        "size": "longer side to work at, in pixels, 0: the photo's own",
        "quality": "quality of jpeg, webp and mp4, 0 to 100",
        "bits": "bits a color; 16 for png and tiff",
        "checkpoint": "file that keeps a run's state, and from which it goes on if it exists",
        "quiet": "show no progress bar",
    },
}
TEXTS = {name: text for group in HELP.values() for name, text in group.items()}


def options_of(*functions: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters of functions that are options, which have a help text; of two with one name the last counts."""
    found = {}
    for function in functions:
        hints = get_type_hints(function)
        for name, parameter in inspect.signature(function).parameters.items():
            if name in TEXTS:
                found[name] = parameter.replace(annotation=hints[name])
    return found


def flag(name: str) -> str:
    """How an option is written: ``--octave-scale``."""
    return f"--{name.replace('_', '-')}"


def add_options(parser: argparse.ArgumentParser, options: Mapping[str, inspect.Parameter]) -> None:
    """Give a parser options, in their groups."""
    for title, texts in HELP.items():
        group = parser.add_argument_group(title)
        for name in [name for name in texts if name in options]:
            flags = ["-o"] * (name == "output") + [flag(name)]
            group.add_argument(*flags, dest=name, help=_help(options[name]), **_settings(options[name]))


def _help(option: inspect.Parameter) -> str:
    """The text, with the default where there is one to tell."""
    default, text = option.default, TEXTS[option.name]
    if default is None or isinstance(default, bool) or default is option.empty:
        return text
    values = default if isinstance(default, tuple) else (default,)
    written = ",".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
    return f"{text} (default: {written})"


def _settings(option: inspect.Parameter) -> dict[str, Any]:
    """What `add_argument` has to know: how the option is read, as said below or as its type tells."""
    hint = option.annotation
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if option.name in READERS:
        return READERS[option.name]
    if bool in kinds:
        return {"action": argparse.BooleanOptionalAction}
    if words := [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]:
        return choice(*words, *[None] * (NoneType in kinds))
    return reading(int, "N", "a whole number") if int in kinds else reading(float, "X", "a number")


def choice(*values: Any) -> dict[str, Any]:
    """How one of ``values`` is read, for `add_argument`."""
    known = {"none" if value is None else str(value): value for value in values}
    return reading(known.__getitem__, f"{{{','.join(known)}}}", f"one of {', '.join(known)}")


def reading(read: Callable[[str], Any], metavar: str, wanted: str = "") -> dict[str, Any]:
    """How ``read`` reads, for `add_argument`; where it fails, what is ``wanted`` is said, or else ``metavar``."""

    def checked(text: str) -> Any:
        try:
            return read(text)
        except (ValueError, KeyError):
            raise argparse.ArgumentTypeError(f"write {wanted or metavar}, not {text!r}") from None

    return {"type": checked, "metavar": metavar}


def _word(text: str) -> str | None:
    return None if text == "none" else text


def _steps(text: str) -> int | tuple[int, ...]:
    numbers = [*map(int, text.split(","))]
    return tuple(numbers) if len(numbers) > 1 else numbers[0]


def _layers(text: str) -> dict[str, float]:
    pairs = (layer.partition("=") for layer in text.split(","))
    return {name.strip(): float(weight or 1) for name, _, weight in pairs}


# Of the options whose type does not tell how they are read.
READERS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("layers", "content_layers", "style_layers"), reading(_layers, "LAYER=WEIGHT,...")),
    **dict.fromkeys(("masks", "painting_masks"), reading(lambda text: [*map(_word, text.split(","))], "FILE,none,...")),
    "mask": reading(_word, "FILE"),
    "checkpoint": {"metavar": "FILE"},
    "style_weights": reading(lambda text: [*map(float, text.split(","))], "X,X,..."),
    "tile": reading(lambda text: _word(text) if text in ("auto", "none") else int(text), "{auto,none,N}"),
    "steps": reading(_steps, "N", "a whole number, or N,N"),
    "backbone": choice(*BACKBONES),
    "flow": choice("auto", None),
    "output": {"metavar": "OUT", "required": True},
    "device": {"metavar": "DEVICE"},
}
