"""Judge a pocket network against its teacher, and print one table.

    python tools/eval_pocket.py PHOTOS [--weights FILE] [--write data/pocket/MODEL_CARD.md]

PHOTOS holds `imagenet_samples` (one photo per class; every 20th is held out of training) and `bsds/eval` (photos that
no training saw). Classes are compared on the central 128 pixels of photos whose shorter side is 128, features on
random crops of 80 pixels, after adapters fitted to training crops by least squares.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import torch
import train_pocket as training
from torch import Tensor

import labkit as lk

SIDE = 128
TABLE = re.compile(r"\| measure \|.*?\n\n", re.DOTALL)


def center(path: Path, side: int = SIDE) -> Tensor:
    """The central square of a photo, resized so that its shorter side is ``side`` pixels."""
    return middle(lk.load(path), side)


def middle(photo: Tensor, side: int = SIDE) -> Tensor:
    height, width = photo.shape[-2:]
    scale = side / min(height, width)
    photo = lk.resize(photo, (max(side, round(height * scale)), max(side, round(width * scale))))
    top, left = ((s - side) // 2 for s in photo.shape[-2:])
    return photo[..., top : top + side, left : left + side]


@torch.no_grad()
def logits(network: lk.Backbone, pictures: list[Tensor]) -> Tensor:
    return torch.cat([network.logits(torch.cat(pictures[i : i + 32])) for i in range(0, len(pictures), 32)])


def answers(student: lk.Backbone, teacher: lk.Backbone, paths: list[Path]) -> tuple[Tensor, Tensor]:
    """The logits of both for the centers of photos."""
    pictures = [center(path) for path in paths]
    return logits(student, pictures), logits(teacher, pictures)


def agreements(mine: Tensor, theirs: Tensor) -> str:
    """The share of photos whose first class by the teacher is the student's first, and among its first five."""
    return " / ".join(f"{100 * training.agreement(mine, theirs, top):.1f} %" for top in (1, 5))


def calibration_error(mine: Tensor, theirs: Tensor, bins: int = 10) -> float:
    """How far confidence and success lie apart: expected calibration error (Guo et al. 2017, arXiv:1706.04599).

    Photos are sorted into bins by the student's probability of its first class; in each bin the mean probability is
    compared with the share of photos that the teacher calls the same.
    """
    confidence, chosen = mine.softmax(1).max(1)
    gap = confidence - (chosen == theirs.argmax(1)).float()
    place = (confidence * bins).long().clamp_max(bins - 1)
    return torch.zeros(bins).index_add_(0, place.cpu(), gap.cpu()).abs().sum().item() / len(gap)


def named_alike(mine: Tensor, theirs: Tensor, classes: list[str]) -> str:
    """The classes of the photos that both call the same."""
    first = theirs.argmax(1)
    return ", ".join(sorted({classes[i] for i in first[mine.argmax(1) == first].tolist()}))


def unexplained(
    student: lk.Backbone, teacher: lk.Backbone, train: list[Path], held_out: list[Path]
) -> dict[str, float]:
    """Per pair of layers, the share of the teacher's variance on held-out crops that the adapters cannot explain."""
    device, generator = student.device, torch.Generator().manual_seed(0)
    adapters = training.make_adapters(student, teacher)
    photos = training.Photos(train, device)
    training.fit_adapters(adapters, student, teacher, [photos.crops(64, 80, generator) for _ in range(32)])
    crops = training.Photos(held_out, device).crops(256, 80, generator)
    with torch.no_grad():
        mine, theirs = training.ask_student(student, crops), training.ask_teacher(teacher, crops)
        parts = training.losses(mine, theirs, adapters, temperature=1.0)
    return {layer: parts[layer].item() for layer in training.PAIRS}


def bundled(student: lk.Backbone, teacher: lk.Backbone) -> str:
    """Each bundled photo: the teacher's first answer, and its rank among the student's."""
    said = []
    for name in lk.PHOTOS:
        picture = middle(lk.photo(name))
        wanted = teacher.logits(picture).argmax().item()
        rank = (student.logits(picture)[0].argsort(descending=True) == wanted).nonzero().item() + 1
        said.append(f"{name}: {teacher.classes[wanted]}, rank {rank}")
    return "; ".join(said)


def measure(photos: Path, weights: str, device: str | None = None) -> dict[str, str]:
    """All rows of the table, as printed."""
    teacher = lk.load_backbone(training.TEACHER, device)
    student = training.make_student(weights, teacher.device).requires_grad_(False)
    train, held_out = training.find_photos([photos / "imagenet_samples"])
    errors = unexplained(student, teacher, train, held_out)
    unseen = answers(student, teacher, sorted((photos / "bsds" / "eval").glob("*.jpg")))
    confidence = unseen[0].softmax(1).amax(1).mean()
    return {
        "agreement with the teacher's first class, photos never seen, top 1 / top 5": agreements(*unseen),
        "the same on the training photos": agreements(*answers(student, teacher, train)),
        "mean confidence / calibration error, photos never seen": (
            f"{100 * confidence:.1f} % / {calibration_error(*unseen):.3f}"
        ),
        "classes that both see, photos never seen": named_alike(*unseen, teacher.classes),
        f"unexplained feature variance at {', '.join(errors)}": ", ".join(f"{e:.3f}" for e in errors.values()),
        "the teacher's first class among the student's": bundled(student, teacher),
    }


def as_table(rows: dict[str, str]) -> str:
    lines = ["| measure | value |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows.items())]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--weights", default="pocket", help="a safetensors file; default: the bundled one")
    parser.add_argument("--device", help="default: the best there is")
    parser.add_argument("--write", type=Path, metavar="CARD", help="put the table into this model card")
    given = parser.parse_args()
    table = as_table(measure(given.photos, given.weights, given.device))
    print(table)
    if given.write:
        card = given.write.read_text(encoding="utf-8")
        given.write.write_text(TABLE.sub(lambda _: table + "\n", card, count=1), encoding="utf-8")


if __name__ == "__main__":
    main()
