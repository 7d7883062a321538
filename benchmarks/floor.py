# ruff: noqa: PTH103, PTH104, PTH108, PTH123
# What is measured against should not be slow for the sake of style.
"""The floor: what a careful programmer writes by hand to keep a file beside a row, without any promise about
transactions.

It does the same durable work as the library on a local folder: SHA-256 of the bytes, write under a temporary name,
fsync, rename, fsync of the folder; a plain JSON column with the same descriptor; the old file is unlinked after the
commit, and its folder flushed once per commit.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

CHUNK = 256 * 1024


class Floor:
    """Files in a folder. ``flush`` fsyncs the files, ``flush_folder`` the folder that they are renamed into, too."""

    def __init__(self, root: Path, *, flush: bool = True, flush_folder: bool = True) -> None:
        self.root = root
        self._flush = flush
        self._flush_folder = flush and flush_folder
        self._made: set[str] = set()

    def store(self, data: bytes, filename: str) -> dict[str, Any]:
        """Store the bytes of one file; returns the descriptor for its row."""
        return self._store([data], filename)

    def copy(self, file: BinaryIO, filename: str) -> dict[str, Any]:
        """The same for a file that is too large for memory."""
        return self._store(iter(lambda: file.read(CHUNK), b""), filename)

    def _store(self, chunks: Iterable[bytes], filename: str) -> dict[str, Any]:
        folder = time.strftime("%Y/%m/%d/%H", time.gmtime())
        if folder not in self._made:
            os.makedirs(self.root / folder, exist_ok=True)
            self._made.add(folder)
        key = f"{folder}/{uuid4()}"
        path = f"{self.root}/{key}"
        temporary = f"{path}.part"
        size, sha256 = 0, hashlib.sha256()
        with open(temporary, "xb", buffering=0) as file:
            for chunk in chunks:
                file.write(chunk)
                sha256.update(chunk)
                size += len(chunk)
            if self._flush:
                os.fsync(file.fileno())
        os.rename(temporary, path)
        if self._flush_folder:
            flush(f"{self.root}/{folder}")
        return descriptor(key, filename, size, sha256.hexdigest())

    def delete(self, descriptors: list[dict[str, Any]]) -> None:
        """Unlink files, and flush their folders once."""
        for each in descriptors:
            os.unlink(f"{self.root}/{each['key']}")
        if self._flush_folder:
            for folder in {each["key"].rpartition("/")[0] for each in descriptors}:
                flush(f"{self.root}/{folder}")


def flush(folder: str) -> None:
    """Make what was put into a folder durable."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def descriptor(key: str, filename: str, size: int, sha256: str) -> dict[str, Any]:
    """What a row says of its file: as much as a descriptor of the library says."""
    return {
        "v": 1,
        "storage": "default",
        "key": key,
        "filename": filename,
        "content_type": "image/jpeg",
        "size": size,
        "sha256": sha256,
        "stored_at": datetime.now(UTC).isoformat(),
        "metadata": {},
        "variants": {},
    }
