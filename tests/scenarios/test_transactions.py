"""How a transaction can end, and what then is left in the storage."""

from __future__ import annotations

import gc

import pytest
from sqlalchemy import ForeignKey, event, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sa_attachments import Attachment, AttachmentType

from .models import Doc, files
from .world import World

on = pytest.mark.parametrize


def seed(world: World, data: bytes = b"old") -> int:
    """A committed document."""
    with world.session() as session:
        doc = Doc(file=data)
        session.add(doc)
        session.commit()
        return doc.id


def test_commit_keeps_the_file(world: World) -> None:
    with world.session() as session:
        doc = Doc(file=b"one", pages=[b"two", b"three"])
        session.add(doc)
        session.commit()
        assert doc.file is not None
        assert doc.file.read() == b"one"
        assert [page.read() for page in doc.pages] == [b"two", b"three"]
    world.check(b"one", b"two", b"three")


def test_files_are_stored_before_the_first_statement_of_the_flush(world: World) -> None:
    stored_first = []

    @event.listens_for(world.engine, "before_cursor_execute")
    def look(connection: object, cursor: object, statement: str, *_: object) -> None:
        if "docs" in statement:
            stored_first.append(sorted(world.stored().values()))

    with world.session() as session:
        session.add_all([Doc(file=b"one"), Doc(file=b"two")])
        session.commit()
    assert stored_first[0] == [b"one", b"two"]
    world.check(b"one", b"two")


def test_rollback_deletes_the_file(world: World) -> None:
    with world.session() as session:
        session.add(Doc(file=b"one", pages=[b"two"]))
        session.flush()
        assert len(world.stored()) == 2
        session.rollback()
    world.check()


ENDS = ["rollback", "close", "reset", "invalidate"]


@on("end", ENDS)
def test_a_transaction_that_ends_without_commit_keeps_the_old_file_and_deletes_the_new(world: World, end: str) -> None:
    if end == "invalidate" and world.name == "sqlite-memory":
        pytest.skip("the database is gone with its connection")
    key = seed(world)
    session = world.session()
    doc = session.get_one(Doc, key)
    doc.file = b"new"
    session.add(Doc(file=b"added"))
    session.flush()
    session.delete(doc)
    session.flush()
    getattr(session, end)()
    session.close()
    world.check(b"old")


def test_leaving_the_with_block_is_a_rollback(world: World) -> None:
    with world.session() as session:
        session.add(Doc(file=b"one"))
        session.flush()
    world.check()


@on("end", ["close", "reset", "invalidate"])
def test_a_session_is_as_good_as_new_afterwards(world: World, end: str) -> None:
    if end == "invalidate" and world.name == "sqlite-memory":
        pytest.skip("the database is gone with its connection")
    session = world.session()
    session.add(Doc(file=b"one"))
    session.flush()
    getattr(session, end)()
    session.add(Doc(file=b"two"))
    session.commit()
    session.close()
    world.check(b"two")


@on("world", ["sqlite", "sqlite-legacy", "postgres", "mariadb"], indirect=True)
def test_a_session_that_is_garbage_collected_leaves_nothing(world: World) -> None:
    key = seed(world)
    session = world.session()
    doc = session.get_one(Doc, key)
    doc.file = b"new"
    session.add(Doc(file=b"one"))
    session.flush()
    del session, doc
    gc.collect()
    world.check(b"old")


@on("world", ["sqlite", "sqlite-legacy", "postgres", "mariadb"], indirect=True)
def test_a_session_that_is_garbage_collected_leaves_nothing_of_a_savepoint(world: World) -> None:
    """The transaction around it had nothing to clean up, until it was released."""
    key = seed(world)
    session = world.session()
    doc = session.get_one(Doc, key)
    assert doc.file is not None
    doc.file = doc.file.replace(filename="other")
    session.flush()
    with session.begin_nested():
        session.add(Doc(file=b"one"))
    del session, doc
    gc.collect()
    world.check(b"old")


def test_a_second_transaction_of_a_session_is_another_one(world: World) -> None:
    with world.session() as session:
        session.add(Doc(file=b"one"))
        session.commit()
        session.add(Doc(file=b"two"))
        session.flush()
        session.rollback()
        session.add(Doc(file=b"three"))
        session.commit()
    world.check(b"one", b"three")


def test_a_failed_flush_deletes_what_it_stored_and_keeps_the_old(world: World) -> None:
    with world.session() as session:
        session.add(Doc(title="taken", file=b"old"))
        session.commit()
        session.add(Doc(title="taken", file=b"one", pages=[b"two"]))
        with pytest.raises(IntegrityError):
            session.flush()
        session.rollback()
        world.check(b"old")
        session.add(Doc(title="free", file=b"three"))
        session.commit()
    world.check(b"old", b"three")


def test_a_failed_flush_deletes_what_earlier_flushes_stored_too(world: World) -> None:
    with world.session() as session:
        session.add(Doc(title="taken", file=b"one"))
        session.flush()
        session.add(Doc(title="taken", file=b"two"))
        with pytest.raises(IntegrityError):
            session.commit()
    world.check()


class Deferred(DeclarativeBase):
    pass


class Folder(Deferred):
    __tablename__ = "folders"
    id: Mapped[int] = mapped_column(primary_key=True)


class Filed(Deferred):
    __tablename__ = "filed"
    id: Mapped[int] = mapped_column(primary_key=True)
    folder_id: Mapped[int] = mapped_column(ForeignKey("folders.id", deferrable=True, initially="DEFERRED"))
    file: Mapped[Attachment] = mapped_column(AttachmentType(files))


@on("ends", ["rollback", "close"])
@on("world", ["sqlite", "aiosqlite", "sqlite-memory", "postgres", "asyncpg"], indirect=True)
def test_a_commit_that_the_database_refuses_deletes_what_was_stored(world: World, ends: str) -> None:
    if ends == "close" and world.name == "sqlite-memory":
        pytest.skip("SQLAlchemy leaves the only connection in the failed transaction")
    world.create(Deferred.metadata)
    with world.session() as session:
        folder = Folder()
        session.add(folder)
        session.flush()
        filed = Filed(folder_id=folder.id, file=b"old")
        session.add(filed)
        session.commit()
        filed.file, filed.folder_id = b"new", 404
        session.add(Filed(folder_id=405, file=b"one"))
        with pytest.raises(IntegrityError):
            session.commit()
        getattr(session, ends)()
    world.check(b"old")


@on("world", ["postgres", "asyncpg"], indirect=True)
def test_a_commit_that_the_server_turns_into_a_rollback_keeps_the_old_file(world: World) -> None:
    """An error that the application caught: COMMIT is answered by ROLLBACK, and no driver says so."""
    key = seed(world)
    with world.session() as session:
        doc = session.get_one(Doc, key)
        doc.file = b"new"
        session.add(Doc(file=b"one"))
        session.flush()
        with pytest.raises(DBAPIError):
            session.execute(text("SELECT 1/0"))
        session.commit()
    world.check(b"old")


@on("world", ["postgres", "asyncpg"], indirect=True)
def test_a_commit_that_the_server_turns_into_a_rollback_after_nothing_but_drops(world: World) -> None:
    key = seed(world)
    with world.session() as session:
        session.get_one(Doc, key).file = None
        session.flush()
        with pytest.raises(DBAPIError):
            session.execute(text("SELECT 1/0"))
        session.commit()
    world.check(b"old")


def test_a_commit_in_raw_sql_is_believed(world: World) -> None:
    """The session only hears of a rollback."""
    key = seed(world)
    with world.session() as session:
        session.get_one(Doc, key).file = b"new"
        session.add(Doc(file=b"one"))
        session.flush()
        if world.engine.dialect.driver == "asyncpg":
            pytest.skip("asyncpg does not let statements end its transactions")
        session.connection().exec_driver_sql("COMMIT")
        session.rollback()
    world.check(b"new", b"one")


def test_a_commit_of_the_connection_itself_is_believed(world: World) -> None:
    key = seed(world)
    with world.session() as session:
        session.get_one(Doc, key).file = b"new"
        session.add(Doc(file=b"one"))
        session.flush()
        session.connection().get_transaction().commit()  # type: ignore[union-attr]
        session.close()
    world.check(b"new", b"one")


@on("world", ["sqlite", "aiosqlite", "postgres", "asyncpg", "mariadb"], indirect=True)
def test_a_lost_acknowledgement_of_commit_loses_no_file(world: World) -> None:
    key = seed(world)

    def do_commit(connection: object) -> None:
        world.engine.dialect.do_commit = plain  # type: ignore[method-assign] # only once: cleaning commits too
        plain(connection)
        raise ConnectionResetError("the answer got lost")

    with world.session() as session:
        session.get_one(Doc, key).file = b"new"
        session.add(Doc(file=b"one"))
        session.flush()
        plain, world.engine.dialect.do_commit = world.engine.dialect.do_commit, do_commit  # type: ignore[method-assign]
        with pytest.raises(ConnectionResetError):
            session.commit()
        session.rollback()
    world.check(b"new", b"one")


@on("world", ["postgres", "mariadb"], indirect=True)
@on("end", ["commit", "rollback", "prepare, then rollback", "prepare, then close"])
def test_two_phase_commit(world: World, end: str) -> None:
    key = seed(world)
    with world.session(twophase=True) as session:
        session.get_one(Doc, key).file = b"new"
        session.add(Doc(file=b"one"))
        session.flush()
        match end:
            case "commit":
                session.commit()
            case "rollback":
                session.rollback()
            case _:
                session.prepare()
                getattr(session, end.split()[-1])()
    world.check(*([b"new", b"one"] if end == "commit" else [b"old"]))


def test_a_transaction_without_attachments_costs_no_statement(world: World) -> None:
    """Sessions without attachments pay nothing."""
    statements: list[str] = []
    with world.session() as session:
        session.execute(text("SELECT 0"))
        event.listen(world.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
        session.execute(text("SELECT 1"))
        session.add(Doc(title="no files"))
        session.flush()
        session.commit()
        world.settle()
    assert [statement.split()[0] for statement in statements if "attachment_" in statement] == []
    world.check()
