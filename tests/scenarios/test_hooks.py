"""Mapper hooks that assign files while the flush is under way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, event, inspect
from sqlalchemy.exc import IntegrityError, PendingRollbackError
from sqlalchemy.orm import Session, make_transient, object_session

from sa_attachments import Attachment, NotStored, OwnershipLost, UnknownStorage

from .hooks import hook
from .models import Doc, Note
from .world import World

on = pytest.mark.parametrize
databases = on("world", ["sqlite", "postgres", "mariadb"], indirect=True)


def seed(world: World) -> int:
    with world.session() as session:
        doc = Doc(file=b"old", pages=[b"page"])
        session.add(doc)
        session.commit()
        return doc.id


def test_a_file_that_a_hook_assigns_is_stored(world: World) -> None:
    with world.session() as session, hook("before_insert", lambda doc: setattr(doc, "file", b"hook")):
        session.add(Doc())
        session.commit()
    world.check(b"hook")


@on("name", ["before_insert", "before_update"])
def test_a_refused_file_of_a_hook_ends_the_transaction(world: World, name: str) -> None:
    """As any error of a flush does that is writing rows; nothing is lost by it."""
    key = seed(world)
    unknown = Attachment.upload(b"hook", storage="nowhere")
    with world.session() as session:
        with hook(name, lambda doc: setattr(doc, "file", unknown)):
            session.get_one(Doc, key).file = b"new"
            session.add(Doc())
            with pytest.raises(UnknownStorage):
                session.flush()
        with pytest.raises(PendingRollbackError):
            session.commit()
        session.rollback()
        session.get_one(Doc, key).file = b"new"
        session.commit()
    world.check(b"new", b"page")


def test_a_file_that_a_hook_replaces_in_a_new_row_is_deleted(world: World) -> None:
    with world.session() as session, hook("before_insert", lambda doc: setattr(doc, "file", b"hook")):
        session.add(Doc(file=b"new"))
        session.commit()
    world.check(b"hook")


def test_a_file_that_a_hook_takes_from_a_new_row_is_deleted(world: World) -> None:
    def take(doc: Doc) -> None:
        doc.file, doc.pages = None, ()

    with world.session() as session, hook("before_insert", take):
        session.add(Doc(file=b"new", pages=[b"one", b"two"]))
        session.commit()
    world.check()


@on("value", [b"hook", None])
def test_a_file_that_a_hook_replaces_in_a_row_is_deleted(world: World, value: bytes | None) -> None:
    key = seed(world)
    with world.session() as session, hook("before_update", lambda doc: setattr(doc, "file", value)):
        session.get_one(Doc, key).file = b"new"
        session.commit()
    world.check(b"page", *([] if value is None else [value]))


def test_a_hook_may_put_the_old_file_back(world: World) -> None:
    key = seed(world)
    with world.session() as session:
        doc = session.get_one(Doc, key)
        old = doc.file
        with hook("before_update", lambda doc: setattr(doc, "file", old)):
            doc.file = b"new"
            session.commit()
    world.check(b"old", b"page")


def test_what_a_hook_did_is_rolled_back(world: World) -> None:
    key = seed(world)
    with world.session() as session, hook("before_update", lambda doc: setattr(doc, "file", b"hook")):
        session.get_one(Doc, key).title = "new"
        session.flush()
        session.rollback()
    world.check(b"old", b"page")


def expunge(doc: Doc) -> None:
    if (session := object_session(doc)) is not None:
        session.expunge(doc)


def expunge_all(doc: Doc) -> None:
    if (session := object_session(doc)) is not None:
        session.expunge_all()


@on("take_out", [expunge, expunge_all, make_transient])
@on("held", [True, False])
@on("early", [True, False])
def test_a_new_object_that_a_hook_takes_out_of_its_session_loses_no_file(
    world: World, take_out: Callable[[Any], None], held: bool, early: bool
) -> None:
    """Its row is written nevertheless."""
    docs = [Doc(file=b"one"), Doc(file=b"two")]
    with world.session() as session:
        session.add_all(docs)
        if not held:
            docs.clear()
        with hook("before_insert", take_out, early=early):
            if early or take_out is expunge_all:
                with pytest.raises(OwnershipLost, match="out of its session"):
                    session.commit()
                session.rollback()
            else:
                session.commit()
    world.check(*([] if early or take_out is expunge_all else [b"one", b"two"]))


def test_an_object_without_files_may_be_taken_out_of_its_session(world: World) -> None:
    with world.session() as session, hook("before_insert", expunge):
        session.add_all([Doc(), Doc()])
        session.commit()
    world.check()


def test_a_hook_that_runs_too_late_is_told_so(world: World) -> None:
    with (
        world.session() as session,
        hook("before_insert", lambda doc: setattr(doc, "file", b"hook"), early=False),
    ):
        session.add(Doc(file=b"new"))
        with pytest.raises(NotStored, match=r"docs\.file"):
            session.flush()
        session.rollback()
    world.check()


def refused_with(world: World, name: str, listener: Callable[..., None]) -> None:
    """A flush whose hook writes the name, too."""
    event.listen(Doc, name, listener)
    try:
        with world.session() as session:
            session.add(Doc(title="original", file=b"data"))
            with pytest.raises(OwnershipLost, match="one owner"):
                session.commit()
            session.rollback()
    finally:
        event.remove(Doc, name, listener)
    world.check()


@databases
@on("form", ["core", "mappings"])
@on("name", ["before_insert", "after_insert"])
def test_a_hook_that_writes_the_name_a_second_time_is_refused(world: World, form: str, name: str) -> None:
    """As a history of its own in the same table."""

    def remember(mapper: object, connection: Connection, doc: Doc) -> None:
        if form == "core":
            connection.execute(Doc.__table__.insert().values(title="copy", file=doc.file))
        else:
            inspect(doc).session.bulk_insert_mappings(Doc, [{"title": "copy", "file": doc.file}])

    refused_with(world, name, remember)


@on("world", ["postgres", "mariadb"], indirect=True)
@on("late", [True, False])
def test_the_names_of_a_flush_that_failed_are_nobody_elses(world: World, late: bool) -> None:
    """Whether its statement was executed, or another one failed before."""
    with world.session() as session:
        session.add(Doc(title="taken"))
        session.commit()
        taken, cls = Doc(title="taken"), Doc if late else Note  # documents are written before notes
        session.add_all([row := cls(file=b"data"), taken])
        with pytest.raises(IntegrityError):
            session.flush()
        with world.observer.begin() as other, pytest.raises(OwnershipLost, match="nobody proved"):
            other.execute(cls.__table__.insert().values(file=row.file))
        session.rollback()
    world.check()


@on("world", ["sqlite", "postgres", "mariadb"], indirect=True)
@pytest.mark.filterwarnings("ignore:Session's state has been changed on a non-active transaction")
@on("again", [False, True])
def test_the_names_of_a_flush_that_failed_are_nobody_elses_after_its_rollback(world: World, again: bool) -> None:
    """On the same connection too, whether the session was asked to flush once more or not."""
    with world.engine.connect() as connection:
        transaction = connection.begin()
        session = Session(connection, join_transaction_mode="create_savepoint")
        session.add(Doc(title="taken"))
        session.commit()
        session.add_all([Doc(title="taken"), note := Note(file=b"data")])
        with pytest.raises(IntegrityError):
            session.flush()
        stored = note.file
        if again:
            session.add(Doc())
            with pytest.raises(PendingRollbackError):
                session.flush()
        session.rollback()
        with pytest.raises(OwnershipLost, match="nobody proved"):
            connection.execute(Note.__table__.insert().values(file=stored))
        session.close()
        transaction.commit()
    world.check()


@on("world", ["postgres"], indirect=True)
def test_a_name_is_written_by_the_connection_that_owns_it(world: World) -> None:
    def remember(mapper: object, connection: object, doc: Doc) -> None:
        with world.observer.begin() as other:
            other.execute(Doc.__table__.insert().values(title="other", file=doc.file))

    refused_with(world, "before_insert", remember)
