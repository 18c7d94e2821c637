"""Fast style: what normalizes, what is shared, what tiles keep, and that training lowers the loss that it is given."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from test_training import influence, mean_error
from test_zoo import network as backbone_of

import labkit as lk
from labkit.networks import weights
from labkit.recipes.fast_style import StyleNetwork, load_network, repaint, training

cat = cache(lambda: lk.photo("chelsea", 128))
two_paintings = cache(lambda: {name: lk.painting(name, 128) for name in ("koi_mosaic", "lantern_bay")})


def scrambled(names: tuple[str, ...] = ("a", "b", "c"), blocks: int = 2) -> StyleNetwork:
    """A network whose paintings differ."""
    torch.manual_seed(0)
    found = StyleNetwork(names, width=4, blocks=blocks)
    for norm in found.norms:
        torch.nn.init.normal_(norm.scale, 1, 0.3)
        torch.nn.init.normal_(norm.shift, 0, 0.3)
    return found.requires_grad_(False)


# --- norms ----------------------------------------------------------------------------------------------------------


def test_contrast_and_brightness_do_not_pass_the_norms() -> None:
    """Instance normalization of the first layer is the same for a photo with half the contrast."""
    model, mixture = scrambled(), torch.tensor([[1.0, 0, 0]])
    faint = model(0.3 + 0.4 * cat(), mixture)
    torch.testing.assert_close(faint, model(cat(), mixture), rtol=0, atol=0.02)


def test_each_picture_of_a_batch_is_normalized_by_itself() -> None:
    model, photos = scrambled(), torch.cat([cat(), cat().flip(3)])
    mixtures = torch.tensor([[1.0, 0, 0], [0, 0.5, 0.5]])
    apart = torch.cat([model(photo[None], mixture[None]) for photo, mixture in zip(photos, mixtures, strict=True)])
    torch.testing.assert_close(model(photos, mixtures), apart, rtol=1e-4, atol=1e-5)


# --- mixtures -------------------------------------------------------------------------------------------------------


def test_a_mixture_mixes_scales_and_shifts() -> None:
    """Two paintings half and half are one painting with the mean of their scales and shifts."""
    both, one = scrambled(("a", "b")), StyleNetwork(["mean"], width=4, blocks=2)
    state = both.state_dict()
    one.load_state_dict({n: w.mean(0, keepdim=True) if "norms" in n else w for n, w in state.items()})
    torch.testing.assert_close(repaint(cat(), {"a": 1, "b": 1}, both), repaint(cat(), "mean", one), rtol=0, atol=1e-5)
    assert (repaint(cat(), "a", both) - repaint(cat(), "b", both)).abs().mean() > 0.01


@pytest.mark.parametrize(
    ("painting", "message"),
    [
        ("monet", "has not learned monet, but a, b, c"),
        ({"a": 1, "monet": 1}, "has not learned monet"),
        ({"a": -1}, "at least 0, and not all 0"),
        ({"a": 0}, "at least 0, and not all 0"),
    ],
)
def test_paintings_it_does_not_know_are_refused(painting: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        repaint(cat(), painting, scrambled())


# --- sizes and tiles ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 64), (61, 83), (96, 50)])
def test_results_have_the_size_of_the_photo(size: tuple[int, int]) -> None:
    photo = lk.resize(cat(), size)
    assert repaint(photo, "a", scrambled()).shape == photo.shape


@pytest.mark.parametrize(("tile", "size"), [(64, (128, 192)), (50, (131, 190)), (96, (97, 203))])
def test_tiles_with_the_moments_of_the_whole_are_exact(tile: int, size: tuple[int, int]) -> None:
    photo, model = lk.resize(lk.photo("coffee"), size), scrambled()
    mixture = model.mixture("b")
    whole = model(photo, mixture)
    torch.testing.assert_close(model(photo, mixture, model.moments(photo, mixture)), whole, rtol=0, atol=1e-5)
    found = repaint(photo, "b", model, tile=tile, thumbnail=max(size))
    torch.testing.assert_close(found, whole, rtol=0, atol=2e-5)


def test_the_radius_is_enough_and_not_wasteful() -> None:
    """The norms' moments are fixed, and 4 px is the grid."""
    model = scrambled(blocks=3)
    photo = torch.rand(1, 3, 240, 32)
    mixture = model.mixture("a")
    moments = model.moments(photo, mixture)
    first, last = influence(lambda x: model(x, mixture, moments), photo, slice(120, 124))
    reach = max(120 - first, last - 123)
    assert reach <= model.radius <= reach + 8


# --- training -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_learning_lowers_the_loss() -> None:
    torch.manual_seed(0)
    model = StyleNetwork(list(two_paintings()), width=6, blocks=1)
    run = training(model, two_paintings(), [cat()], backbone_of("pocket"), side=48, steps=60, learning_rate=4e-3)
    early, late = mean_error(run, 6, 6)
    assert late < 0.75 * early


def test_learning_asks_the_loss_that_stylizing_asks() -> None:
    """One step's error is the evaluator's loss of what the network paints of the photo that it was given."""
    torch.manual_seed(0)
    model, name = StyleNetwork(["koi_mosaic"], width=4, blocks=1), "koi_mosaic"
    square, backbone = cat()[..., :64, :64], backbone_of("pocket")
    given = {"side": 64, "shift": 0, "batch": 4, "steps": 1, "style_scale": 1.0, "precision": "float32"}
    before = model(torch.cat([square, square.flip(3)]), model.mixture(name)).detach()
    now = next(training(model, {name: two_paintings()[name]}, [square], backbone, **given))
    losses = []
    for photo, painted in zip((square, square.flip(3)), before, strict=True):
        loss = lk.content(photo) + 5 * lk.style(two_paintings()[name]) + 4 * lk.total_variation()
        losses.append(lk.Evaluator(backbone, loss, (64, 64), precision="float32")(painted[None]).loss.item())
    means = [(losses[0] * (4 - k) + losses[1] * k) / 4 for k in range(5)]  # k of the four squares were mirrored
    assert min(abs(now.error - mean) for mean in means) < 1e-4 * now.error


def test_photos_that_are_too_small_are_refused() -> None:
    with pytest.raises(ValueError, match="large enough for crops of 168 pixels"):
        next(training(StyleNetwork(["a"]), {"a": cat()}, [cat()]))


# --- devices: "meta" stands for a GPU, from which nothing can be copied back without being noticed ------------------


def test_a_network_is_loaded_to_the_best_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "pick_device", lambda device: torch.device(device or "meta"))
    assert load_network().last.weight.device.type == "meta"
    assert load_network(device="cpu").last.weight.device.type == "cpu"


@pytest.mark.parametrize("tile", [None, 64])
def test_the_picture_is_brought_home(tile: int | None) -> None:
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta"):
        repaint(cat(), "a", scrambled().to("meta"), tile=tile)


# --- the networks that travel with the lab --------------------------------------------------------------------------


@pytest.mark.slow
def test_the_bundled_network_paints() -> None:
    """Each of its paintings is nearer by the loss than the photo, and each fits its own painting best."""
    model, backbone = load_network(), backbone_of("pocket")
    photo = lk.photo("chelsea", 240)
    results = {name: repaint(photo, name, model) for name in model.names}
    for name in model.names:
        evaluate = lk.Evaluator(backbone, lk.style(lk.painting(name)), photo.shape[-2:], precision="float32")
        losses = {other: evaluate(result).loss.item() for other, result in results.items()}
        assert min(losses, key=losses.get) == name
        assert losses[name] < 0.5 * evaluate(photo).loss.item()
