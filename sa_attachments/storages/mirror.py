"""MirrorStorage: several storages as one. Writes go to all of them, reads come from the first that has the file.

>>> import io
>>> from .memory import MemoryStorage
>>> here, there = MemoryStorage(), MemoryStorage()
>>> storage = MirrorStorage({"here": here, "there": there})
>>> storage.put("a/b", io.BytesIO(b"hello"), size=5, content_type="text/plain")
>>> here.delete(["a/b"])                                     # somebody's mistake
{}
>>> storage.open("a/b").read(), storage.lacking("a/b"), storage.heal("a/b"), storage.lacking("a/b")
(b'hello', ['here'], 1, [])

URL: ``mirror:here,there``, names of other entries of the same ``Storages``. Members serve the mirror alone: no column
uses them by their own names, and no sweep looks into them by itself.

A put that one member refuses is undone in the others, and fails. A delete counts when all members did it. Members that
lost files are found by ``Storages.verify``, and healed by its ``repair``.

Traps
-----
Each member carries the marker of the place. One that lacks it, because it was added or replaced later or is not
mounted, or has another one's, makes the whole mirror a place in doubt, where nothing is deleted.
"""

from __future__ import annotations

import heapq
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import BinaryIO, Self, TypeVar

from sa_attachments.errors import FileMissing
from sa_attachments.storage import Copies, Readable, Stat, Storage, Unfinished

from . import checked, deletable, hidden, missing, writable
from .url import StorageURL

T = TypeVar("T")


class MirrorStorage:
    """Several storages by name; also ``Copies``, ``Heals`` and ``Unfinished``."""

    def __init__(self, members: Mapping[str, Storage]) -> None:
        self.members = dict(members)
        self.parallel = min(member.parallel for member in self.members.values())
        self._readonly = False

    @classmethod
    def from_url(cls, url: StorageURL) -> Self:
        """The backend of ``mirror:``. Raises BadConfiguration, UnknownStorage."""
        names = [name.strip() for name in url.rest.split(",") if name.strip()]
        url.done()
        if len(names) < 2 or len(set(names)) < len(names):
            raise url.mistake("expected two or more names of storages, as mirror:local,s3")
        members = {name: url.storage(name) for name in names}
        if len(set(map(id, members.values()))) < len(names):
            raise url.mistake("one of these names stands for another one: each file would be stored there twice")
        return cls(members)

    @property
    def readonly(self) -> bool:
        """Whether nothing can be written; one member that is read-only makes all so."""
        return self._readonly or any(member.readonly for member in self.members.values())

    @readonly.setter
    def readonly(self, value: bool) -> None:
        self._readonly = value

    # Verbs

    def put(self, key: str, stream: Readable, *, size: int | None, content_type: str) -> None:
        if hidden(key):
            self._put_everywhere(key, stream.read(), content_type)
            return
        first, *others = self._writable(key)
        first.put(key, stream, size=size, content_type=content_type)
        done = [first]
        try:
            for other in others:
                with first.open(key) as file:
                    other.put(key, file, size=first.stat(key).size, content_type=content_type)
                done.append(other)
        except BaseException:
            _undo(done, key)
            raise

    def open(self, key: str, start: int = 0, end: int | None = None) -> BinaryIO:
        if hidden(key):
            return io.BytesIO(self._agreed(key)[start:end])
        return self._first(key, lambda member: member.open(key, start, end))

    def stat(self, key: str) -> Stat:
        return self._first(key, lambda member: member.stat(key))

    def delete(self, keys: Sequence[str]) -> Mapping[str, Exception]:
        good, failed = deletable(self, keys)
        for member in self.members.values():
            failed.update(member.delete(good))
        return failed

    def keys(self, after: str | None = None, before: str | None = None) -> Iterator[tuple[str, datetime]]:
        listings = [member.keys(after, before) for member in self.members.values()]
        for key, found in groupby(heapq.merge(*listings, key=itemgetter(0)), key=itemgetter(0)):
            yield key, max(modified for _, modified in found)

    # Abilities

    def copy(self, source: str, key: str) -> None:
        done: list[Storage] = []
        try:
            for member in self._writable(key):
                if isinstance(member, Copies):
                    member.copy(source, key)
                else:
                    _copy(member, source, member, key)
                done.append(member)
        except FileMissing:
            # A member lost the source: what is there is copied to all.
            _undo(done, key)
            _copy(self, source, self, key)
        except BaseException:
            _undo(done, key)
            raise

    def lacking(self, key: str) -> list[str]:
        """Names of the members that do not have the file."""
        return [name for name, member in self.members.items() if not _has(member, key)]

    def heal(self, key: str) -> int:
        """Copy the file to the members that lack it; returns to how many. FileMissing if all do."""
        count = 0
        for name in self.lacking(key):
            with suppress(FileExistsError):
                _copy(self, key, self.members[name], key)
                count += 1
        return count

    def discard_unfinished(self, before: datetime) -> int:
        if self.readonly:
            return 0
        able = [member for member in self.members.values() if isinstance(member, Unfinished)]
        return sum(member.discard_unfinished(before) for member in able)

    # Hidden files, as the marker of a place: what one member says does not go for the others.

    def _put_everywhere(self, key: str, data: bytes, content_type: str) -> None:
        """Members that hold the same already are fine: somebody else puts it at the same moment, or was killed."""
        done: list[Storage] = []
        refused: FileExistsError | None = None
        try:
            for member in self._writable(key):
                try:
                    member.put(key, io.BytesIO(data), size=len(data), content_type=content_type)
                    done.append(member)
                except FileExistsError as error:
                    refused = error
                    if _content(member, key) != data:
                        raise
        except BaseException:
            _undo(done, key)
            raise
        if refused is not None and not done:
            raise refused

    def _agreed(self, key: str) -> bytes:
        """What all members hold, or all that they hold if it differs. FileMissing if one has nothing."""
        checked(key)
        return b"\n".join(sorted({_content(member, key) for member in self.members.values()}))

    def _first(self, key: str, ask: Callable[[Storage], T]) -> T:
        """The answer of the first member that has the file; a member that fails is passed over, if another has it."""
        checked(key)
        failure: Exception | None = None
        for member in self.members.values():
            try:
                return ask(member)
            except FileMissing:
                continue
            except Exception as error:  # noqa: BLE001 - raised if nobody has the file
                failure = failure or error
        raise failure or missing(self, key)

    def _writable(self, key: str) -> list[Storage]:
        writable(self, key)
        return list(self.members.values())

    def __repr__(self) -> str:
        return f"MirrorStorage({self.members!r})"


def _has(member: Storage, key: str) -> bool:
    try:
        member.stat(key)
    except FileMissing:
        return False
    return True


def _copy(origin: Storage | MirrorStorage, source: str, target: Storage | MirrorStorage, key: str) -> None:
    """Store the bytes of a file once more, by way of this process."""
    stat = origin.stat(source)
    with origin.open(source) as file:
        target.put(key, file, size=stat.size, content_type=stat.content_type or "application/octet-stream")


def _content(member: Storage, key: str) -> bytes:
    with member.open(key) as file:
        return file.read()


def _undo(members: Sequence[Storage], key: str) -> None:
    for member in members:
        with suppress(Exception):  # what is left, the ledger or a sweep finds
            member.delete([key])
