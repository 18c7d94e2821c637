"""Tiles: exactly the whole picture's loss and gradient, in one process and in two, and no larger than memory allows."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from test_zoo import network, noise
from torch import Tensor

import labkit as lk
from labkit.engine import evaluator as gradients
from labkit.engine import tiles
from labkit.losses.algebra import PIXELS

SIZE = (149, 203)
STYLE = {"relu1_1": 1.0, "relu2_2": 2.0, "relu4_1": 1.0}


def evaluator(
    loss: lk.Loss, tile: int | str | None, name: str = "pocket", size: tuple[int, int] = SIZE
) -> lk.Evaluator:
    return lk.Evaluator(network(name), loss, size, "float32", tile=tile)


def relative_error(found: Tensor, truth: Tensor) -> float:
    return ((found - truth).norm() / truth.norm()).item()


# --- geometry --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pocket", "googlenet", "resnet50", "vgg19"])
@pytest.mark.parametrize("size", [(149, 203), (256, 256), (97, 331)])
@pytest.mark.parametrize("tile", [64, 100, 1000])
def test_every_position_is_owned_once(name: str, size: tuple[int, int], tile: int) -> None:
    backbone = network(name)
    layers = [*list(backbone.recommended.style), *backbone.recommended.content, PIXELS]
    found = tiles.cut(backbone, layers, size, tile)
    for layer in layers:
        owned = torch.zeros(size if layer == PIXELS else backbone.map_size(layer, size))
        for one in found:
            one.window.crop_target(layer, owned).add_(1)
        assert (owned == 1).all(), layer
    assert (len(found) == 1) == (tile == 1000)


def test_tiles_are_nearly_equal_and_about_as_large_as_asked() -> None:
    found = tiles.cut(network("pocket"), [PIXELS, "relu4_3"], (1000, 1500), 256)
    owned = [[span.stop - span.start for span in one.window.outer[PIXELS] if span.stop] for one in found]
    assert len(found) == 4 * 6
    assert all(240 <= side <= 256 for sides in owned for side in sides)


@pytest.mark.parametrize(
    ("name", "layer"),
    [("pocket", "relu2_2"), ("pocket", "relu4_3"), ("googlenet", "inception_3a"), ("vgg19", "relu3_4")],
)
def test_the_halo_is_as_wide_as_the_measured_influence(name: str, layer: str) -> None:
    """Pixels move the features of a block in the middle from ``before`` above it to ``after`` below it, no further."""
    backbone, side = network(name), 256
    before, after = tiles.halo(backbone, [layer])
    stride = backbone.receptive_field(layer).stride
    begin, end = 128 // stride, 160 // stride
    picture = noise(side, side).requires_grad_()
    picture_features = backbone.features(picture, [layer])[layer][..., begin:end, begin:end]
    (influence,) = torch.autograd.grad(picture_features.square().sum(), picture)
    rows = influence.abs().sum((0, 1, 3)).nonzero().flatten()
    assert rows.min() >= 128 - before and rows.max() < 160 + after
    # Not wider than it must be: a ReLU may hide the outermost pixels, a pool any one of its window.
    assert rows.min() <= 128 - before + 2 * stride and rows.max() >= 160 + after - 1 - 2 * stride


def test_the_logits_cannot_be_cut() -> None:
    with pytest.raises(ValueError, match="cannot be cut into tiles"):
        evaluator(lk.activation("logits", channel=1), 64)(noise(*SIZE))
    assert evaluator(lk.activation("logits", channel=1), "auto", size=(600, 600)).plan((600, 600)) == ""


# --- exactness -------------------------------------------------------------------------------------------------------

coffee = cache(lambda: lk.photo("coffee", SIZE))
koi = cache(lambda: lk.painting("koi_mosaic", 180))
LOSSES: dict[str, Callable[[], lk.Loss]] = {
    "activation": lambda: -lk.activation("relu4_3"),
    "relative activation": lambda: -lk.activation("relu3_2", relative=True),
    "channel": lambda: -lk.activation("relu3_3", channel=7, power=1),
    "neuron": lambda: -lk.activation("relu4_2", neuron=(0.4, 0.7), power=1),
    "direction": lambda: -lk.activation("relu2_2", direction=torch.linspace(-1, 1, 64)),
    "class": lambda: -lk.class_logit(285),
    "log energy": lambda: -lk.log_energy("relu4_1"),
    "class evidence": lambda: -lk.class_evidence("espresso", 285),
    "guide": lambda: -lk.guide(koi(), "relu3_1"),
    "content": lambda: lk.content(coffee(), ["relu2_2", "relu4_2"]),
    "gram": lambda: lk.style(koi(), STYLE),
    "wasserstein": lambda: lk.style(koi(), STYLE, statistic="wasserstein"),
    "sliced": lambda: lk.style(koi(), STYLE, statistic="sliced", projections=8),
    "two styles": lambda: lk.style([koi(), lk.photo("rocket", 120)], STYLE, weights=[1, 3]),
    "style in a mask": lambda: lk.style(koi(), STYLE, mask="center"),
    "histogram": lambda: lk.histogram(koi(), ["relu2_2", "relu3_1"]),
    "relaxed emd": lambda: lk.relaxed_emd(koi(), STYLE, samples=150),
    "self-similarity": lambda: lk.self_similarity(coffee(), STYLE),
    "caricature": lambda: -lk.caricature(coffee(), "relu3_3"),
    "diversity": lambda: lk.diversity("relu3_1"),
    "anchor": lambda: lk.pixel_mse(coffee()),
    "neighbors": lambda: lk.nearest_neighbors(coffee(), koi()),
    "neighbors by cosine": lambda: lk.nearest_neighbors(coffee(), koi(), distance="cosine"),
    "roughness": lk.total_variation,
    "rough chroma": lk.chroma_tv,
    "rough power": lambda: lk.total_variation(1.25),
    "sum": lambda: lk.content(coffee()) + 30 * lk.style(koi()) + lk.total_variation() - 0.1 * lk.activation("relu5_1"),
    "weights of a batch": lambda: torch.tensor([1.0, 2.0]) * lk.activation("relu3_3"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("tile", [64, 97])
def test_tiles_give_the_loss_and_gradient_of_the_whole(name: str, tile: int) -> None:
    loss = LOSSES[name]()
    pictures = torch.cat([lk.photo("chelsea", SIZE), lk.photo("rocket", SIZE)])
    whole, cut = evaluator(loss, None)(pictures), evaluator(loss, tile)
    for _ in range(2):  # a linear loss takes another way the second time
        found = cut(pictures)
        torch.testing.assert_close(found.loss, whole.loss, rtol=1e-5, atol=1e-7)
        assert relative_error(found.gradient, whole.gradient) < 1e-5
        for name, term in whole.terms.items():
            torch.testing.assert_close(found.terms[name], term, rtol=1e-5, atol=1e-7)


def test_tiles_are_exact_where_covariances_are_singular() -> None:
    """192 positions of 256 channels, in picture and painting: in float32 tiles would be off by 4e-5."""
    loss, size = lk.style(koi(), ["relu4_3"], statistic="wasserstein"), (96, 128)
    picture = lk.photo("chelsea", size)
    whole, cut = (evaluator(loss, tile, size=size)(picture) for tile in (None, 64))
    torch.testing.assert_close(cut.loss, whole.loss, rtol=1e-6, atol=0)
    assert relative_error(cut.gradient, whole.gradient) < 5e-6
    assert cut.loss.dtype == torch.float32


@pytest.mark.slow
@pytest.mark.parametrize("name", ["googlenet", "resnet50", "vgg16", "squeezenet1_1", "googlenet_bvlc"])
def test_tiles_are_exact_on_every_network(name: str) -> None:
    try:
        backbone = network(name)
    except FileNotFoundError:
        pytest.skip("its weights are not here")
    loss = lk.content(coffee()) + lk.style(koi()) - lk.activation(next(iter(backbone.recommended.dream)))
    picture = lk.photo("chelsea", SIZE)
    whole, cut = (evaluator(loss, tile, name)(picture) for tile in (None, 64))
    torch.testing.assert_close(cut.loss, whole.loss, rtol=1e-5, atol=1e-6)  # a difference of terms of order 1
    assert relative_error(cut.gradient, whole.gradient) < 1e-5


def test_without_the_halos_part_the_gradient_would_be_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the exactness rests on: tiles with the halo cut off their networks' view are far from the whole."""
    loss, picture = LOSSES["gram"](), lk.photo("chelsea", SIZE)
    whole = evaluator(loss, None)(picture).gradient
    monkeypatch.setattr(tiles, "halo", lambda backbone, layers: (0, 0))
    assert relative_error(evaluator(loss, 64)(picture).gradient, whole) > 0.02


def test_features_are_put_together_from_tiles() -> None:
    picture, layers = lk.photo("chelsea", SIZE), ["relu1_2", "relu4_3", "pool2"]
    whole, cut = (evaluator(lk.total_variation(), tile).features(picture, layers) for tile in (None, 64))
    for layer in layers:
        torch.testing.assert_close(cut[layer], whole[layer], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("loss", "runs"), [("activation", [8, 4, 4]), ("gram", [8, 8, 8])])
def test_a_linear_loss_saves_the_first_pass(monkeypatch: pytest.MonkeyPatch, loss: str, runs: list[int]) -> None:
    cut, count = evaluator(LOSSES[loss](), 120), 0
    run = cut._forward

    def counting(*arguments: object) -> object:
        nonlocal count
        count += 1
        return run(*arguments)

    monkeypatch.setattr(cut, "_forward", counting)
    found = []
    for seed in range(3):
        count = 0
        cut(noise(*SIZE, seed=seed))
        found.append(count)
    assert found == runs


@pytest.mark.slow
def test_recipes_take_tiles() -> None:
    photo = lk.photo("chelsea", 128)
    options = {"device": "cpu", "precision": "float32", "progress": False}
    for recipe, arguments in (
        (lk.dream, {"octaves": 2, "steps": 2, "step_size": 0.5}),
        (lambda x, **o: lk.stylize(x, koi(), **o), {"steps": 3, "min_scale": 100}),
    ):
        whole, cut = (recipe(photo, tile=tile, **arguments, **options) for tile in (None, 64))
        assert (whole - cut).abs().mean() < 1e-3 and (whole - photo).abs().mean() > 1e-3


# --- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tile", [0, 63, -64, 128.5, 10**6, "large"])
def test_senseless_tiles_are_refused(tile: object) -> None:
    with pytest.raises(ValueError, match=f'tile is "auto", None, or from 64 to 65,536 pixels, not {tile!r}'):
        evaluator(lk.total_variation(), tile)


def test_the_estimate_covers_what_a_forward_pass_keeps() -> None:
    layers, size = ["relu1_1", "relu2_1", "relu4_1"], (128, 160)
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    found = evaluator(lk.style(koi(), layers), None, size=size)
    weights = {p.data_ptr() for p in found.backbone.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        found(noise(*size))
    truth = sum(nbytes for pointer, nbytes in kept.items() if pointer not in weights)
    assert 1 < tiles.estimate(found.backbone, layers, size) / truth < 2.5


def test_the_tile_fits_the_memory() -> None:
    backbone, layers, size = network("pocket"), ["relu1_1", "relu4_3"], (3000, 4000)
    whole = tiles.estimate(backbone, layers, size)
    assert tiles.tile_for_memory(backbone, layers, size, 3 * whole) is None
    previous = 4096
    for share in (1.9, 0.5, 0.1, 0.02):
        tile = tiles.tile_for_memory(backbone, layers, size, int(share * whole))
        side = tile + sum(tiles.halo(backbone, layers))
        assert tiles.estimate(backbone, layers, (side, side)) <= share * whole / 2
        assert tile <= previous
        previous = tile
    assert tiles.tile_for_memory(backbone, layers, size, 1000) == tiles.LEAST


def test_auto_cuts_only_what_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    loss, large = lk.style(koi(), STYLE), (800, 600)
    monkeypatch.setattr(gradients, "free_memory", lambda device: 1 << 40)
    assert evaluator(loss, "auto").plan(large) == ""
    monkeypatch.setattr(gradients, "free_memory", lambda device: 1 << 28)
    found = evaluator(loss, "auto")
    assert found.plan(SIZE) == "" and "600x800 pixels in" in found.plan(large)
    assert 0 < tiles.free_memory(torch.device("cpu")) < 1 << 50


def test_a_container_s_limit_counts(tmp_path: Path) -> None:
    assert tiles.free_in_container(tmp_path) == math.inf
    stat = "anon 5\ninactive_file 300\nactive_file 7\n"
    for name, text in {"memory.max": "max\n", "memory.current": "1000\n", "memory.stat": stat}.items():
        (tmp_path / name).write_text(text)
    assert tiles.free_in_container(tmp_path) == math.inf
    (tmp_path / "memory.max").write_text("5000\n")
    assert tiles.free_in_container(tmp_path) == 5000 - 1000 + 300


class Scarce(torch.nn.Module):
    """A stage that runs out of memory, as devices say it, on maps with more than ``limit`` positions."""

    def __init__(self, stage: torch.nn.Module, limit: int, error: Callable[[], Exception]):
        super().__init__()
        self.stage, self.limit, self.error = stage, limit, error

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] * x.shape[3] > self.limit and not x.is_meta:
            raise self.error()
        return self.stage(x)


@pytest.fixture
def scarce() -> Callable[[Callable[[], Exception]], lk.Backbone]:
    def make(error: Callable[[], Exception]) -> lk.Backbone:
        backbone = lk.load_backbone("pocket", "cpu")
        backbone.stages[1] = Scarce(backbone.stages[1], 120 * 120, error)
        return backbone

    return make


ERRORS = [
    lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    lambda: RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    MemoryError,
]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("tile", ["auto", 1000])
def test_when_memory_runs_out_tiles_are_halved(scarce: Callable, error: Callable, tile: str | int) -> None:
    loss, picture = lk.activation("relu2_1"), lk.photo("chelsea", SIZE)
    with pytest.warns(UserWarning, match="memory ran out: going on in tiles of") as said:
        found = lk.Evaluator(scarce(error), loss, SIZE, "float32", tile=tile)(picture)
    assert len(said) >= 1
    assert relative_error(found.gradient, evaluator(loss, None)(picture).gradient) < 1e-5


def test_without_tiles_running_out_is_an_error(scarce: Callable) -> None:
    with pytest.raises(MemoryError):
        lk.Evaluator(scarce(MemoryError), lk.activation("relu2_1"), SIZE, "float32", tile=None)(noise(*SIZE))


def test_other_errors_are_not_taken_for_it(scarce: Callable) -> None:
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        backbone = scarce(lambda: RuntimeError("shapes do not fit"))
        lk.Evaluator(backbone, lk.activation("relu2_1"), SIZE, "float32", tile="auto")(noise(*SIZE))


# --- several processes -----------------------------------------------------------------------------------------------

WORKER = """
import sys
import torch
import torch.distributed as dist
sys.path.insert(0, {tests!r})
from test_tiles import LOSSES, SIZE
import labkit as lk

dist.init_process_group("gloo")
backbone, picture = lk.load_backbone("pocket", "cpu"), torch.cat([lk.photo("chelsea", SIZE), lk.photo("rocket", SIZE)])
found = {{}}
for name in ("activation", "class", "wasserstein", "sum"):
    evaluator = lk.Evaluator(backbone, LOSSES[name](), SIZE, "float32", tile=96, distributed=True)
    for _ in range(2):
        result = evaluator(picture)
    found[name] = result.loss, result.gradient
small = lk.Evaluator(backbone, lk.activation("relu2_1"), (16, 16), "float32", distributed=True)(picture[..., :16, :16])
found["small"] = small.loss, small.gradient
torch.save(found, f"{{sys.argv[1]}}/{{dist.get_rank()}}.pt")
dist.destroy_process_group()
"""


def torchrun(*command: str, count: int = 2, **options: object) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "100"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    return subprocess.run([*launcher, *command], env=environment, capture_output=True, text=True, check=True, **options)


@pytest.mark.slow
def test_two_processes_compute_the_gradient_of_one(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(WORKER.format(tests=str(Path(__file__).parent)))
    torchrun(str(script), str(tmp_path))
    pictures = torch.cat([lk.photo("chelsea", SIZE), lk.photo("rocket", SIZE)])
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    for name, (loss, gradient) in first.items():
        assert torch.equal(gradient, second[name][1]), "the processes would drift apart"
        if name == "small":  # too small to be shared: one tile, and a process that has none
            truth = evaluator(lk.activation("relu2_1"), None, size=(16, 16))(pictures[..., :16, :16])
        else:
            truth = evaluator(LOSSES[name](), None)(pictures)
        torch.testing.assert_close(loss, truth.loss, rtol=1e-5, atol=1e-7)
        assert relative_error(gradient, truth.gradient) < 1e-5, name


@pytest.mark.slow
def test_the_command_line_shares_one_picture(tmp_path: Path) -> None:
    lk.save(lk.photo("chelsea", 160), tmp_path / "cat.png")
    options = ["-m", "labkit", "stylize", "cat.png", "koi_mosaic", "--steps", "4", "--precision", "float32"]
    options += ["--device", "cpu"]  # of which every machine has enough for two processes
    done = torchrun(*options, "-o", "two.png", cwd=tmp_path)
    assert done.stdout.split() == ["two.png"], "only the first process speaks"
    subprocess.run([sys.executable, *options, "-o", "one.png"], cwd=tmp_path, capture_output=True, check=True)
    one, two = (lk.load(tmp_path / name) for name in ("one.png", "two.png"))
    gap = (one - two).abs() * 255  # of rounding, which Adam's division enlarges in single pixels
    assert gap.mean() < 0.05 and gap.max() < 5 and (one - lk.load(tmp_path / "cat.png")).abs().mean() > 0.01


def test_sharing_needs_processes() -> None:
    with pytest.raises(ValueError, match="start them with torchrun"):
        lk.Evaluator(network("pocket"), lk.total_variation(), SIZE, distributed=True)
