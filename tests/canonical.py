"""The one canonical runner: it writes the outputs that are committed with the notebooks.

    python tests/canonical.py [NOTEBOOK ...]      # default: every notebook of the lab

Because one program writes all of them, in one environment, a second run changes no byte, a diff shows what really
changed, and the numbers agree with those that nbval finds on another machine.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
import tomllib
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellControlSignal, DeadKernelError
from nbformat import NotebookNode
from nbval.kernel import CURRENT_ENV_KERNEL_NAME, NbvalKernelspecManager
from nbval.plugin import coalesce_streams, get_sanitize_patterns

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
VARYING = get_sanitize_patterns((ROOT / "tests/sanitize.cfg").read_text(encoding="utf-8"))

# One thread, no GPU and full precision: sums are then taken in one order, and numbers agree between machines.
ENVIRONMENT = {
    "LABKIT_PRECISION": "float32",
    "CUDA_VISIBLE_DEVICES": "",
    "OMP_NUM_THREADS": "1",
    "TQDM_DISABLE": "1",  # a progress bar is for whoever waits, not for whoever reads
}

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
WIDGET = "application/vnd.jupyter.widget-view+json"  # points to a model by a random number, and the model is not kept
BADGE = re.compile(r"^\[!\[Open In Colab\].*$", re.MULTILINE)
SHIELD = "https://colab.research.google.com/assets/colab-badge.svg"
README_LINK = re.compile(r"https://colab\.research\.google\.com/github/\S+?/notebooks/")
INSTALL = re.compile(r"^    %pip install .*$", re.MULTILINE)


def kernel_environment() -> dict[str, str]:
    """The environment of a canonical kernel: this process's own, but without a choice of plotting backend."""
    return {name: value for name, value in os.environ.items() if name != "MPLBACKEND"} | ENVIRONMENT


def refresh(path: Path) -> None:
    """Run one notebook and write it back, whole or not at all.

    Raises ValueError when the notebook lacks the places for the public address, RuntimeError when a cell fails.
    """
    stored = nbformat.read(path, as_version=4)
    fresh = address(nbformat.read(path, as_version=4), path.name)
    execute(fresh, path)
    for cell, before in zip(fresh.cells, stored.cells, strict=True):
        if cell.cell_type == "code":
            cell.outputs = list(in_order(cell.outputs))
            if settled(cell.outputs) == settled(before.get("outputs")):
                cell.outputs = before.outputs
    clean(fresh)
    nbformat.validate(fresh)
    temporary = path.with_suffix(".partial")
    nbformat.write(fresh, temporary)
    temporary.replace(path)


def repository() -> str:
    """The one public address of the project."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["urls"]["Repository"].removesuffix("/")


def colab() -> str:
    """Where Colab opens the notebooks: this and a notebook's file name."""
    return f"{repository().replace('github.com', 'colab.research.google.com/github')}/blob/main/notebooks/"


def address_readme(text: str) -> str:
    """The README with its Colab badges leading to the public address."""
    return README_LINK.sub(colab(), text)


def address(notebook: NotebookNode, name: str) -> NotebookNode:
    """Write the Colab badge and the install line, in place, from the one public address in pyproject.toml."""
    badge = f"[![Open In Colab]({SHIELD})]({colab()}{name})"
    install = f'    %pip install -q --no-deps "labkit @ git+{repository()}"'

    title = notebook.cells[0]
    if title.cell_type != "markdown" or not title.source.startswith("# "):
        raise ValueError(f"{name}: the first cell must be markdown and start with the title, '# ...'")
    if not BADGE.search(title.source):
        heading, _, rest = title.source.partition("\n")
        title.source = f"{heading}\n\n{badge}\n{rest}".rstrip()
    title.source = BADGE.sub(badge, title.source)

    setup = next((cell for cell in notebook.cells if cell.cell_type == "code"), None)
    if setup is None or not INSTALL.search(setup.source):
        raise ValueError(f"{name}: the first code cell needs an indented '%pip install ...' line for Colab")
    setup.source = INSTALL.sub(install, setup.source)
    return notebook


def execute(notebook: NotebookNode, path: Path) -> None:
    """Run every cell in the folder of the notebook, with the Python that runs this program."""
    client = NotebookClient(
        notebook,
        # The kernel that nbval starts as well: a "python3" of the user's own could be another Python.
        km=AsyncKernelManager(kernel_name=CURRENT_ENV_KERNEL_NAME, kernel_spec_manager=NbvalKernelspecManager()),
        extra_arguments=["--log-level=ERROR"],
        timeout=600,
        record_timing=False,
        resources={"metadata": {"path": str(path.parent)}},
    )
    with client.setup_kernel(cleanup_kc=True, env=kernel_environment()):
        for index, cell in enumerate(notebook.cells):
            try:
                client.execute_cell(cell, index)
            except (CellControlSignal, DeadKernelError) as error:
                raise RuntimeError(f"{path.name}, {cell_id(index)}: {error}") from error


def cell_id(index: int) -> str:
    """The name of a cell in the file and in every message about it."""
    return f"cell-{index:02d}"


def in_order(outputs: Iterable[NotebookNode]) -> Iterator[NotebookNode]:
    """Join printed text: in how many pieces it arrives, and stdout or stderr first, depends on the machine's speed."""
    for printed, run in groupby(outputs, key=lambda output: output.output_type == "stream"):
        pieces = list(run)
        yield from sorted(coalesce_streams(pieces), key=lambda out: out.name, reverse=True) if printed else pieces


def settled(value: Any) -> Any:
    """Outputs without what differs from run to run: equal ones keep their stored text, so that a file is stable."""
    match value:
        case str():
            for pattern, replacement in VARYING:
                value = re.sub(pattern, replacement, value)
        case list():
            return [settled(item) for item in value]
        case dict():
            return {key: settled(item) for key, item in value.items()}
    return value


def clean(notebook: NotebookNode) -> NotebookNode:
    """Drop, in place, what no reader sees and what would differ between two runs or two editors."""
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.metadata = nbformat.from_dict(METADATA)
    for index, cell in enumerate(notebook.cells):
        cell.id = cell_id(index)
        cell.metadata = NotebookNode({key: value for key, value in cell.metadata.items() if key == "tags"})
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(WIDGET, None)
    return notebook


def main(arguments: list[str] | None = None) -> int:
    """Refresh the notebooks; 1 when one of them could not be, and the others are done all the same."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("notebooks", nargs="*", type=Path, metavar="NOTEBOOK", help="default: all of notebooks/")
    failed = False
    readme = ROOT / "README.md"
    readme.write_text(address_readme(readme.read_text(encoding="utf-8")), encoding="utf-8")
    for path in parser.parse_args(arguments).notebooks or sorted(NOTEBOOKS.glob("*.ipynb")):
        start = time.perf_counter()
        try:
            refresh(path)
        except (RuntimeError, ValueError) as error:
            print(f"FAILED {error}", file=sys.stderr)
            failed = True
        else:
            print(f"{path.name}: {time.perf_counter() - start:.1f} s, {path.stat().st_size / 1024:.0f} KB")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
