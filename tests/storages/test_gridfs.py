from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any
from uuid import uuid4

import pytest

pytest.importorskip("pymongo", reason="GridFS is tested where the extras gridfs and test-gridfs are installed")

from bson import ObjectId
from pymongo import MongoClient
from pymongo.errors import ServerSelectionTimeoutError

from sa_attachments import BadConfiguration, FileMissing
from sa_attachments.key import mint
from sa_attachments.storages import StorageURL
from sa_attachments.storages.gridfs import GridFSStorage
from sa_attachments.testing import StorageContract
from sa_attachments.testing.probes import Stream, listed, put, raises, read, together


@pytest.fixture
def address(mongo: str) -> Iterator[str]:
    """A database of this test."""
    name = f"test_{uuid4().hex}"
    yield f"{mongo}{name}"
    with MongoClient(mongo) as client:
        client.drop_database(name)


@pytest.fixture
def storage(address: str) -> GridFSStorage:
    return GridFSStorage(address)


@pytest.fixture
def database(address: str) -> Iterator[Any]:
    with MongoClient(address) as client:
        yield client.get_default_database()


class TestGridFS(StorageContract):
    @pytest.fixture
    def storage(self, storage: GridFSStorage) -> GridFSStorage:
        return storage


def test_a_large_file_is_in_chunks_and_comes_back(storage: GridFSStorage, database: Any) -> None:
    data = os.urandom(1_000_003)
    key = mint()
    storage.put(key, io.BytesIO(data), size=None, content_type="video/mp4")
    assert hashlib.sha256(read(storage, key)).digest() == hashlib.sha256(data).digest()
    with storage.open(key, 255 * 1024 - 5, 255 * 1024 + 5) as file:
        assert file.read() == data[255 * 1024 - 5 : 255 * 1024 + 5]
    assert database["attachments.chunks"].count_documents({}) == 4
    assert storage.stat(key).content_type == "video/mp4"


def test_nothing_is_left_of_a_file_that_was_deleted_refused_or_failed(storage: GridFSStorage, database: Any) -> None:
    key = put(storage, mint(), bytes(5000))
    with raises(FileExistsError):
        put(storage, key, bytes(5000))
    storage.delete([key])
    with raises(RuntimeError):
        storage.put(mint(), Stream([bytes(500_000), RuntimeError("broken")]), size=None, content_type="text/plain")
    assert database["attachments.files"].count_documents({}) == database["attachments.chunks"].count_documents({}) == 0


def test_chunks_of_a_killed_put_are_discarded(storage: GridFSStorage, database: Any) -> None:
    kept = put(storage, mint(), b"kept")
    database["attachments.chunks"].insert_one({"files_id": ObjectId(), "n": 0, "data": b"x"})
    assert storage.discard_unfinished(datetime.now(UTC) - timedelta(hours=1)) == 0
    assert storage.discard_unfinished(datetime.now(UTC) + timedelta(hours=1)) == 1
    assert storage.discard_unfinished(datetime.now(UTC) + timedelta(hours=1)) == 0
    assert read(storage, kept) == b"kept"


def test_a_put_whose_chunks_were_discarded_fails(storage: GridFSStorage, database: Any) -> None:
    """As one that takes longer than ``grace``: what it had written was gone, and it said that it had stored it."""

    class Slow:
        left = 60

        def read(self, size: int = -1) -> bytes:
            self.left -= 1
            if self.left == 5:  # pymongo has sent the first 48 MB
                assert storage.discard_unfinished(datetime.now(UTC) + timedelta(hours=1)) == 1
            return bytes(1_000_000) if self.left else b""

    with raises(TimeoutError):
        storage.put(mint(), Slow(), size=None, content_type="video/mp4")
    assert database["attachments.files"].count_documents({}) == database["attachments.chunks"].count_documents({}) == 0


def test_a_put_whose_chunks_are_being_discarded_fails(
    storage: GridFSStorage, database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, files = mint(), database["attachments.files"]

    class Files:
        """Whoever discards is interrupted when it has claimed the chunks."""

        def delete_many(self, condition: Any) -> None:
            raise ServerSelectionTimeoutError

        def __getattr__(self, name: str) -> Any:
            return getattr(files, name)

    class Slow:
        left = 60

        def read(self, size: int = -1) -> bytes:
            self.left -= 1
            if self.left == 5:
                with monkeypatch.context() as patch, raises(ServerSelectionTimeoutError):
                    patch.setattr(GridFSStorage, "_files", Files())
                    storage.discard_unfinished(datetime.now(UTC) + timedelta(hours=1))
            return bytes(1_000_000) if self.left else b""

    with raises(TimeoutError):
        storage.put(key, Slow(), size=None, content_type="video/mp4")
    assert listed(storage) == []
    assert files.count_documents({}) == database["attachments.chunks"].count_documents({}) == 0


def test_a_put_that_is_finished_meanwhile_is_not_discarded(
    storage: GridFSStorage, database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(storage, "begun", b"x")
    database["attachments.files"].delete_many({})
    begun = database["attachments.chunks"].find_one()["files_id"]

    def found(*asked: Any) -> list[Any]:
        database["attachments.files"].insert_one({"_id": begun, "filename": "begun", "uploadDate": datetime.now(UTC)})
        return []

    class FilesThatChange:
        find = staticmethod(found)

        def __getattr__(self, name: str) -> Any:
            return getattr(database["attachments.files"], name)

    monkeypatch.setattr(GridFSStorage, "_files", FilesThatChange())
    assert storage.discard_unfinished(datetime.now(UTC) + timedelta(hours=1)) == 0
    assert database["attachments.chunks"].count_documents({"files_id": begun}) == 1


def test_what_an_interrupted_deletion_left_is_found(
    storage: GridFSStorage, database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one of a file so large that the time for an operation is over."""
    chunks = database["attachments.chunks"]

    class Chunks:
        def delete_many(self, condition: Any) -> None:
            """Deletes one, in the order of the index, and is interrupted."""
            first = chunks.find_one(condition, sort=[("files_id", 1), ("n", 1)])
            chunks.delete_one({"_id": first["_id"]})
            raise ServerSelectionTimeoutError

        def __getattr__(self, name: str) -> Any:
            return getattr(chunks, name)

    key = put(storage, mint(), bytes(1_000_000))
    with monkeypatch.context() as patch:
        patch.setattr(GridFSStorage, "_chunks", Chunks())
        with raises(ServerSelectionTimeoutError):
            storage.delete([key])
        with raises(ServerSelectionTimeoutError):
            storage.delete([key])
    storage.delete([key])
    storage.discard_unfinished(datetime.now(UTC) + timedelta(hours=1))
    assert database["attachments.files"].count_documents({}) == chunks.count_documents({}) == 0


def test_looking_for_chunks_of_killed_puts_reads_no_files(
    storage: GridFSStorage, database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sa_attachments.storages.gridfs._BATCH", 2)
    kept = [put(storage, mint(), b"kept") for _ in range(4)]
    database["attachments.chunks"].insert_many([{"files_id": ObjectId(), "n": 0, "data": b"x"} for _ in range(3)])
    asked: list[Any] = []

    class Chunks:
        def find(self, condition: Any, projection: Any) -> Any:
            asked.append(projection)
            return database["attachments.chunks"].find(condition, projection)

        def delete_many(self, condition: Any) -> None:
            database["attachments.chunks"].delete_many(condition)

    monkeypatch.setattr(GridFSStorage, "_chunks", Chunks())
    assert storage.discard_unfinished(datetime.now(UTC) + timedelta(hours=1)) == 3
    assert asked == [{"_id": 0, "files_id": 1}]  # which the index holds
    assert [read(storage, key) for key in kept] == [b"kept"] * 4


def test_a_file_that_is_deleted_while_it_is_read_is_missing(storage: GridFSStorage) -> None:
    key = put(storage, mint(), bytes(3_000_000))
    with storage.open(key) as file:
        assert len(file.read(10)) == 10
        storage.delete([key])
        file.seek(2_000_000)
        with raises(FileMissing):
            file.read()


def test_where_nobody_answers_all_wait_at_the_same_time() -> None:
    storage = GridFSStorage("mongodb://127.0.0.1:1/db")
    storage._timeout = 0.5  # type: ignore[assignment]
    started = monotonic()

    def ask(number: int) -> None:
        with pytest.raises(ServerSelectionTimeoutError):
            put(storage, mint(), b"x")

    together(8, ask)
    assert monotonic() - started < 3


def test_comes_from_a_url(address: str) -> None:
    storage = GridFSStorage.from_url(StorageURL(f"gridfs:{address}%3FretryWrites=false?collection=blobs&parallel=2"))
    assert read(storage, put(storage, "key", b"x")) == b"x"
    assert listed(GridFSStorage(address, collection="blobs", readonly=True)) == ["key"]
    assert storage.parallel == 2


def test_user_and_password_are_as_in_mongodb() -> None:
    storage = GridFSStorage.from_url(StorageURL("gridfs:mongodb://me:p%40ss%2F@db/files%3FreplicaSet=a%26tls=true"))
    assert storage._url == "mongodb://me:p%40ss%2F@db/files?replicaSet=a&tls=true"


def test_mistakes_are_explained_and_passwords_are_not_shown() -> None:
    for wrong in ("gridfs:nonsense", "gridfs:mongodb://host"):
        with pytest.raises(BadConfiguration, match="expected the URL of a database"):
            GridFSStorage.from_url(StorageURL(wrong))
    with pytest.raises(BadConfiguration, match=r"no option 'colour'; there are .*'chunk_size'") as raised:
        GridFSStorage.from_url(StorageURL("gridfs:mongodb://app:hidden@db/files?colour=red"))
    assert "hidden" not in str(raised.value)
    assert "hidden" not in repr(GridFSStorage("mongodb://app:hidden@db/files?x=y"))
