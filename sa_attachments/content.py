"""Content: all ways of reading what can be opened, in the calling thread and, under asyncio, beside the event loop.

>>> import io
>>> class Hello(Content):
...     filename = "hello.txt"
...     def _open(self, start, end): return io.BytesIO(b"hello"[start:end])
...     def _size(self): return 5
...     def _local(self): return None
>>> Hello().read(1, 3), Hello().read_text(), list(Hello().chunks(2))
(b'el', 'hello', [b'he', b'll', b'o'])
>>> with Hello().path() as path: path.name, path.read_bytes()
('file.txt', b'hello')
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, Generic, ParamSpec, TypeVar

from . import filename as filenames
from .errors import FileDamaged
from .pulls import Pulls, pulls, running_loop
from .source import CHUNK, Guards
from .storage import Readable

C = TypeVar("C", bound="Content")
P = ParamSpec("P")
T = TypeVar("T")


class Content:
    """Bytes that can be read. Subclasses say where they are: ``_open``, ``_size``, ``_local``, and their filename."""

    __slots__ = ()

    @property
    def filename(self) -> str:
        """The display name; a copy has its extension."""
        raise NotImplementedError

    def _open(self, start: int, end: int | None) -> BinaryIO:
        """See ``open``; the range is checked."""
        raise NotImplementedError

    def _size(self) -> int | None:
        """Number of bytes that there have to be, if it is known."""
        raise NotImplementedError

    def _local(self) -> Path | None:
        """The file of this machine that holds the bytes, if there is one."""
        raise NotImplementedError

    def _reading(self) -> AbstractContextManager[None]:
        """What failures while reading become."""
        return nullcontext()

    def open(self, start: int = 0, end: int | None = None) -> BinaryIO:
        """A seekable, buffered binary file of the bytes from ``start`` up to and without ``end``.

        FileMissing if they are gone; for a new one SourceConsumed.
        """
        if not hasattr(start, "__index__"):
            raise TypeError(
                f"files are open for reading bytes; {start!r} is no position to begin at, and no mode is needed"
            )
        if start < 0 or (end is not None and end < 0):
            raise ValueError(f"a range counts from the beginning, not {start} to {end}")
        return self._open(start, end)

    def read(self, start: int = 0, end: int | None = None) -> bytes:
        """The bytes from ``start`` up to and without ``end``. FileDamaged if they are not as many as were stored."""
        with self.open(start, end) as file, self._reading():
            data = file.read()
        if not start and end is None:
            self._check(len(data))
        return data

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The bytes as text."""
        return self.read().decode(encoding, errors)

    def chunks(self, size: int = CHUNK) -> Iterator[bytes]:
        """The bytes in pieces of ``size``; the last may be shorter. FileDamaged at the end, as ``read``."""
        count = 0
        with self.open() as file:
            while True:
                with self._reading():
                    chunk = file.read(size)
                if not chunk:
                    break
                count += len(chunk)
                yield chunk
        self._check(count)

    def save_to(self, path: Path | str) -> None:
        """Write the bytes to a local file, replacing it."""
        local, target = self._local(), Path(path)
        if local is not None and local.exists() and target.exists() and target.samefile(local):
            return  # To open it for writing would empty it.
        chunks = self.chunks()
        first = next(chunks, b"")  # what can't be opened replaces nothing
        with target.open("wb") as copy:
            copy.write(first)
            copy.writelines(chunks)

    @contextmanager
    def path(self) -> Iterator[Path]:
        """A real local path to read from, inside the ``with``; downloaded if need be."""
        local = self._local()
        if local is not None:
            yield local
            return
        extension = filenames.extension(self.filename)
        with TemporaryDirectory() as folder:
            copy = Path(folder, f"file{extension if len(extension) <= 32 else ''}")  # file systems take 255 bytes
            self.save_to(copy)
            yield copy

    async def aread(self, start: int = 0, end: int | None = None) -> bytes:
        """``read`` without blocking the event loop."""
        return await in_thread(self.read, start, end)

    async def achunks(self, size: int = CHUNK) -> AsyncIterator[bytes]:
        """``chunks`` without blocking the event loop."""
        count = 0
        file = await in_thread(self.open)
        try:
            while True:
                with self._reading():
                    chunk = await in_thread(file.read, size)
                if not chunk:
                    break
                count += len(chunk)
                yield chunk
        finally:
            await in_thread(file.close)
        self._check(count)

    def _check(self, count: int) -> None:
        size = self._size()
        if size is not None and count != size:
            raise FileDamaged(f"{self!r} has {count:,} bytes, {size:,} were stored")


class StoredSource(Generic[C]):
    """The bytes of a stored attachment, to be stored once more."""

    shared = None

    def __init__(self, attachment: C) -> None:
        self.attachment = attachment

    def size(self) -> int | None:
        return self.attachment._size()

    def head(self, size: int) -> bytes:
        with self.attachment.open(0, size) as file:
            return file.read(size)

    def open(self, guards: Guards = ()) -> BinaryIO:
        return self.attachment.open()

    def stream(self) -> Readable:
        return self.attachment.open()

    def path(self) -> None:
        return None


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """In a worker thread, which may pull async sources from this loop."""
    mine = Pulls(running_loop())
    token = pulls.set(mine)
    try:
        return await asyncio.to_thread(function, *args, **kwargs)
    except asyncio.CancelledError:
        mine.stop()
        raise
    finally:
        pulls.reset(token)
