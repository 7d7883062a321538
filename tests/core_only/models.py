"""Tables that the ORM never saw, and what the tests do with them by plain connections."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Column, Connection, Integer, MetaData, String, Table, select

from sa_attachments import Attachment, AttachmentListType, AttachmentType
from sa_attachments.processing import MaxSize
from tests.scenarios.models import files
from tests.scenarios.world import AsyncWorld, World

metadata = MetaData()
docs = Table(
    "plain_docs",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("title", String(50), unique=True),
    Column("file", AttachmentType(files)),
    Column("scan", AttachmentType(files, retain=timedelta(days=1))),
    Column("small", AttachmentType(files, steps=[MaxSize(10)])),
    Column("pages", AttachmentListType(files)),
)


def upload(data: bytes, **options: Any) -> Attachment:
    return Attachment.upload(data, "a.txt", **options)


class Bench:
    """A world, and what a program without the ORM does in it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.engine = world.engine
        world.create(metadata)

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        with self.engine.begin() as connection:
            yield connection

    def insert(self, pk: int, data: bytes, column: str = "file") -> Attachment:
        """A committed row with a file."""
        with self.begin() as connection:
            staged = files.stage(upload(data), connection, docs.c[column])
            connection.execute(docs.insert(), {"id": pk, column: staged})
        return staged

    def read(self, connection: Connection, pk: int, column: str = "file") -> Any:
        """What a row names, as one has to read it before it is dropped."""
        return connection.scalar(select(docs.c[column]).where(docs.c.id == pk).with_for_update())

    def check(self, *contents: bytes, swept: bool = False) -> None:
        self.world.check(*contents, swept=swept)


@pytest.fixture
def bench(world: World) -> Bench:
    return Bench(world)


@pytest.fixture
def aworld_bench(aworld: AsyncWorld) -> AsyncWorld:
    aworld.create(metadata)
    return aworld
