"""Intake: whatever a user has at hand becomes a source, without being read.

>>> source(b"abc").size(), source(b"abc").open().read()
(3, b'abc')
>>> source("abc")
Traceback (most recent call last):
sa_attachments.errors.BadSource: text is no source of bytes: encode it, or pass a pathlib.Path if 'abc' names a file

Taken are bytes, ``pathlib.Path``, binary files, iterators of bytes, and the upload objects of web frameworks, which are
told by what they have rather than by who made them. A file is taken whole, whoever wrote or read it before; what can be
read only once, from where it stands. Asynchronous files and iterators too: they are read on their own event loop, from
the worker thread that stores them.
"""

from __future__ import annotations

import asyncio
import base64
import inspect
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any, BinaryIO, cast
from urllib.parse import unquote_to_bytes

from .errors import BadSource, FileMissing
from .pulls import pulls
from .source import CHUNK, BytesSource, FileSource, OnceSource, PathSource, Source, still_there

_BYTES = bytes | bytearray | memoryview


def source(value: Any) -> Source:
    """Wrap what a user assigned; nothing is read. Raises BadSource, or FileMissing for a path without a file."""
    match value:
        case bytes() | bytearray() | memoryview():
            return BytesSource(value)
        case Path():
            return _path(value)
        case str():
            raise BadSource(
                f"text is no source of bytes: encode it, or pass a pathlib.Path if {value[:60]!r} names a file"
            )
        case dict():
            raise BadSource("a dict is no source of bytes: attachments are not rebuilt from JSON (see Storages.bind)")
    if (inner := _inner(value)) is not value:
        found = _file(inner)
        if getattr(value, "filename", None) == "" and found.size() == 0:
            # What browsers send for a field that was left empty (HTML, "constructing the entry list"); it would replace
            # the file that is there.
            raise BadSource("no file was chosen in the form: assign an upload only if it has a filename")
        return found
    if hasattr(value, "read"):
        return _file(value)
    if hasattr(value, "__aiter__"):
        return OnceSource(_from_loop(value.__aiter__()), value)
    with suppress(TypeError):  # whatever else is bytes-like, as array.array
        return BytesSource(memoryview(value))
    if isinstance(value, Collection) and not value:
        # A form's list of files of which none was chosen, or JSON: it would replace the file that is there.
        raise BadSource(f"an empty {type(value).__name__} is no file: assign None to have none")
    if isinstance(value, Iterator | Iterable):
        return OnceSource(iter(value), value)
    raise BadSource(
        f"{type(value).__name__} is no source of bytes: expected bytes, a pathlib.Path, a binary file,"
        " an iterator of bytes or an upload"
    )


def described(value: Any) -> tuple[str | None, str | None]:
    """``(filename, content_type)`` as the source itself tells them: what a client said, or the name of a file."""
    if isinstance(value, _BYTES):
        return None, None
    if isinstance(value, Path):
        return value.name, None
    # The name of an upload is its form field's; that of a file is its own, and GzipFile warns of the other one.
    own = isinstance(value, io.IOBase) and hasattr(value, "name")
    name = getattr(value, "name", None) if own else getattr(value, "filename", getattr(value, "name", None))
    content_type = getattr(value, "content_type", getattr(value, "type", None))  # that of WebOb
    return (name if isinstance(name, str) and name else None), (content_type if isinstance(content_type, str) else None)


def claimed(content_type: str | None) -> str | None:
    """What a client said of the type, cut down to text that databases and headers take; None if nothing is left.

    Raises BadSource for what is no text.
    """
    if content_type is None:
        return None
    if not isinstance(content_type, str):
        raise BadSource(f"a content type is text, not {type(content_type).__name__}")
    printable = "".join(filter(str.isprintable, content_type[:1000]))
    return printable.strip()[:255] or None


def data_uri(uri: str) -> tuple[bytes, str]:
    """Bytes and type of a ``data:`` URI (RFC 2397); BadSource if it is none.

    Base64 is read as browsers read it, with whitespace and without padding ("forgiving-base64 decode", WHATWG Infra).
    """
    if not isinstance(uri, str):
        raise BadSource(f"a data URI is text, not {type(uri).__name__}")
    scheme, _, rest = uri.partition(":")
    head, comma, data = rest.partition(",")
    if scheme.strip().lower() != "data" or not comma:
        raise BadSource(f"{uri[:40]!r} is not of the form data:[<type>][;base64],<data>")
    content_type, *flags = (part.strip().lower() for part in head.split(";"))
    try:
        content = unquote_to_bytes(data)
        if "base64" in flags:
            content = _forgiving(content)
    except ValueError as error:
        raise BadSource(f"{uri[:40]!r}: {error}") from None
    return content, content_type or "text/plain"


def _forgiving(data: bytes) -> bytes:
    data = data.translate(None, b"\t\n\f\r ")
    if len(data) % 4 == 0:
        data = data.removesuffix(b"=").removesuffix(b"=")
    if b"=" in data:
        raise ValueError("its base64 has padding where none is due")
    return base64.b64decode(data + b"=" * (-len(data) % 4), validate=True)


def _inner(value: Any) -> Any:
    """The file inside an upload object: Starlette's, Litestar's and Django's ``file``, Werkzeug's ``stream``."""
    if not isinstance(value, io.IOBase) and (hasattr(value, "filename") or hasattr(value, "content_type")):
        for attribute in ("file", "stream"):
            inner = getattr(value, attribute, None)
            if hasattr(inner, "read"):
                return inner
    return value


def _path(path: Path) -> Source:
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise FileMissing(f"there is no file {str(path)!r} (working directory: {str(Path.cwd())!r})") from error
    if S_ISDIR(mode):
        raise BadSource(f"{str(path)!r} is a directory, expected a file")
    return PathSource(path) if S_ISREG(mode) else OnceSource(_pieces(path), path)  # a named pipe is opened once


def _pieces(path: Path) -> Iterator[bytes]:
    with still_there(path), path.open("rb", buffering=0) as file:
        while chunk := file.read(CHUNK):
            yield chunk


def _file(file: Any) -> Source:
    if getattr(file, "closed", False):
        raise BadSource(f"{file!r} is closed: expected an open binary file")
    if isinstance(file, io.TextIOBase) or (
        isinstance(getattr(file, "mode", None), str) and "b" not in file.mode and hasattr(file, "encoding")
    ):
        raise BadSource(f"{file!r} is open for text: open it with mode 'rb'")
    if inspect.iscoroutinefunction(file.read):
        return OnceSource(_from_loop(_awaited(file.read)), file)
    if hasattr(file, "readable") and not file.readable():
        raise BadSource(f"{file!r} is not open for reading")
    seekable = file.seekable() if hasattr(file, "seekable") else hasattr(file, "seek") and hasattr(file, "tell")
    if seekable:
        return FileSource(cast(BinaryIO, file))
    read: Callable[[int], bytes] = file.read
    return OnceSource(iter(lambda: read(CHUNK), b""), file)


def _from_loop(chunks: AsyncIterator[bytes]) -> Iterator[bytes]:
    """Pull an async iterator from a worker thread, chunk by chunk, while its loop is free."""

    async def pull() -> bytes | None:
        return await anext(chunks, None)

    while True:
        mine = pulls.get(None)
        if mine is None or asyncio._get_running_loop() is mine.loop:
            raise BadSource(
                "an async source can be read only from a worker thread of its loop:"
                " use AsyncSession, Attachment.aread() or Storages.astage()"
            )
        chunk = mine.take(pull())
        if chunk is None:
            return
        yield chunk


async def _awaited(read: Callable[[int], Awaitable[bytes]]) -> AsyncIterator[bytes]:
    while chunk := await read(CHUNK):
        yield chunk
