"""nbval, strict where it is lax and lax where it is strict; its version is pinned, because its methods are replaced.

nbval alone compares every number to its last digit, which no two machines agree on, and never compares a picture.
Here numbers with a decimal point agree within `rtol` (a cell's tag, such as `rtol=0.02`, overrides it) or one unit of
the last printed digit; integers must be equal. Pictures agree when their thumbnails do (tag `rms=0.05`). Kernels run
in the environment in which the stored outputs were written. The third hole of nbval, that it accepts a notebook
without outputs, is closed by test_notebooks.py.
"""

from __future__ import annotations

import base64
import functools
import io
import math
import re
from typing import Any

import nbval.kernel
import numpy as np
from canonical import kernel_environment
from nbval.plugin import IPyNbCell
from PIL import Image

TOLERANCES = {"rtol": 1e-3, "rms": 0.02}
THUMBNAIL = (48, 48)
TAG = re.compile(r"(rtol|rms)=(.+)")
# With the blanks before it, since "0.5" and "10.5" in a column are padded differently; not a version such as 2.15.0.
NUMBER = re.compile(r" *(?<![\w.])[-+]?\d+\.\d*(?:[eE][-+]?\d+)?(?!\.?\d)")
# The base64 text of a picture: in a data URI, or a whole output that starts like a PNG or a JPEG file.
PICTURE = re.compile(r"(?<=;base64,)[\w+/=]+|\A(?:iVBORw0KGgo|/9j/)[\w+/=\n]+\Z", re.ASCII)


class Output(str):
    """One output of a cell, equal to another within tolerance; its pictures stand beside the text as base64."""

    pictures: list[str]
    rtol: float
    rms: float

    def difference(self, other: Output) -> str:
        """Why the two are not the same; empty when they are."""
        if NUMBER.split(self) != NUMBER.split(other):
            return "the text differs"
        for mine, theirs in zip(NUMBER.findall(self), NUMBER.findall(other), strict=True):
            if not same_number(mine, theirs, self.rtol):
                return f"{mine.strip()} is now {theirs.strip()}"
        for mine, theirs in zip(self.pictures, other.pictures, strict=True):
            if (rms := picture_distance(mine, theirs)) > self.rms:
                return f"the picture differs by an RMS of {rms:.3f}, and {self.rms} is allowed"
        return ""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Output) and not self.difference(other)

    def __ne__(self, other: object) -> bool:  # str has its own
        return not self == other

    __hash__ = str.__hash__


def same_number(a: str, b: str, rtol: float) -> bool:
    """Whether two printed numbers agree within ``rtol`` or one unit of the last digit that both print."""
    unit = 1.01 * min(last_digit(a), last_digit(b))
    return math.isclose(float(a), float(b), rel_tol=rtol, abs_tol=unit)


def last_digit(number: str) -> float:
    """The value of one unit in the last printed decimal; 0 for "3.", a whole number as NumPy prints it."""
    mantissa, _, exponent = number.lower().partition("e")
    decimals = len(mantissa.strip().partition(".")[2])
    return float(f"1e{int(exponent or 0) - decimals}") if decimals else 0.0


def picture_distance(a: str, b: str) -> float:
    """The root mean square difference of two pictures' thumbnails, in [0, 1]; infinite when the sizes differ.

    It is 0 for plots by two versions of matplotlib: these differ by more than a wrong curve does.
    """
    if a == b:
        return 0.0
    first, second = (Image.open(io.BytesIO(base64.b64decode(data))) for data in (a, b))
    writers = [str(image.info.get("Software", "")) for image in (first, second)]
    if writers[0] != writers[1] and all(writer.startswith("Matplotlib") for writer in writers):
        return 0.0
    if first.size != second.size:
        return math.inf
    return float(np.sqrt(np.mean((thumbnail(first) - thumbnail(second)) ** 2)))


def thumbnail(image: Image.Image) -> np.ndarray:
    """A small version on white, in [0, 1]: it keeps what is in a picture and forgets the pixels' last bits."""
    image = image.convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return np.asarray(image.resize(THUMBNAIL, Image.Resampling.BOX), dtype=float) / 255


# --- into nbval --------------------------------------------------------------------------------------------------

nbval_sanitize, nbval_compare, nbval_explain = (
    IPyNbCell.sanitize,
    IPyNbCell.compare_outputs,
    IPyNbCell.format_output_compare,
)


def sanitize(cell: IPyNbCell, value: Any) -> Any:
    """Replace what may vary in the text, but not inside a picture, where base64 can look like a time or an address."""
    if not isinstance(value, str):
        return value
    output = Output("<picture>".join(nbval_sanitize(cell, text) for text in PICTURE.split(value)))
    output.pictures = PICTURE.findall(value)
    tags = map(TAG.fullmatch, cell.cell.metadata.get("tags", []))
    vars(output).update(TOLERANCES | {tag[1]: float(tag[2]) for tag in tags if tag})
    return output


def compare(cell: IPyNbCell, test: list, reference: list, skip_compare: None = None) -> bool:
    """Compare pictures too, which nbval skips."""
    skip = set(cell.parent.skip_compare) - {"image/png", "image/jpeg"}
    return nbval_compare(cell, test, reference, skip)


def explain(cell: IPyNbCell, key: str, reference: Any, test: Any) -> None:
    """Name the number or the picture before nbval's own report."""
    if isinstance(reference, Output):
        cell.comparison_traceback.append(f"{key}: {reference.difference(test)}")
    nbval_explain(cell, key, reference, test)


IPyNbCell.sanitize, IPyNbCell.compare_outputs, IPyNbCell.format_output_compare = sanitize, compare, explain
nbval.kernel.start_new_kernel = functools.partial(nbval.kernel.start_new_kernel, env=kernel_environment())
