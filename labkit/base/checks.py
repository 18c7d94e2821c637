"""Checks of arguments, made when they are given."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, get_args

MOST_SIDE = 65_536  # pixels of a picture
MOST_STEPS = 1_000_000  # of a run; more is a slip of the keyboard


def as_list(value: Any) -> list[Any]:
    """The items of a list or tuple; of anything else, a list of it alone."""
    return list(value) if isinstance(value, (list, tuple)) else [value]


def check_choice(name: str, value: object, choices: Any) -> None:
    """Raise ValueError, naming the argument, when its value is none of the ``choices``: names, or a Literal of them."""
    known = get_args(choices) or tuple(choices)
    if value not in known:
        raise ValueError(f"{name} is one of {', '.join(known)}, not {value!r}")


def check_numbers(least: float = 0, kind: type = Real, /, most: float = float("inf"), **numbers: float) -> None:
    """Raise ValueError, naming the argument, when one of ``numbers`` is not finite or not in [least, most].

    ``kind``: Real, or Integral for whole numbers.

    Example:
        >>> check_numbers(1, Integral, most=100, steps=0)
        Traceback (most recent call last):
        ValueError: steps must be a whole number from 1 to 100, not 0
    """
    for name, value in numbers.items():
        if not (isinstance(value, kind) and least <= value <= most and abs(value) < float("inf")):
            shown = repr(value) if isinstance(value, str) else value
            number = "a whole number" if kind is Integral else "a number"
            room = f"of at least {least:g}" if most == float("inf") else f"from {least:,.12g} to {most:,.12g}"
            raise ValueError(f"{name} must be {number} {room}, not {shown}")
