"""A digest of the pictures of twenty short runs: equal before and after a change that should change no picture.

    python tools/fingerprints.py > before.txt     # then change the code
    python tools/fingerprints.py | diff before.txt -

Digests are of bits: compare those of one machine, one number of threads and one version of PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

import labkit as lk
from labkit.engine.runs import digest

EXACT = {"device": "cpu", "precision": "float32", "progress": False}
SMALL = {"backbone": "pocket", **EXACT}


def runs() -> dict[str, Callable[[], Tensor]]:
    """What is run, by name: every recipe, loss, parameterization and way of evaluation at least once."""
    cat, coffee, koi = lk.photo("chelsea", 96), lk.photo("coffee", 96), lk.painting("koi_mosaic", 96)
    dream, paint = {"octaves": 2, "steps": 3, **SMALL}, {"steps": 6, "min_scale": 64, **SMALL}
    create = {"size": 64, "steps": 5, **SMALL}
    left = (torch.arange(96) < 48).float().expand(*cat.shape[-2:])
    network, labels = lk.load_backbone("pocket", "cpu"), torch.tensor([285])

    def attacked(norm: str) -> Tensor:
        threat = lk.attack.Threat(norm, 0.05 if norm == "linf" else 2.0)
        return lk.attack.pgd(lk.attack.untargeted(network.logits, labels), cat, threat, steps=3, seed=0)

    def in_tiles(loss: lk.Loss) -> Tensor:
        return lk.Evaluator(network, loss, cat.shape[-2:], "float32", tile=64)(cat).gradient

    return {
        "dream": lambda: lk.dream(cat, **dream),
        "dream of layers, varied": lambda: lk.dream(cat, {"relu3_1": 1, "relu4_3": 2}, variations=2, **dream),
        "dream in a mask": lambda: lk.dream(cat, "relu4_3", mask=left, laplacian=2, decorrelate=True, **dream),
        "guided dream": lambda: lk.dream(cat, -lk.guide(coffee, "relu4_3"), **dream),
        "dream in tiles": lambda: lk.dream(cat, "relu3_1", tile=64, **dream),
        "style": lambda: lk.stylize(cat, koi, **paint),
        "style by Wasserstein and L-BFGS": lambda: lk.stylize(
            cat, koi, statistic="wasserstein", optimizer="lbfgs", **paint
        ),
        "two styles in masks": lambda: lk.stylize(
            cat, lk.style_objective(cat, [koi, coffee], masks=[left, 1 - left]), **paint
        ),
        "style with histograms": lambda: lk.stylize(
            cat, lk.style_objective(cat, koi, histogram_weight=5), color="luma", **paint
        ),
        "style from noise": lambda: lk.stylize(
            cat, koi, init="noise", **paint | {"backbone": lk.variant(network, "l2", "reflect")}
        ),
        "a channel in waves": lambda: lk.create(-lk.activation("relu4_3", channel=7, power=1), **create),
        "a class in a pyramid": lambda: lk.create(-lk.class_logit(285), parameterization="laplacian", **create),
        "texture by a CPPN": lambda: lk.create(lk.style(koi), parameterization="cppn", **create),
        "diverse channels": lambda: lk.create(
            lk.channels("relu3_1", [3, 4]) + lk.diversity("relu3_1"), variations=2, **create
        ),
        "attack in linf": lambda: attacked("linf"),
        "attack in l2": lambda: attacked("l2"),
        "gradient of style in tiles": lambda: in_tiles(lk.style(koi) + lk.content(coffee)),
        "gradient of Wasserstein in tiles": lambda: in_tiles(lk.style(koi, statistic="wasserstein")),
        "a film": lambda: torch.cat(list(lk.dream_frames([cat, cat.flip(3)], flow=None, steps=2, **SMALL))),
        "enlarged": lambda: lk.superres.upscale(cat, lk.superres.load_upscaler(device="cpu")),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name, run in runs().items():
        print(f"{digest(run())}  {name}", flush=True)
