"""S3File: a file in a bucket, read as it streams; where the connection breaks, it goes on at that byte.

Requests are tried again by botocore; what breaks while it streams is counted here.

>>> class Body(io.BytesIO):
...     def read(self, size=-1, /):
...         if self.tell() == 4: raise ConnectionError("cut")
...         return super().read(2)
>>> file = S3File(Body(b"abcdefgh"), 8, lambda at: io.BytesIO(b"abcdefgh"[at:]), lambda error: error)
>>> file.readall(), file.seek(2), file.read(3)
(b'abcdefgh', 2, b'cde')
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from sa_attachments.storage import Readable

_ATTEMPTS = 5


class S3File(io.RawIOBase):
    """The bytes that an open request streams; ``reopen(at)`` begins another one at that byte, ``explain`` makes an
    error that says what broke.
    """

    def __init__(
        self, body: Any, size: int, reopen: Callable[[int], Any], explain: Callable[[Exception], Exception]
    ) -> None:
        self._body: Any = body
        self._size = size
        self._reopen = reopen
        self._explain = explain
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        target = offset + (0, self._at, self._size)[whence]
        if target < 0:
            raise ValueError(f"negative seek position {target}")
        if target != self._at:
            self._drop()
        self._at = target
        return target

    def readinto(self, buffer: Any) -> int:
        data = self._next(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        pieces = []
        while data := self._next(self._size - self._at):
            pieces.append(data)
        return b"".join(pieces)

    def close(self) -> None:
        self._drop()
        super().close()

    def _next(self, wanted: int) -> bytes:
        """Some bytes; empty only at the end."""
        wanted = min(wanted, self._size - self._at)
        if wanted <= 0:
            return b""
        for attempt in range(1, _ATTEMPTS + 1):
            if self._body is None:
                self._body = self._reopen(self._at)
            source: Readable = self._body
            try:
                if data := source.read(wanted):
                    self._at += len(data)
                    return data
                raise ConnectionError(f"the connection ended {self._size - self._at:,} bytes before the file")
            except Exception as error:  # botocore passes some errors of urllib3 on as they are
                self._drop()
                if attempt == _ATTEMPTS:
                    raise self._explain(error) from error
        raise AssertionError("unreachable")

    def _drop(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            body.close()
