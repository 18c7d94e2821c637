"""Train the networks of fast style transfer that travel with the package, on any folders of photos.

    python tools/train_faststyle.py paintings PHOTOS [PHOTOS ...] --names koi_mosaic lantern_bay
    python tools/train_faststyle.py decoder PHOTOS [PHOTOS ...] --without noon_pond mist_peaks

The first teaches one network the lab's paintings of these names; the second teaches a decoder any painting, from the
lab's, each at four sizes, and from every eighth photo, taken as one. After a kill, the same command goes on from
OUTPUT.checkpoint; one with other settings is refused.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

import labkit as lk
from labkit.engine.training import Trained, load_checkpoint, save_checkpoint
from labkit.networks.weights import load_weights, save_weights
from labkit.pictures.reading import PICTURE_SUFFIXES
from labkit.recipes import adain, fast_style
from labkit.recipes.adain import Decoder
from labkit.recipes.fast_style import StyleNetwork

SIZES = (192, 288, 432, 648)  # of paintings, for the decoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["paintings", "decoder"])
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--names", nargs="+", default=[], help="the paintings to learn")
    parser.add_argument("--without", nargs="*", default=[], help="paintings that the decoder never sees")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--start", type=Path, help="weights to go on from, with new settings")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--width", type=int, default=24)
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--side", type=int)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--style-weight", type=float)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device")
    parser.add_argument("--save-every", type=float, default=5, metavar="MINUTES")
    options = parser.parse_args()
    if options.kind == "paintings" and not options.names:
        parser.error(f"say with --names which paintings to learn: {', '.join(lk.paintings())}")

    torch.manual_seed(options.seed)
    output = options.output or Path(f"data/faststyle/{options.kind}.safetensors")
    output.parent.mkdir(parents=True, exist_ok=True)
    checkpoint = output.with_suffix(".checkpoint")
    paths = sorted(
        path for folder in options.photos for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES
    )
    given = {
        name: getattr(options, name) for name in ("steps", "side", "batch", "style_weight", "learning_rate", "seed")
    }
    given = {name: value for name, value in given.items() if value is not None}
    names = options.names if options.kind == "paintings" else [n for n in lk.paintings() if n not in options.without]
    metadata: dict[str, object] = {"names": ",".join(names)}
    if options.kind == "paintings":
        metadata |= {"width": options.width, "blocks": options.blocks}
    start = options.start and str(options.start)
    settings = {"kind": options.kind, "photos": len(paths), "start": start, **given, **metadata}
    given["resume"] = state = load_checkpoint(checkpoint, settings)
    if state and state["step"] == options.steps:
        print(f"nothing to do: {checkpoint} has all of its {options.steps} steps; delete it to start anew")
        return
    device = lk.pick_device(options.device)
    if options.kind == "paintings":
        model = StyleNetwork(names, options.width, options.blocks).to(device)
        photos = (lk.load(path, 384) for path in paths)
        run = fast_style.training(model, {name: lk.painting(name) for name in names}, photos, **given)
    else:
        model = Decoder().to(device)
        paintings = [lk.painting(name, size) for name in names for size in SIZES]
        paintings += [lk.load(path, 256) for path in paths[::8]]
        run = adain.training(model, paintings, (lk.load(path, 256) for path in paths), **given)
    if options.start and not state:
        model.load_state_dict(load_weights(options.start)[1])
    follow(run, model, output, checkpoint, metadata, settings, 60 * options.save_every)


def follow(
    run: Iterator[Trained],
    model: nn.Module,
    output: Path,
    checkpoint: Path,
    metadata: dict[str, object],
    settings: dict[str, object],
    pause: float = 300,
) -> None:
    """Train to the end; every ``pause`` seconds print the mean error, write the weights in float16, and the state with
    the settings that decide the result."""
    errors, saved = [], time.monotonic()
    for now in run:
        errors.append(now.error)
        if now.step == now.of or time.monotonic() - saved > pause:
            found = metadata | {"step": now.step, "of": now.of, "error": f"{sum(errors) / len(errors):.4f}"}
            print(found, flush=True)
            save_weights(model, output, found)
            save_checkpoint(now, checkpoint, settings)
            errors, saved = [], time.monotonic()


if __name__ == "__main__":
    main()
