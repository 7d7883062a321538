"""Reading that breaks off for good: the error is the library's, wherever the bytes come from."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest

from sa_attachments import Attachment, StorageFailed, Storages
from sa_attachments.content import CHUNK
from sa_attachments.key import mint
from sa_attachments.storages.memory import MemoryStorage
from sa_attachments.storages.s3 import MIB
from sa_attachments.testing.probes import put

from .conftest import Make
from .wire import Wire

DATA = os.urandom(MIB) * 3


class Breaking(MemoryStorage):
    """Breaks off after the first chunk."""

    def open(self, key: str, start: int = 0, end: int | None = None) -> Any:
        return _Cut(super().open(key, start, end).read())


class _Cut(io.BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        if size in (-1, None) or self.tell() > 0:
            raise RuntimeError("cut off")
        return super().read(size)


@pytest.fixture
def attachment() -> Attachment:
    files = Storages(Breaking())
    return files.stage(Attachment.upload(DATA[: CHUNK + 1]))


async def test_all_ways_of_reading_tell_which_storage_failed(attachment: Attachment, tmp_path: Path) -> None:
    def path() -> None:
        with attachment.path():
            pass

    async def achunks() -> list[bytes]:
        return [chunk async for chunk in attachment.achunks()]

    said = f"storage 'default' failed to read '{attachment.key}': RuntimeError: cut off"
    ways = [attachment.read, lambda: list(attachment.chunks()), lambda: attachment.save_to(tmp_path / "a"), path]
    for way in ways:
        with pytest.raises(StorageFailed, match=said):
            way()
    for await_ in (attachment.aread, achunks):
        with pytest.raises(StorageFailed, match=said):
            await await_()


def test_an_error_of_the_place_where_a_file_is_saved_is_not_the_storage_s(tmp_path: Path) -> None:
    stored = Storages("memory:").stage(Attachment.upload(b"abc"))
    with pytest.raises(IsADirectoryError):
        stored.save_to(tmp_path)


def test_a_file_that_always_breaks_off_names_bucket_and_operation(make: Make, wire: Wire, bucket: str) -> None:
    storage = make(endpoint_url=wire.endpoint, attempts=1)
    key = put(storage, mint(), DATA)
    wire.spoil(1, "truncated", "GET", for_good=True)
    with storage.open(key, 0, 1) as file, pytest.raises(ConnectionError, match=rf"'{bucket}' \(get_object\)"):
        file.read()
