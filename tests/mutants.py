"""Wrong packages that the chapters must notice: each mutant is labkit with one line changed, and the chapter that
teaches this line is run with it. One that runs to its end teaches nothing about the line.

    python tests/mutants.py                    all chapters: some hours on two cores
    python tests/mutants.py 02 03 --only gram  those of two chapters whose text has "gram"
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from canonical import NOTEBOOKS, ROOT, execute


class Mutant(NamedTuple):
    """``old``, which stands once in a module of labkit, becomes ``new``."""

    module: str
    old: str
    new: str


GRADIENTS, DREAM, STYLES = "recipes/dream_gradients.py", "recipes/deepdream.py", "losses/styles.py"
ACTIVATIONS, CONTENT, ROUGH = "losses/activations.py", "losses/reconstruction.py", "losses/regularizers.py"
BACKBONE, FIELDS, PARAMETERS = "networks/backbone.py", "networks/receptive_fields.py", "engine/parameters.py"
CREATION, TRANSFER, TARGETS = "recipes/visualization.py", "recipes/style_transfer.py", "losses/target_statistics.py"

MUTANTS: dict[str, list[Mutant]] = {
    "01": [
        Mutant(BACKBONE, "(picture.to(device) - self.mean.float()) / self.std.float()", "picture.to(device)"),
        Mutant(
            BACKBONE,
            "(picture.to(device) - self.mean.float()) / self.std",
            "(picture.to(device) + self.mean) / self.std",
        ),
        Mutant(
            BACKBONE,
            "(picture.to(device) - self.mean.float()) / self.std",
            "(picture.to(device).flip(1) - self.mean) / self.std",
        ),
        Mutant(BACKBONE, 'vars(module)["inplace"] = False', 'vars(module)["inplace"] = True'),
        Mutant(BACKBONE, "fragile = name in overwritten", "fragile = False"),
        Mutant(
            BACKBONE,
            "zip(self.names[: last + 1], self.stages, strict=False)",
            "zip(self.names[: last + 1], self.stages[1:], strict=False)",
        ),
        Mutant(
            BACKBONE,
            "rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)",
            "rows = zip(best.indices.flip(1).tolist(), best.values.tolist(), strict=True)",
        ),
        Mutant(BACKBONE, "self.logits(picture).softmax(1)", "self.logits(picture).sigmoid()"),
        Mutant(BACKBONE, "return rows @ x @ columns.T", "return (rows @ x @ columns.T).flip(2)"),
        Mutant(
            BACKBONE,
            "return self.on_meta((size, size), layer).shape[1]",
            "return self.on_meta((size, size), layer).shape[1] - 1",
        ),
        Mutant(
            FIELDS,
            "return ReceptiveField(end - begin, down.stride, begin)",
            "return ReceptiveField(end - begin - 1, down.stride, begin)",
        ),
        Mutant(
            FIELDS,
            "return ReceptiveField(end - begin, down.stride, begin)",
            "return ReceptiveField(end - begin, down.stride, begin + 1)",
        ),
        Mutant(
            FIELDS,
            "return ReceptiveField(end - begin, down.stride, begin)",
            "return ReceptiveField(end - begin, 2 * down.stride, begin)",
        ),
        Mutant(
            FIELDS,
            "return ReceptiveField(end - begin, down.stride, begin)",
            "return ReceptiveField(end - begin, down.stride, 0)",
        ),
        Mutant(ACTIVATIONS, "f = f[:, self.loss.channel, None]", "f = f[:, self.loss.channel - 1, None]"),
        Mutant(ACTIVATIONS, "values = (f**self.loss.power).mean(1)", "values = -(f**self.loss.power).mean(1)"),
        Mutant(
            CONTENT,
            "targets = source.features(photo, tuple(weights))",
            "targets = source.features(photo.flip(3), tuple(weights))",
        ),
        Mutant(
            CONTENT, "window.crop_target(layer, target)).square()", "window.crop_target(layer, target)).clamp_min(0)"
        ),
        Mutant(ACTIVATIONS, "values = (f**self.loss.power).mean(1)", "values = (f**self.loss.power).mean(1).detach()"),
        Mutant(
            "engine/optimization.py",
            'optimizer.param_groups[0]["lr"] = learning_rate',
            'optimizer.param_groups[0]["lr"] = 0 * learning_rate',
        ),
    ],
    "02": [
        Mutant(GRADIENTS, "rolled(evaluation.gradient, -shifts)", "rolled(evaluation.gradient, shifts)"),
        Mutant(GRADIENTS, "rolled(evaluation.gradient, -shifts)", "evaluation.gradient"),
        Mutant(GRADIENTS, "picture.roll(shift, (1, 2))", "picture.roll(shift, (2, 1))"),
        Mutant(GRADIENTS, "torch.randint(-jitter, jitter + 1,", "torch.randint(0, jitter + 1,"),
        Mutant(GRADIENTS, "evaluate(rolled(picture, shifts))", "evaluate(picture)"),
        Mutant(
            GRADIENTS,
            "gradient.abs().mean((1, 2, 3), keepdim=True).clamp_min",
            "gradient.abs().amax((1, 2, 3), keepdim=True).clamp_min",
        ),
        Mutant(GRADIENTS, "for factor in (0.5, 1.0, 2.0)) / 3", "for factor in (0.5, 1.0, 2.0))"),
        Mutant(GRADIENTS, "for factor in (0.5, 1.0, 2.0)", "for factor in (0.5, 0.5, 0.5)"),
        Mutant(GRADIENTS, "    if sigma == 0:\n        return gradient", "    if sigma >= 0:\n        return gradient"),
        Mutant(DREAM, "Pixels((base + detail).clamp(0, 1))", "Pixels(base.clamp(0, 1))"),
        Mutant(DREAM, "detail = pixels.picture() - base", "detail = torch.zeros_like(base)"),
        Mutant(DREAM, "detail = pixels.picture() - base", "detail = pixels.picture()"),
        Mutant(DREAM, "base = resize(pictures, stage.size)", "base = resize(resize(pictures, sizes[0]), stage.size)"),
        Mutant(DREAM, "step_size / 255)", "-step_size / 255)"),
        Mutant(DREAM, "step_size / 255)", "step_size / 128)"),
        Mutant(DREAM, "octave_scale**-k for k in reversed(range(octaves))", "octave_scale**-k for k in range(octaves)"),
        Mutant(
            DREAM,
            "octave_scale**-k for k in reversed(range(octaves))",
            "octave_scale ** -(k / 2) for k in reversed(range(octaves))",
        ),
        Mutant(DREAM, "Sum([(-weight, activation(layer,", "Sum([(weight, activation(layer,"),
        Mutant(DREAM, "Sum([(w * draw, part) for", "Sum([(w, part) for"),
        Mutant(ACTIVATIONS, "values = (f**self.loss.power).mean(1)", "values = f.abs().mean(1)"),
        Mutant(ACTIVATIONS, "values = (f**self.loss.power).mean(1)", "values = (f**self.loss.power).sum(1)"),
        Mutant(GRADIENTS, "gradient if mask is None else gradient * mask", "gradient"),
    ],
    "03": [
        Mutant(STYLES, "return f @ f.mT / f.shape[2]", "return f @ f.mT / f.shape[1]"),
        Mutant(STYLES, "return f @ f.mT, f.sum(2)", "return f @ f.mT / 2, f.sum(2)"),
        Mutant(STYLES, "gap = (second - target).square().sum((1, 2))", "gap = (second - target).abs().sum((1, 2))"),
        Mutant(
            STYLES, "(target.square().sum((1, 2)) if self.relative", "(second.square().sum((1, 2)) if self.relative"
        ),
        Mutant(STYLES, "(last.flatten(1, 2) @ (second + second.mT).to(f))", "(last.flatten(1, 2) @ second.to(f))"),
        Mutant(STYLES, "- first[:, :, None] * first[:, None, :]", "- 0 * first[:, :, None] * first[:, None, :]"),
        Mutant(STYLES, "distance = gap.square().sum(1) + trace", "distance = trace"),
        Mutant(ROUGH, "square = dx.square() + dy.square()", "square = dx.square()"),
        Mutant(ROUGH, "square = dx.square() + dy.square()", "square = dy.square()"),
        Mutant(ROUGH, "dx.square() + dy.square()", "dx.abs() + dy.abs()"),
        Mutant(ROUGH, "(square + 1e-12) ** self.exponent", "(square + 1e-12) ** (self.exponent / 2)"),
        Mutant(CONTENT, "window.crop_target(layer, target)).square()", "window.crop_target(layer, target)).abs()"),
        Mutant(
            CONTENT,
            "target.square().mean((1, 2, 3)).clamp_min(1e-12) if",
            "target.abs().mean((1, 2, 3)).clamp_min(1e-12) if",
        ),
        Mutant(CONTENT, "photo = resize(self.photo, size).to", "photo = resize(self.photo.flip(3), size).to"),
        Mutant(TARGETS, '(summed / statistics[layer, "count"])', '(summed / statistics[layer, "count"].sqrt())'),
        Mutant(TARGETS, "(weight * self.distance(layer, means))", "self.distance(layer, means).square()"),
        Mutant(
            TARGETS,
            "side = max(1, round(self.scale * max(size)))",
            "side = max(1, round(0.5 * self.scale * max(size)))",
        ),
        Mutant(
            "recipes/objectives.py",
            "return loss + chroma_tv_weight * chroma_tv() if chroma_tv_weight else loss",
            "return loss",
        ),
        Mutant(TRANSFER, "steps * (k + 1) // len(sizes) - steps * k // len(sizes) for k", "steps // len(sizes) for k"),
        Mutant(TRANSFER, "factor := 2 ** (-len(factors) / 2)", "factor := 2 ** (-len(factors))"),
    ],
    "04": [
        Mutant(PARAMETERS, "self.scale = (frequency**-decay)", "self.scale = (frequency**decay)"),
        Mutant(PARAMETERS, "self.scale = (frequency**-decay)", "self.scale = (frequency**-0.0)"),
        Mutant(PARAMETERS, "[..., None].to(start.device) / 4", "[..., None].to(start.device)"),
        Mutant(
            PARAMETERS,
            "view_as_complex(self.parameters[0] * self.scale)",
            "view_as_complex(self.parameters[0] / self.scale)",
        ),
        Mutant(PARAMETERS, 'torch.einsum("rc,nchw->nrhw", root, decorrelated).sigmoid()', "decorrelated.sigmoid()"),
        Mutant(
            PARAMETERS,
            'torch.einsum("rc,nchw->nrhw", root, decorrelated).sigmoid()',
            'torch.einsum("cr,nchw->nrhw", root, decorrelated).sigmoid()',
        ),
        Mutant(PARAMETERS, "bent = x.atan()", "bent = x"),
        Mutant(PARAMETERS, "math.sqrt(3) * torch.linspace(-1, 1, s)", "40 * torch.linspace(-1, 1, s)"),
        Mutant(PARAMETERS, "rest = rest - enlarged(part, self.size)", "rest = rest + enlarged(part, self.size)"),
        Mutant(
            CREATION,
            "(gradient,) = torch.autograd.grad(moved, still, evaluation.gradient)",
            "gradient = evaluation.gradient",
        ),
        Mutant(
            CREATION,
            "draws = 2 * torch.rand(4, number, generator=generator) - 1",
            "draws = 0 * torch.rand(4, number, generator=generator)",
        ),
        Mutant(
            CREATION,
            "angle, scale = math.radians(rotate) * draws[0]",
            "angle, scale = 10 * math.radians(rotate) * draws[0]",
        ),
        Mutant(
            CREATION,
            "rows = [cosine, -sine * aspect, x, sine / aspect, cosine, y]",
            "rows = [cosine, sine * aspect, x, sine / aspect, cosine, y]",
        ),
        Mutant(CREATION, "network = network.redirected()", "network = network"),
        Mutant(ACTIVATIONS, "((unit @ unit.T).sum(1) - 1) / (len(unit) - 1)", "(unit @ unit.T).sum(1) / len(unit)"),
        Mutant(
            ACTIVATIONS,
            "return Sum([(1 - share, first), (share, last)])",
            "return Sum([(share, first), (1 - share, last)])",
        ),
        Mutant(
            ACTIVATIONS, "product / target * cosine.clamp_min(0.1) ** self.power", "cosine.clamp_min(0.1) ** self.power"
        ),
        Mutant(
            ACTIVATIONS,
            "return logits[:, target] - (logits.mean(1) if logits.shape[1] > 1 else 0)",
            "return logits[:, target + 1] - logits.mean(1)",
        ),
        Mutant(
            ACTIVATIONS,
            "[-activation(layer, channel=number, power=1) for number in numbers]",
            "[-activation(layer, channel=number + 1, power=1) for number in numbers]",
        ),
        Mutant(
            ACTIVATIONS,
            'f = torch.einsum("nchw,c->nhw", f, self.direction.to(f))[:, None]',
            'f = torch.einsum("nchw,c->nhw", f, -self.direction.to(f))[:, None]',
        ),
    ],
}


def mutated(mutant: Mutant, folder: Path) -> None:
    """A copy of labkit, with its data, in ``folder``, and the one line changed."""
    shutil.copytree(ROOT / "labkit", folder / "labkit", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "data").symlink_to(ROOT / "data")
    path = folder / "labkit" / mutant.module
    text = path.read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.old!r} stands {text.count(mutant.old)} times in {mutant.module}, not once")
    path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")


def caught(chapter: str, mutant: Mutant) -> str:
    """How a chapter fails that is run with a mutant, in a line; empty if it does not."""
    (path,) = NOTEBOOKS.glob(f"{chapter}_*.ipynb")
    with tempfile.TemporaryDirectory() as folder:
        mutated(mutant, Path(folder))
        with patch.dict(os.environ, {"PYTHONPATH": folder}):
            try:
                execute(path)
            except RuntimeError as error:
                lines = [line for line in str(error).splitlines() if line.strip()]
                return f"{lines[0].split(',')[1].strip()}: {lines[-1]}"
    return ""


def main(arguments: list[str] | None = None) -> int:
    """Run chapters with their mutants; 1 if one of these survives."""
    parser = argparse.ArgumentParser(description="Run chapters with one line of labkit changed.")
    parser.add_argument("chapters", nargs="*", metavar="CHAPTER", help=f"default: {' '.join(MUTANTS)}")
    parser.add_argument("--only", default="", help="those in whose module, old or new text this stands")
    options = parser.parse_args(arguments)
    survivors = 0
    for chapter in options.chapters or MUTANTS:
        for mutant in MUTANTS[chapter]:
            if options.only not in " ".join(mutant):
                continue
            started = time.perf_counter()
            said = caught(chapter, mutant)
            survivors += not said
            print(f"{chapter} {'caught  ' if said else 'SURVIVES'} {mutant.module}: {mutant.new!r}", flush=True)
            print(f"   {said[:150]} ({time.perf_counter() - started:.0f} s)", flush=True)
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main())
