"""Rules about putting, opening and describing files."""

from __future__ import annotations

import io
import threading
from datetime import UTC, datetime, timedelta
from typing import cast

from sa_attachments.errors import FileMissing
from sa_attachments.key import mint
from sa_attachments.source import CHUNK
from sa_attachments.storage import Storage

from .probes import Stream, listed, put, raises, read, together

MALFORMED = [
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "../a",
    "a/../b",
    "a/./b",
    "a/..",
    "ä",
    "a\nb",
    "a\0b",
    "a\\b",
    "a/" + 256 * "b",
]
"""Texts that are no keys."""

ODD = [
    "a b",
    "a+b",
    "a%2Fb",
    "a%b",
    "a#b?c=d&e",
    "a'b\"c",
    "a:b",
    "a*b",
    "a,b;c",
    "~a",
    "a.",
    "a..b",
    "(a)[b]{c}",
    "a=@$!^`|<>",
]
"""Keys with all the characters that some address or file system gives a meaning."""


class PutAndOpen:
    def test_gives_back_what_was_put(self, storage: Storage) -> None:
        """A file has the bytes that were put, however many, with or without a hint of their size."""
        for size in (0, 1, 1000, CHUNK, 2 * CHUNK + 1):
            data = bytes(range(251)) * (size // 251 + 1)
            for hint in (size, None):
                key = mint()
                storage.put(key, io.BytesIO(data[:size]), size=hint, content_type="application/octet-stream")
                with storage.open(key) as file:
                    assert file.read() == data[:size], f"{size} bytes, size={hint}"
                assert storage.stat(key).size == size

    def test_reads_any_stream(self, storage: Storage) -> None:
        """``put`` needs ``read(size)`` alone, takes pieces of any length, and reads to the end."""
        key = mint()
        storage.put(key, Stream([b"a", b"bc" * 70_000, b"d" * 3]), size=None, content_type="text/plain")
        assert read(storage, key) == b"a" + b"bc" * 70_000 + b"ddd"

    def test_reads_a_stream_from_where_it_stands(self, storage: Storage) -> None:
        """What was read of a stream before ``put`` is no part of the file."""
        key, stream = mint(), io.BytesIO(b"0123456789")
        stream.read(4)
        storage.put(key, stream, size=6, content_type="text/plain")
        assert read(storage, key) == b"456789"

    def test_never_overwrites(self, storage: Storage) -> None:
        """A key that exists is refused with FileExistsError, and keeps its bytes."""
        key = put(storage, mint(), b"first")
        with raises(FileExistsError):
            put(storage, key, b"second")
        assert read(storage, key) == b"first"

    def test_one_of_many_racing_puts_wins(self, storage: Storage) -> None:
        """Of eight puts of one key at the same time one succeeds, the others raise FileExistsError."""
        keys, start = [mint() for _ in range(5)], threading.Barrier(8)

        def compete(number: int) -> list[str]:
            won = []
            for key in keys:
                start.wait(30)
                try:
                    won.append(put(storage, key, b"%d" % number * 100_000))
                except FileExistsError:
                    continue
            return won

        won = together(8, compete)
        for key in keys:
            winners = [number for number in range(8) if key in won[number]]
            assert len(winners) == 1, f"{len(winners)} puts of one key succeeded"
            assert read(storage, key) == b"%d" % winners[0] * 100_000

    def test_passes_on_the_error_of_a_stream_and_leaves_nothing(self, storage: Storage) -> None:
        """The very error of a stream comes out of ``put``; there is no file; the key can be put again."""
        for pieces in ([], [b"a"], [b"a" * CHUNK, b"b" * CHUNK]):
            key, error = mint(), RuntimeError("the stream broke")
            with raises(RuntimeError) as raised:
                storage.put(key, Stream([*pieces, error]), size=None, content_type="text/plain")
            assert raised == [error]
            with raises(FileMissing):
                storage.stat(key)
            assert listed(storage) == []
            assert not storage.delete([put(storage, key, b"again")])

    def test_shows_no_file_before_it_is_whole(self, storage: Storage) -> None:
        """Until its last byte was read from the stream, nobody can open, stat or list a file."""
        key = mint()

        def look() -> bytes:
            with raises(FileMissing):
                storage.stat(key)
            with raises(FileMissing):
                storage.open(key)
            assert listed(storage) == []
            return b"b"

        storage.put(key, Stream([b"a" * CHUNK, look, look]), size=None, content_type="text/plain")
        assert storage.stat(key).size == CHUNK + 2

    def test_misses_what_is_not_there(self, storage: Storage) -> None:
        """``open`` and ``stat`` raise FileMissing for what was deleted or never put, and for parts of keys."""
        key = put(storage, "a/b/c", b"x")
        for missing in ("a/b/d", "a/b", "a", "a/b/c/d", mint()):
            with raises(FileMissing):
                storage.open(missing)
            with raises(FileMissing):
                storage.stat(missing)
        storage.delete([key])
        with raises(FileMissing):
            storage.open(key)
        with raises(FileMissing):
            storage.stat(key)

    def test_opens_a_real_file(self, storage: Storage) -> None:
        """What ``open`` gives is readable, seekable and buffered, and is closed by its ``with``."""
        key = put(storage, mint(), b"one\ntwo\nthree")
        with storage.open(key) as file:
            assert file.readable()
            assert file.seekable()
            assert file.readline() == b"one\n"
            assert file.tell() == 4
            assert list(file) == [b"two\n", b"three"]
            assert file.seek(-5, io.SEEK_END) == 8
            assert file.read(2) + file.read() == b"three"
            assert file.seek(0) == 0
            buffer = bytearray(3)
            assert cast(io.BufferedReader, file).readinto(buffer) == 3
            assert bytes(buffer) == b"one"
        assert file.closed

    def test_opens_a_part(self, storage: Storage) -> None:
        """``open(key, start, end)`` gives a file of these bytes, as far as there are any; its positions begin at 0."""
        data = bytes(range(256)) * 1000
        key = put(storage, mint(), data)
        for start, end in (
            (0, 1),
            (0, 256_000),
            (5, None),
            (1000, 70_000),
            (255_999, None),
            (255_000, 300_000),
            (7, 7),
        ):
            with storage.open(key, start, end) as file:
                assert file.read() == data[start:end], f"bytes {start} to {end}"
                assert file.seek(0, io.SEEK_END) == len(data[start:end])
                assert file.seek(0) == 0
                assert file.read(10) == data[start:end][:10]
        for start, end in ((256_000, None), (300_000, 300_001)):
            with storage.open(key, start, end) as file:
                assert file.read() == b""

    def test_tells_size_and_time(self, storage: Storage) -> None:
        """``stat`` gives the size, the time of storing in UTC, and the content type if it is kept."""
        key = put(storage, mint(), b"12345")
        stat = storage.stat(key)
        assert stat.size == 5
        assert stat.modified.utcoffset() == timedelta(0), "modified is not in UTC"
        assert abs(datetime.now(UTC) - stat.modified) < timedelta(minutes=5), (
            "modified is far from this machine's clock"
        )
        assert stat.content_type in (None, "text/plain")

    def test_takes_any_well_formed_key(self, storage: Storage) -> None:
        """Keys of printable ASCII come back from a listing as they were put, whatever the characters mean elsewhere."""
        for key in ODD:
            put(storage, f"x/{key}", key.encode())
        assert listed(storage) == sorted(f"x/{key}" for key in ODD)
        for key in ODD:
            assert read(storage, f"x/{key}") == key.encode()
        assert not storage.delete([f"x/{key}" for key in ODD])
        assert listed(storage) == []

    def test_refuses_malformed_keys(self, storage: Storage) -> None:
        """ValueError for what is no key; ``delete`` reports it, and deletes the others."""
        for key in MALFORMED:
            with raises(ValueError):
                put(storage, key, b"x")
            with raises(ValueError):
                storage.open(key)
            with raises(ValueError):
                storage.stat(key)
            good = put(storage, "good", b"x")
            failed = storage.delete([key, good])
            assert list(failed) == [key]
            assert isinstance(failed[key], ValueError)
            with raises(FileMissing):
                storage.stat(good)

    def test_serves_many_threads(self, storage: Storage) -> None:
        """All verbs may run at the same time in several threads."""

        def work(number: int) -> None:
            for _ in range(5):
                key = put(storage, mint(), b"%d" % number * 1000)
                assert read(storage, key) == b"%d" % number * 1000
                assert key in listed(storage)
                assert not storage.delete([key])

        together(8, work)
        assert listed(storage) == []
