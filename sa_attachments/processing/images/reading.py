"""Reading: the file that Pillow sees. It gives only so many bytes, for so long, and remembers whose fault an error was.

>>> import io
>>> file = Watched(io.BytesIO(b"abcdef"))
>>> file.allow(4, seconds=10)
>>> file.read(3)
b'abc'
>>> file.read(3)
Traceback (most recent call last):
sa_attachments.processing.images.reading.Exceeded: more than 4 bytes were read

Parsers that a crafted file keeps busy, by millions of empty blocks or a comment that is put together piece by piece,
read while they are busy.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import BinaryIO


class Exceeded(Exception):
    """More bytes, or more seconds, than pictures of that size need."""

    def __init__(self, limit: float, unit: str) -> None:
        super().__init__(f"more than {limit:,} {unit} were {'read' if unit == 'bytes' else 'spent'}")
        self.limit = limit


class Watched:
    """A seekable file to read from."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: BaseException | None = None
        """What went wrong in the file itself, whatever the reader made of it."""
        self.allow(0, 0)

    def allow(self, limit: int, seconds: float) -> None:
        """Let so many bytes be read from now on, for so long."""
        self._limit = self._room = limit
        self._seconds, self._until = seconds, monotonic() + seconds

    def read(self, size: int | None = -1, /) -> bytes:
        """As of files; ``Exceeded`` beyond the limit."""
        return self._bounded(self._file.read, -1 if size is None else size)

    def readline(self, size: int | None = -1, /) -> bytes:
        """As of files; ``Exceeded`` beyond the limit."""
        return self._bounded(self._file.readline, -1 if size is None else size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """As of files."""
        # Pillow seeks where broken files send it; what that raises is not the source's fault.
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """As of files."""
        return self._file.tell()

    def close(self) -> None:
        """Stay open: the file belongs to whoever opened it."""

    def _bounded(self, read: Callable[[int], bytes], size: int) -> bytes:
        most = self._room + 1
        try:
            data = read(most if size < 0 else min(size, most))
            self._room -= len(data)
            if self._room < 0:
                raise Exceeded(self._limit, "bytes")
            if monotonic() > self._until:
                raise Exceeded(self._seconds, "seconds")
        except BaseException as error:
            self.error = error
            raise
        return data
