"""Wrong packages that the chapters must notice: each mutant is labkit with one line changed (`mutants.toml`), and the
chapter that teaches this line is run with it. One that runs to its end teaches nothing about the line.

    python tests/mutants.py                    all chapters: some hours on two cores
    python tests/mutants.py 02 03 --only gram  those of two chapters whose text has "gram"
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from canonical import NOTEBOOKS, ROOT, execute


class Mutant(NamedTuple):
    """``old``, which stands once in a module of labkit, becomes ``new``."""

    module: str
    old: str
    new: str


LISTS = tomllib.loads((ROOT / "tests/mutants.toml").read_text(encoding="utf-8"))
MUTANTS = {chapter: [Mutant(**change) for change in changes] for chapter, changes in LISTS.items()}


def mutated(mutant: Mutant, folder: Path) -> None:
    """A copy of labkit, with its data, in ``folder``, and the one line changed."""
    shutil.copytree(ROOT / "labkit", folder / "labkit", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "data").symlink_to(ROOT / "data")
    path = folder / "labkit" / mutant.module
    text = path.read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.old!r} stands {text.count(mutant.old)} times in {mutant.module}, not once")
    path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")


def caught(chapter: str, mutant: Mutant) -> str:
    """How a chapter fails that is run with a mutant, in a line; empty if it does not."""
    (path,) = NOTEBOOKS.glob(f"{chapter}_*.ipynb")
    with tempfile.TemporaryDirectory() as folder:
        mutated(mutant, Path(folder))
        with patch.dict(os.environ, {"PYTHONPATH": folder}):
            try:
                execute(path)
            except RuntimeError as error:
                lines = [line for line in str(error).splitlines() if line.strip()]
                return f"{lines[0].split(',')[1].strip()}: {lines[-1]}"
    return ""


def main(arguments: list[str] | None = None) -> int:
    """Run chapters with their mutants; 1 if one of these survives."""
    parser = argparse.ArgumentParser(description="Run chapters with one line of labkit changed.")
    parser.add_argument("chapters", nargs="*", metavar="CHAPTER", help=f"default: {' '.join(MUTANTS)}")
    parser.add_argument("--only", default="", help="those in whose module, old or new text this stands")
    options = parser.parse_args(arguments)
    survivors = 0
    for chapter in options.chapters or MUTANTS:
        for mutant in MUTANTS[chapter]:
            if options.only not in " ".join(mutant):
                continue
            started = time.perf_counter()
            said = caught(chapter, mutant)
            survivors += not said
            print(f"{chapter} {'caught  ' if said else 'SURVIVES'} {mutant.module}: {mutant.new!r}", flush=True)
            print(f"   {said[:150]} ({time.perf_counter() - started:.0f} s)", flush=True)
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main())
