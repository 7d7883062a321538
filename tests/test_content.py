"""Content: whatever can be opened can be read in all ways. The ways themselves are tested with attachments."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from sa_attachments import FileDamaged
from sa_attachments.content import Content, StoredSource

DATA = b"0123456789"


class Piece(Content):
    """Some bytes; writes down what was opened."""

    def __init__(self, size: int | None = 10, path: Path | None = None, filename: str = "digits.TXT") -> None:
        self.size = size
        self.where = path
        self.name = filename
        self.opened: list[tuple[int, int | None]] = []

    @property
    def filename(self) -> str:
        return self.name

    def _open(self, start: int, end: int | None) -> BinaryIO:
        self.opened.append((start, end))
        return io.BytesIO(DATA[start:end])

    def _size(self) -> int | None:
        return self.size

    def _local(self) -> Path | None:
        return self.where


def test_only_the_whole_is_measured() -> None:
    for size in (9, 11):
        piece = Piece(size)
        with pytest.raises(FileDamaged, match=f"has 10 bytes, {size} were stored"):
            piece.read()
        assert (piece.read(0, 10), piece.read(1)) == (DATA, DATA[1:])
    assert Piece(None).read() == Piece(10).read() == DATA


def in_chunks(piece: Piece, folder: Path) -> None:
    assert b"".join(piece.chunks(3)) == DATA


def in_chunks_beside_the_loop(piece: Piece, folder: Path) -> None:
    async def read() -> bytes:
        return b"".join([chunk async for chunk in piece.achunks(3)])

    assert asyncio.run(read()) == DATA


def saved(piece: Piece, folder: Path) -> None:
    piece.save_to(folder / "copy")
    assert (folder / "copy").read_bytes() == DATA


def downloaded(piece: Piece, folder: Path) -> None:
    with piece.path() as path:
        assert path.read_bytes() == DATA


@pytest.mark.parametrize("reading", [in_chunks, in_chunks_beside_the_loop, saved, downloaded])
def test_the_whole_is_measured_however_it_is_read(tmp_path: Path, reading: Callable[[Piece, Path], None]) -> None:
    for size in (9, 11):
        with pytest.raises(FileDamaged, match=f"has 10 bytes, {size} were stored"):
            reading(Piece(size), tmp_path)
    reading(Piece(None), tmp_path)
    reading(Piece(10), tmp_path)


def test_a_range_is_opened_as_it_was_asked_for() -> None:
    piece = Piece()
    piece.read(2, 5)
    piece.read(3)
    assert piece.opened == [(2, 5), (3, None)]
    with pytest.raises(ValueError, match="a range counts from the beginning, not -1 to None"):
        piece.open(-1)
    for read in (piece.open, piece.read):
        with pytest.raises(TypeError, match="'rb' is no position to begin at, and no mode is needed"):
            read("rb")  # type: ignore[operator]
    assert len(piece.opened) == 2


@pytest.mark.parametrize(
    ("filename", "suffix"), [("a.TXT", ".txt"), ("a.tar.gz", ".gz"), ("README", ""), (".bashrc", ""), ("unnamed", "")]
)
def test_a_download_has_the_extension_and_nothing_else_of_the_name(filename: str, suffix: str) -> None:
    with Piece(filename=filename).path() as path:
        assert path.name == f"file{suffix}"
        assert path.read_bytes() == DATA
    assert not path.parent.exists()


def test_a_download_goes_though_its_reader_fails() -> None:
    with pytest.raises(RuntimeError), Piece().path() as path:
        raise RuntimeError
    assert not path.exists()


def test_what_lies_on_this_machine_is_not_copied(tmp_path: Path) -> None:
    piece = Piece(path=tmp_path)
    with piece.path() as path:
        assert path is tmp_path
    assert piece.opened == []
    assert tmp_path.exists()


def test_a_stored_source_reads_the_content_every_time_anew() -> None:
    piece = Piece()
    source = StoredSource(piece)
    assert (source.size(), source.head(3), source.path(), source.shared) == (10, b"012", None, None)
    assert [source.open().read(), source.stream().read(-1), source.open().read()] == [DATA] * 3
    assert piece.opened == [(0, 3), (0, None), (0, None), (0, None)]


@pytest.mark.parametrize("hook", ["filename", "_open", "_size", "_local"])
def test_a_subclass_says_where_its_bytes_are(hook: str) -> None:
    with pytest.raises(NotImplementedError):
        getattr(Content(), hook)(*[0, None] * (hook == "_open"))
