"""S3Storage: files in a bucket of Amazon S3, or of any server that speaks its protocol.

URL: ``s3://bucket/prefix``. Credentials come from where boto3 finds them (environment, profile, instance role); the
bucket is neither made nor opened up, and no rights on the account are needed. Options:

- ``endpoint_url``, ``region``, ``addressing`` (``auto``, ``path``, ``virtual``), ``profile``: where the bucket is
- ``access_key_id``, ``secret_access_key``: where the environment can't give them
- ``parallel`` (16), ``part_size`` (8, in MiB): files at the same time, and how large pieces of large files are
- ``connect_timeout`` (10 s), ``read_timeout`` (60 s), ``attempts`` (5, in botocore's ``standard`` mode)
- ``storage_class``, ``acl``, ``cache_control``, ``sse``, ``sse_kms_key_id``, ``tags`` (``a%3Db``): of new files
- ``public_url``: the address of a CDN or public bucket, given out instead of signed ones
- ``versions`` (false): in a versioned bucket, delete all versions instead of hiding the file
- ``readonly`` (false)

A file of less than ``part_size`` is one request; a larger one goes up in parts, four at a time, and is aborted if
anything fails. Bytes of files carry their MD5, which the server checks.

Traps
-----
Keys are never overwritten, by ``If-None-Match``; a server that does not know it is asked first whether the key exists.
A stream of unknown size may have 10,000 parts: with 8 MiB, 78 GiB. Directory buckets (S3 Express) do not list in order
and can't be swept. In a versioned bucket a deleted file stays as an old version, unless ``versions`` is set or a
lifecycle rule removes it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, BinaryIO, Self, cast
from urllib.parse import quote

from sa_attachments.errors import FileMissing, listing
from sa_attachments.key import is_key
from sa_attachments.storage import DirectUpload, Readable, Stat

from .. import checked, deletable, hidden, taken, well_formed, writable
from ..url import StorageURL
from .bucket import Bucket, OutOfRange
from .direct import signed_form, signed_put
from .errors import ABSENT
from .reading import S3File
from .upload import PARTS_AT_ONCE, Upload

MIB = 1 << 20
_LARGEST_COPY = 5 << 30
_LONGEST_SIGNATURE = timedelta(days=7)
_ADDRESSING = ("auto", "path", "virtual")
_NEW_FILES = {  # our option: S3's parameter
    "storage_class": "StorageClass",
    "acl": "ACL",
    "cache_control": "CacheControl",
    "sse": "ServerSideEncryption",
    "sse_kms_key_id": "SSEKMSKeyId",
    "tags": "Tagging",
}


class S3Storage:
    """A storage in a bucket, below ``prefix``; also ``Copies``, ``Unfinished``, ``SignsDownloads`` and
    ``AcceptsDirectUpload``.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint_url: str | None = None,
        region: str | None = None,
        addressing: str = "auto",
        profile: str | None = None,
        access_key_id: str | None = None,
        secret_access_key: str | None = None,
        parallel: int = 16,
        part_size: int = 8,
        connect_timeout: int = 10,
        read_timeout: int = 60,
        attempts: int = 5,
        new_files: Mapping[str, str] | None = None,
        public_url: str | None = None,
        versions: bool = False,
        readonly: bool = False,
    ) -> None:
        """``new_files`` are parameters of PutObject, as ``{"StorageClass": "STANDARD_IA"}``; sizes are in MiB."""
        self.prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self.parallel = parallel
        self.readonly = readonly
        self._part_size = part_size * MIB
        self._new_files = dict(new_files or {})
        self._public_url = public_url and public_url.rstrip("/")
        self._versions = versions
        self._conditional = True
        self._bucket = Bucket(
            bucket,
            endpoint_url,
            {
                "profile_name": profile,
                "aws_access_key_id": access_key_id,
                "aws_secret_access_key": secret_access_key,
                "region_name": region or ("us-east-1" if endpoint_url else None),
            },
            {
                "connect_timeout": connect_timeout,
                "read_timeout": read_timeout,
                "retries": {"mode": "standard", "total_max_attempts": attempts},
                "max_pool_connections": parallel * (1 + PARTS_AT_ONCE),  # each file may go up in parts
                "signature_version": "s3v4",
                "s3": {"addressing_style": addressing},
            },
        )

    @classmethod
    def from_url(cls, url: StorageURL) -> Self:
        """The backend of ``s3:``. Raises BadConfiguration."""
        new_files = {parameter: url.text(option, None) for option, parameter in _NEW_FILES.items()}
        endpoint, addressing = url.text("endpoint_url", None), url.text("addressing", "auto")
        if endpoint is not None and not re.fullmatch(r"https?://[^\s@/?#]+/?", endpoint):
            raise url.mistake("endpoint_url has to be of the form http://host:port, without a user")
        if addressing not in _ADDRESSING:
            raise url.mistake(f"addressing is {addressing!r}, expected one of {listing(_ADDRESSING)}")
        if "@" in url.rest[2:].partition("/")[0]:
            raise url.mistake("credentials are no part of the address: see access_key_id, or the environment")
        made = cls(
            url.host,
            url.path,
            endpoint_url=endpoint,
            region=url.text("region", None),
            addressing=addressing,
            profile=url.text("profile", None),
            access_key_id=url.text("access_key_id", None),
            secret_access_key=url.text("secret_access_key", None),
            parallel=url.number("parallel", 16),
            part_size=url.number("part_size", 8, least=5),
            connect_timeout=url.number("connect_timeout", 10),
            read_timeout=url.number("read_timeout", 60),
            attempts=url.number("attempts", 5),
            new_files={parameter: value for parameter, value in new_files.items() if value is not None},
            public_url=url.text("public_url", None),
            versions=url.flag("versions", False),
            readonly=url.flag("readonly", False),
        )
        url.done()
        if not url.host:
            raise url.mistake("expected a bucket, as s3://bucket/prefix")
        return made

    # Verbs

    def put(self, key: str, stream: Readable, *, size: int | None, content_type: str) -> None:
        name = self._name(writable(self, key))
        upload = Upload(self._bucket, key, name, self._new_files, content_type, self._conditional)
        upload.send(stream, size, self._part_size)
        self._conditional = upload.conditional

    def open(self, key: str, start: int = 0, end: int | None = None) -> BinaryIO:
        name = self._name(key)
        if end is not None and end <= start:
            self.stat(key)
            return io.BytesIO()
        try:
            answer = self._get(key, name, start, end)
        except OutOfRange:
            return io.BytesIO()
        size, etag = answer["ContentLength"], answer["ETag"]
        # The same object, should the connection break: a key's bytes never change, but its place may be misused.
        file = S3File(
            answer["Body"],
            size,
            lambda at: self._get(key, name, start + at, start + size, IfMatch=etag)["Body"],
            lambda error: self._bucket.explained(error, "get_object"),
        )
        return cast(BinaryIO, io.BufferedReader(file, MIB // 4))

    def stat(self, key: str) -> Stat:
        answer = self._bucket.call("head_object", key, Key=self._name(key))
        return Stat(answer["ContentLength"], answer["LastModified"], answer.get("ContentType"))

    def delete(self, keys: Sequence[str]) -> Mapping[str, Exception]:
        good, failed = deletable(self, keys)
        names = {self._name(key): key for key in good}
        doomed = list(self._all_versions(names)) if self._versions else [{"Key": name} for name in names]
        for at in range(0, len(doomed), 1000):
            answer = self._bucket.call("delete_objects", Delete={"Objects": doomed[at : at + 1000], "Quiet": True})
            for fault in answer.get("Errors", ()):
                if fault.get("Code") not in ABSENT:
                    failed[names[fault["Key"]]] = OSError(f"{fault.get('Code')}: {fault.get('Message')}")
        return failed

    def keys(self, after: str | None = None, before: str | None = None) -> Iterator[tuple[str, datetime]]:
        position = {"StartAfter": self.prefix + after} if after else {}
        while True:
            page = self._bucket.call("list_objects_v2", Prefix=self.prefix, **position)
            for item in page.get("Contents", ()):
                key = item["Key"][len(self.prefix) :]
                if before is not None and key >= before:
                    return
                if well_formed(key) and not hidden(key) and (not after or key > after):
                    yield key, item["LastModified"]
            if not page["IsTruncated"]:
                return
            position = {"ContinuationToken": page["NextContinuationToken"]}

    # Abilities

    def copy(self, source: str, key: str) -> None:
        name = self._name(writable(self, key))
        size = self.stat(source).size
        with suppress(FileMissing):
            self.stat(key)
            raise taken(self, key)
        origin = {"Bucket": self._bucket.name, "Key": self._name(source)}
        if size > _LARGEST_COPY:
            self._bucket.call("copy", source, CopySource=origin, Key=name, ExtraArgs=self._new_files)
        else:
            self._bucket.call("copy_object", source, CopySource=origin, Key=name, **self._new_files)

    def discard_unfinished(self, before: datetime) -> int:
        count = 0
        position: dict[str, str] = {}
        while not self.readonly:
            page = self._bucket.call("list_multipart_uploads", Prefix=self.prefix, **position)
            for upload in page.get("Uploads", ()):
                # Others may have uploads in the bucket: ours are of keys that we minted.
                if upload["Initiated"] < before and is_key(upload["Key"][len(self.prefix) :]):
                    with suppress(FileMissing):  # it was completed, or aborted, meanwhile
                        name, number = upload["Key"], upload["UploadId"]
                        self._bucket.call("abort_multipart_upload", name, Key=name, UploadId=number)
                        count += 1
            if not page.get("IsTruncated"):
                break
            position = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}
        return count

    def sign_download(self, key: str, *, expires: timedelta, filename: str, content_type: str) -> str:
        name = self._name(key)
        if self._public_url:
            return f"{self._public_url}/{quote(name)}"
        seconds = _seconds(expires)
        parameters = {
            "Bucket": self._bucket.name,
            "Key": name,
            "ResponseContentType": content_type,
            # RFC 6266: the plain name for old clients, the encoded one for the others.
            "ResponseContentDisposition": f'attachment; filename="{_plain(filename)}"; '
            f"filename*=UTF-8''{quote(filename, safe='')}",
        }
        return cast(str, self._bucket.client.generate_presigned_url("get_object", Params=parameters, ExpiresIn=seconds))

    def sign_upload(
        self, key: str, *, expires: timedelta, content_type: str, max_size: int, size: int | None = None
    ) -> DirectUpload:
        name, seconds = self._name(writable(self, key)), _seconds(expires)
        parameters = {**self._new_files, "ContentType": content_type}
        if size is None:
            return signed_form(self._bucket, name, parameters, max_size, seconds)
        if size > max_size:
            raise ValueError(f"{size} bytes are more than the {max_size} that are allowed")
        return signed_put(self._bucket, name, parameters, size, seconds)

    def _get(self, key: str, name: str, start: int, end: int | None, **options: Any) -> dict[str, Any]:
        if start or end is not None:
            options["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
        return cast("dict[str, Any]", self._bucket.call("get_object", key, Key=name, **options))

    def _all_versions(self, names: Mapping[str, str]) -> Iterator[dict[str, str]]:
        for name in names:
            position: dict[str, str] = {}
            while True:
                page = self._bucket.call("list_object_versions", Prefix=name, **position)
                for version in [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]:
                    if version["Key"] == name:
                        yield {"Key": name, "VersionId": version["VersionId"]}
                if not page.get("IsTruncated"):
                    break
                position = {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page["NextVersionIdMarker"]}

    def _name(self, key: str) -> str:
        return self.prefix + checked(key)

    def __repr__(self) -> str:
        return f"S3Storage('s3://{self._bucket.name}/{self.prefix}')"


def _seconds(expires: timedelta) -> int:
    if not timedelta(seconds=1) <= expires <= _LONGEST_SIGNATURE:
        raise ValueError(f"a signed address of S3 lasts a second at least and 7 days at most, not {expires}")
    return round(expires.total_seconds())


def _plain(filename: str) -> str:
    """ASCII for a quoted string."""
    return "".join(c if " " <= c <= "~" and c not in '"\\%' else "_" for c in filename)
