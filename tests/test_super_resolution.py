"""Super-resolution: bicubic as Pillow's, exact tiles, training that helps, the field's protocol on known numbers."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio
from test_zoo import network

import labkit as lk
from labkit.networks import weights
from labkit.recipes.super_resolution import Upscaler, bicubic, degraded, perceptual, training, upscale

cat = cache(lambda: lk.photo("chelsea", 96))
SET5 = Path(os.environ.get("LABKIT_WEIGHTS", "nowhere")).parent / "images" / "set5"


def scrambled(scale: int = 2, width: int = 8, blocks: int = 2) -> Upscaler:
    """A network whose last layer is not zero."""
    torch.manual_seed(0)
    model = Upscaler(scale, width, blocks)
    torch.nn.init.normal_(model.tail.weight, std=0.05)
    return model


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_enlarging_and_reducing_are_pillows(scale: int) -> None:
    levels = np.random.default_rng(0).random((24, 36), np.float32)
    picture = torch.from_numpy(levels).expand(1, 3, -1, -1)
    image = Image.fromarray(levels)
    large = np.asarray(image.resize((36 * scale, 24 * scale), Image.Resampling.BICUBIC))
    torch.testing.assert_close(bicubic(picture, scale)[0, 0], torch.from_numpy(large.copy()), rtol=0, atol=1e-5)
    small = np.asarray(image.resize((36 // scale, 24 // scale), Image.Resampling.BICUBIC)).clip(0, 1)
    found, _ = degraded(picture, scale)
    assert np.abs(found[0, 0].numpy() - small).max() <= 0.5 / 255 + 1e-6


def test_an_untrained_network_is_bicubic() -> None:
    assert torch.equal(upscale(cat(), Upscaler(3, 8, 1)), bicubic(cat(), 3).clamp(0, 1))


@pytest.mark.parametrize("scale", [2, 3])
@pytest.mark.parametrize("tile", [16, 37, 50])
def test_tiles_are_exact(scale: int, tile: int) -> None:
    model = scrambled(scale)
    whole = upscale(cat(), model, tile=1000)
    torch.testing.assert_close(upscale(cat(), model, tile=tile), whole, rtol=0, atol=2e-6)


def test_the_radius_is_how_far_a_pixel_has_influence() -> None:
    model = scrambled()
    x = torch.rand(1, 1, 41, 41, requires_grad=True)
    model(x)[0, 0, 40:42, 40:42].abs().sum().backward()
    rows = x.grad.abs().sum((0, 1, 3)).nonzero().flatten()
    assert 20 - rows.min() == rows.max() - 20 == model.radius


def test_the_same_detail_is_added_to_every_color() -> None:
    model = scrambled()
    added = upscale(0.25 + 0.5 * cat(), model) - bicubic(0.25 + 0.5 * cat(), 2)
    torch.testing.assert_close(added[:, :1].expand_as(added), added, rtol=0, atol=1e-6)
    assert added.abs().mean() > 1e-4


def test_a_network_is_loaded_to_the_best_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device "meta" stands for a GPU, from which nothing can be copied back without being noticed."""
    monkeypatch.setattr(weights, "pick_device", lambda device: torch.device(device or "meta"))
    assert next(lk.superres.load_upscaler(device="cpu").parameters()).device.type == "cpu"
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta"):
        upscale(cat())


def test_training_beats_bicubic_on_a_photo_held_out() -> None:
    torch.manual_seed(0)
    model = Upscaler(2, 16, 2)
    photos = [lk.photo(name, 256) for name in ("astronaut", "rocket", "chelsea")]
    steps = list(training(model, photos, steps=150, side=24, batch=8))
    assert [steps[0].step, steps[-1].step, steps[-1].of] == [1, 150, 150]
    small, large = degraded(lk.photo("coffee"), 2)
    before, after = (
        peak_signal_noise_ratio(large.numpy(), x.clamp(0, 1).numpy())
        for x in (bicubic(small, 2), upscale(small, model))
    )
    assert after > before + 0.25


def test_the_same_seed_trains_the_same_network() -> None:
    def trained(seed: int) -> float:
        torch.manual_seed(0)
        return [step.error for step in training(Upscaler(2, 4, 1), [cat()], steps=3, side=16, seed=seed)][-1]

    assert trained(1) == trained(1) != trained(2)


def test_the_perceptual_error_is_that_of_features() -> None:
    backbone, true = network("pocket"), lk.luma(cat())
    error = perceptual(backbone, ["relu2_2"], pixel_weight=0.0)
    assert error(true, true).item() == 0
    found = (true + 0.1 * torch.rand_like(true)).requires_grad_()
    p, f = (backbone.features(x.detach().expand(-1, 3, -1, -1), ["relu2_2"])["relu2_2"] for x in (true, found))
    assert error(found, true).item() == pytest.approx(((f - p).square().sum() / p.square().sum()).item(), rel=1e-5)
    error(found, true).backward()
    assert found.grad.abs().sum() > 0


@pytest.mark.skipif(not SET5.is_dir(), reason="the pictures of Set5 are not here; they are not ours to ship")
@pytest.mark.parametrize(("enlarge", "expected"), [(bicubic, 33.66), (lambda small, _: upscale(small), 37.40)])
def test_psnr_on_set5(enlarge: Callable, expected: float) -> None:
    """Bicubic has the literature's; ours what its card says. Luma in studio range, two pixels cut from the border."""
    found = []
    for path in sorted(SET5.iterdir()):
        small, large = degraded(lk.load(path), 2)
        enlarged = (enlarge(small, 2).clamp(0, 1) * 255).round() / 255
        a, b = (rgb2ycbcr(x[0].numpy(), channel_axis=0)[0, 2:-2, 2:-2] for x in (enlarged, large))
        found.append(peak_signal_noise_ratio(b, a, data_range=255))
    assert len(found) == 5
    assert np.mean(found) == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (lambda: next(training(Upscaler(), [cat()], side=90)), "large enough for crops of 90 pixels"),
        (lambda: upscale(cat(), Upscaler(), tile=0), "tile must be a whole number from 1 to 65,536, not 0"),
    ],
)
def test_what_makes_no_sense_is_refused(work: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        work()
