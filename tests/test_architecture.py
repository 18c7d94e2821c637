"""The rooms of labkit: each imports only from those above it, and no name leads to two things."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import labkit as lk

PACKAGE = Path(lk.__file__).parent
ROOMS = ["base", "pictures", "networks", "losses", "engine", "recipes", "outlook", "notebook", "cli"]  # from above
DOCUMENT = PACKAGE.parent / "docs" / "architecture.md"


def imports(text: str, module: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The modules of labkit that a module imports by ``from . import``: ("losses", "algebra"), ..."""
    tree = ast.parse(text)
    typing_only = {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for line in range(node.lineno, node.end_lineno + 1)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level and node.lineno not in typing_only:
            start = module[: len(module) - node.level]
            found = (*start, *(node.module.split(".") if node.module else ()))
            yield from [found] if len(found) > 1 else [(*found, alias.name) for alias in node.names]


def modules() -> dict[tuple[str, ...], str]:
    return {
        path.relative_to(PACKAGE).with_suffix("").parts: path.read_text(encoding="utf-8")
        for path in PACKAGE.rglob("*.py")
        if path.parent != PACKAGE and path.stem != "__init__"
    }


def wrong_imports(found: dict[tuple[str, ...], str]) -> list[str]:
    return [
        f"{'.'.join(module)} imports {'.'.join(other)}"
        for module, text in found.items()
        for other in imports(text, module)
        if other[0] in ROOMS and ROOMS.index(other[0]) > ROOMS.index(module[0])
    ]


def test_rooms_import_only_from_those_above() -> None:
    assert {module[0] for module in modules()} == set(ROOMS)
    assert wrong_imports(modules()) == []


def test_an_import_from_below_is_found() -> None:
    below = {("losses", "new"): "from ..engine.evaluator import Evaluator"}
    assert wrong_imports(below) == ["losses.new imports engine.evaluator"]


def test_no_import_is_a_cycle() -> None:
    found = modules()
    graph = {module: {other for other in imports(text, module) if other in found} for module, text in found.items()}
    assert len(list(TopologicalSorter(graph).static_order())) == len(found)  # raises CycleError, naming it


def test_no_module_has_the_name_of_a_public_function_or_class() -> None:
    stems = {module[-1] for module in modules()} | set(ROOMS)
    assert not stems & {name for name in lk.__all__ if not inspect.ismodule(getattr(lk, name))}


def test_what_is_public_is_listed_once_and_is_all_that_is_seen() -> None:
    assert sorted(set(lk.__all__)) == sorted(lk.__all__)
    assert {name for name in dir(lk) if not name.startswith("_")} == set(lk.__all__)


@pytest.mark.parametrize("room", ROOMS)
def test_the_document_has_the_room_and_its_modules(room: str) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert f"`{room}`" in text
    missing = [module[1] for module in modules() if module[0] == room and f"`{module[1]}`" not in text]
    assert not missing, f"docs/architecture.md does not name {missing}"


def test_the_documents_own_loss_works_whole_and_in_tiles() -> None:
    """It is what a stranger writes first: copied from the page."""
    code = next(block for block in DOCUMENT.read_text(encoding="utf-8").split("```python\n")[1:] if "bind" in block)
    names = {"lk": lk}
    exec(code.partition("```")[0], names)
    photo, backbone = lk.photo("chelsea", 160), lk.load_backbone("pocket", "cpu")
    loss = names["brightness"]() - lk.activation("relu2_1")
    whole, cut = (lk.Evaluator(backbone, loss, photo.shape[-2:], "float32", tile=tile)(photo) for tile in (None, 64))
    assert whole.terms["brightness"].item() == pytest.approx(photo.mean().item(), rel=1e-5)
    assert (whole.gradient - cut.gradient).norm() < 1e-5 * whole.gradient.norm()
