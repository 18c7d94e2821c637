"""Files appear whole or not at all, and the bundled ones are there."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path

import pytest

from labkit.base.files import bundled, check_writable, written_whole


@pytest.mark.parametrize("relative", ["pocket/pocket.safetensors", "paintings"])
def test_bundled_files_exist(relative: str) -> None:
    assert bundled(relative).exists()


def test_a_written_file_replaces_the_old_one_and_nothing_else_is_left(tmp_path: Path) -> None:
    target = tmp_path / "picture.png"
    target.write_text("old")
    with target.open() as reader:
        with written_whole(target) as temporary:
            temporary.write_text("new")
            assert temporary.parent == tmp_path  # a rename is whole only within one file system
            assert temporary.suffix == ".png"
            assert target.read_text() == "old"
        assert reader.read() == "old"  # who had begun to read is not disturbed
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("interruption", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("existed", [True, False])
def test_a_failure_leaves_the_old_file_and_no_temporary_one(
    tmp_path: Path, interruption: type[BaseException], existed: bool
) -> None:
    target = tmp_path / "run.pt"
    if existed:
        target.write_text("old")
    with pytest.raises(interruption), written_whole(target) as temporary:
        temporary.write_text("half")
        raise interruption
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"] * existed


def test_a_written_file_has_the_permissions_of_an_ordinary_one(tmp_path: Path) -> None:
    (tmp_path / "ordinary").touch()
    with written_whole(tmp_path / "whole"):
        pass
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ordinary", "whole")}
    assert len(modes) == 1


@pytest.mark.parametrize("write", [lambda path: written_whole(path).__enter__(), check_writable])
@pytest.mark.parametrize(
    ("place", "reason"),
    [("missing/x.png", "No such file or directory"), ("file/x.png", "Not a directory"), ("folder", "Is a directory")],
)
def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path, write, place: str, reason: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=f"cannot write .*{place}: {reason}; choose a file in a folder that exists"):
        write(tmp_path / place)
    assert {path.name for path in tmp_path.rglob("*")} == {"file", "folder"}


def test_a_folder_that_may_not_be_written_to_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:  # an administrator may write anywhere, so pretend
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    with pytest.raises(OSError, match=r"cannot write .*x\.png: Permission denied; choose .* that you may write to"):
        check_writable(tmp_path / "x.png")


def test_asking_whether_a_place_is_writable_changes_nothing(tmp_path: Path) -> None:
    target = tmp_path / "x.png"
    check_writable(target)
    assert not list(tmp_path.iterdir())
    target.write_text("old")
    check_writable(target)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
