"""GridFSStorage: files in MongoDB's GridFS.

URL: ``gridfs:`` and the URL of the database, ``gridfs:mongodb://db.example/files``. Options:

- ``collection`` (``attachments``): name of the bucket; its collections are ``attachments.files`` and ``.chunks``
- ``parallel`` (8): files at the same time
- ``chunk_size`` (255): KiB
- ``timeout`` (60): seconds for each operation
- ``readonly`` (false)

Options of MongoDB itself (``replicaSet``, ``tls``, …) are escaped in the URL: ``gridfs:mongodb://db/files%3Ftls=true``;
user and password are as in MongoDB's.
Writes wait for a majority and its journal, whatever the database's default.

Traps
-----
The bucket has to be the storage's own: a unique index on ``filename`` keeps keys from being overwritten, where GridFS
otherwise allows many revisions of one name.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from typing import Any, BinaryIO, Self, cast

from bson import ObjectId
from gridfs import GridFSBucket
from gridfs.errors import CorruptGridFile, FileExists, NoFile
from pymongo import MongoClient, ReadPreference, WriteConcern
from pymongo.errors import DuplicateKeyError, InvalidURI
from pymongo.read_concern import ReadConcern
from pymongo.uri_parser import parse_uri

from sa_attachments.errors import FileMissing
from sa_attachments.lock import Lock
from sa_attachments.source import CHUNK, Window
from sa_attachments.storage import Readable, Stat

from . import checked, deletable, hidden, missing, taken, writable
from .url import StorageURL

KIB = 1 << 10
_BATCH = 1000


class GridFSStorage:
    """A storage in the bucket ``collection`` of a database; also ``Unfinished``."""

    def __init__(
        self,
        url: str,
        *,
        collection: str = "attachments",
        parallel: int = 8,
        chunk_size: int = 255,
        timeout: int = 60,
        readonly: bool = False,
    ) -> None:
        """``url`` is MongoDB's and names a database; ``chunk_size`` is in KiB, ``timeout`` in seconds."""
        self.parallel = parallel
        self.readonly = readonly
        self._url = url
        self._collection = collection
        self._chunk_size = chunk_size * KIB
        self._timeout = timeout
        self._lock = Lock()
        self._opened: dict[int, tuple[Any, GridFSBucket]] = {}
        self._has_indexes = readonly

    @classmethod
    def from_url(cls, url: StorageURL) -> Self:
        """The backend of ``gridfs:``. Raises BadConfiguration."""
        made = cls(
            url.inner,
            collection=url.text("collection", "attachments"),
            parallel=url.number("parallel", 8),
            chunk_size=url.number("chunk_size", 255),
            timeout=url.number("timeout", 60),
            readonly=url.flag("readonly", False),
        )
        url.done()
        try:
            database = parse_uri(made._url, validate=False)["database"]
        except (InvalidURI, ValueError):
            database = None
        if not database:
            raise url.mistake("expected the URL of a database, as gridfs:mongodb://host/database")
        return made

    # Verbs

    def put(self, key: str, stream: Readable, *, size: int | None, content_type: str) -> None:
        writable(self, key)
        # With an id of its own: of two that put one key, the later must not touch the chunks of the earlier.
        file = self._bucket.open_upload_stream(key, self._chunk_size, {"content_type": content_type})
        try:
            while data := stream.read(CHUNK):
                file.write(data)
            file.close()
            if file.length and self._chunks.find_one({"files_id": file._id, "n": 0}, {"_id": 1}) is None:
                raise self._discarded(key)
        except BaseException as error:
            with suppress(Exception):  # what is left, discard_unfinished finds
                self._remove([file._id])
            if isinstance(error, FileExists) and self._files.find_one({"filename": key}, {"_id": 1}) is None:
                raise self._discarded(key) from error  # What exists is the claim of who discards it just now.
            if isinstance(error, FileExists):
                raise taken(self, key) from error
            raise

    def open(self, key: str, start: int = 0, end: int | None = None) -> BinaryIO:
        try:
            file = self._bucket.open_download_stream(self._document(key)["_id"])
        except NoFile:
            raise missing(self, key) from None
        return cast(BinaryIO, io.BufferedReader(_Stream(file, start, end, key), CHUNK))

    def stat(self, key: str) -> Stat:
        document = self._document(key)
        metadata = document.get("metadata") or {}
        return Stat(document["length"], document["uploadDate"].replace(tzinfo=UTC), metadata.get("content_type"))

    def delete(self, keys: Sequence[str]) -> Mapping[str, Exception]:
        good, failed = deletable(self, keys)
        ids = [document["_id"] for document in self._files.find({"filename": {"$in": good}}, {"_id": 1})]
        if ids:
            self._remove(ids)
        return failed

    def keys(self, after: str | None = None, before: str | None = None) -> Iterator[tuple[str, datetime]]:
        bounds = {"$gt": after or ""} | ({} if before is None else {"$lt": before})
        found = self._files.find({"filename": bounds}, {"filename": 1, "uploadDate": 1}).sort("filename", 1)
        with found:
            for document in found:
                if not hidden(document["filename"]):
                    yield document["filename"], document["uploadDate"].replace(tzinfo=UTC)

    # Ability

    def discard_unfinished(self, before: datetime) -> int:
        """Chunks of files that were never finished; how old they are, their ids tell."""
        if self.readonly:
            return 0
        old = {"n": 0, "files_id": {"$lt": ObjectId.from_datetime(before)}}
        # Of each file no more than the index holds: the chunks themselves would be all that is stored.
        begun = self._chunks.find(old, {"_id": 0, "files_id": 1})
        count = 0
        while ids := {chunk["files_id"] for chunk in islice(begun, _BATCH)}:
            done = {
                file["_id"]
                for file in self._files.find({"_id": {"$in": list(ids)}, "uploadDate": {"$ne": None}}, {"_id": 1})
            }
            for unfinished in ids - done:
                with suppress(DuplicateKeyError):  # It has been finished meanwhile; from here on it can't be.
                    claim = {"filename": f".discarded/{unfinished}"}
                    self._files.replace_one({"_id": unfinished, "uploadDate": None}, claim, upsert=True)
                    self._remove([unfinished])
                    count += 1
        return count

    def _remove(self, ids: Sequence[Any]) -> None:
        """What is left if it is interrupted, ``discard_unfinished`` finds by the first chunk, or another delete by the
        file.
        """
        self._chunks.delete_many({"files_id": {"$in": ids}, "n": {"$gt": 0}})
        self._chunks.delete_many({"files_id": {"$in": ids}})
        self._files.delete_many({"_id": {"$in": ids}})

    # Connection

    @property
    def _bucket(self) -> GridFSBucket:
        return self._open()[1]

    @property
    def _files(self) -> Any:
        return self._open()[0][f"{self._collection}.files"]

    @property
    def _chunks(self) -> Any:
        return self._open()[0][f"{self._collection}.chunks"]

    def _open(self) -> tuple[Any, GridFSBucket]:
        # A client must not be shared with a parent process.
        opened = self._opened.get(os.getpid())
        if opened is None:
            with self._lock():
                opened = self._opened.get(os.getpid())
                if opened is None:
                    opened = self._connect()
                    self._opened = {os.getpid(): opened}
        if not self._has_indexes:  # not under the lock: where nobody answers, all wait at the same time
            opened[0][f"{self._collection}.files"].create_index("filename", unique=True)
            opened[0][f"{self._collection}.chunks"].create_index([("files_id", 1), ("n", 1)], unique=True)
            self._has_indexes = True
        return opened

    def _connect(self) -> tuple[Any, GridFSBucket]:
        client: Any = MongoClient(
            self._url, maxPoolSize=self.parallel * 2, timeoutMS=self._timeout * 1000, appname="sa_attachments"
        )
        database = client.get_default_database().with_options(
            write_concern=WriteConcern("majority", j=True),
            read_concern=ReadConcern("majority"),
            read_preference=ReadPreference.PRIMARY,
        )
        return database, GridFSBucket(database, self._collection)

    def _document(self, key: str) -> dict[str, Any]:
        document = self._files.find_one({"filename": checked(key)})
        if document is None:
            raise missing(self, key)
        return cast("dict[str, Any]", document)

    def _discarded(self, key: str) -> TimeoutError:
        return TimeoutError(f"{key!r} took so long that a sweep discarded what was there of it")

    def __repr__(self) -> str:
        place = self._url.rpartition("@")[2].partition("?")[0].removeprefix("mongodb://")
        return f"GridFSStorage({place!r}, {self._collection!r})"


class _Stream(Window):
    """The bytes of a file from ``start`` up to ``end``."""

    def __init__(self, file: Any, start: int, end: int | None, key: str) -> None:
        size = file.length
        super().__init__(file, min(start, size), size if end is None else max(min(end, size), start), file.close)
        self._key = key

    def readinto(self, buffer: Any) -> int:
        try:
            return super().readinto(buffer)
        except CorruptGridFile as error:
            raise FileMissing(f"{self._key!r} was deleted while it was read") from error
