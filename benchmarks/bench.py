"""How fast, how large: seconds per evaluation and peak memory of dream and style, and the start-up times.

    make bench                                       the whole table, about five minutes on two cores
    python benchmarks/bench.py --backbones pocket    less of it

Every case runs in a process of its own, so that its peak memory is its own. Prints tables, and writes them as JSON.
Backbones whose weights are not here are left out, and said to be.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Case = dict[str, Any]
HERE = Path(__file__).resolve().parent


def evaluations(recipe: str, backbone: str, width: int, precision: str, device: str | None) -> Case:
    """Seconds of one loss-and-gradient evaluation (median of many) and the peak memory of the process, in MB."""
    import labkit as lk

    network = lk.load_backbone(backbone, device)
    size = (width * 3 // 4, width)
    photo, painting = (lk.resize(lk.photo(name), size).to(network.device) for name in ("coffee", "chelsea"))
    loss = -lk.activation(next(iter(network.recommended.dream)))
    if recipe == "style":
        loss = lk.content(photo) + 30 * lk.style(painting) + lk.total_variation()
    evaluate = lk.Evaluator(network, loss, size, precision)
    seconds = repeat(lambda: evaluate(photo).loss.sum().item(), at_least=7, for_seconds=3)  # .item() waits for a GPU
    return {"seconds": sorted(seconds)[len(seconds) // 2], "fastest": min(seconds), "peak_mb": peak_megabytes(network)}


def repeat(work: Callable[[], Any], at_least: int, for_seconds: float, warm_up: int = 2) -> list[float]:
    """Wall-clock seconds of each call, after some that do not count."""
    for _ in range(warm_up):
        work()
    seconds: list[float] = []
    while len(seconds) < at_least or sum(seconds) < for_seconds:
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return seconds


def peak_megabytes(network: Any) -> float:
    import resource

    import torch

    if network.device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # kilobytes on Linux


def whole_dream(device: str | None) -> Case:
    """The pocket dream of a 384x288 photo, four octaves of ten steps."""
    import labkit as lk

    photo = lk.resize(lk.photo("coffee"), (288, 384))
    network = lk.load_backbone("pocket", device)
    return {"seconds": min(repeat(lambda: lk.dream(photo, network, progress=False), 3, 0, warm_up=1))}


def whole_style(device: str | None) -> Case:
    """Pocket style transfer at 320x240, 200 steps with the defaults."""
    import labkit as lk

    photo, painting = lk.resize(lk.photo("chelsea"), (240, 320)), lk.painting("lantern_bay")
    network = lk.load_backbone("pocket", device)
    return {"seconds": min(repeat(lambda: lk.stylize(photo, painting, network, progress=False), 2, 0, warm_up=0))}


def cold_start(device: str | None) -> Case:
    """A new process from its start to the first dreamt picture in a file, interpreter and imports included."""
    script = (
        "import labkit as lk, os, tempfile;"
        f"picture = lk.dream(lk.resize(lk.photo('coffee'), (288, 384)), device={device!r}, progress=False);"
        "lk.save(picture, os.path.join(tempfile.mkdtemp(), 'dream.png'))"
    )
    return {"seconds": min(repeat(lambda: subprocess.run([sys.executable, "-c", script], check=True), 2, 0, warm_up=1))}


def import_time(device: str | None) -> Case:
    """What `import labkit` takes after `import torch`."""
    script = "import torch, time; t = time.perf_counter(); import labkit; print(time.perf_counter() - t)"
    runs = [
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True) for _ in range(5)
    ]
    return {"seconds": min(float(run.stdout) for run in runs)}


WHOLE: dict[str, tuple[Callable[[str | None], Case], float]] = {  # name -> (measurement, target in seconds)
    "dream 384x288, 4 octaves x 10 steps": (whole_dream, 3.0),
    "style 320x240, 200 steps": (whole_style, 16.0),
    "cold start to the first dream": (cold_start, 10.0),
    "import labkit after torch": (import_time, 0.5),
}


def in_own_process(name: str, *arguments: Any) -> Case:
    """The result of one measurement of this file, or {"missing": why} when its weights are not here."""
    run = subprocess.run(
        [sys.executable, __file__, "--case", json.dumps([name, *arguments])], capture_output=True, text=True
    )
    if run.returncode == 0:
        return json.loads(run.stdout.splitlines()[-1])
    last = run.stderr.strip().splitlines()[-1]
    if "FileNotFoundError" not in last:
        raise RuntimeError(run.stderr)
    return {"missing": last.partition(": ")[2]}


def machine(device: str | None) -> Case:
    """What the numbers were measured on."""
    import torch
    import torchvision

    import labkit as lk

    chosen = lk.pick_device(device)
    cpu = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), cpu)
    return {
        "date": datetime.date.today().isoformat(),
        "device": torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else f"{cpu}, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
        "versions": {"labkit": lk.__version__, "torch": torch.__version__, "torchvision": torchvision.__version__},
        "auto precision": str(lk.pick_precision("auto", chosen)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backbones", nargs="*", default=["pocket", "squeezenet1_1", "googlenet_bvlc", "vgg19"])
    parser.add_argument("--widths", nargs="*", type=int, default=[256, 512, 1024], help="of 4:3 pictures, in pixels")
    parser.add_argument("--device", help="cuda, mps or cpu; the best there is if not given")
    parser.add_argument("--output", type=Path, default=HERE / "results.json")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        name, *arguments = json.loads(options.case)
        print(json.dumps(globals()[name](*arguments)))
        return

    found: Case = {"machine": machine(options.device), "whole": {}, "evaluations": []}
    print(*(f"{key}: {value}" for key, value in found["machine"].items()), sep="\n")

    print(f"\n{'whole runs':38s}{'seconds':>9s}{'target':>8s}")
    for title, (measure, target) in WHOLE.items():
        result = in_own_process(measure.__name__, options.device)
        found["whole"][title] = result | {"target": target}
        print(f"{title:38s}{result['seconds']:9.2f}{target:8.1f}", flush=True)

    heads = f"{'float32':>11s}{'bfloat16':>11s}{'ratio':>7s}{'peak MB':>9s}"
    print(f"\n{'one evaluation':14s}{'backbone':>16s}{'width':>7s}{heads}")
    for backbone in options.backbones:
        for recipe in ("dream", "style"):
            for width in options.widths:
                pair = {
                    precision: in_own_process("evaluations", recipe, backbone, width, precision, options.device)
                    for precision in ("float32", "bfloat16")
                }
                row = {"recipe": recipe, "backbone": backbone, "width": width, **pair}
                found["evaluations"].append(row)
                if "missing" in pair["float32"]:
                    print(f"{recipe:14s}{backbone:>16s}  left out: its weights are not here")
                    break
                full, half = pair["float32"]["seconds"], pair["bfloat16"]["seconds"]
                print(
                    f"{recipe:14s}{backbone:>16s}{width:7d}{full:9.3f} s{half:9.3f} s{half / full:7.2f}"
                    f"{pair['bfloat16']['peak_mb']:9.0f}",
                    flush=True,
                )
    options.output.write_text(json.dumps(found, indent=1) + "\n")
    print(f"\nwritten to {options.output}")


if __name__ == "__main__":
    main()
