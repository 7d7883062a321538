"""Primary keys that are not what the application calls them, and those of many parts and many rows."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import CHAR, Dialect, String, TypeDecorator, delete, func, insert, select, update
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sa_attachments import Attachment, AttachmentType

from .models import files
from .world import World

on = pytest.mark.parametrize


class Lower(TypeDecorator[str]):
    """The database has it in lower case."""

    impl = String(20)
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else value.lower()


class Base(DeclarativeBase):
    pass


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
