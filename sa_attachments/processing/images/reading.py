"""Reading: the file that Pillow sees, which gives only so many bytes, and remembers whose fault an error was.

>>> import io
>>> file = Watched(io.BytesIO(b"abcdef"))
>>> file.allow(4)
>>> file.read(3)
b'abc'
>>> file.read(3)
Traceback (most recent call last):
sa_attachments.processing.images.reading.TooMuch: more than 4 bytes were read
"""

from __future__ import annotations

from typing import BinaryIO


class TooMuch(Exception):
    """More was read of a file than pictures of its size need."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"more than {limit:,} bytes were read")
        self.limit = limit


class Watched:
    """A seekable file to read from."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._limit = self._room = 0
        self.error: BaseException | None = None
        """What went wrong in the file itself, whatever the reader made of it."""

    def allow(self, limit: int) -> None:
        """Let so many bytes be read from now on."""
        self._limit = self._room = limit

    def read(self, size: int | None = -1, /) -> bytes:
        """As of files; ``TooMuch`` beyond the limit."""
        return self._bounded(self._file.read, -1 if size is None else size)

    def readline(self, size: int | None = -1, /) -> bytes:
        """As of files; ``TooMuch`` beyond the limit."""
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

    def _bounded(self, read: object, size: int) -> bytes:
        most = self._room + 1
        try:
            data: bytes = read(most if size < 0 else min(size, most))  # type: ignore[operator]
        except BaseException as error:
            self.error = error
            raise
        self._room -= len(data)
        if self._room < 0:
            self.error = TooMuch(self._limit)
            raise self.error
        return data
