# ruff: noqa: PTH106, PTH112, PTH115, PTH120, PTH208
# As the module does, for the same calls.
from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sa_attachments.errors import BadConfiguration, FileMissing
from sa_attachments.key import mint
from sa_attachments.source import CHUNK, ChunkReader
from sa_attachments.storage import Copies, HasPath, SignsDownloads, Storage, TakesFile, Unfinished
from sa_attachments.storages import local
from sa_attachments.storages.local import UNFINISHED, LocalStorage
from sa_attachments.storages.url import StorageURL
from sa_attachments.testing import StorageContract
from sa_attachments.testing.probes import Stream, listed, put, read
from tests.storages.disk import Journal

KEY = "2026/01/02/03/a"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def storage(root: Path) -> LocalStorage:
    return LocalStorage(root)


@pytest.fixture
def with_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that can't do without names: no O_TMPFILE."""
    original = os.open

    def refuse(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "no O_TMPFILE here", path)
        return original(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)


def everything(root: Path) -> list[str]:
    """All that lies in a place, folders too, but for the empty folder of unfinished files."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.name != UNFINISHED)


# The contract, in the ways a folder is used


class TestContract(StorageContract):
    @pytest.fixture
    def storage(self, root: Path) -> Storage:
        return LocalStorage(root)


class TestContractWithoutFlushing(StorageContract):
    @pytest.fixture
    def storage(self, root: Path) -> Storage:
        return LocalStorage(root, durable=False, file_mode=0o640, folder_mode=0o750)


class TestContractWithNames(StorageContract):
    @pytest.fixture
    def storage(self, root: Path, with_names: None) -> Storage:
        return LocalStorage(root)


def test_has_these_abilities(storage: LocalStorage) -> None:
    abilities = [Copies, HasPath, TakesFile, Unfinished, SignsDownloads]
    assert [ability for ability in abilities if isinstance(storage, ability)] == abilities[:4]


# Configuration


def test_is_configured_by_its_url(tmp_path: Path) -> None:
    text = f"local:{tmp_path}/x?durable=false&file_mode=640&folder_mode=0750&parallel=3&readonly=true"
    storage = LocalStorage.from_url(StorageURL(text))
    assert (storage.root, storage.durable, storage.parallel, storage.readonly) == (tmp_path / "x", False, 3, True)
    storage = LocalStorage.from_url(StorageURL(f"local:{tmp_path}/a%20b%3F"))
    assert (storage.root, storage.durable, storage.parallel, storage.readonly) == (tmp_path / "a b?", True, 8, False)
    assert LocalStorage.from_url(StorageURL(f"local://{tmp_path}")).root == tmp_path


def test_parallel_is_one_where_nothing_waits(tmp_path: Path) -> None:
    assert LocalStorage(tmp_path, durable=False).parallel == 1


def test_a_relative_root_is_of_the_folder_at_that_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    storage = LocalStorage.from_url(StorageURL("local:./files"))
    monkeypatch.chdir("/")
    assert storage.root == tmp_path / "files"
    assert storage.path(put(storage, "a", b"x")) == tmp_path / "files/a"


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert LocalStorage.from_url(StorageURL("local:~/files")).root == tmp_path / "files"


@pytest.mark.parametrize(
    "url",
    [
        "local:",
        "local:/",
        "local:/files/..",
        "local:?durable=false",
        "local://host/files",
        "local:x?mode=640",
        "local:x?parallel=0",
    ],
)
def test_refuses_a_url_that_makes_no_sense(url: str) -> None:
    with pytest.raises(BadConfiguration):
        LocalStorage.from_url(StorageURL(url))


# The place on the disk


def test_the_root_is_made_by_the_first_put(root: Path, storage: LocalStorage) -> None:
    assert listed(storage) == []
    assert not storage.delete(["a/b"])
    for verb in (storage.open, storage.stat, storage.path):
        with pytest.raises(FileMissing):
            verb("a/b")
    assert storage.discard_unfinished(datetime.now(UTC)) == 0
    with pytest.raises(ZeroDivisionError):
        storage.put("x", Stream([lambda: b"%d" % (1 // 0)]), size=1, content_type="")
    assert listed(storage) == []
    put(storage, "a/b", b"x")
    assert everything(root) == ["a", "a/b"]


def test_keys_are_paths(root: Path, storage: LocalStorage) -> None:
    put(storage, KEY, b"x")
    assert (root / KEY).read_bytes() == b"x"
    assert storage.path(KEY) == root / KEY


def test_removes_the_folders_that_it_empties(root: Path, storage: LocalStorage) -> None:
    keys = [put(storage, f"2026/01/{day}/{hour}/a", b"x") for day in ("01", "02") for hour in ("00", "01")]
    storage.delete(keys[:1])
    assert everything(root)[:4] == ["2026", "2026/01", "2026/01/01", "2026/01/01/01"]
    storage.delete(keys[1:3])
    assert everything(root) == ["2026", "2026/01", "2026/01/02", "2026/01/02/01", "2026/01/02/01/a"]
    storage.delete(keys)
    assert everything(root) == []
    assert root.is_dir()


def test_a_folder_that_is_not_ours_to_remove_is_no_failure(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(storage, "a/b", b"x")

    def refuse(path: str) -> None:
        raise PermissionError(errno.EACCES, "not yours", path)

    monkeypatch.setattr(os, "rmdir", refuse)
    assert not storage.delete(["a/b"])


def test_reports_what_could_not_be_deleted(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [put(storage, f"a/{name}", b"x") for name in "bcd"]
    unlink = os.unlink

    def refuse(path: str) -> None:
        if path.endswith("c"):
            raise PermissionError(errno.EACCES, "not yours", path)
        unlink(path)

    monkeypatch.setattr(os, "unlink", refuse)
    failed = storage.delete(keys)
    assert list(failed) == ["a/c"]
    assert isinstance(failed["a/c"], PermissionError)
    assert listed(storage) == ["a/c"]


def test_a_deletion_that_is_not_on_the_disk_is_reported(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [put(storage, key, b"x") for key in ("a/b", "a/c", "d/e", "d/f")]
    fsync = os.fsync

    def break_(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("/a"):
            raise OSError(errno.EIO, "broken")
        fsync(descriptor)

    put(storage, "a/stays", b"x")
    monkeypatch.setattr(os, "fsync", break_)
    failed = storage.delete([*keys, "/etc"])
    assert {key: type(error) for key, error in failed.items()} == {"a/b": OSError, "a/c": OSError, "/etc": ValueError}


# Modes


@pytest.mark.parametrize("with_name", [False, True])
def test_modes_are_those_of_the_umask_or_of_the_options(
    root: Path, tmp_path: Path, with_name: bool, request: Any
) -> None:
    if with_name:
        request.getfixturevalue("with_names")

    def modes(storage: LocalStorage) -> list[int]:
        put(storage, "a/b", b"x")
        return [(storage.root / name).stat().st_mode & 0o777 for name in ("", "a", "a/b")]

    for umask in (0o022, 0o077, 0):
        before = os.umask(umask)
        try:
            assert modes(LocalStorage(tmp_path / f"default-{umask}")) == [
                0o777 & ~umask,
                0o777 & ~umask,
                0o666 & ~umask,
            ]
            chosen = LocalStorage(tmp_path / f"chosen-{umask}", file_mode=0o664, folder_mode=0o775)
            assert modes(chosen) == [0o775, 0o775, 0o664]
        finally:
            os.umask(before)


def test_a_folder_mode_leaves_the_group_to_the_folder_above(tmp_path: Path) -> None:
    """Of a folder with setgid, as one that a web server reads: without it, files get the group of who stores them."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o2775)
    storage = LocalStorage(tmp_path / "shared" / "files", folder_mode=0o750)
    put(storage, "a/b", b"x")
    assert [(storage.root / name).stat().st_mode & 0o7777 for name in ("", "a")] == [0o2750, 0o2750]


# Hostile keys


@pytest.mark.parametrize("key", [UNFINISHED, f"{UNFINISHED}/a", f"{UNFINISHED}/a/b"])
def test_what_is_being_written_has_no_key(storage: LocalStorage, key: str) -> None:
    for verb in (storage.open, storage.stat, storage.path):
        with pytest.raises(ValueError, match="what is being written"):
            verb(key)
    with pytest.raises(ValueError, match="what is being written"):
        put(storage, key, b"x")
    assert list(storage.delete([key])) == [key]
    put(storage, f"a/{UNFINISHED}", b"x")
    put(storage, f"{UNFINISHED}x", b"x")


def test_hostile_keys_reach_nothing_outside(root: Path, tmp_path: Path, storage: LocalStorage) -> None:
    (tmp_path / "secret").write_text("secret")
    put(storage, "a/b", b"x")
    for key in (
        "../secret",
        "a/../../secret",
        f"{tmp_path}/secret",
        "a//../../secret",
        "..\\secret",
        "a/b/../../../secret",
        "\0",
    ):
        with pytest.raises(ValueError):
            storage.open(key)
        with pytest.raises(ValueError):
            storage.copy(key, "c")
        with pytest.raises(ValueError):
            put(storage, key + ".new", b"x")
        assert list(storage.delete([key])) == [key]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["root", "secret"]
    assert everything(root) == ["a", "a/b"]


def test_symbolic_links_are_not_followed(root: Path, tmp_path: Path, storage: LocalStorage) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    put(storage, "a/b", b"x")
    (root / "folder").symlink_to(outside)
    (root / "a/file").symlink_to(outside / "secret")
    for verb in (storage.open, storage.stat, storage.path):
        with pytest.raises(FileMissing):
            verb("a/file")
        with pytest.raises(ValueError, match="symbolic link"):
            verb("folder/secret")
    with pytest.raises(FileMissing):
        storage.copy("a/file", "c")
    with pytest.raises(ValueError, match="symbolic link"):
        put(storage, "folder/new", b"x")
    with pytest.raises(FileExistsError):
        put(storage, "a/file", b"x")
    assert list(storage.delete(["folder/secret"])) == ["folder/secret"]
    assert listed(storage) == ["a/b"]
    assert [path.read_text() for path in outside.iterdir()] == ["secret"]


def test_strange_files_are_left_alone(root: Path, storage: LocalStorage) -> None:
    put(storage, "a/b", b"x")
    os.mkfifo(root / "a/pipe")
    (root / "a/ä").write_text("x")
    (root / "a/.hidden").write_text("x")
    (root / "c").mkdir()
    assert listed(storage) == ["a/b"]
    with pytest.raises(FileMissing):
        storage.stat("a/pipe")
    with pytest.raises(FileMissing):
        storage.open("c")


# Reading


def test_opens_the_file_itself(storage: LocalStorage) -> None:
    put(storage, "a", b"0123456789")
    with storage.open("a") as file:
        assert isinstance(file, io.BufferedReader)
        assert isinstance(file.raw, io.FileIO)
        assert os.fstat(file.fileno()).st_ino == storage.path("a").stat().st_ino


def test_a_part_is_read_and_no_more(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    put(storage, "a", bytes(1_000_000))
    pread, amounts = os.pread, []

    def count(descriptor: int, size: int, offset: int) -> bytes:
        amounts.append(size)
        return pread(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", count)
    with storage.open("a", 500_000, 500_100) as file:
        assert len(file.read()) == 100
    assert sum(amounts) <= 100


# Writing


def test_the_memory_for_a_huge_stream_is_bounded(storage: LocalStorage) -> None:
    pieces = (bytes(CHUNK) for _ in range(256))
    tracemalloc.start()
    try:
        storage.put("a", ChunkReader(pieces), size=None, content_type="")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert storage.stat("a").size == 256 * CHUNK
    assert peak < 4 * CHUNK, f"{peak:,} bytes for a file of {256 * CHUNK:,}"


def test_bytes_in_memory_are_written_at_once(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    write, amounts = os.write, []

    def count(descriptor: int, data: memoryview) -> int:
        amounts.append(len(data))
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", count)
    put(storage, "a", bytes(3 * CHUNK))
    assert amounts == [3 * CHUNK]


def test_writes_the_rest_of_what_was_written_in_part(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
    put(storage, "a", b"0123456789" * 10)
    assert read(storage, "a") == b"0123456789" * 10


@pytest.mark.usefixtures("with_names")
def test_an_unfinished_file_has_a_name_where_it_needs_one(root: Path, storage: LocalStorage) -> None:
    seen: list[str] = []

    def look() -> bytes:
        seen.extend(path.name for path in (root / UNFINISHED).iterdir())
        return b"x"

    storage.put("a", Stream([look]), size=None, content_type="")
    assert len(seen) == 1
    assert list((root / UNFINISHED).iterdir()) == []
    assert listed(storage) == ["a"]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_an_unfinished_file_has_a_name_where_an_open_file_can_t_be_given_one(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without /proc, as in some jails."""
    isdir, link = os.path.isdir, os.link

    def refuse(source: str, target: str, **options: Any) -> None:
        if source.startswith("/proc"):
            raise FileNotFoundError(errno.ENOENT, "no /proc here", source)
        link(source, target, **options)

    monkeypatch.setattr(os.path, "isdir", lambda path: not str(path).startswith("/proc") and isdir(path))
    monkeypatch.setattr(os, "link", refuse)
    storage = LocalStorage(root)
    put(storage, "a/b", b"x")
    (root / "given").write_bytes(b"x")
    assert not storage.take("c", root / "given")
    assert read(storage, "a/b") == b"x"


def test_leaves_no_file_open(tmp_path: Path, storage: LocalStorage) -> None:
    put(storage, "first", b"x")
    before = len(os.listdir("/proc/self/fd"))
    put(storage, "a/b", b"x")
    with pytest.raises(FileExistsError):
        put(storage, "a/b", b"x")
    storage.copy("a/b", "a/c")
    for key in ("d", "a/b", "a/b"):
        (tmp_path / "given").write_bytes(b"x")
        with suppress(FileExistsError):
            storage.take(key, tmp_path / "given")
    read(storage, "a/b")
    storage.delete(["a/b", "a/c"])
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_unfinished_file_needs_no_name_elsewhere(root: Path, storage: LocalStorage) -> None:
    put(storage, "a", b"x")
    assert [path.name for path in root.iterdir()] == ["a"]


@pytest.mark.parametrize("with_name", [False, True])
@pytest.mark.parametrize("durable", [False, True])
def test_a_full_disk_leaves_nothing(tiny_disk: Path, with_name: bool, durable: bool, request: Any) -> None:
    if with_name:
        request.getfixturevalue("with_names")
    storage = LocalStorage(tiny_disk / "root", durable=durable)
    kept = put(storage, mint(), bytes(200_000))
    before = everything(storage.root)
    with pytest.raises(OSError, match="No space left") as raised:
        put(storage, mint(), bytes(2_000_000))
    assert raised.value.errno == errno.ENOSPC
    assert everything(storage.root) == before
    assert listed(storage) == [kept]
    put(storage, mint(), bytes(200_000))


def test_no_room_for_a_name_leaves_nothing(root: Path, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    put(storage, "other", b"x")
    link = os.link

    def refuse(source: str, target: str, **options: Any) -> None:
        if not os.path.isdir(os.path.dirname(target)):
            link(source, target, **options)
        raise OSError(errno.ENOSPC, "No space left on device", target)

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(OSError, match="No space left"):
        put(storage, "a/b/c", b"x")
    assert everything(root) == ["other"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EINVAL])
def test_no_room_for_an_unfinished_file_is_told(
    root: Path, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    put(storage, "other", b"x")
    nameless, original = storage._nameless, os.open

    def refuse(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if flags & os.O_WRONLY:
            raise OSError(code, "refused", path)
        return original(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OSError, match="refused"):
        put(storage, "a/b", b"x")
    assert (everything(root), storage._nameless) == (["other"], nameless and code != errno.EINVAL)


def test_makes_its_folder_again_when_it_is_removed_meanwhile(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, times = storage._folders.make, []

    def make_and_lose(folder: str) -> None:
        make(folder)
        if folder.endswith("a/b") and len(times) < 3:
            times.append(folder)
            os.rmdir(folder)
            os.rmdir(os.path.dirname(folder))

    monkeypatch.setattr(storage._folders, "make", make_and_lose)
    put(storage, "a/b/c", b"x")
    assert len(times) == 3
    assert listed(storage) == ["a/b/c"]


def test_makes_its_folder_again_when_it_is_removed_before_it_has_its_mode(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chmod, times = os.chmod, []

    def lose(folder: str, mode: int) -> None:
        if folder.endswith("/a") and not times:
            times.append(folder)
            os.rmdir(folder)
        chmod(folder, mode)

    monkeypatch.setattr(os, "chmod", lose)
    storage = LocalStorage(root, folder_mode=0o750)
    put(storage, "a/b", b"x")
    assert times
    assert listed(storage) == ["a/b"]


def test_gives_up_when_its_folder_is_removed_again_and_again(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = storage._folders.make

    def make_and_lose(folder: str) -> None:
        make(folder)
        if folder.endswith("/a"):
            os.rmdir(folder)

    monkeypatch.setattr(storage._folders, "make", make_and_lose)
    with pytest.raises(FileNotFoundError, match="again and again"):
        put(storage, "a/b", b"x")


def test_threads_put_and_delete_in_one_folder(storage: LocalStorage) -> None:
    """Each turn empties the folder, which removes it under the hands of the others."""
    failures: list[Exception] = []

    def work(number: int) -> None:
        for turn in range(150):
            key = f"2026/01/02/03/{number}-{turn}"
            try:
                put(storage, key, b"x")
                assert not storage.delete([key])
            except Exception as error:
                failures.append(error)
                raise

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert list(storage.root.iterdir()) == []


# Flushing: the order is what a power cut tests


@pytest.fixture
def journal(root: Path, monkeypatch: pytest.MonkeyPatch) -> Journal:
    return Journal(root, monkeypatch)


CHAIN = ["flush 2026/01/02/03", "flush 2026/01/02", "flush 2026/01", "flush 2026", "flush .", "flush .."]


def test_a_put_flushes_the_bytes_then_names_them_then_flushes_the_folders(
    storage: LocalStorage, journal: Journal
) -> None:
    put(storage, KEY, b"x")
    assert journal.take() == ["flush ..", "flush file", f"link {KEY}", *CHAIN]
    put(storage, "2026/01/02/03/b", b"x")
    assert journal.take() == ["flush file", "link 2026/01/02/03/b", "flush 2026/01/02/03"]


def test_a_folder_that_another_process_made_is_flushed_with_all_above(
    root: Path, storage: LocalStorage, journal: Journal
) -> None:
    (root / "2026/01/02/03").mkdir(parents=True)
    put(storage, KEY, b"x")
    assert journal.take() == ["flush file", f"link {KEY}", *CHAIN]


def test_a_folder_that_another_process_removed_is_flushed_with_all_above_when_it_is_made_again(
    root: Path, storage: LocalStorage, journal: Journal
) -> None:
    put(storage, KEY, b"x")
    LocalStorage(root).delete([KEY])
    journal.take()
    put(storage, KEY, b"x")
    assert journal.take() == ["flush file", f"link {KEY}", *CHAIN]


@pytest.mark.usefixtures("with_names")
def test_a_put_with_a_name_flushes_as_much(root: Path, storage: LocalStorage, journal: Journal) -> None:
    (root / UNFINISHED).mkdir(parents=True)
    put(storage, KEY, b"x")
    lines = [line for line in journal.take() if UNFINISHED not in line]
    assert lines == ["flush file", f"link {KEY}", *CHAIN]


def test_a_copy_flushes_its_folder(storage: LocalStorage, journal: Journal) -> None:
    put(storage, KEY, b"x")
    journal.take()
    storage.copy(KEY, "2026/01/02/03/b")
    assert journal.take() == ["link 2026/01/02/03/b", "flush 2026/01/02/03"]


def test_a_file_that_is_taken_is_flushed(tmp_path: Path, storage: LocalStorage, journal: Journal) -> None:
    put(storage, KEY, b"x")
    journal.take()
    (tmp_path / "given").write_bytes(b"abc")
    assert storage.take("2026/01/02/03/b", tmp_path / "given")
    assert journal.take() == ["flush file", "link 2026/01/02/03/b", "flush 2026/01/02/03"]


def test_a_deletion_flushes_each_folder_once(storage: LocalStorage, journal: Journal) -> None:
    keys = [put(storage, f"2026/01/02/{hour}/{name}", b"x") for hour in ("03", "04") for name in "abc"]
    journal.take()
    storage.delete([keys[0], keys[3], keys[1]])
    assert journal.take()[3:] == ["flush 2026/01/02/03", "flush 2026/01/02/04"]
    storage.delete(keys[:3])
    assert journal.take()[1:] == ["rmdir 2026/01/02/03", "flush 2026/01/02"]


def test_deleting_what_is_missing_flushes_too(storage: LocalStorage, journal: Journal) -> None:
    """Whoever deleted it may have been killed before the flush; the answer says that it is gone for good."""
    keys = [put(storage, f"2026/01/02/03/{name}", b"x") for name in "ab"]
    journal.take()
    storage.path(keys[0]).unlink()
    journal.take()
    storage.delete(keys[:1])
    assert journal.take() == ["flush 2026/01/02/03"]


def test_nothing_is_flushed_if_it_need_not_be_durable(root: Path, tmp_path: Path, journal: Journal) -> None:
    storage = LocalStorage(root, durable=False)
    put(storage, KEY, b"x")
    storage.copy(KEY, "a")
    (tmp_path / "given").write_bytes(b"abc")
    storage.take("b", tmp_path / "given")
    storage.delete([KEY, "a"])
    assert [line for line in journal.take() if line.startswith("flush")] == []


@pytest.mark.parametrize("code", [errno.EMLINK, errno.EXDEV])
@pytest.mark.parametrize("shared", [False, True])
def test_a_copy_with_bytes_of_its_own_is_flushed_before_it_is_named(
    root: Path, storage: LocalStorage, journal: Journal, monkeypatch: pytest.MonkeyPatch, code: int, shared: bool
) -> None:
    """Law 1: of a copy too, whether its bytes were written or the file system lets the two files share them."""
    put(storage, KEY, b"abc")
    journal.take()
    monkeypatch.setattr(local, "_link", raising(code, only=f"{root}/{KEY}"))
    monkeypatch.setattr(local.fcntl, "ioctl", share if shared else refuse_to_share)
    storage.copy(KEY, "2026/01/02/03/b")
    assert journal.take()[-3:] == ["flush file", "link 2026/01/02/03/b", "flush 2026/01/02/03"]
    assert read(storage, "2026/01/02/03/b") == b"abc"


def share(target: int, request: int, source: int) -> None:
    """What FICLONE does, for a file system that can't."""
    os.write(target, os.pread(source, 100, 0))


def refuse_to_share(target: int, request: int, source: int) -> None:
    raise OSError(errno.EOPNOTSUPP, "no reflinks here")


@pytest.mark.parametrize("broken", ["file", "folder"])
def test_a_put_that_cannot_be_flushed_leaves_nothing(
    root: Path, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    put(storage, "other", b"x")
    fsync = os.fsync

    def break_(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}") == (broken == "folder"):
            raise OSError(errno.EIO, "broken")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", break_)
    with pytest.raises(OSError, match="broken"):
        put(storage, "a/b", b"x")
    assert everything(root) == ["other"]


def test_a_copy_that_cannot_be_flushed_leaves_nothing(
    root: Path, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux tells once: a second try with bytes of its own would seem to be on the disk."""
    put(storage, "other", b"x")
    fsync, told = os.fsync, []

    def break_once(descriptor: int) -> None:
        if not told:
            told.append(descriptor)
            raise OSError(errno.EIO, "broken")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", break_once)
    with pytest.raises(OSError, match="broken"):
        storage.copy("other", "a/b")
    assert everything(root) == ["other"]


# Taking and copying without moving bytes


def test_a_taken_file_shares_its_bytes(tmp_path: Path, root: Path) -> None:
    storage, path = LocalStorage(root, file_mode=0o640), tmp_path / "given"
    path.write_bytes(b"abc")
    path.chmod(0o600)
    os.utime(path, (0, 0))
    assert storage.take("a/b", path)
    assert path.stat().st_ino == (root / "a/b").stat().st_ino
    assert (root / "a/b").stat().st_mode & 0o777 == 0o640
    assert datetime.now(UTC) - storage.stat("a/b").modified < timedelta(minutes=1)


def test_what_has_another_name_is_not_taken(tmp_path: Path, storage: LocalStorage) -> None:
    """Who writes to the other name would change what is stored."""
    (tmp_path / "given").write_bytes(b"abc")
    (tmp_path / "link").symlink_to(tmp_path / "given")
    assert not storage.take("a", tmp_path / "link")
    (tmp_path / "twin").hardlink_to(tmp_path / "given")
    assert not storage.take("a", tmp_path / "given")
    assert listed(storage) == []
    (tmp_path / "twin").unlink()
    assert storage.take("a", tmp_path / "given")


def test_an_open_file_is_taken_by_its_number(tmp_path: Path, storage: LocalStorage) -> None:
    """As adoptions do, which look where a path leads before they link what is there."""
    (tmp_path / "given").write_bytes(b"abc")
    with (tmp_path / "given").open("rb") as file:
        assert storage.take("a", Path(f"/proc/self/fd/{file.fileno()}"))
    assert read(storage, "a") == b"abc"


def test_what_is_no_file_is_not_taken(tmp_path: Path, storage: LocalStorage) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert not storage.take("a", tmp_path / "pipe")
    assert not storage.take("a", tmp_path)
    with pytest.raises(FileNotFoundError):
        storage.take("a", tmp_path / "nothing")
    assert listed(storage) == []


def test_a_file_of_another_disk_is_not_taken(tiny_disk: Path, storage: LocalStorage) -> None:
    path = tiny_disk / "given"
    path.write_bytes(b"abc")
    assert not storage.take("a", path)
    assert listed(storage) == []
    assert path.read_bytes() == b"abc"


def test_a_file_that_may_only_be_read_is_not_taken(tiny_disk: Path, mount: Callable[..., Path]) -> None:
    """The same volume is bound a second time, for reading alone."""
    storage = LocalStorage(tiny_disk / "files")
    (tiny_disk / "given").write_bytes(b"abc")
    assert not storage.take("a", mount("-o", "bind,ro", str(tiny_disk)) / "given")
    assert listed(storage) == []
    assert storage.take("a", tiny_disk / "given")


@pytest.mark.parametrize("code", [errno.EPERM, errno.EXDEV, errno.EMLINK, errno.EOPNOTSUPP])
def test_a_file_that_may_not_be_linked_is_not_taken(
    tmp_path: Path, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    (tmp_path / "given").write_bytes(b"abc")
    monkeypatch.setattr(local, "_link", raising(code))
    assert not storage.take("a", tmp_path / "given")


def test_other_failures_of_taking_are_told(
    tmp_path: Path, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "given").write_bytes(b"abc")
    monkeypatch.setattr(local, "_link", raising(errno.EIO))
    with pytest.raises(OSError, match="refused"):
        storage.take("a", tmp_path / "given")


def test_a_file_that_could_not_be_flushed_is_copied_from_then_on(
    tmp_path: Path, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux tells once that it could not write: it takes the bytes for clean then, and the next flush succeeds."""

    def break_(descriptor: int) -> None:
        raise OSError(errno.EIO, "broken")

    put(storage, "first", b"x")
    for name in ("given", "other"):
        (tmp_path / name).write_bytes(b"abc")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", break_)
        with pytest.raises(OSError, match="broken"):
            storage.take("a", tmp_path / "given")
    assert not storage.take("a", tmp_path / "given")
    assert storage.take("a", tmp_path / "other")


def test_a_copy_is_a_link(root: Path, storage: LocalStorage) -> None:
    put(storage, "a", b"abc")
    storage.copy("a", "b/c")
    assert (root / "a").stat().st_ino == (root / "b/c").stat().st_ino


def test_a_copy_of_what_is_deleted_meanwhile_misses_it(
    root: Path, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(storage, "a", b"abc")
    publish = storage._publish

    def lose(source: str | int, path: str) -> None:
        storage.delete(["a"])
        publish(source, path)

    monkeypatch.setattr(storage, "_publish", lose)
    with pytest.raises(FileMissing, match="there is no 'a'"):
        storage.copy("a", "b/c")
    assert everything(root) == []


@pytest.mark.parametrize("code", [errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP])
def test_a_copy_that_may_not_be_a_link_has_its_own_bytes(
    root: Path, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    put(storage, "a", b"abc" * CHUNK)
    monkeypatch.setattr(local, "_link", raising(code, only=f"{root}/a"))
    storage.copy("a", "b/c")
    assert (root / "a").stat().st_ino != (root / "b/c").stat().st_ino
    assert read(storage, "b/c") == b"abc" * CHUNK
    with pytest.raises(FileExistsError):
        storage.copy("a", "b/c")


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOSYS, errno.EXDEV, errno.EACCES])
def test_a_put_that_may_not_link_says_what_it_needs(
    root: Path, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """FAT answers that it is not permitted, which sounds like modes and owners."""

    def refuse(*arguments: Any, **options: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(OSError, match=os.strerror(code)) as raised:
        put(storage, "a/b", b"x")
    assert raised.value.errno == code
    assert ("one file system, with hard links" in str(raised.value)) == (code != errno.EACCES)
    assert everything(root) == []


def test_a_copy_shares_its_bytes_where_the_file_system_can(
    tmp_path: Path, mount: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(128 << 20)
    if os.system(f"mkfs.btrfs -q {image} 2>/dev/null") != 0:
        pytest.skip("mkfs.btrfs makes the file system that can")
    storage = LocalStorage(mount("-o", "loop", str(image)) / "root")
    put(storage, "a", os.urandom(5_000_000))
    monkeypatch.setattr(local, "_link", raising(errno.EMLINK, only=str(storage.root / "a")))
    monkeypatch.setattr(local, "_write", None)  # no byte is copied
    storage.copy("a", "b")
    assert read(storage, "a") == read(storage, "b")


def raising(code: int, only: str | None = None) -> Callable[[str | int, str], None]:
    """A way to link that is refused, for ``only`` this source or for all."""
    link = local._link

    def refuse(source: str | int, path: str) -> None:
        if only in (None, source):
            raise OSError(code, "refused", path)
        link(source, path)

    return refuse


def test_a_root_whose_volume_is_not_mounted_is_told(tmp_path: Path) -> None:
    (tmp_path / "root").symlink_to(tmp_path / "volume" / "files")
    storage = LocalStorage(tmp_path / "root")
    with pytest.raises(FileNotFoundError, match="is its volume mounted"):
        put(storage, "a/b", b"x")
    with pytest.raises(FileMissing):
        read(storage, "a/b")
    assert listed(storage) == []


# Unfinished files


def put_and_be_killed(root: Path, nameless: bool) -> None:
    """In a process of its own, which dies while the stream is read."""
    program = (
        "import os, sys\n"
        "from sa_attachments.storages.local import LocalStorage\n"
        "from sa_attachments.testing.probes import Stream\n"
        "storage = LocalStorage(sys.argv[1])\n"
        "storage._nameless = sys.argv[2] == 'True'\n"
        "stream = Stream([b'x', lambda: os.kill(os.getpid(), 9)])\n"
        "storage.put('b', stream, size=None, content_type='')\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(root), str(nameless)], check=False)
    assert done.returncode == -9


def test_discards_the_traces_of_puts_that_were_killed(root: Path, storage: LocalStorage) -> None:
    put(storage, "a", b"x")
    began = datetime.now(UTC)
    put_and_be_killed(root, nameless=False)
    assert len(list((root / UNFINISHED).iterdir())) == 1
    assert storage.discard_unfinished(began) == 0
    assert storage.discard_unfinished(datetime.now(UTC)) == 1
    assert list((root / UNFINISHED).iterdir()) == []
    assert listed(storage) == ["a"]


def test_a_put_that_was_killed_leaves_no_trace_where_files_need_no_name(root: Path, storage: LocalStorage) -> None:
    put(storage, "a", b"x")
    if not storage._nameless:
        pytest.skip("this file system has no O_TMPFILE")
    put_and_be_killed(root, nameless=True)
    assert everything(root) == ["a"]


def test_discards_only_what_it_wrote(root: Path, storage: LocalStorage) -> None:
    (root / UNFINISHED).mkdir(parents=True)
    (root / UNFINISHED / "notes.txt").touch()
    assert storage.discard_unfinished(datetime.now(UTC)) == 0
    assert (root / UNFINISHED / "notes.txt").exists()


def test_what_another_discards_at_the_same_time_is_no_failure(
    root: Path, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / UNFINISHED).mkdir(parents=True)
    for name in ("1-abc", "1-def"):
        (root / UNFINISHED / name).touch()
    unlink = os.unlink

    def lose(path: str) -> None:
        unlink(path)
        unlink(path)

    monkeypatch.setattr(os, "unlink", lose)
    assert storage.discard_unfinished(datetime.now(UTC)) == 0
    assert everything(root) == []


def test_who_may_only_read_discards_nothing(root: Path) -> None:
    """The traces may be those of another application."""
    (root / UNFINISHED).mkdir(parents=True)
    (root / UNFINISHED / "1-abc").touch()
    assert LocalStorage(root, readonly=True).discard_unfinished(datetime.now(UTC)) == 0
    assert everything(root) == [f"{UNFINISHED}/1-abc"]


@pytest.mark.usefixtures("with_names")
def test_a_put_whose_file_was_discarded_fails(root: Path, storage: LocalStorage) -> None:
    def discard() -> bytes:
        assert storage.discard_unfinished(datetime.now(UTC) + timedelta(hours=1)) == 1
        return b"x"

    with pytest.raises(FileNotFoundError):
        storage.put("a/b", Stream([b"x", discard]), size=None, content_type="")
    assert everything(root) == []


@pytest.mark.usefixtures("with_names")
def test_a_put_whose_name_of_before_was_discarded_succeeds(
    root: Path, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = storage._publish

    def publish_and_discard(source: str | int, path: str) -> None:
        publish(source, path)
        assert storage.discard_unfinished(datetime.now(UTC) + timedelta(hours=1)) == 1

    monkeypatch.setattr(storage, "_publish", publish_and_discard)
    put(storage, "a/b", b"x")
    assert everything(root) == ["a", "a/b"]


# Listing


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, root: Path) -> Iterator[list[str]]:
    """The folders that are listed."""
    scandir, opened = os.scandir, []

    def count(path: str) -> Any:
        opened.append(os.path.relpath(path, root))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", count)
    return opened


def test_opens_only_the_folders_that_can_hold_what_is_asked_for(root: Path, opened: list[str]) -> None:
    storage = LocalStorage(root, durable=False)
    start = datetime(2025, 12, 28, tzinfo=UTC)
    hours = [f"{start + timedelta(hours=hour):%Y/%m/%d/%H}" for hour in range(200)]
    keys = [put(storage, f"{hour}/{name}", b"x") for hour in hours for name in "ab"]

    def cost(after: str | None, before: str | None) -> int:
        opened.clear()
        assert [key for key, _ in storage.keys(after, before)] == [
            key for key in keys if (after is None or key > after) and (before is None or key < before)
        ]
        return len(opened)

    folders = 1 + 2 + 2 + 9 + 200
    assert cost(None, None) == folders
    assert cost(keys[-3], None) == 1 + 1 + 1 + 1 + 2
    assert cost(None, keys[3]) == 1 + 1 + 1 + 1 + 2
    assert cost(keys[200], keys[202]) == 1 + 1 + 1 + 1 + 2
    assert cost(f"{hours[100]}/~", None) == 1 + 1 + 1 + 5 + 100
    assert cost("2027", None) == 1
    assert cost(None, "2025") == 1


def test_opens_folders_as_it_goes(root: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    storage = LocalStorage(root, durable=False)
    for hour in range(20):
        for name in "abc":
            put(storage, f"2026/01/02/{hour:02}/{name}", b"x")
    opened.clear()
    lstat, looked_at = os.lstat, []
    monkeypatch.setattr(os, "lstat", lambda path: (looked_at.append(path), lstat(path))[1])
    listing = storage.keys()
    assert opened == []
    next(listing)
    assert (len(opened), len(looked_at)) == (5, 1)
    for _ in range(3):
        next(listing)
    assert (len(opened), len(looked_at)) == (6, 4)


def test_leaves_no_folder_open(root: Path) -> None:
    storage = LocalStorage(root, durable=False)
    for name in "abc":
        put(storage, f"{name}/{name}", b"x")
    before = len(os.listdir("/proc/self/fd"))
    listings = [storage.keys() for _ in range(10)]
    for listing in listings:
        next(listing)
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_is_deleted_meanwhile_is_left_out(storage: LocalStorage) -> None:
    for key in ("a/1", "a/2", "a/3"):
        put(storage, key, b"x")
    listing = storage.keys()
    assert next(listing)[0] == "a/1"
    storage.delete(["a/2"])
    assert [key for key, _ in listing] == ["a/3"]


@pytest.mark.parametrize("verb", ["open", "stat"])
def test_what_may_not_be_opened_is_not_missing(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """Who is told that a file is missing may take its row for damaged."""
    put(storage, "a", b"x")

    def refuse(path: str, *flags: int) -> Any:
        raise PermissionError(errno.EACCES, "not yours", path)

    monkeypatch.setattr(os, {"open": "open", "stat": "lstat"}[verb], refuse)
    with pytest.raises(PermissionError, match="not yours"):
        getattr(storage, verb)("a")


def test_what_may_not_be_read_is_an_error_and_no_end(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = LocalStorage(root, durable=False)
    put(storage, "a/b", b"x")
    scandir = os.scandir

    def refuse(path: str) -> Any:
        if path.rstrip("/").endswith("a"):
            raise PermissionError(errno.EACCES, "not yours", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError):
        list(storage.keys())
