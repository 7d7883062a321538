"""A database that refuses something, or ends the connection, before a flush or a commit: no commit after that may be a
rollback without a word, and what a session has left behind is in nobody's way.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, TextClause, event, select, text, update
from sqlalchemy.exc import DBAPIError, OperationalError, PendingRollbackError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, make_transient
from sqlalchemy.util import greenlet_spawn

from sa_attachments import Attachment, StorageFailed
from tests import engines
from tests.scenarios.models import Doc, Note, files
from tests.scenarios.world import World

on = pytest.mark.parametrize
servers = on("world", engines.CONCURRENT_ENGINES, indirect=True)
postgres = on("world", ["postgres"], indirect=True)


@pytest.fixture
def world(request: pytest.FixtureRequest, open_engine: Callable[..., Engine]) -> Iterator[World]:
    """A pool of one, from which a connection that somebody keeps is missed."""
    url = request.getfixturevalue(f"{request.param}_url")
    engine = open_engine(url, pool_size=1, max_overflow=0, pool_timeout=5)
    made = World(request.param, engine, open_engine(url))
    with files.override(made.storages):
        yield made
        made.heal()


def seed(world: World) -> int:
    with world.session() as session:
        doc = Doc(file=b"old")
        session.add(doc)
        session.commit()
        return doc.id


def kill(world: World, connection: Connection) -> None:
    """The server ends it, of which nobody has heard yet."""
    mysql = world.name == "mariadb"
    mine = connection.scalar(text("SELECT connection_id()" if mysql else "SELECT pg_backend_pid()"))
    with world.observer.connect() as other:
        other.execute(text(f"KILL {mine}" if mysql else f"SELECT pg_terminate_backend({mine}, 5000)"))


def prepare_in_vain(session: Session) -> Doc:
    """A flush whose files are stored and owned, when a listener of the application refuses it."""

    @event.listens_for(session, "before_flush")
    def refuse(*_: object) -> None:
        raise ValueError("not like this")

    doc = Doc(file=b"refused")
    session.add(doc)
    with pytest.raises(ValueError, match="not like this"):
        session.flush()
    event.remove(session, "before_flush", refuse)
    return doc


def sweep(world: World) -> None:
    for _ in range(2):  # the pool may hold a connection that is dead
        with suppress(DBAPIError):
            assert world.sweep().ok
            break


# Refused


@servers
@on("then", ["flush", "commit"])
def test_a_row_that_is_locked(world: World, then: str) -> None:
    """The flush fails where we read what the row names. Its error may be caught, and earlier work must not be lost."""
    key = seed(world)
    with world.observer.connect() as holder, world.session() as session:
        holder.execute(text(f"SELECT id FROM docs WHERE id = {key} FOR UPDATE"))
        session.execute(
            text("SET LOCAL lock_timeout = 100" if world.name == "postgres" else "SET innodb_lock_wait_timeout = 0")
        )
        session.add(Note())
        session.flush()
        doc = session.get_one(Doc, key)
        doc.file = new = Attachment.upload(b"new")
        with pytest.raises(OperationalError):
            getattr(session, then)()
        holder.rollback()
        assert not session.is_active
        with pytest.raises(PendingRollbackError):
            session.commit()
        session.rollback()
        assert doc.file is not None
        assert doc.file.read() == b"old"
        doc.file = new
        session.add(Note())
        session.commit()
        assert len(session.scalars(select(Note)).all()) == 1
    world.check(b"new")


@servers
@on("of", ["a storage", "a source"])
def test_another_database_fails(world: World, of: str) -> None:
    """What a storage or a source can't do leaves the session usable, wherever they keep what they have."""
    error = OperationalError("SELECT", {}, Exception("the other database is locked"))

    def chunks() -> Iterator[bytes]:
        yield b"n"
        raise error

    with world.session() as session:
        session.add(Doc(file=b"before"))
        session.flush()
        doc = Doc(file=Attachment.upload(chunks()) if of == "a source" else b"new")
        session.add(doc)
        if of == "a storage":
            world.storage.fail("put", error=error)
        with pytest.raises((StorageFailed, OperationalError)):
            session.flush()
        world.heal()
        doc.file = b"new"  # type: ignore[assignment]
        session.commit()
    world.check(b"before", b"new")


@on("how", ["flush", "execute"])
async def test_a_task_is_cancelled_while_we_wait_for_a_lock(
    postgres_url: object, open_engine: Callable[..., Engine], how: str
) -> None:
    """It is the cancellation that is raised: who waits for it would hear of an error of the application's."""
    engine = engines.open_async_engine(engines.with_driver(str(postgres_url), "asyncpg"))
    world = World("asyncpg", engine.sync_engine, open_engine(postgres_url))
    with files.override(world.storages):
        key = await greenlet_spawn(seed, world)
        with world.observer.connect() as holder:
            holder.execute(text(f"SELECT id FROM docs WHERE id = {key} FOR UPDATE"))
            async with AsyncSession(engine) as session:
                doc = await session.get_one(Doc, key)
                if how == "flush":
                    doc.file = b"new"  # type: ignore[assignment]
                    waiting: Any = session.flush()
                else:
                    waiting = session.execute(update(Doc).values(file=Attachment.upload(b"new")))
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(waiting, 0.3)
                with pytest.raises(PendingRollbackError):
                    await session.commit()
                await session.rollback()
                holder.rollback()
                doc.file = b"again"  # type: ignore[assignment]
                await session.commit()
        await greenlet_spawn(sweep, world)
        await greenlet_spawn(lambda: world.check(b"again", swept=True))
    await engine.dispose()


@postgres
def test_a_row_that_is_locked_in_a_savepoint(world: World) -> None:
    """The savepoint is void, what was before it is not."""
    key = seed(world)
    with world.observer.connect() as holder, world.session() as session:
        holder.execute(text(f"SELECT id FROM docs WHERE id = {key} FOR UPDATE"))
        session.execute(text("SET LOCAL lock_timeout = 100"))
        session.add(Doc(file=b"before"))
        session.flush()
        with pytest.raises(OperationalError), session.begin_nested():
            session.get_one(Doc, key).file = b"new"  # type: ignore[assignment]
        holder.rollback()
        session.commit()
    world.check(b"old", b"before")


@postgres
@on("how", ["staged and not named", "refused by a listener"])
def test_a_commit_before_which_the_database_finds_a_conflict(world: World, how: str) -> None:
    """PostgreSQL tells of a write skew in whatever statement comes next, which may be ours."""
    engine = world.engine.execution_options(isolation_level="SERIALIZABLE")
    with world.session() as session:
        session.add_all([Note(id=1), Note(id=2)])
        session.commit()

    def touch(number: int) -> TextClause:
        return text(f"UPDATE notes SET doc_id = NULL WHERE id = {number}")

    def read(number: int) -> TextClause:
        return text(f"SELECT * FROM notes WHERE id = {number}")

    observer = world.observer.execution_options(isolation_level="SERIALIZABLE")
    with Session(engine) as one, observer.connect() as two:
        one.execute(read(1))
        two.execute(read(2))
        if how == "refused by a listener":
            one.expunge(prepare_in_vain(one))
            commit = one.commit
        else:
            connection = one.connection()
            files.stage(Attachment.upload(b"staged"), connection, Doc.__table__.c.file)
            transaction = connection.get_transaction()
            assert transaction is not None
            commit = transaction.commit
        one.execute(touch(2))
        two.execute(touch(1))
        two.commit()
        with pytest.raises(OperationalError, match="could not serialize"):
            commit()
        if how == "refused by a listener":
            with pytest.raises(PendingRollbackError):
                one.commit()
    world.check()


# Lost


@servers
@on("then", ["flush", "commit", "begin_nested"])
def test_who_hears_first_that_the_connection_is_lost(world: World, then: str) -> None:
    """It is we who ask the database first: its error is the one that the application must see."""
    with world.session() as session:
        session.expunge(prepare_in_vain(session))
        kill(world, session.connection())
        session.add(Note())
        with pytest.raises(DBAPIError) as caught:
            getattr(session, then)()
        assert caught.value.connection_invalidated
        session.rollback()
        session.add(Doc(file=b"again"))
        session.commit()
    sweep(world)
    world.check(b"again", swept=True)


@servers
def test_a_connection_that_is_lost_before_a_commit_without_the_orm(world: World) -> None:
    with world.engine.connect() as connection:
        files.stage(Attachment.upload(b"staged"), connection, Doc.__table__.c.file)
        kill(world, connection)
        with pytest.raises(DBAPIError) as caught:
            connection.commit()
        assert caught.value.connection_invalidated
    sweep(world)
    world.check(swept=True)


def close(session: Session) -> DBAPIError | None:
    """The error, if SQLAlchemy finds out: as long as it is held, its frames hold the transaction."""
    try:
        session.close()
    except DBAPIError as error:
        return error
    return None


@servers
@on("prepared", [False, True])
@on("held", [False, True])
def test_who_closes_a_session_whose_connection_is_lost(world: World, prepared: bool, held: bool) -> None:
    """The error leaves ``close()`` before anybody is told that the transaction is over."""
    seed(world)
    with world.session() as session:
        doc = Doc(file=Attachment.upload(b"new"))
        session.add(doc)
        session.flush()
        if prepared:
            session.expunge(prepare_in_vain(session))
        kill(world, session.connection())
        error = close(session)
        if not held:
            del error
        sweep(world)
        make_transient(doc)
        doc.id = None  # type: ignore[assignment]
        session.add(doc)
        session.commit()
        assert doc.file is not None
        assert doc.file.read() == b"new"
    assert world.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    sweep(world)
    world.check(b"old", b"new", swept=True)


@servers
def test_what_a_session_stored_that_was_closed_so_is_stored_again_by_another_one(world: World) -> None:
    with world.session() as session, world.session() as other:
        doc = Doc(file=Attachment.upload(b"new"))
        session.add(doc)
        session.flush()
        kill(world, session.connection())
        close(session)
        gc.collect()  # the error's own frames hold it, too
        sweep(world)
        make_transient(doc)
        doc.id = None  # type: ignore[assignment]
        other.add(doc)
        other.commit()
    sweep(world)
    world.check(b"new", swept=True)


@servers
def test_a_session_that_was_closed_so_holds_no_lock_in_its_other_database(
    world: World, tmp_path: Path, open_engine: Callable[..., Engine]
) -> None:
    second = open_engine(f"sqlite:///{tmp_path}/second.db", connect_args={"timeout": 0})
    touch = text("CREATE TABLE IF NOT EXISTS touched (id INTEGER)")
    for _ in range(5):  # which of its connections a session closes first is not said
        with Session(binds={Doc: world.engine}) as session:
            session.add(Doc(file=b"void"))
            session.flush()
            session.execute(touch, bind_arguments={"bind": second})
            kill(world, session.connection(bind_arguments={"bind": world.engine}))
            close(session)
            gc.collect()  # the error's own frames hold it, too
            with second.begin() as connection:
                connection.execute(touch)
    sweep(world)
    world.check(swept=True)


# Closed


def test_a_driver_s_connection_that_was_closed(tmp_path: Path, open_engine: Callable[..., Engine]) -> None:
    """SQLAlchemy's own error, by which it knows that the connection is gone."""
    engine = open_engine(f"sqlite:///{tmp_path}/test.db")
    world = World("sqlite", engine, open_engine(f"sqlite:///{tmp_path}/test.db"))
    with files.override(world.storages), world.session() as session:
        session.execute(text("SELECT 1"))
        session.connection().connection.driver_connection.close()  # type: ignore[union-attr]
        session.add(Doc(file=b"new"))
        with pytest.raises(ProgrammingError):
            session.flush()
        session.rollback()
        session.add(Doc(file=b"again"))
        session.commit()
        world.check(b"again")
