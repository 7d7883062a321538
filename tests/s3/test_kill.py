"""A process that stores in S3 and PostgreSQL is killed at every step, and so are the sweeps after it.

See ``tests/crash/test_kill.py``. Here each request to S3 has a step before and after it as well, so that uploads in
parts are killed between their parts.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.engine import URL

from tests.crash.application import Application
from tests.crash.forks import ForkServer
from tests.crash.test_kill import Ground, kill_at_each
from tests.seaweed import ACCESS_KEY, SECRET_KEY, Seaweed

from .conftest import unfinished


class S3Application(Application):
    """Its storage is in a bucket."""

    def left_over(self) -> list[str]:
        return unfinished(self.storage)


class S3Ground(Ground):
    """A database and a bucket."""

    application = S3Application

    def __init__(self, client: Any, bucket: str, *arguments: Any, **options: Any) -> None:
        self._client = client
        self._bucket = bucket
        super().__init__(*arguments, **options)

    def renew(self) -> None:
        super().renew()
        listed = self._client.list_objects_v2(Bucket=self._bucket).get("Contents", [])
        for item in listed:
            self._client.delete_object(Bucket=self._bucket, Key=item["Key"])
        for upload in self._client.list_multipart_uploads(Bucket=self._bucket).get("Uploads", []):
            self._client.abort_multipart_upload(Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"])


@pytest.fixture
def ground(
    seaweed: Seaweed,
    bucket: str,
    postgres_url: URL,
    open_engine: Callable[..., Engine],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[S3Ground]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    storage = f"s3://{bucket}/files?endpoint_url={seaweed.endpoint}&part_size=5"
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as root, ForkServer() as server:
        engine = open_engine(postgres_url, pool_size=1, max_overflow=0)
        yield S3Ground(seaweed.client(), bucket, server, engine, Path(root) / "ground", storage=storage)


def test_a_small_workload(ground: S3Ground) -> None:
    kill_at_each(ground, "small", every=167, sweeps=61)


def test_a_large_file(ground: S3Ground) -> None:
    names = ground.steps("large")
    assert "after UploadPart" in names
    assert "before CompleteMultipartUpload" in names
    kill_at_each(ground, "large", every=149, sweeps=71)


@pytest.mark.torture
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("workload", ["small", "large", "given"])
def test_every_step(ground: S3Ground, workload: str) -> None:
    kill_at_each(ground, workload, every=1, sweeps=13)


@pytest.mark.torture
@pytest.mark.timeout(7200)
def test_all_operations_at_every_step(ground: S3Ground) -> None:
    kill_at_each(ground, "all", every=1, sweeps=31)
