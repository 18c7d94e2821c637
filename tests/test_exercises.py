"""Exercises: a right answer is right, a wrong one gets a hint, and every solution in a notebook is a right answer."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch
from IPython.core.inputtransformer2 import TransformerManager

import labkit as lk
from labkit.notebook import answers
from labkit.notebook.exercises import choice, close_to, exercises_of, is_picture, same_as

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
CHAPTERS = sorted(path.stem.removeprefix("chapter_") for path in Path(answers.__path__[0]).glob("chapter_*.py"))
SOLUTION = re.compile(r"<details>\s*<summary>Solution (\d\d\.\d+)</summary>\s*```python\n(.*?)```", re.DOTALL)
STARTER = re.compile(r'^lk\.verify\("(\d\d\.\d+)", answer\)$', re.MULTILINE)
WRONG: list[Any] = [
    *(None, True, -1.0, 0, 1e9, float("nan"), "", "z", [], {}, torch.zeros(1), torch.full((1, 3, 64, 64), 0.5)),
    *(lambda *a, **k: None, lambda *a, **k: 0.0, lambda *a, **k: a[0], "a" * 99),
]


def notebook(chapter: str) -> nbformat.NotebookNode:
    (path,) = NOTEBOOKS.glob(f"{chapter}_*.ipynb")
    return nbformat.read(path, as_version=4)


def solutions(chapter: str) -> dict[str, str]:
    """The code of each folded solution, by exercise."""
    cells = [cell.source for cell in notebook(chapter).cells if cell.cell_type == "markdown"]
    return {name: code for cell in cells for name, code in SOLUTION.findall(cell)}


@pytest.mark.parametrize(
    ("right", "good", "bad"),
    [
        (close_to(92), [92, 92.5, torch.tensor(92)], [91, 93, True, "92", None, float("nan")]),
        (close_to(0), [0, 0.009], [0.02, False]),
        (choice("b"), ["b", " B "], ["a", "bb", 2, None]),
        (same_as(lambda x: 2 * x, (torch.ones(3),), (-1.0,)), [lambda x: x + x], [lambda x: 2 + x, lambda x: x * x]),
        (
            is_picture,
            [torch.rand(1, 3, 8, 9), torch.zeros(2, 3, 4, 4)],
            [
                None,
                torch.rand(3, 8, 9),
                torch.ones(1, 3, 8, 9).int(),
                torch.full((1, 3, 8, 9), float("nan")),
                -torch.ones(1, 3, 2, 2),
            ],
        ),
        (partial(is_picture, shape=(1, 3, 4, 5)), [torch.rand(1, 3, 4, 5)], [torch.rand(1, 3, 5, 4), 0.5]),
        (same_as(torch.sum, (torch.ones(3),)), [lambda x: x.sum()], [lambda x: x.sum().expand(2), lambda x: x]),
    ],
)
def test_what_is_right(right, good: list[Any], bad: list[Any]) -> None:
    assert all(right(answer) for answer in good)
    assert not any(right(answer) for answer in bad)


def test_an_answer_gets_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    (chapter,) = CHAPTERS[:1]
    first = next(iter(exercises_of(chapter)))
    lk.verify(first, ...)
    lk.verify(first, lambda *_: 1 / 0)
    empty, wrong = capsys.readouterr().out.splitlines()
    assert empty == f"○ {first}: put your answer in the place of the dots"
    assert wrong.startswith(f"✗ {first}: not yet.") and exercises_of(chapter)[first].hint in wrong


def test_an_exercise_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match=r"there is no exercise '02.99': there are 02.1, 02.2"):
        lk.verify("02.99", 1)
    with pytest.raises(ValueError, match=r"there are no exercises of chapter 'two'"):
        lk.verify("two", 1)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_exercise_has_a_starter_and_a_solution(chapter: str) -> None:
    code = [cell.source for cell in notebook(chapter).cells if cell.cell_type == "code"]
    starters = [name for source in code for name in STARTER.findall(source)]
    assert starters == list(solutions(chapter)) == list(exercises_of(chapter))
    assert 4 <= len(starters) <= 6


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_wrong_answer_gets_a_hint(chapter: str, capsys: pytest.CaptureFixture) -> None:
    for name in exercises_of(chapter):
        for answer in WRONG:
            lk.verify(name, answer)
            assert capsys.readouterr().out.startswith(f"✗ {name}"), (name, answer)


@pytest.mark.slow
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_solution_runs_and_is_right(chapter: str, capsys: pytest.CaptureFixture) -> None:
    """It needs what the set-up cell gives and what the exercise's own cell gives, and nothing else."""
    book = notebook(chapter)
    code = [TransformerManager().transform_cell(cell.source) for cell in book.cells if cell.cell_type == "code"]
    starters = {name: source for source in code for name in STARTER.findall(source)}
    for name, solution in solutions(chapter).items():
        names: dict[str, Any] = {}
        for source in (code[0], starters[name], solution):
            exec(source, names)  # noqa: S102: written by us
        capsys.readouterr()
        lk.verify(name, names["answer"])
        assert capsys.readouterr().out == f"✓ {name}: right\n"
