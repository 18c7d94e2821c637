"""Networks: the layers they are cut into, what a layer sees, where weights come from and what if they do not."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision import models as zoo

import labkit as lk
from labkit.base.files import bundled
from labkit.networks import zoo as backbones
from labkit.networks.backbone import averages

WEIGHTS = os.environ.get("LABKIT_WEIGHTS", "")
SAMPLES = Path(WEIGHTS).parent / "images" / "imagenet_samples"
FILES = {"googlenet_bvlc": "googlenet_bvlc.fp16.safetensors", "squeezenet1_1": "squeezenet1_1.safetensors"}


def real(name: str, *values: object) -> object:
    """A test parameter that needs a trained network."""
    there = bool(WEIGHTS) and Path(WEIGHTS, FILES[name]).is_file()
    reason = f"set LABKIT_WEIGHTS to a folder that holds {FILES[name]}"
    return pytest.param(name, *values, marks=pytest.mark.skipif(not there, reason=reason))


NETWORKS = ["pocket", "vgg16", "googlenet", "resnet50", real("googlenet_bvlc"), real("squeezenet1_1")]


def random_torchvision(name: str, **options: bool) -> nn.Module:
    """A network of torchvision with random weights, normalization statistics included."""
    with torch.device("meta"):  # without torch's own initialization, which takes seconds
        net = zoo.get_model(name, weights=None, **({"init_weights": False} if name == "googlenet" else {}), **options)
    if name.startswith("vgg"):
        net.classifier = nn.Linear(512 * 7 * 7, 10)  # the true one has 120 million weights
    net.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    for key, value in net.state_dict().items():
        if key.endswith("running_var") or (value.ndim == 1 and key.endswith("weight")):
            value.uniform_(0.5, 1.5, generator=generator)
        elif value.is_floating_point():
            spread = value[0].numel() ** -0.5 if value.ndim > 1 else 0.1
            value.normal_(0, 1.4 * spread, generator=generator)
        else:
            value.zero_()
    return net.eval()


def fresh(name: str) -> lk.Backbone:
    """A network of its own, to be spoilt by a test; torchvision's large ones with random weights."""
    with pytest.MonkeyPatch.context() as patch:
        if name in ("vgg16", "vgg19", "googlenet", "resnet50"):
            patch.setattr(backbones, "_torchvision", random_torchvision)
        return lk.load_backbone(name, "cpu")


network = functools.cache(fresh)


def noise(*size: int, seed: int = 0) -> Tensor:
    return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(seed))


# --- layers ------------------------------------------------------------------------------------------------------


def vgg_names(*convolutions: int) -> list[str]:
    names = []
    for block, count in enumerate(convolutions, 1):
        names += [f"{kind}{block}_{number}" for number in range(1, count + 1) for kind in ("conv", "relu")]
        names.append(f"pool{block}")
    return [*names, "logits"]


@pytest.mark.parametrize(
    ("name", "convolutions"), [("pocket", (2, 2, 3, 3, 3)), ("vgg16", (2, 2, 3, 3, 3)), ("vgg19", (2, 2, 4, 4, 4))]
)
def test_the_layers_of_a_vgg_are_named_as_in_the_literature(name: str, convolutions: tuple[int, ...]) -> None:
    assert network(name).layers == vgg_names(*convolutions)


@pytest.mark.parametrize("name", NETWORKS)
def test_recommended_layers_exist(name: str) -> None:
    net = network(name)
    assert {*net.recommended.dream, *net.recommended.content, *net.recommended.style} <= set(net.layers)
    assert net.recommended.dream and net.recommended.content and net.recommended.style


@pytest.mark.parametrize("name", NETWORKS)
def test_a_layer_asked_for_alone_equals_the_layer_among_all(name: str) -> None:
    net, picture = network(name), noise(64, 48)
    together = net.features(picture, net.layers)
    assert list(together) == net.layers
    for layer in net.layers:  # a ReLU in place would have overwritten the convolution before it
        assert torch.equal(together[layer], net.features(picture, [layer])[layer]), layer


@pytest.mark.parametrize("name", NETWORKS)
def test_no_stage_runs_beyond_the_deepest_layer(name: str) -> None:
    def poison(*_: object) -> None:
        raise AssertionError("this stage was not needed")

    net = fresh(name)
    deepest = len(net.names) // 2
    for stage in [*net.stages[deepest + 1 :], net.head]:
        stage.register_forward_pre_hook(poison)
    net.features(noise(64, 64), [net.names[deepest], net.names[0]])
    with pytest.raises(AssertionError, match="not needed"):
        net.features(noise(64, 64), [net.names[deepest + 1]])


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_channels_are_those_of_the_features(name: str) -> None:
    net = network(name)
    found = net.features(noise(32, 32), net.layers)
    some = [net.layers[len(net.layers) // 2], "logits"]
    assert {layer: net.channels(layer) for layer in some} == {layer: found[layer].shape[1] for layer in some}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_frozen(name: str) -> None:
    net = network(name)
    assert not net.training
    assert not any(parameter.requires_grad for parameter in net.parameters())


def test_a_network_is_called_as_a_classifier_is() -> None:
    network, picture = lk.load_backbone("pocket", "cpu"), lk.photo("chelsea", 64)
    assert torch.equal(network(picture), network.logits(picture))


def test_a_network_is_asked_for_a_shape_once(monkeypatch: pytest.MonkeyPatch) -> None:
    network, real, asked = lk.load_backbone("pocket", "cpu"), lk.Backbone.on_meta, []
    monkeypatch.setattr(lk.Backbone, "on_meta", lambda *args: asked.append(args) or real(*args))

    def shapes() -> tuple[object, ...]:
        sizes = (network.map_size(layer, (60, 40)) for layer in ("relu2_1", "relu3_1"))
        return *sizes, network.channels("relu3_1"), network.minimum_size("relu3_1")

    assert shapes() == ((30, 20), (15, 10), 128, 4)
    count = len(asked)
    assert count and shapes() == ((30, 20), (15, 10), 128, 4) and len(asked) == count
    assert lk.load_backbone("pocket", "cpu").answers == {}, "each network has its own"


@pytest.mark.parametrize(
    "ask",
    [
        lambda net, layer: net.features(noise(64, 64), ["relu1_1", layer]),
        lambda net, layer: net.minimum_size(layer),
        lambda net, layer: net.receptive_field(layer),
        lambda net, layer: net.channels(layer),
    ],
    ids=["features", "minimum_size", "receptive_field", "channels"],
)
@pytest.mark.parametrize(("wrong", "near"), [("relu43", "relu4_3"), ("Relu4_3", "relu4_3"), ("logit", "logits")])
def test_an_unknown_layer_suggests_the_nearest(ask: Callable[[lk.Backbone, str], None], wrong: str, near: str) -> None:
    with pytest.raises(ValueError, match=rf"pocket has no layer '{wrong}': did you mean .*{near}.*\? its layers are"):
        ask(network("pocket"), wrong)


# --- a backbone built by hand --------------------------------------------------------------------------------------


def built(first: nn.Module | None = None, second: nn.Module | None = None, **options: object) -> lk.Backbone:
    stages = {"first": first or nn.Conv2d(3, 4, 3), "second": second or nn.ReLU()}
    return lk.Backbone("built", stages, nn.Linear(4, 10), **options)


@pytest.mark.parametrize("mean", [0, 1, 0.5, (0.5,), (0, 1, 0), torch.tensor([0.5, 0.5, 0.5])])
def test_mean_and_std_are_three_numbers_or_one_whole_or_not(mean: object) -> None:
    net = built(nn.Identity(), mean=mean, std=2)
    expected = (noise(8, 8) - torch.as_tensor(mean, dtype=torch.float32).view(1, -1, 1, 1)) / 2
    torch.testing.assert_close(net.features(noise(8, 8), ["first"])["first"], expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": (0.5, 0.5)}, "mean has three values, one a color, or one for all, not 2"),
        ({"std": ()}, "std has three values, one a color, or one for all, not 0"),
        ({"std": (1, 0, 1)}, r"std must be positive, not \[1.0, 0.0, 1.0\]"),
        ({"classes": 9}, "built has 10 classes, not 9"),
        ({"classes": ["a", "b"]}, "built has 10 classes, not 2"),
    ],
)
def test_senseless_arguments_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        built(**options)


def test_classes_of_a_backbone_built_by_hand() -> None:
    assert built().classes == built(classes=10).classes == list("0123456789")
    (row,) = built(classes="abcdefghij").classify(noise(8, 8), top=10)
    assert {name for name, _ in row} == set("abcdefghij")


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ((nn.Conv2d(1, 4, 3),), "second of built takes no picture: stages.0 takes 1 channels, not 3"),
        ((nn.Conv2d(4, 4, 3),), "second of built takes no picture: stages.0 takes 4 channels, not 3"),
        ((None, nn.Module()), "second of built takes no picture: .*missing the required .forward. function"),
    ],
)
def test_a_mistake_is_not_called_a_small_picture(stages: tuple, message: str) -> None:
    net = built(*stages)
    for layers in (["second"], ["first", "second"]):
        with pytest.raises(ValueError, match=message) as caught:
            net.features(noise(96, 64), layers)
        assert "\n" not in str(caught.value) and "too small" not in str(caught.value)


def test_a_gray_backbone() -> None:
    net = built(nn.Conv2d(1, 4, 3), colors=1, mean=0, std=1)
    expected = net.stages[0](lk.luma(noise(9, 9)))
    torch.testing.assert_close(net.features(noise(9, 9), ["first"])["first"], expected)
    assert net.minimum_size("first") == 3 and net.receptive_field("first") == lk.ReceptiveField(3)


def test_a_function_in_place_does_not_overwrite_the_layer_before() -> None:
    class InPlace(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.relu_(x)

    net = built(second=InPlace())
    found = net.features(noise(9, 9), ["first", "second"])
    assert (found["first"] < 0).any() and torch.equal(found["second"], found["first"].relu())
    with torch.inference_mode():
        assert torch.equal(net.features(noise(9, 9), ["first", "second"])["first"], found["first"])


# --- how large a picture must be ---------------------------------------------------------------------------------

SIZES = [
    ("pocket", {"relu1_2": 1, "relu2_1": 2, "relu4_3": 8, "pool5": 32, "logits": 32}),
    ("vgg16", {"relu4_3": 8, "relu5_1": 16, "logits": 32}),
    ("googlenet", {"conv1": 1, "inception_3a": 7, "inception_4c": 15}),
    ("resnet50", {"conv1": 1, "layer4_3": 1}),
    real("googlenet_bvlc", {"conv1/7x7_s2": 1, "inception_4c": 15, "logits": 31}),
    real("squeezenet1_1", {"relu1": 3, "fire8": 17}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "sizes"), SIZES)
def test_the_minimum_size_is_exact(name: str, sizes: dict[str, int]) -> None:
    net = network(name)
    for layer, least in sizes.items():
        assert net.minimum_size(layer) == least
        for size in ((least, least), (least, 40), (40, least)):
            assert 0 not in net.features(noise(*size), [layer])[layer].shape
        if least == 1:
            continue
        for height, width in ((least - 1, least - 1), (least - 1, 40), (40, least - 1)):
            with pytest.raises(
                ValueError,
                match=f"a picture of {width}x{height} pixels is too small for {layer} of {name}: "
                f"its sides must be at least {least} pixels, or choose a shallower layer",
            ):
                net.features(noise(height, width), [layer])


def test_another_mistake_is_not_called_a_small_picture() -> None:
    def fail(stage: nn.Module, inputs: tuple[Tensor]) -> None:
        if not inputs[0].is_meta:  # on which sizes are tried out
            raise RuntimeError("out of memory")

    net = fresh("pocket")
    net.stages[3].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        net.features(noise(64, 64), ["relu2_2"])


# --- what a unit sees --------------------------------------------------------------------------------------------


def test_the_logits_have_no_receptive_field() -> None:
    with pytest.raises(ValueError, match="the logits see the whole picture"):
        network("pocket").receptive_field("logits")


# --- classes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [285, "Egyptian cat", "egyptian CAT"])
def test_a_class_by_number_or_name(name: int | str) -> None:
    assert network("pocket").class_index(name) == 285


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (1000, "there is no class 1000: they run from 0 to 999"),
        (-1, "there is no class -1: they run from 0 to 999"),
        ("egyptian kat", r"there is no class 'egyptian kat': did you mean egyptian cat.*\?"),
        ("zzzzqqqq", "there is no class 'zzzzqqqq': they run from tench to toilet tissue$"),
    ],
)
def test_an_unknown_class_suggests_the_nearest(name: int | str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        network("pocket").class_index(name)


def test_the_classes_are_those_of_imagenet() -> None:
    classes = network("pocket").classes
    assert len(classes) == 1000
    assert (classes[0], classes[999]) == ("tench", "toilet tissue")


@pytest.mark.parametrize("name", ["pocket", real("googlenet_bvlc"), real("squeezenet1_1")])
def test_a_cat_is_a_cat(name: str) -> None:
    (rows,) = network(name).classify(lk.photo("chelsea", 160), top=1000)
    assert rows[0][0] == "Egyptian cat"
    probabilities = [probability for _, probability in rows]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1, abs=1e-3)


def test_a_batch_has_a_row_each() -> None:
    cat, coffee = lk.photo("chelsea", (96, 96)), lk.photo("coffee", (96, 96))
    rows = network("pocket").classify(torch.cat([cat, coffee]), top=3)
    assert [len(row) for row in rows] == [3, 3]
    assert rows[0] != rows[1]


def test_a_network_of_few_classes_names_all_it_has() -> None:
    (row,) = lk.shapes.network().classify(torch.rand(1, 3, 24, 24))
    assert sorted(name for name, _ in row) == sorted(lk.shapes.network().classes)


@pytest.mark.parametrize(("length", "cells"), [(8, 7), (7, 7), (5, 2), (9, 1)])
def test_averages_are_adaptive_pooling(length: int, cells: int) -> None:
    numbers = torch.randn(1, length, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(numbers @ averages(length, cells).T, F.adaptive_avg_pool1d(numbers, cells))


@pytest.mark.skipif(not (WEIGHTS and SAMPLES.is_dir()), reason="needs images/imagenet_samples beside LABKIT_WEIGHTS")
@pytest.mark.parametrize(("name", "side", "least"), [real("googlenet_bvlc", 224, 75), real("squeezenet1_1", 227, 62)])
def test_a_trained_network_knows_what_photos_show(name: str, side: int, least: int) -> None:
    right, edge = 0, (256 - side) // 2
    for path in sorted(SAMPLES.glob("*.jpg"))[::10]:
        photo = lk.load(path, (256, 256))[..., edge : edge + side, edge : edge + side]
        with torch.no_grad():
            right += network(name).logits(photo).argmax().item() == int(path.name[:3])
    assert right >= least  # of 100


# --- agreement with the originals --------------------------------------------------------------------------------


def test_the_pocket_file_is_small_and_half_precision() -> None:
    path = bundled("pocket/pocket.safetensors")
    assert path.stat().st_size <= 12_000_000
    assert {tensor.dtype for tensor in load_file(path).values()} == {torch.float16}
    assert network("pocket").mean.dtype == torch.float32


def test_pocket_reads_every_tensor_of_its_file() -> None:
    net, state = network("pocket"), load_file(bundled("pocket/pocket.safetensors"))
    modules = dict(zip(net.names, net.stages, strict=True)) | {"logits": net.head}
    used = {f"{key}.{name}" for key, module in modules.items() for name, _ in module.named_parameters()}
    assert used == set(state)
    assert torch.equal(net.stages[0].weight, state["conv1_1.weight"].float())


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("googlenet", "googlenet.safetensors"),
        ("squeezenet1_1", "squeezenet1_1-b8a52dc0.pth"),
        ("resnet50", "resnet50.fp16.safetensors"),
    ],
)
def test_the_logits_are_those_of_torchvision(
    name: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Torchvision's trained GoogLeNet undoes the usual normalization itself, and has its auxiliary heads on file.
    original = random_torchvision(name, **({"transform_input": True} if name == "googlenet" else {}))
    state = {key: value.half().float() if "fp16" in file else value for key, value in original.state_dict().items()}
    original.load_state_dict(state)
    halves = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    if file.endswith(".pth"):
        torch.save(state, tmp_path / file)
    else:
        save_file(halves if "fp16" in file else state, tmp_path / file)
    monkeypatch.setenv("LABKIT_WEIGHTS", str(tmp_path))
    assert_same_logits(lk.load_backbone(name, "cpu"), original)


def test_the_logits_of_vgg16_are_those_of_torchvision() -> None:
    assert_same_logits(network("vgg16"), random_torchvision("vgg16"))


def assert_same_logits(net: lk.Backbone, original: nn.Module) -> None:
    picture = noise(96, 64)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        expected = original((picture - mean) / std)
        found = net.logits(picture)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize("name", [real("googlenet_bvlc")])
def test_caffes_bgr_is_folded_into_the_first_kernel(name: str) -> None:
    state = load_file(Path(WEIGHTS, FILES[name]))
    picture = noise(40, 56)
    caffes = picture.flip(1) * 255 - torch.tensor([104.0, 117.0, 123.0]).view(1, 3, 1, 1)
    kernel, bias = (state[f"conv1/7x7_s2.{part}"].float() for part in ("weight", "bias"))
    expected = F.conv2d(caffes, kernel, bias, stride=2, padding=3).relu()
    found = network(name).features(picture, ["conv1/7x7_s2"])["conv1/7x7_s2"]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * expected.max().item())


@pytest.mark.parametrize("name", [real("googlenet_bvlc")])
def test_caffes_response_normalization(name: str) -> None:
    features = network(name).features(noise(40, 56), ["pool1/3x3_s2", "pool1/norm1"])
    x = features["pool1/3x3_s2"]
    energy = F.pad(x**2, (0, 0, 0, 0, 2, 2)).unfold(1, 5, 1).sum(-1)  # of the five nearest channels
    torch.testing.assert_close(features["pool1/norm1"], x / (1 + 1e-4 / 5 * energy) ** 0.75)


# --- weights that are not there, or not what they should be ------------------------------------------------------


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder LABKIT_WEIGHTS and an empty cache of torch's, no network."""

    def refuse(url: str, *args: object, **options: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("LABKIT_WEIGHTS", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "file", "size"),
    [
        ("vgg16", "vgg16-397923af.pth", "528 MB"),
        ("vgg19", "vgg19-dcbb9e9d.pth", "548 MB"),
        ("googlenet", "googlenet-1378be20.pth", "50 MB"),
        ("squeezenet1_1", "squeezenet1_1-b8a52dc0.pth", "5 MB"),
        ("resnet50", "resnet50-0676ba61.pth", "98 MB"),
        ("googlenet_bvlc", "googlenet_bvlc.safetensors", "14 MB"),
    ],
)
def test_missing_weights_say_what_to_do(offline: Path, name: str, file: str, size: str) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        lk.load_backbone(name, "cpu")
    message = str(caught.value)
    for part in (f"the weights of {name} are not here", f" as {file},", f"({size})", "LABKIT_WEIGHTS", '"pocket"'):
        assert part in message
    assert "\n" not in message


def test_without_a_folder_of_weights_torchvisions_cache_is_asked(
    offline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LABKIT_WEIGHTS")
    with pytest.raises(FileNotFoundError, match="the weights of squeezenet1_1 are not here"):
        lk.load_backbone("squeezenet1_1", "cpu")
    path = offline / "torch/hub/checkpoints/squeezenet1_1-b8a52dc0.pth"
    torch.save(random_torchvision("squeezenet1_1").state_dict(), path)
    assert lk.load_backbone("squeezenet1_1", "cpu").name == "squeezenet1_1"


class Bomb:
    """A pickle that makes a folder when it is loaded without care."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


def truncated(path: Path) -> None:
    torch.save({"weight": torch.rand(1000)}, path)
    path.write_bytes(path.read_bytes()[:2000])


@pytest.mark.parametrize(
    ("file", "write"),
    [
        ("squeezenet1_1.safetensors", lambda path: path.write_bytes(b"nonsense" * 20)),
        ("squeezenet1_1.safetensors", lambda path: path.touch()),
        ("squeezenet1_1-b8a52dc0.pth", truncated),
        ("squeezenet1_1-b8a52dc0.pth", lambda path: path.write_bytes(b"nonsense" * 20)),
        ("squeezenet1_1-b8a52dc0.pth", lambda path: torch.save([1, 2], path)),
        ("squeezenet1_1-b8a52dc0.pth", lambda path: torch.save({"weight": Bomb(path.parent / "boom")}, path)),
        ("torch/hub/checkpoints/squeezenet1_1-b8a52dc0.pth", truncated),
    ],
    ids=["safetensors", "empty", "truncated", "nonsense", "list", "bomb", "truncated in torch's cache"],
)
def test_a_damaged_weights_file_is_one_clear_error(offline: Path, file: str, write: Callable[[Path], None]) -> None:
    path = offline / file
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path)
    message = f"^{re.escape(str(path))} is damaged or holds more than .*: delete it and fetch it again"
    with pytest.raises(ValueError, match=message) as caught:
        lk.load_backbone("squeezenet1_1", "cpu")
    assert "\n" not in str(caught.value)
    assert not (path.parent / "boom").exists()


def test_the_bomb_would_have_gone_off(tmp_path: Path) -> None:
    torch.save(Bomb(tmp_path / "boom"), tmp_path / "bomb.pth")
    torch.load(tmp_path / "bomb.pth", weights_only=False)
    assert (tmp_path / "boom").is_dir()


@pytest.mark.parametrize(
    ("name", "message"), [("squeezenet1_1", "not one of torchvision's squeezenet1_1"), ("googlenet_bvlc", "not one of")]
)
@pytest.mark.parametrize("state", [{"weight": torch.rand(3)}, {}], ids=["another", "empty"])
def test_weights_of_another_network_are_refused(offline: Path, name: str, message: str, state: dict) -> None:
    save_file(state, offline / f"{name}.safetensors")
    with pytest.raises(ValueError, match=f"the weights file is {message}") as caught:
        lk.load_backbone(name, "cpu")
    assert "\n" not in str(caught.value)


def test_weights_of_another_shape_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = load_file(bundled("pocket/pocket.safetensors"))
    state["conv3_2.weight"] = state["conv3_2.weight"][:, :-1].clone()
    save_file(state, tmp_path / "pocket.safetensors")
    monkeypatch.setattr(backbones, "bundled", lambda relative: tmp_path / "pocket.safetensors")
    with pytest.raises(
        ValueError, match=r"not one of pocket: conv3_2.weight has the shape \(128, 127, 3, 3\), not \(128, 128, 3, 3\)"
    ):
        lk.load_backbone("pocket", "cpu")


@pytest.mark.parametrize("pack", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": s}])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_as_training_scripts_save_them(offline: Path, pack: Callable, prefix: str) -> None:
    state = random_torchvision("squeezenet1_1").state_dict()
    torch.save(pack({f"{prefix}{key}": value for key, value in state.items()}), offline / "squeezenet1_1-b8a52dc0.pth")
    found = lk.load_backbone("squeezenet1_1", "cpu").stages[0].weight
    assert torch.equal(found, state["features.0.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.update({"classifier.1.weight": torch.rand(365, 512, 1, 1)}),
         "classifier.1.weight has the shape (365, 512, 1, 1), not (1000, 512, 1, 1)"),
        (lambda s: s.pop("features.3.squeeze.bias"), "features.3.squeeze.bias is missing"),
        (lambda s: s.update({"extra.weight": torch.rand(3)}), "extra.weight does not belong to it"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_named(offline: Path, change: Callable, message: str) -> None:
    state = random_torchvision("squeezenet1_1").state_dict()
    change(state)
    torch.save(state, offline / "squeezenet1_1-b8a52dc0.pth")
    with pytest.raises(ValueError, match=re.escape(f"not one of torchvision's squeezenet1_1: {message}")) as caught:
        lk.load_backbone("squeezenet1_1", "cpu")
    assert "\n" not in str(caught.value)


def test_an_unknown_backbone_lists_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"no backbone named 'vgg17'; there are pocket, vgg16, .*resnet50"):
        lk.load_backbone("vgg17")


def test_an_unusable_device_is_one_clear_error() -> None:
    with pytest.raises(ValueError, match="the device 'abacus' cannot be used here: try cpu"):
        lk.load_backbone("pocket", "abacus")
    assert lk.pick_device("cpu") == torch.device("cpu")


def test_a_loaded_backbone_is_taken_as_it_is() -> None:
    assert lk.load_backbone(network("pocket")) is network("pocket")


# --- importing ---------------------------------------------------------------------------------------------------

IMPORT = """
import os, sys, threading
import torch, numpy, safetensors.torch, PIL.Image

def native_threads():
    return len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 0

def watch(event, arguments):
    if event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        print("writes", arguments[0])
    if event.startswith(("socket.", "subprocess.", "os.mkdir", "tempfile.")):
        print("does", event, arguments)

before = native_threads()
sys.addaudithook(watch)
import labkit
assert threading.active_count() == 1, "starts a thread"
assert native_threads() == before, "starts a native thread"
print(*[name for name in ("torchvision", "matplotlib", "skimage", "IPython", "ipywidgets") if name in sys.modules])
"""


@pytest.mark.slow
def test_importing_does_no_work(tmp_path: Path) -> None:
    environment = os.environ | {
        "PYTHONPATH": str(Path(lk.__file__).parents[1]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", IMPORT],
        cwd=tmp_path,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("channels", [3, 64])
def test_channel_norm_is_local_response_normalization(channels: int) -> None:
    x = 200 * torch.randn(2, channels, 5, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(backbones.ChannelNorm(channels)(x), torch.nn.LocalResponseNorm(5, 1e-4, 0.75)(x))
