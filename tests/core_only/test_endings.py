"""How transactions of connections end: what is settled, and when."""

from __future__ import annotations

import gc
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from sqlalchemy import Column, Connection, Engine, ForeignKey, MetaData, Table, event, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from sa_attachments import AttachmentWarning, BadConfiguration, OwnershipLost
from sa_attachments.queries import OWNED
from tests.scenarios.models import files
from tests.scenarios.world import AsyncWorld

from .models import Bench, docs, metadata, upload

on = pytest.mark.parametrize
sync = on("world", ["sqlite", "sqlite-legacy", "sqlite-memory", "postgres", "mariadb"], indirect=True)
servers = on("world", ["postgres", "mariadb"], indirect=True)


def replace(connection: Any, data: bytes, pk: int = 1) -> None:
    """As a program without the ORM does it."""
    old = connection.scalar(select(docs.c.file).where(docs.c.id == pk).with_for_update())
    new = files.stage(upload(data), connection, docs.c.file)
    connection.execute(docs.update().where(docs.c.id == pk).values(file=new))
    files.drop(old, connection)


def test_a_connection_of_many_transactions_is_cleaned_up_at_each(bench: Bench) -> None:
    """Not only when it goes back to its pool: a worker may hold it for days. With one connection for all, it does."""
    if bench.world.name == "sqlite-memory":
        pytest.skip("the one connection is in a transaction again")
    bench.insert(1, b"0")
    with bench.engine.connect() as connection:
        for number in range(1, 4):
            replace(connection, b"%d" % number)
            connection.commit()
            replace(connection, b"void")
            connection.rollback()
        with connection.begin():
            pass
        bench.world.settle()
        assert list(bench.world.stored().values()) == [b"3"]
    bench.check(b"3")


def fail_to_replace(connection: Any, column: str = "file", how: str = "staged") -> None:
    """In a savepoint, as PostgreSQL demands it."""
    savepoint = connection.begin_nested()
    values: dict[str, Any] = {"title": "taken", column: None}
    if how == "staged":
        staged = files.stage(upload(b"never"), connection, docs.c[column])
        values[column] = [staged] if column == "pages" else staged
    with pytest.raises(IntegrityError):
        connection.execute(docs.update().where(docs.c.id == 1).values(values))
    savepoint.rollback()


@on("column", ["file", "scan", "pages"])
@on("how", ["staged", "none"])
def test_what_was_dropped_before_a_statement_failed_is_kept_while_a_row_names_it(
    bench: Bench, column: str, how: str
) -> None:
    with bench.begin() as connection:
        staged = files.stage(upload(b"old"), connection, docs.c[column])
        connection.execute(docs.insert(), {"id": 1, column: [staged] if column == "pages" else staged})
        connection.execute(docs.insert(), {"id": 2, "title": "taken"})
    with bench.engine.connect() as connection:
        old = bench.read(connection, 1, column)
        files.drop(old[0] if column == "pages" else old, connection, docs.c[column])
        fail_to_replace(connection, column, how)
        for _ in range(2):  # The failure is not forgotten when others succeed.
            connection.execute(docs.update().where(docs.c.id == 2).values(title="taken"))
        with pytest.warns(AttachmentWarning, match=f"plain_docs.{column} names it, as a statement failed"):
            connection.commit()
    bench.check(b"old")


def test_what_is_looked_for_before_a_commit_is_looked_for_where_it_was(
    tmp_path: Path, open_engine: Callable[..., Engine]
) -> None:
    """A connection may work for another tenant by then."""
    engine = open_engine(f"sqlite:///{tmp_path}/test.db")
    event.listen(engine, "connect", lambda driver, _: driver.execute(f"ATTACH '{tmp_path}/tenant.db' AS tenant"))
    for schema in (None, "tenant"):
        metadata.create_all(engine.execution_options(schema_translate_map={None: schema}))
    with files.override("memory:"):
        with engine.connect() as connection:
            connection.execution_options(schema_translate_map={None: "tenant"})
            staged = files.stage(upload(b"old"), connection, docs.c.file)
            connection.execute(docs.insert(), {"id": 1, "file": staged})
            connection.execute(docs.insert(), {"id": 2, "title": "taken"})
            connection.commit()
            old = connection.scalar(select(docs.c.file).where(docs.c.id == 1))
            files.drop(old, connection, docs.c.file)
            fail_to_replace(connection, how="none")
            connection.execution_options(schema_translate_map={None: None})
            with pytest.warns(AttachmentWarning, match="as a statement failed"):
                connection.commit()
        assert files.settled(20)
        assert old.read() == b"old"


@sync
def test_what_was_dropped_before_a_statement_failed_is_purged_if_no_row_names_it(bench: Bench) -> None:
    bench.insert(1, b"old")
    with bench.begin() as connection:
        connection.execute(docs.insert(), {"id": 2, "title": "taken"})
    with bench.begin() as connection:
        files.drop(bench.read(connection, 1), connection)
        fail_to_replace(connection)
        new = files.stage(upload(b"new"), connection, docs.c.file)
        connection.execute(docs.update().where(docs.c.id == 1).values(file=new))
    bench.check(b"new")


@sync
def test_what_a_savepoint_dropped_is_not_looked_for_after_its_rollback(bench: Bench) -> None:
    bench.insert(1, b"old")
    with bench.begin() as connection:
        connection.execute(docs.insert(), {"id": 2, "title": "taken"})
        savepoint = connection.begin_nested()
        files.drop(bench.read(connection, 1), connection)
        fail_to_replace(connection)
        savepoint.rollback()
    bench.check(b"old")


@on("world", ["sqlite", "sqlite-legacy", "sqlite-memory", "mariadb"], indirect=True)
def test_a_statement_that_fails_without_a_savepoint(bench: Bench) -> None:
    """PostgreSQL ends the transaction."""
    bench.insert(1, b"old")
    with bench.begin() as connection:
        connection.execute(docs.insert(), {"id": 2, "title": "taken"})
    with bench.engine.connect() as connection:
        files.drop(bench.read(connection, 1), connection)
        with pytest.raises(IntegrityError):
            connection.execute(docs.update().where(docs.c.id == 1).values(title="taken", file=None))
        with pytest.warns(AttachmentWarning, match="as a statement failed"):
            connection.commit()
    bench.check(b"old")


@sync
def test_a_delete_that_fails(bench: Bench) -> None:
    bench.insert(1, b"old")
    metadata = MetaData()
    notes = Table("plain_notes", metadata, Column("doc", ForeignKey(docs.c.id)))
    with bench.world.observer.begin() as connection:
        notes.create(connection)
        connection.execute(notes.insert(), {"doc": 1})
    if bench.engine.dialect.name == "sqlite":
        with bench.engine.connect() as connection:
            if not connection.scalar(text("PRAGMA foreign_keys")):
                pytest.skip("foreign keys are not enforced")
    with bench.engine.connect() as connection:
        files.drop(bench.read(connection, 1), connection)
        savepoint = connection.begin_nested()
        with pytest.raises(IntegrityError):
            connection.execute(docs.delete().where(docs.c.id == 1))
        savepoint.rollback()
        with pytest.warns(AttachmentWarning, match="as a statement failed"):
            connection.commit()
    bench.check(b"old")
    with bench.world.observer.begin() as connection:
        notes.drop(connection)


@on("how", ["released", "rolled back", "outer rolled back"])
def test_savepoints(bench: Bench, how: str) -> None:
    bench.insert(1, b"old")
    with bench.begin() as connection:
        connection.execute(docs.insert(), {"id": 9})
        outer = connection.begin_nested()
        replace(connection, b"outer")
        inner = connection.begin_nested()
        replace(connection, b"inner")
        if how == "rolled back":
            inner.rollback()
            outer.commit()
        elif how == "released":
            inner.commit()
            outer.commit()
        else:
            inner.commit()
            outer.rollback()
    bench.check({"released": b"inner", "rolled back": b"outer", "outer rolled back": b"old"}[how])


@sync
def test_a_connection_that_is_garbage_collected(bench: Bench) -> None:
    bench.insert(1, b"old")
    connection = bench.engine.connect()
    replace(connection, b"void")
    del connection
    gc.collect()
    bench.check(b"old")


@servers
@on("nested", [False, True])
def test_an_invalidated_connection(bench: Bench, nested: bool) -> None:
    """The server may take a moment to roll back: then a sweep cleans."""
    bench.insert(1, b"old")
    with bench.engine.connect() as connection:
        if nested:
            connection.begin_nested()
        replace(connection, b"void")
        connection.invalidate()
        connection.rollback()
        replace(connection, b"new")
        connection.commit()
    bench.world.sweep()
    bench.check(b"new", swept=True)


@servers
@on("nested", [False, True])
def test_a_connection_that_the_server_ends(bench: Bench, nested: bool) -> None:
    bench.insert(1, b"old")
    mysql = bench.engine.dialect.name != "postgresql"
    with bench.engine.connect() as connection:
        connection.begin()
        savepoint = connection.begin_nested() if nested else None
        replace(connection, b"void")
        mine = connection.scalar(text("SELECT connection_id()" if mysql else "SELECT pg_backend_pid()"))
        with bench.world.observer.connect() as other:
            other.execute(text(f"KILL {mine}" if mysql else f"SELECT pg_terminate_backend({mine}, 5000)"))
        with pytest.raises(DBAPIError):
            connection.execute(docs.insert(), {"id": 2})
        if savepoint is not None:
            savepoint.rollback()
    bench.world.sweep()
    bench.check(b"old", swept=True)


@on("world", ["postgres", "asyncpg"], indirect=True)
def test_a_commit_that_the_server_turns_into_a_rollback(bench: Bench) -> None:
    """After an error that the application caught; no driver says so."""
    bench.insert(1, b"old")
    with bench.engine.connect() as connection:
        replace(connection, b"void")
        with pytest.raises(DBAPIError):
            connection.execute(text("SELECT 1/0"))
        connection.commit()
    bench.check(b"old")


@on("world", ["postgres"], indirect=True)
def test_a_commit_that_fails(bench: Bench) -> None:
    bench.insert(1, b"old")
    with bench.engine.begin() as connection:
        connection.execute(
            text("CREATE TABLE others (id INT REFERENCES plain_docs (id) DEFERRABLE INITIALLY DEFERRED)")
        )
    with bench.engine.connect() as connection:
        replace(connection, b"void")
        connection.execute(text("INSERT INTO others VALUES (404)"))
        with pytest.raises(IntegrityError):
            connection.commit()
    bench.check(b"old")


@on("world", ["sqlite", "postgres"], indirect=True)
def test_a_commit_whose_answer_gets_lost(bench: Bench) -> None:
    bench.insert(1, b"old")
    dialect: Any = bench.engine.dialect
    plain = dialect.do_commit

    def do_commit(connection: Any) -> None:
        dialect.do_commit = plain
        plain(connection)
        raise ConnectionResetError("the answer got lost")

    with bench.engine.connect() as connection:
        replace(connection, b"new")
        dialect.do_commit = do_commit
        with pytest.raises(ConnectionResetError):
            connection.commit()
    bench.check(b"new")


@on("end", ["commit", "rollback"])
@on("world", ["postgres", "mariadb"], indirect=True)
@on("prepare", [True, False])
def test_two_phases(bench: Bench, end: str, prepare: bool) -> None:
    bench.insert(1, b"old")
    with bench.engine.connect() as connection:
        transaction = connection.begin_twophase()
        replace(connection, b"new")
        if prepare:
            transaction.prepare()
        getattr(transaction, end)()
    bench.check(b"new" if end == "commit" else b"old")


def test_a_commit_that_is_refused_leaves_nothing_to_the_next(bench: Bench) -> None:
    """The transaction of the database would still be open, for a connection that goes on."""
    bench.insert(1, b"one")
    bench.insert(2, b"two")
    with bench.engine.connect() as connection:
        with pytest.raises(OwnershipLost):
            connection.execute(docs.update().values(file=files.stage(upload(b"void"), connection, docs.c.file)))
        with pytest.raises(OwnershipLost):
            connection.commit()
        connection.rollback()
        connection.execute(docs.insert(), {"id": 3})
        connection.commit()
    bench.check(b"one", b"two")


@on("verb", ["prepare", "commit"])
@on("world", ["postgres", "mariadb"], indirect=True)
def test_what_is_doubtful_can_t_be_prepared_or_committed(bench: Bench, verb: str) -> None:
    bench.insert(1, b"one")
    bench.insert(2, b"two")
    with bench.engine.connect() as connection:
        transaction = connection.begin_twophase()
        with pytest.raises(OwnershipLost):
            connection.execute(docs.update().values(file=files.stage(upload(b"void"), connection, docs.c.file)))
        with pytest.raises(OwnershipLost):
            getattr(transaction, verb)()
        transaction.rollback()
        connection.execute(docs.insert(), {"id": 3})
        connection.commit()
    bench.check(b"one", b"two")


@servers
def test_two_who_replace_one_row(bench: Bench) -> None:
    """Who did not read under lock is told, before a file gets lost."""
    bench.insert(1, b"old")
    with bench.engine.connect() as one, bench.engine.connect() as two:
        stale = two.scalar(select(docs.c.file))
        two.rollback()
        replace(one, b"new")
        one.commit()
        with pytest.raises(OwnershipLost, match="Somebody else may have replaced it"):
            files.drop(stale, two)
        two.rollback()
        replace(two, b"newest")
        two.commit()
    bench.check(b"newest")


@servers
def test_two_who_replace_one_row_at_the_same_time(bench: Bench) -> None:
    """Who comes second waits for what becomes of the first: else the file of the first would lose its name unseen."""
    bench.insert(1, b"old")
    said: list[BaseException] = []

    def drop(connection: Connection, stale: Any) -> None:
        try:
            files.drop(stale, connection)
        except OwnershipLost as error:
            said.append(error)

    with bench.engine.connect() as one, bench.engine.connect() as two:
        stale = two.scalar(select(docs.c.file))
        two.rollback()
        replace(one, b"new")
        second = Thread(target=drop, args=(two, stale))
        second.start()
        second.join(0.2)
        one.commit()
        second.join(20)
        assert len(said) == 1
        two.rollback()
    bench.check(b"new")


@servers
def test_a_sweep_leaves_alone_what_is_in_flight(bench: Bench) -> None:
    bench.insert(1, b"old")
    with bench.begin() as connection:
        replace(connection, b"new")
        report = files.sweep(bench.world.observer, grace=timedelta(0), stranger_retain=timedelta(0))
        assert (report["default"].strangers, report["default"].skipped) == (0, 1)
    bench.check(b"new")


@on("world", ["sqlite", "postgres"], indirect=True)
def test_connections_are_forgotten(bench: Bench) -> None:
    """Neither they nor what was kept for them stay behind."""
    bench.insert(1, b"0")
    for number in range(10):
        with bench.begin() as connection:
            replace(connection, b"%d" % number)
        del connection
    gc.collect()
    assert len(files.custodies) == 0
    bench.check(b"9")


@on("world", ["sqlite", "postgres"], indirect=True)
def test_a_connection_whose_statement_failed_is_forgotten(bench: Bench) -> None:
    bench.insert(2, b"old")
    gc.collect()
    before = len(files.custodies)
    with bench.engine.connect() as connection:
        staged = files.stage(upload(b"never"), connection, docs.c.file)
        with pytest.raises(IntegrityError):
            connection.execute(docs.insert(), {"id": 2, "file": staged})
        connection.rollback()
    del connection, staged
    gc.collect()
    assert len(files.custodies) == before
    bench.check(b"old")


@on("world", ["sqlite"], indirect=True)
def test_others_are_not_listened_to(bench: Bench) -> None:
    bench.insert(1, b"data")
    with bench.engine.connect() as connection:
        heard: list[Any] = []
        event.listen(bench.engine, "before_execute", lambda *args: heard.append(args))
        connection.execute(select(docs.c.id))
        assert len(heard) == 1
        assert list(connection.dispatch.before_cursor_execute) == []
        assert len(list(connection.dispatch.before_execute)) == 1


@on("world", ["sqlite"], indirect=True)
def test_a_connection_of_a_pool_of_one(bench: Bench, open_engine: Any) -> None:
    """Nothing can be cleaned beside it; a sweep does it."""
    bench.insert(1, b"old")
    engine = open_engine(bench.engine.url, pool_size=1, max_overflow=0)
    with engine.begin() as connection:
        replace(connection, b"new")
    bench.world.settle()
    bench.world.sweep()
    bench.check(b"new", swept=True)


async def test_async_connections(aworld_bench: AsyncWorld) -> None:
    engine = aworld_bench.asynchronous
    async with engine.begin() as connection:
        staged = await files.astage(upload(b"one"), connection, docs.c.file)
        await connection.execute(docs.insert(), {"id": 1, "file": staged})
    await aworld_bench.acheck(b"one")
    async with engine.connect() as connection:
        old = await connection.scalar(select(docs.c.file).where(docs.c.id == 1).with_for_update())
        await files.adrop(old, connection)
        staged = await files.astage(upload(b"two"), connection, docs.c.file)
        await connection.execute(docs.update().where(docs.c.id == 1).values(file=staged))
        await connection.rollback()
    await aworld_bench.acheck(b"one")
    async with engine.begin() as connection:
        await connection.run_sync(replace, b"three")
    await aworld_bench.acheck(b"three")
    assert list(aworld_bench.ledger().values()) == [OWNED]


async def test_async_connections_must_be_awaited(aworld_bench: AsyncWorld) -> None:
    async with aworld_bench.asynchronous.begin() as connection:
        with pytest.raises(BadConfiguration, match=r"use Storages\.astage"):
            files.stage(upload(b"void"), connection, docs.c.file)
    with pytest.raises(BadConfiguration, match="is not started"):
        await files.astage(upload(b"void"), aworld_bench.asynchronous.connect(), docs.c.file)
    await aworld_bench.acheck()
