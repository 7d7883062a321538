"""Rows that are there after a flush that was to delete them, or that name something else than was foreseen: because
the object was stale, or a trigger or a listener was of another opinion.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import SAWarning
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.orm.exc import StaleDataError

from sa_attachments import Attachment, AttachmentType, OwnershipLost

from .hooks import hook
from .models import Doc, Note, files
from .world import World

on = pytest.mark.parametrize
two_at_a_time = on("world", ["sqlite", "postgres", "mariadb"], indirect=True)


class Base(DeclarativeBase):
    pass


class Strict(Base):
    __tablename__ = "strict"
    id: Mapped[int] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column()
    file: Mapped[Attachment | None] = mapped_column(AttachmentType(files))
    __mapper_args__ = {"version_id_col": version}  # noqa: RUF012


class Lenient(Base):
    """Does not complain of a row that it could not delete."""

    __tablename__ = "lenient"
    id: Mapped[int] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column()
    file: Mapped[Attachment | None] = mapped_column(AttachmentType(files))
    __mapper_args__ = {"version_id_col": version, "confirm_deleted_rows": False}  # noqa: RUF012


class Twin(Base):
    """A second class for one table."""

    __table__ = Lenient.__table__


def seed(world: World) -> int:
    with world.session() as session:
        note = Note(file=b"old")
        session.add(note)
        session.commit()
        return note.id


def forget(note: Note) -> None:
    """Expire the attribute, as it is loaded no more."""
    note.__dict__.pop("file")


@two_at_a_time
@on(("cls", "rows"), [(Lenient, 1), (Lenient, 2), (Strict, 2)])
def test_rows_of_another_version_are_not_deleted_and_keep_their_files(
    world: World, cls: Any, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several rows SQLAlchemy only tells where the driver counts them all: asyncpg and psycopg2 do not."""
    world.create(Base.metadata)
    monkeypatch.setattr(world.engine.dialect, "supports_sane_multi_rowcount", False)
    with world.session(expire_on_commit=False) as session, world.session() as other:
        stale = [cls(file=b"mine") for _ in range(rows)]
        session.add_all(stale)
        session.commit()
        for each in stale:
            other.get_one(cls, each.id).file = b"theirs"
            session.delete(each)
        other.commit()
        session.commit()
    world.check(*rows * [b"theirs"])


@two_at_a_time
def test_a_row_of_another_version_shares_its_file_with_nobody(world: World) -> None:
    world.create(Base.metadata)
    with world.session(expire_on_commit=False) as session, world.session() as other:
        stale = Lenient(file=b"data")
        session.add(stale)
        session.commit()
        theirs = other.get_one(Lenient, stale.id)
        assert theirs.file is not None
        theirs.file = theirs.file.replace(filename="theirs.txt")
        other.commit()
        session.add(Doc(file=stale.file))
        session.delete(stale)
        with pytest.raises(OwnershipLost, match=r"Lenient\.file of row \(1,\) was to give up its file to Doc\.file"):
            session.commit()
    world.check(b"data")


@two_at_a_time
def test_a_row_of_another_version_is_told_of_alone(world: World) -> None:
    world.create(Base.metadata)
    with world.session(expire_on_commit=False) as session, world.session() as other:
        stale = Strict(file=b"mine")
        session.add(stale)
        session.commit()
        other.get_one(Strict, stale.id).file = b"theirs"
        other.commit()
        session.delete(stale)
        with pytest.raises(StaleDataError):
            session.commit()
    world.check(b"theirs")


@on("world", ["sqlite", "postgres", "mariadb", "asyncpg"], indirect=True)
@on("rows", [1, 2])
def test_rows_that_are_gone_are_told(world: World, rows: int) -> None:
    """Of several rows SQLAlchemy only tells where the driver counts them all: asyncpg does not."""
    with world.session(expire_on_commit=False) as session, world.session() as other:
        stale = [Doc() for _ in range(rows)]
        session.add_all(stale)
        session.commit()
        for each in stale:
            other.delete(other.get_one(Doc, each.id))
            each.file = b"new"
        other.commit()
        with pytest.raises(StaleDataError):
            session.commit()
    world.check()


@on("world", ["sqlite", "postgres"], indirect=True)
@on("what", ["both write", "one deletes"])
def test_two_objects_of_one_row(world: World, what: str) -> None:
    world.create(Base.metadata)
    with world.session() as session:
        session.add(Lenient(id=1, file=b"old"))
        session.commit()
        row, twin = session.get_one(Lenient, 1), session.get_one(Twin, 1)
        row.file = b"one"
        if what == "both write":
            twin.file = b"two"
        else:
            session.delete(twin)
        session.commit()
        rows = session.query(Twin).all()
        left = [row.file.read() for row in rows]
    assert left in ([], [b"one"], [b"two"]), "who comes last is up to SQLAlchemy"
    world.check(*left)


@on("world", ["sqlite", "postgres"], indirect=True)
def test_a_row_with_a_new_primary_key_that_a_listener_expires(world: World) -> None:
    key = seed(world)
    with world.session() as session, hook("after_update", forget, early=False, model=Note):
        note = session.get_one(Note, key)
        note.id, note.file = key + 1, b"new"
        session.commit()
    world.check(b"new")


@on("world", ["sqlite", "postgres"], indirect=True)
@on("forgotten", [True, False])
def test_a_flush_of_some_objects_takes_no_file_from_the_others(world: World, forgotten: bool) -> None:
    key = seed(world)
    with world.session() as session:
        note, doc = session.get_one(Note, key), Doc()
        session.add(doc)
        doc.file, note.file = note.file, None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # SQLAlchemy 2.1 deprecates it.
            session.flush([doc])
        if forgotten:
            session.expire(note)
        session.commit()
    world.check(*[b"old", b"old"] if forgotten else [b"old"])


KEEP = {
    "sqlite": ["CREATE TRIGGER keep BEFORE DELETE ON notes BEGIN SELECT RAISE(IGNORE); END"],
    "postgres": [
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "CREATE TRIGGER keep BEFORE DELETE ON notes FOR EACH ROW EXECUTE FUNCTION keep()",
    ],
}


@on("world", list(KEEP), indirect=True)
def test_a_row_that_a_trigger_keeps_keeps_its_file(world: World) -> None:
    with world.engine.begin() as connection:
        for statement in KEEP[world.name]:
            connection.execute(text(statement))
    key = seed(world)
    with world.session() as session:
        session.delete(session.get_one(Note, key))
        with pytest.warns(SAWarning, match="expected to delete 1 row"):
            session.commit()
    world.check(b"old")


@two_at_a_time
def test_the_deletion_of_a_row_that_is_gone(world: World) -> None:
    """SQLAlchemy only warns of it."""
    with world.session(expire_on_commit=False) as session, world.session() as other:
        stale = Note(file=b"old")
        session.add(stale)
        session.commit()
        other.delete(other.get_one(Note, stale.id))
        other.commit()
        session.delete(stale)
        with pytest.warns(SAWarning, match="expected to delete 1 row"):
            session.commit()
    world.check()


@on("world", ["sqlite", "postgres"], indirect=True)
def test_an_attribute_that_a_listener_expires_keeps_its_file(world: World) -> None:
    key = seed(world)
    with world.session() as session:
        note = session.get_one(Note, key)

        @event.listens_for(session, "before_flush")
        def expire(*_: object) -> None:
            session.expire(note, ["file"])

        note.file = None
        session.commit()
    world.check(b"old")


@on("world", ["sqlite", "postgres"], indirect=True)
@on("late", [True, False])
@on("value", [b"new", None])
def test_a_listener_puts_the_old_file_back(world: World, value: bytes | None, late: bool) -> None:
    """A late one, which comes after what is done for attachments, too."""
    key = seed(world)
    with world.session() as session:
        note = session.get_one(Note, key)
        old = note.file
        with hook("before_update", lambda target: setattr(target, "file", old), early=not late, model=Note):
            note.file = value
            session.commit()
    world.check(b"old")


@on("world", ["sqlite", "postgres"], indirect=True)
@on("late", [True, False])
def test_a_listener_takes_the_file_from_a_new_row(world: World, late: bool) -> None:
    with hook("before_insert", lambda target: setattr(target, "file", None), early=not late, model=Note):
        seed(world)
    world.check()


@on("world", ["sqlite", "postgres"], indirect=True)
@on("value", ["none", "another one's"])
def test_a_late_listener_changes_what_would_have_stayed(world: World, value: str) -> None:
    key = seed(world)
    with world.session() as session:
        note, other = session.get_one(Note, key), Note(file=b"other")

        def change(target: Note) -> None:
            target.file = None if value == "none" else other.file

        session.add(other)
        note.doc = Doc()
        with (
            hook("before_update", change, early=False, model=Note),
            pytest.raises(OwnershipLost, match=r"Note\.file of row \(1,\) was changed by a hook that|one owner"),
        ):
            session.commit()
    world.check(b"old")


@on("world", ["sqlite", "postgres"], indirect=True)
@on("value", [b"new", None])
@on("name", ["after_insert", "after_update"])
def test_what_a_listener_assigns_after_a_row_was_written_is_not(world: World, name: str, value: bytes | None) -> None:
    """As with any attribute; SQLAlchemy warns of it."""
    assign = hook(name, lambda target: setattr(target, "file", value), early=False, model=Note)
    with assign, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        key = seed(world)
        with world.session() as session:
            session.get_one(Note, key).doc = Doc()
            session.commit()
    world.check(b"old")


@on("world", ["sqlite", "postgres"], indirect=True)
def test_an_object_that_is_expired_by_a_listener_after_it_was_written(world: World) -> None:
    told: list[Any] = []
    hooks = Note.__table__.c.file.type.hooks
    hooks.append(told.extend)
    try:
        with hook("after_insert", forget, early=False, model=Note):
            key = seed(world)
    finally:
        world.settle()
        hooks.clear()
    world.check(b"old")
    assert told == [key]


def soft(session: Any, row: Note) -> None:
    """What recipes do that only mark rows as deleted."""
    session.add(row)
    row.doc_id = None
    row.doc = Doc(title="trash")


TAKEN_BACK: dict[str, Callable[[Any, Note], None]] = {
    "soft": soft,
    "expunged": lambda session, row: session.expunge(row),
}


@on("world", ["sqlite", "postgres"], indirect=True)
@on("loaded", [True, False])
@on("how", TAKEN_BACK)
def test_a_deletion_that_a_listener_takes_back(world: World, how: str, loaded: bool) -> None:
    key = seed(world)
    with world.session() as session:
        event.listen(session, "before_flush", lambda *_: [TAKEN_BACK[how](session, row) for row in [*session.deleted]])
        note = session.get_one(Note, key)
        if not loaded:
            session.expire(note, ["file"])
        session.delete(note)
        session.commit()
    world.check(b"old")


@on("world", ["sqlite", "postgres"], indirect=True)
@on("loaded", [True, False])
@on("how", TAKEN_BACK)
def test_a_deletion_that_a_listener_takes_back_of_a_row_whose_file_another_one_takes(
    world: World, how: str, loaded: bool
) -> None:
    key = seed(world)
    with world.session() as session:
        event.listen(session, "before_flush", lambda *_: [TAKEN_BACK[how](session, row) for row in [*session.deleted]])
        note = session.get_one(Note, key)
        session.add(Doc(file=note.file))
        if not loaded:
            session.expire(note, ["file"])
        session.delete(note)
        if how == "soft":
            session.commit()
        else:
            with pytest.raises(OwnershipLost, match=r"Note\.file of row \(1,\) was to give up its file to Doc\.file"):
                session.commit()
    world.check(*[b"old", b"old"] if how == "soft" else [b"old"])
