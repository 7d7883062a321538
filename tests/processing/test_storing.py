"""One pass over the source stores, counts and hashes; whose fault a failure was is never confused."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sa_attachments import Attachment, BadSource, FileDamaged, FileMissing, Refused, StorageFailed, Storages
from sa_attachments.attachment import binding_of, body_of, facts_of, make
from sa_attachments.descriptor import Named
from sa_attachments.key import is_key, moment
from sa_attachments.processing import MaxSize
from sa_attachments.processing.steps import run
from sa_attachments.processing.storing import Meter, store
from sa_attachments.source import CHUNK
from sa_attachments.storage import Readable
from sa_attachments.storages.local import LocalStorage
from sa_attachments.storages.memory import MemoryStorage
from sa_attachments.testing import Faulty
from sa_attachments.upload import Upload

on = pytest.mark.parametrize
DATA = b"0123456789"
SHA256 = hashlib.sha256(DATA).hexdigest()


def put(attachment: Attachment, storage: Any, **options: Any) -> Attachment:
    return store(attachment, "docs", storage, **{"started": lambda named: None, **options})


# The meter


@given(st.binary(max_size=50), st.lists(st.integers(0, 9), max_size=20), st.booleans())
def test_a_meter_counts_and_hashes_what_passes_through(data: bytes, sizes: list[int], rest: bool) -> None:
    meter, read = Meter(io.BytesIO(data)), b""
    for size in sizes:
        read += meter.read(size)
    if rest:
        read += meter.read()
        assert meter.ended
    assert data.startswith(read)
    assert (meter.size, meter.sha256) == (len(read), hashlib.sha256(read).hexdigest())


def test_a_meter_knows_the_end_only_when_it_saw_it() -> None:
    meter = Meter(io.BytesIO(DATA))
    meter.read(10)
    assert not meter.ended
    meter.read(1)
    assert meter.ended


def test_a_meter_tells_its_guards_before_it_gives_the_bytes() -> None:
    seen: list[int] = []
    meter = Meter(io.BytesIO(DATA), (seen.append,))
    meter.read(4)
    meter.read(4)
    assert seen == [4, 8]


# What is stored


READERS: dict[str, Callable[[Readable, int | None], bytes]] = {
    "to the end": lambda stream, size: b"".join(iter(lambda: stream.read(3), b"")),
    "all at once": lambda stream, size: stream.read(),
    "the size that was hinted at": lambda stream, size: stream.read(size if size is not None else -1),
}


class Reading(MemoryStorage):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.hints: list[tuple[int | None, str]] = []

    def put(self, key: str, stream: Readable, *, size: int | None, content_type: str) -> None:
        self.hints.append((size, content_type))
        data = READERS[self.how](stream, size)
        super().put(key, io.BytesIO(data), size=size, content_type=content_type)


@on("how", READERS)
@on("source", [DATA, iter([b"0123", b"456789"]), b""])
def test_size_and_hash_are_those_of_the_one_pass(how: str, source: Any) -> None:
    data = source if isinstance(source, bytes) else DATA
    new = Attachment.upload(source if isinstance(source, bytes) else iter([b"0123", b"456789"]))
    storage = Reading(how)
    stored = put(new, storage)
    assert (stored.size, stored.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert storage.open(stored.key).read() == data


def test_the_storage_is_told_the_size_where_it_is_known_and_the_type_of_the_bytes() -> None:
    storage = Reading("to the end")
    for source in (DATA, iter([DATA])):
        put(run([], Attachment.upload(source, "a.png", "image/png"), "Doc.file"), storage)
    assert storage.hints == [(10, "text/plain"), (None, "text/plain")]


def test_the_descriptor_says_all() -> None:
    new = run([], Attachment.upload(DATA, "../a.png", "image/png", {"n": [1]}), "Doc.file")
    stored = put(new, MemoryStorage())
    facts = json.loads(stored.to_json())
    key, stored_at = facts.pop("key"), facts.pop("stored_at")
    assert facts == {
        "v": 1,
        "storage": "docs",
        "filename": "a.png",
        "content_type": "text/plain",
        "claimed_content_type": "image/png",
        "size": 10,
        "sha256": SHA256,
        "metadata": {"n": [1]},
        "variants": {},
    }
    assert is_key(key)
    assert datetime.fromisoformat(stored_at) == datetime.fromtimestamp(moment(key) / 1000, UTC)


def test_no_key_holds_anything_of_the_name() -> None:
    names = ["../../etc/passwd", "a\0b", "x" * 4096, "\u202egpj.exe", "CON", ""]
    keys = {put(Attachment.upload(DATA, name), MemoryStorage()).key for name in names}
    assert len(keys) == len(names)
    assert all(is_key(key) for key in keys)


def test_every_attempt_has_a_key_of_its_own() -> None:
    new, storage = Attachment.upload(DATA), MemoryStorage()
    assert len({put(new, storage).key for _ in range(3)}) == 3


def test_started_is_told_before_the_first_byte_is_stored() -> None:
    told: list[tuple[Named, int]] = []
    storage = Faulty(MemoryStorage())
    stored = put(Attachment.upload(DATA), storage, started=lambda named: told.append((named, len(storage.calls))))
    assert told == [(Named("docs", stored.key, 10), 0)]


def test_class_and_binding_are_those_of_the_column() -> None:
    class Scan(Attachment):
        __slots__ = ()

    files = Storages("memory:")
    binding: Any = binding_of(files.stage(Attachment.upload(b"x")))
    stored = put(Attachment.upload(DATA), files.resolve("default"), cls=Scan, binding=binding)
    assert type(stored) is Scan
    assert binding_of(stored) is binding
    assert type(put(Scan.upload(DATA), MemoryStorage())) is Scan


@on("error", [None, OSError("full"), Refused("no", rule="x")])
def test_a_path_is_closed_and_a_users_file_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    path = tmp_path / "a"
    path.write_bytes(DATA)
    opened: list[Any] = []
    plain = Path.open

    def watched(self: Path, *args: Any, **options: Any) -> Any:
        opened.append(plain(self, *args, **options))
        return opened[-1]

    monkeypatch.setattr(Path, "open", watched)
    storage = Faulty(MemoryStorage())
    if error is not None:
        storage.fail("put", error=error)
    file = io.BytesIO(DATA)
    for source in (path, file):
        if error is None:
            put(Attachment.upload(source), storage)
        else:
            with pytest.raises((StorageFailed, Refused)):
                put(Attachment.upload(source), storage)
    assert [each.closed for each in opened] == [True]
    assert not file.closed


# What fails


def test_a_storage_that_fails() -> None:
    storage = Faulty(MemoryStorage()).fail("put", error=OSError("disk full"))
    told: list[Named] = []
    with pytest.raises(StorageFailed, match=r"storage 'docs' failed to put '20.*': OSError: disk full") as caught:
        put(Attachment.upload(DATA), storage, started=told.append)
    error = caught.value
    assert (error.storage, error.operation, error.key) == ("docs", "put", told[0].key)
    assert isinstance(error.__cause__, OSError)


def failing() -> Iterator[bytes]:
    yield b"0123"
    raise ConnectionResetError("the client went away")


def test_a_source_that_fails_is_not_the_storages_fault() -> None:
    storage = MemoryStorage()
    with pytest.raises(ConnectionResetError, match="the client went away"):
        put(Attachment.upload(failing()), storage)
    assert list(storage.keys()) == []


def test_a_storage_that_fails_because_of_the_source_is_blamed_with_the_cause() -> None:
    class Wrapping(MemoryStorage):
        def put(self, key: str, stream: Readable, *, size: int | None, content_type: str) -> None:
            try:
                super().put(key, stream, size=size, content_type=content_type)
            except ConnectionResetError as error:
                raise RuntimeError("upload aborted") from error

    with pytest.raises(StorageFailed, match="upload aborted"):
        put(Attachment.upload(failing()), Wrapping())


def test_a_storage_that_stops_early_is_found_out() -> None:
    class Lazy(MemoryStorage):
        def put(self, key: str, stream: Readable, *, size: int | None, content_type: str) -> None:
            stream.read(4)

    with pytest.raises(StorageFailed, match="stopped before the end"):
        put(Attachment.upload(DATA), Lazy())


@on("source", [lambda: iter([b"x" * 100] * 10), lambda: io.BytesIO(b"x" * 1000)])
def test_a_refusal_while_bytes_stream_stores_nothing(source: Callable[[], Any], tmp_path: Path) -> None:
    for storage in (MemoryStorage(), LocalStorage(tmp_path, durable=False)):
        ready = run([MaxSize(2000), MaxSize(1000)], Attachment.upload(source()), "Doc.file")
        assert put(ready, storage).size == 1000
    for storage in (MemoryStorage(), LocalStorage(tmp_path / "other", durable=False)):
        with pytest.raises(Refused, match=r"^Doc\.file: ") as caught:
            put(run([MaxSize(999)], Attachment.upload(source()), "Doc.file"), storage)
        assert (caught.value.rule, caught.value.limit, caught.value.measured) == ("MaxSize", 999, 1000)
        assert list(storage.keys()) == []
    assert [path for path in (tmp_path / "other").rglob("*") if path.is_file()] == []


# Copies


def test_a_copy_inside_one_storage_moves_no_bytes() -> None:
    storage = Faulty(MemoryStorage())
    files = Storages({"docs": storage})
    original = files.stage(Attachment.upload(DATA), storage="docs")
    del storage.calls[:]
    copied = put(original.copy(), storage)
    assert [call.verb for call in storage.calls] == ["copy"]
    assert (copied.size, copied.sha256) == (10, SHA256)
    assert storage.open(copied.key).read() == DATA


def test_a_copy_is_read_and_written_where_the_storage_cannot_copy() -> None:
    class WithoutCopy:
        parallel, readonly = 1, False

        def __init__(self) -> None:
            self.inner = MemoryStorage()
            for verb in ("put", "open", "stat", "delete", "keys"):
                setattr(self, verb, getattr(self.inner, verb))

    files = Storages({"docs": WithoutCopy()})  # type: ignore[dict-item]
    original = files.stage(Attachment.upload(DATA), storage="docs")
    copied = put(original.copy(), files.resolve("docs"))
    assert (copied.size, copied.sha256) == (10, SHA256)
    assert files.resolve("docs").open(copied.key).read() == DATA


def test_a_copy_goes_by_the_name_under_which_it_was_stored() -> None:
    """Two configurations may call two storages the same."""
    here, there = Faulty(MemoryStorage()), Faulty(MemoryStorage())
    original = Storages({"docs": there}).stage(Attachment.upload(DATA), storage="docs")
    copied = put(original.copy(), here)
    assert "copy" not in [call.verb for call in (*here.calls, *there.calls)]
    assert here.open(copied.key).read() == DATA


def test_a_copy_that_somebody_watches_passes_by_him() -> None:
    files, seen = Storages({"docs": "memory:"}), []
    new = files.stage(Attachment.upload(DATA), storage="docs").copy()
    body = body_of(new)
    assert isinstance(body, Upload)
    watched = make(Attachment, dataclasses.replace(body, guards=(seen.append,)), None)
    put(watched, files.resolve("docs"))
    assert seen[-1] == 10


def test_a_copy_of_what_is_gone() -> None:
    files = Storages({"docs": "memory:", "other": "memory:"})
    original = files.stage(Attachment.upload(DATA), storage="docs")
    files.resolve("docs").delete([original.key])
    for name in ("docs", "other"):
        with pytest.raises(FileMissing):
            store(original.copy(), name, files.resolve(name), started=lambda named: None)


def test_a_copy_into_another_storage_is_compared_with_the_original() -> None:
    files = Storages({"docs": "memory:"})
    original = files.stage(Attachment.upload(DATA), storage="docs")
    for change in ({"size": 9}, {"sha256": "0" * 64}):
        damaged = files.bind(json.dumps({**facts_of(original), **change}))
        with pytest.raises(FileDamaged, match="is not what was stored: 10 bytes, SHA-256"):
            put(damaged.copy(), MemoryStorage())


# Giving a file away


@pytest.mark.parametrize("size", [0, 10, 3 * CHUNK + 1])
def test_a_given_file_is_not_copied_where_the_storage_can_take_it(tmp_path: Path, size: int) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(size))
    storage = LocalStorage(tmp_path / "files", durable=False)
    stored = put(Attachment.upload(source, move=True), storage)
    assert (stored.size, stored.sha256) == (size, hashlib.sha256(bytes(size)).hexdigest())
    assert storage.path(stored.key).samefile(source)


def test_a_given_file_is_copied_where_the_storage_cannot_take_it(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(DATA)
    storage = MemoryStorage()
    stored = put(Attachment.upload(source, move=True), storage)
    assert storage.open(stored.key).read() == DATA
    assert source.exists()

    class Unable(MemoryStorage):
        def take(self, key: str, path: Path) -> bool:
            return False

    stored = put(Attachment.upload(source, move=True), Unable())
    assert (stored.size, stored.sha256) == (10, SHA256)


def test_a_given_file_is_watched_too(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(DATA)
    ready = run([MaxSize(10)], Attachment.upload(source, move=True), "Doc.file")
    source.write_bytes(DATA + b"x")
    storage = LocalStorage(tmp_path / "files", durable=False)
    with pytest.raises(Refused):
        put(ready, storage)
    assert list(storage.keys()) == []


def test_a_storage_that_fails_to_take(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(DATA)
    storage = Faulty(LocalStorage(tmp_path / "files", durable=False)).fail("take", error=OSError("full"))
    with pytest.raises(StorageFailed, match="failed to take") as caught:
        put(Attachment.upload(source, move=True), storage)
    assert caught.value.operation == "take"


def test_a_file_that_was_taken_by_mistake_and_stays_is_told(tmp_path: Path) -> None:
    """Somebody put another one into its place meanwhile."""
    source = tmp_path / "source"
    source.write_bytes(DATA)
    (tmp_path / "other").write_bytes(b"other")

    class Stubborn(LocalStorage):
        def take(self, key: str, path: Path) -> bool:
            (tmp_path / "other").replace(path)
            return super().take(key, path)

        def delete(self, keys: Sequence[str]) -> dict[str, Exception]:
            return dict.fromkeys(keys, OSError("busy"))

    with pytest.raises(StorageFailed, match="busy") as caught:
        put(Attachment.upload(source, move=True), Stubborn(tmp_path / "files", durable=False))
    assert caught.value.operation == "delete"


# Files that threads share


@on("moved", [3, 9])
def test_a_file_that_somebody_else_reads_meanwhile_is_not_stored_in_part(moved: int) -> None:
    class Shared(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(2)
            if self.tell() == 4:
                self.seek(moved)
            return data

    with pytest.raises(BadSource, match=r"gave [\d]+ bytes of 10: somebody else read or changed it"):
        put(Attachment.upload(Shared(DATA)), MemoryStorage())
