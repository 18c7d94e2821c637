"""The benchmark's instruments: what is counted and timed, on programs whose numbers are known."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

import labkit as lk

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))
import bench
import cases
import field
import networks
import report


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_the_stopwatch_counts_evaluations_and_stops_the_program(optimizer: str) -> None:
    pixels, calls = nn.Parameter(torch.tensor([3.0, -2.0])), 0

    def closure() -> Tensor:
        nonlocal calls
        calls += 1
        stepper.zero_grad()
        loss = pixels.square().sum()
        loss.backward()
        return loss

    stepper = torch.optim.LBFGS([pixels], max_iter=1) if optimizer == "lbfgs" else torch.optim.Adam([pixels])
    watch = field.Stopwatch(limit=4)
    with watch.watching():
        for _ in range(100):
            stepper.step(closure)
    assert calls == len(watch.seconds) == 4 and watch.pixels is pixels
    stepper.step(closure)  # no longer watched
    assert calls > 4 and len(watch.seconds) == 4


def test_every_program_gets_the_same_weights() -> None:
    net = networks.shared_network("vgg16")
    with networks.in_every_program(net):
        from torchvision import models as zoo

        theirs, ours = zoo.vgg16(pretrained=True), lk.load_backbone("vgg16", "cpu")
    assert theirs is not net and torch.equal(theirs.features[0].weight, ours.stages[0].weight)
    assert torch.equal(net.features[28].weight, networks.shared_network("vgg16").features[28].weight)


def test_operations_are_counted() -> None:
    """A dream of relu1_1 is one convolution forwards and one backwards, to the picture."""
    backbone = lk.load_backbone("pocket", "cpu")
    evaluator = lk.Evaluator(backbone, lk.activation("relu1_1"), (32, 48), "float32")
    with cases.FlopCounterMode(display=False) as counter:
        evaluator(torch.rand(1, 3, 32, 48))
    assert counter.get_total_flops() == 2 * (2 * 32 * 3 * 9) * 32 * 48


def test_a_case_tells_the_peak_of_its_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(cases, "counted", lambda *given: {"count": len(given)}, raising=False)
    monkeypatch.setattr(bench.resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=3 << 20))  # 3 GB in KB
    bench.run_case('["cases", "counted", "a", "b"]')
    assert json.loads(capsys.readouterr().out) == {"count": 2, "process_mb": 3072}


@pytest.mark.parametrize(("platform", "kept"), [("linux", 3 << 30), ("darwin", 3 << 20)])
def test_memory_is_counted_in_bytes_wherever_it_is_asked_for(
    platform: str, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux counts kilobytes, a Mac bytes; and a Mac has no /proc, so that the peak has to do."""
    monkeypatch.setattr(bench.sys, "platform", platform)
    monkeypatch.setattr(bench.resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=3 << 20))
    network = SimpleNamespace(device=torch.device("cpu"))
    assert bench.peak_resident() == cases.peak_bytes(network) == kept
    assert cases.allocated(network) != kept
    monkeypatch.setattr(cases, "STATM", Path("/nowhere/statm"))
    assert cases.allocated(network) == kept


def failing(error: str) -> SimpleNamespace:
    told = f"Traceback (most recent call last):\n  ...\n{error}\n"
    return SimpleNamespace(returncode=-9, stdout="", stderr=told if error else "")  # who is killed says nothing


def test_missing_weights_are_told_from_other_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("LABKIT_WEIGHTS", raising=False)
        with pytest.raises(FileNotFoundError) as missing:
            lk.load_backbone("googlenet_bvlc", "cpu")
    monkeypatch.setattr(bench.subprocess, "run", lambda *_, **__: failing(f"FileNotFoundError: {missing.value}"))
    assert bench.measured("cases", "evaluation") == {"missing": str(missing.value)}
    for other in ("FileNotFoundError: [Errno 2] No such file or directory: '/proc/self/statm'", "KeyError: 'x'", ""):
        monkeypatch.setattr(bench.subprocess, "run", lambda *_, other=other, **__: failing(other))
        with pytest.raises(RuntimeError, match=other[:12] or "evaluation ended with -9"):
            bench.measured("cases", "evaluation")


def test_the_field_is_measured_and_recorded_on_the_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine with a GPU: the field's programs do not see it, and their section is not one of the GPU's."""
    devices: dict[str, str] = {}

    def case(command: list[str], env: dict[str, str], **options: object) -> SimpleNamespace:
        module, *_ = json.loads(command[-1])
        devices[module] = env.get("CUDA_VISIBLE_DEVICES", "all")
        return SimpleNamespace(returncode=0, stdout='{"referee": 1.0, "seconds": 1.0}\n', stderr="")

    def machine(device: str | None) -> dict[str, str]:
        return {"device": "abacus, 2 cores" if device == "cpu" else "a GPU"}

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(bench.subprocess, "run", case)
    monkeypatch.setattr(bench, "machine", machine)
    monkeypatch.setattr(report, "written", lambda results: "")
    results = tmp_path / "results.json"
    places = ["--results", str(results), "--report", str(tmp_path / "page.md"), "--peers", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["bench", "--only", "field", "start", *places])
    bench.main()
    assert devices == {"field": "", "cases": "all"}
    found = json.loads(results.read_text())
    assert {kind: list(sections) for kind, sections in found.items()} == {"cpu": ["field"], "gpu": ["start"]}


def test_the_page_shows_every_section() -> None:
    machine = {"date": "2026-01-02", "device": "abacus, 2 cores", "threads": 2, "versions": {"labkit": "1"}}
    one = {"seconds": 2.0, "peak_mb": 100.0, "own_mb": 50.0}
    pair = {"float32": one, "bfloat16": {**one, "seconds": 0.5}}
    theirs = {"seconds": 4.0, "elapsed": 90.0, "evaluations": 300, "referee": 0.25, "process_mb": 3072.0}
    rows = {
        "start": [{"what": "a dream", "target": 3.0, **one}],
        "evaluations": [{"recipe": "dream", "backbone": "pocket", "width": 64, **pair}],
        "growth": [{"recipe": "style", "width": 1000, "whole": one, "tiles": {**one, "seconds": 3.0}}],
        "limit": [
            {"recipe": "dream", "backbone": "pocket", "width": 64, "precision": "float32",
             "operations": 2e9, "rate": 1e12, "ceiling": 4e12, "share": 0.25}
        ],
        "field": {
            "size": 512,
            "quality size": 128,
            "style": [{"peer": "theirs", "theirs": theirs, **pair}],
            "dream": {"peer": "its dream", "theirs": theirs, **{p: {**c, "process_mb": 512} for p, c in pair.items()}},
            "wasserstein": {"peer": 1.0, "seconds": 0.1, "peer value": 0.5, "value": 0.4},
            "quality": [
                {"peer": "a", "theirs": theirs, "ours": {"seconds": 9.0, "steps": 100, "referee": 0.2}},
                {"peer": "b", "theirs": theirs, "ours": {"seconds": 9.0, "missed": 0.3}},
            ],
        },
    }  # fmt: skip
    page = report.written({"cpu": {name: {"machine": machine, "rows": part} for name, part in rows.items()}})
    for line in (
        "| a dream | 2.00 | 3.0 |",
        "| dream, pocket | 64 | 2.000 | 0.500 | 0.25 | 100 |",
        "| style | 1000 x 750 | 2.667 | 50 | 4.000 | 50 | 1.50 | 70 |",
        "| dream, pocket | 64 | float32 | 2.0 | 1.000 | 4.000 | 25 % |",
        "| theirs | 4.000 | 2.000 | 0.500 | 0.50 | 0.12 | 3.00 | - | - |",
        "| its dream, one step | 4.000 | 2.000 | 0.500 | 0.50 | 0.12 | 3.00 | 0.50 | 0.50 |",
        "| a | 90.0 | 300 | 0.25 | 9.0 (100 steps) | 0.100 |",
        "*2026-01-02; abacus, 2 cores, 2 threads; labkit 1*",
    ):
        assert line in page
    assert "not reached" in page
