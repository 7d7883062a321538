# ruff: noqa: PTH100, PTH108, PTH111, PTH112, PTH116, PTH120
# This module works with descriptors and counts system calls; pathlib would hide them.
"""LocalStorage: files in a folder of this machine, each at the path that its key spells.

>>> import tempfile
>>> folder = tempfile.TemporaryDirectory()
>>> storage = LocalStorage(folder.name)
>>> storage.put("2026/01/01/00/a", io.BytesIO(b"hello"), size=5, content_type="text/plain")
>>> storage.path("2026/01/01/00/a").read_text(), [key for key, modified in storage.keys(after="2025")]
('hello', ['2026/01/01/00/a'])
>>> storage.delete(["2026/01/01/00/a"]), list(storage.root.iterdir())
({}, [])
>>> folder.cleanup()

URL: ``local:./files`` or ``local:/srv/files``; a relative path counts from the working directory at that time. Options:

- ``durable`` (true): flush files and folders to the disk before ``put`` and ``delete`` return
- ``file_mode``, ``folder_mode``: octal permissions of new files and folders; without them the umask decides
- ``parallel`` (8; 1 if not durable): how many files to store at the same time
- ``readonly`` (false)

A file is written without a name (``O_TMPFILE``), or under ``.unfinished`` where the file system can't do that; flushed;
and linked to its name, which never replaces anything. Then its folder is flushed.

Traps
-----
``durable=false`` flushes nothing: a power cut may take files that rows name. The root is made by the first put, so an
unmounted volume looks like an empty place. Symbolic links below the root are not followed. POSIX only, on a
file system with hard links (FAT and exFAT have none).
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
import stat as modes
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO, Self

from sa_attachments.errors import BadConfiguration, FileMissing
from sa_attachments.source import CHUNK
from sa_attachments.storage import Readable, Stat

from . import UNFINISHED, checked, well_formed
from .folders import Folders
from .part import part
from .url import StorageURL

_FICLONE = 0x40049409
_NO_LINK = {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS}
_NO_FILE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP}


class LocalStorage:
    """A storage in the folder ``root``; also ``Copies``, ``HasPath``, ``TakesFile`` and ``Unfinished``."""

    def __init__(
        self,
        root: Path | str,
        *,
        durable: bool = True,
        file_mode: int | None = None,
        folder_mode: int | None = None,
        parallel: int | None = None,
        readonly: bool = False,
    ) -> None:
        self._root = os.path.abspath(root)
        if os.path.dirname(self._root) == self._root:
            raise BadConfiguration(f"{self._root!r} is the root of all files: expected a folder of its own")
        self.root = Path(self._root)
        self.durable = durable
        self.parallel = parallel or (8 if durable else 1)
        self.readonly = readonly
        self._file_mode = file_mode
        self._folders = Folders(self._root, durable=durable, mode=folder_mode)
        self._linkable = os.path.isdir("/proc/self/fd")  # whether an open file can be given a name
        self._nameless = self._linkable and hasattr(os, "O_TMPFILE")
        self._unflushed: set[tuple[int, int]] = set()  # files that could not be taken, by device and inode

    @classmethod
    def from_url(cls, url: StorageURL) -> Self:
        """The backend of ``local:``. Raises BadConfiguration."""
        made = cls(
            os.path.expanduser(url.path),
            durable=url.flag("durable", True),
            file_mode=url.mode("file_mode", None),
            folder_mode=url.mode("folder_mode", None),
            parallel=url.number("parallel", None),
            readonly=url.flag("readonly", False),
        )
        url.done()
        if url.host or not url.path:
            raise url.mistake("expected a folder, as local:./files or local:/srv/files")
        return made

    def put(self, key: str, stream: Readable, *, size: int | None, content_type: str) -> None:
        self._make(self._writable(key), partial(_write, stream))

    def open(self, key: str, start: int = 0, end: int | None = None) -> BinaryIO:
        with self._misses(key):
            file = open(self._at(key), "rb", opener=_without_following)  # noqa: SIM115 - the caller closes it
        return part(file, start, end) if start or end is not None else file

    def stat(self, key: str) -> Stat:
        path = self._at(key)
        with self._misses(key):
            found = os.lstat(path)
            if not modes.S_ISREG(found.st_mode):
                raise FileNotFoundError(errno.ENOENT, "not a regular file", path)
        return Stat(found.st_size, _modified(found))

    def delete(self, keys: Sequence[str]) -> dict[str, Exception]:
        failed: dict[str, Exception] = {}
        folders: dict[str, list[str]] = {}
        for key in keys:
            try:
                path = self._writable(key)
                # Of a missing file too: who unlinked it may have died before the folder was flushed.
                folders.setdefault(os.path.dirname(path), []).append(key)
                os.unlink(path)
            except (OSError, ValueError) as error:
                if not isinstance(error, OSError) or error.errno not in _NO_FILE:
                    failed[key] = error
        for folder, inside in folders.items():
            try:
                self._folders.prune(folder)
            except OSError as error:
                failed = dict.fromkeys(inside, error) | failed
        return failed

    def keys(self, after: str | None = None, before: str | None = None) -> Iterator[tuple[str, datetime]]:
        return self._walk("", after or "", before)

    def copy(self, source: str, key: str) -> None:
        path, origin = self._writable(key), self._at(source)
        self.stat(source)
        try:
            self._publish(origin, path)
        except OSError as error:
            if error.errno not in _NO_LINK:
                self.stat(source)  # FileMissing, if it was deleted meanwhile
                raise
            with self.open(source) as file:
                self._make(path, partial(_clone, file))

    def path(self, key: str) -> Path:
        self.stat(key)
        return self.root / key

    def take(self, key: str, path: Path) -> bool:
        target = self._writable(key)
        if path.is_symlink() and path.parent != Path("/proc/self/fd"):  # there a link is an open file
            return False
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # not to wait for the writer of a pipe
        try:
            found = os.fstat(descriptor)
            this = found.st_dev, found.st_ino
            if not (self._linkable and modes.S_ISREG(found.st_mode)) or found.st_nlink > 1 or this in self._unflushed:
                return False
            self._folders.make(self._root)
            if found.st_dev != os.stat(self._root).st_dev:
                return False
            os.utime(descriptor)  # it is stored now, whenever it was written
            self._unflushed.add(this)  # A system tells of lost bytes once: the next flush would prove nothing.
            self._complete(descriptor)
            self._unflushed.discard(this)
            self._publish(descriptor, target)
        except OSError as error:
            if error.errno not in {*_NO_LINK, errno.EROFS}:  # the given file's, as of a volume bound a second time
                raise
            return False
        finally:
            os.close(descriptor)
        return True

    def discard_unfinished(self, before: datetime) -> int:
        count, limit = 0, before.timestamp() * 1e9
        if self.readonly:
            return count
        with suppress(FileNotFoundError), os.scandir(f"{self._root}/{UNFINISHED}") as entries:
            for entry in entries:
                began = entry.name.partition("-")[0]
                if began.isdigit() and int(began) < limit:
                    with suppress(FileNotFoundError):
                        os.unlink(entry.path)
                        count += 1
        return count

    def __repr__(self) -> str:
        return f"LocalStorage({self._root!r})"

    # Paths

    def _at(self, key: str) -> str:
        folder = checked(key).rpartition("/")[0]
        if key.partition("/")[0] == UNFINISHED:
            raise ValueError(f"{key!r} can't be a key of {self!r}: what is being written lies there")
        self._folders.check(folder)
        return f"{self._root}/{key}"

    def _writable(self, key: str) -> str:
        path = self._at(key)
        if self.readonly:
            raise PermissionError(errno.EROFS, f"{self!r} is readonly: nothing is written or deleted", key)
        return path

    @contextmanager
    def _misses(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in _NO_FILE:
                raise FileMissing(f"there is no {key!r} in {self!r}") from error
            raise

    # Writing

    def _make(self, path: str, fill: Callable[[int], None]) -> None:
        """A file that nobody sees before it is whole."""
        descriptor, name = self._create()
        try:
            fill(descriptor)
            self._complete(descriptor)
            self._publish(name or descriptor, path)
        finally:
            os.close(descriptor)
            if name:
                with suppress(FileNotFoundError):
                    os.unlink(name)

    def _create(self) -> tuple[int, str | None]:
        folder, name, flags = self._root, None, os.O_WRONLY
        if self._nameless:
            flags |= os.O_TMPFILE
        else:
            folder = f"{self._root}/{UNFINISHED}"
            name = f"{folder}/{time.time_ns()}-{os.urandom(8).hex()}"
            flags |= os.O_CREAT | os.O_EXCL
        try:
            return os.open(name or folder, flags, 0o666), name
        except FileNotFoundError:
            self._folders.make(folder)
        except OSError as error:
            if name or error.errno not in {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL}:  # it knows no O_TMPFILE
                raise
            self._nameless = False
        return self._create()

    def _complete(self, descriptor: int) -> None:
        if self._file_mode is not None:
            os.fchmod(descriptor, self._file_mode)
        if self.durable:
            os.fsync(descriptor)

    def _publish(self, source: str | int, path: str) -> None:
        """Give a complete file its name: an open one, or one that has a name already. On failure the name is free."""
        folder = path.rpartition("/")[0]
        try:
            self._name(source, path, folder)
            try:
                self._folders.flush(folder)
            except BaseException:
                os.unlink(path)
                raise
        except BaseException:
            with suppress(OSError):  # the first error is the one to tell
                self._folders.prune(folder)
            raise

    def _name(self, source: str | int, path: str, folder: str) -> None:
        for _ in range(100):  # times that a folder may be removed between making it and linking into it
            try:
                return _link(source, path)
            except FileExistsError as error:
                raise FileExistsError(errno.EEXIST, f"{self!r} never overwrites a file", path) from error
            except FileNotFoundError:
                if isinstance(source, str) and not os.path.lexists(source):
                    raise
            except OSError as error:
                if error.errno in _NO_LINK - {errno.EACCES}:
                    error.strerror = f"{error.strerror}: {self!r} has to be one file system, with hard links"
                raise
            with suppress(FileNotFoundError):  # removed meanwhile, as one that a purge had emptied
                self._folders.make(folder)
        raise FileNotFoundError(errno.ENOENT, "the folder was removed again and again", folder)

    # Listing

    def _walk(self, prefix: str, after: str, before: str | None) -> Iterator[tuple[str, datetime]]:
        for key in self._inside(prefix, after, before):
            if key.endswith("/"):
                yield from self._walk(key, after, before)
                continue
            with suppress(FileNotFoundError):
                yield key, _modified(os.lstat(f"{self._root}/{key}"))

    def _inside(self, prefix: str, after: str, before: str | None) -> list[str]:
        """The files and folders (which end in ``/``) that are or may hold what is asked for, in the order of keys."""
        found = []
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(f"{self._root}/{prefix}") as entries:
            for entry in entries:
                if entry.name.startswith(".") or not well_formed(entry.name):
                    continue
                key = prefix + entry.name
                if entry.is_dir(follow_symlinks=False):
                    key += "/"
                    wanted = key > after or after.startswith(key)
                else:
                    wanted = key > after and entry.is_file(follow_symlinks=False)
                if wanted and (before is None or key < before):
                    found.append(key)
        return sorted(found)


def _clone(file: BinaryIO, descriptor: int) -> None:
    try:
        fcntl.ioctl(descriptor, _FICLONE, file.fileno())
    except OSError:
        _write(file, descriptor)


def _write(stream: Readable, descriptor: int) -> None:
    size = -1 if isinstance(stream, io.BytesIO) else CHUNK  # what is in memory goes at once
    while chunk := stream.read(size):
        rest = memoryview(chunk)
        while rest:
            rest = rest[os.write(descriptor, rest) :]


def _link(source: str | int, path: str) -> None:
    if isinstance(source, str):
        os.link(source, path, follow_symlinks=False)
    else:
        # Beside an absolute path src_dir_fd means nothing, but it makes Python call linkat, which follows to the file.
        os.link(f"/proc/self/fd/{source}", path, src_dir_fd=source, follow_symlinks=True)


def _without_following(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW)


def _modified(found: os.stat_result) -> datetime:
    return datetime.fromtimestamp(found.st_mtime, UTC)
