"""Make the pocket network that is shipped of what `train_pocket.py` wrote, and print one line of JSON about it.

    python tools/finish_pocket.py PHOTOS [PHOTOS ...] --results RUN [RUN ...] --output pocket.safetensors

PHOTOS are the folders of the training: those held out of it, every 20th, decide the temperature; `--unseen` names a
folder for measuring alone. The weights are the mean of the results' weights (Wortsman et al. 2022, arXiv:2203.05482).
The head loses its mean over the classes, which changes no probability, and its logits are divided by the temperature
at which the teacher's first class is likeliest on the held-out photos (Guo et al. 2017, arXiv:1706.04599), which
changes no order.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import eval_pocket as evaluation
import torch
import torch.nn.functional as F
import train_pocket as training
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import labkit as lk
from labkit.base.files import written_whole

State = dict[str, Tensor]


def mean(states: list[State]) -> State:
    return {key: torch.stack([state[key].float() for state in states]).mean(0) for key in states[0]}


def centered(state: State) -> State:
    """The same probabilities from logits whose mean over the classes is zero."""
    return state | {key: state[key] - state[key].mean(0) for key in ("logits.weight", "logits.bias")}


def tempered(state: State, temperature: float) -> State:
    return state | {key: state[key] / temperature for key in ("logits.weight", "logits.bias")}


def fit_temperature(mine: Tensor, theirs: Tensor) -> float:
    """By what to divide the student's logits so that the teacher's first classes are likeliest."""
    tried = torch.logspace(-1, 1, 401).tolist()
    return min(tried, key=lambda one: F.cross_entropy(mine / one, theirs.argmax(1)).item())


def judged(mine: Tensor, theirs: Tensor) -> dict[str, float]:
    """Agreement, confidence and calibration of logits."""
    found = {f"top{top}": training.agreement(mine, theirs, top) for top in (1, 5)}
    found["confidence"] = mine.softmax(1).amax(1).mean().item()
    found["calibration_error"] = evaluation.calibration_error(mine, theirs)
    return {key: round(value, 4) for key, value in found.items()}


def history(path: Path) -> dict[str, object]:
    with safe_open(path, "pt") as file:
        return {key: json.loads(value) for key, value in (file.metadata() or {}).items()}


def finish(
    results: list[Path], folders: list[Path], output: Path, unseen: Path | None = None, device: str | None = None
) -> dict[str, object]:
    """Write OUTPUT, with what is returned in its metadata: the runs, the temperature, and how well the network does."""
    state = centered(mean([load_file(path) for path in results]))
    teacher = lk.load_backbone(training.TEACHER, device)
    train, held_out = training.find_photos(folders)
    about: dict[str, object] = {"teacher": training.TEACHER, "runs": [history(path) for path in results]}
    with written_whole(output) as path:
        save_file(state, path)
        student = training.make_student(str(path), teacher.device).requires_grad_(False)
        mine, theirs = evaluation.answers(student, teacher, held_out)
        about["temperature"] = temperature = round(fit_temperature(mine, theirs), 3)
        about["held_out"] = judged(mine / temperature, theirs) | {
            "calibration_error_before": round(evaluation.calibration_error(mine, theirs), 4)
        }
        if unseen is not None:
            photos = sorted(one for one in unseen.iterdir() if one.suffix.lower() in training.SUFFIXES)
            mine, theirs = evaluation.answers(student, teacher, photos)
            about["unseen"] = judged(mine / temperature, theirs) | {
                "calibration_error_before": round(evaluation.calibration_error(mine, theirs), 4)
            }
        errors = evaluation.unexplained(student, teacher, train[::6], held_out)
        about["unexplained"] = {layer: round(error, 4) for layer, error in errors.items()}
        state = {key: value.half().contiguous() for key, value in tempered(state, temperature).items()}
        save_file(state, path, {key: json.dumps(value) for key, value in about.items()})
    return about


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="+", type=Path, help="the folders of the training")
    parser.add_argument("--results", nargs="+", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("pocket.safetensors"))
    parser.add_argument("--unseen", type=Path, metavar="FOLDER", help="photos for measuring")
    parser.add_argument("--device", help="default: the best there is")
    given = parser.parse_args()
    about = finish(given.results, given.photos, given.output, given.unseen, given.device)
    print(json.dumps({"output": given.output.name} | {key: value for key, value in about.items() if key != "runs"}))


if __name__ == "__main__":
    main()
