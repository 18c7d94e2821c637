"""The loop over weights: it finds a minimum that is known, goes on where it stopped, and draws crops that fit."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor, nn

from labkit.engine.training import crops, large_enough, load_checkpoint, save_checkpoint, train_steps
from labkit.networks.weights import load_weights, save_weights


def problem() -> tuple[nn.Module, object]:
    """A line through points of a line: the least squares error is 0."""
    torch.manual_seed(0)
    model = nn.Linear(1, 1)

    def error(generator: Generator) -> Tensor:
        x = torch.rand(64, 1, generator=generator)
        return (model(x) - (3 * x - 1)).square().mean()

    return model, error


def influence(model: object, x: Tensor, place: slice) -> tuple[int, int]:
    """The first and last row of the input that rows ``place`` of the output depend on."""
    x = x.requires_grad_()
    model(x)[..., place, :].sum().backward()
    rows = x.grad.abs().sum((0, 1, 3)).nonzero()
    return int(rows.min()), int(rows.max())


def mean_error(run: object, first: int, last: int) -> tuple[float, float]:
    """The mean error of the ``first`` steps of a training, and of its ``last``."""
    errors = [now.error for now in run]
    return sum(errors[:first]) / first, sum(errors[-last:]) / last


def test_it_finds_the_line() -> None:
    model, error = problem()
    *_, last = train_steps(model, error, steps=400, learning_rate=0.1, precision="float32")
    assert (last.step, last.of) == (400, 400) and last.elapsed > 0
    assert [model.weight.item(), model.bias.item()] == pytest.approx([3, -1], abs=0.02)


def test_the_last_steps_are_small() -> None:
    model, error = problem()
    weights = [model.weight.item() for _ in train_steps(model, error, steps=50, learning_rate=0.1)]
    assert abs(weights[-1] - weights[-2]) < 0.01 * abs(weights[1] - weights[0])


@pytest.mark.parametrize("through_file", [False, True])
def test_a_training_that_was_stopped_ends_as_one_that_was_not(tmp_path: Path, through_file: bool) -> None:
    whole, error = problem()
    list(train_steps(whole, error, steps=20, learning_rate=0.1))
    first, error = problem()
    run = train_steps(first, error, steps=20, learning_rate=0.1)
    halfway = next(now for now in run if now.step == 9)
    halfway.save(tmp_path / "run.pt")
    saved = tmp_path / "run.pt" if through_file else halfway.state_dict()
    second, error = problem()
    steps = [now.step for now in train_steps(second, error, steps=20, learning_rate=0.1, resume=saved)]
    assert steps == list(range(10, 21))
    assert torch.equal(second.weight, whole.weight) and torch.equal(second.bias, whole.bias)


@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")
def test_a_training_goes_on_with_its_counters_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere (here: on "meta", in place of a GPU) Adam would wait for the device to know at which step it is."""
    model, error = problem()
    next(train_steps(model, error, steps=20)).save(tmp_path / "run.pt")
    made = []

    class Adam(torch.optim.Adam):
        def __init__(self, *given: object):
            super().__init__(*given)
            made.append(self)

    def stop(generator: Generator) -> Tensor:
        assert generator.device.type == "cpu"
        raise StopAsyncIteration

    monkeypatch.setattr(torch.optim, "Adam", Adam)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # there is none on "meta"
    with pytest.raises(StopAsyncIteration):
        next(train_steps(model.to("meta"), stop, steps=20, precision="float32", resume=tmp_path / "run.pt"))
    states = [state for optimizer in made for state in optimizer.state.values()]
    assert [state["step"].device.type for state in states] == ["cpu", "cpu"]
    assert {state["exp_avg"].device.type for state in states} == {"meta"}


def test_a_state_is_kept_with_what_decides_the_result(tmp_path: Path) -> None:
    path, settings = tmp_path / "run.checkpoint", {"names": "a,b", "rate": 0.1, "start": None}
    assert load_checkpoint(path, settings) is None
    whole, error = problem()
    list(train_steps(whole, error, steps=9))
    first, error = problem()
    save_checkpoint(next(now for now in train_steps(first, error, steps=9) if now.step == 4), path, settings)
    second, error = problem()
    rest = train_steps(second, error, steps=9, resume=load_checkpoint(path, settings))
    assert [now.step for now in rest] == [5, 6, 7, 8, 9]
    assert torch.equal(second.weight, whole.weight)
    with pytest.raises(ValueError, match=r"names was a,b and is now a, side was None and is now 8; delete it, or"):
        load_checkpoint(path, {**settings, "names": "a", "side": 8})


def test_a_state_without_settings_is_refused(tmp_path: Path) -> None:
    model, error = problem()
    next(train_steps(model, error, steps=2)).save(tmp_path / "old.checkpoint")
    with pytest.raises(ValueError, match="rate was not kept and is now 3; delete it"):
        load_checkpoint(tmp_path / "old.checkpoint", {"rate": 3})


def test_a_long_gradient_is_shortened() -> None:
    """With Adam only the relation of two gradients shows: a later one that is cut moves less."""
    ends = []
    for clip in (1e-3, 1e6):
        model = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(model.weight)
        slopes = iter([1e-3, 1e3, 1e-3])
        list(train_steps(model, lambda g, m=model, s=slopes: next(s) * m.weight.sum(), steps=3, clip=clip))
        ends.append(model.weight.item())
    assert ends[0] != pytest.approx(ends[1], rel=0.1)


def test_weights_come_back(tmp_path: Path) -> None:
    model, _ = problem()
    save_weights(model, tmp_path / "line.safetensors", {"steps": 3, "of": "a line"})
    metadata, weights = load_weights(tmp_path / "line.safetensors")
    assert metadata == {"steps": "3", "of": "a line"}
    assert weights.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert weights[name].dtype == torch.float32
        torch.testing.assert_close(weights[name], tensor, rtol=1e-3, atol=1e-6)


def test_crops_lie_over_each_other() -> None:
    """Where large is small, enlarged by repetition, so are their crops, turned and mirrored alike."""
    small = torch.rand(1, 1, 20, 30)
    large = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
    s, big = crops([(small, large)], 8, 12, torch.Generator().manual_seed(3))
    assert s.shape == (12, 1, 8, 8)
    assert torch.equal(big, s.repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert len({tuple(one.flatten().tolist()) for one in s}) == 12


def test_crops_come_from_everywhere_and_stay_upright_if_asked() -> None:
    ramp = torch.arange(12.0).view(1, 1, 12, 1).expand(-1, -1, -1, 9)
    (found,) = crops([(ramp,)], 4, 200, torch.Generator().manual_seed(0), turns=False)
    assert (found.diff(dim=2) == 1).all() and (found.diff(dim=3) == 0).all()
    assert set(found[:, 0, 0, 0].tolist()) == set(range(9))


def test_large_photos_are_seen_more_often() -> None:
    photos = [(torch.zeros(1, 1, 10, 10),), (torch.ones(1, 1, 10, 30),)]
    (found,) = crops(photos, 5, 400, torch.Generator().manual_seed(0))
    assert found.mean().item() == pytest.approx(0.75, abs=0.06)


def test_no_photo_large_enough_is_an_error() -> None:
    with pytest.raises(ValueError, match="large enough for crops of 11 pixels"):
        large_enough([(torch.zeros(1, 1, 10, 30),)], 11)
    photos = [(torch.zeros(1, 1, 10, 30),), (torch.zeros(1, 1, 11, 30),)]
    assert large_enough(photos, 11) == photos[1:]
