"""nbval, strict where it is lax and lax where it is strict.

Outputs are compared as `agreement` says. Kernels run in the environment in which the stored outputs were written, or,
with LABKIT_MACHINE, in another one (see `canonical.MACHINES`). The third hole of nbval, that it accepts a notebook
without outputs, is closed by test_notebooks.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from agreement import PICTURE, Output
from canonical import FIRST, kernel_environment
from nbval.plugin import IPyNbCell, IPyNbFile


class Cell(IPyNbCell):
    def sanitize(self, value: Any) -> Any:
        """Replace what may vary in text, but not inside a picture, where base64 can look like a time or an address."""
        if not isinstance(value, str):
            return value
        text = "<picture>".join(super(Cell, self).sanitize(text) for text in PICTURE.split(value))
        return Output.read(value, text, self.cell.metadata.get("tags", []))

    def format_output_compare(self, key: str, left: Any, right: Any) -> None:
        """Name the number or the picture before nbval's own report."""
        if isinstance(left, Output):
            self.comparison_traceback.append(f"{key}: {left.difference(right)}")
        super().format_output_compare(key, left, right)


class Notebook(IPyNbFile):
    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self.skip_compare = set(self.skip_compare) - {"image/png", "image/jpeg"}  # pictures are compared, too

    def setup(self) -> None:
        """Start the kernel."""
        machine = os.environ.get("LABKIT_MACHINE", "plain")
        with patch.dict(os.environ, kernel_environment(machine), clear=True):
            super().setup()
        if machine in FIRST:
            self.kernel.await_reply(self.kernel.execute_cell_input(FIRST[machine], allow_stdin=False))

    def collect(self) -> Iterator[Cell]:
        for cell in super().collect():
            yield Cell.from_parent(self, name=cell.name, cell_num=cell.cell_num, cell=cell.cell, options=cell.options)


class OurNotebooks:
    """A plugin, since a conftest's own hook would not see the notebooks, which lie in another folder."""

    @pytest.hookimpl(wrapper=True)
    def pytest_collect_file(self, file_path: Path, parent: pytest.Collector) -> Iterator[None]:
        found = yield
        return [Notebook.from_parent(parent, path=file_path) if type(each) is IPyNbFile else each for each in found]


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(OurNotebooks())


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Tiny networks are many times faster, and their sums reproducible, on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Share out files, as ``--dist loadfile`` does, but the notebooks that run on another device one by one."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return nodeid if "test_elsewhere.py::test_a_notebook" in nodeid else super()._split_scope(nodeid)

    return Scheduling(config, log) if config.getvalue("dist") == "loadfile" else None
