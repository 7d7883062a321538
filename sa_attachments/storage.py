"""What a storage promises: a named place for files, and the abilities that some places have beyond it.

The promises are written here once; backends say nothing that is not different. ``sa_attachments.storages.memory`` is
the shortest implementation, ``sa_attachments.testing.StorageContract`` the executable form. All verbs are synchronous
and thread-safe; under asyncio the library calls them in worker threads.

Abilities are protocols of one verb, asked for by ``isinstance``:

>>> from sa_attachments.storages.memory import MemoryStorage
>>> isinstance(MemoryStorage(), Copies), isinstance(MemoryStorage(), HasPath)
(True, False)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, NamedTuple, Protocol, runtime_checkable

__all__ = [
    "AcceptsDirectUpload",
    "Copies",
    "DirectUpload",
    "HasPath",
    "Heals",
    "Readable",
    "SignsDownloads",
    "Stat",
    "Storage",
    "TakesFile",
    "Unfinished",
]


class Readable(Protocol):
    """The one method of a file that ``put`` uses."""

    def read(self, size: int = -1, /) -> bytes:
        """At most ``size`` bytes; empty only at the end."""
        ...


class Stat(NamedTuple):
    """Facts about a stored file: ``size`` in bytes, ``modified`` in UTC, the ``content_type`` if the place keeps it."""

    size: int
    modified: datetime
    content_type: str | None = None


class Storage(Protocol):
    """A named place for files. Keys are ``/``-separated ASCII; whatever key is well-formed may be asked for, not only
    our own form.

    Any failure but those named here is raised as whatever the place raises; callers wrap it in ``StorageFailed``.
    """

    parallel: int = 8
    """How many verbs may run at the same time; 1 means that threads gain nothing."""

    readonly: bool = False
    """Never writes and never deletes: ``put`` raises ``PermissionError``, ``delete`` reports it for each key."""

    def put(self, key: str, stream: Readable, *, size: int | None, content_type: str) -> None:
        """Store what ``stream`` yields, all or nothing: durable when this returns, never visible before it is whole.

        ``size`` is a hint in bytes, or None. An existing key is never overwritten: FileExistsError. An error of
        ``stream`` is passed on and leaves nothing behind.
        """
        ...

    def open(self, key: str, start: int = 0, end: int | None = None) -> BinaryIO:
        """A seekable, buffered binary file of the bytes from ``start`` up to and without ``end``; FileMissing if
        there is no such file.
        """
        ...

    def stat(self, key: str) -> Stat:
        """Size and time; FileMissing if there is no such file."""
        ...

    def delete(self, keys: Sequence[str]) -> Mapping[str, Exception]:
        """Delete files, durably; missing ones are fine. Returns what failed, by key; the others are gone."""
        ...

    def keys(self, after: str | None = None, before: str | None = None) -> Iterator[tuple[str, datetime]]:
        """``(key, modified)`` for ``after < key < before``, in the order of the keys' code points, lazily; reads no
        more than is asked for.
        """
        ...


@runtime_checkable
class Copies(Protocol):
    """Copies inside the place, without moving bytes through this process."""

    def copy(self, source: str, key: str) -> None:
        """Store the bytes of ``source`` as ``key`` as ``put`` would; FileMissing if there is no ``source``."""
        ...


@runtime_checkable
class HasPath(Protocol):
    """Keeps each file as a file of this machine."""

    def path(self, key: str) -> Path:
        """Where the file is. To be read only; FileMissing if there is no such file."""
        ...


@runtime_checkable
class TakesFile(Protocol):
    """Can make a local file its own without copying the bytes."""

    def take(self, key: str, path: Path) -> bool:
        """Store the file at ``path`` as ``key`` as ``put`` would, sharing its bytes (``path`` stays); False if that
        can't be done here, or if the bytes have another name (``path`` is a link, or one of several), by which they
        could be changed once they are stored.
        """
        ...


@runtime_checkable
class Heals(Protocol):
    """Keeps each file several times, and can restore what some of its members lost."""

    @property
    def members(self) -> Mapping[str, Storage]:
        """By name, each with all files."""
        ...

    def heal(self, key: str) -> int:
        """Copy the file to the members that lack it; returns to how many. FileMissing if all do."""
        ...


@runtime_checkable
class Unfinished(Protocol):
    """Leaves traces of puts that were killed: temporary files, parts of multipart uploads."""

    def discard_unfinished(self, before: datetime) -> int:
        """Remove the traces of puts that began before ``before``; returns how many."""
        ...


@runtime_checkable
class SignsDownloads(Protocol):
    """Can give out addresses that clients read from directly."""

    def sign_download(self, key: str, *, expires: timedelta, filename: str, content_type: str) -> str:
        """An address that serves the file until ``expires`` from now."""
        ...


class DirectUpload(NamedTuple):
    """How a client sends the bytes itself: a PUT of them with ``headers``, or a POST of a form (multipart/form-data)
    that has these ``fields`` and then, as the last one, ``file``.
    """

    method: str
    url: str
    headers: Mapping[str, str] = MappingProxyType({})
    fields: Mapping[str, str] = MappingProxyType({})


@runtime_checkable
class AcceptsDirectUpload(Protocol):
    """Can let clients store a file without passing its bytes through this process."""

    def sign_upload(
        self, key: str, *, expires: timedelta, content_type: str, max_size: int, size: int | None = None
    ) -> DirectUpload:
        """What a client needs to store one file as ``key`` until ``expires`` from now: a form that takes up to
        ``max_size`` bytes, or where ``size`` is known, a PUT of exactly so many.

        ValueError if ``size`` is larger than ``max_size``. The place refuses another key, type or size. Whoever holds
        a form may send it again until it expires, and replace the bytes: copy them before you trust them.
        """
        ...
