from __future__ import annotations

import errno
import os
from contextlib import nullcontext
from pathlib import Path

import pytest

from sa_attachments.storages import folders as module
from sa_attachments.storages.folders import Folders
from tests.storages.disk import Journal


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def journal(root: Path, monkeypatch: pytest.MonkeyPatch) -> Journal:
    return Journal(root, monkeypatch)


def test_makes_all_that_is_missing(root: Path) -> None:
    folders = Folders(str(root))
    folders.make(f"{root}/a/b")
    folders.make(f"{root}/a/b")
    assert (root / "a/b").is_dir()


def test_where_no_folder_can_be_made_is_told(root: Path) -> None:
    """As where the volume that a link leads to is not mounted."""
    root.symlink_to("nowhere/at/all")
    for folder in (str(root), f"{root}/a/b"):
        with pytest.raises(FileNotFoundError, match="leads nowhere"):
            Folders(str(root)).make(folder)
    with pytest.raises(OSError, match="/proc/nothing"):
        Folders("/proc/nothing").make("/proc/nothing/a")


def test_gives_the_mode_to_the_root_and_below(tmp_path: Path) -> None:
    root, umask = tmp_path / "above" / "root", os.umask(0o077)
    try:
        Folders(str(root), mode=0o2775).make(f"{root}/a/b")
        Folders(str(tmp_path / "other")).make(f"{tmp_path}/other/a")
    finally:
        os.umask(umask)
    modes = {
        name: (tmp_path / name).stat().st_mode & 0o7777
        for name in ("above", "above/root", "above/root/a", "above/root/a/b")
    }
    assert modes == {"above": 0o700, "above/root": 0o2775, "above/root/a": 0o2775, "above/root/a/b": 0o2775}
    assert (tmp_path / "other/a").stat().st_mode & 0o7777 == 0o700


def test_flushes_all_above_once(root: Path, journal: Journal) -> None:
    folders = Folders(str(root))
    folders.make(f"{root}/a/b")
    assert journal.take() == ["flush .."]
    folders.flush(f"{root}/a/b")
    assert journal.take() == ["flush a/b", "flush a", "flush .", "flush .."]
    folders.flush(f"{root}/a/b")
    assert journal.take() == ["flush a/b"]
    folders.make(f"{root}/a/c")
    folders.flush(f"{root}/a/c")
    assert journal.take() == ["flush a/c", "flush a", "flush .", "flush .."]


def test_flushes_the_folders_that_it_made_above_the_root(tmp_path: Path, journal: Journal) -> None:
    Folders(f"{tmp_path}/root/x/y").make(f"{tmp_path}/root/x/y/a")
    assert journal.take() == ["flush ..", "flush .", "flush x"]


def test_flushes_again_what_was_removed_and_made_again(root: Path, journal: Journal) -> None:
    folders = Folders(str(root))
    for _ in range(2):
        folders.make(f"{root}/a/b")
        folders.flush(f"{root}/a/b")
        assert journal.take()[-4:] == ["flush a/b", "flush a", "flush .", "flush .."]
        folders.prune(f"{root}/a/b")
        assert journal.take() == ["rmdir a/b", "rmdir a", "flush ."]


def test_flushes_again_what_was_removed_and_another_made_again(root: Path, journal: Journal) -> None:
    """It may not have come to flush what is above yet."""
    folders = Folders(str(root))
    folders.make(f"{root}/a/b")
    folders.flush(f"{root}/a/b")
    folders.prune(f"{root}/a/b")
    Folders(str(root)).make(f"{root}/a/b")
    journal.take()
    folders.flush(f"{root}/a/b")
    assert journal.take() == ["flush a/b", "flush a", "flush .", "flush .."]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EIO])
def test_a_file_system_that_flushes_no_folders_is_no_failure(
    root: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(code, "refused")

    folders = Folders(str(root), durable=False)
    folders.make(f"{root}/a")
    monkeypatch.setattr(os, "fsync", refuse)
    with nullcontext() if code == errno.EINVAL else pytest.raises(OSError, match="refused"):
        Folders(str(root)).flush(f"{root}/a")


def test_what_would_be_below_a_file_never_was(root: Path, journal: Journal) -> None:
    folders = Folders(str(root))
    folders.make(str(root))
    (root / "a").touch()
    journal.take()
    folders.prune(f"{root}/a/b")
    assert journal.take() == ["flush ."]
    assert (root / "a").exists()


def test_does_without_the_folder_above_the_root_if_it_may_not_be_read(
    root: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = module._fsync

    def refuse(folder: str) -> None:
        if folder == str(root.parent):
            raise PermissionError(folder)
        fsync(folder)

    root.mkdir()
    monkeypatch.setattr(module, "_fsync", refuse)
    Folders(str(root)).flush(str(root))
    assert journal.take() == ["flush ."]


def test_removes_only_what_is_empty(root: Path, journal: Journal) -> None:
    folders = Folders(str(root))
    folders.make(f"{root}/a/b/c")
    (root / "a/file").touch()
    journal.take()
    folders.prune(f"{root}/a/b/c")
    assert journal.take() == ["rmdir a/b/c", "rmdir a/b", "flush a"]
    folders.prune(f"{root}/a")
    assert journal.take() == ["flush a"]
    assert (root / "a/file").exists()


def test_never_removes_the_root(root: Path) -> None:
    folders = Folders(str(root))
    folders.make(f"{root}/a")
    folders.prune(f"{root}/a")
    folders.prune(str(root))
    assert list(root.iterdir()) == []


def test_flushes_the_nearest_folder_that_is_left(root: Path, journal: Journal) -> None:
    folders = Folders(str(root))
    folders.make(f"{root}/a")
    (root / "a/file").touch()
    journal.take()
    folders.prune(f"{root}/a/b/c")
    assert journal.take() == ["flush a"]
    folders.prune(f"{root}/a/file/x")
    assert journal.take() == ["flush a"]


def test_prunes_what_never_was(root: Path) -> None:
    Folders(str(root)).prune(f"{root}/a/b")
    assert not root.exists()


def test_prunes_while_another_does(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = Folders(str(root))
    folders.make(f"{root}/a/b")
    (root / "a/b/file").touch()
    fsync, removed = module._fsync, []

    def after_another(folder: str) -> None:
        if not removed:
            (root / "a/b/file").unlink()
            (root / "a/b").rmdir()
            removed.append(folder)
        fsync(folder)

    monkeypatch.setattr(module, "_fsync", after_another)
    folders.prune(f"{root}/a/b")
    assert removed == [f"{root}/a/b"]


def test_flushes_nothing_if_nothing_is_durable(root: Path, journal: Journal) -> None:
    folders = Folders(str(root), durable=False)
    folders.make(f"{root}/a/b")
    folders.flush(f"{root}/a/b")
    folders.prune(f"{root}/a/b")
    assert journal.take() == ["rmdir a/b", "rmdir a"]


def test_refuses_symbolic_links(root: Path, tmp_path: Path) -> None:
    folders = Folders(str(root))
    folders.make(f"{root}/a/b")
    (root / "a/link").symlink_to(tmp_path)
    (root / "a/dangling").symlink_to(tmp_path / "nowhere")
    folders.check("a/b")
    folders.check("a/new/er")
    for folder in ("a/link", "a/link/x", "a/dangling/x"):
        with pytest.raises(ValueError, match="is a symbolic link, and is not followed"):
            folders.check(folder)


def test_looks_for_links_again_where_there_was_nothing(root: Path, tmp_path: Path) -> None:
    folders = Folders(str(root))
    folders.make(f"{root}/a")
    folders.check("a/b")
    (root / "a/b").symlink_to(tmp_path)
    with pytest.raises(ValueError):
        folders.check("a/b")
    folders.prune(f"{root}/a/b")
    (root / "a/b").unlink()
    folders.prune(f"{root}/a/b")
    root.joinpath("a").symlink_to(tmp_path)
    with pytest.raises(ValueError):
        folders.check("a")


def test_remembers_a_bounded_number(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REMEMBERED", 5)
    folders = Folders(str(root), durable=True)
    for number in range(20):
        folders.make(f"{root}/{number}")
        folders.flush(f"{root}/{number}")
        folders.check(f"{number}")
    assert len(folders._anchored) <= 6
    assert len(folders._plain) <= 6
