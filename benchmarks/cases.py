"""What is measured of the lab alone; each case runs in a process of its own, so that its peak memory is its own."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bench import peak_resident
from networks import measured_network
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import labkit as lk

Case = dict[str, Any]
STATM = Path("/proc/self/statm")


def evaluator(
    recipe: str, backbone: str, width: int, precision: str, device: str | None, tile: str | int | None = None
) -> tuple[lk.Evaluator, Tensor]:
    """The evaluator of a dream or a style transfer of a 4:3 picture, with the network's recommended layers."""
    network = measured_network(backbone, device)
    size = (width * 3 // 4, width)
    photo, painting = (enlarged(name, size).to(network.device) for name in ("coffee", "chelsea"))
    loss = -lk.activation(next(iter(network.recommended.dream)))
    if recipe == "style":
        loss = lk.content(photo) + 30 * lk.style(painting) + lk.total_variation()
    return lk.Evaluator(network, loss, size, precision, tile), photo


def enlarged(name: str, size: tuple[int, int]) -> Tensor:
    return torch.nn.functional.interpolate(lk.photo(name), size, mode="bilinear", antialias=True)


def evaluation(
    recipe: str, backbone: str, width: int, precision: str, device: str | None, tile: str | int | None = None
) -> Case:
    """Seconds of one loss-and-gradient (median of many) and the peak memory: of the process, or of the GPU."""
    evaluate, photo = evaluator(recipe, backbone, width, precision, device, tile)
    patient = {"at_least": 7, "for_seconds": 3} if width <= 1024 else {"at_least": 2, "for_seconds": 0, "warm_up": 1}
    before = allocated(evaluate.backbone)
    seconds = repeat(lambda: evaluate(photo).loss.sum().item(), **patient)  # .item() waits for a GPU
    peak = peak_bytes(evaluate.backbone)
    return {"seconds": sorted(seconds)[len(seconds) // 2], "peak_mb": peak / 2**20, "own_mb": (peak - before) / 2**20}


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


def allocated(network: lk.Backbone) -> int:
    """The bytes that are held now, on the GPU or by the process; the most so far where no file says it, as on a Mac."""
    if network.device.type == "cuda":
        return torch.cuda.memory_allocated()
    return int(STATM.read_text().split()[1]) * resource.getpagesize() if STATM.exists() else peak_resident()


def peak_bytes(network: lk.Backbone) -> int:
    if network.device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return peak_resident()


def limit(recipe: str, backbone: str, width: int, precision: str, device: str | None) -> Case:
    """Operations of one evaluation, the rate they are done at, and the rate of a large matrix product."""
    evaluate, photo = evaluator(recipe, backbone, width, precision, device)
    with FlopCounterMode(display=False) as counter:
        evaluate(photo)
    seconds = min(repeat(lambda: evaluate(photo).loss.sum().item(), 5, 2))
    place = evaluate.backbone.device
    side = 8192 if place.type == "cuda" else 2048
    a, b = (torch.randn(side, side, device=place, dtype=getattr(torch, precision)) for _ in range(2))
    product = min(repeat((a @ b)[0, 0].item, 10, 1))
    rate, ceiling = counter.get_total_flops() / seconds, 2 * side**3 / product
    return {"operations": counter.get_total_flops(), "rate": rate, "ceiling": ceiling, "share": rate / ceiling}


def whole_dream(device: str | None) -> Case:
    """The pocket dream of a 384x288 photo with the defaults."""
    photo = lk.resize(lk.photo("coffee"), (288, 384))
    network = lk.load_backbone("pocket", device)
    return {"seconds": min(repeat(lambda: lk.dream(photo, backbone=network, progress=False), 3, 0, warm_up=1))}


def whole_style(device: str | None, **settings: Any) -> Case:
    """Pocket style transfer at 320x240, with the defaults where ``settings`` say nothing."""
    photo, painting = lk.resize(lk.photo("chelsea"), (240, 320)), lk.painting("lantern_bay")
    options = {"backbone": lk.load_backbone("pocket", device), "progress": False, **settings}
    return {"seconds": min(repeat(lambda: lk.stylize(photo, painting, **options), 2, 0, warm_up=0))}


def previewed_style(device: str | None) -> Case:
    """`whole_style` by the preset for a first look."""
    return whole_style(device, **lk.presets.FAST)


def learned_pass(device: str | None) -> Case:
    """A 512x384 photo repainted by the network that knows its painting."""
    photo, network = lk.resize(lk.photo("coffee"), (384, 512)), lk.faststyle.load_network(device=device)
    return {"seconds": min(repeat(lambda: lk.faststyle.repaint(photo, "lantern_bay", network).sum().item(), 5, 2))}


def any_pass(device: str | None) -> Case:
    """A 512x384 photo in the style of any painting."""
    photo, painting = lk.resize(lk.photo("coffee"), (384, 512)), lk.painting("lantern_bay")
    network, decoder = lk.load_backbone("pocket", device), lk.adain.load_decoder(device=device)
    work = lk.adain.transfer
    return {"seconds": min(repeat(lambda: work(photo, painting, decoder, network).sum().item(), 5, 2))}


def upscaled(device: str | None) -> Case:
    """A 512x384 photo made twice as large."""
    photo, model = lk.resize(lk.photo("coffee"), (384, 512)), lk.superres.load_upscaler(device=device)
    return {"seconds": min(repeat(lambda: lk.superres.upscale(photo, model).sum().item(), 5, 2))}


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


def kernel_ready(device: str | None) -> Case:
    """From asking Jupyter for a kernel to the answer of its first cell, `import labkit`."""
    from jupyter_client.manager import start_new_kernel

    def once() -> None:
        manager, client = start_new_kernel(kernel_name="python3")
        client.execute_interactive("import labkit", timeout=60, output_hook=lambda message: None)
        client.stop_channels()
        manager.shutdown_kernel(now=True)

    return {"seconds": min(repeat(once, 2, 0, warm_up=1))}


def many_evaluations(device: str | None) -> Case:
    """500 evaluations of VGG19 style transfer at 1024 px, as an optimizer calls them."""
    evaluate, photo = evaluator("style", "vgg19", 1024, "bfloat16", device)
    for _ in range(3):
        evaluate(photo).loss.sum().item()
    started = time.perf_counter()
    for _ in range(500):
        found = evaluate(photo)
    found.loss.sum().item()
    return {"seconds": time.perf_counter() - started}
