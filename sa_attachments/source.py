"""Sources: where the bytes of a new attachment come from, whatever the user has at hand.

``source(anything)`` wraps it without reading it:

>>> source(b"abc").size(), source(b"abc").open().read()
(3, b'abc')
>>> source("abc")
Traceback (most recent call last):
sa_attachments.errors.BadSource: text is no source of bytes: encode it, or pass a pathlib.Path if 'abc' names a file

A source is *replayable* if it can be read again from where it stood when it was wrapped: bytes, paths, seekable files. The others
(pipes, sockets, iterators) are read once; whoever asks for ``open`` first gets them spooled to a temporary file, whoever asks for
``stream`` reads them straight through.
"""

from __future__ import annotations

import asyncio
import io
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from .errors import BadSource, FileMissing, SourceConsumed
from .storage import Readable

CHUNK = 256 * 1024
"""Bytes that are read at a time."""

SPOOL_MEMORY = 1024 * 1024
"""Bytes of a spooled one-shot source that are kept in memory; the rest is on disk."""

event_loop: ContextVar[asyncio.AbstractEventLoop] = ContextVar("event_loop")
"""In a worker thread of an asyncio application: the loop that async sources belong to."""


class Source(Protocol):
    """Bytes to be stored."""

    @property
    def shared(self) -> object | None:
        """The object whose position reading moves: sources that share one are read one after the other."""
        ...

    def size(self) -> int | None:
        """Number of bytes, if it is known without reading."""
        ...

    def open(self) -> BinaryIO:
        """A seekable binary file at the beginning; SourceConsumed if that is gone."""
        ...

    def stream(self) -> Readable:
        """The bytes from the beginning, to be read once; SourceConsumed if they are gone."""
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

    def open(self) -> BinaryIO:
        return io.BytesIO(self._data)

    def stream(self) -> Readable:
        return io.BytesIO(self._data)

    def path(self) -> None:
        return None


class PathSource:
    """A file of this machine, opened when it is read."""

    def __init__(self, path: Path) -> None:
        if path.is_dir():
            raise BadSource(f"{str(path)!r} is a directory, expected a file")
        if not path.exists():
            raise FileMissing(f"there is no file {str(path)!r} (working directory: {str(Path.cwd())!r})")
        self._path = path.absolute()
        self.shared = None

    def size(self) -> int | None:
        return self._path.stat().st_size if self._path.is_file() else None

    def open(self) -> BinaryIO:
        return self._path.open("rb")

    def stream(self) -> Readable:
        return self._path.open("rb", buffering=0)

    def path(self) -> Path:
        return self._path


class FileSource:
    """A seekable binary file, from where it stood; it stays open, and belongs to the caller."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._start = file.tell()
        self.shared = file

    def size(self) -> int:
        self._check()
        here = self._file.tell()
        end = self._file.seek(0, io.SEEK_END)
        self._file.seek(here)
        return end - self._start

    def open(self) -> BinaryIO:
        self._check()
        return cast(BinaryIO, io.BufferedReader(_Window(self._file, self._start)))

    def stream(self) -> Readable:
        self._check()
        self._file.seek(self._start)
        return self._file

    def path(self) -> None:
        return None

    def _check(self) -> None:
        if self._file.closed:
            raise SourceConsumed(f"{self._file!r} was closed before it was stored: keep it open until commit, or assign its bytes")


class OnceSource:
    """Bytes that can be read once: the chunks of an iterator, a pipe, a socket."""

    def __init__(self, chunks: Iterator[bytes], origin: object) -> None:
        self._chunks: Iterator[bytes] | None = chunks
        self._spool: FileSource | None = None
        self._seen = b""
        self.shared = origin

    def size(self) -> int | None:
        return self._spool.size() if self._spool else None

    def open(self) -> BinaryIO:
        if self._spool is None:
            file = tempfile.SpooledTemporaryFile(max_size=SPOOL_MEMORY)
            shutil.copyfileobj(self.stream(), file, CHUNK)
            file.seek(0)
            self._spool = FileSource(cast(BinaryIO, file))
        return self._spool.open()

    def head(self, size: int) -> bytes:
        """The first bytes, which stay to be read."""
        if self._chunks is None or self._spool is not None:
            with self.open() as file:
                return file.read(size)
        while len(self._seen) < size and (chunk := self._next()):
            self._seen += chunk
        return self._seen[:size]

    def stream(self) -> Readable:
        if self._spool is not None:
            return self._spool.stream()
        if self._chunks is None:
            raise SourceConsumed(f"{self.shared!r} could be read only once, and was: assign a fresh source")
        chunks, seen = self._chunks, self._seen
        self._chunks, self._seen = None, b""
        return ChunkReader(_checked(chunks), seen)

    def path(self) -> None:
        return None

    def _next(self) -> bytes:
        assert self._chunks is not None
        return next(_checked(self._chunks), b"")


class ChunkReader:
    """A readable over chunks of bytes."""

    def __init__(self, chunks: Iterator[bytes], seen: bytes = b"") -> None:
        self._chunks = chunks
        self._rest = memoryview(seen)

    def read(self, size: int = -1, /) -> bytes:
        if size < 0:
            return bytes(self._rest) + b"".join(self._chunks)
        if not self._rest:
            self._rest = memoryview(next(self._chunks, b""))
        taken, self._rest = self._rest[:size], self._rest[size:]
        return bytes(taken)


def head(source: Source, size: int) -> bytes:
    """The first ``size`` bytes of a source, without using it up."""
    if isinstance(source, OnceSource):
        return source.head(size)
    with source.open() as file:
        return file.read(size)


def source(value: Any) -> Source:
    """Wrap what a user assigned; nothing is read. Raises BadSource, or FileMissing for a path without a file."""
    match value:
        case bytes() | bytearray() | memoryview():
            return BytesSource(value)
        case Path():
            return PathSource(value)
        case str():
            raise BadSource(f"text is no source of bytes: encode it, or pass a pathlib.Path if {value[:60]!r} names a file")
        case dict():
            raise BadSource("a dict is no source of bytes: attachments are not rebuilt from JSON (see Storages.bind)")
    if (inner := _inner(value)) is not value:
        return source(inner)
    if hasattr(value, "read"):
        return _file(value)
    if hasattr(value, "__aiter__"):
        return OnceSource(_from_loop(value.__aiter__()), value)
    if isinstance(value, Iterator | Iterable):
        return OnceSource(iter(value), value)
    raise BadSource(
        f"{type(value).__name__} is no source of bytes: expected bytes, a pathlib.Path, a binary file, an iterator of bytes or an upload"
    )


def described(value: Any) -> tuple[str | None, str | None]:
    """``(filename, content_type)`` as the source itself tells them: what the client of an upload said, or the name of a file."""
    if isinstance(value, Path):
        return value.name, None
    if isinstance(value, bytes | bytearray | memoryview):
        return None, None
    name = getattr(value, "filename", None) or getattr(value, "name", None)
    content_type = getattr(value, "content_type", None)
    return (name if isinstance(name, str) and name else None), (content_type if isinstance(content_type, str) else None)


def _inner(value: Any) -> Any:
    """The file inside an upload object: Starlette's and Litestar's ``file``, Werkzeug's ``stream``, Django's ``file``."""
    if hasattr(value, "filename") or hasattr(value, "content_type"):
        for attribute in ("file", "stream"):
            inner = getattr(value, attribute, None)
            if hasattr(inner, "read"):
                return inner
    return value


def _file(file: Any) -> Source:
    if getattr(file, "closed", False):
        raise BadSource(f"{file!r} is closed: expected an open binary file")
    if isinstance(file, io.TextIOBase) or isinstance(getattr(file, "mode", None), str) and "b" not in file.mode and hasattr(file, "encoding"):
        raise BadSource(f"{file!r} is open for text: open it with mode 'rb'")
    if isinstance(file, io.IOBase) and not file.readable():
        raise BadSource(f"{file!r} is not open for reading")
    seekable = file.seekable() if hasattr(file, "seekable") else hasattr(file, "seek") and hasattr(file, "tell")
    if seekable:
        return FileSource(cast(BinaryIO, file))
    read: Callable[[int], bytes] = file.read
    return OnceSource(iter(lambda: read(CHUNK), b""), file)


def _checked(chunks: Iterator[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        if not isinstance(chunk, bytes | bytearray | memoryview):
            raise BadSource(f"the source gave {type(chunk).__name__} where bytes are due")
        if len(chunk):
            yield bytes(chunk)


def _from_loop(chunks: AsyncIterator[bytes]) -> Iterator[bytes]:
    """Pull an async iterator from a worker thread, chunk by chunk, while its loop is free."""

    async def pull() -> bytes | None:
        return await anext(chunks, None)

    while True:
        try:
            loop = event_loop.get()
        except LookupError:
            raise BadSource(
                "an async iterator can be stored only under asyncio: use AsyncSession, or await Storages.astage(attachment)"
            ) from None
        chunk = asyncio.run_coroutine_threadsafe(pull(), loop).result()
        if chunk is None:
            return
        yield chunk


class _Window(io.RawIOBase):
    """A file from ``start`` on, seen as a file of its own; closing it leaves the file open."""

    def __init__(self, file: BinaryIO, start: int) -> None:
        self._file = file
        self._start = start
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_CUR:
            offset += self._at
        elif whence == io.SEEK_END:
            offset += self._file.seek(0, io.SEEK_END) - self._start
        self._at = max(offset, 0)
        return self._at

    def readinto(self, buffer: Any) -> int:
        self._file.seek(self._start + self._at)
        data = self._file.read(len(buffer))
        if not isinstance(data, bytes | bytearray):
            raise BadSource(f"{self._file!r} gave {type(data).__name__} where bytes are due")
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
