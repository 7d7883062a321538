"""Contest of many small files in one flush to a bucket that is 20 milliseconds away.

The floor is one request after the other, as who wrote it by hand would begin. Beside it stand the ways of DEPOT
(``filedepot``) and of advanced-alchemy, where they are installed, with their own defaults.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import boto3
from contest import Contest, Run
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from sa_attachments import Attachment, AttachmentType, Storages
from sa_attachments.storages.s3 import S3Storage

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.proxy import Proxy
from tests.seaweed import ACCESS_KEY, SECRET_KEY, start_seaweed

AWAY = 0.01
"""Seconds in each direction."""
SIZE = 20 * 1024


def contests(rounds: int, where: Path | None, scale: float = 1.0) -> Iterable[Contest]:
    """One row."""
    count = max(50, int(500 * scale))
    contents = [os.urandom(SIZE) for _ in range(count)]
    with TemporaryDirectory(prefix="bench-", dir=where) as folder:
        server = start_seaweed(Path(folder, "seaweed"))
        try:
            with Proxy("127.0.0.1", server.port) as proxy:
                place = {"endpoint_url": f"http://127.0.0.1:{proxy.port}", "region_name": "us-east-1"}
                place |= {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY}
                proxy.delay(AWAY)
                sides: dict[str, Callable[[Path], Run]] = {
                    name: partial(side, contents, place, server.client())
                    for name, side in {"ours": ours, "floor": one_by_one, **others()}.items()
                }
                contest = Contest("one flush to S3, 20 ms away", f"{count} × 20 KB", 1 / 8)
                contest.hold(sides, rounds, where)
                yield contest
        finally:
            os.kill(int(Path(folder, "seaweed", "pid").read_text()), 9)


def ours(contents: list[bytes], place: dict[str, str], client: Any, folder: Path) -> Run:
    bucket = _bucket(client)
    files = Storages(
        S3Storage(
            bucket,
            endpoint_url=place["endpoint_url"],
            access_key_id=ACCESS_KEY,
            secret_access_key=SECRET_KEY,
        )
    )

    class Base(DeclarativeBase):
        pass

    class Doc(Base):
        __tablename__ = "docs"
        id: Mapped[int] = mapped_column(primary_key=True)
        file: Mapped[Attachment] = mapped_column(AttachmentType(files))

    run = Run()
    engine = create_engine(f"sqlite:///{folder}/ours.db")
    Base.metadata.create_all(engine)
    with Session(engine) as session, run.timed():
        session.add_all([Doc(file=Attachment.upload(each)) for each in contents])
        session.commit()
    engine.dispose()
    _count(client, bucket, len(contents))
    return run


def one_by_one(contents: list[bytes], place: dict[str, str], client: Any, folder: Path) -> Run:
    bucket, run = _bucket(client), Run()
    with run.timed():
        s3 = boto3.client("s3", **place)
        for each in contents:
            s3.put_object(Bucket=bucket, Key=uuid4().hex, Body=each)
    _count(client, bucket, len(contents))
    return run


def others() -> dict[str, Callable[..., Run]]:
    """The libraries that are here."""
    found: dict[str, Callable[..., Run]] = {}
    try:
        import depot  # noqa: F401

        found["DEPOT"] = by_depot
    except ImportError:
        pass
    try:
        import advanced_alchemy.types.file_object  # noqa: F401
        import obstore  # noqa: F401

        found["advanced-alchemy"] = by_advanced_alchemy
    except ImportError:
        pass
    return found


def by_depot(contents: list[bytes], place: dict[str, str], client: Any, folder: Path) -> Run:
    from depot.fields.sqlalchemy import UploadedFileField
    from depot.manager import DepotManager

    bucket = _bucket(client)
    name = uuid4().hex
    options = {
        "depot.backend": "depot.io.boto3.S3Storage",
        "depot.access_key_id": ACCESS_KEY,
        "depot.secret_access_key": SECRET_KEY,
        "depot.bucket": bucket,
        "depot.endpoint_url": place["endpoint_url"],
        "depot.region_name": "us-east-1",
    }
    DepotManager.configure(name, options)
    DepotManager.set_default(name)

    class Base(DeclarativeBase):
        pass

    class Doc(Base):
        __tablename__ = "docs"
        id: Mapped[int] = mapped_column(primary_key=True)
        file: Mapped[Any] = mapped_column(UploadedFileField)

    run = Run()
    engine = create_engine(f"sqlite:///{folder}/depot.db")
    Base.metadata.create_all(engine)
    with Session(engine) as session, run.timed():
        session.add_all([Doc(file=each) for each in contents])
        session.commit()
    engine.dispose()
    _count(client, bucket, len(contents))
    return run


def by_advanced_alchemy(contents: list[bytes], place: dict[str, str], client: Any, folder: Path) -> Run:
    from advanced_alchemy.extensions.litestar import base  # noqa: F401
    from advanced_alchemy.types.file_object import FileObject, StoredObject, storages
    from advanced_alchemy.types.file_object.backends.obstore import ObstoreBackend
    from obstore.store import S3Store

    bucket = _bucket(client)
    store = S3Store(
        bucket,
        endpoint=place["endpoint_url"],
        access_key_id=ACCESS_KEY,
        secret_access_key=SECRET_KEY,
        region="us-east-1",
        client_options={"allow_http": True},
    )
    name = uuid4().hex
    storages.register_backend(ObstoreBackend(key=name, fs=store))

    class Base(DeclarativeBase):
        pass

    class Doc(Base):
        __tablename__ = "docs"
        id: Mapped[int] = mapped_column(primary_key=True)
        file: Mapped[Any] = mapped_column(StoredObject(backend=name))

    run = Run()
    engine = create_engine(f"sqlite:///{folder}/alchemy.db")
    Base.metadata.create_all(engine)
    with warnings.catch_warnings(), Session(engine) as session, run.timed():
        warnings.simplefilter("ignore")
        for each in contents:
            # Sessions of its own wire listeners that do this at the commit; without them it is done by hand, as here.
            file = FileObject(backend=name, filename=f"{uuid4().hex}.bin", content=each)
            file.save()
            session.add(Doc(file=file))
        session.commit()
    engine.dispose()
    _count(client, bucket, len(contents))
    return run


def _bucket(client: Any) -> str:
    name = f"bench-{uuid4().hex}"
    client.create_bucket(Bucket=name)
    return name


def _count(client: Any, bucket: str, expected: int) -> None:
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
    found = len([key for key in keys if not key.startswith(".")])
    assert found >= expected, f"{found} of {expected} files are there"
