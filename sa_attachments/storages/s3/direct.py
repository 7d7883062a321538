"""Direct uploads: what a client needs to store one file in a bucket by itself.

A PUT is signed with its size and with ``If-None-Match``, so that it stores exactly so many bytes, and once. A form
has a policy, which S3 compares with what is sent: the key, the type, the most bytes, and the parameters of new files.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from sa_attachments.storage import DirectUpload

from .bucket import Bucket

_HEADERS = {
    "ContentType": "Content-Type",
    "StorageClass": "x-amz-storage-class",
    "ACL": "x-amz-acl",
    "CacheControl": "Cache-Control",
    "ServerSideEncryption": "x-amz-server-side-encryption",
    "SSEKMSKeyId": "x-amz-server-side-encryption-aws-kms-key-id",
    "Tagging": "x-amz-tagging",
}
"""Parameters of PutObject, and the headers that say the same."""


def signed_put(bucket: Bucket, name: str, parameters: Mapping[str, str], size: int, seconds: int) -> DirectUpload:
    """A PUT of ``size`` bytes; the headers are a part of what is signed."""
    asked = {"Bucket": bucket.name, "Key": name, "ContentLength": size, "IfNoneMatch": "*", **parameters}
    url = bucket.client.generate_presigned_url("put_object", Params=asked, ExpiresIn=seconds)
    headers = {_HEADERS[parameter]: value for parameter, value in parameters.items()}
    return DirectUpload("PUT", url, headers={**headers, "Content-Length": str(size), "If-None-Match": "*"})


def signed_form(bucket: Bucket, name: str, parameters: Mapping[str, str], most: int, seconds: int) -> DirectUpload:
    """A form that takes up to ``most`` bytes."""
    fields = {_HEADERS[parameter]: value for parameter, value in parameters.items()}
    # Two fields of a form go by another name than the header.
    for header, field, value_of in (("x-amz-acl", "acl", str), ("x-amz-tagging", "tagging", _tag_set)):
        if header in fields:
            fields[field] = value_of(fields.pop(header))
    conditions = [["content-length-range", 0, most], *({field: value} for field, value in fields.items())]
    form = bucket.client.generate_presigned_post(
        bucket.name, name, Fields=fields, Conditions=conditions, ExpiresIn=seconds
    )
    return DirectUpload("POST", form["url"], fields=form["fields"])


def _tag_set(tags: str) -> str:
    """Tags as a form wants them.

    >>> _tag_set("project=a%26b")
    '<Tagging><TagSet><Tag><Key>project</Key><Value>a&amp;b</Value></Tag></TagSet></Tagging>'
    """
    pairs = (f"<Tag><Key>{escape(name)}</Key><Value>{escape(value)}</Value></Tag>" for name, value in parse_qsl(tags))
    return f"<Tagging><TagSet>{''.join(pairs)}</TagSet></Tagging>"
