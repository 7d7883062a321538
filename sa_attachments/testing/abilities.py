"""Rules about the abilities that some storages have; skipped for the others."""

from __future__ import annotations

import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import SkipTest

from sa_attachments.errors import FileMissing
from sa_attachments.key import mint
from sa_attachments.source import CHUNK
from sa_attachments.storage import Copies, HasPath, SignsDownloads, Storage, TakesFile, Unfinished

from .probes import Stream, listed, put, raises, read
from .put_and_open import MALFORMED


class Abilities:
    def test_copies_are_independent(self, storage: Storage) -> None:
        """A copy has the source's bytes, and stays when the source is deleted."""
        if not isinstance(storage, Copies):
            raise SkipTest("the storage is not Copies")
        source, key = put(storage, mint(), b"abc"), mint()
        storage.copy(source, key)
        assert read(storage, source) == read(storage, key) == b"abc"
        storage.delete([source])
        assert read(storage, key) == b"abc"
        assert listed(storage) == [key]

    def test_copy_refuses_what_put_refuses(self, storage: Storage) -> None:
        """FileMissing if there is no source, FileExistsError for an existing key, ValueError for what is no key."""
        if not isinstance(storage, Copies):
            raise SkipTest("the storage is not Copies")
        source, key = put(storage, mint(), b"abc"), mint()
        with raises(FileMissing):
            storage.copy(mint(), key)
        with raises(FileMissing):
            storage.stat(key)
        put(storage, key, b"other")
        with raises(FileExistsError):
            storage.copy(source, key)
        assert read(storage, key) == b"other"
        for malformed in MALFORMED:
            with raises(ValueError):
                storage.copy(source, malformed)

    def test_path_leads_to_the_bytes(self, storage: Storage) -> None:
        """``path`` is a file of this machine with the bytes; FileMissing if there are none."""
        if not isinstance(storage, HasPath):
            raise SkipTest("the storage is not HasPath")
        path = storage.path(put(storage, mint(), b"abc"))
        assert path.is_absolute()
        assert path.read_bytes() == b"abc"
        with raises(FileMissing):
            storage.path(mint())

    def test_takes_a_file_or_says_that_it_cannot(self, storage: Storage, tmp_path: Path) -> None:
        """``take`` stores the bytes, or returns False and stores nothing; the path stays; no key is overwritten."""
        if not isinstance(storage, TakesFile):
            raise SkipTest("the storage is not TakesFile")
        path, key = tmp_path / "given", mint()
        path.write_bytes(b"abc")
        taken = storage.take(key, path)
        assert path.read_bytes() == b"abc"
        assert listed(storage) == ([key] if taken else [])
        if taken:
            path.unlink()
            assert read(storage, key) == b"abc"
            assert abs(datetime.now(UTC) - storage.stat(key).modified) < timedelta(minutes=5)
            path.write_bytes(b"other")
            with raises(FileExistsError):
                storage.take(key, path)
            assert read(storage, key) == b"abc"

    def test_discards_what_is_unfinished_and_nothing_else(self, storage: Storage) -> None:
        """``discard_unfinished`` leaves stored files, and puts that began later than it is asked for."""
        if not isinstance(storage, Unfinished):
            raise SkipTest("the storage is not Unfinished")
        done, key = put(storage, mint(), b"abc"), mint()
        an_hour_ago = datetime.now(UTC) - timedelta(hours=1)

        def discard() -> bytes:
            assert storage.discard_unfinished(an_hour_ago) == 0
            return b"b"

        storage.put(key, Stream([b"a" * CHUNK, discard, b"c"]), size=None, content_type="text/plain")
        assert storage.discard_unfinished(datetime.now(UTC) + timedelta(hours=1)) == 0
        assert (read(storage, done), storage.stat(key).size) == (b"abc", CHUNK + 2)

    def test_signed_address_leads_to_the_bytes(self, storage: Storage) -> None:
        """``sign_download`` gives an address from which anybody can read the bytes."""
        if not isinstance(storage, SignsDownloads):
            raise SkipTest("the storage is not SignsDownloads")
        key = put(storage, mint(), b"abc")
        address = storage.sign_download(
            key, expires=timedelta(minutes=5), filename="ä b.txt", content_type="text/plain"
        )
        with urllib.request.urlopen(address, timeout=30) as answer:
            assert answer.read() == b"abc"
