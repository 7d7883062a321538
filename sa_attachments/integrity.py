"""Integrity: whether what storages hold is what a descriptor promises.

>>> import io
>>> from sa_attachments.storages.memory import MemoryStorage
>>> storage, file = MemoryStorage(), Named("default", "a", 5)
>>> storage.put("a", io.BytesIO(b"hello"), size=5, content_type="text/plain")
>>> is_whole(storage, file), is_whole(storage, file, hashlib.sha256(b"hallo").hexdigest())
(True, False)
"""

from __future__ import annotations

import hashlib

from .descriptor import Named
from .errors import FileMissing, storage_errors
from .source import CHUNK
from .storage import Heals, Storage


def is_whole(storage: Storage, file: Named, sha256: str | None = None) -> bool:
    """Whether the storage's copy has the size that the row says, and the SHA-256 (64 hexadecimal digits; None reads no
    bytes). FileMissing, StorageFailed.
    """
    with storage_errors(file.storage, "look at", file.key):
        if storage.stat(file.key).size != file.size:
            return False
        if sha256 is None:
            return True
        digest = hashlib.sha256()
        with storage.open(file.key) as opened:
            while chunk := opened.read(CHUNK):
                digest.update(chunk)
        return digest.hexdigest() == sha256


def flaws(mirror: Heals, file: Named, sha256: str | None = None) -> tuple[list[str], list[str]]:
    """Names of the members of a mirror that lack the file, and of those whose copy is not whole. StorageFailed."""
    lacking, damaged = [], []
    for name, member in mirror.members.items():
        try:
            if not is_whole(member, file._replace(storage=f"{file.storage}, member {name}"), sha256):
                damaged.append(name)
        except FileMissing:
            lacking.append(name)
    return lacking, damaged
