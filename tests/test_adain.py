"""Any painting in one pass: moments that are handed over, a decoder that tiles keep, and training that helps it."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from test_training import influence, mean_error
from test_zoo import network as backbone_of

import labkit as lk
from labkit.losses.styles import mean_std
from labkit.networks import weights
from labkit.recipes.adain import STYLE_LAYERS, Decoder, adain, load_decoder, training, transfer

cat = cache(lambda: lk.photo("chelsea", 128))
two_paintings = cache(lambda: [lk.painting(name, 128) for name in ("koi_mosaic", "lantern_bay")])


def test_adain_gives_the_moments_of_the_style() -> None:
    x, y = torch.rand(2, 5, 9, 11), 3 + 2 * torch.rand(2, 5, 7, 8)
    for found, wanted in zip(mean_std(adain(x, y)), mean_std(y), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(adain(x, x), x, rtol=1e-5, atol=1e-6)


def test_a_flat_channel_takes_the_mean_and_stays_flat() -> None:
    flat = adain(torch.ones(1, 1, 4, 4), torch.rand(1, 1, 4, 4))
    assert flat.isfinite().all() and flat.std() < 1e-6


@pytest.mark.parametrize("size", [(64, 64), (61, 83), (96, 50)])
def test_results_have_the_size_of_the_photo(size: tuple[int, int]) -> None:
    photo = lk.resize(cat(), size)
    assert transfer(photo, cat(), Decoder()).shape == photo.shape


def test_the_decoder_has_a_radius() -> None:
    decoder, features = Decoder().double(), torch.rand(1, 256, 31, 5, dtype=torch.float64)
    scale = decoder.scale
    first, last = influence(decoder, features, slice(15 * scale, 16 * scale))
    assert max(15 - first, last - 15) <= decoder.radius <= max(15 - first, last - 15) + 2


# "meta" stands for a GPU, from which nothing can be copied back without being noticed.


def test_a_decoder_is_loaded_to_the_best_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "pick_device", lambda device: torch.device(device or "meta"))
    assert load_decoder().last.weight.device.type == "meta"
    assert load_decoder(device="cpu").last.weight.device.type == "cpu"


def test_the_bundled_decoder_joins_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, load = [], load_decoder
    backbone = lk.load_backbone("pocket", "cpu").to("meta")
    monkeypatch.setattr(lk.adain, "load_decoder", lambda device: (asked.append(device), load(device=device))[1])
    with pytest.raises(NotImplementedError):
        transfer(cat(), cat(), backbone=backbone)
    assert asked == [torch.device("meta")] and backbone.device.type == "meta"


def test_a_network_of_ones_own_stays_where_it_is() -> None:
    backbone = lk.load_backbone("pocket", "cpu")
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta"):  # the picture, brought home
        transfer(cat(), cat(), Decoder().to("meta"), backbone)
    assert {tensor.device.type for tensor in backbone.state_dict().values()} == {"cpu"}


@pytest.mark.parametrize("tile", [64, 72])
def test_transfer_in_tiles_is_exact(tile: int) -> None:
    torch.manual_seed(0)
    decoder, photo = Decoder(), lk.resize(lk.photo("coffee"), (150, 187))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_PRECISION", "float32")
        whole, tiled = (transfer(photo, cat(), decoder, tile=t) for t in (1000, tile))
    torch.testing.assert_close(tiled, whole, rtol=0, atol=2e-5)


@pytest.mark.slow
def test_decoding_lowers_the_error() -> None:
    torch.manual_seed(0)
    run = training(Decoder(), two_paintings(), [cat()], side=64, batch=2, steps=40, learning_rate=2e-3)
    early, late = mean_error(run, 4, 4)
    assert late < 0.9 * early


def test_the_bundled_decoder_takes_a_painting_it_has_not_seen() -> None:
    photo, painting = lk.photo("chelsea", 240), lk.painting("noon_pond")
    loss = lk.style(painting, dict.fromkeys(STYLE_LAYERS, 1.0))
    evaluate = lk.Evaluator(backbone_of("pocket"), loss, photo.shape[-2:], precision="float32")
    losses = [evaluate(transfer(photo, painting, strength=strength)).loss.item() for strength in (0, 0.5, 1)]
    assert losses[0] > losses[1] > losses[2]
    assert losses[2] < 0.7 * evaluate(photo).loss.item()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"strength": -1}, "strength must be"), ({"tile": 0}, "tile must be"), ({"style_scale": float("nan")}, "scale")],
)
def test_what_makes_no_sense_is_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        transfer(cat(), cat(), Decoder(), **options)
