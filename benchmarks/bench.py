"""How fast, how large, and beside whom: measures everything and writes docs/performance.md.

    make bench                          about twenty minutes on two cores
    make bench PEERS=folder             also the field's programs, whose checkouts lie in the folder; half an hour more
    python benchmarks/bench.py --only start evaluations --backbones pocket

Every case runs in a process of its own. Sections that are left out keep their last numbers, with their own machine and
date. Networks whose weights are not here are left out, and said to be; VGGs are measured with random ones.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import io
import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import report

Case = dict[str, Any]
HERE = Path(__file__).resolve().parent
STARTS = {  # name -> (case, target in seconds)
    "dream 384x288, 5 octaves, 20 to 6 steps": ("whole_dream", 4.0),
    "style 320x240, 200 steps": ("whole_style", 20.0),
    "style 320x240, a preview of 60 steps": ("previewed_style", 6.0),
    "one pass 512x384, a painting learned": ("learned_pass", None),
    "one pass 512x384, any painting": ("any_pass", None),
    "512x384 made twice as large": ("upscaled", None),
    "cold start to the first dream": ("cold_start", 10.0),
    "import labkit after torch": ("import_time", 0.5),
    "notebook kernel, labkit imported": ("kernel_ready", None),
}


def measured(module: str, name: str, *arguments: Any) -> Case:
    """The result of one case, run in its own process, or {"missing": why} when its weights are not here.

    The field's programs take a GPU where they see one; they are compared on the processor, so they see none.
    """
    print(f"  {name} {' '.join(map(str, arguments))}", end=" ", flush=True)
    call = json.dumps([module, name, *arguments])
    environment = os.environ | ({"CUDA_VISIBLE_DEVICES": ""} if module == "field" else {})
    command = [sys.executable, __file__, "--case", call]
    run = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    error, _, why = run.stderr.strip().rpartition("\n")[2].partition(": ")
    if run.returncode == 0:
        found = json.loads(run.stdout.splitlines()[-1])
    elif error == "FileNotFoundError" and why.startswith("the weights of "):  # `load_backbone` says so
        found = {"missing": why}
    else:
        raise RuntimeError(run.stderr or f"{name} ended with {run.returncode}")
    print({key: round(value, 4) if isinstance(value, float) else value for key, value in found.items()}, flush=True)
    return found


def run_case(call: str) -> None:
    """Print what a case found, and the peak resident memory of this process: interpreter, libraries and network too."""
    module, name, *arguments = json.loads(call)
    with contextlib.redirect_stdout(io.StringIO()):  # programs talk
        found = getattr(__import__(module), name)(*arguments)
    found["process_mb"] = peak_resident() / 2**20
    print(json.dumps(found))


def peak_resident() -> int:
    """The most bytes of memory that this process has held so far."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on a Mac, kilobytes on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def start(options: argparse.Namespace) -> list[Case]:
    return [
        {"what": what, "target": target, **measured("cases", name, options.device)}
        for what, (name, target) in STARTS.items()
    ]


def evaluations(options: argparse.Namespace) -> list[Case]:
    rows = []
    for backbone in options.backbones:
        for recipe in ("dream", "style"):
            for width in options.widths:
                pair = {
                    precision: measured("cases", "evaluation", recipe, backbone, width, precision, options.device)
                    for precision in ("float32", "bfloat16")
                }
                rows.append({"recipe": recipe, "backbone": backbone, "width": width, **pair})
                if "missing" in pair["float32"]:
                    break
    return rows


def growth(options: argparse.Namespace) -> list[Case]:
    rows = []
    for recipe in ("dream", "style"):
        for width in options.growth:
            row: Case = {"recipe": recipe, "width": width}
            for way, tile in (("whole", None), ("tiles", 1024)):
                if (way == "whole" and width > options.largest_whole) or (way == "tiles" and width <= 1024):
                    continue
                row[way] = measured("cases", "evaluation", recipe, "pocket", width, "auto", options.device, tile)
            rows.append(row)
    return rows


def limit(options: argparse.Namespace) -> list[Case]:
    rows = []
    for recipe, backbone in (("dream", "pocket"), ("style", "pocket"), ("style", "vgg19")):
        for width in options.widths[-2:]:
            for precision in ("float32", "bfloat16"):
                found = measured("cases", "limit", recipe, backbone, width, precision, options.device)
                rows.append({"recipe": recipe, "backbone": backbone, "width": width, "precision": precision, **found})
    return rows


def field(options: argparse.Namespace) -> Case:
    import field as programs

    size, small = options.field_size, options.quality_size
    found: Case = {"size": size, "quality size": small, "style": [], "quality": []}
    for name in programs.STYLE_PEERS:
        row = {"peer": name, "theirs": measured("field", "peer_style", options.peers, name, size, 10)}
        for precision in ("float32", "bfloat16"):
            row[precision] = measured("field", "own_style", name, size, precision)
        found["style"].append(row)
    found["dream"] = {"peer": programs.DREAM_PEER, "theirs": measured("field", "peer_dream", options.peers, size)}
    for precision in ("float32", "bfloat16"):
        found["dream"][precision] = measured("field", "own_dream", size, precision)
    found["wasserstein"] = measured("field", "wasserstein", options.peers, size)
    for name in programs.STYLE_PEERS:
        theirs = measured("field", "peer_style", options.peers, name, small, None)
        ours = measured("field", "own_quality", small, theirs["referee"], {})
        found["quality"].append({"peer": name, "theirs": theirs, "ours": ours})
    return found


SECTIONS: dict[str, Callable[[argparse.Namespace], Any]] = {
    "start": start,
    "evaluations": evaluations,
    "growth": growth,
    "limit": limit,
    "field": field,
}


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
        "auto": str(lk.pick_precision("auto", chosen)).removeprefix("torch."),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), help="these sections")
    parser.add_argument("--peers", help="a folder with checkouts of the field's programs; without it they are left out")
    parser.add_argument("--device", help="cuda, mps or cpu; the best there is if not given; field: cpu")
    parser.add_argument("--backbones", nargs="*", default=["pocket", "squeezenet1_1", "googlenet_bvlc", "vgg19"])
    parser.add_argument("--widths", nargs="*", type=int, default=[256, 512, 1024], help="of 4:3 pictures, in pixels")
    parser.add_argument("--growth", nargs="*", type=int, default=[256, 512, 1024, 2048, 4096], help="widths")
    parser.add_argument("--largest-whole", type=int, default=2048, help="width up to which to measure without tiles")
    parser.add_argument("--field-size", type=int, default=512)
    parser.add_argument("--quality-size", type=int, default=128, help="at which the peers run their whole schedule")
    parser.add_argument("--results", type=Path, default=HERE / "results.json")
    parser.add_argument("--report", type=Path, default=HERE.parent / "docs" / "performance.md")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        run_case(options.case)
        return
    wanted = options.only or [name for name in SECTIONS if name != "field" or options.peers]
    if "field" in wanted and not options.peers:
        parser.error("the field's programs are somewhere: say where with --peers")
    results = json.loads(options.results.read_text()) if options.results.exists() else {}
    for name in wanted:
        print(name, flush=True)
        here = machine("cpu" if name == "field" else options.device)
        kind = "gpu" if "cores" not in here["device"] else "cpu"
        results.setdefault(kind, {})[name] = {"machine": here, "rows": SECTIONS[name](options)}
        options.results.write_text(json.dumps(results, indent=1) + "\n")
        options.report.write_text(report.written(results), encoding="utf-8")
    print(f"written to {options.results} and {options.report}")


if __name__ == "__main__":
    main()
