"""The list of wrong packages stays true to labkit: each mutant changes one line that is there."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from mutants import MUTANTS, mutated


@pytest.mark.parametrize("chapter", MUTANTS)
def test_every_mutant_is_another_package_that_can_be_read(chapter: str, tmp_path: Path) -> None:
    assert len(MUTANTS[chapter]) >= 20
    for number, mutant in enumerate(MUTANTS[chapter]):
        folder = tmp_path / str(number)
        folder.mkdir()
        mutated(mutant, folder)
        ast.parse((folder / "labkit" / mutant.module).read_text(encoding="utf-8"))
        assert mutant.old != mutant.new
