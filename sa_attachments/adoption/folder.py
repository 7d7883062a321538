# ruff: noqa: PTH102, PTH106, PTH108, PTH110, PTH112, PTH118, PTH120, PTH123
# This module resolves links and works with descriptors; pathlib would hide that.
"""Folder: the root that paths may not leave.

>>> import tempfile
>>> with tempfile.TemporaryDirectory() as name:
...     folder = Folder(Path(name))
...     _ = Path(name, "a").write_bytes(b"hello")
...     Path(name, "way out").symlink_to("/etc/hostname")
...     with folder.opened("a") as path:
...         path.read_bytes()
...     folder.find("way out")
Traceback (most recent call last):
sa_attachments.adoption.taking.Unadoptable: 'way out' leads out of ...
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ..descriptor import Facts
from ..errors import BadConfiguration
from ..source import CHUNK
from .taking import Unadoptable, refuse_notes


class Folder:
    """A folder of this machine. BadConfiguration if it is not there."""

    def __init__(self, path: Path) -> None:
        self.path = os.path.realpath(path)
        if not os.path.isdir(self.path):
            raise BadConfiguration(f"there is no folder {str(path)!r} for paths to be below")
        self._made: set[str] = set()

    def find(self, path: str) -> str:
        """Where a file really lies. Raises Unadoptable: ``outside``, ``missing``, ``unreadable``."""
        try:
            real = self._inside(os.path.join(self.path, path), path)
            found = os.lstat(real)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                raise Unadoptable("missing", f"there is no file {path!r} in {self.path!r}") from error
            raise Unadoptable("unreadable", f"{path!r} can't be looked at: {error.strerror}") from error
        self._check_regular(found, path)
        refuse_notes(os.path.relpath(real, self.path))
        return real

    def straight(self, path: str) -> str:
        """The path below the folder without detours; Unadoptable if a link lies on the way."""
        real = self.find(path)
        plain = os.path.normpath(os.path.join(self.path, path))
        if real != plain:
            raise Unadoptable("name", f"{path!r} goes by a link: adopt it by mode='copy', or say fallback='copy'")
        return os.path.relpath(real, self.path)

    def places(self, path: str) -> set[str]:
        """The real paths of what a path names: of the file, and of a link that leads to it."""
        folder, name = os.path.split(os.path.normpath(os.path.join(self.path, path)))
        return {os.path.realpath(os.path.join(self.path, path)), os.path.join(os.path.realpath(folder), name)}

    @contextmanager
    def opened(self, path: str, *, linking: bool = False) -> Iterator[Path]:
        """The file, open, under a name that goes on meaning it whatever becomes of the path; Unadoptable too if it was
        changed meanwhile. ``linking`` sets its time.
        """
        real = self.find(path)
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            descriptor = os.open(real, flags)
        except OSError as error:
            kind = "missing" if error.errno == errno.ENOENT else "unreadable"
            raise Unadoptable(kind, f"{path!r} can't be opened: {error.strerror}") from error
        try:
            before = os.fstat(descriptor)
            self._check_regular(before, path)
            name = f"/proc/self/fd/{descriptor}"
            if os.path.exists(name):
                self._inside(name, path)  # a folder on the way may have become a link since
            else:
                name = real
            yield Path(name)
            after = os.fstat(descriptor)
            if before.st_size != after.st_size or (before.st_mtime_ns != after.st_mtime_ns and not linking):
                raise Unadoptable("overtaken", f"{path!r} was changed while it was read")
        finally:
            os.close(descriptor)

    def write(self, path: str, facts: Facts, chunks: Callable[[], Iterator[bytes]]) -> bool:
        """Let these bytes lie at the path, durably; False if others do, which are never replaced."""
        target = os.path.normpath(os.path.join(self.path, path))
        self._inside(os.path.dirname(target), path)
        if os.path.lexists(target):
            return self._holds(path, facts)
        folder = os.path.dirname(target)
        self._make(folder)
        with _new(folder) as (file, name):
            file.writelines(chunks())
            file.flush()
            os.fsync(file.fileno())
            try:
                # Beside an absolute path it means nothing, but makes Python call linkat, which follows to the file.
                os.link(name, target, src_dir_fd=file.fileno(), follow_symlinks=True)
            except FileExistsError:
                return self._holds(path, facts)
        _flush(folder)
        return True

    def remove(self, path: str) -> None:
        """Delete a file that was written, and the folders that were made for it, as far as they are empty."""
        target = os.path.normpath(os.path.join(self.path, path))
        with suppress(FileNotFoundError):
            os.unlink(target)
        folder = os.path.dirname(target)
        with suppress(OSError):  # not empty
            while folder in self._made:
                os.rmdir(folder)
                self._made.discard(folder)
                folder = os.path.dirname(folder)
        _flush(folder)

    def _holds(self, path: str, facts: Facts) -> bool:
        try:
            with self.opened(path) as found, found.open("rb", buffering=0) as file:
                if os.fstat(file.fileno()).st_size != facts["size"]:
                    return False
                digest = hashlib.sha256()
                while chunk := file.read(CHUNK):
                    digest.update(chunk)
        except Unadoptable:
            return False
        return digest.hexdigest() == str(facts["sha256"])

    def _make(self, folder: str) -> None:
        missing = []
        while not os.path.isdir(folder):
            missing.append(folder)
            folder = os.path.dirname(folder)
        for each in reversed(missing):
            with suppress(FileExistsError):
                os.mkdir(each)
                self._made.add(each)
            _flush(os.path.dirname(each))

    def _inside(self, path: str, said: str) -> str:
        real = os.path.realpath(path)
        if real != self.path and not real.startswith(self.path.rstrip("/") + "/"):
            raise Unadoptable("outside", f"{said!r} leads out of {self.path!r}")
        return real

    def _check_regular(self, found: os.stat_result, path: str) -> None:
        if not stat.S_ISREG(found.st_mode):
            raise Unadoptable("unreadable", f"{path!r} is no regular file")


@contextmanager
def _new(folder: str) -> Iterator[tuple[BinaryIO, str]]:
    """A file that has no name until it is given one, so that none is left if this process is killed; where the file
    system can't do that, a hidden one. With the name that it can be linked by.
    """
    try:
        descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o666)
        name = f"/proc/self/fd/{descriptor}"
    except (AttributeError, OSError):
        name = os.path.join(folder, f".{os.urandom(8).hex()}.part")
        descriptor = os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
    try:
        with open(descriptor, "wb") as file:
            yield file, name
    finally:
        if name.endswith(".part"):
            os.unlink(name)


def _flush(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
