"""Taking: one row's files become attachments, by copying or linking them into a storage, or where they are.

What a reader (``blobs``, ``paths``, ``foreign``) makes of a row is a ``Made``; ``Unadoptable`` says why it can't.

>>> from sa_attachments.storages.memory import MemoryStorage
>>> storage = MemoryStorage()
>>> storage.put("old/me.txt", io.BytesIO(b"hello"), size=5, content_type="text/plain")
>>> facts = in_place("default", storage, "old/me.txt", filename="me.txt")
>>> facts["key"], facts["size"], facts["sha256"][:8], facts["content_type"]
('old/me.txt', 5, '2cf24dba', 'text/plain')
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from .. import filename as filenames
from .. import intake
from ..attachment import Attachment, facts_of, make
from ..descriptor import VERSION, Facts, Name, Named, frozen
from ..errors import AttachmentError, storage_errors
from ..patience import raise_unless_held
from ..places import MARKER
from ..processing.sniffing import HEAD, content_type
from ..processing.steps import run as run_steps
from ..processing.storing import store
from ..recovery import discard
from ..source import CHUNK, Guards, Source
from ..storage import Storage
from ..storages import UNFINISHED, well_formed
from ..upload import Upload
from .rows import Identity, Row
from .spot import Spot

NOTES = {MARKER, UNFINISHED}
"""What a storage keeps in its place for itself: the marker, and the folder of what is being written."""

LONGEST = 255
"""Characters of a key in the ledger."""


class Unadoptable(AttachmentError, ValueError):
    """This row can't be adopted, or taken back; ``kind`` is one of those of the report."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def refused(error: DBAPIError | Unadoptable, label: str) -> Unadoptable | None:
    """Why a database does not take what a row is to say; None if somebody holds the row. Raises its other errors."""
    if isinstance(error, Unadoptable):
        return error
    if isinstance(error, DataError | IntegrityError):
        return Unadoptable("unreadable", f"{label} does not take it: {error.orig}")
    raise_unless_held(error)
    return None


class File(NamedTuple):
    """A file that a row will name. A ``fresh`` one is deleted again if the row does not take it."""

    named: Named
    fresh: bool
    held: bool
    beside: tuple[str, ...] = ()
    """Keys of what the other library keeps beside it."""


@dataclass(slots=True)
class Made:
    """What a row will name; ``token`` is what its column held when it was read."""

    row: Row
    value: Facts | list[Facts]
    token: str | None
    files: list[File] = field(default_factory=list)

    @property
    def fresh(self) -> list[Named]:
        """The files to be deleted if the row does not take them."""
        return [file.named for file in self.files if file.fresh]


class Returned(NamedTuple):
    """What a row will say again, and the files that are to stay, by ``(storage, key)``."""

    value: Any
    kept: frozenset[Name] = frozenset()
    undo: tuple[Callable[[], object], ...] = ()
    """Deletes what was written for this row alone, if it does not take the value."""


class Reader(Protocol):
    """Knows what a column holds. Its methods but ``storages`` may run in worker threads."""

    def storages(self) -> set[str]:
        """Names of the storages that it writes to, or finds files in."""
        ...

    def look(self, row: Row) -> None:
        """A cheap look at a row, before anything is changed. Raises Unadoptable, UnknownStorage."""
        ...

    def make(self, row: Row, copying: bool = False) -> Made:
        """Make attachments of what a row holds; with ``copying``, by copies. Raises Unadoptable, StorageFailed."""
        ...

    def spots(self, value: str) -> set[Spot]:
        """Where the files lie, or would, that a value of the column names. Raises Unadoptable, UnknownStorage."""
        ...

    def give_back(self, items: list[Facts], plural: bool, avoid: frozenset[Spot] = frozenset()) -> Returned:
        """Put back what a row held; if that names a file at one of the spots to ``avoid``, the row gets another value,
        for a copy. Raises Unadoptable, StorageFailed.
        """
        ...


def stored(
    source: Source,
    name: str,
    storage: Storage,
    *,
    filename: str | None = None,
    claimed: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    move: bool = False,
    label: str = "an adopted file",
) -> Facts:
    """Store bytes under a fresh key; returns the descriptor. ``move`` links a local file into the storage."""
    name_of = filenames.clean(filename) if filename else None
    body = Upload(source, name_of, intake.claimed(claimed), frozen(metadata), None, move)
    put: list[Named] = []
    try:
        ready = run_steps((), make(Attachment, body, None), label)
        return facts_of(store(ready, name, storage, started=put.append))
    except BaseException:
        discard(lambda _: storage, put)
        raise


def in_place(
    name: str,
    storage: Storage,
    key: str,
    *,
    filename: str | None = None,
    claimed: str | None = None,
    stored_at: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Facts:
    """The descriptor of a file that is in the storage already; its bytes are read once, and stay. FileMissing,
    Unadoptable if somebody changed it meanwhile.
    """
    digest, size, head = hashlib.sha256(), 0, b""
    with storage_errors(name, "read", key):
        before = storage.stat(key)
        with storage.open(key) as file:
            while chunk := file.read(CHUNK):
                head = head or chunk[:HEAD]
                digest.update(chunk)
                size += len(chunk)
        if before[:2] != storage.stat(key)[:2] or before.size != size:
            raise Unadoptable("overtaken", f"{name}:{key} was changed while it was read")
    cleaned, claimed = filenames.clean(filename) if filename else "unnamed", intake.claimed(claimed)
    facts: Facts = {
        "v": VERSION,
        "storage": name,
        "key": key,
        "filename": cleaned,
        "content_type": content_type(head, cleaned, claimed),
        "size": size,
        "sha256": digest.hexdigest(),
        "stored_at": stored_at or before.modified.isoformat(),
        "metadata": dict(metadata or {}),
        "variants": {},
    }
    return facts | ({"claimed_content_type": claimed} if claimed else {})


def noted(made: Made) -> Facts | list[Facts]:
    """What a row will name, and which row that is: on the way back it may be another one's. Of a list also, as a
    digest, what it said: its items may have come and gone then.
    """
    about: dict[str, Any] = {"row": row_of(made.row.identity)}
    if isinstance(made.value, list):
        about["list"] = digest_of(made.token or "")
        return [_remembering(each, about) for each in made.value]
    return _remembering(made.value, about)


def _remembering(facts: Facts, about: Facts) -> Facts:
    return facts | {"adopted": {**facts.get("adopted", {}), **about}}


def digest_of(text: str) -> str:
    """What tells one text from another."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def can_be_key(text: str) -> bool:
    """Whether a file of this name can be adopted where it is: the ledger has no room for more."""
    return well_formed(text) and len(text) <= LONGEST


def refuse_notes(path: str) -> None:
    """Unadoptable if a path, or key, leads to what a storage keeps for itself: dropped, it would be deleted."""
    if NOTES.intersection(path.split("/")):
        raise Unadoptable("outside", f"{path!r} is what a storage keeps in its place for itself")


def row_of(identity: Identity) -> list[str]:
    """A row's primary key, as descriptors note it."""
    return [str(part) for part in identity]


@dataclass(frozen=True, slots=True)
class StorageSource:
    """Bytes that a storage holds, as a source of a new attachment."""

    storage: Storage
    name: str
    key: str
    shared: None = None

    def size(self) -> int | None:
        """As the storage says."""
        with storage_errors(self.name, "look at", self.key):
            return self.storage.stat(self.key).size

    def head(self, size: int) -> bytes:
        """The first bytes."""
        with self.open() as file, storage_errors(self.name, "read", self.key):
            return bytes(file.read(size))

    def open(self, guards: Guards = ()) -> Any:
        """A binary file."""
        with storage_errors(self.name, "open", self.key):
            return self.storage.open(self.key)

    def stream(self) -> Any:
        """A binary file, that the reader closes."""
        return self.open()

    def path(self) -> Path | None:
        """None: a copy is to be one."""
        return None


def whole(storage: Storage, facts: Facts) -> bytes:
    """All bytes of an attachment, in one piece. FileMissing, Unadoptable."""
    with storage_errors(facts["storage"], "read", facts["key"]), storage.open(facts["key"]) as file:
        data = file.read()
    if hashlib.sha256(data).hexdigest() != facts["sha256"]:
        raise Unadoptable("damaged", f"{facts['storage']}:{facts['key']} is not what was stored: {len(data):,} bytes")
    return data


def chunks_of(storage: Storage, facts: Facts) -> Iterator[bytes]:
    """The bytes of an attachment, as its descriptor promises them; Unadoptable at their end if they are others."""
    digest, size = hashlib.sha256(), 0
    with storage_errors(facts["storage"], "read", facts["key"]), storage.open(facts["key"]) as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
            yield chunk
    if (size, digest.hexdigest()) != (facts["size"], facts["sha256"]):
        raise Unadoptable("damaged", f"{facts['storage']}:{facts['key']} is not what was stored: {size:,} bytes")


def put_back(name: str, storage: Storage, key: str, source: Storage, facts: Facts) -> bool:
    """Let the bytes of an attachment lie at a key; False if others do, which are never replaced."""
    with storage_errors(name, "put", key):
        try:
            storage.put(key, Chunks(chunks_of(source, facts)), size=facts["size"], content_type=facts["content_type"])
        except FileExistsError:
            return bool(in_place(name, storage, key)["sha256"] == facts["sha256"])
    return True


def take_away(name: str, storage: Storage, keys: Sequence[str]) -> None:
    """Delete what was put back for a row that does not take it."""
    with storage_errors(name, "delete"):
        storage.delete(keys)


class Chunks(io.RawIOBase):
    """An iterator of bytes as a stream."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        if size < 0:
            return self._rest + b"".join(self._chunks)
        while len(self._rest) < size and (chunk := next(self._chunks, b"")):
            self._rest += chunk
        found, self._rest = self._rest[:size], self._rest[size:]
        return found
