"""What S3's errors mean, and what to do about them.

>>> from botocore.exceptions import ClientError
>>> error = ClientError({"Error": {"Code": "NoSuchBucket", "Message": "..."}}, "PutObject")
>>> print(explained(error, "photos", "put_object", None))
bucket 'photos' does not exist (put_object, NoSuchBucket): create it, or correct the storage's URL
"""

from __future__ import annotations

from typing import Any

from botocore.exceptions import (
    ClientError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
)
from botocore.exceptions import (
    ConnectionError as NoConnection,
)

ABSENT = {"NoSuchKey", "NoSuchUpload", "NotFound"}
"""Codes that say that there is no such file, or upload."""

_CURES: dict[str, tuple[type[OSError], str]] = {
    "NoSuchBucket": (OSError, "does not exist{about}: create it, or correct the storage's URL"),
    "AccessDenied": (
        PermissionError,
        "refuses this{about}: grant s3:GetObject, PutObject, DeleteObject, AbortMultipartUpload on its objects "
        "and s3:ListBucket, ListBucketMultipartUploads on it",
    ),
    "InvalidAccessKeyId": (PermissionError, "does not know these credentials{about}: see the URL or the environment"),
    "SignatureDoesNotMatch": (PermissionError, "refuses the secret key{about}: see the URL or the environment"),
    "ExpiredToken": (PermissionError, "refuses expired credentials{about}: renew them"),
    "RequestTimeTooSkewed": (OSError, "refuses requests because this machine's clock is off{about}: set it"),
    "PermanentRedirect": (OSError, "is in another region{about}: name it by the option 'region'"),
    "AuthorizationHeaderMalformed": (OSError, "is in another region{about}: name it by the option 'region'"),
    "BadDigest": (OSError, "received other bytes than were sent{about}: the network or the server is broken"),
    "SlowDown": (OSError, "asks to slow down{about}: lower the option 'parallel'"),
}
_CURES["403"] = _CURES["Forbidden"] = _CURES["AccessDenied"]
_CURES["301"] = _CURES["PermanentRedirect"]


def code_of(error: ClientError) -> str:
    """S3's word for what went wrong; the status where there was no body, as after HEAD."""
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: ClientError) -> int:
    """The HTTP status."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def explained(error: Exception, bucket: str, operation: str, endpoint: str | None) -> OSError:
    """An error that names bucket, operation and cure; never a secret."""
    where = endpoint or "Amazon S3"
    match error:
        case ClientError():
            code = code_of(error)
            kind, cure = _CURES.get(code, (OSError, "answered with an error{about}: {message}"))
            message: Any = error.response.get("Error", {}).get("Message", "no explanation")
            about = f" ({operation}, {code or status_of(error)})"
            return kind(f"bucket {bucket!r} {cure.format(about=about, message=message)}")
        case NoCredentialsError() | PartialCredentialsError() | ProfileNotFound():
            return PermissionError(
                f"no credentials for bucket {bucket!r} ({operation}): {error}; set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or the option 'profile'"
            )
        case NoConnection() | HTTPClientError() | IncompleteReadError():
            return ConnectionError(f"{where} can't be reached for bucket {bucket!r} ({operation}): {error}")
        case _:
            return OSError(f"bucket {bucket!r} ({operation}): {error}")
