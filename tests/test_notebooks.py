"""What nbval cannot see: is a notebook freshly run, well built, readable for everybody, light, and true to labkit?

Each check takes a notebook and returns its complaints, one sentence each, so that test_harness.py can call it on a
notebook that was broken on purpose.
"""

from __future__ import annotations

import ast
import base64
import difflib
import io
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from html.parser import HTMLParser
from itertools import zip_longest
from pathlib import Path
from urllib.parse import unquote, urlsplit

import canonical
import nbformat
import pytest
from agreement import PICTURE
from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode
from nbval.plugin import find_comment_markers, find_metadata_tags
from PIL import Image

CELLS = (25, 45)  # up to the exercises
CODE_LINES = 25  # of one cell
MEDIAN_CODE_LINES = 6
SETUP_LINES = 12
WORDS_PER_CODE_LINE = (6, 12)
UNCHECKED_SHARE = 0.25
MEASURED_CLAIMS = 5
ALT_LETTERS = 20
FILE_KB, PICTURE_KB, PICTURE_SIDE = 3000, 400, 1600
PROMISES = ("What you will learn", "Time", "Prerequisites")
CLOSING = ["Summary", "Exercises", "References"]

# A place of one machine, an address in memory, or a download that happened on the way.
PRIVATE = re.compile(
    rf"{re.escape(str(canonical.ROOT))}\S*|(?<![\w.])(?:/home/|/Users/|/root/|/tmp/|/var/folders/|[A-Z]:\\+Users\\+)\S+"
    r"|\b0x[0-9a-fA-F]{6,}|Downloading.*"
)
BRITISH = re.compile(
    r"\b(?:\w*(?:colour|neighbour|favour|behaviour|honour)\w*|(?:re)?cent(?:re[ds]?|ring)|grey\w*|artefact\w*|catalogue\w*"
    r"|(?:label|model|cancel|travel)l(?:ed|ing)|analys(?:e[ds]?|ing)|fulfils?|defences?|licences?|(?:un)?learnt"
    r"|\w{2,}(?:al|an|ant|ar|er|gn|il|im|ndom|or|rd|yl)is(?:e[drs]?|ers|ing|ations?|able))\b",
    re.IGNORECASE,
)
TABLE = re.compile(r"^\|.*$", re.MULTILINE)
FOLDED = re.compile(r"<details>.*?</details>", re.DOTALL)
FENCED = re.compile(r"(```|~~~).*?\1", re.DOTALL)
# What is code or a formula, and then what has an address; a picture can stand in a link.
LITERAL = [
    FENCED,
    re.compile(r"(`+)[^`].*?\1", re.DOTALL),
    re.compile(r"\$\$.+?\$\$|\$(?:[^$\n]|\n(?!\n))+\$|\\begin\{(\w+\*?)\}.*?\\end\{\1\}", re.DOTALL),
]
ADDRESSED = [
    re.compile(r"!\[[^\]]*\]\([^)]*\)"),
    re.compile(r"\[[^\]]*\]\([^)]*\)"),
    re.compile(r"</?[a-zA-Z][^>]*>|https?://\S+"),
]
WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
HEADING = re.compile(r"^(#{1,6}) +(.+?)[ #]*$", re.MULTILINE)
CAPTION = re.compile(r'\s*caption ?= ?".*",?')
MARKDOWN_PICTURE = re.compile(r"!\[([^\]]*)\]\(")
MARKDOWN_LINK = re.compile(r"\]\(<?([^)\s>]+)")

Cells = list[tuple[str, NotebookNode]]


@dataclass
class Notebook:
    """A notebook as the checks read it; every cell comes with its name."""

    path: Path
    node: NotebookNode

    @classmethod
    def read(cls, path: Path) -> Notebook:
        return cls(path, nbformat.read(path, as_version=4))

    @property
    def cells(self) -> Cells:
        return [(canonical.cell_id(index), cell) for index, cell in enumerate(self.node.cells)]

    @property
    def code(self) -> Cells:
        return [(name, cell) for name, cell in self.cells if cell.cell_type == "code" and cell.source.strip()]

    @property
    def markdown(self) -> Cells:
        return [(name, cell) for name, cell in self.cells if cell.cell_type == "markdown"]

    @property
    def headings(self) -> list[tuple[int, str]]:
        return [heading for _, cell in self.markdown for heading in headings(cell.source)]

    @property
    def prose(self) -> Iterator[tuple[str, str]]:
        """The prose of every markdown cell, up to the references, which are names and titles."""
        for name, cell in self.markdown:
            text, references, _ = cell.source.partition(f"## {CLOSING[-1]}")
            yield name, prose(text)
            if references:
                return

    @property
    def pictures(self) -> Iterator[tuple[str, str, bytes]]:
        """(cell, alt text, content) of every picture among the outputs."""
        for name, cell in self.code:
            for output in cell.outputs:
                for kind, content in output.get("data", {}).items():
                    if kind.startswith("image/"):
                        alt = output.metadata.get(kind, {}).get("alt", "")
                        yield name, alt, content.encode() if "svg" in kind else base64.b64decode(content)
                    elif kind == "text/html":
                        for picture in Tags(content).pictures:
                            yield name, picture.get("alt") or "", b"".join(map(base64.b64decode, inline(picture)))


class Tags(HTMLParser):
    """The pictures (their attributes) and the addresses in a piece of HTML or markdown."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.pictures: list[dict[str, str | None]] = []
        self.links: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.pictures.append(dict(attributes))
        self.links += [value for key, value in attributes if key in ("href", "src") and value]


def inline(picture: dict[str, str | None]) -> list[str]:
    """The base64 text of a picture that is part of the page."""
    return PICTURE.findall(picture.get("src") or "")


def headings(text: str) -> list[tuple[int, str]]:
    """(level, text) of every heading in markdown; a comment in a code block is none."""
    return [(len(marks), title) for marks, title in HEADING.findall(without([FENCED], text))]


def without(patterns: list[re.Pattern[str]], text: str) -> str:
    for pattern in patterns:
        text = pattern.sub(" ", text)
    return text


def prose(text: str) -> str:
    """Words to be read: names and titles, which keep their own spelling, belong in code or links."""
    return without([*LITERAL, *ADDRESSED], text)


def lines(cell: NotebookNode) -> int:
    """Lines of a cell that are code: no blank ones, and no captions, which are prose."""
    return sum(bool(line.strip()) and not CAPTION.fullmatch(line) for line in cell.source.splitlines())


def outside(name: str, value: float, low: float, high: float) -> list[str]:
    """A complaint when a measure leaves its range."""
    return [] if low <= value <= high else [f"{name}: {value:.3g}, and {low:g} to {high:g} is right"]


# --- the checks --------------------------------------------------------------------------------------------------


def is_canonical(book: Notebook) -> list[str]:
    """The runner would write the badge, the install line and the metadata just so."""
    try:
        rewritten = canonical.clean(canonical.address(deepcopy(book.node), book.path.name))
    except ValueError as error:
        return [str(error)]
    return [] if rewritten == book.node else ["badge, install line or metadata: run tests/canonical.py on it"]


def is_fresh(book: Notebook) -> list[str]:
    """It was run from top to bottom and raised nothing; nbval passes a cell that was never run."""
    complaints = []
    if [cell.execution_count for _, cell in book.code] != list(range(1, len(book.code) + 1)):
        complaints.append("the cells were not run once each, from top to bottom: run tests/canonical.py on it")
    for name, cell in book.code:
        tagged = "raises-exception" in cell.metadata.get("tags", [])
        if not tagged and any(output.output_type == "error" for output in cell.outputs):
            complaints.append(f"{name} shows an error")
    return complaints


def is_checked(book: Notebook) -> list[str]:
    """Few cells are exempt from nbval, and the claims are measured."""
    exempt = []
    for name, cell in book.code:
        marks = dict(find_metadata_tags(cell.metadata)) | dict(find_comment_markers(cell.source))
        if marks.get("skip") or not marks.get("check", True):
            exempt.append(name)
    complaints = []
    if len(exempt) > UNCHECKED_SHARE * len(book.code):
        complaints.append(f"nbval ignores {', '.join(exempt)}: more than {UNCHECKED_SHARE:.0%} of the code cells")
    measured = sum(cell.source.count("lk.check(") for _, cell in book.code)
    if measured < MEASURED_CLAIMS:
        complaints.append(f"{measured} claims are measured by lk.check(, and {MEASURED_CLAIMS} are the least")
    return complaints


def is_sectioned(book: Notebook) -> list[str]:
    """It opens with a title and its promises, and closes as every notebook here does."""
    complaints = []
    first, opening = book.node.cells[0].source, "\n".join(cell.source for _, cell in book.markdown[:2])
    if not first.startswith("# ") or not canonical.BADGE.search(first):
        complaints.append("the first cell is not a title with a Colab badge")
    missing = [words for words in PROMISES if not re.search(rf"\b{words}\b", opening)]
    complaints += [f"{words!r} is missing in the first two markdown cells" for words in missing]

    levels = [level for level, _ in book.headings]
    if levels.count(1) != 1:
        complaints.append(f"{levels.count(1)} titles (headings of level 1)")
    for (level, _), (deeper, title) in zip(book.headings, book.headings[1:], strict=False):
        if deeper > level + 1:
            complaints.append(f"the heading {title!r} jumps from level {level} to {deeper}")
    if [title for level, title in book.headings if level == 2][-3:] != CLOSING:
        complaints.append(f"the last three sections are not {', '.join(CLOSING)}")
    return complaints


def is_paced(book: Notebook) -> list[str]:
    """Small cells, each between words of its own; exercises, tables and what is folded away are no prose."""
    taught = {name for name, _ in teaching(book)}
    sizes = {name: lines(cell) for name, cell in book.code if name in taught}
    texts = [cell.source.partition(f"## {CLOSING[1]}")[0] for name, cell in book.markdown if name in taught]
    told = [TABLE.sub("", FOLDED.sub("", text)) for text in texts]
    words = sum(len(WORD.findall(prose(text))) for text in told)
    complaints = [
        *outside("cells up to the exercises", len(teaching(book)), *CELLS),
        *outside("lines of the set-up cell", next(iter(sizes.values())), 1, SETUP_LINES),
        *outside("median lines of a code cell", statistics.median(sizes.values()), 1, MEDIAN_CODE_LINES),
        *outside("words of prose for a line of code", words / sum(sizes.values()), *WORDS_PER_CODE_LINE),
    ]
    for name, size in sizes.items():
        complaints += outside(f"lines of {name}", size, 1, CODE_LINES)
    said = True
    for name, cell in book.cells:
        if cell.cell_type == "code":
            if not said:
                complaints.append(f"{name} follows another code cell, with no prose between")
            said = False
        else:
            said = said or bool(WORD.search(prose(HEADING.sub("", cell.source))))
    return complaints


def teaching(book: Notebook) -> Cells:
    """The cells before the exercises."""
    last = [name for name, cell in book.markdown if f"## {CLOSING[1]}" in cell.source]
    return [(name, cell) for name, cell in book.cells if not last or name <= last[0]]


def is_copyable(book: Notebook) -> list[str]:
    """A section runs after the set-up cell alone: it uses no name that another section defines.

    Asked of the chapters whose set-up cell has the network and the photo that all sections share.
    """
    (_, setup), *_ = book.code
    if "\nnetwork = " not in setup.source:
        return []
    complaints: list[str] = []
    sections: list[list[tuple[str, str]]] = [[]]
    for name, cell in book.cells:
        if cell.cell_type == "markdown" and any(level == 2 for level, _ in headings(cell.source)):
            sections.append([])
        if cell.cell_type == "code" and cell is not setup:
            sections[-1].append((name, cell.source))
    for section in filter(None, sections):
        script = "\n".join([setup.source, *(source for _, source in section)])
        script = TransformerManager().transform_cell(script)
        command = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--select=F821", "--quiet"]
        run = subprocess.run(
            [*command, "--config=builtins = ['display', 'get_ipython']", "--output-format=concise", "-"],
            input=script,
            check=False,
            capture_output=True,
            text=True,
        )
        unknown = sorted(set(re.findall(r"Undefined name `(\w+)`", run.stdout)))
        if unknown:
            complaints.append(f"the section of {section[0][0]} needs {', '.join(unknown)} from another section")
    return complaints


def is_described(book: Notebook) -> list[str]:
    """Whoever cannot see a picture can read what it shows, and so can everybody else: it stands below as a caption."""
    alts = [(name, alt) for name, alt, _ in book.pictures]
    for name, cell in book.markdown:
        text = without([canonical.BADGE, *LITERAL], cell.source)
        alts += [(name, alt) for alt in MARKDOWN_PICTURE.findall(text)]
        alts += [(name, picture.get("alt") or "") for picture in Tags(text).pictures]
    complaints = [
        f"{name}: a picture has the alt text {alt!r}, shorter than {ALT_LETTERS} letters"
        for name, alt in alts
        if len(alt.strip()) < ALT_LETTERS
    ]
    for name, cell in book.code:
        for output, below in zip_longest(cell.outputs, cell.outputs[1:]):
            drawn = any(kind.startswith("image/") for kind in output.get("data", {}))
            said = {kind["alt"] for kind in output.get("metadata", {}).values() if "alt" in kind}
            if drawn and {(below or {}).get("data", {}).get("text/plain")} != said:
                complaints.append(f"{name}: no caption below a picture says {' '.join(said)!r}")
    return complaints


def is_light(book: Notebook) -> list[str]:
    """It opens quickly everywhere."""
    complaints = outside("KB of the file", len(nbformat.writes(book.node).encode()) / 1024, 0, FILE_KB)
    for name, _, content in book.pictures:
        complaints += outside(f"KB of a picture of {name}", len(content) / 1024, 0, PICTURE_KB)
        if content and not content.lstrip().startswith(b"<"):  # an SVG has no pixels
            side = max(Image.open(io.BytesIO(content)).size)
            complaints += outside(f"longer side in pixels of a picture of {name}", side, 1, PICTURE_SIDE)
    return complaints


def is_discreet(book: Notebook) -> list[str]:
    """The outputs tell nothing about the machine that wrote them."""
    complaints = []
    for name, cell in book.code:
        for output in cell.outputs:
            texts = [text for kind, text in output.get("data", {}).items() if kind.startswith("text/")]
            texts += [output.get("text", ""), output.get("evalue", ""), *output.get("traceback", [])]
            private = PRIVATE.findall(PICTURE.sub("", "\n".join(texts)))
            complaints += [f"{name} shows {words!r}" for words in private]
    return complaints


def is_linked(book: Notebook) -> list[str]:
    """Links and pictures within the repository lead somewhere."""
    complaints = []
    for name, cell in book.markdown:
        text = without(LITERAL, cell.source)
        for link in MARKDOWN_LINK.findall(text) + Tags(text).links:
            url = urlsplit(link)
            if url.scheme == "attachment":
                found = unquote(url.path) in cell.get("attachments", {})
            else:
                found = bool(url.scheme or url.netloc) or (book.path.parent / unquote(url.path)).exists()
            if not found:
                complaints.append(f"{name} links to {link}, which is not there")
    return complaints


def is_american(book: Notebook) -> list[str]:
    """One spelling in all prose; names and titles keep theirs in code, links and references."""
    return [f"{name} has the British form {word!r}" for name, text in book.prose for word in BRITISH.findall(text)]


def is_linted(book: Notebook) -> list[str]:
    """ruff finds nothing, with the settings of the project."""
    command = [sys.executable, "-m", "ruff", "check", "--quiet", "--no-cache", "--output-format=concise"]
    options = ["--config", str(canonical.ROOT / "pyproject.toml"), "--stdin-filename", str(book.path), "-"]
    run = subprocess.run(
        [*command, *options],
        input=nbformat.writes(book.node),
        check=False,
        capture_output=True,
        text=True,
        cwd=canonical.ROOT,
    )
    return (run.stdout + run.stderr).splitlines()


def has_one_home(book: Notebook, package: Path = canonical.ROOT / "labkit") -> list[str]:
    """What a notebook builds and labkit offers under the same name is the same code, notes for the reader aside."""
    homes: dict[str, list[str]] = {}
    for module in sorted(package.rglob("*.py")):
        if module.parent.name == "answers":  # to exercises: nobody is offered those
            continue
        for name, code in definitions(module.read_text(encoding="utf-8")):
            homes.setdefault(name, []).append(code)
    complaints = []
    for cell_name, cell in book.code:
        for name, code in definitions(TransformerManager().transform_cell(cell.source)):
            if name in homes and code not in homes[name]:
                sides = (homes[name][0].splitlines(), code.splitlines(), f"labkit: {name}", f"{cell_name}: {name}")
                complaints.append("\n".join(difflib.unified_diff(*sides, lineterm="")))
    return complaints


def definitions(source: str) -> Iterator[tuple[str, str]]:
    """The top-level functions and classes of a module or cell, each as (name, bare code)."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, ast.unparse(ast.fix_missing_locations(Bare().visit(node)))


class Bare(ast.NodeTransformer):
    """Take off docstrings, annotations and decorators: a notebook explains in prose what a module says there."""

    def bare(self, node: ast.FunctionDef | ast.ClassDef) -> ast.AST:
        node.decorator_list = []
        if ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        return self.generic_visit(node)

    visit_FunctionDef = visit_ClassDef = bare  # noqa: N815

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is None:
            return ast.Expr(node.target)
        return self.generic_visit(ast.Assign([node.target], node.value))


CHECKS = [
    is_canonical,
    is_fresh,
    is_checked,
    is_sectioned,
    is_paced,
    is_copyable,
    is_described,
    is_light,
    is_discreet,
    is_linked,
    is_american,
    is_linted,
    has_one_home,
]
NOTEBOOKS = sorted(canonical.NOTEBOOKS.glob("*.ipynb"))


def test_there_are_notebooks() -> None:
    """Otherwise the test below would find nothing to complain about."""
    assert NOTEBOOKS


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path: Path, check) -> None:
    complaints = check(Notebook.read(path))
    assert not complaints, "\n".join([path.name, *complaints])
