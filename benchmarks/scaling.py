"""How one picture scales over processes: a model of an evaluation's time, checked against two processes.

    python benchmarks/scaling.py                 both tables of docs/scaling.md, a few minutes on two cores

The first table is measured here. The second is computed: the bandwidths and rates of its options are assumptions.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from torch.utils.flop_counter import FlopCounterMode

import labkit as lk
from labkit.base.processes import joined, rank_and_count

NUMBER = 4  # bytes of a float32
SIZES, TILE, CALIBRATED_AT = (384, 512, 640), 128, 512


# --- the model -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Machine:
    """What one process computes and how it talks.

    ``forward`` and ``both``: seconds for a pixel that a tile reads, of a run forwards and of one forwards and back.
    ``bandwidth``: bytes a second of the process's link, each way; ``latency``: seconds of one message;
    ``memory``: bytes a second between the processor and its memory.
    """

    forward: float
    both: float
    bandwidth: float
    latency: float
    memory: float = math.inf


@dataclass(frozen=True)
class Step:
    """The seconds of one step: tiles, what every process repeats, and what is sent."""

    tiles: float
    repeated: float
    statistics: float
    gradient: float

    @property
    def total(self) -> float:
        return self.tiles + self.repeated + self.statistics + self.gradient


def all_reduce(nbytes: float, count: int, machine: Machine) -> float:
    """Seconds to sum a message over ``count`` processes: round a ring, or up and down a tree, whichever is faster."""
    ring = 2 * (count - 1) * (machine.latency + nbytes / count / machine.bandwidth)
    tree = 2 * (math.ceil(math.log2(count)) * machine.latency + nbytes / machine.bandwidth)  # in pieces that overlap
    return min(ring, tree)


def statistics_bytes(backbone: lk.Backbone, layers: list[str]) -> int:
    """What the style loss sends: the second moments, the means and the count of each layer."""
    return NUMBER * sum(c * c + c + 1 for c in map(backbone.channels, layers))


def pixels_read(backbone: lk.Backbone, layers: list[str], size: tuple[int, int], tile: int, count: int) -> int:
    """The pixels that the busiest of ``count`` processes reads."""
    tiles = lk.engine.tiles.cut(backbone, layers, size, tile)
    areas = [math.prod(span.stop - span.start for span in part.reads) for part in tiles]
    return max(sum(areas[rank::count]) for rank in range(min(count, len(areas))))


def step(machine: Machine, backbone: lk.Backbone, layers: list[str], side: int, count: int, parts: bool) -> Step:
    """The model of one step of style transfer on a square picture: two passes, then Adam.

    ``parts``: each process keeps its own part of the picture alone, and exchanges halos with its neighbors.
    """
    tile = min(math.ceil(side / count**0.5), 1024)  # as `Evaluator` chooses it
    tiles = (machine.forward + machine.both) * pixels_read(backbone, layers, (side, side), tile, count)
    picture = 3 * NUMBER * side**2
    adam = 7 * picture / machine.memory  # reads four numbers and writes three
    statistics = all_reduce(statistics_bytes(backbone, layers), count, machine)
    if not parts or count == 1:
        return Step(tiles, adam, statistics, all_reduce(picture, count, machine))
    own = side / count**0.5
    halo = (own + sum(lk.engine.tiles.halo(backbone, layers))) ** 2 - own**2
    messages = 2 * (machine.latency + 3 * NUMBER * halo / machine.bandwidth)  # pixels there, gradients back
    return Step(tiles, adam / count, statistics, messages)


# --- the measurement ------------------------------------------------------------------------------------------------


def worker(side: int) -> None:
    """One evaluation on one process, or on all that torchrun started; the first one prints what it found."""
    torch.set_num_threads(1)
    backbone, size = lk.load_backbone("pocket", "cpu"), (side, side)
    layers = list(backbone.recommended.style)
    photo, painting = lk.resize(lk.photo("coffee"), size), lk.painting("lantern_bay")
    with joined(backbone.device) as several:
        evaluate = lk.Evaluator(backbone, lk.style(painting, layers), size, "float32", tile=TILE, distributed=several)
        sent, found = 0, {}
        reduce = dist.all_reduce

        def counted(tensor: torch.Tensor) -> None:
            nonlocal sent
            sent += tensor.nbytes
            reduce(tensor)

        dist.all_reduce = counted
        evaluate(photo)
        dist.all_reduce = reduce
        found["sent"] = sent
        found["both"], found["wall"] = fastest(lambda: evaluate(photo), several)
        found["forward"], _ = fastest(lambda: evaluate.statistics(evaluate.loss, photo), several)
        if several:
            for name, message in (("number", torch.zeros(1)), ("picture", torch.zeros_like(photo))):
                found[name] = fastest(lambda message=message: dist.all_reduce(message), True, 20)[1]
    if rank_and_count()[0] == 0:
        print(json.dumps(found))


def fastest(work: Callable[[], object], several: bool, times: int = 4) -> tuple[float, float]:
    """The least processor time (of the busier process) and wall-clock time of some calls."""
    best = torch.full((2,), math.inf, dtype=torch.float64)
    for _ in range(times):
        if several:
            dist.barrier()
        clocks = time.process_time(), time.perf_counter()
        work()
        taken = torch.tensor([time.process_time() - clocks[0], time.perf_counter() - clocks[1]], dtype=torch.float64)
        best = torch.minimum(best, taken)
    if several:
        dist.all_reduce(best, op=dist.ReduceOp.MAX)
    return best[0].item(), best[1].item()


def in_processes(side: int, count: int) -> dict[str, float]:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"] if count > 1 else []
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, *launcher, __file__, "--worker", str(side)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(run.stdout.splitlines()[-1])


def check() -> None:
    """Calibrate on one process and on one message, predict two processes at every size, and measure them."""
    backbone = lk.load_backbone("pocket", "cpu")
    layers = list(backbone.recommended.style)
    one = in_processes(CALIBRATED_AT, 1)
    two = {side: in_processes(side, 2) for side in SIZES}

    cost = one["both"] / pixels_read(backbone, layers, (CALIBRATED_AT, CALIBRATED_AT), TILE, 1)
    calibrated, picture = two[CALIBRATED_AT], 3 * NUMBER * CALIBRATED_AT**2
    latency = calibrated["number"] / 2
    here = Machine(math.nan, math.nan, picture / (calibrated["picture"] - 2 * latency), latency)

    share = one["forward"] / one["both"]
    print(f"one process, {CALIBRATED_AT} px: {1e6 * cost:.2f} µs a pixel read, {share:.0%} of it in the first pass")
    print(f"messages: {1e6 * here.latency:.0f} µs and {here.bandwidth / 1e9:.1f} GB/s")
    print("two processes, by the model and measured:\n")
    print("              processor s       all-reduce ms       bytes sent   wall s")
    print("side  tiles  model  measured   model  measured   measured/model  measured")
    for side, found in two.items():
        tiles = len(lk.engine.tiles.cut(backbone, layers, (side, side), TILE))
        sent = statistics_bytes(backbone, layers) + 3 * NUMBER * side**2
        seconds = cost * pixels_read(backbone, layers, (side, side), TILE, 2)
        message = all_reduce(3 * NUMBER * side**2, 2, here)
        print(
            f"{side:4d}{tiles:7d}{seconds:7.2f}{found['both']:10.2f}{1e3 * message:8.2f}{1e3 * found['picture']:10.2f}"
            f"{found['sent'] / sent:17.4f}{found['wall']:10.2f}"
        )


# --- the projection --------------------------------------------------------------------------------------------------


def vgg19() -> tuple[lk.Backbone, list[str], float]:
    """VGG19 without weights, the layers of Gatys' style, and the operations of a run forwards for each pixel."""
    import torchvision

    from labkit.networks.recommended import Recommended

    with torch.device("meta"):
        modules = torchvision.models.vgg19().features[:30]
    stages = OrderedDict((str(index), module) for index, module in enumerate(modules))
    backbone = lk.Backbone("vgg19", stages, torch.nn.Identity(), Recommended({}, (), {}))
    size = (512, 512)
    with FlopCounterMode(display=False) as counter:
        backbone.on_meta(size, "29")
    return backbone, ["1", "6", "11", "20", "29"], counter.get_total_flops() / math.prod(size)


def project(options: argparse.Namespace) -> None:
    backbone, layers, operations = vgg19()
    forward = operations / (options.tflops * 1e12 * options.fraction)
    card = Machine(forward, 2 * forward, options.node * 1e9, options.latency * 1e-6, options.memory * 1e12)
    print(f"VGG19, {operations / 1e6:.2f} million operations a pixel forwards, milliseconds of one step:\n")
    print("  side  cards  sends       tiles   Adam  statistics  gradient    total  efficiency")
    for side in options.sides:
        alone = step(card, backbone, layers, side, 1, False)
        for count in (1, 8, 8 * options.nodes):
            link = options.node if count <= 8 else options.network
            machine = replace(card, bandwidth=link * 1e9)
            for parts in (False, True)[: 1 + (count > 1)]:
                taken = step(machine, backbone, layers, side, count, parts)
                spent = [1e3 * part for part in (taken.tiles, taken.repeated, taken.statistics, taken.gradient)]
                sends = "halos" if parts else "nothing" if count == 1 else "picture"
                print(
                    f"{side:6d}{count:7d}  {sends:8s}{spent[0]:9.2f}{spent[1]:7.2f}{spent[2]:12.2f}{spent[3]:10.2f}"
                    f"{1e3 * taken.total:9.2f}{alone.total / count / taken.total:12.0%}"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sides", nargs="*", type=int, default=[4096, 8192, 16384], help="of the projected pictures")
    parser.add_argument("--nodes", type=int, default=64, help="of eight cards each")
    parser.add_argument("--tflops", type=float, default=989, help="assumed peak of a card in bfloat16")
    parser.add_argument("--fraction", type=float, default=0.45, help="assumed share of it that is reached")
    parser.add_argument("--memory", type=float, default=4.8, help="assumed TB/s of a card's memory")
    parser.add_argument("--node", type=float, default=450, help="assumed GB/s each way between the cards of a node")
    parser.add_argument("--network", type=float, default=50, help="assumed GB/s each way of a card to other nodes")
    parser.add_argument("--latency", type=float, default=10, help="assumed microseconds of a message")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker)
        return
    check()
    print()
    project(options)


if __name__ == "__main__":
    main()
