"""nbval, strict where it is lax and lax where it is strict; its version is pinned, because its methods are replaced.

Outputs are compared as `agreement` says. Kernels run in the environment in which the stored outputs were written, or,
with LABKIT_MACHINE, in another one (see `canonical.MACHINES`). The third hole of nbval, that it accepts a notebook
without outputs, is closed by test_notebooks.py.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from typing import Any

import nbval.kernel
import pytest
import torch
from agreement import PICTURE, Output
from canonical import kernel_environment
from nbval.plugin import IPyNbCell

nbval_sanitize, nbval_compare, nbval_explain = (
    IPyNbCell.sanitize,
    IPyNbCell.compare_outputs,
    IPyNbCell.format_output_compare,
)


def sanitize(cell: IPyNbCell, value: Any) -> Any:
    """Replace what may vary in the text, but not inside a picture, where base64 can look like a time or an address."""
    if not isinstance(value, str):
        return value
    text = "<picture>".join(nbval_sanitize(cell, text) for text in PICTURE.split(value))
    return Output.read(value, text, cell.cell.metadata.get("tags", []))


def compare(cell: IPyNbCell, test: list, reference: list, skip_compare: None = None) -> bool:
    """Compare pictures too, which nbval skips."""
    skip = set(cell.parent.skip_compare) - {"image/png", "image/jpeg"}
    return nbval_compare(cell, test, reference, skip)


def explain(cell: IPyNbCell, key: str, reference: Any, test: Any) -> None:
    """Name the number or the picture before nbval's own report."""
    if isinstance(reference, Output):
        cell.comparison_traceback.append(f"{key}: {reference.difference(test)}")
    nbval_explain(cell, key, reference, test)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Tiny networks are many times faster, and their sums reproducible, on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


IPyNbCell.sanitize, IPyNbCell.compare_outputs, IPyNbCell.format_output_compare = sanitize, compare, explain
nbval.kernel.start_new_kernel = functools.partial(
    nbval.kernel.start_new_kernel, env=kernel_environment(os.environ.get("LABKIT_MACHINE", "plain"))
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Share out files, as ``--dist loadfile`` does, but the notebooks that run on another device one by one."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return nodeid if "test_elsewhere.py::test_a_notebook" in nodeid else super()._split_scope(nodeid)

    return Scheduling(config, log) if config.getvalue("dist") == "loadfile" else None
