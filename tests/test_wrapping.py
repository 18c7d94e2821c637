"""A user's own network: it computes what it computed, has layers, is left as it was, and takes part in everything."""

from __future__ import annotations

import copy
import functools
import threading
from collections import OrderedDict, namedtuple
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_zoo import noise, random_torchvision
from torch import Tensor, nn
from torch.nn.utils import prune

import labkit as lk

MEAN, STD = (torch.tensor(values).view(1, 3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
OPTIONS = {"device": "cpu", "precision": "float32", "progress": False}
LABELS = ["ant", "bee", "cat", "dog", "eel", "fly", "gnu", "hen", "ibex", "jay"]


class Small(nn.Module):
    """A residual network as many write it: ReLUs in place, called as functions, one module called twice."""

    def __init__(self, colors: int = 3, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(colors, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.left, self.right = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=2, dilation=2)
        self.drop = nn.Dropout(0.5)
        self.deep = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.fc = nn.Linear(16, classes)
        self.scale = torch.full((1, 8, 1, 1), 0.5)  # a tensor that nobody has registered

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.stem(x)))
        x = F.relu_(self.scale * x + self.right(self.relu(self.left(x))))
        return self.head(F.relu_(self.deep(self.drop(x))))

    def head(self, x: Tensor) -> Tensor:
        return self.fc(x.mean((2, 3)))


class Timm(nn.Module):
    """In timm's style: forward_features and forward_head; squeezes and excites nothing, but flattens with view."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem, self.bn1 = nn.Conv2d(3, 8, 4, stride=4), nn.BatchNorm2d(8)
        self.blocks = nn.Sequential(*(nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.SiLU(True)) for _ in range(4)))
        self.global_pool, self.classifier = nn.AdaptiveAvgPool2d(2), nn.Linear(32, 5)

    def forward_features(self, x: Tensor) -> Tensor:
        return self.blocks(self.bn1(self.conv_stem(x)))

    def forward_head(self, x: Tensor) -> Tensor:
        return self.classifier(self.global_pool(x).view(len(x), -1))

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def made(kind: Callable[..., nn.Module], *arguments: object, seed: int = 0) -> nn.Module:
    """A module with random weights, and statistics of its batch norms that are not 0 and 1."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind(*arguments)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_mean, -0.2, 0.2)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model


def chain() -> nn.Module:
    first, second = nn.Conv2d(3, 6, 5, padding=2), nn.Conv2d(6, 12, 3)
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 10)
    return nn.Sequential(first, nn.ReLU(True), nn.MaxPool2d(2), second, nn.ReLU(True), *head)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "resnet18": lambda: random_torchvision("resnet18"),
    "resnet50": lambda: random_torchvision("resnet50"),
    "timm": lambda: made(Timm),
    "chain": lambda: made(chain),
    "small": lambda: made(Small),
}


@functools.cache
def wrapped(name: str) -> lk.Backbone:
    return lk.wrap(MODELS[name](), name=name)


# --- what it computes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_it_says_what_the_module_says(name: str) -> None:
    model, picture = MODELS[name]().eval(), noise(96, 64)
    with torch.no_grad():
        expected = model((picture - MEAN) / STD)
    found = wrapped(name).logits(picture)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize("name", MODELS)
def test_layers_together_are_those_alone(name: str) -> None:
    """In-place operations have overwritten none, and the network stops when it has what was asked for."""
    network, picture = wrapped(name), noise(64, 48)
    together = network.features(picture, network.layers)
    assert list(together) == network.layers
    for layer in network.layers:
        assert torch.equal(together[layer], network.features(picture, [layer])[layer]), layer
    assert {layer: network.channels(layer) for layer in together} == {k: f.shape[1] for k, f in together.items()}


def test_a_single_logit_has_no_others_to_be_compared_with() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1))
    wrapped, photo = lk.wrap(model), lk.photo("chelsea", 32)
    evaluation = lk.Evaluator(wrapped, lk.class_logit(0), photo.shape[-2:], "float32")(photo)
    torch.testing.assert_close(evaluation.loss, wrapped.logits(photo)[:, 0])
    assert evaluation.gradient.any()


def test_a_layer_is_what_the_module_answered_there() -> None:
    model, seen = made(Small).eval(), {}
    for name in ("norm", "right", "deep"):
        getattr(model, name).register_forward_hook(lambda m, i, answer, name=name: seen.update({name: answer.clone()}))
    picture = noise(40, 56)
    with torch.no_grad():
        model((picture - MEAN) / STD)
        for name, f in lk.wrap(made(Small)).features(picture, list(seen)).items():
            torch.testing.assert_close(f, seen[name])


def test_without_copies_in_place_operations_would_overwrite(monkeypatch: pytest.MonkeyPatch) -> None:
    network, layers = lk.wrap(made(Small)), ["norm", "deep", "logits"]
    right = network.features(noise(40, 56), layers)
    monkeypatch.setattr(type(network), "_overwritten", lambda *_: set())
    wrong = network.features(noise(40, 56), layers)
    assert not torch.equal(right["norm"], wrong["norm"]) and torch.equal(right["logits"], wrong["logits"])


def test_gradients_with_respect_to_layers_that_are_overwritten() -> None:
    """The network goes on from what it answers, so that a layer's gradient is that of all that follows."""
    network = lk.wrap(made(Small))
    found = network.features(noise(40, 56).requires_grad_(), ["deep", "logits"])
    (slope,) = torch.autograd.grad(found["logits"][0, 3], found["deep"])
    weight = network.model.fc.weight[3].view(1, -1, 1, 1)
    places = found["deep"].shape[2] * found["deep"].shape[3]
    torch.testing.assert_close(slope, (found["deep"] > 0) * weight / places)


def test_no_module_runs_beyond_the_deepest_layer() -> None:
    def poison(*_: object) -> None:
        raise AssertionError("this module was not needed")

    network = lk.wrap(random_torchvision("resnet18"))
    network.model.layer3.register_forward_pre_hook(poison)
    network.features(noise(64, 64), ["layer2", "relu"])
    with pytest.raises(AssertionError, match="not needed"):
        network.features(noise(64, 64), ["layer3"])


def test_two_threads_do_not_disturb_each_other() -> None:
    network, found = wrapped("small"), {}
    picture = noise(128, 128)
    alone = {layer: network.features(picture, [layer])[layer] for layer in ("stem", "deep")}

    def work(layer: str) -> None:
        found[layer] = all(
            torch.equal(network.features(picture, [layer])[layer], alone[layer]) for _ in range(30)
        )  # fmt: skip

    threads = [threading.Thread(target=work, args=(layer,)) for layer in alone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {"stem": True, "deep": True}


# --- what it is made of ----------------------------------------------------------------------------------------------


def test_layers_are_modules_that_answer_maps_once() -> None:
    names = wrapped("resnet18").names
    assert names[:4] == ["conv1", "bn1", "relu", "maxpool"] and names[-1] == "layer4"
    assert "layer1.0" in names and "layer2.0.downsample.0" in names
    assert not {"layer1.0.relu", "avgpool", "fc", ""} & set(names)  # called twice; no map; no map; the whole


def test_layers_can_be_named_and_are_sorted_by_depth() -> None:
    network = lk.wrap(random_torchvision("resnet18"), ["layer3", "layer1.0.bn2"])
    assert network.layers == ["layer1.0.bn2", "layer3", "logits"]
    assert lk.wrap(made(Small), "deep").names == ["deep"]


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("layer5", "ResNet has no module 'layer5': did you mean layer4"),
        ("layer1.0.relu", "layer1.0.relu of ResNet is called 2 times for a picture, and a layer is"),
        ("avgpool", r"avgpool of ResNet answers a tensor of shape \(1, 512, 1, 1\), and a layer answers maps"),
        ("fc", r"fc of ResNet answers a tensor of shape \(1, 1000\), and a layer answers maps \(N, C, h, w\)"),
    ],
)
def test_a_layer_that_is_none_is_refused(layer: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        lk.wrap(random_torchvision("resnet18"), ["layer1", layer])
    assert "\n" not in str(caught.value)


def test_the_tokens_of_a_transformer_are_refused() -> None:
    class Tokens(nn.Module):
        def __init__(self, patches: bool = True) -> None:
            super().__init__()
            self.patch, self.mix = nn.Conv2d(3, 8, 8, 8) if patches else nn.Unfold(8, stride=8), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            x = self.patch(x)
            return self.mix(x.flatten(2).mT if x.ndim == 4 else x.mT[..., :8]).mean(1)

    assert lk.wrap(Tokens()).names == ["patch"]
    with pytest.raises(ValueError, match=r"mix of Tokens answers a tensor of shape \(1, 784, 8\), and a layer answers"):
        lk.wrap(Tokens(), "mix")
    with pytest.raises(ValueError, match="no submodule of Tokens answers maps"):
        lk.wrap(Tokens(patches=False))


@pytest.mark.parametrize("name", MODELS)
def test_guessed_layers_exist_and_rise(name: str) -> None:
    network = wrapped(name)
    (dream,), (content,), style = (
        network.recommended.dream,
        network.recommended.content,
        list(network.recommended.style),
    )
    depths = [network.names.index(layer) for layer in style]
    assert depths == sorted(set(depths)) and network.names.index(content) <= network.names.index(dream) == depths[-1]
    assert len(style) == (5 if name.startswith("resnet") else len(style)) > 1


def test_the_guess_can_be_replaced() -> None:
    wanted = lk.Recommended("layer3", ["layer2"], {"relu": 2, "layer1": 1})
    assert wanted == lk.Recommended({"layer3": 1.0}, ("layer2",), {"relu": 2, "layer1": 1})
    model = random_torchvision("resnet18")
    assert lk.wrap(model, recommended=wanted).recommended is wanted
    network = lk.wrap(model)
    network.recommended = wanted
    loss = lk.Evaluator(network, lk.style(lk.painting("koi_mosaic", 64)), (64, 64), "float32").loss
    assert loss.layers == ("relu", "layer1") and loss.weights == pytest.approx({"relu": 2 / 3, "layer1": 1 / 3})
    with pytest.raises(ValueError, match="has no layer 'nowhere'"):
        lk.wrap(model, recommended=lk.Recommended("nowhere", [], []))


# --- the module stays as it was --------------------------------------------------------------------------------------


def test_the_module_is_left_as_it_was() -> None:
    model = made(Small).train()
    model.left.requires_grad_(False)
    model.drop.eval()
    model.stem.register_forward_hook(lambda *_: None)
    before, flags = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    wishes = [p.requires_grad for p in model.parameters()]
    hooks = [len(m._forward_hooks) for m in model.modules()]
    network = lk.wrap(model)
    network.features(noise(64, 64), network.layers)
    network.receptive_field("deep")
    for precision in ("float32", "bfloat16"):
        lk.dream(
            noise(64, 64),
            "deep",
            backbone=network,
            octaves=1,
            steps=1,
            precision=precision,
            progress=False,
            device="cpu",
        )
    network.to(torch.float64)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert {p.dtype for p in model.parameters()} == {torch.float32} and model.stem.weight.is_contiguous()
    assert [m.training for m in model.modules()] == flags and [p.requires_grad for p in model.parameters()] == wishes
    assert [len(m._forward_hooks) for m in model.modules()] == hooks and model.relu.inplace
    assert "scale" in vars(model) and all(p.grad is None for p in model.parameters())


def test_it_runs_as_in_evaluation() -> None:
    network = lk.wrap(made(Small).train())
    statistics = network.model.norm.running_mean.clone()
    first, second = (network.logits(noise(64, 64)) for _ in range(2))
    assert torch.equal(first, second) and torch.equal(network.model.norm.running_mean, statistics)
    assert network.model.norm.num_batches_tracked == 0


def test_training_the_module_on_does_not_change_the_backbone() -> None:
    model = made(Small)
    network, picture = lk.wrap(model), noise(48, 48)
    before = network.logits(picture)
    with torch.no_grad():
        model.fc.weight.add_(1)
    assert torch.equal(network.logits(picture), before)


def test_a_pruned_module_can_be_wrapped() -> None:
    model = made(Small).eval()
    prune.random_unstructured(model.left, "weight", 0.5)  # whose weight is then computed, and no parameter
    with torch.no_grad():
        expected = model((noise(48, 48) - MEAN) / STD)
    torch.testing.assert_close(lk.wrap(model).cast(torch.float64).logits(noise(48, 48)), expected, atol=1e-5, rtol=0)


def test_unregistered_tensors_move_along() -> None:
    network = lk.wrap(made(Small))
    assert network.cast(torch.bfloat16).features(noise(32, 32), ["deep"])["deep"].dtype == torch.bfloat16
    assert network.map_size("deep", (640, 480)) == (160, 120)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_modules_in_other_precisions(dtype: torch.dtype) -> None:
    expected = wrapped("small").logits(noise(64, 64))
    network = lk.wrap(made(Small).to(dtype))
    assert network.features(noise(64, 64), ["deep"])["deep"].dtype == dtype
    error = {torch.float16: 2e-3, torch.bfloat16: 2e-2, torch.float64: 1e-5}[dtype]
    torch.testing.assert_close(network.logits(noise(64, 64)), expected, rtol=0, atol=error)
    found = lk.Evaluator(network, -lk.activation("deep"), (64, 64), "float32")(noise(64, 64))
    assert found.gradient.dtype == torch.float32


def test_another_device_gets_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    network = wrapped("small")
    assert lk.load_backbone(network) is network and lk.load_backbone(network, "cpu") is network
    elsewhere = lk.load_backbone(network, "meta")
    assert elsewhere.device.type == "meta" and network.device.type == "cpu"


def test_data_parallel_and_compiled_modules_are_unpacked() -> None:
    assert lk.wrap(nn.DataParallel(made(Small))).names == wrapped("small").names
    assert lk.wrap(torch.compile(made(Small))).names == wrapped("small").names


# --- colors, sizes, answers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mean", [0.4, (0.4,), (0.4, 0.4, 0.4)])
def test_a_gray_scale_network_sees_the_luma(mean: object) -> None:
    model, picture = made(Small, 1).eval(), noise(40, 40)
    network = lk.wrap(model, mean=mean, std=0.2, classes=LABELS)
    with torch.no_grad():
        expected = model((lk.luma(picture) - 0.4) / 0.2)
    torch.testing.assert_close(network.logits(picture), expected, atol=1e-5, rtol=1e-5)
    gradient = lk.Evaluator(network, -lk.activation("deep"), (40, 40), "float32")(picture).gradient
    assert gradient.shape == (1, 3, 40, 40)
    torch.testing.assert_close(gradient[:, 1] / gradient[:, 0], torch.full((1, 40, 40), 0.587 / 0.299))


def test_four_channels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Small fails on a picture of .*: stem takes 4 channels, not 3") as caught:
        lk.wrap(made(Small, 4))
    assert "\n" not in str(caught.value)


class Fixed(nn.Module):
    """As in many a first tutorial: it takes pictures of 28 x 28 pixels in gray, and flattens."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4 * 14 * 14, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.max_pool2d(F.relu(self.conv(x)), 2).view(len(x), -1))


def test_a_network_of_one_size() -> None:
    model = made(Fixed).eval()
    with pytest.raises(ValueError, match=r"Fixed fails on a picture of 224x224 pixels and 1 colors: .*size="):
        lk.wrap(model)
    network = lk.wrap(model, size=28, mean=0, std=1)
    with torch.no_grad():
        expected = model(lk.luma(noise(28, 28)))
    torch.testing.assert_close(network.logits(noise(28, 28)), expected)
    assert network.features(noise(90, 50), ["conv"])["conv"].shape == (1, 4, 90, 50)  # which needs no certain size
    with pytest.raises(ValueError, match="Fixed takes pictures of 28x28 pixels, not 64x96"):
        network.logits(noise(96, 64))
    found = lk.Evaluator(network, lk.class_logit(3), (28, 28), "float32")(noise(28, 28))
    torch.testing.assert_close(found.loss, expected[:, 3] - expected.mean(1))
    assert found.gradient.any()


Answer = namedtuple("Answer", ["logits", "aux_logits"])


class Answers(nn.Module):
    def __init__(self, how: Callable[[Tensor, Tensor], object]) -> None:
        super().__init__()
        self.conv, self.how = nn.Conv2d(3, 4, 3), how

    def forward(self, x: Tensor) -> object:
        x = self.conv(x)
        return self.how(x, x.mean((2, 3)))


@pytest.mark.parametrize(
    "how", [lambda x, y: {"logits": y}, lambda x, y: Answer(y, None), lambda x, y: OrderedDict(logits=y, other=x)]
)
def test_logits_by_name(how: Callable) -> None:
    network = lk.wrap(made(Answers, how))
    expected = network.features(noise(32, 32), ["conv"])["conv"].mean((2, 3))
    torch.testing.assert_close(network.logits(noise(32, 32)), expected)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (lambda x, y: (y, x), "a tuple"),
        (lambda x, y: {"out": x}, "a dict"),
        (lambda x, y: x, r"a tensor of shape \(1, 4, 222, 222\)"),
    ],
)
def test_a_network_without_logits_has_layers_only(how: Callable, said: str) -> None:
    network = lk.wrap(made(Answers, how), name="extractor")
    assert network.layers == network.names == ["conv"]
    lk.dream(noise(40, 40), backbone=network, octaves=1, steps=1, progress=False, device="cpu")
    message = f"extractor has no classes: it answers {said}, not logits"
    for ask in (network.logits, network.classify, lambda p: network.class_index(1), lambda p: network.classes):
        with pytest.raises(ValueError, match=message):
            ask(noise(40, 40))
    with pytest.raises(ValueError, match=message):
        lk.Evaluator(network, -lk.class_logit(0), (40, 40))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (torch.jit.ScriptModule(), "wrap takes a plain nn.Module, not a ScriptModule"),
        (lambda x: x, "wrap takes a plain nn.Module, not a function"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Module()), 'missing the required "forward" function'),
        (nn.Sequential(nn.Linear(5, 3)), "Sequential fails on a picture of 224x224 pixels and 3 colors"),
    ],
)
def test_what_takes_no_pictures_is_refused(model: object, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        lk.wrap(model)
    assert "\n" not in str(caught.value)


# --- classes ---------------------------------------------------------------------------------------------------------


def test_classes_by_name_by_count_or_not_at_all() -> None:
    model = made(Small)
    assert lk.wrap(model).classes == lk.wrap(model, classes=10).classes == [str(number) for number in range(10)]
    named = lk.wrap(model, classes=LABELS)
    (row,) = named.classify(noise(64, 64), top=10)
    assert sorted(name for name, _ in row) == LABELS and named.class_index("Gnu") == 6
    assert wrapped("resnet18").classes[285] == "Egyptian cat"
    with pytest.raises(ValueError, match="Small has 10 classes, not 3"):
        lk.wrap(model, classes=["a", "b", "c"])
    for target, message in (("zebra", "no class 'zebra': they run from ant to jay"), (10, "they run from 0 to 9")):
        with pytest.raises(ValueError, match=message):
            lk.Evaluator(named, lk.class_logit(target), (64, 64))


@pytest.mark.parametrize("number", [np.int64(3), np.uint8(3), torch.tensor(3).item()])
def test_indices_of_any_whole_type(number: int) -> None:
    network = wrapped("small")
    assert network.class_index(number) == 3
    expected = lk.Evaluator(network, lk.class_logit(3) + lk.activation("deep", channel=3), (32, 32), "float32")
    found = lk.Evaluator(network, lk.class_logit(number) + lk.activation("deep", channel=number), (32, 32), "float32")
    torch.testing.assert_close(found(noise(32, 32)).gradient, expected(noise(32, 32)).gradient)


# --- it takes part in everything -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet18", "timm", "chain"])
def test_recipes_take_it(name: str) -> None:
    network, photo, painting = wrapped(name), lk.photo("chelsea", 64), lk.painting("koi_mosaic", 64)
    layer = next(iter(network.recommended.dream))
    pictures = {
        "dream": lk.dream(photo, backbone=network, octaves=2, steps=2, **OPTIONS),
        "guided": lk.dream(photo, -lk.guide(painting, layer), backbone=network, octaves=1, steps=2, **OPTIONS),
        "stylize": lk.stylize(photo, painting, backbone=network, steps=3, **OPTIONS),
        "create": lk.create(lk.channels(layer, range(2)), backbone=network, size=48, steps=2, variations=2, **OPTIONS),
        "class": lk.create(-lk.class_logit(1), backbone=network, size=48, steps=2, **OPTIONS),
        "journey": next(iter(lk.journey(photo, backbone=network, octaves=1, steps=1, device="cpu"))),
    }
    for what, picture in pictures.items():
        assert torch.isfinite(picture).all() and picture.std() > 0.01, what
        if picture.shape == photo.shape:
            assert (picture - photo).abs().mean() > 1e-3, what
    assert len(lk.ranked_channels(photo, layer, backbone=network, count=3, device="cpu")) == 3
    assert len(network.classify(photo)[0]) == 5


def test_a_class_rises_when_it_is_wished_for() -> None:
    network = lk.wrap(made(Small), classes=LABELS)
    gnu, ant = (
        lk.create(-lk.class_logit(name), backbone=network, size=48, steps=20, **OPTIONS) for name in ("gnu", "ant")
    )
    assert (
        network.logits(gnu)[0, 6] > network.logits(ant)[0, 6] and network.logits(ant)[0, 0] > network.logits(gnu)[0, 0]
    )


def test_explanations_take_it() -> None:
    network, picture = wrapped("small"), noise(48, 48)
    assert lk.explain.grad_cam(network, "deep", 2, picture).shape == (1, 1, 48, 48)
    with lk.explain.guided(network):
        guided = lk.explain.gradient(lk.explain.class_score(network, 2), picture)
    assert network.model.relu.inplace
    assert not torch.allclose(guided, lk.explain.gradient(lk.explain.class_score(network, 2), picture))
    other = lk.explain.randomized(network, "deep")
    assert torch.equal(other.features(picture, ["right"])["right"], network.features(picture, ["right"])["right"])
    assert not torch.equal(other.logits(picture), network.logits(picture))
    changed = [k for k, v in other.state_dict().items() if not torch.equal(v, network.state_dict()[k])]
    assert changed == ["model.deep.weight", "model.deep.bias", "model.fc.weight", "model.fc.bias"]


def test_variants_take_it() -> None:
    network = wrapped("chain")
    assert (lk.variant(network, "average", "reflect").logits(noise(40, 40)) - network.logits(noise(40, 40))).abs().max()


def test_the_lab_takes_it() -> None:
    network = lk.wrap(made(Small), name="mine")
    lab = lk.lab("chelsea", "koi_mosaic", network, 256)
    view = lab.dream
    assert view.backbone.label == "mine" and view.controls["layers"].names.options == tuple(network.names)
    view.controls["octaves"].value, view.controls["steps"].value = 1, (1, 1)
    view.start()
    view.wait()
    assert view.latest is not None and view.settings["backbone"] == "mine", view.status.value
