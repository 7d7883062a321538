"""The validators, each with its limit, its measure, and the files that it lets pass."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sa_attachments import Attachment, BadConfiguration, Refused, Storages
from sa_attachments.processing import Accept, MatchingExtension, MaxSize, MinSize, Step
from sa_attachments.processing.steps import run
from sa_attachments.processing.storing import store
from sa_attachments.storages.memory import MemoryStorage

on = pytest.mark.parametrize
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1"
JPEG = b"\xff\xd8\xff\xe0\0\x10JFIF\0\1"
SVG = b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>"
PDF = b"%PDF-1.7\n%\xe2\xe3"
ZIP = b"PK\x03\x04\x14\0\0\0\0\0" + b"\0" * 16 + b"\1\0\0\0a"


def put(step: Step, source: Any, filename: str | None = None, content_type: str | None = None) -> Attachment:
    """Through the step into a storage; nothing is in there after a refusal."""
    storage = MemoryStorage()
    try:
        ready = run([step], Attachment.upload(source, filename, content_type), "Doc.file")
        return store(ready, "default", storage, started=lambda named: None)
    except Refused:
        assert list(storage.keys()) == []
        raise


def refused(step: Step, source: Any, filename: str | None = None, content_type: str | None = None) -> Refused:
    with pytest.raises(Refused) as caught:
        put(step, source, filename, content_type)
    assert caught.value.target == "Doc.file"
    assert str(caught.value).startswith("Doc.file: ")
    assert caught.value.rule == type(step).__name__
    return caught.value


def written(data: bytes, folder: Path) -> Path:
    (folder / "a").write_bytes(data)
    return folder / "a"


SOURCES: dict[str, Callable[[bytes, Path], Any]] = {
    "bytes": lambda data, path: data,
    "path": written,
    "file": lambda data, path: io.BytesIO(data),
    "iterator": lambda data, path: iter([data[i : i + 3] for i in range(0, len(data), 3)]),
}


@on("kind", SOURCES)
@on("size", [0, 9, 10, 11, 30])
def test_max_size(kind: str, size: int, tmp_path: Path) -> None:
    source = SOURCES[kind](b"x" * size, tmp_path)
    if size <= 10:
        assert put(MaxSize(10), source).size == size
    else:
        error = refused(MaxSize(10), source)
        assert error.limit == 10
        assert isinstance(error.measured, int)
        assert 10 < error.measured <= size


def test_max_size_of_a_file_that_grows_while_it_is_stored(tmp_path: Path) -> None:
    path = tmp_path / "growing"
    path.write_bytes(b"x" * 10)

    class Slow(MemoryStorage):
        def put(self, key: str, stream: Any, *, size: int | None, content_type: str) -> None:
            with path.open("ab") as file:
                file.write(b"x")
            super().put(key, stream, size=size, content_type=content_type)

    storage = Slow()
    ready = run([MaxSize(10)], Attachment.upload(path), "Doc.file")
    with pytest.raises(Refused, match=r"Doc\.file: the file has 11 bytes or more, allowed are 10"):
        store(ready, "default", storage, started=lambda named: None)
    assert list(storage.keys()) == []


def test_max_size_stops_an_endless_stream_soon() -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += 1000
            yield b"x" * 1000

    assert refused(MaxSize(50_000), endless()).measured == 51_000
    assert taken == 51_000


def test_max_size_holds_for_what_a_later_step_reads() -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b"x" * 1000

    with pytest.raises(Refused, match=r"^Doc\.file: the file has .* bytes or more"):
        run([MaxSize(5000), lambda attachment: attachment.read() and None], Attachment.upload(endless()), "Doc.file")


def test_max_size_of_a_copy() -> None:
    files = Storages("memory:")
    stored = files.stage(Attachment.upload(b"x" * 10))
    assert run([MaxSize(10)], stored.copy(), "Doc.file").read() == b"x" * 10
    with pytest.raises(Refused):
        run([MaxSize(9)], stored.copy(), "Doc.file")


@on("kind", SOURCES)
@on("size", [0, 9, 10, 11])
def test_min_size(kind: str, size: int, tmp_path: Path) -> None:
    source = SOURCES[kind](b"x" * size, tmp_path)
    if size >= 10:
        assert put(MinSize(10), source).size == size
    else:
        error = refused(MinSize(10), source)
        assert (error.limit, error.measured) == (10, size)


def test_min_size_of_a_long_stream() -> None:
    error = refused(MinSize(20_000), iter([b"x" * 1000] * 19))
    assert (error.limit, error.measured) == (20_000, 19_000)
    assert put(MinSize(20_000), iter([b"x" * 1000] * 21)).size == 21_000


@on("step", [MaxSize, MinSize])
@on("size", [-1, "5MB", None])
def test_a_size_is_a_number_of_bytes(step: Any, size: Any) -> None:
    with pytest.raises(BadConfiguration, match="a size is a number of bytes from 0, as 5_000_000, not"):
        step(size)


def test_zero_is_a_size() -> None:
    assert put(MaxSize(0), b"").size == 0
    refused(MaxSize(0), b"x")
    assert put(MinSize(0), b"").size == 0


# Accept


@on(
    ("patterns", "source"),
    [
        (["image/png"], PNG),
        (["image/*"], PNG),
        (["*/*"], PNG),
        (["application/pdf", "image/*"], JPEG),
        ([" IMAGE/JPG "], JPEG),
        (["image/svg+xml"], SVG),
        (["text/*"], b"hello"),
        (["application/zip"], ZIP),
        (["text/html"], b"<html>"),
        (["application/octet-stream"], b""),
    ],
)
def test_accepts(patterns: list[str], source: bytes) -> None:
    put(Accept(*patterns), source)


ACTIVE = {"image/svg+xml", "text/html"}


@on(
    ("patterns", "source", "measured"),
    [
        (["image/png"], JPEG, "image/jpeg"),
        (["image/*"], PDF, "application/pdf"),
        (["image/*"], SVG, "image/svg+xml"),
        (["*/*"], SVG, "image/svg+xml"),
        (["text/*"], b"<html>", "text/html"),
        (["*/*"], b"<!doctype html><p>", "text/html"),
        (["image/*", "application/pdf"], b"hello", "text/plain"),
        (["image/*"], b"", "application/octet-stream"),
    ],
)
def test_does_not_accept(patterns: list[str], source: bytes, measured: str) -> None:
    for filename, content_type in ((None, None), ("a.png", "image/png"), ("a.jpg", "image/jpeg")):
        error = refused(Accept(*patterns), source, filename, content_type)
        assert (error.measured, error.limit) == (measured, tuple(patterns))
        why = f"; what browsers run has to be named in full, as {measured!r}" if measured in ACTIVE else ""
        assert str(error).endswith(f"the file is {measured}, accepted are {' and '.join(patterns)}{why}")


def test_does_not_speak_of_what_browsers_run_where_no_pattern_matches() -> None:
    assert str(refused(Accept("image/*"), b"<html>")).endswith("the file is text/html, accepted are image/*")


@on("patterns", [(), ("image",), ("image/",), ("*",), ("*/png",), ("image/*/x",), ("",), (".png",), (["image/*"],)])
def test_patterns_are_types(patterns: tuple[str, ...]) -> None:
    with pytest.raises(BadConfiguration):
        Accept(*patterns)


def test_the_claim_is_kept_beside_what_the_bytes_say() -> None:
    stored = put(Accept("image/*"), PNG, "cv.pdf", "application/pdf")
    assert (stored.content_type, stored.claimed_content_type) == ("image/png", "application/pdf")


# MatchingExtension


@on(
    ("filename", "source"),
    [
        ("a.png", PNG),
        ("A.PNG", PNG),
        ("a.jpeg", JPEG),
        ("a.jfif", JPEG),
        ("a", PNG),
        (None, PNG),
        (".bashrc", b"hello"),
        ("a.txt", b"hello"),
        ("a.csv", b"a,b"),
        ("a.py", b"print()"),
        ("a.html", b"hello"),
        ("a.docx", ZIP),
        ("a.zip", ZIP),
        ("a.bin", b"\0\1\2"),
        ("a.dat", b"\0\1\2"),
        ("a.unheardof", b"hello"),
    ],
)
def test_extensions_that_fit(filename: str | None, source: bytes) -> None:
    put(MatchingExtension(), source, filename)


@on(
    ("filename", "source", "claimed"),
    [
        ("a.png", PDF, "image/png"),
        ("a.png", JPEG, "image/png"),
        ("a.jpg", SVG, "image/jpeg"),
        ("a.png", b"hello", "image/png"),
        ("a.pdf", b"<html>", "application/pdf"),
        ("a.txt", PNG, "text/plain"),
        ("a.php", PNG, "image/png"),
        ("a.docx", PDF, None),
        ("a.png", b"", "image/png"),
    ],
)
def test_extensions_that_do_not_fit(filename: str, source: bytes, claimed: str | None) -> None:
    error = refused(MatchingExtension(), source, filename, claimed)
    assert error.measured == "." + filename.partition(".")[2]
    assert isinstance(error.limit, tuple)
    assert error.measured not in error.limit


def test_a_refused_extension_says_which_would_fit() -> None:
    error = refused(MatchingExtension(), JPEG, "a.png")
    assert error.limit == (".jfif", ".jpe", ".jpeg", ".jpg")


# As values


@on("step", [MaxSize(5), MinSize(1), Accept("image/*", "application/pdf"), MatchingExtension()])
def test_are_values(step: Any) -> None:
    again = pickle.loads(pickle.dumps(step))
    assert again == step == copy.deepcopy(step)
    assert hash(again) == hash(step)
    assert eval(repr(step)) == step
    with pytest.raises((AttributeError, TypeError)):
        step.limit_bytes = 7


def test_differ_by_their_limits() -> None:
    assert MaxSize(5) != MaxSize(6)
    assert Accept("image/*") != Accept("text/*")
    assert MaxSize(5) != MinSize(5)
