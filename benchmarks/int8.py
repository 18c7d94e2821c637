"""What whole numbers buy: size, speed and agreement of the pocket network in float32, bfloat16 and int8.

    python benchmarks/int8.py            measure, a minute on two cores, and record the table
    python benchmarks/int8.py --show     show the recorded table

All variants take turns in one process, so that their ratios are of one machine at one time. Compiling needs a C++
compiler and the int8 variants need torchao; where one is missing, the script says so and shows the recorded table.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from bench import machine
from torch import Tensor, nn

import labkit as lk
from labkit.base.files import bundled, written_whole

RECORD = bundled("recorded/int8.json")
Run = Callable[[Tensor], Tensor]


def crops(size: int, each: int, seed: int) -> Tensor:
    """Squares cut at random from the lab's photos."""
    generator = torch.Generator().manual_seed(seed)
    cut = []
    for name in lk.PHOTOS:
        photo = lk.photo(name, 2 * size)
        for _ in range(each):
            top, left = (int(torch.randint(side - size + 1, (1,), generator=generator)) for side in photo.shape[2:])
            cut.append(photo[:, :, top : top + size, left : left + size])
    return torch.cat(cut)


class Logits(nn.Module):
    def __init__(self, network: lk.Backbone):
        super().__init__()
        self.network = network

    def forward(self, pictures: Tensor) -> Tensor:
        return self.network.logits(pictures)


def variants(network: lk.Backbone, pictures: Tensor) -> dict[str, tuple[nn.Module, float]]:
    """The network in several forms, ready to run, and how many bits each one stores for a weight."""
    import torch._inductor.config as inductor

    inductor.freezing = True  # weights are constants, so that they can be packed for the CPU in advance
    whole = lk.quantize.as_int8(network, crops(96, 12, seed=1))  # calibrated on other crops
    full, half = Logits(network), Logits(network.cast(torch.bfloat16))
    found = {
        "float32": (full, 32),
        "float32, compiled": (torch.compile(full), 32),
        "bfloat16, compiled": (torch.compile(half), 16),
        "int8, not compiled": (whole, 8),
        "int8, compiled": (torch.compile(whole), 8),
    }
    for run, _ in found.values():
        run(pictures)
    return found


def measure(rounds: int = 15) -> dict[str, Any]:
    network = lk.load_backbone("pocket", "cpu")
    pictures = crops(96, 12, seed=0)
    forms = variants(network, pictures)
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(rounds):
        for name, (run, _) in forms.items():
            started = time.perf_counter()
            run(pictures)
            seconds[name].append(time.perf_counter() - started)
    classes = {name: run(pictures).argmax(1) for name, (run, _) in forms.items()}
    weights = sum(layer.weight.numel() for layer in lk.quantize.layers_of(network).values())
    return {
        "machine": machine("cpu") | {"matrix unit": getattr(torch.cpu, "_is_amx_tile_supported", bool)()},
        "pictures": list(pictures.shape),
        "rows": [
            {
                "variant": name,
                "megabytes": weights * bits / 8 / 1e6,
                "seconds": statistics.median(seconds[name]),
                "speed": statistics.median(
                    base / own for base, own in zip(seconds["float32"], seconds[name], strict=True)
                ),
                "agreement": (classes[name] == classes["float32"]).float().mean().item(),
            }
            for name, (_, bits) in forms.items()
        ],
    }


def show(record: dict[str, Any]) -> None:
    print(record["machine"]["device"], record["machine"]["date"])
    print(f"{'variant':20s}{'weights':>10s}{'speed':>9s}{'same class':>12s}")
    for row in record["rows"]:
        shown = f"{row['megabytes']:7.1f} MB{row['speed']:8.1f}x{row['agreement']:12.0%}"
        print(f"{row['variant']:20s}{shown}")


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--show", action="store_true", help="show the recorded table and measure nothing")
    if parser.parse_args().show:
        show(json.loads(RECORD.read_text()))
        return
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    try:
        record = measure()
    except Exception as error:  # no torchao, no compiler, a CPU that inductor does not know: each has its own error
        print(f"int8 cannot be measured here ({type(error).__name__}: {str(error).strip().splitlines()[0]})")
        print("This is the recorded table of another machine:")
        show(json.loads(RECORD.read_text()))
        return
    show(record)
    with written_whole(RECORD) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
