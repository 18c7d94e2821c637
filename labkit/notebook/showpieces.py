"""Large pictures that travel with the lab, each with the line that made it."""

from __future__ import annotations

from ..base.files import bundled
from ..pictures.reading import settings_of
from .display import show_file


def showpiece(name: str) -> None:
    """Display one of the lab's large pictures; below it stands what is to be seen and the line that makes it.

    They are made by `tools/showpieces.py`, which takes longer than a notebook should.

    Raises:
        ValueError: for a name that is none of them.

    Example:
        >>> lk.showpiece("castles_in_the_mist")
    """
    path = bundled("showpieces") / f"{name}.jpg"
    if not path.is_file():
        known = ", ".join(sorted(one.stem for one in path.parent.glob("*.jpg")))
        raise ValueError(f"there is no showpiece {name!r}: there are {known}")
    settings = settings_of(path)
    show_file(path, f"{settings['seen']} Made by {settings['recipe']}")
