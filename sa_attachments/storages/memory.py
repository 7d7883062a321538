"""MemoryStorage: files in a dictionary, for tests and tries; the shortest thing that keeps every promise of a storage.

>>> import io
>>> storage = MemoryStorage()
>>> storage.put("a/b", io.BytesIO(b"hello"), size=5, content_type="text/plain")
>>> storage.open("a/b", 1, 3).read(), storage.stat("a/b").size, [key for key, modified in storage.keys()]
(b'el', 5, ['a/b'])
>>> storage.delete(["a/b", "never/was"])
{}

URL: ``memory:``, with the options ``readonly`` (false) and ``parallel`` (1). Each one is a place of its own, and goes
with the process.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import BinaryIO, NamedTuple, Self

from sa_attachments.source import CHUNK
from sa_attachments.storage import Readable, Stat

from . import checked, deletable, hidden, missing, taken, writable
from .url import StorageURL


class _File(NamedTuple):
    data: bytes
    stat: Stat


class MemoryStorage:
    """A storage in memory; also ``Copies``."""

    def __init__(self, *, readonly: bool = False, parallel: int = 1) -> None:
        self.readonly = readonly
        self.parallel = parallel
        self._files: dict[str, _File] = {}

    @classmethod
    def from_url(cls, url: StorageURL) -> Self:
        made = cls(readonly=url.flag("readonly", False), parallel=url.number("parallel", 1))
        url.done()
        if url.rest:
            raise url.mistake("memory: takes no path")
        return made

    def put(self, key: str, stream: Readable, *, size: int | None, content_type: str) -> None:
        writable(self, key)
        data = b"".join(iter(lambda: stream.read(CHUNK), b""))
        file = _File(data, Stat(len(data), datetime.now(UTC), content_type))
        if self._files.setdefault(key, file) is not file:
            raise taken(self, key)

    def open(self, key: str, start: int = 0, end: int | None = None) -> BinaryIO:
        return io.BytesIO(self._get(key).data[start:end])

    def stat(self, key: str) -> Stat:
        return self._get(key).stat

    def delete(self, keys: Sequence[str]) -> dict[str, Exception]:
        good, failed = deletable(self, keys)
        for key in good:
            self._files.pop(key, None)
        return failed

    def keys(self, after: str | None = None, before: str | None = None) -> Iterator[tuple[str, datetime]]:
        for key, file in sorted(self._files.copy().items()):
            if (after is None or after < key) and (before is None or key < before) and not hidden(key):
                yield key, file.stat.modified

    def copy(self, source: str, key: str) -> None:
        file = self._get(source)
        self.put(key, io.BytesIO(file.data), size=file.stat.size, content_type=file.stat.content_type or "")

    def __repr__(self) -> str:
        return f"<MemoryStorage of {len(self._files)} files>"

    def _get(self, key: str) -> _File:
        if (file := self._files.get(checked(key))) is None:
            raise missing(self, key)
        return file
