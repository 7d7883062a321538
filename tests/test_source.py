"""Sources: bytes that can be read again are, others are spooled when they are asked for twice; none lies about it."""

from __future__ import annotations

import gc
import io
import resource
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Column, MetaData, Table

from sa_attachments import Attachment, AttachmentType, BadSource, FileMissing, Refused, SourceConsumed, Storages
from sa_attachments import source as module
from sa_attachments.source import (
    SPOOL_MEMORY,
    BytesSource,
    ChunkReader,
    FileSource,
    OnceSource,
    PathSource,
    Source,
    Window,
)

on = pytest.mark.parametrize
DATA = b"0123456789"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "digits.txt"
    path.write_bytes(DATA)
    return path


KINDS: dict[str, Callable[[Path], Source]] = {
    "bytes": lambda path: BytesSource(DATA),
    "path": PathSource,
    "file": lambda path: FileSource(io.BytesIO(DATA)),
    "once": lambda path: OnceSource(iter([b"012", b"", b"3456789"]), "a pipe"),
}
REPLAYABLE = ["bytes", "path", "file"]


@pytest.fixture(params=KINDS)
def source(request: pytest.FixtureRequest, path: Path) -> Source:
    return KINDS[request.param](path)


def closed(source: Source, stream: Any) -> None:
    if source.shared is None:
        stream.close()


# What all promise


@on("size", [0, 1, 3, 4, 10, 11])
def test_head_uses_nothing_up(source: Source, size: int) -> None:
    assert source.head(size) == DATA[:size]
    assert source.head(2) == DATA[:2]
    with source.open() as file:
        assert file.read() == DATA


def test_head_and_then_stream(source: Source) -> None:
    source.head(5)
    stream: Any = source.stream()
    assert b"".join(iter(lambda: stream.read(4), b"")) == DATA
    assert stream.read(4) == b""
    closed(source, stream)


def test_open_is_seekable_and_can_be_repeated(source: Source) -> None:
    for _ in range(2):
        with source.open() as file:
            assert file.seek(4) == 4
            assert file.read(2) == b"45"
            assert file.seek(0, io.SEEK_END) == 10
            assert file.read() == b""
    assert source.size() == 10


def test_a_stream_after_open_begins_at_the_beginning(source: Source) -> None:
    with source.open() as file:
        file.read(7)
    stream: Any = source.stream()
    assert stream.read(-1) == DATA
    closed(source, stream)


def test_closing_what_was_opened_closes_nothing_else(source: Source) -> None:
    source.open().close()
    assert source.open().read() == DATA


def test_opened_twice_at_the_same_time(source: Source) -> None:
    with source.open() as first, source.open() as second:
        assert (first.read(3), second.read(5), first.read(3)) == (b"012", b"01234", b"345")


@on("kind", REPLAYABLE)
def test_a_stream_of_what_can_be_read_again_begins_again(kind: str, path: Path) -> None:
    source = KINDS[kind](path)
    for _ in range(2):
        stream: Any = source.stream()
        assert stream.read(4) == b"0123"
        closed(source, stream)


@on(("kind", "has"), [("bytes", False), ("path", True), ("file", False), ("once", False)])
def test_only_a_path_is_a_local_file(kind: str, has: bool, path: Path) -> None:
    assert KINDS[kind](path).path() == (path if has else None)


def test_those_that_move_a_position_say_whose() -> None:
    file, chunks = io.BytesIO(), iter([b""])
    assert FileSource(file).shared is file
    assert OnceSource(chunks, chunks).shared is chunks
    assert BytesSource(b"").shared is None


@pytest.mark.parametrize("change", [None, "another file", "written into", "written into, with a twin", "gone"])
def test_a_path_knows_whether_it_is_as_it_was_read(path: Path, change: str | None) -> None:
    source = PathSource(path)
    assert not source.is_as_read()
    source.stream().close()
    match change:
        case "another file":
            new = path.with_name("new")
            new.write_bytes(path.read_bytes())
            new.replace(path)
        case "written into" | "written into, with a twin":  # as another file is that got its inode
            with path.open("ab") as file:
                file.write(b"more")
            if change != "written into":
                path.with_name("twin").hardlink_to(path)
        case "gone":
            path.unlink()
    if change != "gone":
        source.open().close()  # as a variant does, after it was stored
    assert source.is_as_read() is (change is None)


def test_an_empty_one(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    for source in (BytesSource(b""), FileSource(io.BytesIO()), PathSource(empty), OnceSource(iter([]), "x")):
        assert source.head(10) == b""
        assert source.open().read() == b""


# Paths


@on("verb", ["size", "head", "open", "stream"])
def test_a_path_that_is_gone_by_the_time_it_is_read(path: Path, verb: str) -> None:
    source = PathSource(path)
    path.unlink()
    with pytest.raises(FileMissing, match=r"digits\.txt' was there when it was assigned, and is gone"):
        getattr(source, verb)(*[1] * (verb == "head"))


def test_a_file_that_says_that_it_is_empty_and_is_not() -> None:
    source = PathSource(Path("/proc/self/status"))
    assert source.size() is None
    assert source.head(5) == b"Name:"


# Files


def test_a_file_is_rewound_for_every_reading() -> None:
    file = io.BytesIO(DATA)
    file.seek(6)
    source = FileSource(file)
    assert (source.size(), source.head(3)) == (10, b"012")
    assert source.open().read() == DATA
    stream = source.stream()
    assert stream.read(4) == b"0123"
    assert source.stream().read(4) == b"0123"


def test_asking_for_the_size_and_the_type_does_not_move_the_file() -> None:
    file = io.BytesIO(DATA)
    source = FileSource(file)
    file.seek(4)
    assert (source.size(), source.head(2)) == (10, b"01")
    assert file.tell() == 4


def shout(attachment: Attachment) -> Attachment:
    return Attachment.upload(attachment.read() + b"!")


def refuse(attachment: Attachment) -> None:
    if attachment.read():
        raise ValueError("no digits")


@on("how", ["head", "put", "variant", "transform", "refusal", "check"])
def test_a_file_that_was_read_is_taken_whole_again(how: str) -> None:
    """Whoever tries again, or stores it after a form has looked at it, may wrap the file itself once more."""
    file = io.BytesIO(DATA)
    files = Storages("memory:")
    steps: list[Any] = {"transform": [shout], "refusal": [refuse], "check": [refuse]}.get(how, [])
    variants = {"loud": shout} if how == "variant" else None
    column: Column[Any] = Column("file", AttachmentType(files, steps=steps, variants=variants))
    Table("docs", MetaData(), column)
    new = Attachment.upload(file, "a.txt")
    match how:
        case "head":
            assert FileSource(file).head(3) == b"012"
        case "check":
            with pytest.raises(Refused):
                column.type.check(new)  # type: ignore[attr-defined]
        case "refusal":
            with pytest.raises(Refused):
                files.stage(new, column)
        case _:
            assert files.stage(new, column).read() == DATA + b"!" * (how == "transform")
    assert Attachment.upload(file).read() == DATA


@on("verb", ["size", "head", "open", "stream"])
def test_a_file_that_was_closed_before_it_was_read(verb: str) -> None:
    file = io.BytesIO(DATA)
    source = FileSource(file)
    file.close()
    with pytest.raises(SourceConsumed, match="keep it open until commit, or assign its bytes"):
        getattr(source, verb)(*[1] * (verb == "head"))


def test_a_file_that_was_closed_while_it_was_read() -> None:
    file = io.BytesIO(DATA)
    opened, stream = FileSource(file).open(), FileSource(file).stream()
    file.close()
    for reading in (opened, stream):
        with pytest.raises(SourceConsumed):
            reading.read(1)


@on("gives", ["text", None, 7])
def test_a_file_that_gives_something_else_than_bytes(gives: object) -> None:
    class Odd(io.BytesIO):
        def read(self, size: int | None = -1) -> Any:
            return gives

    with pytest.raises(BadSource, match=f"gave {type(gives).__name__} where bytes are due"):
        FileSource(Odd(DATA)).stream().read(1)


# What can be read once


def counted(chunks: list[bytes], taken: list[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        taken.append(chunk)
        yield chunk


def test_streaming_reads_straight_through_and_once() -> None:
    taken: list[bytes] = []
    source = OnceSource(counted([b"0123", b"456789"], taken), "a pipe")
    stream = source.stream()
    assert taken == []
    assert (stream.read(2), taken) == (b"01", [b"0123"])
    for verb in (source.stream, source.open, lambda: source.head(1)):
        with pytest.raises(SourceConsumed, match="'a pipe' could be read only once, and was: assign a fresh source"):
            verb()


def test_what_was_opened_is_spooled_and_can_be_streamed_any_time() -> None:
    taken: list[bytes] = []
    source = OnceSource(counted([b"0123", b"456789"], taken), "a pipe")
    source.open().close()
    assert [source.stream().read(-1) for _ in range(2)] == [DATA, DATA]
    assert taken == [b"0123", b"456789"]
    assert source.size() == 10


def test_head_takes_no_more_than_it_needs() -> None:
    taken: list[bytes] = []
    source = OnceSource(counted([b"0123", b"4567", b"89"], taken), "a pipe")
    assert source.head(5) == b"01234"
    assert taken == [b"0123", b"4567"]
    assert source.head(8) == b"01234567"
    assert taken == [b"0123", b"4567"]


def test_an_error_while_spooling_leaves_nothing_that_looks_whole() -> None:
    def chunks() -> Iterator[bytes]:
        yield b"0123"
        raise ConnectionResetError

    generator = chunks()
    source = OnceSource(generator, generator)
    with pytest.raises(ConnectionResetError):
        source.open()
    with pytest.raises(SourceConsumed):
        source.open()
    with pytest.raises(SourceConsumed):
        source.stream()


def test_guards_watch_while_it_is_spooled() -> None:
    seen: list[int] = []

    def guard(size: int) -> None:
        seen.append(size)
        if size > 5:
            raise Refused("too large", rule="MaxSize")

    endless = iter(lambda: b"abc", b"")
    with pytest.raises(Refused):
        OnceSource(endless, "a pipe").open((guard,))
    assert seen == [3, 6]


def test_a_disk_that_is_full_while_it_is_spooled_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not that of the storage."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * SPOOL_MEMORY, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as raised:
            OnceSource(iter([bytes(SPOOL_MEMORY)] * 3), "a pipe").open()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert raised.value.filename == str(tmp_path)


def test_a_large_one_is_spooled_to_disk_and_the_disk_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    spools: list[Any] = []
    plain = tempfile.SpooledTemporaryFile

    def watched(**options: Any) -> Any:
        spools.append(plain(**options))
        return spools[-1]

    monkeypatch.setattr(module.tempfile, "SpooledTemporaryFile", watched)
    source = OnceSource(iter([b"x" * 1000] * (SPOOL_MEMORY // 1000 + 2)), "a pipe")
    small = OnceSource(iter([b"x"]), "a pipe")
    assert source.open().read(1) == small.open().read(1) == b"x"
    assert [spool._rolled for spool in spools] == [True, False]
    del source, small
    gc.collect()
    assert [spool.closed for spool in spools] == [True, True]


def test_a_spool_lives_as_long_as_somebody_reads_it() -> None:
    def opened() -> Any:
        return OnceSource(iter([DATA]), "a pipe").open()

    file = opened()
    gc.collect()
    assert file.read() == DATA


def test_two_attachments_of_one_generator_are_told_apart() -> None:
    chunks = (chunk for chunk in [DATA])
    first, second = Attachment.upload(chunks), Attachment.upload(chunks)
    files = Storages("memory:")
    assert files.stage(first).read() == DATA
    with pytest.raises(SourceConsumed):
        files.stage(second)


def test_a_retry_of_a_consumed_source_is_an_error_and_no_empty_file() -> None:
    new = Attachment.upload(iter([DATA]))
    files = Storages("memory:")
    files.stage(new)
    with pytest.raises(SourceConsumed):
        files.stage(new)


# Chunks

chunks = st.lists(st.binary(max_size=5), max_size=8)


@given(chunks, st.lists(st.integers(min_value=1, max_value=7), max_size=30), st.binary(max_size=5))
def test_a_chunk_reader_gives_all_bytes_in_order(chunks: list[bytes], sizes: list[int], seen: bytes) -> None:
    reader = ChunkReader(filter(None, chunks), seen)
    pieces = [reader.read(size) for size in sizes]
    assert all(len(piece) <= size for piece, size in zip(pieces, sizes, strict=True))
    whole = seen + b"".join(chunks)
    read = b"".join(pieces)
    assert whole.startswith(read)
    if b"" in pieces:
        assert read == whole
    assert read + reader.read() == whole
    assert reader.read(1) == reader.read() == b""


# Windows


@given(
    data=st.binary(max_size=20),
    start=st.integers(0, 25),
    end=st.none() | st.integers(0, 25),
    moves=st.lists(
        st.tuples(st.just("read"), st.integers(0, 30), st.just(0))
        | st.tuples(st.just("seek"), st.integers(-5, 25), st.sampled_from([io.SEEK_SET, io.SEEK_CUR, io.SEEK_END])),
        max_size=10,
    ),
)
def test_a_window_is_a_file_of_the_bytes_in_it(
    data: bytes, start: int, end: int | None, moves: list[tuple[str, int, int]]
) -> None:
    window, model = io.BufferedReader(Window(io.BytesIO(data), start, end)), io.BytesIO(data[start:end])
    for verb, number, whence in moves:
        if verb == "read":
            assert window.read(number) == model.read(number)
        else:
            target = number + {io.SEEK_SET: 0, io.SEEK_CUR: model.tell(), io.SEEK_END: len(data[start:end])}[whence]
            if target < 0:
                with pytest.raises((ValueError, OSError)):
                    window.seek(number, whence)
            else:
                assert window.seek(number, whence) == target
                model.seek(target)
        assert window.tell() == model.tell()
    assert window.read() == model.read()


def test_closing_a_window_leaves_the_file_open_unless_told_otherwise() -> None:
    file, seen = io.BytesIO(DATA), []
    Window(file).close()
    assert not file.closed
    window = Window(file, on_close=lambda: seen.append("closed"))
    window.close()
    window.close()
    assert seen == ["closed"]
