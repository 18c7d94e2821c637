"""How a notebook speaks: claims that can fail, and pictures that say in words what they show."""

from __future__ import annotations

import base64
import html
import re
from io import BytesIO
from typing import Any

import IPython
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

import labkit as lk
from labkit.notebook.display import Shown


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[Shown]:
    """What a notebook was given to display, in order."""
    found: list[Shown] = []
    monkeypatch.setattr(IPython, "get_ipython", lambda: "a notebook")
    monkeypatch.setattr("IPython.display.display", found.append)
    return found


def bundle(shown: list[Shown]) -> tuple[str, str, str]:
    """Media type, data and alternative text of the one thing shown; a caption below it says the same."""
    one, *below = shown
    for caption in below:
        data, _ = caption._repr_mimebundle_()
        assert html.escape(one.alt) in data["text/html"]
        assert data["text/plain"] == one.alt
    data, metadata = one._repr_mimebundle_()
    (kind,) = metadata
    assert data["text/plain"] == metadata[kind]["alt"]
    return kind, data[kind], metadata[kind]["alt"]


def decoded(data: str) -> Image.Image:
    return Image.open(BytesIO(base64.b64decode(data)))


def plain(height: int, width: int, value: float = 0.5) -> Tensor:
    return torch.full((1, 3, height, width), value)


# --- check -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "claim", "line"),
    [
        (1.0004, {"expected": 1}, "✓ ratio: 1 (expected 1 ± 0.1%)\n"),
        (-2.1, {"expected": -2, "rtol": 0.1}, "✓ ratio: -2.1 (expected -2 ± 10%)\n"),
        (1e-4, {"expected": 0}, "✓ ratio: 0.0001 (expected 0 ± 0.001)\n"),
        (3, {"at_least": 3}, "✓ ratio: 3 (at least 3)\n"),
        (3, {"at_most": 3}, "✓ ratio: 3 (at most 3)\n"),
        (3, {"at_least": 2, "at_most": 4}, "✓ ratio: 3 (at least 2 and at most 4)\n"),
        (torch.tensor(0.5), {"expected": 0.5}, "✓ ratio: 0.5 (expected 0.5 ± 0.1%)\n"),
        (np.float32(0.5), {"expected": 0.5}, "✓ ratio: 0.5 (expected 0.5 ± 0.1%)\n"),
    ],
)
def test_a_claim_that_holds_is_one_line(value: Any, claim: dict, line: str, capsys: pytest.CaptureFixture) -> None:
    lk.check("ratio", value, **claim)
    assert capsys.readouterr().out == line


@pytest.mark.parametrize(
    ("value", "claim"),
    [
        (1.002, {"expected": 1}),
        (-1, {"expected": 1}),
        (0.002, {"expected": 0}),
        (2.99, {"at_least": 3}),
        (3.01, {"at_most": 3}),
        (5, {"at_least": 2, "at_most": 4}),
        (1, {"at_least": 2, "at_most": 4}),
        (3, {"expected": 3, "at_most": 2}),
        (float("nan"), {"expected": 1}),
        (float("nan"), {"at_least": 0}),
        (float("nan"), {"at_most": 0}),
        (float("inf"), {"expected": 1}),
    ],
)
def test_a_claim_that_does_not_hold_stops_the_notebook(value: float, claim: dict) -> None:
    with pytest.raises(lk.CheckError, match=r"^✗ ratio: .* \((expected|at least|at most) .*\)$"):
        lk.check("ratio", value, **claim)


def test_a_check_must_be_able_to_fail() -> None:
    with pytest.raises(ValueError, match="give what is expected, at_least or at_most"):
        lk.check("ratio", 1.0)


# --- show --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pictures", "options", "size"),
    [
        ([plain(40, 50)], {}, (50, 40)),
        ([plain(40, 50), plain(30, 20)], {}, (2 * 50 + 8, 40)),
        ([plain(40, 50)[0], plain(40, 50).expand(2, -1, -1, -1)], {}, (3 * 50 + 2 * 8, 40)),
        ([plain(40, 50)] * 3, {"columns": 2}, (2 * 50 + 8, 2 * 40 + 8)),
        ([plain(40, 50)] * 3, {"columns": 2, "titles": ["a", "b", "c"]}, (2 * 50 + 8, 2 * (40 + 22) + 8)),
        ([plain(200, 400)] * 2, {"width": 208}, (208, 50)),
        ([plain(64, 64)] * 20, {}, (15 * 51 + 14 * 8, 2 * 51 + 8)),  # 15 columns, not 20 of a few pixels
        ([plain(8, 8)] * 20, {}, (20 * 8 + 19 * 8, 8)),
    ],
)
def test_a_sheet_has_the_expected_size(
    pictures: list[Tensor], options: dict, size: tuple[int, int], shown: list[Shown]
) -> None:
    lk.show(*pictures, **options)
    kind, data, _ = bundle(shown)
    assert kind == "image/jpeg"
    assert decoded(data).size == size


@pytest.mark.parametrize("columns", range(1, 12))
def test_a_sheet_is_never_wider_than_asked(columns: int, shown: list[Shown]) -> None:
    lk.show(*[plain(20, 397)] * columns, width=300)
    assert 300 - columns <= decoded(bundle(shown)[1]).width <= 300


def test_a_sheet_has_its_pictures_in_reading_order(shown: list[Shown]) -> None:
    lk.show(plain(40, 40, 0), plain(40, 40, 0.3), plain(40, 40, 0.6), columns=2)
    sheet = np.asarray(decoded(bundle(shown)[1]).convert("L")) / 255
    middles = [sheet[row, column] for row in (20, 68) for column in (20, 68)]
    assert middles == pytest.approx([0, 0.3, 0.6, 1], abs=0.02)


@pytest.mark.parametrize(
    ("options", "alt"),
    [
        ({"titles": ["cat", "dream"]}, "cat, dream"),
        ({"titles": ["cat", "dream"], "caption": "A cat."}, "A cat."),
        ({}, ""),
    ],
)
def test_a_sheet_has_alternative_text(options: dict, alt: str, shown: list[Shown]) -> None:
    lk.show(plain(8, 8), plain(8, 8), **options)
    assert bundle(shown)[2] == alt
    assert len(shown) == (2 if "caption" in options else 1)  # titles are not repeated below


def test_titles_must_be_as_many_as_pictures(shown: list[Shown]) -> None:
    with pytest.raises(ValueError, match="2 pictures need as many titles, not 1"):
        lk.show(plain(8, 8).expand(2, -1, -1, -1), titles=["one"])


def test_a_figure_is_shown_with_its_alternative_text(shown: list[Shown]) -> None:
    lk.show(Figure(figsize=(2, 1), dpi=50), caption="an empty figure")
    kind, data, alt = bundle(shown)
    assert (kind, decoded(data).format, decoded(data).size, alt) == ("image/png", "PNG", (100, 50), "an empty figure")


def test_a_script_opens_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    windows: list[Image.Image] = []
    monkeypatch.setattr(IPython, "get_ipython", lambda: None)
    monkeypatch.setattr(Image.Image, "show", lambda image: windows.append(image))
    lk.show(plain(8, 9))
    lk.compare(plain(8, 9), plain(8, 9))
    lk.show(Figure(figsize=(2, 1), dpi=50))
    assert [window.size for window in windows] == [(9, 8), (2 * 9 + 8, 8 + 22), (100, 50)]


# --- compare -----------------------------------------------------------------------------------------------------


def test_a_comparison_is_one_page_without_internet(shown: list[Shown]) -> None:
    lk.compare(plain(30, 40, 0.2), plain(30, 40, 0.8), ("photo <1>", "dream"), caption='the "cat"')
    kind, page, alt = bundle(shown)
    assert (kind, alt) == ("text/html", 'the "cat"')
    assert re.findall(r'alt="([^"]*)"', page) == ["photo &lt;1&gt;: the &quot;cat&quot;", "dream: the &quot;cat&quot;"]
    assert "<1>" not in page
    pictures = re.findall(r'src="data:image/jpeg;base64,([^"]*)"', page)
    values = [np.asarray(decoded(data)).mean() / 255 for data in pictures]
    assert values == pytest.approx([0.2, 0.8], abs=0.02)
    assert len(re.findall("src=", page)) == 2
    without = re.sub(r"base64,[^\"]*", "", page)
    assert not re.search(r"//|<script|<link|@import|url\(", without)


def test_a_comparison_is_described_by_its_titles_alone(shown: list[Shown]) -> None:
    lk.compare(plain(8, 8), plain(8, 8))
    assert bundle(shown)[2] == "before and after"


def test_pictures_of_two_sizes_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match=r"the pictures differ in size: \(9, 8\) and \(8, 9\)"):
        lk.compare(plain(8, 9), plain(9, 8))


# --- curves ------------------------------------------------------------------------------------------------------


@pytest.fixture
def axes(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The axes of the figures that were shown."""
    found: list[Any] = []
    for module in ("plots", "diagrams"):
        monkeypatch.setattr(f"labkit.notebook.{module}.show", lambda figure, caption: found.extend(figure.axes))
    return found


def test_curves_draw_every_series(axes: list[Any]) -> None:
    series = {f"run {number}": [number, 2.0, 3.0] for number in range(8)}  # more than the palette has colors
    lk.curves(series, xlabel="step", ylabel="loss", title="eight runs")
    (one,) = axes
    assert [line.get_label() for line in one.lines] == list(series)
    assert one.lines[5].get_xydata().tolist() == [[1, 5], [2, 2], [3, 3]]
    assert [text.get_text() for text in one.get_legend().get_texts()] == list(series)
    assert (one.get_xlabel(), one.get_ylabel(), one.get_title("left")) == ("step", "loss", "eight runs")
    assert one.get_yscale() == "linear"


def test_one_curve_needs_no_legend(axes: list[Any]) -> None:
    lk.curves({"loss": [1, 10, 100]}, x=[0, 5, 10], log=True)
    assert axes[0].get_legend() is None
    assert axes[0].lines[0].get_xdata().tolist() == [0, 5, 10]
    assert axes[0].get_yscale() == "log"


@pytest.mark.parametrize(("values", "labels"), [([27.0, 2.1], {"2", "5", "10", "20"}), ([1e-3, 5.0], {"0.1", "1"})])
def test_a_logarithmic_curve_has_plain_numbers(axes: list[Any], values: list[float], labels: set[str]) -> None:
    lk.curves({"loss": values}, log=True)
    (one,) = axes
    assert labels <= {label.get_text() for label in one.get_yticklabels()}
    assert not any(label.get_text() for label in one.get_yticklabels(minor=True))


@pytest.mark.parametrize(("options", "alt"), [({"title": "it falls"}, "it falls"), ({"caption": "a curve"}, "a curve")])
def test_curves_have_alternative_text(options: dict, alt: str, shown: list[Shown]) -> None:
    lk.curves({"loss": [3, 2, 1]}, **options)
    kind, _, found = bundle(shown)
    assert (kind, found) == ("image/png", alt)


# --- showpieces --------------------------------------------------------------------------------------------------


def test_a_showpiece_is_large_and_says_how_it_was_made(shown: list[Shown]) -> None:
    lk.showpiece("castles_in_the_mist")
    kind, data, said = bundle(shown)
    assert (kind, len(shown)) == ("image/jpeg", 2)
    assert max(decoded(data).size) >= 768
    assert 'Made by lk.dream(lk.painting("mist_peaks", 768)' in said


def test_a_showpiece_that_is_none() -> None:
    with pytest.raises(ValueError, match=r"there is no showpiece 'mona_lisa': there are birds_in_the_wave, "):
        lk.showpiece("mona_lisa")


# --- diagrams ----------------------------------------------------------------------------------------------------


def test_a_diagram_has_its_boxes_arrows_and_pictures(axes: list[Any]) -> None:
    boxes = {"photo": (0, 1), "network": (1, 0), "loss": (2, 1)}
    arrows = [("photo", "network"), ("network", "loss", "features")]
    lk.diagram(boxes, arrows, pictures={"photo": plain(20, 30, 1.0)}, back=[("loss", "photo", "gradient")])
    (one,) = axes
    assert {text.get_text() for text in one.texts} - {""} == {"photo", "network", "loss", "features", "gradient"}
    (image,) = one.images
    left, right, bottom, top = image.get_extent()
    inches = one.figure.get_size_inches()
    assert one.axis() == pytest.approx((0, inches[0], inches[1], 0))  # one unit is one inch: nothing is squashed
    assert right - left == pytest.approx(1.4) and bottom - top == pytest.approx(1.4 / 1.5)
    place = {text.get_text(): text.get_position() for text in one.texts}
    assert (left + right) / 2 == pytest.approx(place["network"][0] - 1.9)
    assert top > place["network"][1] and bottom < place["gradient"][1]
    assert len(one.patches) >= 2


def test_a_diagram_shows_features_in_colors(axes: list[Any]) -> None:
    features = 100 + 7 * torch.randn(1, 8, 20, 30, generator=torch.Generator().manual_seed(0))
    lk.diagram({"x": (0, 0)}, [], pictures={"x": features})
    (image,) = axes[0].images
    shown = torch.tensor(image.get_array() / 255.0)
    assert image.get_interpolation() == "nearest"  # the pixels of a small map are to be seen
    assert shown.mean((0, 1)).tolist() == pytest.approx([0.5] * 3, abs=0.02)
    for channel in range(3):  # whatever the size of the numbers, the order of a channel's places is kept
        pair = torch.stack([shown[..., channel].flatten(), features[0, channel].flatten()])
        assert torch.corrcoef(pair)[0, 1] > 0.95


@pytest.mark.parametrize(
    "options", [{"arrows": [("x", "z")]}, {"arrows": [], "back": [("z", "x")]}, {"arrows": [], "pictures": {"z": None}}]
)
def test_a_diagram_knows_its_boxes(options: dict) -> None:
    with pytest.raises(ValueError, match="there is no box 'z': there are 'x', 'y'"):
        lk.diagram({"x": (0, 0), "y": (1, 0)}, **options)
