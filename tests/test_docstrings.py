"""Docstrings: every public thing has one, names arguments that exist, and its examples run."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch

import labkit as lk

NAMES = [name for _, name, package in pkgutil.walk_packages(lk.__path__, "labkit.") if not package and "__" not in name]
LEAST_EXAMPLES = 30


def public(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Public functions, classes and methods that a module defines, by name."""
    for name, thing in vars(module).items():
        if name.startswith("_") or getattr(thing, "__module__", None) != module.__name__:
            continue
        if inspect.isclass(thing):
            yield name, thing
            for part, method in vars(thing).items():
                if not part.startswith("_") and (inspect.isfunction(method) or isinstance(method, property)):
                    yield f"{name}.{part}", method
        elif inspect.isfunction(thing):
            yield name, thing


def inherited(name: str, module: ModuleType) -> bool:
    """Whether a method is described elsewhere: by a base class, by what a protocol stands for, as torch's `forward`."""
    name, _, method = name.partition(".")
    owner = getattr(module, name)
    described = any(hasattr(base, method) for base in inspect.getmro(owner)[1:]) if method else False
    return described or method == "forward" or getattr(owner, "_is_protocol", False)


def arguments(thing: Any) -> set[str]:
    """The names under "Args:" of a docstring."""
    section = re.search(r"^Args:\n((?:    .*\n|\n)*)", (inspect.getdoc(thing) or "") + "\n", re.MULTILINE)
    lines = re.findall(r"^    (\w+(?:, \w+)*):", section[1], re.MULTILINE) if section else []
    return {name for line in lines for name in line.split(", ")}


@pytest.mark.parametrize("name", NAMES)
def test_what_is_public_is_described(name: str) -> None:
    module = importlib.import_module(name)
    things = list(public(module))
    assert module.__doc__
    assert not [thing for thing, it in things if not it.__doc__ and not inherited(thing, module)]
    for thing, it in things:
        if arguments(it):
            unknown = arguments(it) - inspect.signature(it).parameters.keys()
            assert not unknown, f"{thing} has no arguments {unknown}"


def test_the_examples_of_docstrings_hold() -> None:
    finder, runner = doctest.DocTestFinder(exclude_empty=True), doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for name in NAMES:
        for example in finder.find(importlib.import_module(name), extraglobs={"lk": lk, "torch": torch}):
            runner.run(example)
    assert runner.failures == 0, "see the output above"
    assert runner.tries >= LEAST_EXAMPLES
