"""The guards can fail: every fault that the harness must catch is made on purpose, in a small model notebook."""

from __future__ import annotations

import base64
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import canonical
import machines
import nbformat
import pytest
import test_notebooks as checks
from agreement import ALIKE, NUMBER, PICTURE, Tolerance, same_number
from conftest import Cell
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from PIL import Image, ImageEnhance, ImageOps, PngImagePlugin

# --- a model notebook --------------------------------------------------------------------------------------------

SETUP = '''\
import sys

if "google.colab" in sys.modules:
    %pip install -q --no-deps "to be written"'''

IMPORTS = """\
import base64
import io
import os
import time
import types

import matplotlib.pyplot as plt
from IPython.display import HTML, display
from PIL import Image"""

pytestmark = pytest.mark.slow

# The parts of the story: a name for the tests below, a sentence of prose, a cell of code.
PARTS = {
    "imports": ("We draw with matplotlib and Pillow, and keep the time.", IMPORTS),
    "environment": (
        "The kernel says in which environment it runs, so that a test can see it.",
        'print([os.environ[name] for name in ("LABKIT_PRECISION", "CUDA_VISIBLE_DEVICES")])',
    ),
    "folder": ("It runs in the folder of its notebook.", "print('model.ipynb' in os.listdir())"),
    "loss": ("A loss is a number with many digits.", "loss = 0.7312468\nprint(f'loss {loss:.7f}')"),
    "layers": ("A count is exact, whatever the machine.", "layers = 13\nprint(f'{layers} layers')"),
    "picture": (
        "A picture stands among the outputs with words that describe it.",
        "alt = 'a gray wedge, from black on the left to white on the right'\n"
        "jpeg = io.BytesIO()\n"
        "Image.linear_gradient('L').rotate(90).resize((96, 64)).save(jpeg, 'JPEG')\n"
        "data = base64.b64encode(jpeg.getvalue()).decode()\n"
        "display({'image/jpeg': data, 'text/plain': alt}, metadata={'image/jpeg': {'alt': alt}}, raw=True)\n"
        "display({'text/html': f'<p>{alt}</p>', 'text/plain': alt}, raw=True)",
    ),
    "plot": (
        "A plot is a PNG file, which names the version of matplotlib that drew it in the colors of the page.",
        "png = io.BytesIO()\n"
        "plt.figure(figsize=(2, 1)).gca().plot([0, 1, 4, 9])\n"
        "plt.savefig(png)\n"
        "plt.close()\n"
        "data = base64.b64encode(png.getvalue()).decode()\n"
        "said = 'a parabola, from 0 to 9'\n"
        "display({'image/png': data}, metadata={'image/png': {'alt': said}}, raw=True)\n"
        "display({'text/html': f'<p>{said}</p>', 'text/plain': said}, raw=True)",
    ),
    "slider": (
        "A slider is HTML that holds its pictures.",
        "source = base64.b64encode(jpeg.getvalue()).decode()\n"
        'HTML(f\'<p>before, {loss:.4f}</p><img alt="{alt}" src="data:image/jpeg;base64,{source}">\')',
    ),
    "timing": ("A timing is different in every run.", "print(f'took {time.perf_counter():.4f} s')"),
    "backend": ("A figure that is drawn is shown, whichever backend the user prefers.", "print(plt.get_backend())"),
    "overprint": ("A line that is printed over is read once.", "print('1 of 2\\r2 of 2')"),
    "checks": (
        "Here a stand-in takes the place of labkit, since this is about the tests and not about the lab.",
        "def claim(name, value, expected, rtol=1e-3):\n"
        "    print(f'✓ {name}: {value:.4g} (expected {expected:.4g} ± {rtol:.2g})')\n\n\n"
        "lk = types.SimpleNamespace(check=claim)",
    ),
    **{
        f"check {count}": (
            f"Claim {count} is measured. The reader sees the number, and whoever doubts it can change the cell.",
            f"lk.check('claim {count}', loss, 0.7312, rtol=1e-3)",
        )
        for count in ("one", "two", "three", "four", "five")
    },
}
OPENING = """\
# A model

**What you will learn**: what the harness sees. **Time**: one minute. **Prerequisites**: none, but it helps to have
read [the design](model.ipynb) and to know how a notebook is stored: as text, with the pictures in it, so that two
runs can be compared line by line. Everything here is small on purpose. Nothing is loaded, nothing is computed that
takes longer than a moment, and every cell shows one thing that can go wrong in a notebook of the lab.

## Faults to be made"""
CLOSING = """\
## Summary

Whatever a reader could doubt is compared, with a tolerance that fits it: a number, a picture, a sentence.

## Exercises

Change one cell, predict which test fails, and run it.

## References

Gatys, Color and texture normalization, 2016."""


# An environment that must not reach the kernels.
PREFERENCES = {"LABKIT_PRECISION": "bfloat16", "CUDA_VISIBLE_DEVICES": "0", "OMP_NUM_THREADS": "3", "MPLBACKEND": "agg"}


def model() -> NotebookNode:
    """A notebook that has been written and not yet run."""
    cells = [new_markdown_cell(OPENING), new_code_cell(SETUP)]
    for prose, code in PARTS.values():
        cells += [new_markdown_cell(prose), new_code_cell(code)]
    return new_notebook(cells=[*cells, new_markdown_cell(CLOSING)])


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model, run by the canonical runner of somebody with other preferences."""
    path = tmp_path_factory.mktemp("harness") / "model.ipynb"
    nbformat.write(model(), path)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in PREFERENCES.items():
            patch.setenv(name, value)
        assert canonical.main([str(path)]) == 0
    return path


@pytest.fixture
def book(model_path: Path) -> checks.Notebook:
    """A copy to be broken."""
    return checks.Notebook.read(model_path)


def part(notebook: NotebookNode, name: str) -> NotebookNode:
    return next(cell for cell in notebook.cells if cell.source == PARTS[name][1])


# --- the canonical runner ----------------------------------------------------------------------------------------


def test_a_second_run_changes_no_byte(model_path: Path) -> None:
    before = model_path.read_bytes()
    assert canonical.main([str(model_path)]) == 0
    assert model_path.read_bytes() == before
    assert sorted(model_path.parent.glob("model*")) == [model_path]  # no temporary file is left


def test_what_a_claim_measured_is_stored_anew_and_a_time_is_not(model_path: Path, tmp_path: Path) -> None:
    run, path = nbformat.read(model_path, as_version=4), tmp_path / "old.ipynb"
    stored = nbformat.read(model_path, as_version=4)
    part(stored, "check one").outputs[0].text = part(stored, "check one").outputs[0].text.replace("0.7312 ", "0.8 ")
    part(stored, "timing").outputs[0].text = "took 9.8765 s\n"
    nbformat.write(stored, path)
    canonical.refresh(path, {machine: deepcopy(run) for machine in canonical.MACHINES})
    fresh = nbformat.read(path, as_version=4)
    assert "claim one: 0.7312 " in part(fresh, "check one").outputs[0].text
    assert part(fresh, "timing").outputs[0].text == "took 9.8765 s\n"


def test_runner_has_its_own_environment_and_tidies(book: checks.Notebook) -> None:
    shown = {name: part(book.node, name).outputs[0].text for name in ("environment", "backend", "folder", "overprint")}
    assert shown["environment"] == "['float32', '']\n"
    assert "inline" in shown["backend"]
    assert shown["folder"] == "True\n"
    assert shown["overprint"] == "2 of 2\n"


def test_runner_writes_the_public_address(book: checks.Notebook) -> None:
    title, setup = book.node.cells[0].source, book.node.cells[1].source
    owner = re.search(r"git\+https://github.com/(\S+/\S+)\"$", setup)[1]
    assert title.startswith("# A model\n\n[![Open In Colab](") and f"/github/{owner}/blob/main/notebooks/" in title


def test_runner_names_the_cell_that_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "broken.ipynb"
    cells = [new_markdown_cell("# Broken"), new_code_cell(SETUP), new_code_cell("1 / 0")]
    nbformat.write(new_notebook(cells=cells), path)
    before = path.read_bytes()
    assert canonical.main([str(path)]) == 1
    assert re.search(r"broken\.ipynb, cell-02, plain: .*ZeroDivisionError", capsys.readouterr().err, re.DOTALL)
    assert path.read_bytes() == before


def test_runner_joins_what_is_printed_but_keeps_its_place() -> None:
    def printed(text: str, name: str = "stdout") -> NotebookNode:
        return nbformat.v4.new_output("stream", name=name, text=text)

    shown = nbformat.v4.new_output("display_data", data={"text/plain": "a picture"})
    pieces = [printed("warned", "stderr"), printed("be"), printed("fore\r10%\r20%"), shown, printed("after")]
    assert list(canonical.in_order(pieces)) == [printed("20%"), printed("warned", "stderr"), shown, printed("after")]


def test_runner_drops_what_no_reader_sees() -> None:
    cell = new_code_cell("1", metadata={"tags": ["rtol=0.1"], "execution": {"iopub.status.busy": "2016"}})
    cell.outputs = [
        nbformat.v4.new_output("display_data", data={canonical.WIDGET: {"model_id": "f1"}, "text/plain": "0%"})
    ]
    cleaned = canonical.clean(
        new_notebook(cells=[cell], metadata={"widgets": {}, "language_info": {"name": "python", "version": "3"}})
    )
    assert cleaned.metadata == canonical.METADATA
    assert cleaned.cells[0].id == "cell-00" and cleaned.cells[0].metadata == {"tags": ["rtol=0.1"]}
    assert cleaned.cells[0].outputs[0].data == {"text/plain": "0%"}


# --- nbval -------------------------------------------------------------------------------------------------------

Mutation = Callable[[NotebookNode], object]


def rewritten(pattern: str | re.Pattern[str], change: str | Callable[[re.Match[str]], str]) -> Mutation:
    """Change what a cell has shown: printed text, HTML or a picture's base64."""

    def mutate(cell: NotebookNode) -> None:
        output = cell.outputs[0]
        holder, key = (output, "text") if "text" in output else (output.data, next(iter(output.data)))
        holder[key], count = re.subn(pattern, change, holder[key], count=1)
        assert count, f"{pattern} is not in the output"

    return mutate


def scaled(factor: float) -> Mutation:
    """Change the number that was printed."""
    return rewritten(NUMBER, lambda number: f" {float(number[0]) * factor:.7f}")


def redrawn(change: Callable[[Image.Image], Image.Image], software: str | None = None) -> Mutation:
    """Change the picture that was shown, and perhaps the program that says it wrote it."""

    def redraw(found: re.Match[str]) -> str:
        image = Image.open(io.BytesIO(base64.b64decode(found[0])))
        note = PngImagePlugin.PngInfo()
        note.add_text("Software", software or image.info.get("Software", ""))
        file = io.BytesIO()
        change(image.convert("RGB")).save(file, image.format, pnginfo=note, quality=95)
        return base64.b64encode(file.getvalue()).decode()

    return rewritten(PICTURE, redraw)


def brighter(image: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(1.01)


def blank(image: Image.Image) -> Image.Image:
    return Image.new("RGB", image.size, "gray")


def noise(image: Image.Image) -> Image.Image:
    return Image.effect_noise(image.size, 75).convert("RGB")


def reddened(image: Image.Image) -> Image.Image:
    return Image.blend(image, Image.new("RGB", image.size, "red"), 0.2)


def strip(cell: NotebookNode) -> None:
    cell.update(outputs=[], execution_count=None)


def tagged(tag: str, mutate: Mutation) -> Mutation:
    return lambda cell: (cell.metadata.update(tags=[tag]), mutate(cell))


# What was done to the stored outputs of which part, and whether nbval must let it pass.
MUTANTS: dict[str, tuple[str, Mutation, bool]] = {
    "a number off by 1 %": ("loss", scaled(1.01), False),
    "a number off by 1 %, in a cell that allows 2 %": ("loss", tagged("rtol=0.02", scaled(1.01)), True),
    "a number off by 3 %, in a cell that allows 2 %": ("loss", tagged("rtol=0.02", scaled(1.03)), False),
    "a number off by 1e-5": ("loss", scaled(1 + 1e-5), True),
    "an integer off by one": ("layers", rewritten("13", "12"), False),
    "another word": ("layers", rewritten("layers", "lawyers"), False),
    "another time": ("timing", rewritten(r"\d+\.\d+", "9.9"), True),
    "another environment": ("environment", rewritten("float32", "bfloat16"), False),
    "another backend": ("backend", rewritten("inline", "agg"), False),
    "a picture negated": ("picture", redrawn(ImageOps.invert), False),
    "a picture negated, in a cell that allows it": ("picture", tagged("rms=1", redrawn(ImageOps.invert)), True),
    "a picture mirrored": ("picture", redrawn(ImageOps.mirror), False),
    "a picture of another size": ("picture", redrawn(lambda image: image.resize((48, 32))), False),
    "a picture 1 % brighter": ("picture", redrawn(brighter), True),
    "a picture that is none": ("picture", rewritten(PICTURE, "/9j/AAAA"), False),
    "a plot negated": ("plot", redrawn(ImageOps.invert), False),
    "a plot by another matplotlib": ("plot", redrawn(ImageOps.invert, "Matplotlib version0.1"), True),
    "a plot by another program": ("plot", redrawn(ImageOps.invert, "Pen and paper"), False),
    "other strokes, in a cell that asks for alike ones": ("picture", tagged(ALIKE, redrawn(ImageOps.mirror)), True),
    "a blank picture, in such a cell": ("picture", tagged(ALIKE, redrawn(blank)), False),
    "noise, in such a cell": ("picture", tagged(ALIKE, redrawn(noise)), False),
    "another mean color, in such a cell": ("picture", tagged(ALIKE, redrawn(reddened)), False),
    "another size, in such a cell": ("picture", tagged(ALIKE, redrawn(lambda image: image.resize((48, 32)))), False),
    "what a claim measured": ("check one", rewritten("0.7312 ", "0.7309 "), True),
    "what a claim says": ("check one", rewritten("expected 0.7312", "expected 0.8312"), False),
    "a claim that does not hold": ("check one", rewritten("✓", "✗"), False),
    "a picture in HTML negated": ("slider", redrawn(ImageOps.invert), False),
    "a picture in HTML 1 % brighter": ("slider", redrawn(brighter), True),
    "a number in HTML off by 1 %": ("slider", scaled(1.01), False),
    "another word in HTML": ("slider", rewritten("before", "after"), False),
    "an output missing": ("layers", lambda cell: cell.outputs.clear(), False),
    "an output too many": ("layers", lambda cell: cell.outputs.append(deepcopy(cell.outputs[0])), False),
    "a cell stripped": ("loss", strip, True),  # the hole that `is_fresh` closes
}


@pytest.fixture(scope="module")
def passed(model_path: Path) -> dict[str, bool]:
    """Whether nbval passes the untouched model and every mutant; these are cells of one notebook, to save time."""
    whole = nbformat.read(model_path, as_version=4)
    before = [deepcopy(part(whole, name)) for name in ("imports", "loss", "picture", "checks")]
    mutants = []
    for name, mutate, _ in MUTANTS.values():
        mutants.append(deepcopy(part(whole, name)))
        mutate(mutants[-1])
    whole.cells = [*before, *mutants]
    nbformat.write(canonical.clean(whole), model_path.with_name("mutants.ipynb"))

    sanitize = ["--nbval-sanitize-with", str(canonical.ROOT / "tests/sanitize.cfg")]
    options = ["--rootdir=.", "-pno:xdist", "-pno:cacheprovider", "-pconftest", "--nbval", "--nbval-current-env", "-rA"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--tb=no", *sanitize, "model.ipynb", "mutants.ipynb"],
        cwd=model_path.parent,
        env=os.environ | PREFERENCES | {"PYTHONPATH": str(canonical.ROOT / "tests"), "PYTEST_ADDOPTS": ""},
        check=False,
        capture_output=True,
        text=True,
    )
    found = re.findall(r"^(PASSED|FAILED) (\w+)\.ipynb::Cell (\d+)", run.stdout, re.MULTILINE)
    verdicts = {(file, int(cell)): verdict == "PASSED" for verdict, file, cell in found}
    assert len(verdicts) == 1 + len(PARTS) + len(before) + len(MUTANTS), run.stdout + run.stderr
    untouched = {"the model": all(good for (file, _), good in verdicts.items() if file == "model")}
    return untouched | {name: verdicts["mutants", cell] for cell, name in enumerate(MUTANTS, start=len(before))}


@pytest.mark.parametrize("name", MUTANTS)
def test_nbval_judges(name: str, passed: dict[str, bool]) -> None:
    assert passed[name] == MUTANTS[name][2]


def test_nbval_passes_the_model(passed: dict[str, bool]) -> None:
    assert passed["the model"]


@pytest.mark.parametrize(
    ("reference", "now", "same"),
    [
        ("0.903", "0.914", False),
        ("0.913", "0.914", True),  # one unit of the last digit
        ("0.0024", "0.0012", False),
        ("1.2e-05", "9.9e-05", False),
        ("1.2e-05", "1.3e-05", True),
        ("731.2468", "731.3", True),
        ("0.5", "0.4131", False),  # the one with more digits says what a unit is
        ("3.", "4.", False),  # a whole number, as NumPy prints it
        ("-0.0", "0.0", True),
        ("-0.5", "0.5", False),
    ],
)
def test_numbers_agree_as_printed(reference: str, now: str, same: bool) -> None:
    assert same_number(reference, now, rtol=1e-3) == same


@pytest.mark.parametrize(
    ("reference", "now", "same"),
    [
        ("n=13", "n=12", False),
        ("accuracy 0.913 of n=13", "accuracy 0.914 of n=13", True),
        ("accuracy 0.903 of n=13", "accuracy 0.914 of n=13", False),
        ("[0.5 nan]", "[0.5 nan]", True),
        ("[0.5 nan]", "[0.5 0.5]", False),
        ("loss inf", "loss 1.0", False),
        ("loss inf", "loss -inf", False),
        ("loss   9.999", "loss  10.000", True),  # padded to one width
        ("torch 2.14.0", "torch 2.15.0", False),  # a version is no number
        ("numba 0.6100.0", "numba 0.6101.0", False),
        ("labkit v0.1", "labkit v0.2", False),
        ("3.2x faster in 12.5 ms", "3.3x faster in 1 s", True),
        ("5 steps in 3 s", "4 steps in 3 s", False),
        (" 30%|### | 3/10 [00:01<00:02]", "dream: 100%|####| 10/10 [00:01<00:00, 8.1it/s]", True),
        ("<Figure size 640x480 with 1 Axes>", "<Figure size 200x100 with 1 Axes>", True),
        ("<Figure size 640x480 with 1 Axes>", "<Figure size 640x480 with 2 Axes>", False),
        ("<Net at 0x7f0012345678>", "<Net at 0x7f00deadbeef>", True),
        ("color 0xff", "color 0xfe", False),
    ],
)
def test_text_agrees_but_for_what_varies(reference: str, now: str, same: bool) -> None:
    cell = object.__new__(Cell)  # one of no notebook
    cell.parent, cell.cell = SimpleNamespace(sanitize_patterns=dict(canonical.VARYING)), new_code_cell()
    first, second = cell.sanitize(reference), cell.sanitize(now)
    assert (first == second) == same and (first != second) != same


# --- tolerances are measured --------------------------------------------------------------------------------------


def printed(text: str, *tags: str) -> NotebookNode:
    """A cell that has printed ``text``."""
    output = nbformat.v4.new_output("stream", name="stdout", text=text)
    return new_code_cell("1", outputs=[output], metadata={"tags": list(tags)})


def drawn(image: Image.Image) -> NotebookNode:
    """A cell that has shown a picture."""
    file = io.BytesIO()
    image.save(file, "PNG")
    data = {"image/png": base64.b64encode(file.getvalue()).decode()}
    return new_code_cell("1", outputs=[nbformat.v4.new_output("display_data", data=data)])


WEDGE = Image.linear_gradient("L").convert("RGB")


@pytest.mark.parametrize(
    ("plain", "other", "tags"),
    [
        (printed("loss 0.5000"), printed("loss 0.5000"), []),
        (printed("loss 0.5000"), printed("loss 0.5001"), []),
        (printed("loss 0.5000"), printed("loss 0.5100"), ["rtol=0.059"]),
        (printed("1.000 and 2.000"), printed("1.010 and 2.100"), ["rtol=0.15"]),
        (printed("loss 0.5000", "rtol=0.9"), printed("loss 0.5000"), []),  # what was guessed is forgotten
        (printed("took 1.5 s"), printed("took 9.5 s"), []),
        (drawn(WEDGE), drawn(WEDGE), []),
        (drawn(WEDGE), drawn(ImageEnhance.Brightness(WEDGE).enhance(0.98)), ["rms=0.041"]),
        (drawn(WEDGE), drawn(WEDGE.rotate(180)), [ALIKE]),
    ],
)
def test_the_spread_that_was_seen_is_allowed_three_times(
    plain: NotebookNode, other: NotebookNode, tags: list[str]
) -> None:
    complaints, tolerance = canonical.compared(plain, {"another": other})
    assert not complaints and tolerance.tags == tags and Tolerance.of(tags) == tolerance


@pytest.mark.parametrize(
    ("plain", "other", "words"),
    [
        (printed("loss 0.5"), printed("loss 0.6"), "on another 0.5 is 0.6"),  # one unit, and yet a fifth
        (printed("loss 0.5"), printed("loss nan"), "'loss 0.5' is 'loss nan'"),
        (printed("3 cats"), printed("4 cats"), "'3 cats' is '4 cats'"),
        (printed("a cat"), drawn(WEDGE), "other kinds of output"),
        (drawn(WEDGE), drawn(blank(WEDGE)), "contrast"),
        (drawn(WEDGE), drawn(noise(WEDGE)), "roughness"),
        (drawn(WEDGE), drawn(WEDGE.resize((9, 9))), "is now one of"),
    ],
)
def test_what_no_two_machines_agree_on_is_refused(plain: NotebookNode, other: NotebookNode, words: str) -> None:
    complaints, _ = canonical.compared(plain, {"the same": plain, "another": other})
    assert len(complaints) == 1 and words in complaints[0]


def test_the_runner_refuses_and_names_the_cell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "torn.ipynb"
    source = "import os\nprint('threads', os.environ['OMP_NUM_THREADS'])"
    nbformat.write(new_notebook(cells=[new_markdown_cell("# Torn"), new_code_cell(SETUP), new_code_cell(source)]), path)
    before = path.read_bytes()
    assert canonical.main([str(path)]) == 1
    assert "cell-02: on two threads 'threads 1' is 'threads 2'" in capsys.readouterr().err
    assert path.read_bytes() == before


# --- all machines -------------------------------------------------------------------------------------------------


def test_a_table_says_which_cells_failed_on_which_machine(model_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notebook = nbformat.read(model_path, as_version=4)
    scaled(1.01)(part(notebook, "loss"))
    path = model_path.with_name("wrong.ipynb")
    nbformat.write(notebook, path)
    status = machines.main([str(path), "--machines", "plain", "bfloat16"])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    index = notebook.cells.index(part(notebook, "loss"))
    # In bfloat16 numbers are others: only the claims are asked for, and the environment's cell prints what it is.
    assert status == 1 and rows == [["plain", "bfloat16"], ["wrong", f"cell-{index:02d}", "passed"]]


def test_a_cell_that_mixes_devices_fails_where_there_is_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a GPU the network's weights are not where pictures are."""
    path = tmp_path / "mixed.ipynb"
    source = 'network = lk.load_backbone("pocket")\nmean = (lk.photo("coffee", 32) - network.mean).mean()'
    nbformat.write(new_notebook(cells=[new_code_cell("import labkit as lk"), new_code_cell(source)]), path)
    status = machines.main([str(path), "--machines", "plain", *canonical.FIRST])
    rows = [re.split(r"  +", line.strip()) for line in capsys.readouterr().out.splitlines()]
    assert status == 1 and rows == [["plain", "GPU", "Apple's GPU"], ["mixed", "passed", "cell-01", "cell-01"]]


def test_a_notebook_that_did_not_run_has_not_passed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "torn.ipynb"
    path.write_text("{")
    with pytest.raises(nbformat.reader.NotJSONError):
        machines.main([str(path), "--machines", "plain"])
    assert machines.judge("plain", [path], 1)[0] in ({"torn": None}, {"torn": [0]})


# --- the checks of test_notebooks.py -----------------------------------------------------------------------------


def edited(old: str, new: str) -> Mutation:
    """Change the source of the first cell that holds ``old``."""

    def mutate(notebook: NotebookNode) -> None:
        cell = next(cell for cell in notebook.cells if old in cell.source)
        cell.source = cell.source.replace(old, new)

    return mutate


def within(name: str, mutate: Mutation) -> Mutation:
    """Change one part of the notebook."""
    return lambda notebook: mutate(part(notebook, name))


def shows(**output: object) -> Mutation:
    """Change what the number cell has shown."""
    return within("loss", lambda cell: cell.outputs[0].update(output))


def photographed(image: Image.Image) -> Mutation:
    """Put another picture among the outputs."""
    file = io.BytesIO()
    image.save(file, "PNG")
    data = {"image/png": base64.b64encode(file.getvalue()).decode()}
    return within("picture", lambda cell: cell.outputs[0].update(data=data))


# What was done to the model, which check must complain, and in which words.
FAULTS: dict[str, tuple[Mutation, Callable[[checks.Notebook], list[str]], str]] = {
    "another address": (edited("/blob/main/", "/blob/fork/"), checks.is_canonical, "badge"),
    "another install line": (edited("--no-deps", "--upgrade"), checks.is_canonical, "install line"),
    "no title": (edited("# A model", "A model"), checks.is_canonical, "start with the title"),
    "no install line": (edited("%pip", "pip"), checks.is_canonical, "first code cell needs"),
    "an editor's metadata": (lambda notebook: notebook.metadata.update(colab={}), checks.is_canonical, "metadata"),
    "a stripped cell": (within("loss", strip), checks.is_fresh, "top to bottom"),
    "a cell run twice": (within("loss", lambda cell: cell.update(execution_count=99)), checks.is_fresh, "once each"),
    "an error": (shows(output_type="error", ename="ValueError", evalue="", traceback=[]), checks.is_fresh, "an error"),
    "unchecked cells": (
        lambda notebook: [cell.metadata.update(tags=["nbval-ignore-output"]) for cell in notebook.cells[3:20]],
        checks.is_checked,
        "more than 25%",
    ),
    "skipped cells": (
        lambda notebook: [cell.update(source="# NBVAL_SKIP\n" + cell.source) for cell in notebook.cells[3:20]],
        checks.is_checked,
        "more than 25%",
    ),
    "an unmeasured claim": (edited("lk.check('claim two'", "print('claim two'"), checks.is_checked, "4 claims"),
    "no badge": (edited("[![Open", "[![Shut"), checks.is_sectioned, "badge"),
    "no time": (edited("**Time**", "**Timing**"), checks.is_sectioned, "'Time' is missing"),
    "two titles": (edited("## Faults", "# Faults"), checks.is_sectioned, "2 titles"),
    "a jump of headings": (edited("## Faults", "### Faults"), checks.is_sectioned, "jumps from level 1 to 3"),
    "no exercises": (edited("## Exercises", "## Homework"), checks.is_sectioned, "last three sections"),
    "too few cells": (lambda notebook: notebook.update(cells=notebook.cells[:20]), checks.is_paced, "exercises: 20"),
    "an over-long cell": (within("loss", lambda cell: cell.update(source="x = 1\n" * 26)), checks.is_paced, "26, and"),
    "a long set-up": (edited("import sys", "import sys\n" * 11), checks.is_paced, "set-up cell: 13"),
    "long cells": (
        lambda notebook: [cell.update(source=cell.source + "\npass" * 6) for cell in notebook.cells],
        checks.is_paced,
        "median",
    ),
    "few words": (
        lambda notebook: [cell.update(source=cell.source[:9]) for cell in notebook.cells[2::2]],
        checks.is_paced,
        "words of prose",
    ),
    "many words": (edited("in every run.", "in every run." + " It is." * 300), checks.is_paced, "words of prose"),
    "code without prose": (edited("A count is exact, whatever the machine.", "### 13"), checks.is_paced, "no prose"),
    "code after code": (
        lambda notebook: notebook.cells.insert(5, deepcopy(notebook.cells[5])),
        checks.is_paced,
        "follows another",
    ),
    "a section that needs another": (
        lambda notebook: (
            notebook.cells[1].update(source=f"{notebook.cells[1].source}\nnetwork = None"),
            notebook.cells.insert(4, new_markdown_cell("## Another section")),
        ),
        checks.is_copyable,
        "needs HTML, Image, base64",
    ),
    "a picture without alt text": (
        within("picture", lambda cell: cell.outputs[0].metadata.clear()),
        checks.is_described,
        "alt text ''",
    ),
    "a short alt text": (
        within("plot", lambda cell: cell.outputs[0].metadata["image/png"].update(alt="a plot")),
        checks.is_described,
        "alt text 'a plot'",
    ),
    "a picture without a caption": (
        within("picture", lambda cell: cell.outputs.pop()),
        checks.is_described,
        "no caption below",
    ),
    "another caption": (
        within("plot", lambda cell: cell.outputs[1].data.update({"text/plain": "a line"})),
        checks.is_described,
        "no caption below",
    ),
    "HTML without alt text": (within("slider", rewritten("alt=", "title=")), checks.is_described, "alt text ''"),
    "prose without alt text": (edited("A count", "![](model.ipynb) A count"), checks.is_described, "alt text ''"),
    "HTML in prose": (edited("A count", "<img src='model.ipynb'> A count"), checks.is_described, "alt text ''"),
    "a large file": (edited("A count", "A count" * 480_000), checks.is_light, "KB of the file"),
    "a heavy picture": (photographed(Image.effect_noise((800, 800), 100)), checks.is_light, "KB of a picture"),
    "a wide picture": (photographed(Image.new("L", (1601, 1))), checks.is_light, "longer side"),
    "a wide picture in HTML": (
        within("slider", redrawn(lambda image: image.resize((1601, 2)))),
        checks.is_light,
        "longer side",
    ),
    "a home": (shows(text="saved in /home/somebody/dream.png"), checks.is_discreet, "/home/somebody/dream.png"),
    "a temporary place": (shows(text="'/tmp/dream.png'"), checks.is_discreet, "/tmp/dream.png"),
    "this repository": (shows(text=f"in {canonical.ROOT}/notebooks"), checks.is_discreet, "/notebooks"),
    "an address in memory": (shows(text="<Net at 0x7f0012345678>"), checks.is_discreet, "0x7f0012345678"),
    "a download": (shows(text="Downloading: vgg19.pth"), checks.is_discreet, "Downloading: vgg19"),
    "a broken link": (edited("(model.ipynb)", "(missing.ipynb)"), checks.is_linked, "links to missing.ipynb"),
    "a missing picture": (edited("A count", "![a lost picture](lost.png)"), checks.is_linked, "links to lost.png"),
    "a missing attachment": (edited("A count", "![a](attachment:a.png)"), checks.is_linked, "attachment:a.png"),
    "a British color": (edited("in the colors", "in the colours"), checks.is_american, "'colours'"),
    "a British verb": (edited("A count", "We minimise it. A count"), checks.is_american, "'minimise'"),
    "an unused import": (edited("import base64", "import json\nimport base64"), checks.is_linted, "F401"),
}


def test_every_check_has_a_fault() -> None:
    seen = {check for _, check, _ in FAULTS.values()} | {checks.has_one_home}  # the last one is tested below
    assert seen == set(checks.CHECKS)


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.__name__)
def test_check_passes_the_model(check: Callable[[checks.Notebook], list[str]], book: checks.Notebook) -> None:
    assert check(book) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_check_finds_the_fault(fault: str, book: checks.Notebook) -> None:
    mutate, check, words = FAULTS[fault]
    mutate(book.node)
    assert any(words in complaint for complaint in check(book)), check(book)


PASSING = ["`colour`", "$colour +\nb$", "[Colour](https://example.org)", "promise", "exercise", "arise", "denoising"]


@pytest.mark.parametrize("word", PASSING)
def test_spelling_lets_pass(word: str, book: checks.Notebook) -> None:
    edited("A count", f"A {word} is a count")(book.node)
    assert checks.is_american(book) == []


LOSSES = '''
@torch.no_grad()
def gram(f: Tensor) -> Tensor:
    """The Gram matrix (C, C) of features (C, positions)."""
    n: int = f.numel()
    return f @ f.T / n
'''


@pytest.mark.parametrize(
    ("definition", "same"),
    [
        ("def gram(f):\n    n = f.numel()\n    return f @ f.T / n", True),
        ("def gram(f: 'x'):\n    'In other words.'\n    n = f.numel()  # and a comment\n    return f @ f.T / n", True),
        ("def gram(f):\n    n = len(f)\n    return f @ f.T / n", False),
        ("def gram(x):\n    n = x.numel()\n    return x @ x.T / n", False),
        ("def other(f):\n    return f", True),
    ],
)
def test_a_function_has_one_home(definition: str, same: bool, book: checks.Notebook, tmp_path: Path) -> None:
    (tmp_path / "losses.py").write_text(LOSSES)
    part(book.node, "loss").source = f"%matplotlib inline\n{definition}"
    complaints = checks.has_one_home(book, tmp_path)
    assert complaints == [] if same else "+++ cell-" in complaints[0]
