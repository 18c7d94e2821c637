"""The lab's widgets: pressed by program, they compute what the recipes compute, stop, go on, save and complain."""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import labkit as lk
from labkit.notebook.controls import OWN, Chooser, Layers
from labkit.notebook.widgets import View, dream_view, style_view, wiped

QUICK_DREAM = {"octaves": 2, "steps": (3, 3)}
QUICK_STYLE = {"steps": 12}


@pytest.fixture(autouse=True)
def every_step_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labkit.notebook.widgets.EVERY", 0)


def dreams(**values: Any) -> View:
    return turned(dream_view("chelsea", "pocket", 96), QUICK_DREAM | values)


def styles(**values: Any) -> View:
    view = turned(style_view("chelsea", "koi_mosaic", "pocket", 96), values)
    view.controls["steps"].min = 1
    return turned(view, QUICK_STYLE | values)


def turned(view: View, values: dict[str, Any]) -> View:
    for name, value in values.items():
        view.controls[name].value = value
    return view


def shown(view: View) -> Image.Image:
    return Image.open(io.BytesIO(view.preview.value))


def finished(view: View) -> torch.Tensor:
    view.start_button.click()
    view.wait(60)
    assert not view.running, view.status.value
    return view.latest.picture


# --- what they compute --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("view", "recipe"), [(dream_view, lk.dreaming), (style_view, lk.stylizing), (style_view, lk.style_objective)]
)
def test_controls_start_at_the_recipes_defaults(view: Any, recipe: Any) -> None:
    given = ("chelsea", "pocket", 96) if view is dream_view else ("chelsea", "koi_mosaic", "pocket", 96)
    built, network = view(*given), lk.load_backbone("pocket")
    for name, parameter in inspect.signature(recipe).parameters.items():
        control = built.controls.get(name)
        if control is not None and not isinstance(control, Layers):
            assert control.value == parameter.default, name
    chosen = {name: built.options[name] for name, control in built.controls.items() if isinstance(control, Layers)}
    advised = network.recommended
    assert chosen == (
        {"layers": None}  # that is, the default
        if view is dream_view
        else {"content_layers": dict.fromkeys(advised.content, 1.0), "style_layers": dict(advised.style)}
    )


def test_the_dream_is_that_of_the_function() -> None:
    view = dreams(laplacian=2, step_size=3.0, seed=5)
    truth = lk.dream(lk.photo("chelsea", 96), laplacian=2, step_size=3.0, seed=5, progress=False, **QUICK_DREAM)
    assert torch.equal(finished(view), truth)
    assert view.bar.value == view.bar.max == 6 and "step 6 of 6" in view.status.value


def test_the_style_is_that_of_the_function() -> None:
    view = styles(style_weight=100.0, color="luma")
    options = {"style_weight": 100.0, "color": "luma", "progress": False, **QUICK_STYLE}
    assert torch.equal(finished(view), lk.stylize(lk.photo("chelsea", 96), lk.painting("koi_mosaic"), **options))


def test_a_preset_turns_the_controls_and_the_next_turns_them_back() -> None:
    view = dream_view("chelsea", "pocket", 96)
    before = view.options
    view.preset.label = "CARVED"
    assert view.options == {**before, **lk.presets.CARVED, "steps": (10, 10)}
    assert "log_energy(relu3_3)" in view.controls["layers"].children[-1].value
    view.preset.label = "default"
    assert view.options == before
    view.preset.label = "BIRDS"
    options = {**lk.presets.BIRDS, **QUICK_DREAM}
    assert torch.equal(
        finished(turned(view, QUICK_DREAM)), lk.dream(lk.photo("chelsea", 96), progress=False, **options)
    )
    assert view.settings["preset"] == "BIRDS"
    view.controls["layers"].names.value = ("relu2_1",)
    assert view.options["layers"] == {"relu2_1": 1.0}, "what is chosen by hand wins"


def test_a_preset_brings_what_has_no_control() -> None:
    view = styles()
    view.preset.label = "GATYS"
    view.controls["steps"].value = 12
    options = {**lk.presets.GATYS, "steps": 12, "progress": False}
    assert torch.equal(finished(view), lk.stylize(lk.photo("chelsea", 96), lk.painting("koi_mosaic"), **options))


def test_a_preset_for_another_network_says_so() -> None:
    view = dream_view("chelsea", "pocket", 96)
    view.controls["octaves"].value = 3
    view.preset.label = "ORIGINAL_DREAM"
    assert "this network has no layer inception_4c" in view.status.value
    assert view.options["step_size"] == 1.5 and view.options["octaves"] == 4, "what the network can do is set"


@pytest.mark.parametrize("build", [dreams, styles])
def test_the_controls_can_show_every_preset(build: Callable[[], View]) -> None:
    view = build()
    for name, preset in view.preset.options:
        view.preset.label = name
        numbers = {key: value for key, value in preset.items() if "layers" not in key}
        if build is dreams and isinstance(preset.get("steps"), int):
            numbers["steps"] = (preset["steps"], preset["steps"])
        assert {key: view.options[key] for key in numbers} == numbers, name


def test_chosen_layers_and_their_weights_are_used() -> None:
    view = dreams()
    layers = view.controls["layers"]
    layers.names.value = ("relu2_1", "relu3_1")
    layers.sliders["relu3_1"].value = 0.5
    truth = lk.dream(lk.photo("chelsea", 96), layers={"relu2_1": 1, "relu3_1": 0.5}, progress=False, **QUICK_DREAM)
    assert torch.equal(finished(view), truth)


# --- stop, go on, begin anew --------------------------------------------------------------------------------------


def stopped(view: View, step: int) -> None:
    """Start, and press stop while the given step is reported."""

    def press(change: Any) -> None:
        if change["new"] >= step:
            view.stop_button.click()

    view.bar.observe(press, "value")
    view.start_button.click()
    view.wait(60)
    view.bar.unobserve(press, "value")


def test_stopped_and_gone_on_it_ends_as_if_uninterrupted() -> None:
    whole, view = finished(dreams()), dreams()
    stopped(view, 2)
    assert view.latest.step == 2 and view.stop_button.disabled and not view.go_on_button.disabled
    view.go_on_button.click()
    view.wait(60)
    assert view.latest.step == 6 and view.go_on_button.disabled
    assert torch.equal(view.latest.picture, whole)


def test_weights_can_be_changed_in_the_middle() -> None:
    plain, view = finished(styles()), styles()
    stopped(view, 6)
    view.controls["style_weight"].value = 1000.0
    view.go_on_button.click()
    view.wait(60)
    assert view.latest.step == 12
    assert (view.latest.picture - plain).abs().mean() > 1e-3


def test_the_preview_grows_and_the_slider_wipes() -> None:
    view, sizes = dreams(), []
    assert shown(view).size == (96, 64)
    view.preview.observe(lambda change: sizes.append(shown(view).width), "value")
    finished(view)
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1] == 96
    after = view.preview.value
    view.wipe.value = 0.5
    assert view.preview.value != after


def test_a_wipe_shows_both_pictures() -> None:
    before, after = torch.zeros(1, 3, 8, 10), torch.ones(1, 3, 4, 5)
    assert torch.equal(wiped(before, after, 0.0), after)
    assert wiped(before, after, 1.0).max() == 0
    assert wiped(before, after, 0.4)[0, 0, 0].tolist() == [0, 0, 1, 1, 1]


def test_starting_again_begins_anew() -> None:
    view = dreams()
    first = finished(view)
    view.start_button.click()
    view.start_button.click()
    view.wait(60)
    assert torch.equal(view.latest.picture, first)


# --- choosing and saving ------------------------------------------------------------------------------------------


def png(color: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (30, 20), color).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("version", [7, 8])
def test_an_upload_is_chosen(version: int) -> None:
    chooser = Chooser("photo", "chelsea")
    content = png((255, 0, 0))
    seven, eight = {"a.png": {"metadata": {}, "content": content}}, ({"name": "a.png", "content": memoryview(content)},)
    chooser._uploaded({"new": seven if version == 7 else eight})
    assert chooser.choice.value == OWN
    assert chooser.picture()[0, :, 0, 0].tolist() == [1, 0, 0]
    chooser.choice.value = "coffee"
    assert torch.equal(chooser.picture(), lk.photo("coffee"))


def test_an_upload_that_is_no_picture_changes_nothing() -> None:
    chooser = Chooser("photo", "chelsea")
    chooser._uploaded({"new": ({"name": "a.txt", "content": b"no picture"},)})
    assert chooser.upload.description == "no picture" and chooser.choice.value == "chelsea"


def test_a_picture_of_ones_own_is_offered_first() -> None:
    mine = lk.photo("rocket", 64)
    assert torch.equal(Chooser("photo", mine).picture(), mine)


def test_saving_keeps_the_settings(tmp_path: Path) -> None:
    view = dreams(seed=3)
    assert view.save_button.disabled
    picture = finished(view)
    view.controls["seed"].value = 9  # of a run to come
    view.file.value = str(tmp_path / "cat.png")
    view.save_button.click()
    assert lk.load(tmp_path / "cat.png").sub(picture).abs().max() <= 0.5 / 255 + 1e-6
    settings = lk.settings_of(tmp_path / "cat.png")
    assert (settings["recipe"], settings["seed"], settings["octaves"]) == ("dream", 3, 2)


def test_complaints_are_read_in_the_lab(tmp_path: Path) -> None:
    view = dreams()
    finished(view)
    view.file.value = str(tmp_path / "nowhere" / "cat.png")
    view.save_button.click()
    assert "color" in view.status.value and "nowhere" in view.status.value


def test_going_on_at_another_size_is_refused_in_words() -> None:
    view = dreams()
    stopped(view, 2)
    view.size.value = 256
    view.go_on_button.click()
    view.wait(60)
    assert "the saved run was another one: photo was" in view.status.value


def test_going_on_with_another_optimizer_is_refused_in_words() -> None:
    view = styles()
    stopped(view, 3)
    view.controls["optimizer"].value = "lbfgs"
    view.go_on_button.click()
    view.wait(60)
    assert "optimizer was adam and is now lbfgs" in view.status.value


def test_a_run_that_fails_leaves_nothing_to_save() -> None:
    view = dreams()
    finished(view)
    view.controls["layers"].names.value = ()
    view.recipe = lambda *pictures, **options: (_ for _ in ()).throw(ValueError("no such run"))
    view.start_button.click()
    view.wait(60)
    assert "no such run" in view.status.value and view.latest is None
    assert view.save_button.disabled and view.go_on_button.disabled


def test_a_network_without_weights_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise FileNotFoundError(f"no weights of {name}")

    view = dreams()
    monkeypatch.setattr("labkit.notebook.widgets.load_backbone", missing)
    view.backbone.value = "vgg19"
    assert "no weights of vgg19" in view.status.value


def test_a_lab_has_both_views() -> None:
    lab = lk.lab("coffee", lk.painting("mist_peaks", 64), size=128)
    assert [lab.get_title(index) for index in range(2)] == ["Dream", "Style"]
    assert lab.children == (lab.dream, lab.style)
    assert lab.style.choosers[1].picture().shape[-1] == 64 or lab.style.choosers[1].picture().shape[-2] == 64
