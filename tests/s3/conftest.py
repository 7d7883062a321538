"""S3 and PostgreSQL together: storages in a bucket of the test's own, and what may stand between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from botocore.retries.standard import ExponentialBackoff
from sqlalchemy import Engine
from sqlalchemy.engine import URL

from sa_attachments.storages.s3 import S3Storage
from tests.proxy import Proxy
from tests.scenarios.conftest import pytest_pyfunc_call, world, world_class
from tests.seaweed import ACCESS_KEY, SECRET_KEY, Seaweed

from .wire import Wire

__all__ = ["pytest_pyfunc_call", "world", "world_class"]

Make = Callable[..., S3Storage]


@pytest.fixture(scope="module")
def module_bucket(seaweed: Seaweed) -> Iterator[str]:
    """The server takes a second for the first file in a bucket."""
    name = f"test-{uuid4().hex}"
    seaweed.client().create_bucket(Bucket=name)
    yield name
    seaweed.client().delete_bucket(Bucket=name)


@pytest.fixture
def bucket(module_bucket: str) -> str:
    """The bucket that the tests of a module share."""
    return module_bucket


@pytest.fixture
def prefix() -> str:
    """This test's own part of the bucket."""
    return f"test-{uuid4().hex}"


@pytest.fixture
def make(seaweed: Seaweed, bucket: str, prefix: str) -> Make:
    """Storages in the part of the bucket that is this test's."""

    def make(**options: Any) -> S3Storage:
        given = {
            "prefix": prefix,
            "endpoint_url": seaweed.endpoint,
            "access_key_id": ACCESS_KEY,
            "secret_access_key": SECRET_KEY,
            "part_size": 5,
            "parallel": 4,
            **options,
        }
        return S3Storage(bucket, **given)

    return make


def unfinished(storage: S3Storage) -> list[str]:
    """Uploads in parts that were neither completed nor aborted."""
    uploads = storage._bucket.call("list_multipart_uploads", Prefix=storage.prefix)
    return [upload["Key"] for upload in uploads.get("Uploads", [])]


@pytest.fixture
def wire(seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    """Through which clients try again at once, where botocore waits for up to a second and more."""
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda self, context: 0.01)
    with Wire(seaweed.port) as wire:
        yield wire


@pytest.fixture
def proxy(seaweed: Seaweed) -> Iterator[Proxy]:
    with Proxy("127.0.0.1", seaweed.port) as proxy:
        yield proxy


@pytest.fixture
def postgres(postgres_url: URL, open_engine: Callable[..., Engine]) -> Engine:
    return open_engine(postgres_url)
