"""Probes: the small acts that the rules are made of."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from sa_attachments.storage import Storage

T = TypeVar("T")


class Stream:
    """A stream that gives its pieces one by one; errors among them are raised, functions called for theirs."""

    def __init__(self, pieces: Iterable[bytes | Exception | Callable[[], bytes]]) -> None:
        self._pieces = iter(pieces)
        self._rest = b""

    def read(self, size: int = -1, /) -> bytes:
        if not self._rest:
            piece = next(self._pieces, b"")
            if isinstance(piece, Exception):
                raise piece
            self._rest = piece() if callable(piece) else piece
        if size < 0:
            size = len(self._rest)
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken


def put(storage: Storage, key: str, data: bytes) -> str:
    """Put a file; returns its key."""
    storage.put(key, io.BytesIO(data), size=len(data), content_type="text/plain")
    return key


def read(storage: Storage, key: str) -> bytes:
    """All bytes of a file."""
    with storage.open(key) as file:
        return file.read()


def listed(storage: Storage) -> list[str]:
    """The keys that the storage lists."""
    return [key for key, _ in storage.keys()]  # noqa: SIM118 - not a dict


def together(threads: int, work: Callable[[int], T]) -> list[T]:
    """What ``work`` returns for 0, 1, …, each called in a thread of its own."""
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, range(threads)))


@contextmanager
def raises(kind: type[Exception]) -> Iterator[list[Exception]]:
    """AssertionError unless the block raises one of this kind, which is appended to the list."""
    raised: list[Exception] = []
    try:
        yield raised
    except kind as error:
        raised.append(error)
    else:
        raise AssertionError(f"expected {kind.__name__}, nothing was raised")
