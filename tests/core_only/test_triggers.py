"""Where the database counts names by triggers: what statements without the ORM leave without a name is condemned by
itself; ``drop`` may come before the row's statement, or after it.
"""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Connection

from sa_attachments import Attachment, OwnershipLost
from tests.alembic_ext.counting_world import CountingWorld
from tests.scenarios.models import files
from tests.scenarios.world import World

from .models import Bench, docs, upload

on = pytest.mark.parametrize
some = on("world", ["sqlite", "postgres", "mariadb"], indirect=True)


@pytest.fixture
def world_class() -> type[World]:
    return CountingWorld


def write(connection: Connection, new: Attachment | None) -> None:
    connection.execute(docs.update().where(docs.c.id == 1).values(file=new))


@on("order", ["before", "after", "not at all"])
@on("end", ["commit", "rollback"])
@some
def test_replaced(bench: Bench, order: str, end: str) -> None:
    bench.insert(1, b"old")
    with bench.engine.connect() as connection:
        old = bench.read(connection, 1)
        if order == "before":
            files.drop(old, connection)
        write(connection, files.stage(upload(b"new"), connection, docs.c.file))
        if order == "after":
            files.drop(old, connection)
        getattr(connection, end)()
    bench.world.sweep()
    bench.check(b"new" if end == "commit" else b"old", swept=True)


@on("order", ["before", "after"])
@some
def test_emptied_and_deleted(bench: Bench, order: str) -> None:
    bench.insert(1, b"one")
    bench.insert(2, b"two")
    statements: dict[int, Any] = {1: docs.update().where(docs.c.id == 1).values(file=None), 2: docs.delete()}
    for pk, statement in statements.items():
        with bench.begin() as connection:
            old = bench.read(connection, pk)
            if order == "before":
                files.drop(old, connection)
            connection.execute(statement)
            if order == "after":
                files.drop(old, connection)
    bench.world.sweep()
    bench.check(swept=True)


@some
def test_moved(bench: Bench) -> None:
    """Given up first, it is the same file; what is still named is copied."""
    bench.insert(1, b"data")
    with bench.begin() as connection:
        old = bench.read(connection, 1)
        write(connection, None)
        moved = files.stage(old, connection, docs.c.scan)
        connection.execute(docs.update().values(scan=moved))
        assert moved == old
    bench.check(b"data")


@some
def test_savepoints(bench: Bench) -> None:
    bench.insert(1, b"old")
    with bench.begin() as connection:
        old = bench.read(connection, 1)
        savepoint = connection.begin_nested()
        write(connection, files.stage(upload(b"void"), connection, docs.c.file))
        files.drop(old, connection)
        savepoint.rollback()
    bench.world.sweep()
    bench.check(b"old", swept=True)


@some
def test_what_was_never_owned_is_still_refused(bench: Bench) -> None:
    early = files.stage(upload(b"early"))
    with bench.begin() as connection, pytest.raises(OwnershipLost, match="unknown, not owned"):
        files.drop(early, connection, docs.c.file)
    bench.world.sweep()
    bench.check(swept=True)
