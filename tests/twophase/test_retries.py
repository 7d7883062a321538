"""Transactions that PostgreSQL refuses to serialize, and a plain loop that tries again: no file of a failed attempt is
left, with one phase or two, with the ORM or without.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import Column, Connection, Engine, Integer, MetaData, Table, func, select
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

from sa_attachments import Attachment, AttachmentType
from tests.scenarios.models import Doc, files
from tests.scenarios.world import World

on = pytest.mark.parametrize
PHASES = on("twophase", [False, True], ids=["one phase", "two phases"])
LEVELS = ["REPEATABLE READ", "SERIALIZABLE"]
postgres = on("world", ["postgres"], indirect=True)

metadata = MetaData()
plain = Table(
    "plain_docs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("file", AttachmentType(files)),
    Column("turn", Integer),
)


def is_refused(error: DBAPIError) -> bool:
    """A serialization failure, or a deadlock: to be tried again."""
    return getattr(error.orig, "sqlstate", None) in ("40001", "40P01")


def with_retries(attempt: Callable[[int], None], attempts: int = 20) -> int:
    """The loop that every application has that works at these levels. Returns how often it had to try again."""
    for number in range(attempts):
        try:
            attempt(number)
        except OperationalError as error:
            if not is_refused(error):
                raise
        else:
            return number
    raise AssertionError("it never got through")


@pytest.fixture(params=LEVELS)
def strict(request: pytest.FixtureRequest, world: World) -> Engine:
    """An engine at this isolation level."""
    return world.engine.execution_options(isolation_level=request.param)


# One attempt that fails, and one that does not


@PHASES
@postgres
def test_the_row_was_changed_meanwhile(world: World, strict: Engine, twophase: bool) -> None:
    with Session(world.engine) as session:
        session.add(Doc(id=1, title="0", file=b"old"))
        session.commit()
    mine = Attachment.upload(io.BytesIO(b"mine"))

    def attempt(number: int) -> None:
        with Session(strict, twophase=twophase) as session:
            doc = session.get_one(Doc, 1)  # the snapshot
            if number == 0:
                with Session(world.engine) as other:
                    other.get_one(Doc, 1).file = b"other"
                    other.commit()
            doc.file = mine
            session.add(Doc(id=2, file=b"more"))
            session.commit()

    assert with_retries(attempt) == 1
    world.check(b"mine", b"more")


@PHASES
@postgres
def test_the_commit_is_refused(world: World, twophase: bool) -> None:
    """Both read what the other writes: the second one hears of it when it commits, or prepares."""
    strict = world.engine.execution_options(isolation_level="SERIALIZABLE")
    refused: list[str] = []

    def attempt(number: int) -> None:
        with Session(strict, twophase=twophase) as session:
            seen = session.scalar(select(func.count()).select_from(Doc))
            session.add(Doc(title=f"mine, after {seen}", file=b"mine"))
            session.flush()
            if number == 0:
                with Session(strict) as other:
                    other.add(
                        Doc(title=f"other, after {other.scalar(select(func.count()).select_from(Doc))}", file=b"other")
                    )
                    other.commit()
            try:
                session.commit()
            except DBAPIError as error:
                refused.append(type(error).__name__)
                # psycopg takes the connection for prepared, and hides the reason behind the rollback's error.
                if twophase:
                    session.invalidate()
                    world.engine.dispose()
                    raise OperationalError("PREPARE", {}, _SerializationFailure()) from error
                raise

    assert with_retries(attempt) == 1
    assert len(refused) == 1
    if twophase:
        world.sweep()
    world.check(b"mine", b"other", swept=twophase)


class _SerializationFailure(Exception):
    sqlstate = "40001"


@postgres
def test_the_same_object_is_tried_again(world: World) -> None:
    """Its source is read again, and stored under another key."""
    strict = world.engine.execution_options(isolation_level="REPEATABLE READ")
    with Session(world.engine) as session:
        session.add(Doc(id=1, title="0"))
        session.commit()
    new = Doc(id=2, title="new", file=io.BytesIO(b"new"), pages=[b"1", b"2"])

    def attempt(number: int) -> None:
        with Session(strict) as session:
            doc = session.get_one(Doc, 1)
            if number < 2:
                with Session(world.engine) as other:
                    other.get_one(Doc, 1).title = f"other {number}"
                    other.commit()
            session.add(new)
            session.flush()
            doc.title = "mine"
            session.commit()

    assert with_retries(attempt) == 2
    world.check(b"new", b"1", b"2")


@on("early", [False, True], ids=["stored in it", "stored before"])
@postgres
def test_without_the_orm(world: World, strict: Engine, early: bool) -> None:
    world.create(metadata)
    with world.engine.begin() as connection:
        old = files.stage(Attachment.upload(b"old"), connection, plain.c.file)
        connection.execute(plain.insert(), {"id": 1, "file": old, "turn": 0})
    mine = Attachment.upload(b"mine")
    if early:
        mine = files.stage(mine, plain.c.file)

    def attempt(number: int) -> None:
        with strict.begin() as connection:
            assert connection.scalar(select(plain.c.turn)) == number
            if number == 0:
                with world.engine.begin() as other:
                    replace(other, Attachment.upload(b"other"))
            replace(connection, mine)

    assert with_retries(attempt) == 1
    world.check(b"mine")


def replace(connection: Connection, attachment: Attachment) -> None:
    row = connection.execute(select(plain).with_for_update()).one()
    files.drop(row.file, connection)
    new = files.stage(attachment, connection, plain.c.file)
    connection.execute(plain.update().where(plain.c.id == row.id).values(file=new, turn=row.turn + 1))


# Several at a time


@PHASES
@postgres
def test_threads_that_get_in_each_other_s_way(world: World, strict: Engine, twophase: bool) -> None:
    """Each replaces the file of one row, several times; all of them get through, and the last one's file is left."""
    turns, threads = 3, 4
    with Session(world.engine) as session:
        session.add(Doc(id=1, title="0", file=b"0"))
        session.commit()
    together = Barrier(threads)
    failures: list[int] = []

    def work(thread: int) -> None:
        together.wait()
        failures.extend(with_retries(attempt, 200) for _ in range(turns))

    def attempt(number: int) -> None:
        with Session(strict, twophase=twophase) as session:
            doc = session.get_one(Doc, 1)
            turn = str(int(doc.title or "") + 1)
            doc.title, doc.file = turn, turn.encode()
            session.flush()
            session.commit()

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))
    assert sum(failures) > 0
    world.sweep()
    world.check(str(turns * threads).encode(), swept=True)


@postgres
def test_threads_without_the_orm(world: World, strict: Engine) -> None:
    world.create(metadata)
    turns, threads = 3, 4
    with world.engine.begin() as connection:
        first = files.stage(Attachment.upload(b"0"), connection, plain.c.file)
        connection.execute(plain.insert(), {"id": 1, "file": first, "turn": 0})
    together = Barrier(threads)
    failures: list[int] = []

    def work(thread: int) -> None:
        together.wait()
        failures.extend(with_retries(attempt, 200) for _ in range(turns))

    def attempt(number: int) -> None:
        with strict.begin() as connection:
            turn: Any = connection.scalar(select(plain.c.turn))
            replace(connection, Attachment.upload(str(turn + 1).encode()))

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))
    assert sum(failures) > 0
    world.sweep()
    world.check(str(turns * threads).encode(), swept=True)
