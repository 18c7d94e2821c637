"""Where bundled files are, and how files are written so that nothing is ever half there."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def bundled(relative: str) -> Path:
    """The path of a file of the folder ``data``, which lies beside the package, or, in a wheel, inside it.

    Example:
        >>> bundled("paintings").is_dir()
        True
    """
    package = Path(__file__).resolve().parent.parent
    inside = package / "data"
    return (inside if inside.is_dir() else package.parent / "data") / relative


@contextmanager
def written_whole(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` to write to; on success rename it to ``path``, on failure remove it.

    Readers see the old file or the new one, never half of it. Raises OSError, naming the file and what to do, when
    the folder is missing or not writable.
    """
    temporary = _beside(path := Path(path))
    try:
        yield temporary
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)  # mkstemp makes private files; a picture is an ordinary one
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: str | os.PathLike) -> None:
    """Raise the OSError that `written_whole` would, before a long computation rather than after it."""
    _beside(Path(path)).unlink()


def _beside(path: Path) -> Path:
    """A new, empty temporary file in the folder of ``path``."""
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
    except OSError as error:
        hint = "choose a file in a folder that exists and that you may write to"
        raise OSError(f"cannot write {path}: {error.strerror}; {hint}") from error
    return Path(name)
