"""The model of docs/scaling.md: its limits are known, and its bytes are those that the engine has."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest
from test_zoo import network
from torch.utils._pytree import tree_leaves

import labkit as lk


@pytest.fixture(scope="module")
def scaling() -> ModuleType:
    path = Path(__file__).parent.parent / "benchmarks/scaling.py"
    spec = importlib.util.spec_from_file_location("scaling", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["scaling"] = module  # where dataclasses look
    spec.loader.exec_module(module)
    return module


def test_a_ring_sends_a_message_twice_and_a_tree_answers_in_logarithmic_time(scaling: ModuleType) -> None:
    fast, slow = scaling.Machine(1, 1, 1e9, 0), scaling.Machine(1, 1, math.inf, 1e-5)
    assert scaling.all_reduce(1e9, 1, fast) == 0
    for count in (2, 8, 512):
        assert scaling.all_reduce(1e9, count, fast) == pytest.approx(2 * (count - 1) / count)
        assert scaling.all_reduce(4, count, slow) == pytest.approx(2e-5 * math.log2(count))


@pytest.mark.parametrize(("size", "tile"), [((200, 300), 64), ((256, 256), 128)])
def test_processes_read_what_one_reads(scaling: ModuleType, size: tuple[int, int], tile: int) -> None:
    backbone, layers = network("pocket"), ["relu1_1", "relu3_1"]
    alone, shared = (scaling.pixels_read(backbone, layers, size, tile, count) for count in (1, 3))
    seams = [math.ceil(length / tile) - 1 for length in size]  # at each, 12 pixels before and 10 behind are read twice
    assert alone == math.prod(length + 22 * count for length, count in zip(size, seams, strict=True))
    assert alone / 3 <= shared <= alone


def test_the_bytes_of_the_statistics_are_the_engines(scaling: ModuleType) -> None:
    backbone, layers = network("pocket"), ["relu1_1", "relu3_1"]
    evaluate = lk.Evaluator(backbone, lk.style(lk.painting("koi_mosaic", 64), layers), (64, 64), "float32")
    found = evaluate.statistics(evaluate.loss, lk.photo("chelsea", (64, 64)))
    assert scaling.statistics_bytes(backbone, layers) == sum(leaf.nbytes for leaf in tree_leaves(found))


def test_parts_send_less_than_pictures(scaling: ModuleType) -> None:
    machine = scaling.Machine(1e-9, 2e-9, 5e10, 1e-5, 5e12)
    backbone, layers = network("pocket"), ["relu1_1", "relu3_1"]
    ways = (1, False), (8, False), (8, True)
    alone, whole, parts = (scaling.step(machine, backbone, layers, 4096, *way) for way in ways)
    assert alone.gradient == alone.statistics == 0
    assert parts.gradient < whole.gradient / 10 and parts.tiles == whole.tiles < alone.tiles / 7
