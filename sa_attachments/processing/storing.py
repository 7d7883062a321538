"""Storing: one pass over the source that puts the bytes, counts them and hashes them.

>>> from sa_attachments.attachment import Attachment
>>> from sa_attachments.storages.memory import MemoryStorage
>>> stored = store(Attachment.upload(b"hello", "hi.txt"), "default", MemoryStorage(), started=lambda named: None)
>>> stored.size, stored.sha256[:8], stored.filename
(5, '2cf24dba', 'hi.txt')
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

from ..attachment import Attachment, binding_of, body_of, facts_of, make
from ..binding import Binding
from ..content import StoredSource
from ..descriptor import VERSION, Facts, Named, thawed
from ..errors import AttachmentError, BadSource, FileDamaged, StorageFailed, storage_errors
from ..key import mint
from ..source import CHUNK, PathSource
from ..storage import Copies, Readable, Storage, TakesFile
from ..upload import Upload, given

A = TypeVar("A", bound=Attachment)


class Meter:
    """A stream that counts and hashes what is read through it, and remembers whose fault an error was."""

    def __init__(self, stream: Readable, guards: tuple[Callable[[int], None], ...] = ()) -> None:
        self._stream = stream
        self._guards = guards
        self._hash = hashlib.sha256()
        self.size = 0
        self.ended = False
        self.error: BaseException | None = None

    def read(self, size: int = -1, /) -> bytes:
        """As the stream's ``read``."""
        try:
            data = self._stream.read(size)
            self.size += len(data)
            for guard in self._guards:
                guard(self.size)
        except BaseException as error:
            self.error = error
            raise
        self._hash.update(data)
        if not data or size < 0:
            self.ended = True
        return data

    @property
    def sha256(self) -> str:
        """Of all that was read, as hex digits."""
        return self._hash.hexdigest()


def store(
    attachment: Attachment,
    name: str,
    storage: Storage,
    *,
    started: Callable[[Named], None],
    binding: Binding | None = None,
    cls: type[Attachment] | None = None,
) -> Attachment:
    """Put a new attachment under a fresh key of the storage ``name``; returns the stored one, of class ``cls``.

    ``started`` is told the name before the first byte is stored. Raises what the source raises, FileMissing,
    StorageFailed.
    """
    body = body_of(attachment)
    assert isinstance(body, Upload)
    now = time.time_ns() // 1_000_000
    key, hint, content_type = mint(now), body.source.size(), attachment.content_type
    started(Named(name, key, hint or 0))
    size, sha256 = (
        _copy(body, name, storage, key)
        or _take(body, name, storage, key)
        or _put(body, name, storage, key, hint, content_type)
    )
    facts: Facts = {
        "v": VERSION,
        "storage": name,
        "key": key,
        "filename": attachment.filename,
        "content_type": content_type,
        "size": size,
        "sha256": sha256,
        "stored_at": datetime.fromtimestamp(now / 1000, UTC).isoformat(),
        "metadata": thawed(body.metadata),
        "variants": {},
    }
    if body.claimed_content_type:
        facts["claimed_content_type"] = body.claimed_content_type
    return make(cls or type(attachment), facts, binding)


def _copy(body: Upload, name: str, storage: Storage, key: str) -> tuple[int, str] | None:
    """Let the storage copy a file that it holds itself."""
    source = body.source
    if not isinstance(source, StoredSource) or not isinstance(storage, Copies) or body.guards:
        return None
    original = source.attachment
    home = binding_of(original)
    if home is None or original.storage != name or home.resolve(name) is not storage:
        return None
    with storage_errors(name, "copy", original.key):
        storage.copy(original.key, key)
    return original.size, original.sha256


def _take(body: Upload, name: str, storage: Storage, key: str) -> tuple[int, str] | None:
    """Let the storage make a given-away local file its own."""
    source = given(body)
    if source is None or not isinstance(storage, TakesFile):
        return None
    meter = _measured(source, body)
    if not source.is_as_read():
        return None  # It is read once more, while it is copied.
    with storage_errors(name, "take", key):
        taken = storage.take(key, source.path())
    if taken and not source.is_as_read(taken=True):  # Which of the two was taken nobody knows.
        with storage_errors(name, "delete", key):
            for error in storage.delete([key]).values():
                raise error
        return None
    return (meter.size, meter.sha256) if taken else None


def _measured(source: PathSource, body: Upload) -> Meter:
    with source.stream() as file:
        meter = Meter(file, body.guards)
        while meter.read(CHUNK):
            pass
    return meter


def _put(body: Upload, name: str, storage: Storage, key: str, size: int | None, content_type: str) -> tuple[int, str]:
    stream: Any = body.source.stream()
    meter = Meter(stream, body.guards)
    try:
        storage.put(key, meter, size=size, content_type=content_type)
        if not (meter.ended or not meter.read(1)):
            raise StorageFailed(
                f"storage {name!r} stopped before the end of {key!r}", storage=name, operation="put", key=key
            )
    except AttachmentError:
        raise
    except Exception as error:
        if meter.error is error:
            raise
        raise StorageFailed(
            f"storage {name!r} failed to put {key!r}: {type(error).__name__}: {error}",
            storage=name,
            operation="put",
            key=key,
        ) from error
    finally:
        if body.source.shared is None:
            stream.close()
    if body.source.shared is not None and size and meter.size != size:
        # Its position is one for all who read it: two threads would each store a part.
        raise BadSource(
            f"{body.source.shared!r} gave {meter.size:,} bytes of {size:,}: somebody else read or changed it: "
            "assign its bytes, or a file for each thread"
        )
    if isinstance(body.source, StoredSource):
        _unchanged(body.source, meter)
    return meter.size, meter.sha256


def _unchanged(source: StoredSource[Attachment], meter: Meter) -> None:
    facts = facts_of(source.attachment)
    if (meter.size, meter.sha256) != (facts["size"], facts["sha256"]):
        raise FileDamaged(f"{source.attachment!r} is not what was stored: {meter.size:,} bytes, SHA-256 {meter.sha256}")
