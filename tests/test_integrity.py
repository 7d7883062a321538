"""Integrity: the size and the checksum of copies."""

from __future__ import annotations

import hashlib
import io

import pytest

from sa_attachments import FileMissing, StorageFailed
from sa_attachments.descriptor import Named
from sa_attachments.integrity import flaws, is_whole
from sa_attachments.storages.memory import MemoryStorage
from sa_attachments.storages.mirror import MirrorStorage
from sa_attachments.testing import Faulty

FILE = Named("default", "a", 4)
SHA256 = hashlib.sha256(b"data").hexdigest()


def holding(data: bytes | None) -> Faulty:
    storage = Faulty(MemoryStorage())
    if data is not None:
        storage.inner.put("a", io.BytesIO(data), size=len(data), content_type="text/plain")
    return storage


def test_whole_is_what_has_the_size_and_the_checksum() -> None:
    assert is_whole(holding(b"data"), FILE)
    assert is_whole(holding(b"data"), FILE, SHA256)
    assert is_whole(holding(b"atad"), FILE), "bytes are read only if there is a checksum"
    assert not is_whole(holding(b"atad"), FILE, SHA256)
    assert not is_whole(holding(b"dat"), FILE)


def test_bytes_are_read_only_for_a_checksum() -> None:
    storage = holding(b"data")
    is_whole(storage, FILE)
    assert [call.verb for call in storage.calls] == ["stat"]
    is_whole(storage, FILE, SHA256)
    assert [call.verb for call in storage.calls] == ["stat", "stat", "open"]


def test_what_is_not_there_and_what_can_t_be_asked() -> None:
    with pytest.raises(FileMissing):
        is_whole(holding(None), FILE)
    with pytest.raises(StorageFailed, match="storage 'default' failed to look at 'a': OSError: no network"):
        is_whole(holding(b"data").fail("stat", error=OSError("no network")), FILE)


def test_flaws_of_a_mirror_are_told_by_member() -> None:
    contents = {"good": b"data", "lost": None, "cut": b"dat", "changed": b"atad"}
    mirror = MirrorStorage({name: holding(data) for name, data in contents.items()})
    assert flaws(mirror, FILE) == (["lost"], ["cut"])
    assert flaws(mirror, FILE, SHA256) == (["lost"], ["cut", "changed"])
    down = MirrorStorage({"good": holding(b"data"), "down": holding(b"data").fail("stat")})
    with pytest.raises(StorageFailed, match="member down"):
        flaws(down, FILE)
