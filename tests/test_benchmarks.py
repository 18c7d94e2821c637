"""The benchmark's instruments: what is counted and timed, on programs whose numbers are known."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

import labkit as lk

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))
import bench
import cases
import field
import judge
import networks
import report


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_the_stopwatch_counts_evaluations_and_stops_the_program(optimizer: str) -> None:
    pixels, calls = nn.Parameter(torch.tensor([3.0, -2.0])), 0

    def closure() -> Tensor:
        nonlocal calls
        calls += 1
        stepper.zero_grad()
        loss = pixels.square().sum()
        loss.backward()
        return loss

    stepper = torch.optim.LBFGS([pixels], max_iter=1) if optimizer == "lbfgs" else torch.optim.Adam([pixels])
    watch = field.Stopwatch(limit=4)
    with watch.watching():
        for _ in range(100):
            stepper.step(closure)
    assert calls == len(watch.seconds) == 4 and watch.pixels is pixels
    stepper.step(closure)  # no longer watched
    assert calls > 4 and len(watch.seconds) == 4


def test_every_program_gets_the_same_weights() -> None:
    net = networks.shared_network("vgg16")
    with networks.in_every_program(net):
        from torchvision import models as zoo

        theirs, ours = zoo.vgg16(pretrained=True), lk.load_backbone("vgg16", "cpu")
    assert theirs is not net and torch.equal(theirs.features[0].weight, ours.stages[0].weight)
    assert torch.equal(net.features[28].weight, networks.shared_network("vgg16").features[28].weight)


def test_operations_are_counted() -> None:
    """A dream of relu1_1 is one convolution forwards and one backwards, to the picture."""
    backbone = lk.load_backbone("pocket", "cpu")
    evaluator = lk.Evaluator(backbone, lk.activation("relu1_1"), (32, 48), "float32")
    with cases.FlopCounterMode(display=False) as counter:
        evaluator(torch.rand(1, 3, 32, 48))
    assert counter.get_total_flops() == 2 * (2 * 32 * 3 * 9) * 32 * 48


def test_a_case_tells_the_peak_of_its_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(cases, "counted", lambda *given: {"count": len(given)}, raising=False)
    monkeypatch.setattr(bench.resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=3 << 20))  # 3 GB in KB
    bench.run_case('["cases", "counted", "a", "b"]')
    assert json.loads(capsys.readouterr().out) == {"count": 2, "process_mb": 3072}


@pytest.mark.parametrize(("platform", "kept"), [("linux", 3 << 30), ("darwin", 3 << 20)])
def test_memory_is_counted_in_bytes_wherever_it_is_asked_for(
    platform: str, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux counts kilobytes, a Mac bytes; and a Mac has no /proc, so that the peak has to do."""
    monkeypatch.setattr(bench.sys, "platform", platform)
    monkeypatch.setattr(bench.resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=3 << 20))
    network = SimpleNamespace(device=torch.device("cpu"))
    assert bench.peak_resident() == cases.peak_bytes(network) == kept
    assert cases.allocated(network) != kept
    monkeypatch.setattr(cases, "STATM", Path("/nowhere/statm"))
    assert cases.allocated(network) == kept


def failing(error: str) -> SimpleNamespace:
    told = f"Traceback (most recent call last):\n  ...\n{error}\n"
    return SimpleNamespace(returncode=-9, stdout="", stderr=told if error else "")  # who is killed says nothing


def test_missing_weights_are_told_from_other_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("LABKIT_WEIGHTS", raising=False)
        with pytest.raises(FileNotFoundError) as missing:
            lk.load_backbone("googlenet_bvlc", "cpu")
    monkeypatch.setattr(bench.subprocess, "run", lambda *_, **__: failing(f"FileNotFoundError: {missing.value}"))
    assert bench.measured("cases", "evaluation") == {"missing": str(missing.value)}
    for other in ("FileNotFoundError: [Errno 2] No such file or directory: '/proc/self/statm'", "KeyError: 'x'", ""):
        monkeypatch.setattr(bench.subprocess, "run", lambda *_, other=other, **__: failing(other))
        with pytest.raises(RuntimeError, match=other[:12] or "evaluation ended with -9"):
            bench.measured("cases", "evaluation")


def test_the_field_is_measured_and_recorded_on_the_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine with a GPU: the field's programs do not see it, and their section is not one of the GPU's."""
    devices: dict[str, str] = {}

    def case(command: list[str], env: dict[str, str], **options: object) -> SimpleNamespace:
        module, *_ = json.loads(command[-1])
        devices[module] = env.get("CUDA_VISIBLE_DEVICES", "all")
        return SimpleNamespace(returncode=0, stdout='{"referee": 1.0, "seconds": 1.0}\n', stderr="")

    def machine(device: str | None) -> dict[str, str]:
        return {"device": "abacus, 2 cores" if device == "cpu" else "a GPU"}

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(bench.subprocess, "run", case)
    monkeypatch.setattr(bench, "machine", machine)
    monkeypatch.setattr(report, "written", lambda results: "")
    results = tmp_path / "results.json"
    places = ["--results", str(results), "--report", str(tmp_path / "page.md"), "--peers", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["bench", "--only", "field", "start", *places])
    bench.main()
    assert devices == {"field": "", "cases": "all"}
    found = json.loads(results.read_text())
    assert {kind: list(sections) for kind, sections in found.items()} == {"cpu": ["field"], "gpu": ["start"]}


def test_the_page_shows_every_section() -> None:
    machine = {"date": "2026-01-02", "device": "abacus, 2 cores", "threads": 2, "versions": {"labkit": "1"}}
    one = {"seconds": 2.0, "peak_mb": 100.0, "own_mb": 50.0}
    pair = {"float32": one, "bfloat16": {**one, "seconds": 0.5}}
    theirs = {"seconds": 4.0, "elapsed": 90.0, "evaluations": 300, "referee": 0.25, "process_mb": 3072.0}
    rows = {
        "start": [{"what": "a dream", "target": 3.0, **one}],
        "evaluations": [{"recipe": "dream", "backbone": "pocket", "width": 64, **pair}],
        "growth": [{"recipe": "style", "width": 1000, "whole": one, "tiles": {**one, "seconds": 3.0}}],
        "limit": [
            {"recipe": "dream", "backbone": "pocket", "width": 64, "precision": "float32",
             "operations": 2e9, "rate": 1e12, "ceiling": 4e12, "share": 0.25}
        ],
        "field": {
            "size": 512,
            "quality size": 128,
            "style": [{"peer": "theirs", "theirs": theirs, **pair}],
            "dream": {"peer": "its dream", "theirs": theirs, **{p: {**c, "process_mb": 512} for p, c in pair.items()}},
            "wasserstein": {"peer": 1.0, "seconds": 0.1, "peer value": 0.5, "value": 0.4},
            "quality": [
                {"peer": "a", "theirs": theirs, "ours": {"seconds": 9.0, "steps": 100, "referee": 0.2}},
                {"peer": "b", "theirs": theirs, "ours": {"seconds": 9.0, "missed": 0.3}},
            ],
        },
    }  # fmt: skip
    page = report.written({"cpu": {name: {"machine": machine, "rows": part} for name, part in rows.items()}})
    for line in (
        "| a dream | 2.00 | 3.0 |",
        "| dream, pocket | 64 | 2.000 | 0.500 | 0.25 | 100 |",
        "| style | 1000 x 750 | 2.667 | 50 | 4.000 | 50 | 1.50 | 70 |",
        "| dream, pocket | 64 | float32 | 2.0 | 1.000 | 4.000 | 25 % |",
        "| theirs | 4.000 | 2.000 | 0.500 | 0.50 | 0.12 | 3.00 | - | - |",
        "| its dream, one step | 4.000 | 2.000 | 0.500 | 0.50 | 0.12 | 3.00 | 0.50 | 0.50 |",
        "| a | 90.0 | 300 | 0.25 | 9.0 (100 steps) | 0.100 |",
        "*2026-01-02; abacus, 2 cores, 2 threads; labkit 1*",
    ):
        assert line in page
    assert "not reached" in page


# --- the judge ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pocket() -> lk.Backbone:
    return lk.load_backbone("pocket", "cpu")


def waves(height: int, width: int, frequency: float) -> Tensor:
    """A gray picture of a cosine along its rows, ``frequency`` periods a pixel."""
    row = 0.5 + 0.4 * torch.cos(2 * math.pi * frequency * torch.arange(width, dtype=torch.float32))
    return row.expand(1, 3, height, width).contiguous()


def test_noise_is_the_mean_laplacian_of_luma_and_of_color() -> None:
    assert judge.noise(torch.full((1, 3, 9, 9), 0.3)) == pytest.approx((0, 0), abs=1e-6)
    checks = (torch.arange(12)[:, None] + torch.arange(12)) % 2
    luma, chroma = judge.noise(checks.expand(1, 3, 12, 12).float())
    assert luma == pytest.approx(4) and chroma == pytest.approx(0, abs=1e-5)  # each pixel differs from all four by 1
    ramp = torch.linspace(0, 1, 20).expand(1, 3, 20, 20)
    assert judge.noise(ramp) == pytest.approx((0, 0), abs=1e-5)
    balanced = 0.5 + 0.3 * torch.tensor([0.587, -0.299, 0]).view(1, 3, 1, 1) * (2 * checks - 1)  # of no luma
    luma, chroma = judge.noise(balanced)
    assert luma == pytest.approx(0, abs=1e-5) and chroma == pytest.approx(4 * 0.6 * (0.587 + 0.299) / 3, rel=1e-4)


def test_a_paintings_own_noise_is_one() -> None:
    painting = lk.painting("koi_mosaic", 96)
    assert judge.relative_noise(painting, painting) == (1, 1)
    assert judge.relative_noise(painting, lk.painting("koi_mosaic")) == pytest.approx((1, 1), rel=0.01)
    assert judge.relative_noise(torch.full((1, 3, 96, 96), 0.5), painting) == pytest.approx((0, 0), abs=1e-5)
    assert judge.relative_noise(0.5 * painting, painting) == pytest.approx((0.5, 0.5))


def test_the_share_of_fine_detail_tells_frequencies_apart() -> None:
    coarse, fine = waves(32, 64, 8 / 64), waves(32, 64, 24 / 64)
    assert judge.fine_share(coarse) == pytest.approx(0, abs=1e-6)
    assert judge.fine_share(fine) == pytest.approx(1, abs=1e-6)
    assert judge.fine_share((coarse + fine) / 2) == pytest.approx(0.5, abs=1e-6)
    assert judge.fine_share(torch.full((1, 3, 32, 32), 0.5)) == 0


def test_the_calm_ratio_compares_calm_with_textured_places() -> None:
    photo = torch.full((1, 3, 120, 120), 0.5)
    photo[..., 80:] = waves(120, 40, 0.25)  # a third is textured, the rest as calm as can be
    textured, calm = photo.clone(), photo.clone()
    textured[..., 80:] *= 0.9
    calm[..., :40] *= 0.9
    assert judge.calm_ratio(photo, textured) == 0
    assert judge.calm_ratio(photo, calm) > 1e6
    assert judge.calm_ratio(photo, photo + 0.01) == pytest.approx(1, rel=1e-4)
    assert judge.calm_ratio(photo, photo) == 0
    assert judge.calm_ratio(photo[..., :80], photo[..., :80]) is None, "nothing textured"
    assert judge.calm_ratio(photo[..., 90:], photo[..., 90:]) is None, "nothing calm"


def test_a_referee_knows_the_painting_and_the_photo(pocket: lk.Backbone) -> None:
    photo, painting = lk.photo("coffee", 64), lk.painting("lantern_bay", 64)
    for statistic in ("gram", "wasserstein"):
        loss = lk.style(painting, statistic=statistic)
        itself, other = (judge.distance(pocket, loss, picture) for picture in (painting, photo))
        assert itself == pytest.approx(0, abs=1e-4) and other > 0.1
    assert judge.distance(pocket, lk.content(photo), photo) == pytest.approx(0, abs=1e-6)
    assert judge.distance(pocket, lk.content(photo), lk.resize(painting, lk.pictures.geometry.size_of(photo))) > 0.1


def test_ranks_follow_the_logits(pocket: lk.Backbone) -> None:
    picture = lk.photo("chelsea", (224, 224))
    order = pocket.logits(picture)[0].argsort(descending=True).tolist()
    ranks = [judge.class_rank(pocket, picture, pocket.classes[order[place]]) for place in (0, 1, 41, 999)]
    assert ranks == [1, 2, 42, 1000]


def test_presets_are_judged_by_the_recipes_that_take_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lk.presets, "MINE", {"octaves": 3}, raising=False)
    monkeypatch.setattr(lk.presets, "SHORT", {"steps": 5}, raising=False)
    monkeypatch.setattr(lk.presets, "NONSENSE", {"octaves": 3, "style_weight": 1}, raising=False)
    found = {recipe.__name__: judge.methods_of(recipe) for recipe in (lk.dreaming, lk.stylizing, lk.creating)}
    assert [name for name, presets in found.items() if "MINE" in presets] == ["dreaming"]
    assert all(presets["default"] == {} and presets["SHORT"] == {"steps": 5} for presets in found.values())
    assert "GATYS" in found["stylizing"] and "ORIGINAL_DREAM" in found["dreaming"]
    assert not any("NONSENSE" in presets for presets in found.values())


def test_referees_did_not_paint_unless_there_is_no_other(
    pocket: lk.Backbone, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.delenv("LABKIT_WEIGHTS", raising=False)
    assert judge.find_referees(["pocket", "googlenet_bvlc"], pocket) == [pocket]
    assert "googlenet_bvlc is no referee: the weights of" in capsys.readouterr().err
    monkeypatch.setattr(judge.lk, "load_backbone", lambda name, device: name)
    assert judge.find_referees(["pocket", "googlenet_bvlc"], pocket) == ["googlenet_bvlc"]


def test_photos_are_found_by_name_file_and_folder(tmp_path: Path) -> None:
    for name in ("b.png", "d.webp", "a.JPG", "c.png"):
        lk.save(torch.rand(1, 3, 8, 8), tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    places = ["rocket", str(tmp_path), str(tmp_path / "b.png"), "coffee"]
    assert list(judge.find_photos(places, 9)) == ["rocket", "a", "b", "c", "d", "coffee"]
    assert list(judge.find_photos(places, 2)) == ["rocket", "a"]
    with pytest.raises(FileNotFoundError, match="no picture at"):
        judge.find_photos([str(tmp_path / "e.png")], 9)


def test_the_painter_takes_weights_from_a_file(tmp_path: Path, pocket: lk.Backbone) -> None:
    from safetensors.torch import save_file

    layers = [*zip(pocket.names, pocket.stages, strict=True), ("logits", pocket.head)]
    state = {f"{name}.{key}": value / 2 for name, layer in layers for key, value in layer.state_dict().items()}
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "half.safetensors")
    half = judge.load_painter("pocket", tmp_path / "half.safetensors", "cpu")
    assert all(torch.equal(2 * a, b) for a, b in zip(half.parameters(), pocket.parameters(), strict=True))


def test_the_judge_runs_with_the_pocket_network_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All tables, tiny; one method cannot be carried out on this network, and the page says why."""
    monkeypatch.setattr(lk.presets, "SHORT", {"steps": 2}, raising=False)
    results, report = tmp_path / "judged.json", tmp_path / "page.md"
    said = (
        "--photos coffee rocket --most 2 --paintings koi_mosaic --classes koala castle --size 48 --steps 1 --referees"
    )
    places = [
        "--results",
        str(results),
        "--report",
        str(report),
        "--sheets",
        str(tmp_path / "sheets"),
        "--device",
        "cpu",
    ]
    judge.main(["style", "classes", "--methods", "default", "SHORT", *said.split(), *places])
    judge.main(["dreams", "--methods", "default", "ORIGINAL_DREAM", *said.split(), *places])
    found = json.loads(results.read_text())
    assert [len(found[what]["rows"]) for what in ("style", "classes", "dreams")] == [6, 4, 4]
    assert "no layer 'inception_4c'" in found["dreams"]["refused"]["ORIGINAL_DREAM"]
    photo, default, short = ({**row, "method": "", "seconds": 0} for row in found["style"]["rows"][:3])
    assert short == default  # --steps overrules the preset's
    assert photo["pocket content"] < 1e-6 < photo["pocket gram"]
    page = report.read_text(encoding="utf-8")
    assert page == judge.written(found)
    for line in (
        "| photo |  | 0.00 |",
        "2 subjects: coffee x koi_mosaic, rocket x koi_mosaic.",
        "No referee was at hand: pocket judges what it painted itself.",
        "Refused: ORIGINAL_DREAM (pocket has no layer 'inception_4c').",
        "--photos coffee rocket --most 2",
    ):
        assert line in page
    sheet = lk.load(tmp_path / "sheets" / "style.png")
    assert sheet.shape[-2:] == (2 * 32 + 4, 4 * 48 + 3 * 4)  # both photos are 48 x 32
    assert lk.settings_of(tmp_path / "sheets" / "dreams.png")["columns"] == ["photo", "default"]


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("style --methods ORIGINAL_DREAM", "style has no method ORIGINAL_DREAM: it has default, GRAM"),
        ("classes --most 0", "--most must be a whole number from 1"),
        ("dreams --photos nothing.png", "no picture at nothing.png"),
    ],
)
def test_the_judge_says_what_it_cannot_do(said: str, error: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises((SystemExit, ValueError, FileNotFoundError)) as raised:
        judge.main([*said.split(), "--referees"])
    assert error in capsys.readouterr().err + str(raised.value)


def test_the_page_in_the_docs_is_what_was_judged() -> None:
    results = json.loads((judge.HERE / "judged.json").read_text())
    assert (judge.HERE.parent / "docs" / "pictures.md").read_text(encoding="utf-8") == judge.written(results)
