"""Storages: the registry that names them, and one module per backend.

What all of them promise is written in ``sa_attachments.storage``; this page adds what keys look like, and the words in
which backends refuse one. Any ``/``-separated printable ASCII will do, as long as it can't be mistaken for a way
through folders:

>>> checked("2026/01/01/00/a"), checked("old files/a.b")
('2026/01/01/00/a', 'old files/a.b')
>>> checked("../a")
Traceback (most recent call last):
ValueError: '../a' is not a key: expected segments of printable ASCII between slashes, none of them empty, '.' or '..'

A key with a segment that begins with a dot is *hidden*: the plain verbs take it, ``keys()`` leaves it out.

>>> hidden(".sa-attachments-place"), hidden("a/.b/c"), hidden("a.b/c.d")
(True, True, False)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from sa_attachments.errors import FileMissing
from sa_attachments.key import well_formed

from .url import StorageURL

__all__ = ["StorageURL", "checked", "hidden", "well_formed"]

UNFINISHED = ".unfinished"
"""The folder of files that ``local:`` is still writing, where the file system can't do without a name."""


def checked(key: str) -> str:
    """The key itself; ValueError if it is none."""
    if not well_formed(key):
        expected = "expected segments of printable ASCII between slashes, none of them empty, '.' or '..'"
        raise ValueError(f"{key[:300]!r} is not a key: {expected}")
    return key


def hidden(key: str) -> bool:
    """Whether listings leave this key out."""
    return key.startswith(".") or "/." in key


class _Place(Protocol):
    @property
    def readonly(self) -> bool: ...


def writable(storage: _Place, key: str) -> str:
    """The key itself. ValueError if it is none, PermissionError if nothing is written or deleted there."""
    checked(key)
    if storage.readonly:
        raise PermissionError(f"{storage!r} is read-only")
    return key


def deletable(storage: _Place, keys: Iterable[str]) -> tuple[list[str], dict[str, Exception]]:
    """Those of the keys that are ``writable``, and why the others are not."""
    good: list[str] = []
    failed: dict[str, Exception] = {}
    for key in keys:
        try:
            good.append(writable(storage, key))
        except (ValueError, PermissionError) as error:
            failed[key] = error
    return good, failed


def missing(storage: object, key: str) -> FileMissing:
    """The error that there is no such file."""
    return FileMissing(f"there is no {key!r} in {storage!r}")


def taken(storage: object, key: str) -> FileExistsError:
    """The error that there is one already."""
    return FileExistsError(f"{key!r} exists in {storage!r}, and is never overwritten")
