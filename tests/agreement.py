"""When two outputs of a cell agree, and how far apart they are: text, numbers and pictures.

nbval alone compares every number to its last digit, which no two machines agree on, and never compares a picture.
Here numbers with a decimal point agree within ``rtol`` or one unit of the last printed digit; integers and words must
be equal. Pictures agree when their thumbnails do, within ``rms``. Both tolerances are tags of a cell, measured by the
canonical runner. A picture at the end of a long optimization, which no two machines paint alike, has the tag
``pictures=alike`` instead: its size, mean color, contrast and roughness must agree.
"""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
from PIL import Image

THUMBNAIL = (48, 48)
ALIKE = "pictures=alike"
TAG = re.compile(r"(rtol|rms)=(.+)")
# With the blanks before it, since "0.5" and "10.5" in a column are padded differently; not a version such as 2.15.0.
NUMBER = re.compile(r" *(?<![\w.])[-+]?\d+\.\d*(?:[eE][-+]?\d+)?(?!\.?\d)")
# The base64 text of a picture: in a data URI, or a whole output that starts like a PNG or a JPEG file.
PICTURE = re.compile(r"(?<=;base64,)[\w+/=]+|\A(?:iVBORw0KGgo|/9j/)[\w+/=\n]+\Z", re.ASCII)


@dataclass(frozen=True)
class Tolerance:
    """How far two outputs may be apart: numbers relatively, pictures in RMS (None: alike is enough)."""

    rtol: float = 1e-3
    rms: float | None = 0.02

    @classmethod
    def of(cls, tags: Iterable[str]) -> Tolerance:
        """What a cell's tags allow."""
        tags = list(tags)
        found = {match[1]: float(match[2]) for match in map(TAG.fullmatch, tags) if match}
        return cls(**found | ({"rms": None} if ALIKE in tags else {}))

    @property
    def tags(self) -> list[str]:
        """The tags that say it; none for the default."""
        usual = Tolerance()
        tags = [f"rtol={self.rtol:.2g}"] if self.rtol != usual.rtol else []
        if self.rms is None:
            return [*tags, ALIKE]
        return [*tags, f"rms={self.rms:.2g}"] if self.rms != usual.rms else tags


class Output(str):
    """One output of a cell, equal to another within ``tolerance``; its pictures stand beside the text as base64."""

    pictures: list[str]
    tolerance: Tolerance

    @classmethod
    def read(cls, value: str, sanitized: str, tags: Iterable[str] = ()) -> Output:
        """``sanitized`` is the text of ``value`` with a placeholder for each picture and for what always varies."""
        found = cls(sanitized)
        found.pictures, found.tolerance = PICTURE.findall(value), Tolerance.of(tags)
        return found

    def difference(self, other: Output) -> str:
        """Why the two are not the same; empty when they are."""
        if NUMBER.split(self) != NUMBER.split(other):
            return "the text differs"
        rtol, rms = self.tolerance.rtol, self.tolerance.rms
        for mine, theirs in zip(NUMBER.findall(self), NUMBER.findall(other), strict=True):
            if not same_number(mine, theirs, rtol):
                return f"{mine.strip()} is now {theirs.strip()}"
        if len(self.pictures) != len(other.pictures):
            return f"{len(self.pictures)} pictures are now {len(other.pictures)}"
        for mine, theirs in zip(self.pictures, other.pictures, strict=True):
            if rms is None:
                if said := unlike(mine, theirs):
                    return said
            elif (distance := picture_distance(mine, theirs)) > rms:
                return f"the picture differs by an RMS of {distance:.3f}, and {rms} is allowed"
        return ""

    def spread(self, other: Output) -> tuple[float, float]:
        """The largest relative difference of numbers and the largest RMS of pictures; infinite if the text differs."""
        if NUMBER.split(self) != NUMBER.split(other) or len(self.pictures) != len(other.pictures):
            return math.inf, math.inf
        numbers = zip(NUMBER.findall(self), NUMBER.findall(other), strict=True)
        pictures = zip(self.pictures, other.pictures, strict=True)
        return (
            max((relative(float(a), float(b)) for a, b in numbers), default=0.0),
            max((picture_distance(a, b) for a, b in pictures), default=0.0),
        )

    def farthest(self, other: Output) -> str:
        """The first lines whose text differs, else the numbers that lie farthest apart."""
        for mine, theirs in zip_longest(self.splitlines(), other.splitlines(), fillvalue=""):
            if NUMBER.split(mine) != NUMBER.split(theirs):
                return f"{mine!r} is {theirs!r}"
        pairs = zip(NUMBER.findall(self), NUMBER.findall(other), strict=True)
        mine, theirs = max(pairs, key=lambda pair: relative(*map(float, pair)))
        return f"{mine.strip()} is {theirs.strip()}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Output) and not self.difference(other)

    def __ne__(self, other: object) -> bool:  # str has its own
        return not self == other

    __hash__ = str.__hash__


def relative(a: float, b: float) -> float:
    """The difference of two numbers relative to the larger one."""
    return 0.0 if a == b else abs(a - b) / max(abs(a), abs(b))


def same_number(a: str, b: str, rtol: float) -> bool:
    """Whether two printed numbers agree within ``rtol`` or one unit of the last digit that both print."""
    unit = 1.01 * min(last_digit(a), last_digit(b))
    return math.isclose(float(a), float(b), rel_tol=rtol, abs_tol=unit)


def last_digit(number: str) -> float:
    """The value of one unit in the last printed decimal; 0 for "3.", a whole number as NumPy prints it."""
    mantissa, _, exponent = number.lower().partition("e")
    decimals = len(mantissa.strip().partition(".")[2])
    return float(f"1e{int(exponent or 0) - decimals}") if decimals else 0.0


def opened(data: str) -> Image.Image:
    """The picture on white, in color."""
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    rgba = image.convert("RGBA")
    flat = Image.alpha_composite(Image.new("RGBA", image.size, "white"), rgba).convert("RGB")
    flat.info["Software"] = str(image.info.get("Software", ""))
    return flat


def drawn_by_another_matplotlib(first: Image.Image, second: Image.Image) -> bool:
    """Plots by two versions of matplotlib differ by more than a wrong curve does: they are not compared."""
    writers = [image.info["Software"] for image in (first, second)]
    return writers[0] != writers[1] and all(writer.startswith("Matplotlib") for writer in writers)


def picture_distance(a: str, b: str) -> float:
    """The root mean square difference of two pictures' thumbnails, in [0, 1]; infinite when the sizes differ."""
    if a == b:
        return 0.0
    first, second = opened(a), opened(b)
    if drawn_by_another_matplotlib(first, second):
        return 0.0
    if first.size != second.size:
        return math.inf
    return float(np.sqrt(np.mean((thumbnail(first) - thumbnail(second)) ** 2)))


def thumbnail(image: Image.Image) -> np.ndarray:
    """A small version in [0, 1]: it keeps what is in a picture and forgets the pixels' last bits."""
    return np.asarray(image.resize(THUMBNAIL, Image.Resampling.BOX), dtype=float) / 255


MEAN_GAP, RATIO = 0.08, 1.5  # how far apart two alike pictures may be


def unlike(a: str, b: str) -> str:
    """Why two pictures cannot be two outcomes of one computation; empty when they can."""
    first, second = opened(a), opened(b)
    if drawn_by_another_matplotlib(first, second):
        return ""
    if first.size != second.size:
        return f"a picture of {first.size} is now one of {second.size}"
    (mean, *before), (now, *after) = character(first), character(second)
    if (gap := float(np.abs(mean - now).max())) > MEAN_GAP:
        return f"the picture's mean color differs by {gap:.3f}, and {MEAN_GAP} is allowed"
    for name, old, new in zip(("contrast", "roughness"), before, after, strict=True):
        if not 1 / RATIO <= new / old <= RATIO:
            return f"the picture's {name} was {old:.4f} and is now {new:.4f}: more than {RATIO} times apart"
    return ""


def character(image: Image.Image) -> tuple[np.ndarray, float, float]:
    """Mean color; contrast, the deviation from it; roughness, the mean difference of neighbors: 0 where blank."""
    pixels = np.asarray(image, dtype=float) / 255
    rough = np.mean([np.abs(np.diff(pixels, axis=axis)).mean() for axis in (0, 1)])
    return pixels.mean((0, 1)), float(pixels.std()) + 1e-6, float(rough) + 1e-6
