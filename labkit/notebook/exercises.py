"""Exercises that say whether an answer is right."""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, TypeAlias

import torch
from torch import Tensor

Test: TypeAlias = Callable[[Any], bool]


@dataclass(frozen=True)
class Exercise:
    """What a right answer to an exercise is, and a hint for who gave a wrong one."""

    right: Test
    hint: str


def verify(name: str, answer: Any) -> None:
    """Print whether an answer to an exercise is right, or else a hint.

    Args:
        name: chapter and number, such as "02.3".
        answer: what the exercise asks for: a number, the letter of a choice, a function, a picture; `...` for none
            yet. An answer that raises an error is wrong, and the error is told.

    Raises:
        ValueError: for an exercise that does not exist.

    Example:
        >>> lk.verify("02.1", ...)
        ○ 02.1: put your answer in the place of the dots
    """
    exercises = exercises_of(name.partition(".")[0])
    if name not in exercises:
        raise ValueError(f"there is no exercise {name!r}: there are {', '.join(exercises)}")
    if answer is ...:
        print(f"○ {name}: put your answer in the place of the dots")
        return
    error = ""
    try:
        right = exercises[name].right(answer)
    except Exception as raised:  # an answer that is a function may raise anything
        right, error = False, f" It raised {type(raised).__name__}: {raised}."
    print(f"✓ {name}: right" if right else f"✗ {name}: not yet.{error} Hint: {exercises[name].hint}")


def exercises_of(chapter: str) -> dict[str, Exercise]:
    """The exercises of a chapter, "00" to "14", by name.

    Raises:
        ValueError: for a chapter that has none.
    """
    module = f"{__package__}.answers.chapter_{chapter}"
    if importlib.util.find_spec(module) is None:
        raise ValueError(f"there are no exercises of chapter {chapter!r}: a name is like '02.3'")
    exercises = importlib.import_module(module).EXERCISES
    return {f"{chapter}.{number}": exercise for number, exercise in enumerate(exercises, 1)}


def close_to(expected: float, rtol: float = 0.01) -> Test:
    """A number within ``rtol`` of what is expected, relative, or absolute where 0 is."""

    def right(answer: Any) -> bool:
        if isinstance(answer, Tensor) and answer.numel() == 1:
            answer = answer.item()
        number = isinstance(answer, Real) and not isinstance(answer, bool)
        return number and math.isclose(answer, expected, rel_tol=rtol, abs_tol=0 if expected else rtol)

    return right


def choice(letter: str) -> Test:
    """The letter of the right one of several answers."""
    return lambda answer: isinstance(answer, str) and answer.strip().lower() == letter


def same_as(reference: Callable[..., Any], *cases: tuple[Any, ...], rtol: float = 1e-4) -> Test:
    """A function that returns what ``reference`` does (tensor, number) for each of the ``cases`` of arguments."""
    return lambda answer: all(_agree(answer(*case), reference(*case), rtol) for case in cases)


def is_picture(answer: Any, shape: Sequence[int] | None = None) -> bool:
    """Whether an answer is a picture: floats (N, 3, H, W), or of this ``shape``, in [0, 1]."""
    if not isinstance(answer, Tensor) or not answer.is_floating_point():
        return False
    right = answer.ndim == 4 and answer.shape[1] == 3 if shape is None else answer.shape == shape
    return right and bool(((answer >= 0) & (answer <= 1)).all())


def _agree(mine: Any, wanted: Any, rtol: float) -> bool:
    """Whether two tensors or numbers have one shape and the same values, up to ``rtol`` of the largest."""
    first, second = (torch.as_tensor(value, dtype=torch.float64) for value in (mine, wanted))
    allowed = rtol * max(second.abs().max().item(), 1e-12)
    return first.shape == second.shape and bool(((first - second).abs() <= allowed).all())
