"""Attachments: one frozen class for both lives, its description, its equality, and every way of reading it."""

from __future__ import annotations

import asyncio
import copy
import hashlib
import io
import json
import pickle
import threading
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from sa_attachments import (
    Attachment,
    BadSource,
    FileDamaged,
    FileMissing,
    NotStored,
    NoUrl,
    SourceConsumed,
    StorageFailed,
    Storages,
    UnknownStorage,
)
from sa_attachments.attachment import binding_of
from sa_attachments.source import CHUNK
from sa_attachments.storages.memory import MemoryStorage
from sa_attachments.testing import Faulty

on = pytest.mark.parametrize
DATA = b"0123456789"


class Scan(Attachment):
    """A user's own class."""

    __slots__ = ()

    @property
    def shouted(self) -> str:
        return self.filename.upper()


@pytest.fixture(params=["memory", "local"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Storages:
    return Storages("memory:" if request.param == "memory" else f"local:{tmp_path}/files?durable=false")


@pytest.fixture
def stored(files: Storages) -> Attachment:
    return files.stage(Attachment.upload(DATA, "digits.txt", "text/csv", {"tags": ["a", {"b": 1}]}))


@pytest.fixture
def faulty() -> Faulty:
    return Faulty(MemoryStorage())


def descriptor(attachment: Attachment, **changes: object) -> str:
    return json.dumps({**json.loads(attachment.to_json()), **changes})


# Two lives


def test_is_made_by_upload_only() -> None:
    with pytest.raises(TypeError, match=r"Scan\.upload\(source\)"):
        Scan()


def test_a_new_one_knows_what_was_said_of_it() -> None:
    new = Attachment.upload(DATA, "a.txt", "text/csv", {"caption": "Hi"})
    assert not new.is_stored
    assert (new.filename, new.content_type, new.claimed_content_type) == ("a.txt", "text/csv", "text/csv")
    assert new.metadata == {"caption": "Hi"}
    assert repr(new) == "<new Attachment 'a.txt'>"


def test_a_new_one_of_which_nothing_was_said() -> None:
    new = Attachment.upload(DATA)
    assert (new.filename, new.content_type, new.claimed_content_type) == (
        "unnamed",
        "application/octet-stream",
        None,
    )
    assert new.metadata == {}


@on("ask", ["storage", "key", "size", "sha256", "stored_at", "to_json", "url", "copy"])
def test_a_new_one_has_nothing_that_storing_brings(ask: str) -> None:
    new = Attachment.upload(DATA, "a.txt")
    with pytest.raises(NotStored, match=r"<new Attachment 'a\.txt'> is not stored yet: flush or commit"):
        getattr(new, ask)()


def test_a_stored_one_knows_all(stored: Attachment) -> None:
    assert stored.is_stored
    assert stored.storage == "default"
    assert (stored.filename, stored.content_type, stored.claimed_content_type) == (
        "digits.txt",
        "text/plain",
        "text/csv",
    )
    assert (stored.size, stored.sha256) == (10, hashlib.sha256(DATA).hexdigest())
    assert stored.stored_at.tzinfo is UTC
    assert abs(stored.stored_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert stored.metadata == {"tags": ("a", {"b": 1})}
    assert repr(stored) == f"<Attachment 'digits.txt' default:{stored.key}>"


def test_the_claim_is_none_if_nobody_claimed(files: Storages) -> None:
    assert files.stage(Attachment.upload(DATA)).claimed_content_type is None


def test_storing_leaves_the_new_one_as_it_was(files: Storages) -> None:
    new = Attachment.upload(DATA)
    first, second = files.stage(new), files.stage(new)
    assert not new.is_stored
    assert first.key != second.key
    assert first.read() == second.read() == new.read() == DATA


def test_a_stored_one_is_not_stored_again(stored: Attachment, files: Storages) -> None:
    assert files.stage(stored) is stored


def test_a_subclass_stays_one(files: Storages) -> None:
    new = Scan.upload(DATA, "a.txt")
    stored = files.stage(new)
    for scan in (new, stored, stored.copy(), stored.replace(filename="A.TXT"), Scan.from_data_uri("data:,x", "a.txt")):
        assert type(scan) is Scan
        assert scan.shouted == "A.TXT"
    assert repr(new) == "<new Scan 'a.txt'>"


# Making


@on("value", [b"", b"\x00\xff", bytearray(b"ab"), memoryview(b"ab")])
def test_bytes(value: bytes) -> None:
    assert Attachment.upload(value).read() == bytes(value)


def test_an_attachment_is_no_source(stored: Attachment) -> None:
    with pytest.raises(BadSource, match=r"Attachment\.copy\(\)"):
        Attachment.upload(stored)


def test_only_a_path_can_be_given_away(tmp_path: Path) -> None:
    with pytest.raises(BadSource, match=r"only a pathlib\.Path can be moved, not bytes"):
        Attachment.upload(b"x", move=True)


def test_the_source_names_itself_unless_a_name_is_given(tmp_path: Path) -> None:
    path = tmp_path / "photo.JPG"
    path.write_bytes(b"x")
    assert Attachment.upload(path).filename == "photo.JPG"
    assert Attachment.upload(path, "other.png").filename == "other.png"
    with path.open("rb") as file:
        assert Attachment.upload(file).filename == "photo.JPG"


@on(
    "metadata",
    [
        {"a": object()},
        {"a": float("nan")},
        {"a": 10**5000},
        {("a", "b"): 1},
        {"a": b"bytes"},
        [1],
        [object()],
        "text",
        {"a": datetime(2026, 1, 1, tzinfo=UTC)},
    ],
)
def test_metadata_is_json(metadata: Any) -> None:
    with pytest.raises(BadSource, match="metadata"):
        Attachment.upload(b"x", metadata=metadata)


@pytest.mark.parametrize("said", [{"filename": Path("a.txt")}, {"filename": b"a"}, {"content_type": 5}])
def test_what_is_said_of_a_file_is_text(said: Any) -> None:
    with pytest.raises(BadSource, match="is text, not"):
        Attachment.upload(b"x", **said)


def test_metadata_that_refers_to_itself_is_refused() -> None:
    ring: dict[str, Any] = {}
    ring["again"] = ring
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    for metadata in (ring, {"deep": deep}):
        with pytest.raises(BadSource, match="metadata"):
            Attachment.upload(b"x", metadata=metadata)


def test_metadata_is_a_frozen_copy(files: Storages) -> None:
    given: dict[str, Any] = {"list": [1, {"a": 2}], "map": {"b": [3]}}
    new = Attachment.upload(b"x", metadata=given)
    stored = files.stage(new)
    given["list"].append("later")
    for metadata in (new.metadata, stored.metadata):
        assert metadata == {"list": (1, {"a": 2}), "map": {"b": (3,)}}
        with pytest.raises(TypeError):
            metadata["new"] = 1  # type: ignore[index]
        with pytest.raises(TypeError):
            metadata["list"][1]["a"] = 1


def test_frozen_metadata_can_be_passed_on(stored: Attachment, files: Storages) -> None:
    again = files.stage(Attachment.upload(b"x", metadata={**stored.metadata, "more": stored.metadata}))
    assert again.metadata == {**stored.metadata, "more": stored.metadata}


@on(
    ("uri", "content", "claimed"),
    [
        ("data:text/plain;base64,aGk=", b"hi", "text/plain"),
        ("data:,a%20b%00", b"a b\0", "text/plain"),
        ("data:;base64,", b"", "text/plain"),
        ("DATA:image/PNG;charset=x;BASE64,aGk=", b"hi", "image/png"),
        ("data:text/html,<b>", b"<b>", "text/html"),
        ("data:text/plain;base64,aGk%3D", b"hi", "text/plain"),  # padding is often percent-encoded
        ("data:,a,b", b"a,b", "text/plain"),
    ],
)
def test_data_uris(uri: str, content: bytes, claimed: str) -> None:
    new = Attachment.from_data_uri(uri, "a.bin", metadata={"from": "uri"}, storage="other")
    assert (new.read(), new.claimed_content_type, new.filename, dict(new.metadata)) == (
        content,
        claimed,
        "a.bin",
        {"from": "uri"},
    )


@on("uri", ["", "data:", "data:text/plain", "http://a,b", "data:;base64,a", "data:;base64,a-_=", "hello, world"])
def test_what_is_no_data_uri(uri: str) -> None:
    with pytest.raises(BadSource):
        Attachment.from_data_uri(uri)


# Describing


def test_replace_changes_the_description_and_nothing_else(stored: Attachment) -> None:
    other = stored.replace(filename="../b.txt", metadata={"n": 1})
    assert (other.filename, other.metadata) == ("b.txt", {"n": 1})
    assert (stored.filename, stored.metadata["tags"][0]) == ("digits.txt", "a")
    assert other == stored
    assert other.read() == DATA
    before, after = json.loads(stored.to_json()), json.loads(other.to_json())
    assert {name for name in before if before[name] != after[name]} == {"filename", "metadata"}


def test_replace_keeps_what_is_not_given(stored: Attachment) -> None:
    for attachment in (stored, Attachment.upload(DATA, "digits.txt", metadata={"tags": ["a", {"b": 1}]})):
        assert attachment.replace(filename="b").metadata == attachment.metadata
        assert attachment.replace(metadata={}).filename == "digits.txt"
        assert attachment.replace(metadata={}).metadata == {}
        assert attachment.replace().to_json() == stored.to_json() if attachment.is_stored else True


def test_replace_of_a_new_one_is_another_new_one_of_the_same_source() -> None:
    new = Attachment.upload(DATA, "a.txt", "text/csv", {"n": 1}, "other")
    renamed = new.replace(filename="CON")
    assert (renamed.filename, renamed.claimed_content_type, renamed.metadata) == ("_CON", "text/csv", {"n": 1})
    assert renamed != new
    assert renamed.read() == DATA


@on("change", [{"metadata": {"a": object()}}, {"metadata": [1]}])
def test_replace_refuses_what_upload_refuses(stored: Attachment, change: Any) -> None:
    for attachment in (stored, Attachment.upload(DATA)):
        with pytest.raises(BadSource):
            attachment.replace(**change)


def test_copy_is_a_new_upload_with_the_same_bytes_and_description(stored: Attachment, files: Storages) -> None:
    new = stored.copy()
    assert not new.is_stored
    assert (new.filename, new.content_type, new.claimed_content_type, new.metadata) == (
        stored.filename,
        stored.content_type,
        stored.claimed_content_type,
        stored.metadata,
    )
    assert new.read() == DATA
    assert new.read(2, 4) == b"23"
    again = files.stage(new)
    assert again.key != stored.key
    assert again != stored
    assert again.read() == DATA
    changed = {
        name for name, value in json.loads(again.to_json()).items() if json.loads(stored.to_json())[name] != value
    }
    assert changed == {"key", "stored_at"} or changed == {"key"}


def test_a_copy_is_made_inside_the_storage_where_it_can(faulty: Faulty) -> None:
    files = Storages(faulty)
    stored = files.stage(Attachment.upload(DATA))
    del faulty.calls[:]
    files.stage(stored.copy())
    assert [call.verb for call in faulty.calls] == ["copy"]


def test_a_copy_into_another_storage_is_read_and_written(faulty: Faulty) -> None:
    files = Storages({"default": faulty, "other": "memory:"})
    copied = files.stage(files.stage(Attachment.upload(DATA)).copy(), storage="other")
    assert copied.storage == "other"
    assert copied.read() == DATA
    assert "copy" not in [call.verb for call in faulty.calls]


def test_a_copy_of_a_file_that_changed_meanwhile_is_no_copy() -> None:
    files = Storages({"default": "memory:", "other": "memory:"})
    stored = files.stage(Attachment.upload(DATA))
    with pytest.raises(FileDamaged, match="is not what was stored"):
        files.stage(files.bind(descriptor(stored, sha256="0" * 64)).copy(), storage="other")


def test_to_json_and_bind_are_each_others_inverse(stored: Attachment, files: Storages) -> None:
    again = files.bind(stored.to_json())
    assert again == stored
    assert again.read() == DATA
    assert again.to_json() == stored.to_json()
    assert type(files.bind(stored.to_json(), Scan)) is Scan


# Reading, in both lives


@pytest.fixture(params=["new", "stored", "copy"])
def readable(request: pytest.FixtureRequest, stored: Attachment) -> Attachment:
    return {"new": Attachment.upload(DATA, "digits.txt"), "stored": stored, "copy": stored.copy()}[request.param]


def test_open_is_a_binary_file(readable: Attachment) -> None:
    with readable.open() as file:
        assert file.seekable()
        assert file.readable()
        assert file.read(3) == b"012"
        assert file.tell() == 3
        assert file.seek(-2, io.SEEK_END) == 8
        assert file.read() == b"89"
        assert file.seek(0) == 0
        assert file.readline() == DATA
        buffer = bytearray(4)
        file.seek(1)
        assert file.readinto(buffer) == 4  # type: ignore[attr-defined]
        assert buffer == b"1234"
    assert file.closed


def test_two_readers_do_not_meet(readable: Attachment) -> None:
    with readable.open() as first, readable.open() as second:
        assert (first.read(2), second.read(4), first.read(2)) == (b"01", b"0123", b"23")


@on("start", [0, 1, 5, 9, 10, 11, 500])
@on("end", [None, 0, 1, 5, 10, 11, 500])
def test_ranges(readable: Attachment, start: int, end: int | None) -> None:
    expected = DATA[start:end]
    assert readable.read(start, end) == expected
    with readable.open(start, end) as file:
        assert file.read(4) == expected[:4]
        assert file.read() == expected[4:]
        assert file.read() == b""
        assert file.seek(0, io.SEEK_END) == len(expected)
        file.seek(0)
        assert file.read() == expected


@on("range_", [(-1, None), (0, -1), (-3, -1)])
def test_a_range_counts_from_the_beginning(readable: Attachment, range_: tuple[int, int | None]) -> None:
    with pytest.raises(ValueError, match="counts from the beginning"):
        readable.open(*range_)


def test_a_range_of_a_path_closes_the_file_with_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "digits.txt"
    path.write_bytes(DATA)
    opened: list[Any] = []
    plain = Path.open

    def watched(self: Path, *args: Any, **options: Any) -> Any:
        opened.append(plain(self, *args, **options))
        return opened[-1]

    monkeypatch.setattr(Path, "open", watched)
    with Attachment.upload(path).open(2, 4) as file:
        assert file.read() == b"23"
        assert not opened[0].closed
    assert opened[0].closed


def test_read_text(files: Storages) -> None:
    text = "größe 日本"
    for encoding in ("utf-8", "utf-16"):
        new = Attachment.upload(text.encode(encoding))
        assert new.read_text(encoding) == files.stage(new).read_text(encoding) == text
    damaged = Attachment.upload(b"\xff")
    with pytest.raises(UnicodeDecodeError):
        damaged.read_text()
    assert damaged.read_text(errors="replace") == "\ufffd"


@on(("size", "expected"), [(4, [b"0123", b"4567", b"89"]), (5, [b"01234", b"56789"]), (100, [DATA])])
def test_chunks(readable: Attachment, size: int, expected: list[bytes]) -> None:
    assert list(readable.chunks(size)) == expected


def test_chunks_have_the_size_that_was_asked_for_even_of_a_source_that_gives_less() -> None:
    dribble = Attachment.upload(iter([b"0", b"12", b"", b"3456789"]))
    assert list(dribble.chunks(4)) == [b"0123", b"4567", b"89"]


def test_an_empty_file_has_no_chunks(files: Storages) -> None:
    assert list(files.stage(Attachment.upload(b"")).chunks()) == []


def test_chunks_that_nobody_finishes_close_the_file(faulty: Faulty) -> None:
    stored = Storages(faulty).stage(Attachment.upload(DATA))
    opened: list[BinaryIO] = []
    plain = faulty.inner.open

    def watched(*args: Any) -> BinaryIO:
        opened.append(plain(*args))
        return opened[-1]

    faulty.inner.open = watched  # type: ignore[method-assign]
    chunks = stored.chunks(1)
    next(chunks)
    chunks.close()  # type: ignore[attr-defined]
    assert opened[0].closed


@on("form", [Path, str])
def test_save_to_writes_or_replaces_a_file(readable: Attachment, tmp_path: Path, form: type) -> None:
    path = tmp_path / "saved"
    path.write_bytes(b"x" * 100)
    readable.save_to(form(path))
    assert path.read_bytes() == DATA


def test_save_to_its_own_file_changes_nothing(tmp_path: Path) -> None:
    """To open it for writing would empty it before it is read."""
    source = tmp_path / "digits.txt"
    source.write_bytes(DATA)
    (tmp_path / "link").symlink_to(source)
    stored = Storages(f"local:{tmp_path}/files?durable=false").stage(Attachment.upload(DATA))
    with stored.path() as inside:
        for attachment, path in (
            (Attachment.upload(source), source),
            (Attachment.upload(source), tmp_path / "link"),
            (stored, inside),
        ):
            attachment.save_to(path)
            assert path.read_bytes() == DATA


def test_save_to_leaves_the_target_alone_if_there_is_nothing_to_save(files: Storages, tmp_path: Path) -> None:
    stored = files.stage(Attachment.upload(DATA))
    files.resolve("default").delete([stored.key])
    path = tmp_path / "saved"
    path.write_bytes(b"precious")
    with pytest.raises(FileMissing):
        stored.save_to(path)
    assert path.read_bytes() == b"precious"


def test_path_is_a_real_file_with_the_extension(readable: Attachment) -> None:
    with readable.path() as path:
        assert path.read_bytes() == DATA


def test_path_of_a_storage_without_paths_is_a_download_that_goes_again(faulty: Faulty) -> None:
    stored = Storages(faulty).stage(Attachment.upload(DATA, "../digits.TXT"))
    with stored.path() as path:
        assert path.suffix == ".txt"
        assert path.read_bytes() == DATA
    assert not path.exists()


def test_path_of_a_local_storage_is_the_stored_file_itself(tmp_path: Path) -> None:
    stored = Storages(f"local:{tmp_path}").stage(Attachment.upload(DATA))
    with stored.path() as path:
        assert path == tmp_path / stored.key
    assert path.exists()


def test_path_of_a_new_one_from_a_path_is_that_path(tmp_path: Path) -> None:
    source = tmp_path / "a.txt"
    source.write_bytes(DATA)
    with Attachment.upload(source).path() as path:
        assert path == source
    assert source.exists()


async def test_aread(readable: Attachment) -> None:
    assert await readable.aread() == DATA
    assert await readable.aread(2, 4) == b"23"


async def test_achunks(readable: Attachment) -> None:
    assert [chunk async for chunk in readable.achunks(4)] == [b"0123", b"4567", b"89"]


async def test_asynchronous_reading_leaves_the_loop_free(faulty: Faulty) -> None:
    stored = Storages(faulty).stage(Attachment.upload(DATA))
    faulty.hang("open")
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1
            if ticks > 5:
                faulty.heal()

    ticker = asyncio.create_task(tick())
    assert await asyncio.wait_for(stored.aread(), 30) == DATA
    ticker.cancel()


async def test_achunks_that_nobody_finishes_close_the_file(faulty: Faulty) -> None:
    stored = Storages(faulty).stage(Attachment.upload(DATA))
    opened: list[BinaryIO] = []
    plain = faulty.inner.open

    def watched(*args: Any) -> BinaryIO:
        opened.append(plain(*args))
        return opened[-1]

    faulty.inner.open = watched  # type: ignore[method-assign]
    chunks = stored.achunks(1)
    await anext(chunks)
    await chunks.aclose()  # type: ignore[attr-defined]
    assert opened[0].closed


async def test_an_asynchronous_source_is_read_on_its_own_loop() -> None:
    threads: set[int] = set()

    async def chunks() -> AsyncIterator[bytes]:
        for byte in (b"a", b"b"):
            threads.add(threading.get_ident())
            await asyncio.sleep(0)
            yield byte

    new = Attachment.upload(chunks())
    assert await new.aread() == b"ab"
    assert await new.aread() == b"ab"
    assert threads == {threading.get_ident()}


async def test_an_asynchronous_source_cannot_be_read_synchronously() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"a"

    with pytest.raises(BadSource, match=r"Attachment\.aread\(\)"):
        Attachment.upload(chunks()).read()


def test_a_new_one_can_be_read_twice_even_if_its_source_cannot() -> None:
    new = Attachment.upload(iter([b"ab", b"c"]))
    assert new.read() == new.read() == b"abc"
    assert new.read(1, 2) == b"b"


def test_reading_a_source_that_was_closed_says_so() -> None:
    file = io.BytesIO(DATA)
    new = Attachment.upload(file)
    file.close()
    with pytest.raises(SourceConsumed, match="keep it open until commit"):
        new.read()


# What goes wrong in a storage


def through_path(attachment: Attachment) -> None:
    with attachment.path() as path:
        path.read_bytes()


READINGS: dict[str, Callable[[Attachment], object]] = {
    "open": Attachment.open,
    "read": Attachment.read,
    "read_text": Attachment.read_text,
    "chunks": lambda attachment: list(attachment.chunks()),
    "path": through_path,
}


@on("reading", READINGS)
def test_bytes_that_are_gone(files: Storages, reading: str) -> None:
    stored = files.stage(Attachment.upload(DATA))
    files.resolve("default").delete([stored.key])
    with pytest.raises(FileMissing, match=stored.key):
        READINGS[reading](stored)


@on("size", [9, 11])
def test_bytes_that_are_fewer_or_more_than_were_stored(files: Storages, size: int) -> None:
    stored = files.bind(descriptor(files.stage(Attachment.upload(DATA)), size=size))
    with pytest.raises(FileDamaged, match=f"10 bytes, {size} were stored"):
        stored.read()
    assert stored.read(0, 5) == DATA[:5]  # a part says nothing of the whole


def test_a_storage_that_fails_is_named_with_the_verb_and_the_key(faulty: Faulty) -> None:
    files = Storages({"default": "memory:", "faulty": faulty})
    stored = files.stage(Attachment.upload(DATA), storage="faulty")
    faulty.fail("open", error=ConnectionError("no route"))
    with pytest.raises(StorageFailed, match=r"storage 'faulty' failed to open .*: ConnectionError: no route") as caught:
        stored.read()
    error = caught.value
    assert (error.storage, error.operation, error.key) == ("faulty", "open", stored.key)
    assert isinstance(error.__cause__, ConnectionError)


def test_a_storage_that_is_not_configured_any_more(files: Storages) -> None:
    stored = files.bind(descriptor(files.stage(Attachment.upload(DATA)), storage="lost"))
    with pytest.raises(UnknownStorage, match="no storage 'lost'; configured are 'default'"):
        stored.read()
    assert stored.size == 10


def test_url_of_a_storage_without_urls(stored: Attachment) -> None:
    with pytest.raises(NoUrl, match="serve the file through the application"):
        stored.url()


class Signing(MemoryStorage):
    def sign_download(self, key: str, *, expires: timedelta, filename: str, content_type: str) -> str:
        if filename == "fail":
            raise ConnectionError
        return f"https://example.org/{key}?{expires.total_seconds():.0f}&{filename}&{content_type}"


@on("expires", [60, 60.0, timedelta(minutes=1)])
def test_url_of_a_storage_that_signs(expires: Any) -> None:
    files = Storages(Signing())
    stored = files.stage(Attachment.upload(DATA, "a.txt"))
    assert stored.url(expires) == f"https://example.org/{stored.key}?60&a.txt&text/plain"
    with pytest.raises(StorageFailed, match="failed to sign"):
        stored.replace(filename="fail").url()


# Being a value


def test_new_ones_are_equal_only_to_themselves() -> None:
    one, other = Attachment.upload(b"x"), Attachment.upload(b"x")
    assert one == one
    assert one != other
    assert len({one, other, one}) == 2


def test_stored_ones_are_equal_if_they_name_the_same_file(stored: Attachment, files: Storages) -> None:
    same = files.bind(descriptor(stored, filename="other", size=1, metadata={}))
    assert same == stored
    assert hash(same) == hash(stored)
    assert files.bind(descriptor(stored, storage="other")) != stored
    assert files.bind(descriptor(stored, key="other")) != stored
    assert {stored: 1}[same] == 1


def test_a_new_one_is_never_equal_to_a_stored_one(stored: Attachment) -> None:
    assert stored != stored.copy()
    assert stored.copy() != stored


def test_nothing_else_is_equal(stored: Attachment) -> None:
    assert stored != stored.key
    assert stored != json.loads(stored.to_json())
    assert stored is not None
    assert (stored == 1) is False


def test_is_made_by_upload() -> None:
    making: Any = Attachment
    for call in (making, partial(making, b"x"), partial(making, content=b"x")):
        with pytest.raises(TypeError, match=r"make a new one by Attachment\.upload\(source\)"):
            call()


def test_is_frozen(stored: Attachment) -> None:
    for attachment in (stored, Attachment.upload(DATA)):
        with pytest.raises(AttributeError, match=r"assign attachment\.replace\(filename=\.\.\.\)"):
            attachment.filename = "b"  # type: ignore[misc]
        with pytest.raises(AttributeError, match="frozen"):
            attachment._body = None  # type: ignore[assignment]
        with pytest.raises(AttributeError, match="frozen"):
            attachment.novel = 1  # type: ignore[attr-defined]
        with pytest.raises(AttributeError, match="frozen"):
            del attachment.filename


@on("again", [copy.copy, copy.deepcopy])
def test_copying_a_value_gives_the_value(stored: Attachment, again: Any) -> None:
    for attachment in (stored, Attachment.upload(iter([DATA]))):
        assert again(attachment) is attachment
        assert again([attachment])[0] is attachment


@on("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickling_a_stored_one(stored: Attachment, files: Storages, protocol: int) -> None:
    again = pickle.loads(pickle.dumps(stored, protocol))
    assert again == stored
    assert again.to_json() == stored.to_json()
    assert binding_of(again) is None
    with pytest.raises(UnknownStorage, match=r"pass it through Storages\.bind"):
        again.read()
    assert files.bind(again) is again
    assert again.read() == DATA


def test_pickling_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(DATA)
    for source in (DATA, path):
        new = Scan.upload(source, "a.txt", "text/csv", {"a": [1]}, "other")
        again = pickle.loads(pickle.dumps(new))
        assert type(again) is Scan
        assert (again.read(), again.filename, again.claimed_content_type, again.metadata) == (
            DATA,
            "a.txt",
            "text/csv",
            {"a": (1,)},
        )
        assert again != new


def test_pickling_an_open_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="pickle"):
        pickle.dumps(Attachment.upload(io.BufferedReader(io.BytesIO(DATA))))  # type: ignore[arg-type]


def test_binding_an_attachment_that_knows_its_storages_changes_nothing(stored: Attachment) -> None:
    home = binding_of(stored)
    Storages("memory:").bind(stored)
    assert binding_of(stored) is home


def test_large_files_are_read_in_pieces(faulty: Faulty) -> None:
    data = bytes(range(256)) * 4096
    stored = Storages(faulty).stage(Attachment.upload(data))
    assert [len(chunk) for chunk in stored.chunks()] == [CHUNK] * 4
    assert stored.read() == data


@pytest.mark.parametrize("storage", [5, b"default", Storages("memory:")], ids=lambda value: type(value).__name__)
def test_a_storage_is_given_by_its_name(storage: Any) -> None:
    with pytest.raises(BadSource, match=f"a storage is given by its name, not as {type(storage).__name__}"):
        Attachment.upload(b"x", storage=storage)
