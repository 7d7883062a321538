"""Probe: one small file that goes through all verbs of a storage, to find out beforehand what does not work.

>>> from .memory import MemoryStorage
>>> probe("default", MemoryStorage())
"""

from __future__ import annotations

import io

from sa_attachments.errors import FileMissing, StorageFailed, storage_errors
from sa_attachments.key import mint
from sa_attachments.storage import Storage

_BYTES = b"sa_attachments was here"


def probe(name: str, storage: Storage) -> None:
    """Write, look at, read, read in part, list and delete a file; of a read-only storage, only list.

    StorageFailed tells which verb failed, and why. A probe that is killed leaves a file to the next sweep.
    """
    key = mint()
    if storage.readonly:
        with storage_errors(name, "list"):
            next(iter(storage.keys(key)), None)
        return
    with storage_errors(name, "put", key):
        storage.put(key, io.BytesIO(_BYTES), size=len(_BYTES), content_type="text/plain")
    try:
        with storage_errors(name, "stat", key):
            _expect(name, "stat", key, storage.stat(key).size, len(_BYTES))
        with storage_errors(name, "open", key), storage.open(key) as file:
            _expect(name, "open", key, file.read(), _BYTES)
        with storage_errors(name, "open a part of", key), storage.open(key, 3, 14) as file:
            _expect(name, "open a part of", key, file.read(), _BYTES[3:14])
        with storage_errors(name, "list", key):
            _expect(name, "list", key, [each for each, _ in storage.keys(key[:-1], f"{key}~") if each == key], [key])
    finally:
        with storage_errors(name, "delete", key):
            for error in storage.delete([key]).values():
                raise error
    try:
        storage.stat(key)
    except FileMissing:
        return
    _expect(name, "delete", key, "still there", "gone")


def _expect(name: str, operation: str, key: str, found: object, expected: object) -> None:
    if found != expected:
        raise StorageFailed(
            f"storage {name!r} does not {operation} {key!r} rightly: expected {expected!r}, got {found!r}",
            storage=name,
            operation=operation,
            key=key,
        )
