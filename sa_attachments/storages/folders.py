# ruff: noqa: PTH101, PTH102, PTH106, PTH110, PTH114, PTH120
# This module counts system calls; pathlib would hide them.
"""Folders: those of a local storage, made when they are needed, flushed to the disk, removed when they are empty.

>>> import tempfile
>>> with tempfile.TemporaryDirectory() as root:
...     folders = Folders(root)
...     folders.make(f"{root}/2026/01")
...     folders.flush(f"{root}/2026/01")
...     folders.prune(f"{root}/2026/01")
...     os.listdir(root)
[]

Traps
-----
A folder may be removed between any two of these calls, by another thread or process: whoever puts something into one
makes it again on ``FileNotFoundError``.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from sa_attachments.lock import Lock

_REMEMBERED = 10_000
_ATTEMPTS = 10  # to make a folder while others remove those above it


class Folders:
    """The folders at and below ``root``, an absolute path. ``mode`` is given to new ones, whatever the umask.

    Not ``durable`` means that nothing is flushed.
    """

    def __init__(self, root: str, *, durable: bool = True, mode: int | None = None) -> None:
        self._root = root
        self._durable = durable
        self._mode = mode
        self._lock = Lock()
        self._anchored: set[str] = set()  # folders that are on the disk, with all above them
        self._plain: set[str] = set()  # folders that are no symbolic links, nor is any above them

    def make(self, folder: str) -> None:
        """Make it and what is missing above it, the root and the folders above the root included."""
        above = os.path.dirname(folder)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                os.mkdir(folder)
                self._anchored.discard(folder)  # Another process has removed it.
                break
            except FileExistsError:
                if os.path.islink(folder) and not os.path.exists(folder):
                    raise FileNotFoundError(
                        errno.ENOENT, "the link leads nowhere; is its volume mounted?", folder
                    ) from None
                return
            except FileNotFoundError:
                if attempt == _ATTEMPTS:  # some file systems take no folders, as /proc
                    raise
                self.make(above)
        if self._mode is not None and len(folder) >= len(self._root):
            # As for chmod(1), a folder that gives its group to what is in it goes on with that.
            os.chmod(folder, self._mode | os.lstat(folder).st_mode & stat.S_ISGID)
        if self._durable and len(above) < len(self._root):
            _fsync(above)

    def flush(self, folder: str) -> None:
        """Flush what was put into a folder; the first time those above it too, whoever made them.

        One flush for each file, although one could serve several threads: a file system shares its journal's writes
        better than we do (ext4, 8 threads: 0.23 ms a file so, 0.26 ms when threads waited for each other's flushes).
        """
        if not self._durable:
            return
        _fsync(folder)
        with self._lock():  # not between the removal of a folder and its being forgotten
            if folder in self._anchored:
                return
        above = folder
        while above != self._root:
            above = os.path.dirname(above)
            _fsync(above)
        with suppress(PermissionError):  # if it isn't ours to read, it was there before the root
            _fsync(os.path.dirname(self._root))
        with self._lock():
            if len(self._anchored) > _REMEMBERED:
                self._anchored.clear()
            self._anchored.add(folder)

    def prune(self, folder: str) -> None:
        """Remove a folder and those above it as far as they are empty, and flush what was removed from it."""
        while folder != self._root and self._remove(folder):
            folder = os.path.dirname(folder)
        while self._durable:
            try:
                _fsync(folder)
            except (FileNotFoundError, NotADirectoryError):
                if folder == self._root:
                    return
                folder = os.path.dirname(folder)
            else:
                return

    def check(self, folder: str) -> None:
        """ValueError if a folder, given relative to the root, is or lies behind a symbolic link.

        Looked up once for each: who could put a link there later needs no keys to reach the files.
        """
        if folder in self._plain:
            return
        path = self._root
        for name in folder.split("/"):
            path = f"{path}/{name}"
            try:
                linked = stat.S_ISLNK(os.lstat(path).st_mode)
            except OSError:
                return
            if linked:
                raise ValueError(f"{path!r} is a symbolic link, and is not followed")
        if len(self._plain) > _REMEMBERED:
            self._plain.clear()
        self._plain.add(folder)

    def _remove(self, folder: str) -> bool:
        with self._lock():
            try:
                os.rmdir(folder)
            except FileNotFoundError:
                return True
            except OSError:
                return False  # not empty, or not to be removed by us
            self._anchored.discard(folder)
            self._plain.discard(os.path.relpath(folder, self._root))
            return True


def _fsync(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # the file system has no such thing
            raise
    finally:
        os.close(descriptor)
