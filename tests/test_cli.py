"""The command line: the same pictures as the functions make, and one line for every mistake."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from pytest import CaptureFixture as Capture
from pytest import MonkeyPatch as Patch

import labkit as lk
from labkit.cli import commands
from labkit.cli.main import main
from labkit.cli.options import TEXTS
from labkit.engine.progress import finish
from labkit.recipes.objectives import style_objective
from labkit.recipes.style_transfer import stylizing, stylizing_with


def default(recipe: Callable, name: str) -> Any:
    return inspect.signature(recipe).parameters[name].default


STEP_SIZE = default(lk.dreaming, "step_size")
UNSAID = {"resume", "distributed", "extra_loss", "progress"}  # --checkpoint, torchrun, nothing, --quiet
UNSAID |= {"photo", "painting", "command", "arguments"}  # of commands.Job
QUICK = ["--quiet", "--size", "48", "--precision", "float32"]
DREAM = [*QUICK, "--octaves", "2", "--steps", "2", "--jitter", "4", "--anchor", "0"]
STYLIZE = [*QUICK, "--steps", "4", "--min-scale", "30"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: Patch) -> Path:
    """The current folder, with a photo and a painting in it."""
    lk.save(lk.photo("chelsea", 60), tmp_path / "cat.png")
    lk.save(lk.painting("noon_pond", 60), tmp_path / "pond.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> None:
    assert main(arguments) == 0


def mistake(capsys: Capture, *arguments: str) -> str:
    """The one line on standard error that a mistake is answered with."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("labkit: ")
    assert captured.err.count("\n") == 1
    return captured.err


def assert_saved(path: Path | str, picture: torch.Tensor, **settings: object) -> None:
    """The file holds the picture and, among others, the settings."""
    torch.testing.assert_close(lk.load(path), picture, rtol=0, atol=0.5 / 255 + 1e-5)
    assert lk.settings_of(path).items() >= settings.items()


# --- pictures ----------------------------------------------------------------------------------------------------


def test_dream_writes_what_the_function_returns(folder: Path, capsys: Capture) -> None:
    run("dream", "cat.png", "-o", "out.png", "--layers", "relu2_2=0.5,relu3_3", "--seed", "3", *DREAM)
    assert capsys.readouterr().out == "out.png\n"
    options = {"octaves": 2, "steps": 2, "jitter": 4, "anchor": 0, "seed": 3, "precision": "float32"}
    options["layers"] = {"relu2_2": 0.5, "relu3_3": 1.0}
    expected = lk.dream(photo := lk.load("cat.png", 48), progress=False, **options)
    assert (expected - photo).abs().mean() > 0.002
    told = {"labkit": lk.__version__, "size": 48, "backbone": "pocket", "smoothing": default(lk.dreaming, "smoothing")}
    assert_saved("out.png", expected, recipe="dream", photo="cat.png", **told, **options)


def styled(painting: Any, **options: Any) -> torch.Tensor:
    """What STYLIZE asks for."""
    quick = {"steps": 4, "min_scale": 30, "precision": "float32"}
    return finish(stylizing_with(lk.load("cat.png", 48), painting, **quick, **options))


@pytest.mark.parametrize("painting", ["noon_pond", "pond.png"])
def test_stylize_writes_what_the_function_returns(folder: Path, painting: str) -> None:
    run("stylize", "cat.png", painting, "-o", "out.webp", "--quality", "100", "--init", "noise", *STYLIZE)
    source = lk.painting(painting) if painting == "noon_pond" else lk.load(painting)
    lk.save(styled(source, init="noise"), "expected.webp", quality=100)  # WebP itself loses much of the noise
    told = {"painting": painting, "init": "noise", "steps": 4, "avg_decay": default(lk.stylizing, "avg_decay")}
    assert_saved("out.webp", lk.load("expected.webp"), recipe="stylize", photo="cat.png", **told)


def test_several_paintings_are_mixed(folder: Path) -> None:
    run("stylize", "cat.png", "pond.png", "koi_mosaic", "-o", "out.png", "--style-weights", "1,3", *STYLIZE)
    expected = styled([lk.load("pond.png"), lk.painting("koi_mosaic")], style_weights=[1, 3])
    assert_saved("out.png", expected, painting=["pond.png", "koi_mosaic"], style_weights=[1, 3])


def test_options_of_the_network_of_colors_and_of_the_start_come_together(folder: Path) -> None:
    options = {"pooling": "average", "border": "reflect", "color": "linear", "init": "style"}
    said = [word for name, value in options.items() for word in (f"--{name}", value)]
    run("stylize", "cat.png", "pond.png", "-o", "out.png", *said, *STYLIZE)
    photo, pond = lk.load("cat.png", 48), lk.color.matched(lk.load("pond.png"), lk.load("cat.png", 48), "linear")
    network = lk.variant(lk.load_backbone("pocket"), "average", "reflect")
    quick = {"steps": 4, "min_scale": 30, "precision": "float32", "progress": False}
    assert_saved("out.png", lk.stylize(photo, pond, backbone=network, init=pond, **quick), **options)


def test_masks_from_files_say_where_each_style_goes(folder: Path) -> None:
    left = torch.zeros(1, 3, *lk.load("cat.png").shape[-2:])
    left[..., :30] = 1
    top = torch.ones(1, 3, *lk.load("pond.png").shape[-2:])
    top[:, :, 30:] = 0
    lk.save(left, "left.png")
    lk.save(top, "top.png")
    masks = ["--masks", "left.png,center", "--painting-masks", "top.png,none"]
    run("stylize", "cat.png", "pond.png", "koi_mosaic", "-o", "out.png", *masks, *STYLIZE)
    options = {"masks": [lk.luma(lk.load("left.png", 48)), "center"]}
    options["painting_masks"] = [lk.luma(lk.load("top.png")), None]
    expected = styled([lk.load("pond.png"), lk.painting("koi_mosaic")], **options)
    assert_saved("out.png", expected, masks=["left.png", "center"], painting_masks=["top.png", None])


def test_size_0_is_the_photos_own(folder: Path) -> None:
    run("dream", "cat.png", "-o", "out.png", *DREAM, "--size", "0", "--octaves", "1", "--steps", "1")
    assert lk.load("out.png").shape == lk.load("cat.png").shape


def test_variations_are_numbered_files(folder: Path, capsys: Capture) -> None:
    run("dream", "cat.png", "-o", "out.png", "--variations", "3", "--layers", "relu2_2,relu3_3", *DREAM)
    names = [f"out-{number}.png" for number in (1, 2, 3)]
    assert capsys.readouterr().out.split() == names
    assert not Path("out.png").exists()
    first, second, third = map(lk.load, names)
    assert min((first - second).abs().max(), (second - third).abs().max(), (first - third).abs().max()) > 0.01


def test_a_mask_from_a_file_says_where_to_dream(folder: Path) -> None:
    mask = torch.zeros(1, 3, 30, 30)
    mask[..., 15:] = 1
    lk.save(mask, "mask.png")
    run("dream", "cat.png", "-o", "out.png", "--mask", str(folder / "mask.png"), *DREAM, "--octaves", "1")
    change = (lk.load("out.png") - lk.load("cat.png", 48)).abs()
    half = change.shape[-1] // 2
    assert change[..., : half - 2].max() <= 0.5 / 255 + 1e-6
    assert change[..., half + 2 :].mean() > 0.005
    assert lk.settings_of("out.png")["mask"] == "mask.png"


def test_the_mask_with_a_name(folder: Path) -> None:
    run("dream", "cat.png", "-o", "out.png", "--mask", "center", *DREAM)
    change = (lk.load("out.png") - lk.load("cat.png", 48)).abs().mean((0, 1))
    height, width = change.shape
    assert change[height // 3 : -height // 3, width // 3 : -width // 3].mean() > 2 * change[:6, :6].mean()
    assert lk.settings_of("out.png")["mask"] == "center"


def test_the_mask_of_the_photos_texture(folder: Path) -> None:
    run("dream", "cat.png", "-o", "out.png", "--mask", "texture", *DREAM)
    assert lk.settings_of("out.png")["mask"] == "texture"
    run("dream", "cat.png", "-o", "plain.png", "--mask", "none", *DREAM)
    assert not torch.equal(lk.load("out.png"), lk.load("plain.png"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("dream cat.png --preset ORIGINAL_DREAM", {"step_size": 1.5, "octaves": 4, "smoothing": 0}),
        (f"dream cat.png --step-size {STEP_SIZE} --preset ORIGINAL_DREAM", {"step_size": STEP_SIZE}),
        ("stylize cat.png pond.png --preset GATYS", {"optimizer": "lbfgs", "style_weight": 100.0}),
        ("stylize cat.png pond.png --preset ARTICLE_STYLE", {"content_weight": 0.015, "tv_exponent": 1.25}),
        ("stylize cat.png pond.png --preset NEIGHBORS", {"neighbor_weight": 1.0, "parameterization": "laplacian"}),
        (
            "stylize cat.png pond.png --preset BOLD --neighbor-distance cosine",
            {"content_weight": 0.0, "neighbor_distance": "cosine"},
        ),
    ],
)
def test_a_preset_is_overruled_by_what_is_said(folder: Path, arguments: str, expected: dict) -> None:
    if arguments.startswith("dream"):
        arguments, expected = f"{arguments} --layers relu2_2", expected | {"layers": {"relu2_2": 1.0}}
    run(*arguments.split(), "-o", "out.png", *QUICK, "--steps", "1")
    assert lk.settings_of("out.png").items() >= (expected | {"steps": 1}).items()


def test_a_preset_brings_its_layers(folder: Path) -> None:
    run("dream", "cat.png", "-o", "out.png", "--preset", "ARTICLE_DREAM", *QUICK, "--steps", "1")
    assert lk.settings_of("out.png")["layers"] == lk.presets.ARTICLE_DREAM["layers"]


# --- what it says ------------------------------------------------------------------------------------------------


def helped(command: str, capsys: Capture) -> str:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", commands.RECIPES)
def test_help_shows_every_option_with_its_default(command: str, capsys: Capture, monkeypatch: Patch) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    text = re.sub(r"\n {4,}", " ", helped(command, capsys))  # a long option's help begins on the next line
    shown = dict(re.findall(r"^  (?:-o OUT, )?--([a-z-]+)(?:, --no-[a-z-]+)? (.*)$", text, re.MULTILINE))
    options = commands.command_options(command)
    assert [*shown] == [name.replace("_", "-") for name in TEXTS if name in options]
    for name, text_of in shown.items():
        value = options[name.replace("-", "_")].default
        assert type(value) not in (int, float) or text_of.endswith(f"(default: {value:g})")
    others = {"dream": "octaves is 2, steps is 4, jitter is 16", "stylize": "steps is 100", "journey": ""}
    assert f"by default {others[command]}" in text or command == "journey"
    assert ({"checkpoint", "bits"} <= shown.keys()) == (command != "journey")
    assert "(default: 768)" in shown["size"] and ("2)" if command == "journey" else "5)") in shown.get("octaves", "5)")


def test_every_option_has_a_help_text_and_no_text_is_left_over() -> None:
    functions = (
        lk.variant,
        style_objective,
        stylizing,
        lk.dreaming,
        lk.dream_frames,
        lk.stylize_frames,
        lk.journey,
        commands.Job,
    )
    parameters = [each for function in functions for each in inspect.signature(function).parameters.values()]
    named = {each.name for each in parameters if each.kind is each.KEYWORD_ONLY} - UNSAID
    assert named | {"layers", "pooling", "border", "preset"} == TEXTS.keys()
    assert all(text == text.strip() and text[0].islower() and len(text) < 90 for text in TEXTS.values())


@pytest.mark.parametrize("command", ["dream", "stylize", "journey", "repaint", "upscale", "layers"])
def test_help_fits_a_terminal(command: str, capsys: Capture, monkeypatch: Patch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert max(len(line) for line in helped(command, capsys).splitlines() if "{" not in line) < 80


def test_choices_are_listed(capsys: Capture, monkeypatch: Patch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = helped("stylize", capsys)
    for choices in ("--init {content,style,noise}", "--flow {auto,none}", "--bits {8,16}", "--preset {GRAM,"):
        assert choices in text


def test_backbones_are_listed(capsys: Capture) -> None:
    run("backbones")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(lk.BACKBONES)


@pytest.mark.slow
def test_layers_are_listed(capsys: Capture) -> None:
    run("layers", "pocket")
    header, *lines = (line.split() for line in capsys.readouterr().out.splitlines())
    assert header == ["layer", "channels", "stride", "sees", "(px)"]
    assert [line[0] for line in lines] == lk.load_backbone("pocket", "cpu").layers
    assert ["relu4_3", "256", "8", "92"] in lines
    assert lines[-1] == ["logits", "1000", "all"]


# --- runs that are interrupted -----------------------------------------------------------------------------------

RUNS = {
    "dream": ["dream", "cat.png", "--layers", "relu2_2", *DREAM],
    "adam": ["stylize", "cat.png", "pond.png", *STYLIZE],
    "lbfgs": ["stylize", "cat.png", "pond.png", "--optimizer", "lbfgs", *STYLIZE],
}


def interrupt_after(count: int, reason: BaseException, patch: Patch) -> None:
    """Let the network be evaluated ``count`` times, then fail in the middle of a step."""
    evaluate, calls = lk.Evaluator.__call__, 0

    def counted(self: lk.Evaluator, picture: torch.Tensor) -> lk.Evaluation:
        nonlocal calls
        calls += 1
        if calls > count:
            raise reason
        return evaluate(self, picture)

    patch.setattr(lk.Evaluator, "__call__", counted)


@pytest.mark.slow
@pytest.mark.parametrize("reason", [KeyboardInterrupt(), SystemError("the machine went down")], ids=["Ctrl-C", "crash"])
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("name", RUNS)
def test_an_interrupted_run_goes_on_to_the_same_picture(
    folder: Path, name: str, count: int, reason: BaseException, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(commands, "CHECKPOINT_EVERY", 0)
    run(*RUNS[name], "-o", "whole.png")
    arguments = [*RUNS[name], "-o", "out.png", "--checkpoint", "run.pt"]
    with monkeypatch.context() as patch:
        interrupt_after(count, reason, patch)
        if isinstance(reason, KeyboardInterrupt):
            run(*arguments)  # writes the picture so far
            assert not torch.equal(lk.load("out.png"), lk.load("whole.png"))
        else:
            with pytest.raises(SystemError):
                main(arguments)
    assert Path("run.pt").exists()
    with monkeypatch.context() as patch:
        interrupt_after(4 - count, AssertionError("steps are taken twice"), patch)
        run(*arguments)
    assert torch.equal(lk.load("out.png"), lk.load("whole.png"))
    assert not Path("run.pt").exists()  # there is nothing left to go on with


def test_a_checkpoint_is_written_every_ten_seconds(folder: Path, monkeypatch: Patch) -> None:
    saved: list[float] = []
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(clock)))
    monkeypatch.setattr(lk.Progress, "save", lambda step, path: saved.append(step.elapsed))
    run(*RUNS["adam"], "-o", "out.png", "--checkpoint", "run.pt", "--steps", "8")
    assert saved == [12, 24]


def test_an_interrupt_before_the_first_step_leaves_no_picture(folder: Path, monkeypatch: Patch) -> None:
    interrupt_after(0, KeyboardInterrupt(), monkeypatch)
    assert main(["dream", "cat.png", "-o", "out.png", *DREAM]) == 130
    assert not Path("out.png").exists()


@pytest.mark.parametrize(
    ("checkpoint", "arguments", "message"),
    [
        ("cat.png", [], "cat.png holds no saved run: name another file, or delete it to start anew"),
        ("words.pt", [], "words.pt holds no saved run"),
        ("weights.pt", [], "weights.pt holds no saved run"),
        ("run.pt", ["--layers", "relu9_9"], "pocket has no layer 'relu9_9'"),
        ("run.pt", ["--size", "40"], "the saved run was another one: photo was "),
    ],
)
def test_a_mistake_leaves_the_checkpoint_alone(
    folder: Path, checkpoint: str, arguments: list[str], message: str, capsys: Capture, monkeypatch: Patch
) -> None:
    Path("words.pt").write_text("hello")
    torch.save({"weight": torch.zeros(3)}, "weights.pt")
    common = ["dream", "cat.png", "-o", "out.png", *DREAM, "--checkpoint", checkpoint]
    if checkpoint == "run.pt":
        with monkeypatch.context() as patch:
            patch.setattr(commands, "CHECKPOINT_EVERY", 0)
            interrupt_after(1, KeyboardInterrupt(), patch)
            run(*common)
    capsys.readouterr()
    before = Path(checkpoint).read_bytes()
    assert message in mistake(capsys, *common, *arguments)
    assert Path(checkpoint).read_bytes() == before


# --- as a program ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_it_runs_as_a_program(folder: Path) -> None:
    def labkit(*arguments: str) -> tuple[int, str, str]:
        environment = os.environ | {"PYTHONPATH": str(Path(lk.__file__).parents[1])}
        done = subprocess.run(
            [sys.executable, "-m", "labkit", *arguments],
            env=environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, done.stdout, done.stderr

    assert labkit("dream", "cat.png", "-o", "out.jpg", *DREAM) == (0, "out.jpg\n", "")
    assert lk.settings_of("out.jpg")["recipe"] == "dream"
    status, out, error = labkit("dream", "nothing.png", "-o", "out.jpg")
    assert (status, out) == (2, "")
    assert error.startswith("labkit: no picture at nothing.png")
    assert error.count("\n") == 1


# --- folders -----------------------------------------------------------------------------------------------------


@pytest.fixture
def frames(folder: Path) -> Path:
    (folder / "frames").mkdir()
    for number in range(5):
        lk.save(lk.photo("coffee", 64).roll(7 * number, 3), folder / "frames" / f"{number}.png")
    (folder / "frames" / "notes.txt").write_text("not a picture")
    return folder


def dream_folder() -> None:
    run("dream", "frames", "-o", "out", *QUICK, "--steps", "1")


def test_a_folder_is_dreamt_into_a_folder(frames: Path) -> None:
    dream_folder()
    assert sorted(path.name for path in (frames / "out").iterdir()) == [f"{number}.png" for number in range(5)]
    assert lk.settings_of("out/3.png")["photo"] == "3.png"
    run("dream", "frames/3.png", "-o", "alone.png", *QUICK, "--steps", "1")
    assert torch.equal(lk.load("out/3.png"), lk.load("alone.png"))


def test_finished_pictures_are_skipped(frames: Path) -> None:
    dream_folder()
    before = {path: path.stat().st_mtime_ns for path in (frames / "out").iterdir()}
    (frames / "out" / "2.png").unlink()
    dream_folder()
    after = {path: path.stat().st_mtime_ns for path in (frames / "out").iterdir()}
    assert set(after) == set(before)
    assert [path.name for path in after if after[path] != before[path]] == ["2.png"]


def test_processes_share_a_folder(frames: Path, monkeypatch: Patch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, expected in (("1", {"1.png", "3.png"}), ("0", {f"{number}.png" for number in range(5)})):
        monkeypatch.setenv("RANK", rank)
        dream_folder()
        assert {path.name for path in (frames / "out").iterdir()} == expected


@pytest.mark.parametrize("place", ["network", "bar"])
def test_an_interrupted_folder_holds_whole_pictures_alone(frames: Path, place: str, monkeypatch: Patch) -> None:
    """Ctrl-C in the second step of the second photo: it is not there, the third is not begun, and both come later."""
    arguments = ["dream", "frames", "-o", "out", *QUICK[1:], "--octaves", "1", "--steps", "3", "--anchor", "0"]
    with monkeypatch.context() as patch:
        if place == "network":
            interrupt_after(4, KeyboardInterrupt(), patch)
        else:
            updates = mock.Mock(side_effect=[None] * 4 + [KeyboardInterrupt])
            patch.setattr("tqdm.auto.tqdm.update", updates)
        assert main(arguments) == 130
    assert [path.name for path in (frames / "out").iterdir()] == ["0.png"]
    run(*arguments)
    run("dream", "frames/1.png", "-o", "alone.png", *arguments[4:])
    assert torch.equal(lk.load("out/1.png"), lk.load("alone.png"))


# --- films -------------------------------------------------------------------------------------------------------


@pytest.fixture
def film(frames: Path) -> list[torch.Tensor]:
    """The frames of film.gif, 20 a second, whose pictures lie in the folder "frames", too."""
    lk.save_frames(lk.frames_of("frames"), "film.gif", 20, progress=False)
    return list(lk.frames_of("film.gif"))


@pytest.fixture
def written(monkeypatch: Patch) -> list[tuple[torch.Tensor, float]]:
    """The frames of each film that is written, before they are compressed, and the rate."""
    found = []

    def save_frames(made: Any, path: str, fps: float, **options: Any) -> Path:
        kept = list(made)
        found.append((torch.cat(kept), fps))
        return lk.save_frames(kept, path, fps, **options)

    monkeypatch.setattr(commands, "save_frames", save_frames)
    return found


@pytest.mark.parametrize(("source", "fps"), [("film.gif", 20.0), ("frames", 12.0)])
def test_a_film_is_dreamt_frame_by_frame_at_its_own_rate(
    film: list, written: list, source: str, fps: float, capsys: Capture
) -> None:
    run("dream", source, "-o", "out.webp", "--flow", "none", "--keep", "0.3", "--seed", "4", *QUICK)
    assert capsys.readouterr() == ("out.webp\n", "")
    frames = lk.frames_of(source, 48)
    expected = torch.cat(list(lk.dream_frames(frames, flow=None, keep=0.3, seed=4, precision="float32")))
    assert torch.equal(written[0][0], expected) and written[0][1] == fps
    back = torch.cat(list(lk.frames_of("out.webp")))
    assert back.shape == expected.shape and (back - expected).abs().mean() < 0.02


def test_a_film_is_painted_frame_by_frame(film: list, written: list) -> None:
    arguments = ["--steps", "3", "--steps-after", "2", "--temporal-weight", "5", "--flow", "none", "--fps", "7"]
    run("stylize", "film.gif", "pond.png", "-o", "out.mp4", *arguments, *QUICK)
    options = {"steps": 3, "steps_after": 2, "temporal_weight": 5, "flow": None, "precision": "float32"}
    expected = torch.cat(list(lk.stylize_frames(lk.frames_of("film.gif", 48), lk.load("pond.png"), **options)))
    assert torch.equal(written[0][0], expected) and written[0][1] == 7
    assert len(list(lk.frames_of("out.mp4"))) == 5


def test_a_journey_begins_at_a_photo(folder: Path, written: list) -> None:
    run("journey", "cat.png", "-o", "out.gif", "--seconds", "0.5", "--fps", "6", "--rotate", "30", *QUICK)
    photo = lk.load("cat.png", 48)
    expected = torch.cat(list(lk.journey(photo, seconds=0.5, fps=6, rotate=30, precision="float32")))
    assert len(expected) == 3
    assert torch.equal(written[0][0], expected) and written[0][1] == 6


def test_a_mask_holds_for_every_frame(film: list, written: list) -> None:
    lk.save(torch.cat([torch.zeros(1, 3, 32, 48), torch.ones(1, 3, 32, 48)], 2), "mask.png")
    run("dream", "frames", "-o", "out.webp", "--mask", "mask.png", "--flow", "none", "--keep", "0", *QUICK)
    change = (written[0][0] - torch.cat(list(lk.frames_of("frames", 48)))).abs().mean((1, 3))
    assert change[:, :8].max() < 0.01 < change[:, -8:].min()


def test_a_preset_holds_for_films_too(film: list, written: list) -> None:
    arguments = ["film.gif", "-o", "out.webp", "--preset", "ORIGINAL_DREAM", "--backbone", "pocket", "--steps", "1"]
    run("dream", *arguments, "--layers", "relu3_3", "--flow", "none", *QUICK)
    options = {**lk.presets.ORIGINAL_DREAM, "jitter": 32, "octaves": 4, "layers": "relu3_3", "steps": 1}
    frames = lk.dream_frames(lk.frames_of("film.gif", 48), flow=None, precision="float32", **options)
    assert torch.equal(written[0][0], torch.cat(list(frames)))


def test_an_interrupted_film_holds_the_frames_so_far(film: list, monkeypatch: Patch) -> None:
    interrupt_after(3, KeyboardInterrupt(), monkeypatch)  # in the second frame
    run(
        "dream",
        "film.gif",
        "-o",
        "out.webp",
        "--flow",
        "none",
        "--octaves",
        "1",
        "--steps",
        "2",
        "--anchor",
        "0",
        *QUICK,
    )
    assert len(list(lk.frames_of("out.webp"))) == 1


def test_a_photo_that_holds_two_pictures_is_no_film(folder: Path) -> None:
    first, second = lk.to_pil(lk.load("cat.png")), lk.to_pil(lk.load("pond.png"))
    first.save("two.jpg", "MPO", save_all=True, append_images=[second])
    run("dream", "two.jpg", "-o", "out.webp", *DREAM)
    assert lk.load("out.webp").shape == lk.load("cat.png", 48).shape
    assert lk.settings_of("out.webp")["photo"] == "two.jpg"


def test_the_first_frame_of_an_animation_is_a_picture(film: list) -> None:
    run("dream", "film.gif", "-o", "out.png", *QUICK, "--steps", "1")
    assert_saved("out.png", lk.dream(lk.resize(film[0], 48), steps=1, precision="float32", progress=False))


def test_a_warning_is_one_line(film: list, monkeypatch: Patch, capsys: Capture) -> None:
    monkeypatch.setattr("labkit.recipes.video.raft", lambda *_: None)
    run("dream", "film.gif", "-o", "out.webp", *QUICK[1:], "--steps", "1")  # not quiet: beside a bar
    said = re.split(r"[\r\n]", capsys.readouterr().err)
    assert [line for line in said if "RAFT" in line] == [line for line in said if line.startswith("labkit: no weights")]


def test_a_film_is_made_by_one_process(film: list, monkeypatch: Patch, capsys: Capture) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert "start it without torchrun" in mistake(capsys, "dream", "film.gif", "-o", "out.gif", *QUICK)


SAID = [("tile=auto", "auto"), ("tile=none", None), ("tile=96", 96)]
SAID += [("decorrelate=0.5", 0.5), ("steps=2,1", [2, 1]), ("shuffle", True), ("no-shuffle", False)]


@pytest.mark.parametrize(("option", "value"), SAID)
def test_words_and_numbers_on_the_command_line(folder: Path, option: str, value: object) -> None:
    run("dream", "cat.png", "-o", "out.png", *QUICK, "--steps", "1", f"--{option}")
    assert lk.settings_of("out.png")[option.removeprefix("no-").partition("=")[0]] == value


def test_upscale_doubles_a_picture(folder: Path) -> None:
    run("upscale", "cat.png", "-o", "large.png")
    photo = lk.load("cat.png")
    assert_saved("large.png", lk.superres.upscale(photo))
    assert lk.load("large.png").shape[-2:] == tuple(2 * side for side in photo.shape[-2:])


@pytest.mark.parametrize("painting", ["carved_sea", "harbour_in_red", "pond.png"])
def test_repaint_takes_what_was_learned_and_anything_else(folder: Path, painting: str) -> None:
    run("repaint", "cat.png", painting, "-o", "quick.png", "--size", "48")
    photo = lk.resize(lk.load("cat.png"), 48)
    if painting == "carved_sea":
        assert_saved("quick.png", lk.faststyle.repaint(photo, painting))
    else:
        other = lk.load(painting) if painting.endswith("png") else lk.painting(painting)
        assert_saved("quick.png", lk.adain.transfer(photo, other))


@pytest.mark.parametrize(
    ("arguments", "module", "loader"),
    [
        (["upscale", "cat.png"], lk.superres, "load_upscaler"),
        (["repaint", "cat.png", "carved_sea"], lk.faststyle, "load_network"),
        (["repaint", "cat.png", "pond.png"], lk.adain, "load_decoder"),
    ],
)
def test_one_pass_runs_on_the_device_that_is_said(
    folder: Path, arguments: list[str], module: Any, loader: str, monkeypatch: Patch
) -> None:
    load, asked = getattr(module, loader), []

    def spied(device: str | None = None) -> torch.nn.Module:
        asked.append(device)
        return load(device=device)

    monkeypatch.setattr(module, loader, spied)
    run(*arguments, "-o", "x.png", "--size", "48", "--device", "cpu")
    assert asked == ["cpu"]


# --- mistakes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "error", "line"),
    [
        ("PIL.Image.open", PermissionError(13, "Permission denied", "cat.png"), "cat.png: Permission denied"),
        ("labkit.cli.commands.save", OSError(28, "No space left on device"), "writing: No space left on device"),
        (
            "labkit.cli.commands.load",
            RuntimeError("CUDA out of memory.\nTried"),
            "memory ran out: choose a smaller --size",
        ),
    ],
)
def test_what_the_system_refuses_is_one_line(
    folder: Path, place: str, error: Exception, line: str, capsys: Capture, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(place, mock.Mock(side_effect=error))
    assert mistake(capsys, "upscale", "cat.png", "-o", "x.png") == f"labkit: {line}\n"


def test_a_reader_who_leaves_is_told_nothing(capsys: Capture, monkeypatch: Patch) -> None:
    monkeypatch.setattr("builtins.print", mock.Mock(side_effect=BrokenPipeError(32, "Broken pipe")))
    assert main(["backbones"]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_mistake_of_the_lab_keeps_its_traceback(folder: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(commands, "check_place", mock.Mock(side_effect=RuntimeError("shapes differ")))
    with pytest.raises(RuntimeError, match="shapes differ"):
        main(["upscale", "cat.png", "-o", "x.png"])


def test_a_file_called_none_keeps_its_name(capsys: Capture) -> None:
    assert "no picture at None.png: " in mistake(capsys, "upscale", "None.png", "-o", "x.png")


MISTAKES = {
    "": "required: COMMAND",
    "paint": "invalid choice: 'paint'",
    "dream cat.png": "required: -o/--output",
    "dream cat.png --steps many -o x.png": "labkit: --steps: write a whole number, or N,N, not 'many'",
    "dream cat.png --octave-skale=2 -o x.png": "--octave-skale=2 is not known here: did you mean --octave-scale?",
    "dream cat.png --qqq -o x.png": "labkit: --qqq is not known here: see labkit dream --help",
    "upscale cat.png pond.png -o x.png": "labkit: pond.png is not known here: see labkit upscale --help",
    "dream cat.png --bits 12 -o x.png": "labkit: --bits: write one of 8, 16, not '12'",
    "dream cat.png --tile large -o x.png": "--tile: write {auto,none,N}, not 'large'",
    "dream cat.png --layers relu4_3=much -o x.png": "--layers: write LAYER=WEIGHT,..., not 'relu4_3=much'",
    "stylize cat.png pond.png --style-weights 1;2 -o x.png": "--style-weights: write X,X,..., not '1;2'",
    "dream film.gif --flow left -o x.gif": "--flow: write one of auto, none, not 'left'",
    "dream cat.png --backbone vgg17 -o x.png": "--backbone: write one of pocket, vgg16, vgg19,",
    "layers vgg17": "NAME: write one of pocket, vgg16, vgg19,",
    "dream cat.png --preset GATYS -o x.png": "--preset: write one of PLAIN, ORIGINAL_DREAM, "
    "ARTICLE_DREAM, CREATURES, BIRDS, CASTLES, REEF, FUR_AND_EYES, CARVED, not 'GATYS'",
    "dream cat.png --precision float3 -o x.png": "write one of auto, float32, tf32, bfloat16, not 'float3'",
    "dream missing.png -o x.png": "no picture at missing.png: check the path",
    "dream empty.png -o x.png": "empty.png is empty (0 bytes)",
    "dream cat.png --layers relu9_9 -o x.png": "pocket has no layer 'relu9_9': did you mean",
    "dream cat.png --layers relu4_3=-1 -o x.png": "the weight of relu4_3 must be a number of at least 0, not -1",
    "dream cat.png --steps -3 -o x.png": "labkit: --steps must be a whole number from 1 to 1,000,000, not -3",
    "dream cat.png --octave-scale 0.5 -o x.png": "labkit: --octave-scale must be a number from 1.01 to 100, not 0.5",
    "dream cat.png --size -5 -o x.png": "size must be a whole number from 0 to 65,536, not -5",
    "dream cat.png --mask missing.png -o x.png": "no picture at missing.png",
    "dream cat.png --device abacus -o x.png": "the device 'abacus' cannot be used here",
    "stylize cat.png noon_pont -o x.png": "no picture at noon_pont",
    "stylize cat.png pond.png --style-weight nan -o x.png": "--style-weight must be a number from 0 to 1e+12, not nan",
    "stylize cat.png pond.png --optimizer sgd -o x.png": "--optimizer: write one of adam, lbfgs, ascent, not 'sgd'",
    "stylize cat.png pond.png --style-layers relu1 -o x.png": "pocket has no layer 'relu1'",
    "stylize cat.png pond.png --masks gone.png -o x.png": "no picture at gone.png",
    "stylize cat.png pond.png --masks pond.png -o x.png": "a mask for this picture has the shape",
    "stylize cat.png pond.png --avg-decay 1 --quiet -o x.png": "--avg-decay must be a number from 0 to 0.9999, not 1",
    "dream cat.png -o missing/x.png": "cannot write missing/x.png: No such file or directory; choose",
    "dream cat.png -o x.xyz": "cannot tell a picture type from 'x.xyz'",
    "dream cat.png -o x.webp --quality 101": "quality must be a number from 0 to 100, not 101",
    "dream cat.png -o x.png --checkpoint missing/run.pt": "cannot write missing/run.pt",
    "dream frames -o out --quality 101": "quality must be a number from 0 to 100, not 101",
    "dream frames -o x.png": "the pictures of a folder go into a folder or a film (.webp, .mp4, .gif), not into x.png",
    "dream frames -o out --checkpoint run.pt": "a folder needs no checkpoint",
    "dream nothing -o out": "nothing holds no pictures",
    "dream twins -o out": "differ only in their endings",
    "journey cat.png -o x.png": "cannot tell a film's type from 'x.png'",
    "journey cat.png -o x.gif --seconds inf": "seconds must be a number from 0.01 to 86,400, not inf",
    "journey cat.png -o x.gif --fps nan": "fps must be a number from 0.01 to 1,000, not nan",
    "dream film.gif -o x.gif --fps 0": "fps must be a number from 0.01 to 1,000, not 0",
    "dream film.gif -o x.gif --bits 16": "x.gif is to hold a film, not pictures: leave out --bits",
    "dream film.gif -o x.gif --checkpoint run.pt": "leave out --checkpoint",
    "dream film.gif -o x.gif --variations 2 --flow none": "leave out --variations",
    "dream cat.png -o x.png --fps 5 --keep 1": "x.png is to hold pictures, not a film: leave out --fps, --keep",
    "dream cat.png -o x.gif": "cat.png does not move: end x.gif in .png or .jpg",
    "dream missing.gif -o x.gif": "no film at missing.gif",
    "dream missing.mp4 -o x.mp4": "no film at missing.mp4",
    "upscale cat.png -o x.png --device abacus": "the device 'abacus' cannot be used here",
    "upscale cat.png -o x.doc": "cannot tell a picture type from 'x.doc'",
    "repaint cat.png missing.png -o x.png": "no picture at missing.png",
    "dream cat.png --tile 32 --quiet -o x.png": 'labkit: --tile is "auto", none, or from 64 to 65,536 pixels, not 32',
    "stylize cat.png pond.png noon_pond --masks center -o x.png": "2 paintings need as many masks and weights: give",
    "upscale cat.png --size -3 -o x.png": "labkit: --size must be a whole number from 0 to 65,536, not -3",
    "repaint cat.png pond.png --size 1e9 -o x.png": "labkit: --size: write a whole number, not '1e9'",
    "dream cat.png --seed 99999999999999999999 -o x.png": "--seed must be a whole number from -1e+18 to 1e+18, not 9",
    "dream cat.png --resume run.pt -o x.png": "--resume is not known here: see labkit dream --help",
    "dream '' -o x.png": "photo is an empty word: is a variable of the shell not set?",
    "dream frames -o ''": "output is an empty word",
    "stylize cat.png pond.png '' -o x.png": "painting is an empty word",
    "dream cat.png --checkpoint= -o x.png": "checkpoint is an empty word",
    "upscale cat.png -o ./cat.png": "./cat.png is read from, too: write to another file or folder",
    "dream frames -o frames/": "frames/ is read from, too",
    "dream film.gif -o film.gif": "film.gif is read from, too",
    "stylize cat.png pond.png -o pond.png": "pond.png is read from, too",
    "dream cat.png --checkpoint x.png -o x.png": "x.png is read from, too",
    "dream missing -o out": "no picture at missing",
    "dream missing -o x.gif": "no picture at missing",
    "journey frames -o x.gif": "frames is a folder, not a picture: name a file in it",
    "dream frames -o cat.png/out": "labkit: cat.png/out: Not a directory",
    "dream cat.png --device meta -o x.png": "the device 'meta' cannot be used here: try cpu, cuda or mps",
    "repaint dot.png carved_sea -o x.png": "a side of the photo must be a whole number from 5 to 65,536, not 1",
}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that is named above, which no mistake changes."""
    place = tmp_path_factory.mktemp("mistakes")
    lk.save(lk.painting("noon_pond", 60), place / "pond.png")
    for name in ("cat.png", "frames/0.png", "frames/1.png", "twins/a.png", "twins/a.jpg"):
        (place / name).parent.mkdir(exist_ok=True)
        lk.save(lk.photo("chelsea", 60), place / name)
    lk.save_frames([lk.photo("chelsea", 60), lk.photo("coffee", 60)], place / "film.gif", 20, progress=False)
    lk.save(torch.rand(1, 3, 1, 1), place / "dot.png")
    (place / "empty.png").touch()
    (place / "nothing").mkdir()
    (place / "out").mkdir()
    return place


@pytest.mark.parametrize("arguments", MISTAKES)
def test_a_mistake_is_one_line_before_the_run(
    places: Path, arguments: str, capsys: Capture, monkeypatch: Patch
) -> None:
    monkeypatch.chdir(places)
    monkeypatch.setattr(lk.Evaluator, "__call__", lambda *_: pytest.fail("the run was started"))
    before = sorted(places.rglob("*"))
    assert MISTAKES[arguments] in (said := mistake(capsys, *shlex.split(arguments)))
    assert not re.search(r"None|Errno|argument --|labkit: labkit| int | float ", said)
    assert sorted(places.rglob("*")) == before
