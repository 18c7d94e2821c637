"""Do the notebooks hold on every machine? Run all of them as nbval does, on each machine that can be played.

    python tests/machines.py [--machines NAME ...] [NOTEBOOK ...]

Prints a table, notebook by machine: passed, or the cells that failed. Exit status 1 unless all passed.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import nbformat
from canonical import CLAIMS_ALONE, MACHINES, NOTEBOOKS, ROOT, TIMEOUT, cell_id

VERDICT = re.compile(r"^(PASSED|FAILED|ERROR) \S*?(\w+)\.ipynb(?:::Cell (\d+))?", re.MULTILINE)


def judge(machine: str, notebooks: Sequence[Path], jobs: int) -> tuple[dict[str, list[int] | None], str]:
    """By notebook, which of its code cells failed on a machine (None: it was not run), and all that pytest said."""
    kind = "--nbval-lax" if machine in CLAIMS_ALONE else "--nbval"
    command = [
        sys.executable,
        "-m",
        "pytest",
        *(path.name for path in notebooks),
        kind,
        "--nbval-current-env",
        "-rA",
        "--tb=short",
    ]
    command += ["--nbval-sanitize-with", str(ROOT / "tests/sanitize.cfg"), "--nbval-cell-timeout", str(TIMEOUT)]
    command += ["-p", "conftest", "-p", "no:cacheprovider", "--rootdir=.", "-n", str(jobs), "--dist=loadfile"]
    environment = {"LABKIT_MACHINE": machine, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    # From their own folder, since nbval names a notebook by its path below the root.
    run = subprocess.run(
        command, cwd=notebooks[0].parent, env=os.environ | environment, check=False, capture_output=True, text=True
    )
    said = run.stdout + run.stderr
    found: dict[str, list[int] | None] = {path.stem: None for path in notebooks}
    for verdict, stem, cell in VERDICT.findall(said):
        if stem in found:
            found[stem] = (found[stem] or []) + ([] if verdict == "PASSED" else [int(cell or 0)])
    return found, said


def cells_of_code(path: Path) -> list[str]:
    """The names of the code cells, which nbval counts by themselves."""
    cells = nbformat.read(path, as_version=4).cells
    return [cell_id(index) for index, cell in enumerate(cells) if cell.cell_type == "code"]


def table(notebooks: Sequence[Path], verdicts: dict[str, dict[str, list[int] | None]]) -> list[list[str]]:
    """Rows of text: the heads, then a notebook each."""
    rows = [["", *verdicts]]
    for path in notebooks:
        names, row = cells_of_code(path), [path.stem]
        for found in verdicts.values():
            cells = found[path.stem]
            row.append("not run" if cells is None else ", ".join(names[cell] for cell in cells) or "passed")
        rows.append(row)
    return rows


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("notebooks", nargs="*", type=Path, metavar="NOTEBOOK", help="default: all of notebooks/")
    parser.add_argument("--machines", nargs="+", choices=MACHINES, default=list(MACHINES), help="default: all")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="kernels at a time (default: one a core)")
    options = parser.parse_args(arguments)
    notebooks = options.notebooks or sorted(NOTEBOOKS.glob("*.ipynb"))
    verdicts = {}
    for machine in options.machines:
        verdicts[machine], said = judge(machine, notebooks, options.jobs)
        bad = [stem for stem, cells in verdicts[machine].items() if cells is None or cells]
        print(f"{machine}: {', '.join(bad) if bad else 'all passed'}", file=sys.stderr, flush=True)
        if bad:
            print(said, file=sys.stderr)
    rows = table(notebooks, verdicts)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    return int(any(cells is None or cells for found in verdicts.values() for cells in found.values()))


if __name__ == "__main__":
    sys.exit(main())
