"""Primary keys that are not what the application calls them, and those of many parts and many rows."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from typing import Any

import pytest
from sqlalchemy import CHAR, Dialect, ForeignKey, String, TypeDecorator, delete, func, insert, select, update
from sqlalchemy.exc import SAWarning
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from sa_attachments import Attachment, AttachmentType, OwnershipLost

from .models import files
from .world import World

on = pytest.mark.parametrize


class Lower(TypeDecorator[str]):
    """The database has it in lower case."""

    impl = String(20)
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else value.lower()


class Tagged(TypeDecorator[str]):
    """What is compared with it is bound as the database has it, unless that is said to be of this type."""

    impl = String(20)
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else f"A-{value}"

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else value.removeprefix("A-")

    def coerce_compared_value(self, op: Any, value: Any) -> Any:
        return self.impl_instance.coerce_compared_value(op, value)


class Base(DeclarativeBase):
    pass


class Labelled(Base):
    __tablename__ = "labelled"
    id: Mapped[str] = mapped_column(Tagged(), primary_key=True)
    file: Mapped[Attachment | None] = mapped_column(AttachmentType(files))


class LabelledPair(Base):
    __tablename__ = "labelled_pairs"
    id: Mapped[str] = mapped_column(Tagged(), primary_key=True)
    second: Mapped[str] = mapped_column(String(5), primary_key=True, default="s")
    file: Mapped[Attachment | None] = mapped_column(AttachmentType(files))


class Padded(Base):
    """PostgreSQL fills it up with blanks."""

    __tablename__ = "padded"
    id: Mapped[str] = mapped_column(CHAR(8), primary_key=True)
    file: Mapped[Attachment | None] = mapped_column(AttachmentType(files))


class Lowered(Base):
    __tablename__ = "lowered"
    id: Mapped[str] = mapped_column(Lower(), primary_key=True)
    file: Mapped[Attachment | None] = mapped_column(AttachmentType(files))


class Pair(Base):
    __tablename__ = "pairs"
    first: Mapped[int] = mapped_column(primary_key=True)
    second: Mapped[int] = mapped_column(primary_key=True)
    file: Mapped[Attachment | None] = mapped_column(AttachmentType(files))


class Album(Base):
    __tablename__ = "keyed_albums"
    name: Mapped[str] = mapped_column(String(20), primary_key=True)
    photos: Mapped[list[Photo]] = relationship(cascade="all, delete-orphan")


class Photo(Base):
    """Its key follows that of its album."""

    __tablename__ = "keyed_photos"
    album: Mapped[str] = mapped_column(ForeignKey("keyed_albums.name", onupdate="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    file: Mapped[Attachment | None] = mapped_column(AttachmentType(files))


@on("world", ["sqlite", "postgres", "mariadb"], indirect=True)
@on("what", ["delete", "remove", "move", "replace"])
def test_a_row_is_renamed_by_the_database_before_it_is_deleted(world: World, what: str) -> None:
    """SQLAlchemy warns that its DELETE met no row: it is there still, under the new key."""
    world.create(Base.metadata)
    with world.session() as session:
        session.add(Album(name="old", photos=[Photo(number=1, file=b"1"), Photo(number=2, file=b"2")]))
        session.commit()
    with world.session() as session:
        album = session.get_one(Album, "old")
        first, second = album.photos
        album.name = "new"
        match what:
            case "delete":
                session.delete(first)
            case "remove":
                album.photos.remove(first)
            case "move":
                second.file = first.file
                session.delete(first)
            case "replace":
                first.file = b"3"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SAWarning)
            with pytest.raises(OwnershipLost) if what == "move" else nullcontext():
                session.commit()
        session.rollback()
    world.check(b"3" if what == "replace" else b"1", b"2")


@on("cls", [Padded, Lowered])
@on("what", ["replace", "none", "delete"])
def test_the_database_writes_it_in_another_way(world: World, cls: Any, what: str) -> None:
    """The object still goes by the name that the application gave it."""
    world.create(Base.metadata)
    with world.session(expire_on_commit=False) as session:
        doc = cls(id="ABC", file=b"old")
        session.add_all([doc, cls(id="another", file=b"another")])
        session.commit()
        match what:
            case "replace":
                doc.file = b"new"
            case "none":
                doc.file = None
            case "delete":
                session.delete(doc)
        session.commit()
    world.check(b"another", *[b"new"] * (what == "replace"))


def test_an_update_by_a_primary_key_in_another_way(world: World) -> None:
    world.create(Base.metadata)
    with world.session() as session:
        session.add(Lowered(id="abc", file=b"old"))
        session.commit()
        session.execute(update(Lowered), [{"id": "ABC", "file": b"new"}])
        session.commit()
    world.check(b"new")


@on("rows", [0, 1, 1000])
@on("synchronize", ["evaluate", "fetch"])
def test_a_bulk_delete_of_rows_with_two_keys(world: World, rows: int, synchronize: Any) -> None:
    world.create(Base.metadata)
    with world.session(expire_on_commit=False) as session:
        session.execute(insert(Pair), [{"first": i, "second": 1} for i in range(rows + 1)])
        first, last = session.get_one(Pair, (0, 1)), session.get_one(Pair, (rows, 1))
        first.file = b"deleted"
        last.file = b"kept"
        session.commit()
        session.execute(delete(Pair).where(Pair.first < rows), execution_options={"synchronize_session": synchronize})
        assert (first in session, last in session) == (first is last, True)
        session.commit()
        assert session.scalar(select(func.count()).select_from(Pair)) == 1
    world.check(b"kept")


def test_a_bulk_update_of_rows_with_two_keys(world: World) -> None:
    world.create(Base.metadata)
    with world.session() as session:
        session.add_all([Pair(first=i, second=i, file=b"old") for i in range(3)])
        session.commit()
        session.execute(update(Pair).where(Pair.first > 0).values(file=b"new"))
        session.commit()
    world.check(b"old", b"new", b"new")


@on("cls", [Labelled, LabelledPair])
@on("what", ["object", "statement", "fetch"])
def test_it_is_compared_as_what_the_database_has(world: World, cls: Any, what: str) -> None:
    world.create(Base.metadata)
    with world.session() as session:
        first = cls(id="1", file=b"old")
        session.add_all([first, cls(id="2", file=b"deleted"), cls(id="3", file=b"kept")])
        session.commit()
        second = session.get_one(cls, "2" if cls is Labelled else ("2", "s"))
        if what == "object":
            first.file = b"new"
            session.delete(second)
        else:
            options: Any = {"synchronize_session": "fetch"} if what == "fetch" else {}
            session.execute(update(cls).where(cls.file == first.file).values(file=b"new"), execution_options=options)
            session.execute(delete(cls).where(cls.file == second.file), execution_options=options)
        session.commit()
    world.check(b"new", b"kept")
