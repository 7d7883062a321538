"""What Pillow sees of a file ends where a picture would have ended, and an error of the file stays its own."""

from __future__ import annotations

import io

import pytest

from sa_attachments.processing.images.reading import Exceeded, Watched


def watched(data: bytes, limit: int = 100, seconds: float = 10) -> Watched:
    file = Watched(io.BytesIO(data))
    file.allow(limit, seconds)
    return file


def test_reads_seeks_and_tells_as_the_file_does() -> None:
    file = watched(b"one\ntwo\nthree")
    assert file.read(2) == b"on"
    assert file.readline() == b"e\n"
    assert file.tell() == 4
    file.seek(-5, 2)
    assert file.read() == b"three"
    assert file.read() == b""
    assert file.read(None) == b""


@pytest.mark.parametrize("size", [-1, None, 11, 10**12])
def test_no_more_is_read_than_allowed_however_much_is_asked_for(size: int | None) -> None:
    asked = []

    class File(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            asked.append(size)
            return super().read(size)

    file = Watched(File(bytes(1000)))
    file.allow(10, 10)
    with pytest.raises(Exceeded, match="more than 10 bytes were read"):
        file.read(size)
    assert asked == [11]
    assert isinstance(file.error, Exceeded)


def test_what_was_read_before_counts_until_more_is_allowed() -> None:
    file = watched(bytes(100), 10)
    file.read(6)
    file.seek(0)
    with pytest.raises(Exceeded):
        file.read(6)
    file.allow(10, 10)
    assert len(file.read(10)) == 10


def test_a_line_counts_too() -> None:
    with pytest.raises(Exceeded):
        watched(b"x" * 100, 10).readline()


def test_who_reads_for_too_long_is_stopped() -> None:
    file = watched(bytes(100), 100, seconds=-1)
    with pytest.raises(Exceeded, match="more than -1 seconds were spent"):
        file.read(1)


def test_an_error_of_the_file_is_remembered() -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise ConnectionResetError("gone")

    file = Watched(Broken())
    file.allow(10, 10)
    with pytest.raises(ConnectionResetError):
        file.read(1)
    assert isinstance(file.error, ConnectionResetError)


def test_closing_it_leaves_the_file_open() -> None:
    inner = io.BytesIO(b"x")
    Watched(inner).close()
    assert not inner.closed
