"""Train the super-resolution network that travels with the package, on any folders of photos.

    python tools/train_superres.py PHOTOS [PHOTOS ...] --output data/superres/x2.safetensors

Each photo is used at its size and at three quarters and a half of it. After a kill, the same command goes on from
OUTPUT.checkpoint; one with other settings is refused. `--judge` names a folder of pictures, Set5 for instance, on
which every version is judged: PSNR of luma (BT.601, studio range), as many pixels cut from the border as the scale
says. It is written into the metadata.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio
from torch import Tensor

import labkit as lk
from labkit.engine.training import load_checkpoint, save_checkpoint
from labkit.networks.weights import save_weights
from labkit.pictures.reading import PICTURE_SUFFIXES
from labkit.recipes.super_resolution import Upscaler, bicubic, degraded, training, upscale


def psnr(found: Tensor, true: Tensor, border: int) -> float:
    """Peak signal-to-noise ratio in dB of the luma of pictures rounded to 8 bits."""
    pictures = [rgb2ycbcr((x[0] * 255).round().byte().numpy(), channel_axis=0)[0] for x in (found, true)]
    return peak_signal_noise_ratio(*[x[border:-border, border:-border] for x in pictures], data_range=255)


def judged(model: Upscaler, folder: Path) -> tuple[float, float]:
    """Mean PSNR of the network and of bicubic enlargement."""
    rows = []
    for path in sorted(folder.iterdir()):
        small, large = degraded(lk.load(path), model.scale)
        both = upscale(small, model), bicubic(small, model.scale).clamp(0, 1)
        rows.append([psnr(enlarged, large, model.scale) for enlarged in both])
    return tuple(np.mean(rows, axis=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--output", type=Path, default=Path("data/superres/x2.safetensors"))
    parser.add_argument("--judge", type=Path)
    parser.add_argument("--scale", type=int, default=2)
    parser.add_argument("--width", type=int, default=48)
    parser.add_argument("--blocks", type=int, default=8)
    parser.add_argument("--side", type=int, default=40)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device")
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    model = Upscaler(options.scale, options.width, options.blocks).to(lk.pick_device(options.device))
    paths = sorted(
        path for folder in options.photos for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES
    )
    checkpoint, saved = options.output.with_suffix(".checkpoint"), time.monotonic()
    numbers = {name: getattr(options, name) for name in ("steps", "side", "batch", "learning_rate", "seed")}
    plan = {name: getattr(options, name) for name in ("scale", "width", "blocks")}
    settings = {**numbers, **plan, "photos": len(paths)}
    resume = load_checkpoint(checkpoint, settings)
    if resume and resume["step"] == options.steps:
        print(f"nothing to do: {checkpoint} has all of its {options.steps} steps; delete it to start anew")
        return
    options.output.parent.mkdir(parents=True, exist_ok=True)
    for now in training(model, map(lk.load, paths), shares=(1.0, 0.75, 0.5), resume=resume, **numbers):
        if now.step == now.of or time.monotonic() - saved > 300:
            save_checkpoint(now, checkpoint, settings)
            write(model, now.step, options)
            saved = time.monotonic()


def write(model: Upscaler, step: int, options: argparse.Namespace) -> None:
    """The weights in float16, and what they are worth."""
    metadata = {"scale": model.scale, "width": model.width, "blocks": model.blocks, "step": step, "of": options.steps}
    if options.judge:
        ours, theirs = judged(model, options.judge)
        metadata |= {"psnr": f"{ours:.3f}", "bicubic": f"{theirs:.3f}"}
    print(metadata, flush=True)
    save_weights(model, options.output, metadata)


if __name__ == "__main__":
    main()
