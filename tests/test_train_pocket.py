"""Distillation: what is cut, asked and minimized; and the shipped network is what its card says."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, safe_open, save_file
from torch import Tensor

import labkit as lk
from labkit.base.files import bundled

sys.path.append(str(Path(__file__).resolve().parent.parent / "tools"))
import eval_pocket as evaluation
import finish_pocket as finishing
import train_pocket as training

pytestmark = pytest.mark.slow

SHA256 = "26906c9ab43cc1ee785806305d76564c3d1b95022622ab2d09220d769505a285"
CPU = torch.device("cpu")
IMAGES = Path(os.environ.get("LABKIT_WEIGHTS", "/nowhere")).parent / "images"


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty-one photos: two are held out."""
    photos = tmp_path / "photos"
    photos.mkdir()
    whole = lk.photo("coffee", 120)
    for number in range(21):
        lk.save(whole.roll((3 * number, 5 * number), (2, 3)), photos / f"{number:02}.png")
    return photos


@pytest.fixture
def own_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pocket network as its own teacher, two batches a round: every answer is known, and nothing is slow."""
    monkeypatch.setattr(training, "TEACHER", "pocket")
    monkeypatch.setattr(training, "PAIRS", {layer: layer for layer in ("relu2_2", "relu3_3", "relu4_3", "relu5_3")})
    monkeypatch.setattr(training.Run, "ROUND", 2)


def picture_photos(tmp_path: Path, picture: Tensor) -> training.Photos:
    lk.save(picture, tmp_path / "one.png")
    return training.Photos([tmp_path / "one.png"], CPU)


# --- photos --------------------------------------------------------------------------------------------------------


def test_every_20th_photo_is_held_out(folder: Path) -> None:
    train, held_out = training.find_photos([folder])
    assert [path.stem for path in held_out] == ["00", "20"]
    assert len(train) == 19 and not set(train) & set(held_out)


def test_a_folder_without_photos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds 0 photos"):
        training.find_photos([tmp_path])


def test_crops_never_show_the_canvas_around_the_photo(tmp_path: Path) -> None:
    crops = picture_photos(tmp_path, torch.full((1, 3, 90, 160), 0.5)).crops(64, 24, generator())
    assert crops.shape == (64, 3, 24, 24)
    assert crops.std((2, 3)).max() < 1e-6


def test_crops_are_parts_of_the_photo_some_of_them_mirrored(tmp_path: Path) -> None:
    across = torch.linspace(0.3, 0.7, 160).expand(1, 1, 90, 160)
    down = torch.linspace(0.3, 0.7, 90)[:, None].expand(1, 1, 90, 160)
    crops = picture_photos(tmp_path, torch.cat([across, down, across], 1)).crops(256, 24, generator())
    slope = (crops[:, 0, 12, -1] - crops[:, 0, 12, 0]) / 0.4
    height = (crops[:, 1, -1, 12] - crops[:, 1, 0, 12]) / 0.4
    assert 0.3 < (slope < 0).float().mean() < 0.7
    assert (height > 0).all()
    area = slope.abs() * height * (24 / 23) ** 2
    assert 0.12 * 0.7**2 - 0.02 < area.min() < 0.15 and area.max() > 0.8  # contrast may be changed by 30 %


def test_the_canvas_is_as_large_as_the_largest_photo(tmp_path: Path) -> None:
    for number, size in enumerate([(60, 90), (80, 50)]):
        lk.save(torch.full((1, 3, *size), 0.2 * (number + 1)), tmp_path / f"{number}.png")
    paths = sorted(tmp_path.iterdir())
    photos = training.Photos(paths, CPU)
    assert photos.canvas.shape == (2, 3, 90, 90) and photos.sizes.tolist() == [[60, 90], [80, 50]]
    assert training.Photos(paths, CPU, 45).sizes.tolist() == [[30, 45], [45, 28]]
    assert (photos.canvas[1, :, :80, :50] == 102).all() and (photos.canvas[1, :, :, 50:] == 0).all()


def test_mixing_blends_half_and_pastes_half() -> None:
    crops = torch.linspace(0, 1, 12).view(12, 1, 1, 1).expand(12, 3, 16, 16).clone()
    before, mixed = crops.clone(), training.mix(crops, 8, generator())
    blended, pasted = mixed[0:8:2], mixed[1:8:2]
    assert blended.std((1, 2, 3)).max() < 1e-6
    assert (mixed[8:] == before[8:]).all()
    for crop, own in zip(pasted, before[1:8:2], strict=True):
        values = set(crop.unique().tolist())
        assert len(values) <= 2 and values <= set(before.unique().tolist()) and own.unique().item() in values
    assert (mixed[:8] != before[:8]).any()


# --- student, teacher, losses --------------------------------------------------------------------------------------


def test_standardized_filters_have_mean_zero_and_their_gain_for_norm() -> None:
    raw, gain = torch.randn(5, 4, 3, 3, generator=generator()) + 1, torch.tensor([0.5, 1, 2, 3, 4])
    weight = training.Standardized()(raw, gain)
    assert weight.mean((1, 2, 3)).abs().max() < 1e-6
    torch.testing.assert_close(weight.flatten(1).norm(dim=1), gain)
    again = training.Standardized()(*training.Standardized().right_inverse(weight))
    torch.testing.assert_close(again, weight, rtol=1e-4, atol=1e-6)


def test_a_student_of_the_bundled_network_answers_like_it(tmp_path: Path) -> None:
    student, photo = training.make_student("pocket", CPU), lk.photo("chelsea", 96)
    with torch.no_grad():
        expected, answer = lk.load_backbone("pocket", "cpu").logits(photo), student.logits(photo)
    assert (answer - expected).abs().max() < 0.02 * expected.std()
    save_file(training.folded(student), tmp_path / "again.safetensors")
    with torch.no_grad():
        again = training.make_student(str(tmp_path / "again.safetensors"), CPU).logits(photo)
    assert (again - answer).abs().max() < 0.02 * expected.std()
    assert {k: v.shape for k, v in training.folded(student).items()} == {
        k: v.shape for k, v in load_file(bundled("pocket/pocket.safetensors")).items()
    }


def answer_of(scale: float) -> training.Answer:
    features = {"relu2_2": scale * torch.randn(2, 3, 4, 4, generator=generator())}
    return training.Answer(features, scale * torch.randn(2, 10, generator=generator(1)))


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_losses_are_zero_for_the_teacher_and_one_for_its_mean(temperature: float) -> None:
    teacher = answer_of(1.0)
    adapters = torch.nn.ModuleDict({"relu2_2": torch.nn.Conv2d(3, 3, 1)}).requires_grad_(False)
    adapters["relu2_2"].weight.copy_(torch.eye(3)[..., None, None])
    adapters["relu2_2"].bias.zero_()
    same = training.losses(teacher, teacher, adapters, temperature)
    assert same["relu2_2"] < 1e-4 and same["kl"].abs() < 1e-6
    adapters["relu2_2"].weight.zero_()
    adapters["relu2_2"].bias.fill_(teacher.features["relu2_2"].mean())
    other = training.losses(answer_of(0.0), teacher, adapters, temperature)
    assert other["relu2_2"].item() == pytest.approx(1, abs=0.02)  # a biased variance, and bfloat16
    p = (teacher.logits / temperature).softmax(1)
    entropy = -(p * p.log()).sum(1).mean()
    expected = temperature**2 * (torch.tensor(10.0).log() - entropy)
    assert other["kl"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_adapters_find_a_linear_relation(own_teacher: None, tmp_path: Path) -> None:
    student, teacher = training.make_student("pocket", CPU), lk.load_backbone("pocket", "cpu")
    adapters = training.make_adapters(student, teacher)
    crops = picture_photos(tmp_path, lk.photo("coffee", 200)).crops(32, 64, generator())
    training.fit_adapters(adapters, student, teacher, [crops])
    with torch.no_grad():
        parts = training.losses(
            training.ask_student(student, crops), training.ask_teacher(teacher, crops), adapters, 1.0
        )
    assert all(parts[layer] < 0.01 for layer in training.PAIRS)


class Linear:
    """A network of one pixel-wise linear layer at every place: its gradients are known."""

    device = CPU

    def __init__(self, matrix: Tensor, head: Tensor):
        self.matrix, self.head = matrix, head

    def run(self, crops: Tensor, layers: list[str]) -> dict[str, Tensor]:
        with torch.autocast("cpu", enabled=False):
            features = torch.einsum("oc,nchw->nohw", self.matrix, crops)
            return dict.fromkeys(layers[:-1], features) | {"logits": features.mean((2, 3)) @ self.head.T}


def test_steering_compares_what_the_pixels_are_asked_to_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "PAIRS", {"a": "a", "b": "b"})
    monkeypatch.setattr(training, "adapted", lambda student, teacher, adapters: student)
    crops, head = torch.rand(3, 3, 8, 8, generator=generator()), torch.randn(5, 4, generator=generator(1))
    theirs, mine = (torch.randn(4, 3, generator=generator(seed)) for seed in (2, 3))
    teacher, student = Linear(theirs, head), Linear(mine, head)
    assert training.steering(teacher, teacher, None, crops).item() == pytest.approx(0, abs=1e-6)

    def direction(matrix: Tensor, row: int) -> Tensor:
        """By hand: of the log-probability, then of features along the teacher's."""
        features = torch.einsum("oc,nchw->nohw", theirs, crops)
        if row:
            return torch.einsum("oc,ohw->chw", matrix, features[row])
        first = (features[0].mean((1, 2)) @ head.T).argmax()
        own = torch.einsum("oc,chw->ohw", matrix, crops[0]).mean((1, 2)) @ head.T
        return (matrix.T @ (head[first] - own.softmax(0) @ head))[:, None, None].expand(3, 8, 8)

    cosines = [
        torch.cosine_similarity(direction(mine, row).flatten(), direction(theirs, row).flatten(), 0) for row in range(3)
    ]
    student.matrix.requires_grad_()
    loss = training.steering(student, teacher, None, crops)
    assert loss.item() == pytest.approx(1 - torch.stack(cosines).mean().item(), abs=1e-4)
    loss.backward()
    step = 1e-2 * student.matrix.grad / student.matrix.grad.norm()
    with torch.no_grad():
        student.matrix += step
        above = training.steering(student, teacher, None, crops).item()
        student.matrix -= 2 * step
        below = training.steering(student, teacher, None, crops).item()
    assert (above - below) / 2e-2 == pytest.approx(student.matrix.grad.norm().item(), rel=0.02)


def test_agreement_counts_the_first_answers() -> None:
    mine = torch.tensor([[3.0, 2, 1], [1, 2, 3], [3, 1, 2]])
    theirs = torch.tensor([[9.0, 0, 0], [0, 9, 0], [0, 9, 0]])
    assert [training.agreement(mine, theirs, top) for top in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 1])


# --- the run -------------------------------------------------------------------------------------------------------


def small(**changes: object) -> training.Recipe:
    return training.Recipe(
        **{"crops": 32, "size": 32, "last_size": 48, "batch": 4, "start": "none", "average": 0.5, **changes}
    )


def test_a_run_learns(own_teacher: None, folder: Path, tmp_path: Path) -> None:
    run = training.Run(small(crops=96, learning_rate=0.02), [folder], CPU, tmp_path / "checkpoint")
    before = run.report()
    for _ in run.rounds():
        pass
    after = run.report()
    assert run.used == 96 and len(run.curves) == 2
    assert after["kl"] < before["kl"] - 0.1


def test_what_has_no_weight_is_not_learned(own_teacher: None, folder: Path, tmp_path: Path) -> None:
    run = training.Run(small(feature_weights=(0, 0, 5, 0), class_weight=0), [folder], CPU, tmp_path / "checkpoint")
    modules = dict(run.adapters) | {"logits": run.student.head}
    before = {name: module.weight.clone() for name, module in modules.items()}
    next(run.rounds())
    assert [name for name, module in modules.items() if not torch.equal(module.weight, before[name])] == ["relu4_3"]
    with pytest.raises(ValueError, match="there are 4 pairs of layers, and 1 feature_weights"):
        training.Recipe(feature_weights=(1.0,))


def test_gradients_alone_teach_all_layers(own_teacher: None, folder: Path, tmp_path: Path) -> None:
    only = small(start="pocket", feature_weights=(0, 0, 0, 0), class_weight=0, gradient_weight=1.0)
    run = training.Run(only, [folder], CPU, tmp_path / "run.checkpoint")
    before = training.folded(run.student)
    next(run.rounds())
    after = training.folded(run.student)
    weights = {name for name in after if name.endswith(".weight")}
    assert {name for name in weights if not torch.equal(after[name], before[name])} == weights
    assert 0 <= run.report()["gradient"] < 0.5


def test_what_is_judged_and_written_is_the_mean_of_the_last_weights(
    own_teacher: None, folder: Path, tmp_path: Path
) -> None:
    run = training.Run(small(average=0.75), [folder], CPU, tmp_path / "run.checkpoint")
    expected = bias = run.student.head.bias.detach().clone()
    for step in range(2):
        run._step(run.cut(32), training.ask_teacher(run.teacher, run.cut(32)), 0.0)
        bias = run.student.head.bias.detach().clone()
        expected = 0.75 * expected + 0.25 * bias
        assert run.step == step + 1
    run.save(tmp_path / "run.safetensors", run.report())
    written = load_file(tmp_path / "run.safetensors")["logits.bias"]
    torch.testing.assert_close(written.float(), expected, rtol=1e-3, atol=1e-4)
    assert torch.equal(run.student.head.bias, bias) and run.curves[0]["kl"] != run.curves[0]["last_kl"]


def test_the_head_can_be_trained_alone(own_teacher: None, folder: Path, tmp_path: Path) -> None:
    run = training.Run(small(start="pocket", head_only=True), [folder], CPU, tmp_path / "checkpoint")
    before = training.folded(run.student)
    next(run.rounds())
    after = training.folded(run.student)
    assert {name for name in after if not torch.equal(after[name], before[name])} == {"logits.weight", "logits.bias"}


def test_a_killed_run_goes_on_where_it_was(own_teacher: None, folder: Path, tmp_path: Path) -> None:
    def weights(run: training.Run) -> Tensor:
        return torch.cat([value.float().flatten() for value in training.folded(run.student).values()])

    whole = training.Run(small(), [folder], CPU, tmp_path / "none.checkpoint")
    for _ in whole.rounds():
        pass
    killed = training.Run(small(), [folder], CPU, tmp_path / "run.checkpoint")
    next(killed.rounds())
    killed.save(tmp_path / "run.safetensors", killed.report())
    resumed = training.Run(small(), [folder], CPU, tmp_path / "run.checkpoint")
    assert resumed.used == 16 and len(resumed.curves) == 1
    for _ in resumed.rounds():
        pass
    assert not torch.equal(weights(killed), weights(whole))
    torch.testing.assert_close(weights(resumed), weights(whole), rtol=1e-3, atol=1e-4)


def test_a_checkpoint_of_another_recipe_is_refused(own_teacher: None, folder: Path, tmp_path: Path) -> None:
    run = training.Run(small(), [folder], CPU, tmp_path / "run.checkpoint")
    run.save(tmp_path / "run.safetensors", run.report())
    with pytest.raises(ValueError, match=r"batch was 4 and is now 8; delete it"):
        training.Run(small(batch=8), [folder], CPU, tmp_path / "run.checkpoint")


def test_the_rate_warms_up_and_ends_at_one_per_cent() -> None:
    recipe = training.Recipe(learning_rate=1.0)
    assert recipe.rate(0, 0) == pytest.approx(1 / 150)
    assert recipe.rate(1000, 0) == pytest.approx(1)
    assert recipe.rate(1000, 0.5) == pytest.approx(0.505)
    assert recipe.rate(1000, 1.2) == pytest.approx(0.01)


def test_crops_of_several_sizes_are_cut_in_the_last_fifth() -> None:
    recipe = training.Recipe(size=80, last_size=144)
    assert list(recipe.sizes(0.79)) == [80]
    assert list(recipe.sizes(0.8)) == [80, 96, 112, 128, 144]
    with pytest.raises(ValueError, match="last_size is 64, smaller than 80"):
        training.Recipe(last_size=64)


def test_the_command_writes_weights_curves_and_checkpoint(own_teacher: None, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "mine.safetensors"
    training.main([str(folder), "--crops", "16", "--size", "32", "--last-size", "32", "--batch", "4", "--device", "cpu",
                   "--feature-weights", "1", "2", "3", "4",
                   "--output", str(output)])  # fmt: skip
    with safe_open(output, "pt") as file:
        about = {key: json.loads(value) for key, value in file.metadata().items()}
    assert about["recipe"]["crops"] == 16 and about["recipe"]["feature_weights"] == [1, 2, 3, 4]
    assert about["photos"] == 19
    curves = json.loads(output.with_suffix(".json").read_text())["curves"]
    assert curves[-1]["crops"] == 16 and curves[-1] == about["held_out"]
    assert output.with_suffix(".checkpoint").exists()


# --- finishing ---------------------------------------------------------------------------------------------------


def test_a_centered_head_gives_the_same_probabilities_and_a_tempered_one_the_same_order() -> None:
    head = {"logits.weight": torch.randn(9, 4, generator=generator()) + 1, "logits.bias": torch.arange(9.0)}
    pooled = torch.randn(5, 4, generator=generator(1))

    def logits(state: dict[str, Tensor]) -> Tensor:
        return pooled @ state["logits.weight"].T + state["logits.bias"]

    centered = finishing.centered(head)
    assert logits(centered).mean(1).abs().max() < 1e-5
    torch.testing.assert_close(logits(centered).softmax(1), logits(head).softmax(1))
    torch.testing.assert_close(logits(finishing.tempered(centered, 2.0)), logits(centered) / 2)


def test_the_temperature_undoes_too_much_confidence() -> None:
    """Logits whose softmax draws the answers, multiplied by three."""
    honest = 2 * torch.randn(4000, 6, generator=generator())
    drawn = torch.multinomial(honest.softmax(1), 1, generator=generator(1))[:, 0]
    answers = torch.nn.functional.one_hot(drawn, 6).float()
    assert finishing.fit_temperature(3 * honest, answers) == pytest.approx(3, rel=0.1)


def test_finishing_writes_the_mean_of_results(
    own_teacher: None, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "unexplained", lambda *asked: {"relu2_2": 0.03})
    shipped = load_file(bundled("pocket/pocket.safetensors"))
    for number in (1, 3):
        save_file({key: number * value for key, value in shipped.items()}, tmp_path / f"{number}.safetensors")
    paths = [tmp_path / "1.safetensors", tmp_path / "3.safetensors"]
    about = finishing.finish(paths, [folder], tmp_path / "whole.safetensors", folder, "cpu")
    written = load_file(tmp_path / "whole.safetensors")
    assert all(value.dtype == torch.float16 for value in written.values())
    name = "conv3_1.weight"
    torch.testing.assert_close(written[name].float(), 2 * shipped[name].float(), rtol=1e-3, atol=1e-3)
    assert written["logits.weight"].float().mean(0).abs().max() < 1e-3
    with safe_open(tmp_path / "whole.safetensors", "pt") as file:
        assert json.loads(file.metadata()["temperature"]) == about["temperature"]
    assert about["unseen"].keys() == about["held_out"].keys() >= {"top1", "calibration_error_before"}


# --- what is shipped -----------------------------------------------------------------------------------------------


def test_the_shipped_weights_are_the_ones_that_were_measured() -> None:
    data = bundled("pocket/pocket.safetensors").read_bytes()
    assert hashlib.sha256(data).hexdigest() == SHA256
    assert SHA256 in bundled("pocket/MODEL_CARD.md").read_text(encoding="utf-8")


def test_the_center_of_a_photo_is_its_middle() -> None:
    photo = torch.zeros(1, 3, 256, 400)
    photo[..., 72:328] = 1
    middle = evaluation.middle(photo)
    assert middle.shape == (1, 3, 128, 128) and middle.mean() > 0.99


def test_calibration_is_the_gap_between_confidence_and_success() -> None:
    """Two photos of which it is sure by 0.8 and right on one; with a third, by 0.6 and right, in a bin of its own."""
    theirs = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    mine = torch.tensor([[0.8, 0.2], [0.8, 0.2], [0.6, 0.4]]).log()
    assert evaluation.calibration_error(mine[:2], theirs[:2]) == pytest.approx(0.3)
    assert evaluation.calibration_error(mine, theirs) == pytest.approx((2 * 0.3 + 0.4) / 3)
    assert evaluation.calibration_error(1e6 * theirs, theirs) == 0
    assert evaluation.named_alike(mine, theirs, ["cat", "dog"]) == "cat"


@pytest.mark.skipif(not IMAGES.is_dir(), reason="the photos of the measurement are not here")
def test_the_model_card_holds_what_the_evaluation_prints() -> None:
    rows = evaluation.measure(IMAGES, "pocket", "cpu")
    card = bundled("pocket/MODEL_CARD.md").read_text(encoding="utf-8")
    for name, value in rows.items():
        (line,) = [line for line in card.splitlines() if line.startswith(f"| {name} |")]
        said = line.split("|")[2]
        number = r"\d+\.?\d*"
        assert re.sub(number, "#", said).strip() == re.sub(number, "#", value)
        for mine, theirs in zip(re.findall(number, said), re.findall(number, value), strict=True):
            assert float(mine) == pytest.approx(float(theirs), rel=1e-2, abs=0.0011)
