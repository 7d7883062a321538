"""Sources: where the bytes of a new attachment come from. ``intake`` makes them of what users have at hand.

>>> once = OnceSource(iter([b"ab", b"c"]), "a pipe")
>>> once.head(1), once.size(), once.open().read(), once.size()
(b'a', None, b'abc', 3)

A source is *replayable* if it can be read again from its beginning: bytes, paths, seekable files. The others (pipes,
sockets, iterators) are read once; whoever asks for ``open`` first gets them spooled to a temporary file, whoever asks
for ``stream`` reads them straight through.
"""

from __future__ import annotations

import io
import os
import tempfile
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from .errors import BadSource, FileMissing, SourceConsumed
from .storage import Readable

CHUNK = 256 * 1024
"""Bytes that are read at a time."""

SPOOL_MEMORY = 1024 * 1024
"""Bytes of a spooled one-shot source that are kept in memory; the rest is on disk."""

Guards = tuple[Callable[[int], None], ...]
"""Called with the number of bytes so far while bytes stream; may raise ``Refused``."""


class Source(Protocol):
    """Bytes to be stored."""

    @property
    def shared(self) -> object | None:
        """The object whose position reading moves: sources that share one are read one after the other."""
        ...

    def size(self) -> int | None:
        """Number of bytes, if it is known without reading."""
        ...

    def head(self, size: int) -> bytes:
        """The first ``size`` bytes, without using them up."""
        ...

    def open(self, guards: Guards = ()) -> BinaryIO:
        """A seekable binary file at the beginning; SourceConsumed if that is gone.

        ``guards`` watch over bytes that have to be spooled first.
        """
        ...

    def stream(self) -> Readable:
        """The bytes from the beginning, to be read once; SourceConsumed if they are gone.

        Where nothing is ``shared``, the reader closes it.
        """
        ...

    def path(self) -> Path | None:
        """The local file that holds exactly these bytes, if there is one."""
        ...


class BytesSource:
    """Bytes in memory. Mutable buffers are copied, so that later changes don't matter."""

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._data = bytes(data)
        self.shared = None

    def size(self) -> int:
        return len(self._data)

    def head(self, size: int) -> bytes:
        return self._data[:size]

    def open(self, guards: Guards = ()) -> BinaryIO:
        return io.BytesIO(self._data)

    def stream(self) -> Readable:
        return io.BytesIO(self._data)

    def path(self) -> None:
        return None


class PathSource:
    """A file of this machine, opened when it is read."""

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self._read: os.stat_result | None = None
        self.shared = None

    def size(self) -> int | None:
        with still_there(self._path):
            return self._path.stat().st_size or None  # files of /proc say 0 and have bytes

    def head(self, size: int) -> bytes:
        with self.stream() as file:
            return file.read(size)

    def open(self, guards: Guards = ()) -> BinaryIO:
        with still_there(self._path):
            return self._path.open("rb")

    def stream(self) -> io.FileIO:
        with still_there(self._path):
            file = self._path.open("rb", buffering=0)
        self._read = os.fstat(file.fileno())  # not by open: variants use it when the file is stored already
        return file

    def path(self) -> Path:
        return self._path

    def is_as_read(self, taken: bool = False) -> bool:
        """Whether it is what was read: nobody put another file into its place since, or wrote into it. A storage that
        has ``taken`` it just now has set its time.
        """
        with suppress(OSError):
            read, now = self._read, self._path.stat()
            if read is not None and os.path.samestat(read, now):
                self._read = now if taken else read
                return taken or (read.st_mtime_ns, read.st_size) == (now.st_mtime_ns, now.st_size)
        return False


class FileSource:
    """A seekable binary file, all of it; it stays open, and belongs to the caller."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.shared = file

    def size(self) -> int:
        with self._where_it_stands():
            return self.seek(0, io.SEEK_END)

    def head(self, size: int) -> bytes:
        with self._where_it_stands():
            self.seek(0)
            return self.read(size)

    def open(self, guards: Guards = ()) -> BinaryIO:
        self._check()
        return cast(BinaryIO, io.BufferedReader(Window(self)))

    def stream(self) -> Readable:
        self.seek(0)
        return self

    def path(self) -> None:
        return None

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As a file's ``seek``, which in some files returns nothing."""
        self._check()
        self._file.seek(offset, whence)
        return self._file.tell()

    def read(self, size: int = -1, /) -> bytes:
        """The file's next bytes; BadSource if it gives anything else."""
        self._check()
        return _bytes(self._file.read(size), self._file)

    @contextmanager
    def _where_it_stands(self) -> Iterator[None]:
        self._check()
        here = self._file.tell()
        try:
            yield
        finally:
            self._file.seek(here)

    def _check(self) -> None:
        if getattr(self._file, "closed", False):
            raise SourceConsumed(
                f"{self._file!r} was closed before it was stored: keep it open until commit, or assign its bytes"
            )


class OnceSource:
    """Bytes that can be read once: the chunks of an iterator, a pipe, a socket."""

    def __init__(self, chunks: Iterator[bytes], origin: object) -> None:
        self._chunks: Iterator[bytes] | None = chunks
        self._spool: FileSource | None = None
        self._seen = b""
        self._begun = False
        self.shared = origin

    def size(self) -> int | None:
        return self._spool.size() if self._spool else None

    def head(self, size: int) -> bytes:
        if self._spool is not None:
            return self._spool.head(size)
        chunks = self._begin()
        while len(self._seen) < size and (chunk := next(chunks, b"")):
            self._seen += chunk
        return self._seen[:size]

    def open(self, guards: Guards = ()) -> BinaryIO:
        if self._spool is None:
            self._spool = _spooled(self.stream(), guards)
        return self._spool.open()

    def stream(self) -> Readable:
        if self._spool is not None:
            return self._spool.stream()
        chunks, seen = self._begin(), self._seen
        self._chunks, self._seen = None, b""
        return ChunkReader(chunks, seen)

    def path(self) -> None:
        return None

    def _begin(self) -> Iterator[bytes]:
        chunks, origin = self._chunks, self.shared
        # A generator that somebody else ran to its end would be taken for an empty file.
        spent = getattr(origin, "gi_frame", origin) is None or getattr(origin, "ag_frame", origin) is None
        if chunks is None or (spent and not self._begun):
            raise SourceConsumed(f"{origin!r} could be read only once, and was: assign a fresh source")
        self._begun = True
        return (data for chunk in chunks if (data := _bytes(chunk, origin)))


class ChunkReader:
    """A readable over chunks of bytes."""

    def __init__(self, chunks: Iterator[bytes], seen: bytes = b"") -> None:
        self._chunks = chunks
        self._rest = memoryview(seen)

    def read(self, size: int = -1, /) -> bytes:
        if size < 0:
            taken, self._rest = bytes(self._rest) + b"".join(self._chunks), memoryview(b"")
            return taken
        if not self._rest:
            chunk = next(self._chunks, b"")
            if len(chunk) <= size:
                return chunk
            self._rest = memoryview(chunk)
        piece, self._rest = self._rest[:size], self._rest[size:]
        return bytes(piece)


@contextmanager
def still_there(path: Path) -> Iterator[None]:
    """A path that was wrapped and is gone becomes FileMissing."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileMissing(f"the file {str(path)!r} was there when it was assigned, and is gone") from error


def _spooled(stream: Readable, guards: Guards) -> FileSource:
    file = tempfile.SpooledTemporaryFile(max_size=SPOOL_MEMORY)  # noqa: SIM115 - open for as long as the source is used
    try:
        size = 0
        while chunk := stream.read(CHUNK):
            size += len(chunk)
            for guard in guards:
                guard(size)
            try:
                file.write(chunk)
            except OSError as error:
                error.filename = tempfile.tempdir  # which disk is full, not that of the storage
                raise
    except BaseException:
        file.close()
        raise
    spool = FileSource(cast(BinaryIO, file))
    weakref.finalize(spool, file.close)
    return spool


def _bytes(data: Any, origin: object) -> bytes:
    if isinstance(data, bytes):
        return data
    if isinstance(data, bytearray | memoryview):
        return bytes(data)
    raise BadSource(f"{origin!r} gave {type(data).__name__} where bytes are due")


class Window(io.RawIOBase):
    """The bytes of a file from ``start`` up to ``end``, seen as a file of its own, with its own position.

    Closing it leaves the file open, unless ``on_close`` says otherwise.
    """

    def __init__(
        self,
        file: BinaryIO | FileSource,
        start: int = 0,
        end: int | None = None,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        self._file = file
        self._start = start
        self._end = end
        self._on_close = on_close
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_CUR:
            offset += self._at
        elif whence == io.SEEK_END:
            end = self._file.seek(0, io.SEEK_END)
            offset += max((end if self._end is None else min(end, self._end)) - self._start, 0)
        if offset < 0:
            raise ValueError(f"negative seek position {offset}")
        self._at = offset
        return offset

    def readinto(self, buffer: Any) -> int:
        at = self._start + self._at
        wanted = len(buffer) if self._end is None else max(min(len(buffer), self._end - at), 0)
        self._file.seek(at)
        data = self._file.read(wanted)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._on_close()
        super().close()
