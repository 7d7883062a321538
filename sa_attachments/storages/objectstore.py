"""ObjectStorage: files in Google Cloud Storage and Azure Blob Storage, by the library obstore.

URLs: ``gs://bucket/prefix`` and ``az://account/container/prefix``. Credentials come from where obstore finds them: the
environment, and the identity of the machine. Options of both:

- ``parallel`` (8), ``part_size`` (8, in MiB): files at the same time, and how large pieces of large files are
- ``timeout`` (60 s): for each request
- ``readonly`` (false)

of ``gs:`` ``service_account`` (path of the key's JSON file) and ``endpoint_url``; of ``az:`` ``account_key``,
``sas_key`` and ``endpoint_url``.

A file of less than ``part_size`` is one conditional request; of a larger one it is asked first whether the key exists,
and it goes up in parts, four at a time.

Traps
-----
What a killed upload in parts leaves behind can't be listed here: Azure drops it after a week, and for a bucket of
Google Cloud add a lifecycle rule (AbortIncompleteMultipartUpload). Azure lists from the beginning whatever is asked
for: give a sweep of many files its time. A server that forks must not use these storages before: its children could
not, and say so.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, BinaryIO, Self, cast
from uuid import uuid4

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, GenericError, NotFoundError
from obstore.store import AzureStore, GCSStore

from sa_attachments.errors import FileMissing
from sa_attachments.source import Window
from sa_attachments.storage import Readable, Stat

from . import checked, deletable, hidden, missing, taken, well_formed, writable
from .url import StorageURL

MIB = 1 << 20
_PARTS_AT_ONCE = 4
_PATIENCE = 60
"""Seconds after which a verb that fails asks no more."""
_TOKEN = "put"
_LONGEST_SIGNATURE = timedelta(days=7)
_used_in: dict[str, int] = {}
"""The process in which obstore was first used: there are its threads, which all its stores share."""


class ObjectStorage:
    """A storage in one of obstore's stores; also ``Copies``, and ``SignsDownloads`` as a subclass."""

    def __init__(
        self, store: Any, prefix: str = "", *, parallel: int = 8, part_size: int = 8, readonly: bool = False
    ) -> None:
        """``part_size`` is in MiB."""
        self._store = store
        self.prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self.parallel = parallel
        self.readonly = readonly
        self._part_size = part_size * MIB

    @property
    def store(self) -> Any:
        """obstore's store. RuntimeError in a child that was forked after obstore was used, where it never answers."""
        if _used_in.setdefault("process", os.getpid()) != os.getpid():
            raise RuntimeError("obstore's threads do not survive a fork: use these storages in the children alone")
        return self._store

    # Verbs

    def put(self, key: str, stream: Readable, *, size: int | None, content_type: str) -> None:
        name = self._name(writable(self, key))
        pieces = _Pieces(stream, self._part_size)
        first = next(pieces)
        token, begun = uuid4().hex, time.monotonic()
        description: dict[str, Any] = {"attributes": {"Content-Type": content_type, _TOKEN: token}}
        try:
            if pieces.ended:
                obstore.put(self.store, name, first, mode="create", use_multipart=False, **description)
            else:
                self._refuse_taken(key)
                pieces.push_back(first)
                options: Any = {"use_multipart": True, "max_concurrency": _PARTS_AT_ONCE, **description}
                obstore.put(self.store, name, pieces, chunk_size=self._part_size, **options)
        except (AlreadyExistsError, GenericError) as error:
            if pieces.error is not None:
                raise pieces.error from None
            # If its answer was lost, it was sent again, and met itself; or it was not, though it had arrived.
            if time.monotonic() - begun < _PATIENCE and self._token_of(name) == token:
                return
            if isinstance(error, AlreadyExistsError):
                raise taken(self, key) from error
            raise
        except BaseException:
            if pieces.error is not None:
                raise pieces.error from None
            raise

    def open(self, key: str, start: int = 0, end: int | None = None) -> BinaryIO:
        try:
            file = obstore.open_reader(self.store, self._name(key), buffer_size=MIB)
        except (NotFoundError, FileNotFoundError):
            raise missing(self, key) from None
        size = file.size
        until = size if end is None else min(end, size)
        source = cast(BinaryIO, file)
        return cast(BinaryIO, io.BufferedReader(Window(source, min(start, size), max(until, min(start, size))), MIB))

    def stat(self, key: str) -> Stat:
        try:
            meta = obstore.head(self.store, self._name(key))
        except (NotFoundError, FileNotFoundError):
            raise missing(self, key) from None
        return Stat(meta["size"], meta["last_modified"])

    def delete(self, keys: Sequence[str]) -> Mapping[str, Exception]:
        good, failed = deletable(self, keys)
        names = {self._name(key): key for key in good}
        begun = time.monotonic()
        try:
            obstore.delete(self.store, list(names))
        except (BaseError, OSError):
            # One that is missing makes all fail on Azure: now each by itself.
            failure: Exception | None = None
            for name, key in names.items():
                if failure is not None and time.monotonic() - begun > _PATIENCE:
                    failed[key] = failure  # Nobody answers: each would wait for minutes.
                    continue
                try:
                    obstore.delete(self.store, name)
                except (NotFoundError, FileNotFoundError):
                    continue
                except (BaseError, OSError) as error:
                    failed[key] = failure = error
        return failed

    def keys(self, after: str | None = None, before: str | None = None) -> Iterator[tuple[str, datetime]]:
        offset = self.prefix + after if after else None
        for page in obstore.list(self.store, self.prefix or None, offset=offset, chunk_size=1000):
            for meta in page:
                key = meta["path"][len(self.prefix) :]
                if before is not None and key >= before:
                    return
                if well_formed(key) and not hidden(key) and (not after or key > after):
                    yield key, meta["last_modified"]

    # Ability

    def copy(self, source: str, key: str) -> None:
        name = self._name(writable(self, key))
        self.stat(source)
        self._refuse_taken(key)
        obstore.copy(self.store, self._name(source), name)

    def _token_of(self, name: str) -> str | None:
        """The token of the put that stored it, if anybody did, and tells."""
        try:
            return obstore.get(self.store, name, options={"head": True}).attributes.get(_TOKEN)
        except (BaseError, OSError):
            return None

    def _refuse_taken(self, key: str) -> None:
        try:
            self.stat(key)
        except FileMissing:
            return
        raise taken(self, key)

    def _name(self, key: str) -> str:
        return self.prefix + checked(key)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self._store).__name__}, {self.prefix!r})"


class SigningObjectStorage(ObjectStorage):
    """One that can sign addresses; they do not carry the file's name."""

    def sign_download(self, key: str, *, expires: timedelta, filename: str, content_type: str) -> str:
        if not timedelta(seconds=1) <= expires <= _LONGEST_SIGNATURE:
            raise ValueError(f"a signed address lasts a second at least and 7 days at most, not {expires}")
        return obstore.sign(self.store, "GET", self._name(key), expires)


def google(url: StorageURL) -> ObjectStorage:
    """The backend of ``gs:``. Raises BadConfiguration."""
    account, endpoint = url.text("service_account", None), url.text("endpoint_url", None)
    config: Any = {"service_account": account, "base_url": endpoint}
    options, client = _options(url, endpoint)
    if not url.host:
        raise url.mistake("expected a bucket, as gs://bucket/prefix")
    given = {name: value for name, value in config.items() if value is not None}
    return SigningObjectStorage(GCSStore(url.host, client_options=client, **given), url.path, **options)


def azure(url: StorageURL) -> ObjectStorage:
    """The backend of ``az:``. Raises BadConfiguration."""
    endpoint = url.text("endpoint_url", None)
    config: Any = {
        "account_key": url.text("account_key", None),
        "sas_key": url.text("sas_key", None),
        "endpoint": endpoint,
    }
    options, client = _options(url, endpoint)
    container, _, prefix = url.path.strip("/").partition("/")
    if not url.host or not container:
        raise url.mistake("expected account and container, as az://account/container/prefix")
    given = {name: value for name, value in config.items() if value is not None}
    store = AzureStore(container, account_name=url.host, client_options=client, **given)
    return SigningObjectStorage(store, prefix, **options)


def _options(url: StorageURL, endpoint: str | None) -> tuple[dict[str, Any], Any]:
    """Those of the storage, and those of obstore's client."""
    options: dict[str, Any] = {
        "parallel": url.number("parallel", 8),
        "part_size": url.number("part_size", 8, least=5),
        "readonly": url.flag("readonly", False),
    }
    timeout = timedelta(seconds=url.number("timeout", 60))
    url.done()
    return options, {"timeout": timeout, "allow_http": bool(endpoint and endpoint.startswith("http:"))}


class _Pieces:
    """A stream in pieces of one size. Its own error is kept: obstore makes another one of it."""

    def __init__(self, stream: Readable, size: int) -> None:
        self._stream = stream
        self._size = size
        self._pushed: list[bytes] = []
        self.ended = False
        self.error: BaseException | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        if self._pushed:
            return self._pushed.pop()
        if self.ended:
            raise StopIteration
        pieces: list[bytes] = []
        left = self._size
        try:
            while left and (data := self._stream.read(left)):
                pieces.append(data)
                left -= len(data)
        except BaseException as error:
            self.error = error
            raise
        self.ended = left > 0
        return b"".join(pieces)

    def push_back(self, piece: bytes) -> None:
        self._pushed.append(piece)
