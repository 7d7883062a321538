"""Rules about the abilities that some storages have; skipped for the others."""

from __future__ import annotations

import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import SkipTest

from sa_attachments.errors import FileMissing
from sa_attachments.key import mint
from sa_attachments.source import CHUNK
from sa_attachments.storage import (
    AcceptsDirectUpload,
    Copies,
    DirectUpload,
    HasPath,
    SignsDownloads,
    Storage,
    TakesFile,
    Unfinished,
)

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

    def test_takes_no_file_whose_bytes_have_another_name(self, storage: Storage, tmp_path: Path) -> None:
        """``take`` returns False and stores nothing: by the other name they could be changed later."""
        if not isinstance(storage, TakesFile):
            raise SkipTest("the storage is not TakesFile")
        given, link, key = tmp_path / "given", tmp_path / "link", mint()
        given.write_bytes(b"abc")
        link.symlink_to(given)
        assert not storage.take(key, link)
        link.unlink()
        link.hardlink_to(given)
        assert not storage.take(key, given)
        assert listed(storage) == []

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

    def test_a_client_stores_a_file_by_a_put(self, storage: Storage) -> None:
        """With ``size``: exactly so many bytes of that type, and only where there is nothing yet."""
        if not isinstance(storage, AcceptsDirectUpload):
            raise SkipTest("the storage is not AcceptsDirectUpload")
        key = mint()
        direct = storage.sign_upload(key, **_TERMS, size=3)
        assert direct.method == "PUT"
        _refused(_put(direct, b"abcd"))
        _refused(_put(direct, b"abc", {"Content-Type": "text/html"}))
        assert listed(storage) == []
        urllib.request.urlopen(_put(direct, b"abc"), timeout=30).close()
        assert (read(storage, key), storage.stat(key).content_type) == (b"abc", "text/plain")
        _refused(_put(direct, b"xyz"))
        assert read(storage, key) == b"abc"
        with raises(ValueError):
            storage.sign_upload(mint(), **_TERMS, size=6)

    def test_a_client_stores_a_file_by_a_form(self, storage: Storage) -> None:
        """Without ``size``: up to ``max_size`` bytes of that type, as that key."""
        if not isinstance(storage, AcceptsDirectUpload):
            raise SkipTest("the storage is not AcceptsDirectUpload")
        key = mint()
        direct = storage.sign_upload(key, **_TERMS)
        assert direct.method == "POST"
        _refused(_post(direct, b"abcdef"))
        _refused(_post(direct, b"abc", {"Content-Type": "text/html"}))
        _refused(_post(direct, b"abc", {"key": f"{direct.fields['key']}x"}))
        assert listed(storage) == []
        urllib.request.urlopen(_post(direct, b"abcde"), timeout=30).close()
        assert (read(storage, key), storage.stat(key).content_type) == (b"abcde", "text/plain")


_TERMS: dict[str, Any] = {"expires": timedelta(minutes=5), "content_type": "text/plain", "max_size": 5}


def _put(direct: DirectUpload, data: bytes, changed: Mapping[str, str] | None = None) -> urllib.request.Request:
    headers = {**direct.headers, **(changed or {}), "Content-Length": str(len(data))}
    return urllib.request.Request(direct.url, data, headers, method=direct.method)


def _post(direct: DirectUpload, data: bytes, changed: Mapping[str, str] | None = None) -> urllib.request.Request:
    """A form as a browser sends it (RFC 7578)."""
    boundary = uuid.uuid4().hex
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in {**direct.fields, **(changed or {})}.items()
    ]
    parts.append(f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n')
    body = "".join(parts).encode() + data + f"\r\n--{boundary}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    return urllib.request.Request(direct.url, body, headers, method=direct.method)


def _refused(request: urllib.request.Request) -> None:
    with raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=30)
    (error,) = caught
    assert isinstance(error, urllib.error.HTTPError)
    error.close()
    assert 400 <= error.code < 500, f"refused with {error.code}"
