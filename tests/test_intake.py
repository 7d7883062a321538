"""Intake: whatever a user has at hand becomes a source; what can't be read as bytes is refused at once."""

from __future__ import annotations

import array
import asyncio
import bz2
import codecs
import gzip
import http.client
import io
import mmap
import os
import socket
import sys
import tempfile
import threading
import warnings
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Annotated, Any

import pytest
from litestar import Litestar, post
from litestar.datastructures import UploadFile as LitestarUpload
from litestar.enums import RequestEncodingType
from litestar.params import Body
from litestar.testing import TestClient
from starlette.datastructures import UploadFile as StarletteUpload
from starlette.requests import Request as StarletteRequest
from werkzeug.datastructures import FileStorage
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request as WerkzeugRequest

from sa_attachments import Attachment, AttachmentError, BadSource, FileMissing, SourceConsumed
from sa_attachments.intake import claimed, data_uri, described, source
from sa_attachments.source import BytesSource, FileSource, OnceSource, PathSource

on = pytest.mark.parametrize
DATA = b"0123456789"

MULTIPART = (
    b"--frontier\r\n"
    b'Content-Disposition: form-data; name="avatar"; filename="../me.PNG"\r\n'
    b"Content-Type: image/png\r\n"
    b"\r\n" + DATA + b"\r\n"
    b"--frontier--\r\n"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "digits.txt"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def read(value: Any) -> bytes:
    with source(value).open() as file:
        return file.read()


# Bytes


@on(
    "value",
    [
        DATA,
        bytearray(DATA),
        memoryview(DATA),
        memoryview(b"0x1x2x3x4x5x6x7x8x9x")[::2],
        array.array("B", DATA),
        memoryview(array.array("H", [0x3130, 0x3332, 0x3534, 0x3736, 0x3938])),
    ],
)
def test_bytes_like_objects(value: Any) -> None:
    wrapped = source(value)
    assert isinstance(wrapped, BytesSource)
    assert (wrapped.size(), read(value)) == (10, DATA)
    assert described(value) == (None, None)


def test_a_buffer_that_changes_later_was_taken_as_it_was() -> None:
    buffer = bytearray(DATA)
    wrapped = source(buffer)
    buffer[:] = b"x" * 10
    assert wrapped.open().read() == DATA


# Paths


def test_paths(path: Path) -> None:
    wrapped = source(path)
    assert isinstance(wrapped, PathSource)
    assert (wrapped.size(), read(path), wrapped.path()) == (10, DATA, path)
    assert described(path) == ("digits.txt", None)


def test_a_relative_path_is_meant_from_where_it_was_assigned(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    wrapped = source(Path("digits.txt"))
    monkeypatch.chdir("/")
    assert wrapped.open().read() == DATA


def test_a_link_to_a_file_is_a_file(path: Path) -> None:
    link = path.with_name("link")
    link.symlink_to(path)
    assert read(link) == DATA


@on("name", ["nowhere", "folder/nowhere", "nul\0byte", "x" * 5000, "digits.txt/below"])
def test_a_path_without_a_file(path: Path, name: str) -> None:
    with pytest.raises(FileMissing, match=r"there is no file .*working directory"):
        source(Path(path.parent, name))


def test_a_link_that_leads_nowhere(path: Path) -> None:
    link = path.with_name("link")
    link.symlink_to(path.with_name("nowhere"))
    with pytest.raises(FileMissing):
        source(link)


def test_a_directory(tmp_path: Path) -> None:
    with pytest.raises(BadSource, match="is a directory, expected a file"):
        source(tmp_path)


def test_a_named_pipe_is_read_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    wrapped = source(pipe)
    assert isinstance(wrapped, OnceSource)
    writer = threading.Thread(target=lambda: pipe.write_bytes(DATA))
    writer.start()
    assert (wrapped.size(), wrapped.open().read(), wrapped.open().read()) == (None, DATA, DATA)
    writer.join()


# Binary files


def bytes_io(path: Path) -> IO[bytes]:
    return io.BytesIO(DATA)


def buffered(path: Path) -> IO[bytes]:
    return path.open("rb")


def unbuffered(path: Path) -> Any:
    return path.open("rb", buffering=0)


def read_and_write(path: Path) -> IO[bytes]:
    return path.open("r+b")


def named_temporary(path: Path) -> Any:
    file = tempfile.NamedTemporaryFile()  # noqa: SIM115 - closed by the test
    file.write(DATA)
    file.seek(0)
    return file


def spooled_temporary(path: Path) -> Any:
    file = tempfile.SpooledTemporaryFile(max_size=4)  # noqa: SIM115 - closed by the test
    file.write(DATA)
    file.seek(0)
    return file


def gzipped(path: Path) -> Any:
    return gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(DATA)))


def bzipped(path: Path) -> Any:
    return bz2.BZ2File(io.BytesIO(bz2.compress(DATA)))


def member_of_a_zip(path: Path) -> Any:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writing:
        writing.writestr("digits.txt", DATA)
    return zipfile.ZipFile(archive).open("digits.txt")


def mapped(path: Path) -> Any:
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), 0)


SEEKABLE = [
    bytes_io,
    buffered,
    unbuffered,
    read_and_write,
    named_temporary,
    spooled_temporary,
    gzipped,
    bzipped,
    member_of_a_zip,
    mapped,
]


@on("stands", [0, 3, len(DATA)])
@on("make", SEEKABLE)
def test_seekable_files_are_read_whole_wherever_they_stand_and_stay_open(
    make: Callable[[Path], Any], path: Path, stack: ExitStack, stands: int
) -> None:
    file = stack.enter_context(make(path))
    assert file.read(stands) == DATA[:stands]
    wrapped = source(file)
    assert isinstance(wrapped, FileSource)
    assert wrapped.shared is file
    assert (wrapped.size(), wrapped.head(2)) == (10, b"01")
    assert file.tell() == stands, "nothing moves at assignment"
    for _ in range(2):
        with wrapped.open() as opened:
            assert opened.read() == DATA
    assert wrapped.stream().read(-1) == DATA
    assert not file.closed


class Minimal:
    """As little as a seekable file can have; its ``seek`` returns nothing."""

    def __init__(self) -> None:
        self._file = io.BytesIO(DATA)

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> None:
        self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def test_anything_with_read_seek_and_tell_is_a_seekable_file() -> None:
    wrapped = source(Minimal())
    assert isinstance(wrapped, FileSource)
    assert (wrapped.size(), wrapped.open().read(), wrapped.open().read()) == (10, DATA, DATA)


class OnlyRead:
    def __init__(self) -> None:
        self._file = io.BytesIO(DATA)

    def read(self, size: int = -1) -> bytes:
        return self._file.read(min(size, 4))


def test_anything_with_read_is_a_file_that_is_read_once() -> None:
    wrapped = source(OnlyRead())
    assert isinstance(wrapped, OnceSource)
    assert (wrapped.size(), wrapped.open().read(), wrapped.size()) == (None, DATA, 10)


def test_pipes_and_sockets(stack: ExitStack) -> None:
    reading, writing = os.pipe()
    with open(writing, "wb") as pipe:  # noqa: PTH123 - a descriptor
        pipe.write(DATA)
    with open(reading, "rb") as pipe:  # noqa: PTH123 - a descriptor
        assert read(pipe) == DATA
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(DATA)
        theirs.shutdown(socket.SHUT_WR)
        assert read(stack.enter_context(ours.makefile("rb"))) == DATA


def test_an_http_response() -> None:
    class Socket:
        def makefile(self, mode: str) -> Any:
            return io.BytesIO(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nContent-Type: text/csv\r\n\r\n" + DATA)

    response = http.client.HTTPResponse(Socket())  # type: ignore[arg-type]
    response.begin()
    assert read(response) == DATA


def test_a_file_names_itself(path: Path) -> None:
    with path.open("rb") as file:
        assert described(file) == (str(path), None)
    with open(os.dup(1), "rb", closefd=True) as numbered:  # noqa: PTH123 - its name is a number
        assert described(numbered) == (None, None)
    assert described(io.BytesIO()) == (None, None)


# Iterators


def test_iterators_of_bytes_are_read_once() -> None:
    for value in (iter([b"01", b"", b"23456789"]), (chunk for chunk in (DATA,)), [b"0123", bytearray(b"456789")]):
        wrapped = source(value)
        assert isinstance(wrapped, OnceSource)
        assert (wrapped.size(), wrapped.head(3), wrapped.open().read()) == (None, b"012", DATA)


def test_nothing_is_read_before_it_is_needed() -> None:
    taken = []

    def chunks() -> Iterator[bytes]:
        for chunk in (b"01", b"23"):
            taken.append(chunk)
            yield chunk

    wrapped = source(chunks())
    assert taken == []
    wrapped.head(1)
    assert taken == [b"01"]


def test_a_generator_that_somebody_else_finished_is_no_empty_file() -> None:
    chunks = (chunk for chunk in (DATA,))
    wrapped = source(chunks)
    list(chunks)
    with pytest.raises(SourceConsumed, match="assign a fresh source"):
        wrapped.open()


@on("value", [["text"], [1, 2], iter([None]), iter([[b"x"]])])
def test_iterators_of_something_else(value: Any) -> None:
    with pytest.raises(BadSource, match="where bytes are due"):
        source(value).open()


async def asynchronous() -> AsyncIterator[bytes]:
    for chunk in (b"0123", b"456789"):
        await asyncio.sleep(0)
        yield chunk


class AsynchronousFile:
    """As those of anyio and aiofiles."""

    closed = False
    mode = "rb"

    def __init__(self) -> None:
        self._file = io.BytesIO(DATA)

    async def read(self, size: int = -1) -> bytes:
        await asyncio.sleep(0)
        return self._file.read(size)


@on("make", [asynchronous, AsynchronousFile])
async def test_asynchronous_iterators_and_files(make: Callable[[], Any]) -> None:
    assert await Attachment.upload(make()).aread() == DATA


@on("make", [asynchronous, AsynchronousFile])
def test_asynchronous_iterators_without_their_loop(make: Callable[[], Any]) -> None:
    with pytest.raises(BadSource, match="AsyncSession"):
        source(make()).open()


async def test_an_asynchronous_iterator_that_fails_fails_the_reading() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"01"
        raise ConnectionResetError("the client went away")

    with pytest.raises(ConnectionResetError, match="the client went away"):
        await Attachment.upload(chunks()).aread()


# Uploads of web frameworks, made by the frameworks


async def starlette_upload(body: bytes = MULTIPART) -> StarletteUpload:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [(b"content-type", b"multipart/form-data; boundary=frontier")]
    request = StarletteRequest({"type": "http", "method": "POST", "headers": headers}, receive)
    upload = (await request.form())["avatar"]
    assert isinstance(upload, StarletteUpload)
    return upload


async def test_starlette() -> None:
    upload = await starlette_upload()
    assert described(upload) == ("../me.PNG", "image/png")
    assert isinstance(source(upload), FileSource)
    assert read(upload) == DATA
    await upload.close()
    with pytest.raises(BadSource, match="is closed"):
        source(upload)


class FastAPIUpload(StarletteUpload):
    """FastAPI's is a subclass with asynchronous methods of its own; they must not be met."""

    async def read(self, size: int = -1) -> bytes:
        raise AssertionError

    async def seek(self, offset: int) -> None:
        raise AssertionError


async def test_fastapi() -> None:
    upload = await starlette_upload()
    assert read(FastAPIUpload(upload.file, filename=upload.filename, headers=upload.headers)) == DATA


def test_litestar() -> None:
    seen: list[Any] = []

    @post("/", sync_to_thread=False)
    def take(data: Annotated[LitestarUpload, Body(media_type=RequestEncodingType.MULTI_PART)]) -> None:
        seen.extend((described(data), type(source(data)), read(data)))

    with TestClient(Litestar([take])) as client:
        answer = client.post("/", files={"data": ("../me.PNG", DATA, "image/png")})
    assert answer.status_code == 201, answer.text
    assert seen == [("../me.PNG", "image/png"), FileSource, DATA]


def test_werkzeug() -> None:
    environ = EnvironBuilder(method="POST", data={"avatar": (io.BytesIO(DATA), "../me.PNG", "image/png")}).get_environ()
    upload = WerkzeugRequest(environ).files["avatar"]
    assert isinstance(upload, FileStorage)
    assert described(upload) == ("../me.PNG", "image/png")
    assert isinstance(source(upload), FileSource)
    assert read(upload) == DATA


def test_webob() -> None:
    with warnings.catch_warnings(action="ignore"):  # it imports cgi
        webob = pytest.importorskip("webob")
    form = {"content_type": "multipart/form-data; boundary=frontier", "body": MULTIPART}
    upload = webob.Request.blank("/", method="POST", **form).POST["avatar"]
    assert described(upload) == ("../me.PNG", "image/png")
    assert read(upload) == DATA


class DjangoUpload:
    """What Django's ``UploadedFile`` has: its ``name`` is the file's, it proxies ``read``, ``seek`` and ``tell``, and
    iterates over lines.
    """

    def __init__(self, data: bytes, name: str, content_type: str) -> None:
        self.file = io.BytesIO(data)
        self.name = name
        self.content_type = content_type
        self.size = len(data)
        self.charset = None

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.file)

    def read(self, *args: int) -> bytes:
        return self.file.read(*args)

    @property
    def closed(self) -> bool:
        return self.file.closed

    def chunks(self, chunk_size: int = 65536) -> Iterator[bytes]:
        self.file.seek(0)
        yield self.file.read(chunk_size)


def test_django() -> None:
    upload = DjangoUpload(b"line\nline", "me.png", "image/png")
    assert described(upload) == ("me.png", "image/png")
    assert isinstance(source(upload), FileSource)
    assert read(upload) == b"line\nline"


@on(
    "upload",
    [
        StarletteUpload(io.BytesIO(DATA), filename="me.png"),
        LitestarUpload("image/png", "me.png", DATA),
        FileStorage(io.BytesIO(DATA), filename="me.png"),
        DjangoUpload(DATA, "me.png", "image/png"),
    ],
    ids=["starlette", "litestar", "werkzeug", "django"],
)
def test_an_upload_is_all_that_was_sent_though_somebody_read_it_before(upload: Any) -> None:
    """A virus scanner, say: the rest would be an empty file, and nobody would hear of it."""
    inner = getattr(upload, "file", None) or upload.stream
    for stands in (len(DATA), 4):
        inner.seek(stands)
        wrapped = source(upload)
        assert (inner.tell(), wrapped.size(), wrapped.head(2)) == (stands, 10, b"01"), "nothing moves at assignment"
        assert wrapped.open().read() == DATA
        for _ in range(2):
            assert wrapped.stream().read(-1) == DATA


def test_an_upload_that_can_be_read_only_once_is_what_is_left_of_it() -> None:
    left = OnlyRead()
    left.read(3)
    assert read(FileStorage(left, filename="me.png")) == DATA[3:]  # type: ignore[arg-type]


def test_an_upload_becomes_an_attachment_with_a_clean_name() -> None:
    upload = FileStorage(io.BytesIO(DATA), filename="C:\\fakepath\\CON.png", content_type="IMAGE/png; x=y")
    new = Attachment.upload(upload)
    assert (new.filename, new.claimed_content_type, new.read()) == ("_CON.png", "IMAGE/png; x=y", DATA)
    assert Attachment.upload(upload, "a.png", "text/csv").claimed_content_type == "text/csv"


def test_an_upload_without_a_name() -> None:
    assert Attachment.upload(FileStorage(io.BytesIO(DATA))).filename == "unnamed"
    assert Attachment.upload(StarletteUpload(io.BytesIO(DATA))).filename == "unnamed"


async def test_a_field_that_was_left_empty_is_no_upload() -> None:
    """Browsers send it with an empty name and no bytes; it would replace what is there."""
    nameless = MULTIPART.replace(b"../me.PNG", b"")
    left_empty = nameless.replace(DATA, b"")
    content_type = "multipart/form-data; boundary=frontier"
    environ = EnvironBuilder(method="POST", data=left_empty, content_type=content_type).get_environ()
    for upload in (WerkzeugRequest(environ).files["avatar"], await starlette_upload(left_empty)):
        assert upload.filename == ""
        with pytest.raises(BadSource, match=r"no file was chosen in the form: assign an upload only if"):
            source(upload)
    assert read(await starlette_upload(nameless)) == DATA, "who sends bytes without a name chose something"
    assert Attachment.upload(FileStorage(io.BytesIO(), filename="empty.txt")).read() == b"", "an empty file is a file"


# What a client claims


@on(
    ("said", "kept"),
    [
        ("image/png", "image/png"),
        (" text/plain; charset=utf-8 ", "text/plain; charset=utf-8"),
        ("image/png\x00", "image/png"),
        ("a/b\r\nSet-Cookie: c=d", "a/bSet-Cookie: c=d"),
        ("a/\ud800b\u202e", "a/b"),
        ("x" * 5000, "x" * 255),
        ("", None),
        ("\r\n", None),
        (None, None),
    ],
)
def test_a_claim_is_kept_as_text_that_every_database_and_header_takes(said: str | None, kept: str | None) -> None:
    assert claimed(said) == kept
    assert Attachment.upload(b"x", content_type=said).claimed_content_type == kept


# Data URIs


def test_data_uris() -> None:
    assert data_uri("data:text/plain;base64,aGk=") == (b"hi", "text/plain")
    with pytest.raises(BadSource, match="is not of the form"):
        data_uri("data:no-comma")


@on(
    ("data", "content"),
    [
        ("aGk=", b"hi"),
        ("aGk", b"hi"),  # browsers' own forms leave it out
        ("a\nGk\r\n =", b"hi"),
        ("aG%0Ak%3D", b"hi"),
        ("YQ", b"a"),
        ("YQ==", b"a"),
        ("YWJj", b"abc"),
        (" ", b""),
        ("", b""),
    ],
)
def test_base64_is_read_as_browsers_read_it(data: str, content: bytes) -> None:
    assert data_uri(f"data:image/png;base64,{data}") == (content, "image/png")


@on("data", ["a", "aGkx=", "YQ=", "YQ===", "=", "a=Gk", "YQ==YQ==", "a-_k", "aG\x0bk", "äöü", "YWJjZ"])
def test_what_browsers_do_not_take_for_base64(data: str) -> None:
    with pytest.raises(BadSource, match="data:;base64,"):
        data_uri(f"data:;base64,{data}")


@on("value", [None, b"data:,x", 5])
def test_a_data_uri_is_text(value: Any) -> None:
    with pytest.raises(BadSource, match=f"a data URI is text, not {type(value).__name__}"):
        Attachment.from_data_uri(value)


# What is refused at assignment


def text_file(path: Path) -> Any:
    return path.open()


def text_of_a_temporary(path: Path) -> Any:
    return tempfile.NamedTemporaryFile("w+")


def text_of_a_spool(path: Path) -> Any:
    return tempfile.SpooledTemporaryFile(mode="w+")


def string_io(path: Path) -> Any:
    return io.StringIO("text")


@on("make", [text_file, text_of_a_temporary, text_of_a_spool, string_io])
def test_files_that_are_open_for_text(make: Callable[[Path], Any], path: Path, stack: ExitStack) -> None:
    file = stack.enter_context(make(path))
    with pytest.raises(BadSource, match="is open for text: open it with mode 'rb'"):
        source(file)


@on("make", SEEKABLE)
def test_files_that_are_closed(make: Callable[[Path], Any], path: Path) -> None:
    file = make(path)
    file.close()
    with pytest.raises(BadSource, match="is closed: expected an open binary file"):
        source(file)


def test_a_file_that_is_open_for_writing_only(path: Path) -> None:
    with path.open("ab") as file, pytest.raises(BadSource, match="is not open for reading"):
        source(file)


def test_text() -> None:
    with pytest.raises(BadSource, match=r"pass a pathlib\.Path if 'me\.png' names a file"):
        source("me.png")
    with pytest.raises(BadSource) as caught:
        source("x" * 10_000)
    assert len(str(caught.value)) < 200


@on("value", [{"storage": "default", "key": "somebody's"}, {}])
def test_the_json_of_an_attachment(value: Any) -> None:
    with pytest.raises(BadSource, match="not rebuilt from JSON"):
        source(value)


@on("value", [[], (), set(), frozenset()])
def test_an_empty_list_as_a_form_has_it_or_json(value: Any) -> None:
    """Taken for no bytes, it replaced the file that was there by an empty one."""
    with pytest.raises(BadSource, match=f"an empty {type(value).__name__} is no file"):
        source(value)
    assert read(iter(value)) == b""


@on("value", [None, 1, 1.5, object(), object, print, sys])
def test_anything_else(value: Any) -> None:
    with pytest.raises(BadSource, match="is no source of bytes"):
        source(value)


def test_a_text_file_that_hides_behind_a_decoder_is_found_when_it_is_read(path: Path) -> None:
    with path.open("rb") as raw, pytest.raises(BadSource, match="gave str where bytes"):
        source(codecs.getreader("utf-8")(raw)).open().read()


@on("value", ["text", 1, {}, Path("nowhere"), Path("/")])
def test_every_refusal_is_an_error_of_ours_and_a_builtin(value: Any) -> None:
    with pytest.raises((TypeError, FileNotFoundError)) as caught:
        source(value)
    assert isinstance(caught.value, AttachmentError)
