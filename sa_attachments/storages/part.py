"""Part: some bytes, as a piece of an open file, seen as a file of their own.

>>> import tempfile
>>> file = tempfile.TemporaryFile()
>>> file.write(b"0123456789"), file.flush()
(10, None)
>>> with part(file, 3, 7) as piece: piece.read(2), piece.seek(-1, 2), piece.read(), piece.seek(0), piece.read()
(b'34', 3, b'6', 0, b'3456')
>>> file.closed
True
"""

from __future__ import annotations

import io
import os
from abc import ABC, abstractmethod
from typing import Any, BinaryIO, cast


def part(file: BinaryIO, start: int, end: int | None) -> BinaryIO:
    """A seekable, buffered file of the bytes from ``start`` up to and without ``end``, as far as there are any.

    ``file`` needs a descriptor, and is closed with it; its own position doesn't matter.
    """
    return cast(BinaryIO, io.BufferedReader(_OfFile(file, start, end)))


class Part(io.RawIOBase, ABC):
    """So many bytes, wherever they are."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._at = 0

    @abstractmethod
    def _some(self, wanted: int) -> bytes:
        """At most ``wanted`` of those that are at the position; there are so many."""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        target = offset + (0, self._at, self._size)[whence]
        if target < 0:
            raise ValueError(f"negative seek position {target}")
        self._at = target
        return target

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self._size - self._at)
        data = self._some(wanted) if wanted > 0 else b""
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


class _OfFile(Part):
    def __init__(self, file: BinaryIO, start: int, end: int | None) -> None:
        size = os.fstat(file.fileno()).st_size
        self._file = file
        self._start = min(start, size)
        super().__init__(max((size if end is None else min(end, size)) - self._start, 0))

    def _some(self, wanted: int) -> bytes:
        return os.pread(self._file.fileno(), wanted, self._start + self._at)

    def close(self) -> None:
        self._file.close()
        super().close()
