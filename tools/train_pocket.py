"""Train the pocket network: distil the network of the original DeepDream into it, on any folder of photos.

    python tools/train_pocket.py PHOTOS [PHOTOS ...] --minutes 60 --output pocket.safetensors

The student looks at random crops and learns to say what the teacher says of the same crop: the teacher's features,
through 1x1 adapters that are thrown away afterwards, and its class probabilities. A patient teacher and strong crops
go far with few photos (Beyer et al. 2021, arXiv:2106.05237; Asano and Saeed 2021, arXiv:2112.00725).

Every 20th photo of each folder is held out. The run writes OUTPUT (safetensors, float16, its history in the metadata),
the curves beside it (.json), and a checkpoint (.checkpoint); after a kill, the same command goes on from there.
`--start` goes on from weights that exist, "none" begins anew.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils import parametrize

import labkit as lk
from labkit.base.files import written_whole
from labkit.engine.training import load_checkpoint

TEACHER = "googlenet_bvlc"
# Which layer of the student learns from which of the teacher; a pair shares its stride.
PAIRS = {
    "relu2_2": "conv1/7x7_s2",
    "relu3_3": "conv2/3x3",
    "relu4_3": "inception_3b",
    "relu5_3": "inception_4e",
}
HELD_OUT = 20
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


# --- photos --------------------------------------------------------------------------------------------------------


def find_photos(folders: list[Path]) -> tuple[list[Path], list[Path]]:
    """The photos of ``folders`` to train on, and those held out: every 20th of each folder, in order of names."""
    training, held_out = [], []
    for folder in folders:
        paths = sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in SUFFIXES)
        if len(paths) < 2:
            raise ValueError(f"{folder} holds {len(paths)} photos: name folders with .jpg, .png or .webp files in them")
        held_out += paths[::HELD_OUT]
        training += [path for number, path in enumerate(paths) if number % HELD_OUT]
    return training, held_out


class Photos:
    """Photos as bytes on the device, each in the corner of a square canvas; crops are cut and resized there too."""

    def __init__(self, paths: list[Path], device: torch.device, side: int = 320):
        self.canvas = torch.zeros(len(paths), 3, side, side, dtype=torch.uint8)
        self.sizes = torch.empty(len(paths), 2)
        for number, path in enumerate(paths):
            photo = lk.load(path, side)[0]
            height, width = photo.shape[-2:]
            self.canvas[number, :, :height, :width] = (photo * 255).round().byte()
            self.sizes[number] = torch.tensor([height, width])
        self.canvas, self.sizes = self.canvas.to(device), self.sizes.to(device)

    def __len__(self) -> int:
        return len(self.sizes)

    def crops(self, number: int, size: int, generator: torch.Generator) -> Tensor:
        """``number`` random crops (number, 3, size, size) in [0, 1]: 12 to 100 % of a photo, any color cast, flips."""

        def uniform(low: float, high: float) -> Tensor:
            return low + (high - low) * torch.rand(number, generator=generator)

        chosen = torch.randint(len(self), (number,), generator=generator)
        height, width = self.sizes[chosen.to(self.sizes.device)].cpu().T
        area, ratio = height * width * uniform(0.12, 1), uniform(-0.285, 0.285).exp()
        h, w = (area / ratio).sqrt().minimum(height), (area * ratio).sqrt().minimum(width)
        y, x = h / 2 + (height - h) * uniform(0, 1), w / 2 + (width - w) * uniform(0, 1)
        mirror = (uniform(0, 1) < 0.5) * 2.0 - 1
        side = self.canvas.shape[-1]
        zero = torch.zeros(number)
        rows = torch.stack([w * mirror, zero, 2 * x - side, zero, h, 2 * y - side], 1) / side
        device = self.canvas.device
        # Twice as fine as wanted and averaged: a sampler reads single pixels and would alias.
        grid = F.affine_grid(rows.view(number, 2, 3).to(device), [number, 3, 2 * size, 2 * size], align_corners=False)
        photos = self.canvas[chosen.to(device)].float().div_(255)
        crops = F.avg_pool2d(F.grid_sample(photos, grid, align_corners=False, padding_mode="border"), 2)
        changed = (uniform(0, 1) < 0.5).float()[:, None]
        contrast = 1 + changed * torch.stack([uniform(-0.3, 0.3)] * 3, 1)
        light = changed * (uniform(-0.1, 0.1)[:, None] + torch.stack([uniform(-0.05, 0.05) for _ in range(3)], 1))
        crops = crops * contrast.to(device)[..., None, None] + light.to(device)[..., None, None]
        return crops.clamp_(0, 1).contiguous(memory_format=torch.channels_last)


def mix(crops: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """The first ``number`` crops mixed with others: half of them blended (mixup, arXiv:1710.09412), half of them with
    a rectangle of another pasted in (CutMix, arXiv:1905.04899). The teacher is asked about what comes out.
    """
    size, share = crops.shape[-1], torch.rand(number, 3, generator=generator)
    others = crops[torch.randperm(len(crops), generator=generator)[:number].to(crops.device)]
    place = torch.arange(size) / size
    side = share[:, :1].sqrt()
    inside = [
        (place >= corner * (1 - side)) & (place < corner * (1 - side) + side) for corner in share[:, 1:, None].unbind(1)
    ]
    pasted = (inside[0][:, :, None] & inside[1][:, None, :]).float()
    blended = torch.arange(number) % 2 == 0
    weight = torch.where(blended[:, None, None], share[:, :1, None], pasted)[:, None].to(crops.device)
    crops[:number] = torch.lerp(crops[:number], others, weight)
    return crops


# --- student and teacher --------------------------------------------------------------------------------------------


class Standardized(nn.Module):
    """Scaled weight standardization (Brock et al. 2021, arXiv:2101.08692) as a parametrization of a convolution.

    Each filter has mean 0 and norm ``gain``; what the optimizer moves is the raw filter, whose size of 0.07 makes a
    step a few per cent of it. It takes the place of batch normalization, and folds away in the end.
    """

    raw_size = 0.07

    def forward(self, raw: Tensor, gain: Tensor) -> Tensor:
        variance, mean = torch.var_mean(raw, (1, 2, 3), keepdim=True, correction=0)
        return (raw - mean) * torch.rsqrt(variance * raw[0].numel() + 1e-8) * gain.view(-1, 1, 1, 1)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        spread, mean = torch.std_mean(weight, (1, 2, 3), keepdim=True, correction=0)
        return (weight - mean) / spread * self.raw_size, (spread * weight[0].numel() ** 0.5).flatten()


def make_student(start: str, device: torch.device) -> lk.Backbone:
    """The pocket network, trainable: from the bundled weights ("pocket"), a file, or anew ("none")."""
    student = lk.load_backbone("pocket", device)
    convolutions = named_convolutions(student)
    if start == "none":
        for convolution in convolutions.values():
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            nn.init.zeros_(convolution.bias)
        student.head.reset_parameters()
    elif start != "pocket":
        state = load_file(start)
        for name, module in [*convolutions.items(), ("logits", student.head)]:
            module.load_state_dict({key: state[f"{name}.{key}"] for key in ("weight", "bias")})
    for convolution in convolutions.values():
        parametrize.register_parametrization(convolution, "weight", Standardized())
    return student.requires_grad_(True).to(memory_format=torch.channels_last)


def named_convolutions(student: lk.Backbone) -> dict[str, nn.Conv2d]:
    pairs = zip(student.names, student.stages, strict=True)
    return {name: stage for name, stage in pairs if isinstance(stage, nn.Conv2d)}


def folded(student: lk.Backbone) -> dict[str, Tensor]:
    """What is shipped: plain convolutions and the head, float16."""
    modules = named_convolutions(student) | {"logits": student.head}
    parts = {f"{name}.{key}": getattr(m, key) for name, m in modules.items() for key in ("weight", "bias")}
    return {key: value.detach().half().cpu().contiguous() for key, value in parts.items()}


def make_adapters(student: lk.Backbone, teacher: lk.Backbone) -> nn.ModuleDict:
    """One 1x1 convolution per pair, from the student's channels to the teacher's."""
    channels = {mine: (student.channels(mine), teacher.channels(theirs)) for mine, theirs in PAIRS.items()}
    adapters = nn.ModuleDict({mine: nn.Conv2d(*sizes, 1) for mine, sizes in channels.items()})
    return adapters.to(student.device, memory_format=torch.channels_last)


@dataclass
class Answer:
    """What a network says of some crops: features at the layers of PAIRS, named as the student's, and logits."""

    features: dict[str, Tensor]
    logits: Tensor


def ask(network: lk.Backbone, crops: Tensor, layers: dict[str, str]) -> Answer:
    """The answer of ``network``; ``layers`` maps the student's names to its own. bfloat16 inside."""
    with torch.autocast(network.device.type, torch.bfloat16):
        found = network.features(crops, [*layers.values(), "logits"])
    return Answer({mine: found[own] for mine, own in layers.items()}, found["logits"].float())


@torch.no_grad()
def ask_teacher(teacher: lk.Backbone, crops: Tensor) -> Answer:
    return ask(teacher, crops, PAIRS)


def ask_student(student: lk.Backbone, crops: Tensor) -> Answer:
    return ask(student, crops, {layer: layer for layer in PAIRS})


def fitted(feature: Tensor, like: Tensor) -> Tensor:
    """``feature`` at the size of ``like``: the teacher's ceil-mode pools can be a row larger."""
    same = feature.shape[2:] == like.shape[2:]
    return feature if same else F.interpolate(feature, like.shape[2:], mode="bilinear")


def losses(student: Answer, teacher: Answer, adapters: nn.ModuleDict, temperature: float) -> dict[str, Tensor]:
    """Per pair the share of the teacher's variance that is left unexplained, and "kl", the classes' divergence."""
    parts = {}
    for layer, theirs in teacher.features.items():
        with torch.autocast(theirs.device.type, torch.bfloat16):
            mine = adapters[layer](student.features[layer])
        theirs = theirs.float()
        parts[layer] = F.mse_loss(fitted(mine.float(), theirs), theirs) / theirs.var()
    targets = (teacher.logits / temperature).log_softmax(1)
    answers = (student.logits / temperature).log_softmax(1)
    parts["kl"] = temperature**2 * F.kl_div(answers, targets, reduction="batchmean", log_target=True)
    return parts


@torch.no_grad()
def fit_adapters(adapters: nn.ModuleDict, student: lk.Backbone, teacher: lk.Backbone, crops: list[Tensor]) -> None:
    """Set the adapters to the least-squares solution on ``crops``: the best start, and a fair judge of features."""
    sums: dict[str, tuple[Tensor, Tensor]] = {}
    for part in crops:
        mine, theirs = ask_student(student, part), ask_teacher(teacher, part)
        for layer, target in theirs.features.items():
            y = target.double().movedim(1, -1).flatten(0, -2).cpu()
            x = fitted(mine.features[layer].float(), target).double().movedim(1, -1).flatten(0, -2).cpu()
            x = torch.cat([x, x.new_ones(len(x), 1)], 1)
            old = sums.get(layer, (0, 0))
            sums[layer] = (old[0] + x.T @ x, old[1] + x.T @ y)
    for layer, (gram, cross) in sums.items():
        ridge = 1e-6 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
        solution = torch.linalg.solve(gram + ridge, cross).to(adapters[layer].weight)
        adapters[layer].weight.copy_(solution[:-1].T[..., None, None])
        adapters[layer].bias.copy_(solution[-1])


# --- the run --------------------------------------------------------------------------------------------------------


@dataclass
class Recipe:
    """What decides the result, apart from the photos: kept in the checkpoint, and compared when a run goes on."""

    minutes: float | None = 60
    crops: int | None = None  # a budget in crops instead of minutes: the same result at any speed
    start: str = "pocket"
    size: int = 80
    last_size: int = 80  # in the last fifth of the run sizes are drawn from `size` to this, in steps of 16
    batch: int = 64
    learning_rate: float = 1e-3
    feature_weights: tuple[float, ...] = (2.0, 2.0, 2.0, 2.0)  # one for each of PAIRS
    class_weight: float = 0.5
    temperature: float = 2.0
    head_only: bool = False  # what the network sees stays as it is; only the naming of it is learned
    mixed: float = 0.0  # the share of crops that are blends or collages of two
    seed: int = 0

    def __post_init__(self) -> None:
        self.feature_weights = tuple(self.feature_weights)
        if len(self.feature_weights) != len(PAIRS):
            raise ValueError(f"there are {len(PAIRS)} pairs of layers, and {len(self.feature_weights)} feature_weights")
        if self.last_size < self.size:
            raise ValueError(f"crops grow towards the end: last_size is {self.last_size}, smaller than {self.size}")

    def done(self, seconds: float, crops: int) -> float:
        """The share of the budget that is spent."""
        return crops / self.crops if self.crops else seconds / 60 / self.minutes

    def sizes(self, done: float) -> range:
        """The sides of crops to choose from: one, and at the end several, or a network learns how its teacher's pools
        meet the borders of one size.
        """
        return range(self.size, (self.size if done < 0.8 else self.last_size) + 1, 16)

    def rate(self, step: int, done: float) -> float:
        """The learning rate: 150 steps of warm-up, then half a cosine down to 1 %."""
        return self.learning_rate * min(1, (step + 1) / 150) * (0.505 + 0.495 * math.cos(math.pi * min(1, done)))


class Run:
    """A training run that can be stopped at any round and resumed from its checkpoint."""

    ROUND = 16  # batches that the teacher is asked about at once; each is used twice, the second time shuffled

    def __init__(self, recipe: Recipe, folders: list[Path], device: torch.device, checkpoint: Path):
        self.recipe, self.checkpoint = recipe, checkpoint
        self.order = random.Random(recipe.seed)
        torch.manual_seed(recipe.seed)
        training, held_out = find_photos(folders)
        self.settings = asdict(recipe) | {"photos": len(training)}
        state = load_checkpoint(checkpoint, self.settings)
        self.photos, self.held_out = Photos(training, device), Photos(held_out, device)
        self.teacher = lk.load_backbone(TEACHER, device).to(memory_format=torch.channels_last)
        self.student = make_student(recipe.start, device)
        self.adapters = make_adapters(self.student, self.teacher)
        if recipe.head_only:
            self.student.requires_grad_(False).head.requires_grad_(True)
        self.generator = torch.Generator().manual_seed(recipe.seed)
        parameters = [p for p in (*self.student.parameters(), *self.adapters.parameters()) if p.requires_grad]
        self.optimizer = torch.optim.AdamW(parameters, recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0)
        self.seconds, self.step, self.used, self.curves = 0.0, 0, 0, []
        if state:
            self._resume(state)
        else:
            fit_adapters(self.adapters, self.student, self.teacher, [self.cut(80) for _ in range(self.ROUND)])

    def cut(self, size: int) -> Tensor:
        crops = self.photos.crops(self.recipe.batch, size, self.generator)
        return mix(crops, round(self.recipe.mixed * len(crops)), self.generator)

    def rounds(self) -> Iterator[None]:
        """Train until the budget is spent, yielding after every round."""
        while (done := self.recipe.done(self.seconds, self.used)) < 1:
            begun = time.monotonic()
            size = self.order.choice(self.recipe.sizes(done))
            crops = [self.cut(size) for _ in range(self.ROUND)]
            answered = [(part, ask_teacher(self.teacher, part)) for part in crops]
            for part, answer in answered + self.order.sample(answered, len(answered)):
                self._step(part, answer, done)
            self.seconds += time.monotonic() - begun
            yield

    def _step(self, crops: Tensor, answer: Answer, done: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.rate(self.step, done)
        parts = losses(ask_student(self.student, crops), answer, self.adapters, self.recipe.temperature)
        kl = parts.pop("kl")
        weighted = (weight * part for weight, part in zip(self.recipe.feature_weights, parts.values(), strict=True))
        self.optimizer.zero_grad()
        (sum(weighted) + self.recipe.class_weight * kl).backward()
        nn.utils.clip_grad_norm_(self.student.parameters(), 5.0)
        self.optimizer.step()
        self.step, self.used = self.step + 1, self.used + len(crops)

    @torch.no_grad()
    def report(self) -> dict[str, float]:
        """The losses on fixed crops of the held-out photos, kept in the curves."""
        crops = self.held_out.crops(64, 80, torch.Generator().manual_seed(0))
        theirs, mine = ask_teacher(self.teacher, crops), ask_student(self.student, crops)
        row = {"minutes": self.seconds / 60, "crops": self.used}
        row |= {key: value.item() for key, value in losses(mine, theirs, self.adapters, 1.0).items()}
        row["top5"] = agreement(mine.logits, theirs.logits, 5)
        self.curves.append({key: round(value, 4) for key, value in row.items()})
        return self.curves[-1]

    def save(self, output: Path, report: dict[str, float]) -> None:
        """Write the checkpoint, the folded weights and the curves, each whole or not at all."""
        state = {
            "settings": self.settings,
            "student": self.student.state_dict(),
            "adapters": self.adapters.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "order": list(self.order.getstate()[1]),
            "progress": [self.seconds, self.step, self.used],
            "curves": self.curves,
        }
        with written_whole(self.checkpoint) as path:
            torch.save(state, path)
        recipe = asdict(self.recipe) | {"start": Path(self.recipe.start).name}  # its folder is nobody's business
        about = {"recipe": recipe, "teacher": TEACHER, "photos": len(self.photos), "held_out": report}
        with written_whole(output) as path:
            save_file(folded(self.student), path, {key: json.dumps(value) for key, value in about.items()})
        with written_whole(output.with_suffix(".json")) as path:
            path.write_text(json.dumps({**about, "curves": self.curves}, indent=1) + "\n")

    def _resume(self, state: dict[str, Any]) -> None:
        self.student.load_state_dict(state["student"])
        self.adapters.load_state_dict(state["adapters"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"].cpu())
        self.order.setstate((3, tuple(state["order"]), None))
        self.seconds, self.step, self.used = state["progress"]
        self.curves = state["curves"]


def agreement(mine: Tensor, theirs: Tensor, top: int) -> float:
    """The share of pictures whose first class by ``theirs`` is among the ``top`` first of ``mine`` (both logits)."""
    return (mine.topk(top).indices == theirs.argmax(1, keepdim=True)).any(1).float().mean().item()


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="+", type=Path, help="folders of photos")
    parser.add_argument("--output", type=Path, default=Path("pocket.safetensors"))
    parser.add_argument("--device", help="cpu, cuda, mps; default: the best there is")
    parser.add_argument("--save-every", type=float, default=2, metavar="MINUTES", help="report and save (default 2)")
    kinds = {"start": str, "crops": int, "size": int, "last_size": int, "batch": int, "seed": int}
    for key, value in asdict(Recipe()).items():
        option = "--" + key.replace("_", "-")
        if isinstance(value, bool):
            parser.add_argument(option, action="store_true")
            continue
        many = {"nargs": len(value)} if isinstance(value, tuple) else {}
        parser.add_argument(option, **many, type=kinds.get(key, float), default=value, help=f"default: {value}")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    given = parse(arguments)
    recipe = Recipe(**{key: getattr(given, key) for key in asdict(Recipe())})
    output = given.output
    run = Run(recipe, given.photos, lk.pick_device(given.device), output.with_suffix(".checkpoint"))
    if run.used:
        print(f"going on after {run.used:,} crops and {run.seconds / 60:.1f} minutes", flush=True)
    saved = -math.inf
    for _ in run.rounds():
        if run.seconds - saved >= 60 * given.save_every:
            saved = run.seconds
            run.save(output, tell(run.report()))
    if saved < run.seconds:
        run.save(output, tell(run.report()))


def tell(report: dict[str, float]) -> dict[str, float]:
    print("  ".join(f"{key} {value:,}" for key, value in report.items()), flush=True)
    return report


if __name__ == "__main__":
    main(sys.argv[1:])
