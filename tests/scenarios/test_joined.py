"""Sessions bound to a Connection whose transaction somebody else began: only its end tells what was committed."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any, Literal

import pytest
from sqlalchemy import Connection, event
from sqlalchemy.orm import Session

from .models import Doc
from .world import World

on = pytest.mark.parametrize

Mode = Literal["conditional_savepoint", "rollback_only", "control_fully", "create_savepoint"]
MODES: list[Mode] = ["conditional_savepoint", "rollback_only", "control_fully", "create_savepoint"]
ENDS = ["commit", "rollback", "close"]


def seed(world: World, data: bytes = b"old") -> int:
    with world.session() as session:
        doc = Doc(file=data)
        session.add(doc)
        session.commit()
        return doc.id


def work(session: Session, key: int) -> None:
    """A file replaced, one added, one deleted in the same transaction."""
    session.get_one(Doc, key).file = b"new"
    session.add(Doc(file=b"added"))
    gone = Doc(file=b"gone")
    session.add(gone)
    session.flush()
    session.delete(gone)
    session.flush()


def begin(connection: Connection) -> None:
    """On SQLite the driver's own BEGIN comes with the first write only; then the outer transaction is there."""
    connection.execute(Doc.__table__.insert().values(title="outer", pages=()))


@on("outer", ["commit", "rollback"])
@on("inner", ENDS)
@on("mode", MODES)
@on("world", ["sqlite", "sqlite-legacy", "sqlite-memory", "postgres", "aiosqlite", "asyncpg"], indirect=True)
def test_the_outer_transaction_decides(world: World, mode: Mode, inner: str, outer: str) -> None:
    key = seed(world)
    with world.engine.connect() as connection:
        transaction = connection.begin()
        begin(connection)
        with Session(connection, join_transaction_mode=mode) as session:
            work(session, key)
            getattr(session, inner)()
        if transaction.is_active:
            getattr(transaction, outer)()
    match mode:
        case "control_fully":  # the session ends the outer transaction itself
            committed = inner == "commit"
        case "create_savepoint":
            committed = (inner, outer) == ("commit", "commit")
        case _:  # close() leaves the outer transaction alone, with all that was flushed
            committed = inner != "rollback" and outer == "commit"
    world.check(*([b"new", b"added"] if committed else [b"old"]))


@on("outer", ["commit", "rollback"])
@on("savepoint", ["commit", "rollback"])
@on("inner", ["commit", "rollback"])
@on("mode", MODES)
@on("world", ["sqlite", "postgres"], indirect=True)
def test_an_outer_savepoint_may_undo_what_the_session_committed(
    world: World, mode: Mode, inner: str, savepoint: str, outer: str
) -> None:
    key = seed(world)
    with world.engine.connect() as connection:
        transaction = connection.begin()
        begin(connection)
        nested = connection.begin_nested()
        with Session(connection, join_transaction_mode=mode) as session:
            work(session, key)
            getattr(session, inner)()
        if nested.is_active:
            getattr(nested, savepoint)()
        if transaction.is_active:
            getattr(transaction, outer)()
    # In control_fully the session ends the savepoint itself, which is then no longer there to be rolled back.
    decided = ["commit", outer] if mode == "control_fully" else [savepoint, outer]
    committed = [inner, *decided] == ["commit"] * 3
    world.check(*([b"new", b"added"] if committed else [b"old"]))


@on("outer", ["commit", "rollback"])
@on("mode", MODES)
def test_savepoints_of_a_joined_session(world: World, mode: Mode, outer: str) -> None:
    key = seed(world)
    with world.engine.connect() as connection:
        transaction = connection.begin()
        begin(connection)
        with Session(connection, join_transaction_mode=mode) as session:
            session.add(Doc(file=b"before"))
            session.flush()
            released = session.begin_nested()
            session.get_one(Doc, key).file = b"new"
            session.flush()
            released.commit()
            undone = session.begin_nested()
            session.get_one(Doc, key).file = b"undone"
            session.flush()
            undone.rollback()
            session.commit()
        if transaction.is_active:
            getattr(transaction, outer)()
    committed = outer == "commit" or mode == "control_fully"
    world.check(*([b"before", b"new"] if committed else [b"old"]))


def test_several_sessions_in_one_outer_transaction(world: World) -> None:
    key = seed(world)
    with world.engine.connect() as connection:
        with connection.begin():
            for number, end in enumerate(["commit", "rollback", "commit"]):
                with Session(connection, join_transaction_mode="create_savepoint") as session:
                    session.get_one(Doc, key).file = b"%d" % number
                    session.add(Doc(file=b"by %d" % number))
                    session.flush()
                    getattr(session, end)()
        with Session(connection) as session:  # no outer transaction any more
            session.add(Doc(file=b"alone"))
            session.commit()
    world.check(b"2", b"by 0", b"by 2", b"alone")


def test_nothing_is_deleted_while_the_outer_transaction_is_open(world: World) -> None:
    key = seed(world)
    with world.engine.connect() as connection:
        transaction = connection.begin()
        with Session(connection) as session:
            work(session, key)
            session.commit()
        world.settle()
        assert sorted(world.stored().values()) == [b"added", b"gone", b"new", b"old"]
        transaction.rollback()
    world.check(b"old")


@on("end", ["commit", "rollback", "close"])
def test_a_session_bound_to_a_connection_without_a_transaction(world: World, end: str) -> None:
    """It begins the transaction itself, and ends it."""
    key = seed(world)
    with world.engine.connect() as connection:
        with Session(connection) as session:
            work(session, key)
            getattr(session, end)()
        world.check(*([b"new", b"added"] if end == "commit" else [b"old"]))


@on("world", ["sqlite", "postgres", "mariadb", "asyncpg"], indirect=True)
def test_what_is_settled_is_not_settled_again_when_the_connection_is_given_back(world: World) -> None:
    """A session may use one connection for thousands of transactions."""
    statements: list[str] = []
    with world.engine.connect() as connection:
        with Session(connection) as session:
            doc = Doc(file=b"first")
            session.add(doc)
            for number in range(20):
                doc.file = b"%d" % number
                session.commit()
            doc.file = b"rolled back"
            session.flush()
            session.rollback()
        world.check(b"19")
        event.listen(world.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    world.settle()
    assert statements == []
    world.check(b"19")


@on("world", ["sqlite", "postgres"], indirect=True)
def test_a_pool_that_got_the_id_of_a_disposed_one_is_watched(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events go by ids, and say of such a pool that they are listened to."""
    monkeypatch.setattr(event, "contains", lambda *_: True)
    with world.engine.connect() as connection:
        transaction = connection.begin()
        with Session(connection) as session:
            session.add(Doc(file=b"one"))
            session.commit()
        transaction.rollback()
    world.check()


@on("world", ["sqlite", "postgres", "mariadb", "asyncpg"], indirect=True)
def test_the_usual_fixture_of_a_test_suite(world: World) -> None:
    """Everything of a test is rolled back, whatever the code under test commits."""
    with world.engine.connect() as connection:
        transaction = connection.begin()
        session = Session(connection, join_transaction_mode="create_savepoint")
        for number in range(3):
            session.add(Doc(file=b"%d" % number))
            session.commit()
        session.rollback()
        session.close()
        transaction.rollback()
    world.check()


@on("how", ["lost", "closed"])
@on("world", ["sqlite", "sqlite-legacy", "postgres", "mariadb"], indirect=True)
def test_a_connection_that_nobody_ends(world: World, how: str) -> None:
    """Its pool gets it back, and rolls it back, when it is closed or garbage-collected."""
    key = seed(world)
    connection: Any = world.engine.connect()
    connection.begin()
    session = Session(connection)
    work(session, key)
    session.commit()
    session.close()
    if how == "closed":
        connection.close()
    del connection, session
    gc.collect()
    world.check(b"old")


@on("how", [Connection.close, Connection.invalidate])
@on("world", ["sqlite", "sqlite-legacy", "postgres", "mariadb"], indirect=True)
def test_a_connection_that_is_gone_before_a_savepoint_of_the_session_ends(
    world: World, how: Callable[[Connection], None]
) -> None:
    key = seed(world)
    connection = world.engine.connect()
    connection.begin()
    session = Session(connection)
    session.begin_nested()
    work(session, key)
    how(connection)
    session.close()
    connection.close()
    world.check(b"old")


@on("outer", ["commit", "rollback"])
@on("world", ["sqlite", "postgres", "mariadb", "asyncpg"], indirect=True)
def test_a_session_that_nobody_closes_and_that_outlives_its_connection(world: World, outer: str) -> None:
    """As those of SQLAlchemy-Continuum: what it left is settled when its connection is given back once more."""
    key = seed(world)
    with world.engine.connect() as connection:
        transaction = connection.begin()
        session: Any = Session(connection)
        work(session, key)
        getattr(transaction, outer)()
    del session, transaction
    gc.collect()
    for _ in range(5):  # the pool has others, which take turns
        world.engine.connect().close()
    world.check(*([b"new", b"added"] if outer == "commit" else [b"old"]))
