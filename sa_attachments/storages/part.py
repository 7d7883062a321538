"""Part: a piece of an open file, seen as a file of its own.

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
from typing import Any, BinaryIO, cast


def part(file: BinaryIO, start: int, end: int | None) -> BinaryIO:
    """A seekable, buffered file of the bytes from ``start`` up to and without ``end``, as far as there are any.

    ``file`` needs a descriptor, and is closed with it; its own position doesn't matter.
    """
    return cast(BinaryIO, io.BufferedReader(_Part(file, start, end)))


class _Part(io.RawIOBase):
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
