# ruff: noqa: PTH
# This module works with descriptors and counts system calls; pathlib would hide them.
"""LocalStorage: files in a folder of this machine, each at the path that its key spells.

>>> import io, tempfile
>>> folder = tempfile.TemporaryDirectory()
>>> storage = LocalStorage(folder.name)
>>> storage.put("2026/01/01/00/a", io.BytesIO(b"hello"), size=5, content_type="text/plain")
>>> storage.path("2026/01/01/00/a").read_text(), [key for key, modified in storage.keys(after="2025")]
('hello', ['2026/01/01/00/a'])
>>> storage.delete(["2026/01/01/00/a"]), list(storage.root.iterdir())
({}, [])
>>> folder.cleanup()

URL: ``local:./files`` or ``local:/srv/files``; a relative path counts from the working directory at that time. Options: ``durable`` (true),
``file_mode`` and ``folder_mode`` (octal, whatever the umask; default: what the umask leaves), ``parallel`` (8; 1 if not durable),
``readonly`` (false).

A file is written without a name, or under ``.unfinished`` where the file system can't do that, flushed to the disk, and then linked to
its name, which never replaces anything; then its folder is flushed, once for all files that threads put into it meanwhile.

Traps
-----
``durable=false`` flushes nothing: a power cut may take files that rows name. The root is made by the first put, so an unmounted
volume looks like an empty place. Symbolic links below the root are not followed.
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
import stat as modes
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Self, cast

from sa_attachments.errors import FileMissing
from sa_attachments.source import CHUNK
from sa_attachments.storage import Readable, Stat
from . import checked, well_formed
from .url import StorageURL

UNFINISHED = ".unfinished"
"""The folder of files that are still being written, where the file system can't do without a name."""

_FICLONE = 0x40049409
_REMEMBERED = 10_000  # folders
_RETRIES = 100  # times that a folder may vanish between making it and linking into it
_NO_LINK = {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS}
_NO_FILE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP}


class LocalStorage:
    """A storage in a folder; also ``Copies``, ``HasPath``, ``TakesFile`` and ``Unfinished``. ``root`` is the absolute path."""

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
        self.root = Path(self._root)
        self.durable = durable
        self.parallel = parallel or (8 if durable else 1)
        self.readonly = readonly
        self._file_mode = file_mode
        self._folder_mode = folder_mode
        self._linkable = os.path.isdir("/proc/self/fd")  # whether an open file can be linked
        self._nameless = self._linkable and hasattr(os, "O_TMPFILE")
        self._flush = _Flush()
        self._lock = threading.Lock()
        self._anchored: set[str] = set()  # folders that are on the disk, with all above them
        self._plain: set[str] = set()  # folders that are no symbolic links, nor is any above them

    @classmethod
    def from_url(cls, url: StorageURL) -> Self:
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
        path = self._writable(key)
        with self._new() as (descriptor, source):
            _write(descriptor, stream)
            self._complete(descriptor)
            self._publish(source, path)

    def open(self, key: str, start: int = 0, end: int | None = None) -> BinaryIO:
        path = self._at(key)
        with self._misses(key):
            file = open(path, "rb", opener=_open_plain)
        if start or end is not None:
            return cast(BinaryIO, io.BufferedReader(_Range(file, start, end)))
        return file

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
                self._prune(folder)
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
                raise
            with self.open(source) as file, self._new() as (descriptor, copied):
                try:
                    fcntl.ioctl(descriptor, _FICLONE, file.fileno())
                except OSError:
                    _write(descriptor, file)
                self._complete(descriptor)
                self._publish(copied, path)

    def path(self, key: str) -> Path:
        self.stat(key)
        return self.root / key

    def take(self, key: str, path: Path) -> bool:
        target = self._writable(key)
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # not to wait for the writer of a pipe
        try:
            found = os.fstat(descriptor)
            if not self._linkable or not modes.S_ISREG(found.st_mode) or found.st_dev != self._device():
                return False
            self._complete(descriptor)
            self._publish(descriptor, target)
        except OSError as error:
            if error.errno not in _NO_LINK:
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

    def _device(self) -> int:
        while True:
            try:
                return os.stat(self._root).st_dev
            except FileNotFoundError:
                self._make(self._root)

    def _at(self, key: str) -> str:
        folder, slash, _ = checked(key).rpartition("/")
        if slash and folder not in self._plain:
            self._look_at(folder)
        return f"{self._root}/{key}"

    def _look_at(self, folder: str) -> None:
        """ValueError if one of the folders is a symbolic link, or ours alone. Asked once: who can swap them later needs no keys."""
        names = folder.split("/")
        if names[0] == UNFINISHED:
            raise ValueError(f"{folder!r} can't be part of a key of {self!r}: it holds what is being written")
        path = self._root
        for name in names:
            path = f"{path}/{name}"
            try:
                linked = modes.S_ISLNK(os.lstat(path).st_mode)
            except OSError:
                return
            if linked:
                raise ValueError(f"{path!r} is a symbolic link: it may lead out of {self!r}, and is not followed")
        if len(self._plain) > _REMEMBERED:
            self._plain.clear()
        self._plain.add(folder)

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

    @contextmanager
    def _new(self) -> Iterator[tuple[int, str | int]]:
        """A file that nobody sees yet, and what ``_publish`` takes to give it a name."""
        descriptor, name = self._create()
        try:
            yield descriptor, name or descriptor
        finally:
            os.close(descriptor)
            if name:
                with suppress(FileNotFoundError):
                    os.unlink(name)

    def _create(self) -> tuple[int, str | None]:
        folder, name = self._root, None
        flags = os.O_WRONLY | os.O_CLOEXEC
        if self._nameless:
            flags |= os.O_TMPFILE
        else:
            folder = f"{self._root}/{UNFINISHED}"
            name = f"{folder}/{time.time_ns()}-{os.urandom(8).hex()}"
            flags |= os.O_CREAT | os.O_EXCL
        try:
            return os.open(name or folder, flags, 0o666), name
        except FileNotFoundError:
            self._make(folder)
        except OSError as error:
            if not self._nameless or error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
                raise
            self._nameless = False
        return self._create()

    def _complete(self, descriptor: int) -> None:
        if self._file_mode is not None:
            os.fchmod(descriptor, self._file_mode)
        if self.durable:
            os.fsync(descriptor)

    def _publish(self, source: str | int, path: str) -> None:
        """Give a complete file its name: an open one, or one that has a name already. Durable, unless nothing is."""
        folder = os.path.dirname(path)
        for _ in range(_RETRIES):
            try:
                _link(source, path)
                break
            except FileExistsError as error:
                raise FileExistsError(errno.EEXIST, f"{self!r} never overwrites a file", path) from error
            except FileNotFoundError:
                if isinstance(source, str) and not os.path.lexists(source):
                    raise
                with suppress(FileNotFoundError):  # pruned meanwhile
                    self._make(folder)
        else:
            raise FileNotFoundError(errno.ENOENT, "the folder was removed again and again", folder)
        if self.durable:
            self._anchor(folder)

    def _make(self, folder: str) -> None:
        above = os.path.dirname(folder)
        try:
            os.mkdir(folder)
        except FileExistsError:
            return
        except FileNotFoundError:
            self._make(above)
            self._make(folder)
            return
        if self._folder_mode is not None and folder.startswith(self._root):
            os.chmod(folder, self._folder_mode)
        if self.durable and not above.startswith(self._root):
            _fsync_folder(above)

    def _anchor(self, folder: str) -> None:
        """Flush a folder, and once all those above it, whoever made them."""
        self._flush(folder)
        with self._lock:  # not between the removal of a folder and its being forgotten
            if folder in self._anchored:
                return
        above = folder
        while above != self._root:
            above = os.path.dirname(above)
            self._flush(above)
        with suppress(PermissionError):  # a folder that isn't ours; whoever made the root had to flush it
            self._flush(os.path.dirname(self._root))
        with self._lock:
            if len(self._anchored) > _REMEMBERED:
                self._anchored.clear()
            self._anchored.add(folder)

    # Deleting

    def _prune(self, folder: str) -> None:
        """Remove a folder, and those above it, as far as they are empty; make that and the deletions in it durable."""
        while folder != self._root:
            with self._lock:
                try:
                    os.rmdir(folder)
                except FileNotFoundError:
                    pass
                except OSError:
                    break
                self._anchored.discard(folder)
            folder = os.path.dirname(folder)
        while self.durable:
            try:
                return self._flush(folder)
            except FileNotFoundError:
                if folder == self._root:
                    return None
                folder = os.path.dirname(folder)

    # Listing

    def _walk(self, prefix: str, after: str, before: str | None) -> Iterator[tuple[str, datetime]]:
        for key in self._inside(prefix, after, before):
            if key.endswith("/"):
                yield from self._walk(key, after, before)
                continue
            try:
                modified = _modified(os.lstat(f"{self._root}/{key}"))
            except FileNotFoundError:
                continue
            yield key, modified

    def _inside(self, prefix: str, after: str, before: str | None) -> list[str]:
        """The files and folders (which end in ``/``) that have or hold a key in question, in the order of keys."""
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


class _Flush:
    """Flushes folders to the disk. Who comes while a folder is being flushed waits for the next time, which serves all who wait."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next: dict[str, Future[None]] = {}
        self._current: dict[str, Future[None]] = {}

    def __call__(self, folder: str) -> None:
        with self._lock:
            others, current = self._next.get(folder), self._current.get(folder)
            mine: Future[None] = Future()
            self._next.setdefault(folder, mine)
        if others is not None:
            return others.result()
        if current is not None:
            wait([current])
        with self._lock:
            del self._next[folder]  # who comes from now on may have changed the folder after this began
            self._current[folder] = mine
        try:
            _fsync_folder(folder)
        except BaseException as error:
            mine.set_exception(error)
            raise
        else:
            mine.set_result(None)
        finally:
            with self._lock:
                if self._current.get(folder) is mine:
                    del self._current[folder]


class _Range(io.RawIOBase):
    """The bytes of a file from ``start`` up to and without ``end``, seen as a file of its own."""

    def __init__(self, file: BinaryIO, start: int, end: int | None) -> None:
        size = os.fstat(file.fileno()).st_size
        self._file = file
        self._start = min(start, size)
        self._size = max((size if end is None else min(end, size)) - self._start, 0)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(offset + (0, self._at, self._size)[whence], 0)
        return self._at

    def readinto(self, buffer: Any) -> int:
        count = min(len(buffer), max(self._size - self._at, 0))
        data = os.pread(self._file.fileno(), count, self._start + self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def _write(descriptor: int, stream: Readable) -> None:
    size = -1 if isinstance(stream, io.BytesIO) else CHUNK  # what is in memory goes at once
    while chunk := stream.read(size):
        rest = memoryview(chunk)
        while rest:
            rest = rest[os.write(descriptor, rest) :]


def _link(source: str | int, path: str) -> None:
    if isinstance(source, str):
        os.link(source, path, follow_symlinks=False)
    else:
        # The descriptor given as a folder means nothing; it makes Python call linkat, which alone can follow to the open file.
        os.link(f"/proc/self/fd/{source}", path, src_dir_fd=source, follow_symlinks=True)


def _fsync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that has no such thing
            raise
    finally:
        os.close(descriptor)


def _open_plain(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW)


def _modified(found: os.stat_result) -> datetime:
    return datetime.fromtimestamp(found.st_mtime, UTC)
