"""Replacing and deleting where the session's own history does not know the old file.

Hole 5: histories are empty for what is expired, deferred or was never loaded, and stale where others wrote meanwhile.
Old values are read under lock instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from sqlalchemy import ForeignKey, inspect, select
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    defer,
    load_only,
    make_transient_to_detached,
    mapped_column,
)

from sa_attachments import Attachment, AttachmentListType, AttachmentType

from .models import Doc, files
from .world import World

on = pytest.mark.parametrize


def seed(world: World) -> int:
    with world.session() as session:
        doc = Doc(title="a", file=b"old", pages=[b"one", b"two"])
        session.add(doc)
        session.commit()
        return doc.id


def expired(session: Session, key: int) -> Doc:
    doc = session.get_one(Doc, key)
    session.expire(doc)
    return doc


def after_commit(session: Session, key: int) -> Doc:
    doc = session.get_one(Doc, key)
    doc.title = "b"
    session.commit()
    return doc


def deferred(session: Session, key: int) -> Doc:
    return session.scalars(select(Doc).options(defer(Doc.file), defer(Doc.pages)).where(Doc.id == key)).one()


def not_to_be_loaded(session: Session, key: int) -> Doc:
    options = defer(Doc.file, raiseload=True), defer(Doc.pages, raiseload=True)
    return session.scalars(select(Doc).options(*options).where(Doc.id == key)).one()


def only_the_title(session: Session, key: int) -> Doc:
    return session.scalars(select(Doc).options(load_only(Doc.title)).where(Doc.id == key)).one()


def never_loaded(session: Session, key: int) -> Doc:
    doc = Doc(id=key)
    make_transient_to_detached(doc)
    session.add(doc)
    return doc


UNKNOWN: dict[str, Callable[[Session, int], Doc]] = {
    function.__name__: function
    for function in (expired, after_commit, deferred, not_to_be_loaded, only_the_title, never_loaded)
}


@on("end", ["commit", "rollback"])
@on("how", UNKNOWN)
def test_replacing_what_the_session_does_not_know(world: World, how: str, end: str) -> None:
    """Hole 5."""
    key = seed(world)
    with world.session() as session:
        doc = UNKNOWN[how](session, key)
        assert "file" not in inspect(doc).dict
        doc.file = b"new"
        doc.pages = [b"three"]
        session.flush()
        getattr(session, end)()
    world.check(*([b"new", b"three"] if end == "commit" else [b"old", b"one", b"two"]))


@on("how", UNKNOWN)
def test_taking_away_what_the_session_does_not_know(world: World, how: str) -> None:
    """Hole 5."""
    key = seed(world)
    with world.session() as session:
        doc = UNKNOWN[how](session, key)
        doc.file = None
        doc.pages = []
        session.commit()
    world.check()


@on("how", [how for how in UNKNOWN if how not in ("never_loaded", "expired", "after_commit")])
def test_deleting_what_the_session_does_not_know(world: World, how: str) -> None:
    """Hole 5."""
    key = seed(world)
    with world.session() as session:
        session.delete(UNKNOWN[how](session, key))
        session.commit()
    world.check()


def test_deleting_what_was_expired(world: World) -> None:
    key = seed(world)
    with world.session() as session:
        doc = expired(session, key)
        session.delete(doc)
        session.commit()
    world.check()


class Inherited(DeclarativeBase):
    pass


class Person(Inherited):
    __tablename__ = "persons"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column()
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "person"}  # noqa: RUF012


class Employee(Person):
    """Joined: the badge is in a table that a query for persons does not look at."""

    __tablename__ = "employees"
    id: Mapped[int] = mapped_column(ForeignKey("persons.id"), primary_key=True)
    badge: Mapped[Attachment | None] = mapped_column(AttachmentType(files))
    papers: Mapped[Sequence[Attachment]] = mapped_column(AttachmentListType(files))
    __mapper_args__ = {"polymorphic_identity": "employee"}  # noqa: RUF012


@on("what", ["replace", "take away", "delete"])
@on("world", ["sqlite", "sqlite-memory", "postgres", "asyncpg"], indirect=True)
def test_a_column_of_a_subclass_that_the_query_did_not_load(world: World, what: str) -> None:
    """Hole 5."""
    world.create(Inherited.metadata)
    with world.session() as session:
        session.add(Employee(badge=b"old", papers=[b"one"]))
        session.commit()
    with world.session() as session:
        employee = session.scalars(select(Person)).one()
        assert isinstance(employee, Employee)
        assert "badge" not in inspect(employee).dict
        match what:
            case "replace":
                employee.badge = b"new"
            case "take away":
                employee.badge = None
            case "delete":
                session.delete(employee)
        session.commit()
    world.check(*{"replace": [b"new", b"one"], "take away": [b"one"], "delete": []}[what])


def test_without_expiry_on_commit(world: World) -> None:
    """The history says the first flush's value for ever; each transaction drops what the row names."""
    with world.session(expire_on_commit=False) as session:
        doc = Doc(file=b"0")
        session.add(doc)
        for number in range(1, 4):
            session.commit()
            doc.file = b"%d" % number
        session.flush()
        doc.file = b"4"
        session.flush()
        doc.file = b"5"
        session.commit()
        assert doc.file.read() == b"5"
    world.check(b"5")


def test_without_expiry_a_rollback_brings_the_old_file_back(world: World) -> None:
    with world.session(expire_on_commit=False) as session:
        doc = Doc(file=b"old")
        session.add(doc)
        session.commit()
        doc.file = b"new"
        session.flush()
        session.rollback()
        assert doc.file.read() == b"old"
        doc.title = "again"
        session.commit()
    world.check(b"old")


@on("forget", ["refresh", "expire", "expunge", "expunge_all"])
def test_what_is_forgotten_before_the_flush_is_never_stored(world: World, forget: str) -> None:
    key = seed(world)
    with world.session() as session, world.nothing_stored():
        doc = session.get_one(Doc, key)
        with session.no_autoflush:
            doc.file = b"new"
            getattr(session, forget)(*([] if forget == "expunge_all" else [doc]))
        session.commit()
    world.check(b"old", b"one", b"two")


@on("forget", ["refresh", "expire", "expunge", "expunge_all"])
def test_what_is_forgotten_after_the_flush_is_dropped_all_the_same(world: World, forget: str) -> None:
    key = seed(world)
    with world.session() as session:
        doc = session.get_one(Doc, key)
        doc.file = b"new"
        session.flush()
        getattr(session, forget)(*([] if forget == "expunge_all" else [doc]))
        del doc
        session.commit()
    world.check(b"new", b"one", b"two")


def test_others_wrote_meanwhile_and_the_history_is_stale(world: World) -> None:
    """Hole 5: T1's file must not leak."""
    key = seed(world)
    with world.session(expire_on_commit=False) as stale:
        doc = stale.get_one(Doc, key)
        stale.commit()
        with world.session() as session:
            session.get_one(Doc, key).file = b"by T1"
            session.commit()
        doc.file = b"by T2"
        stale.commit()
    world.check(b"by T2", b"one", b"two")


@on("what", ["replace", "take away", "delete"])
def test_a_file_that_moved_away_meanwhile_is_not_dropped(world: World, what: str) -> None:
    """Hole 5, reproduced: T2 holds row 1 (A) in its memory, T1 moves A to row 2, T2 replaces A on row 1."""
    key = seed(world)
    with world.session(expire_on_commit=False) as stale:
        doc = stale.get_one(Doc, key)
        stale.commit()
        with world.session() as session:
            first = session.get_one(Doc, key)
            session.add(Doc(file=first.file))
            first.file = None
            session.commit()
        match what:
            case "replace":
                doc.file = b"new"
            case "take away":
                doc.file = None
            case "delete":
                stale.delete(doc)
        stale.commit()
    world.check(b"old", *{"replace": [b"new", b"one", b"two"], "take away": [b"one", b"two"], "delete": []}[what])


def test_a_file_that_moved_into_the_row_meanwhile_is_dropped(world: World) -> None:
    """The other order: what T2 replaces is not what it remembers."""
    key = seed(world)
    with world.session() as session:
        other = Doc(file=b"other")
        session.add(other)
        session.commit()
        with world.session(expire_on_commit=False) as stale:
            doc = stale.get_one(Doc, key)
            stale.commit()
            first = session.get_one(Doc, key)
            first.file, other.file = other.file, None
            session.commit()
            doc.file = b"new"
            stale.commit()
    world.check(b"new", b"one", b"two")
