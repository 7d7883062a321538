"""Upload: one file on its way into a bucket, in one request or in parts, never over another one.

If the answer to a write is lost, botocore writes again, and is told that the key exists: by its own first attempt. Each
upload therefore carries a token in the object's metadata, by which it knows itself again.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any
from uuid import uuid4

from sa_attachments.errors import FileMissing
from sa_attachments.storage import Readable

from .bucket import Bucket, Conflict, Unconditional

PARTS_AT_ONCE = 4
MOST_PARTS = 10_000

_TOKEN = "put"
_ATTEMPTS = 6


class Upload:
    """One file. ``conditional`` tells whether the server refuses to overwrite; else it is asked before."""

    def __init__(
        self, bucket: Bucket, key: str, name: str, new_files: Mapping[str, str], content_type: str, conditional: bool
    ) -> None:
        self._bucket = bucket
        self._key = key
        self._name = name
        self._token = uuid4().hex
        self._description = {"ContentType": content_type, "Metadata": {_TOKEN: self._token}, **new_files}
        self.conditional = conditional

    def send(self, stream: Readable, size: int | None, part_size: int) -> None:
        """Write what the stream yields. FileExistsError."""
        part_size = max(part_size, -(-(size or 0) // MOST_PARTS))
        begun = [_filled(stream, part_size)]
        if len(begun[0]) < part_size:
            self._send_whole(begun[0])
        else:
            self._send_parts(_pieces(begun, stream, part_size))

    def _send_whole(self, data: bytearray) -> None:
        self._once(
            lambda condition: self._call(
                "put_object", Body=data, ContentMD5=_md5(data), **self._description, **condition
            )
        )

    def _send_parts(self, pieces: Iterator[bytearray]) -> None:
        upload = self._call("create_multipart_upload", **self._description)["UploadId"]
        try:
            parts = {"Parts": self._parts(upload, pieces)}
            self._once(
                lambda condition: self._call(
                    "complete_multipart_upload", UploadId=upload, MultipartUpload=parts, **condition
                )
            )
        except BaseException:
            with suppress(Exception):  # what is left of it, the sweep finds
                self._call("abort_multipart_upload", UploadId=upload)
            raise

    def _parts(self, upload: str, pieces: Iterator[bytearray]) -> list[dict[str, Any]]:
        """Send the pieces, a few at a time, so that no more than these are in memory."""

        def send(number: int, data: bytearray) -> dict[str, Any]:
            try:
                answer = self._call("upload_part", UploadId=upload, PartNumber=number, Body=data, ContentMD5=_md5(data))
            except FileMissing as error:
                raise self._aborted() from error
            return {"PartNumber": number, "ETag": answer["ETag"]}

        done: list[dict[str, Any]] = []
        running: deque[Future[dict[str, Any]]] = deque()
        with ThreadPoolExecutor(PARTS_AT_ONCE, "sa_attachments_s3") as pool:
            for number, piece in enumerate(pieces, 1):
                if len(running) == PARTS_AT_ONCE:
                    done.append(running.popleft().result())
                running.append(pool.submit(send, number, piece))
            done += [future.result() for future in running]
        return done

    def _once(self, write: Callable[[dict[str, str]], Any], attempt: int = 1) -> None:
        """Write, unless the key exists."""
        if not self.conditional and self._present() is not None:
            raise self._taken()
        try:
            write({"IfNoneMatch": "*"} if self.conditional else {})
        except Unconditional:
            self.conditional = False
            self._once(write)
        except FileMissing as error:
            if self._present() != self._token:  # else an earlier attempt completed the upload
                raise self._aborted() from error
        except Conflict as error:
            present = self._present()
            if present is None:  # an attempt whose answer was lost is still on its way
                if attempt == _ATTEMPTS:
                    raise
                time.sleep(0.05 * 2**attempt)
                self._once(write, attempt + 1)
            elif present != self._token:
                raise self._taken() from error

    def _present(self) -> str | None:
        """The token of the object that has this key, empty if it has none; None if there is no object."""
        try:
            return str(self._call("head_object").get("Metadata", {}).get(_TOKEN, ""))
        except FileMissing:
            return None

    def _call(self, operation: str, **parameters: Any) -> Any:
        return self._bucket.call(operation, self._key, Key=self._name, **parameters)

    def _aborted(self) -> TimeoutError:
        return TimeoutError(
            f"the upload of {self._key!r} to bucket {self._bucket.name!r} was aborted by somebody else: sweeps and "
            "lifecycle rules do so when it takes too long"
        )

    def _taken(self) -> FileExistsError:
        return FileExistsError(f"{self._key!r} exists in bucket {self._bucket.name!r}, and is never overwritten")


def _filled(stream: Readable, size: int) -> bytearray:
    """``size`` bytes, or fewer at the end; gathered in place, for a list of chunks would take the memory twice."""
    gathered = bytearray()
    while len(gathered) < size and (data := stream.read(size - len(gathered))):
        gathered += data
    return gathered


def _pieces(begun: list[bytearray], stream: Readable, size: int) -> Iterator[bytearray]:
    yield begun.pop()  # so that nobody keeps it until the end
    while data := _filled(stream, size):
        yield data


def _md5(data: bytearray) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
