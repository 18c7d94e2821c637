"""Train the pocket network: distil the network of the original DeepDream into it, on any folder of photos.

    python tools/train_pocket.py PHOTOS [PHOTOS ...] --minutes 60 --output pocket.safetensors

The student looks at random crops and learns to say what the teacher says of the same crop: the teacher's features,
through 1x1 adapters that are thrown away afterwards, and its class probabilities. A patient teacher and strong crops
go far with few photos (Beyer et al. 2021, arXiv:2106.05237; Asano and Saeed 2021, arXiv:2112.00725). With
`--gradient-weight` it also learns where the teacher's gradients point in the pixels, which is what a dream follows
(Srinivas and Fleuret 2018, arXiv:1803.00443).

Every 20th photo of each folder is held out. The run writes OUTPUT (safetensors, float16, its history in the metadata),
the curves beside it (.json), and a checkpoint (.checkpoint); after a kill, the same command goes on from there. What it
writes is the mean of the weights over the last steps. `--start` goes on from weights that exist, "none" begins anew.
`tools/finish_pocket.py` makes what is shipped of the results of one or several runs.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim.swa_utils import get_ema_multi_avg_fn

import labkit as lk
from labkit.base.devices import off_mps
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
STEERED = 8  # one in so many crops is asked for gradients too
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


def read_photo(path: Path, side: int) -> Tensor:
    """A photo as bytes (3, H, W), no side of it longer than ``side``."""
    return (lk.load(path, side)[0] * 255).round().byte()


class Photos:
    """Photos as bytes on the device, each in the corner of a square canvas; crops are cut and resized there too."""

    def __init__(self, paths: list[Path], device: torch.device, side: int = 320):
        with ThreadPoolExecutor() as threads:
            photos = list(threads.map(lambda path: read_photo(path, side), paths))
        self.sizes = torch.tensor([photo.shape[1:] for photo in photos], dtype=torch.float32, device=device)
        side = max(max(photo.shape) for photo in photos)
        self.canvas = torch.zeros(len(paths), 3, side, side, dtype=torch.uint8)
        for canvas, photo in zip(self.canvas, photos, strict=True):
            canvas[:, : photo.shape[1], : photo.shape[2]] = photo
        self.canvas = self.canvas.to(device)

    def __len__(self) -> int:
        return len(self.sizes)

    def crops(self, number: int, size: int, generator: torch.Generator) -> Tensor:
        """``number`` random crops (number, 3, size, size) in [0, 1]: 12 to 100 % of a photo, any color cast, flips."""
        device, side = self.canvas.device, self.canvas.shape[-1]
        chosen = torch.randint(len(self), (number,), generator=generator).to(device)
        drawn = iter(torch.rand(11, number, generator=generator).to(device))

        def uniform(low: float, high: float) -> Tensor:
            return low + (high - low) * next(drawn)

        height, width = self.sizes[chosen].T
        area, ratio = height * width * uniform(0.12, 1), uniform(-0.285, 0.285).exp()
        h, w = (area / ratio).sqrt().minimum(height), (area * ratio).sqrt().minimum(width)
        y, x = h / 2 + (height - h) * uniform(0, 1), w / 2 + (width - w) * uniform(0, 1)
        mirror, zero = (uniform(0, 1) < 0.5) * 2.0 - 1, torch.zeros_like(w)
        rows = torch.stack([w * mirror, zero, 2 * x - side, zero, h, 2 * y - side], 1) / side
        # Twice as fine as wanted and averaged: a sampler reads single pixels and would alias.
        grid = F.affine_grid(rows.view(number, 2, 3), [number, 3, 2 * size, 2 * size], align_corners=False)
        photos = self.canvas[chosen].float()
        crops = F.avg_pool2d(F.grid_sample(photos, grid, align_corners=False, padding_mode="border"), 2) / 255
        changed = (uniform(0, 1) < 0.5).float()
        contrast = 1 + changed * uniform(-0.3, 0.3)
        light, cast = uniform(-0.1, 0.1), torch.stack([uniform(-0.05, 0.05) for _ in range(3)], 1)
        light = changed[:, None] * (light[:, None] + cast)
        crops = crops * contrast[:, None, None, None] + light[..., None, None]
        return crops.clamp_(0, 1).contiguous(memory_format=torch.channels_last)


def mix(crops: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """The first ``number`` crops mixed with others: half of them blended (mixup, arXiv:1710.09412), half of them with
    a rectangle of another pasted in (CutMix, arXiv:1905.04899). The teacher is asked about what comes out.
    """
    size, device = crops.shape[-1], crops.device
    share = torch.rand(number, 3, generator=generator).to(device)
    others = crops[torch.randperm(len(crops), generator=generator)[:number].to(device)]
    place = torch.arange(size, device=device) / size
    side = share[:, :1].sqrt()
    inside = [
        (place >= corner * (1 - side)) & (place < corner * (1 - side) + side) for corner in share[:, 1:, None].unbind(1)
    ]
    pasted = (inside[0][:, :, None] & inside[1][:, None, :]).float()
    blended = torch.arange(number, device=device) % 2 == 0
    weight = torch.where(blended[:, None, None], share[:, :1, None], pasted)[:, None]
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
        found = network.run(crops, [*layers.values(), "logits"])
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


def adapted(student: Answer, teacher: Answer, adapters: nn.ModuleDict) -> Answer:
    """The student's answer with its features in the teacher's channels and sizes, in float32."""
    features = {}
    for layer, theirs in teacher.features.items():
        with torch.autocast(theirs.device.type, torch.bfloat16):
            mine = adapters[layer](student.features[layer])
        features[layer] = fitted(mine.float(), theirs)
    return Answer(features, student.logits)


def losses(student: Answer, teacher: Answer, adapters: nn.ModuleDict, temperature: float) -> dict[str, Tensor]:
    """Per pair the share of the teacher's variance that is left unexplained, and "kl", the classes' divergence."""
    parts = {}
    for layer, mine in adapted(student, teacher, adapters).features.items():
        theirs = teacher.features[layer].float()
        parts[layer] = F.mse_loss(mine, theirs) / theirs.var()
    targets = (teacher.logits / temperature).log_softmax(1)
    answers = (student.logits / temperature).log_softmax(1)
    parts["kl"] = temperature**2 * F.kl_div(answers, targets, reduction="batchmean", log_target=True)
    return parts


def pull(answer: Answer, wanted: Answer) -> Tensor:
    """What the pixels are asked to raise: on a third of the crops the log-probability of the wanted first class, on a
    third each the features of the two deepest pairs along the wanted ones, as dreams do.
    """
    third = -(-len(wanted.logits) // 3)
    first = wanted.logits[:third].argmax(1, keepdim=True)
    pulled = answer.logits[:third].log_softmax(1).gather(1, first).sum()
    for number, layer in enumerate(list(PAIRS)[-2:], 1):
        part = slice(number * third, (number + 1) * third)
        mine, theirs = answer.features[layer][part].float(), wanted.features[layer][part].float()
        pulled = pulled + (mine * theirs).sum()
    return pulled


def steering(student: lk.Backbone, teacher: lk.Backbone, adapters: nn.ModuleDict, crops: Tensor) -> Tensor:
    """1 - the cosine between what the teacher's `pull` would change in the crops, and the student's, on average."""
    with torch.enable_grad():
        pixels = crops.detach().requires_grad_()
        asked = ask(teacher, pixels, PAIRS)
        wanted = Answer({layer: theirs.detach() for layer, theirs in asked.features.items()}, asked.logits.detach())
        (theirs,) = torch.autograd.grad(pull(asked, wanted), pixels)
        mine = pull(adapted(ask_student(student, pixels), wanted, adapters), wanted)
        (mine,) = torch.autograd.grad(mine, pixels, create_graph=True)
    return 1 - F.cosine_similarity(mine.flatten(1), theirs.flatten(1)).mean()


@torch.no_grad()
def fit_adapters(adapters: nn.ModuleDict, student: lk.Backbone, teacher: lk.Backbone, crops: list[Tensor]) -> None:
    """Set the adapters to the least-squares solution on ``crops``: the best start, and a fair judge of features."""
    sums: dict[str, tuple[Tensor, Tensor]] = {}
    for part in crops:
        mine, theirs = ask_student(student, part), ask_teacher(teacher, part)
        for layer, target in theirs.features.items():
            y = off_mps(target).double().movedim(1, -1).flatten(0, -2)
            x = off_mps(fitted(mine.features[layer].float(), target)).double().movedim(1, -1).flatten(0, -2)
            x = torch.cat([x, x.new_ones(len(x), 1)], 1)
            old = sums.get(layer, (0, 0))
            sums[layer] = (old[0] + x.T @ x, old[1] + x.T @ y)
    for layer, (gram, cross) in sums.items():
        ridge = 1e-6 * gram.diagonal().mean() * torch.eye(len(gram)).to(gram)
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
    gradient_weight: float = 0.0
    average: float = 0.999  # how much of the mean of the weights a step leaves as it is
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
        self.recipe, self.checkpoint, self.device = recipe, checkpoint, device
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
        self.parameters = [p for p in (*self.student.parameters(), *self.adapters.parameters()) if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0, fused=device.type == "cuda"
        )
        self.seconds, self.step, self.used, self.curves = 0.0, 0, 0, []
        if state:
            self._resume(state)
        else:
            fit_adapters(self.adapters, self.student, self.teacher, [self.cut(80) for _ in range(self.ROUND)])
            self.average = [p.detach().clone() for p in self.parameters]

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
            if self.device.type == "cuda":
                torch.cuda.synchronize()  # or the clock would run ahead of the work
            self.seconds += time.monotonic() - begun
            yield

    def _step(self, crops: Tensor, answer: Answer, done: float) -> None:
        """One step, of nothing that waits for the device."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.rate(self.step, done)
        parts = losses(ask_student(self.student, crops), answer, self.adapters, self.recipe.temperature)
        kl = parts.pop("kl")
        weighted = (weight * part for weight, part in zip(self.recipe.feature_weights, parts.values(), strict=True))
        loss = sum(weighted) + self.recipe.class_weight * kl
        if self.recipe.gradient_weight:
            whole = crops[-max(3, len(crops) // STEERED) :]  # the last are the least mixed
            loss = loss + self.recipe.gradient_weight * steering(self.student, self.teacher, self.adapters, whole)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.student.parameters(), 5.0)
        self.optimizer.step()
        get_ema_multi_avg_fn(self.recipe.average)(self.average, self.parameters, None)
        self.step, self.used = self.step + 1, self.used + len(crops)

    @contextmanager
    @torch.no_grad()
    def averaged(self) -> Iterator[None]:
        """Within it student and adapters have the mean of their weights over the last steps."""
        own = [p.clone() for p in self.parameters]
        for parameter, mean in zip(self.parameters, self.average, strict=True):
            parameter.copy_(mean)
        try:
            yield
        finally:
            for parameter, value in zip(self.parameters, own, strict=True):
                parameter.copy_(value)

    def report(self) -> dict[str, float]:
        """The losses on fixed crops of the held-out photos, kept in the curves: of the mean of the weights over the
        last steps, and, as "last_...", of the weights of the last step.
        """
        row = {"minutes": self.seconds / 60, "crops": self.used}
        with self.averaged():
            row |= self._judge()
        row |= {f"last_{key}": value for key, value in self._judge().items()}
        self.curves.append({key: round(value, 4) for key, value in row.items()})
        return self.curves[-1]

    def _judge(self) -> dict[str, float]:
        crops = self.held_out.crops(128, 80, torch.Generator().manual_seed(0))
        theirs = ask_teacher(self.teacher, crops)
        with torch.no_grad():
            mine = ask_student(self.student, crops)
            found = {key: value.item() for key, value in losses(mine, theirs, self.adapters, 1.0).items()}
        if self.recipe.gradient_weight:
            with torch.enable_grad():
                found["gradient"] = steering(self.student, self.teacher, self.adapters, crops[:48]).item()
        return found | {"top5": agreement(mine.logits, theirs.logits, 5)}

    def save(self, output: Path, report: dict[str, float]) -> None:
        """Write the checkpoint, the folded weights and the curves, each whole or not at all."""
        state = {
            "settings": self.settings,
            "student": self.student.state_dict(),
            "adapters": self.adapters.state_dict(),
            "average": self.average,
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
        with written_whole(output) as path, self.averaged():
            save_file(folded(self.student), path, {key: json.dumps(value) for key, value in about.items()})
        with written_whole(output.with_suffix(".json")) as path:
            path.write_text(json.dumps({**about, "curves": self.curves}, indent=1) + "\n")

    def _resume(self, state: dict[str, Any]) -> None:
        self.student.load_state_dict(state["student"])
        self.adapters.load_state_dict(state["adapters"])
        self.average = [mean.to(self.device) for mean in state["average"]]
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
