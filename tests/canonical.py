"""The one canonical runner: it writes the outputs that are committed with the notebooks.

    python tests/canonical.py [NOTEBOOK ...]      # default: every notebook of the lab

Because one program writes all of them, in one environment, a second run changes no byte and a diff shows what really
changed. Every notebook is run on several machines, which environment variables play: the same network computed by
another processor's instructions. How far the outputs of a cell lie apart is the tolerance that is stored with it, as
tags, and a cell that no two machines agree on is refused: what it prints has to be claimed instead (`lk.check`).
"""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any

import nbformat
from agreement import ALIKE, PICTURE, TAG, Output, Tolerance, unlike
from jupyter_client import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellControlSignal, DeadKernelError
from nbformat import NotebookNode
from nbval.kernel import CURRENT_ENV_KERNEL_NAME, NbvalKernelspecManager
from nbval.plugin import coalesce_streams, get_sanitize_patterns

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
VARYING = get_sanitize_patterns((ROOT / "tests/sanitize.cfg").read_text(encoding="utf-8"))
TIMES = [(pattern, replacement) for pattern, replacement in VARYING if "VALUE" not in replacement]  # and no claims

# One thread, no GPU and full precision: sums are then taken in one order, and short computations agree everywhere.
ENVIRONMENT = {
    "LABKIT_PRECISION": "float32",
    "CUDA_VISIBLE_DEVICES": "",
    "OMP_NUM_THREADS": "1",
    "TQDM_DISABLE": "1",  # a progress bar is for whoever waits, not for whoever reads
}

# What is played by which variables. The first one's outputs are stored.
MACHINES: dict[str, dict[str, str]] = {
    "plain": {},
    "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "default"},
    "SSE4.1": {"ONEDNN_MAX_CPU_ISA": "SSE41"},
    "two threads": {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"},  # as in `make lab`
    "bfloat16": {"LABKIT_PRECISION": "bfloat16"},
    "GPU": {},
    "Apple's GPU": {},
}
# What the kernels of the last two run before the cells, with this folder among the places of their modules.
FIRST = {
    "GPU": "import elsewhere; elsewhere.Device().__enter__()",
    "Apple's GPU": "import elsewhere; elsewhere.Device(apple=True).__enter__()",
}
CLAIMS_ALONE = ("bfloat16", *FIRST)  # whose numbers, or names of devices, are others, but whose claims hold
ROOM = 3  # how many times the spread that was seen is allowed
TIMEOUT = 600  # seconds for one cell, so that a busy machine does not fail
LARGEST = 0.1  # the spread of numbers, and the tolerance of pictures, beyond which they are not compared

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
WIDGET = "application/vnd.jupyter.widget-view+json"  # points to a model by a random number, and the model is not kept
BADGE = re.compile(r"^\[!\[Open In Colab\].*$", re.MULTILINE)
SHIELD = "https://colab.research.google.com/assets/colab-badge.svg"
README_LINK = re.compile(r"https://colab\.research\.google\.com/github/\S+?/notebooks/")
INSTALL = re.compile(r"^    %pip install .*$", re.MULTILINE)


def kernel_environment(machine: str = "plain") -> dict[str, str]:
    """The environment of a kernel on a machine: this process's own, but without a choice of plotting backend."""
    own = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    if machine in FIRST:
        own["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT / "tests"), own.get("PYTHONPATH"))))
    return own | ENVIRONMENT | MACHINES[machine]


def refresh(path: Path, runs: Mapping[str, NotebookNode]) -> None:
    """Write a notebook with the outputs and tolerances of its ``runs``, by machine; whole or not at all.

    Raises ValueError, naming the cells, when the machines do not agree.
    """
    stored, fresh = nbformat.read(path, as_version=4), runs["plain"]
    others = {name: run for name, run in runs.items() if name not in ("plain", *CLAIMS_ALONE)}
    complaints = []
    for index, (cell, before) in enumerate(zip(fresh.cells, stored.cells, strict=True)):
        if cell.cell_type == "code":
            cell.outputs = list(in_order(cell.outputs))
            said, tolerance = compared(cell, {name: run.cells[index] for name, run in others.items()})
            complaints += [f"{cell_id(index)}: {one}" for one in said]
            kept = [tag for tag in cell.metadata.get("tags", []) if tag != ALIKE and not TAG.fullmatch(tag)]
            cell.metadata = {"tags": kept} if (kept := kept + tolerance.tags) else {}
            if settled(cell.outputs, TIMES) == settled(before.get("outputs"), TIMES):
                cell.outputs = before.outputs
    if complaints:
        raise ValueError("\n".join([f"{path.name}: the machines do not agree", *complaints]))
    clean(fresh)
    nbformat.validate(fresh)
    temporary = path.with_suffix(".partial")
    nbformat.write(fresh, temporary)
    temporary.replace(path)


def compared(cell: NotebookNode, others: Mapping[str, NotebookNode]) -> tuple[list[str], Tolerance]:
    """What the machines do not agree on in a cell, in sentences, and the tolerance that allows for the rest."""
    complaints, largest_number, largest_picture, alike = [], 0.0, 0.0, False
    if "nbval-ignore-output" in cell.metadata.get("tags", []):
        return [], Tolerance()
    mine = shown(cell.outputs)
    for machine, other in others.items():
        theirs = shown(list(in_order(other.outputs)))
        if [kind for kind, _ in mine] != [kind for kind, _ in theirs]:
            complaints.append(f"on {machine} other kinds of output")
            continue
        for (_, first), (_, second) in zip(mine, theirs, strict=True):
            number, picture = first.spread(second)
            if number > LARGEST:
                complaints.append(f"on {machine} {first.farthest(second)}")
            elif ROOM * picture > LARGEST:
                alike = True
                complaints += [f"on {machine} {said}" for said in map(unlike, first.pictures, second.pictures) if said]
            largest_number, largest_picture = max(largest_number, number), max(largest_picture, picture)
    if complaints:
        return complaints, Tolerance()
    usual = Tolerance()
    rms = None if alike else max(usual.rms, rounded_up(ROOM * largest_picture))
    return complaints, Tolerance(max(usual.rtol, rounded_up(ROOM * largest_number)), rms)


def shown(outputs: Iterable[NotebookNode]) -> list[tuple[str, Output]]:
    """What nbval compares of a cell's outputs: (kind, output)."""
    found = []
    for output in outputs:
        kinds = {"stream": {output.get("name"): output.get("text")}, "error": {"evalue": output.get("evalue")}}
        for kind, text in kinds.get(output.output_type, output.get("data", {})).items():
            if isinstance(text, str):
                found.append((kind, Output.read(text, settled(PICTURE.sub("<picture>", text)))))
    return found


def rounded_up(value: float) -> float:
    """To two digits, upwards: a tag should be short and not change with every run."""
    if value == 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / unit) * unit:.2g}")


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
    install = f'    %pip install -q --no-deps "deepdream-lab @ git+{repository()}"'

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


def execute(path: Path, machine: str = "plain") -> NotebookNode:
    """A notebook with the address written and every cell run, in its folder, with the Python that runs this program.

    Raises ValueError when the notebook lacks the places for the public address, RuntimeError when a cell fails.
    """
    notebook, environment = address(nbformat.read(path, as_version=4), path.name), kernel_environment(machine)
    first = FIRST.get(machine)
    client = NotebookClient(
        notebook,
        # The kernel that nbval starts as well: a "python3" of the user's own could be another Python.
        km=AsyncKernelManager(kernel_name=CURRENT_ENV_KERNEL_NAME, kernel_spec_manager=NbvalKernelspecManager()),
        extra_arguments=["--log-level=ERROR", *([f"--IPKernelApp.exec_lines={first}"] if first else [])],
        timeout=TIMEOUT,
        record_timing=False,
        resources={"metadata": {"path": str(path.parent)}},
    )
    with client.setup_kernel(cleanup_kc=True, env=environment):
        for index, cell in enumerate(notebook.cells):
            try:
                client.execute_cell(cell, index)
            except (CellControlSignal, DeadKernelError) as error:
                raise RuntimeError(f"{path.name}, {cell_id(index)}, {machine}: {error}") from error
    return notebook


def cell_id(index: int) -> str:
    """The name of a cell in the file and in every message about it."""
    return f"cell-{index:02d}"


def in_order(outputs: Iterable[NotebookNode]) -> Iterator[NotebookNode]:
    """Join printed text: in how many pieces it arrives, and stdout or stderr first, depends on the machine's speed."""
    for printed, run in groupby(outputs, key=lambda output: output.output_type == "stream"):
        pieces = list(run)
        yield from sorted(coalesce_streams(pieces), key=lambda out: out.name, reverse=True) if printed else pieces


def settled(value: Any, patterns: Iterable[tuple[str, str]] = VARYING) -> Any:
    """Outputs without what differs from machine to machine, or (`TIMES`) from run to run.

    Those that differ in times alone keep their stored text, so that a file is stable.
    """
    match value:
        case str():
            for pattern, replacement in patterns:
                value = re.sub(pattern, replacement, value)
        case list():
            return [settled(item, patterns) for item in value]
        case dict():
            return {key: settled(item, patterns) for key, item in value.items()}
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
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="kernels at a time (default: one a core)")
    options = parser.parse_args(arguments)
    failed = False
    readme = ROOT / "README.md"
    readme.write_text(address_readme(readme.read_text(encoding="utf-8")), encoding="utf-8")
    with ThreadPoolExecutor(options.jobs) as pool:
        running = {
            path: {machine: pool.submit(execute, path, machine) for machine in MACHINES if machine not in FIRST}
            for path in options.notebooks or sorted(NOTEBOOKS.glob("*.ipynb"))
        }
        for path, runs in running.items():
            try:
                refresh(path, {machine: run.result() for machine, run in runs.items()})
            except (RuntimeError, ValueError) as error:
                print(f"FAILED {error}", file=sys.stderr, flush=True)
                failed = True
            else:
                print(f"{path.name}: {path.stat().st_size / 1024:.0f} KB", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
