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

from ..part import Part

_ATTEMPTS = 5


class S3File(Part):
    """The bytes that an open request streams; ``reopen(at)`` begins another one at that byte, ``explain`` makes an
    error that says what broke.
    """

    def __init__(
        self, body: Any, size: int, reopen: Callable[[int], Any], explain: Callable[[Exception], Exception]
    ) -> None:
        self._body: Any = body
        self._reopen = reopen
        self._explain = explain
        super().__init__(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        before = self._at
        if super().seek(offset, whence) != before:
            self._drop()
        return self._at

    def readall(self) -> bytes:
        pieces = []
        while (left := self._size - self._at) > 0:
            pieces.append(self._some(left))
            self._at += len(pieces[-1])
        return b"".join(pieces)

    def close(self) -> None:
        self._drop()
        super().close()

    def _some(self, wanted: int) -> bytes:
        for attempt in range(1, _ATTEMPTS + 1):
            if self._body is None:
                self._body = self._reopen(self._at)
            source: Readable = self._body
            try:
                if data := source.read(wanted):
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
