"""Bucket: requests to one bucket, and what their answers mean.

A client is made when the first request is, and again in a forked child, which must not share its parent's connections.
"""

from __future__ import annotations

import base64
import hashlib
import os
from functools import cache
from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from sa_attachments.errors import FileMissing
from sa_attachments.lock import Lock

from .errors import ABSENT, code_of, explained, status_of


class Conflict(OSError):
    """The key exists, or is just being written."""


class OutOfRange(OSError):
    """The file ends before."""


class Unconditional(OSError):
    """The server does not know conditional writes."""


class Bucket:
    """One bucket. ``options`` are those of botocore's ``Config``, ``session`` those of boto3's ``Session``."""

    def __init__(self, name: str, endpoint_url: str | None, session: dict[str, Any], options: dict[str, Any]) -> None:
        self.name = name
        self._endpoint_url = endpoint_url
        self._session = session
        self._config = Config(
            # Servers beside Amazon's often refuse the checksums that boto3 adds unasked; ours is the MD5.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            **options,
        )
        self._lock = Lock()
        self._clients: dict[int, Any] = {}

    def call(self, operation: str, key: str | None = None, **parameters: Any) -> Any:
        """One request; what S3 answers, or an error that says what to do about it.

        FileMissing if there is no ``key``; Conflict, OutOfRange, Unconditional.
        """
        try:
            return getattr(self.client, operation)(Bucket=self.name, **parameters)
        except ClientError as error:
            status = status_of(error)
            # Without a body, as after HEAD, or where it was cut on its way, the code is the status.
            if key is not None and code_of(error) in {*ABSENT, "404"}:
                raise FileMissing(f"there is no {key!r} in bucket {self.name!r}") from error
            if status in (409, 412) and "IfNoneMatch" in parameters:
                raise Conflict(str(error)) from error
            if status == 501 and "IfNoneMatch" in parameters:
                raise Unconditional from error
            if status == 416:
                raise OutOfRange from error
            raise self.explained(error, operation) from error
        except BotoCoreError as error:
            raise self.explained(error, operation) from error

    def explained(self, error: Exception, operation: str) -> OSError:
        """An error of this bucket, with its cure."""
        return explained(error, self.name, operation, self._endpoint_url)

    @property
    def client(self) -> Any:
        """boto3's client of this process."""
        client = self._clients.get(os.getpid())
        if client is None:
            with self._lock():
                client = self._clients.get(os.getpid())
                if client is None:
                    session = boto3.Session(botocore_session=_botocore_session(), **self._session)
                    client = session.client("s3", endpoint_url=self._endpoint_url, config=self._config)
                    client.meta.events.register("before-sign.s3.DeleteObjects", _add_md5)
                    self._clients = {os.getpid(): client}
        return client


def _botocore_session() -> Any:
    """One of its own, as to credentials and settings; but what services can do is read once for all buckets, since that
    takes 80 ms and 13 MB.
    """
    session = botocore.session.get_session()
    session.register_component("data_loader", _loader())
    return session


@cache
def _loader() -> Any:
    return botocore.session.get_session().get_component("data_loader")


def _add_md5(request: Any, **_: Any) -> None:
    """boto3 sends a CRC32 alone, and many servers beside Amazon's refuse to delete without the MD5."""
    digest = hashlib.md5(request.body, usedforsecurity=False).digest()
    request.headers["Content-MD5"] = base64.b64encode(digest).decode()
