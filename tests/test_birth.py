"""Birth: told alike as long as a file lives, whatever happens to it; a copy has another one."""

from __future__ import annotations

import ctypes
import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from sa_attachments.birth import born


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    if born(path) is None:
        pytest.skip("this file system does not tell when a file was made")
    return path


def test_whoever_moves_writes_or_dates_a_file_does_not_change_it(file: Path) -> None:
    birth = born(file)
    (file.parent / "folder").mkdir()
    moved = file.rename(file.parent / "folder" / "moved")
    moved.write_bytes(b"y")
    os.utime(moved, (1, 1))
    moved.chmod(0o600)
    assert born(moved) == birth
    assert abs(float(birth or 0) - time.time()) < 60


def test_a_copy_has_another_one(file: Path) -> None:
    time.sleep(0.02)  # the clock of file systems has a grain
    copy = shutil.copy2(file, file.parent / "copy")
    assert born(copy) not in (None, born(file))


def test_a_relative_path_counts_from_the_working_directory(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    assert born(Path("file")) == born(file)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        born(tmp_path / "nothing")


def test_other_systems_say_it_in_their_own_way(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "stat", lambda path: SimpleNamespace(st_birthtime=1.5))
    assert born(file) == "1.5"


def test_where_nobody_knows_there_is_none(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    libraries = [SimpleNamespace(), SimpleNamespace(statx=lambda *_: -1), SimpleNamespace(statx=lambda *_: 0)]
    for library in libraries:  # an old libc; a refusal; a file system without it
        monkeypatch.setattr(ctypes, "CDLL", lambda name, library=library: library)
        assert born(file) is None
