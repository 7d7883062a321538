"""Rows that a later version of the library wrote: what it says of a file beyond this one stays with the file, whoever
names it next.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import JSON, column, delete, table, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from sa_attachments import Attachment, AttachmentType
from sa_attachments.descriptor import VERSION

from .models import Doc, Note, files
from .world import World

on = pytest.mark.parametrize
LATER = {"v": VERSION + 1, "novel": {"by": ["a", "later", "version"]}}


class Base(DeclarativeBase):
    pass


class Kept(Base):
    __tablename__ = "kept_of_later"
    id: Mapped[int] = mapped_column(primary_key=True)
    file: Mapped[Attachment | None] = mapped_column(AttachmentType(files, retain=timedelta(days=30)))


def rewrite(world: World, name: str) -> list[dict[str, Any]]:
    """Let a later version have written all files of a table; returns their descriptors, in the order of their bytes."""
    plain = table(name, column("file", JSON().with_variant(JSONB(), "postgresql")))
    before = world.named()
    with world.observer.begin() as connection:
        for facts in before:
            rewritten = {**facts, **LATER, "serial": facts["key"]}
            connection.execute(
                update(plain).where(plain.c.file["key"].as_string() == facts["key"]), {"file": rewritten}
            )
    return named(world)


def named(world: World) -> list[dict[str, Any]]:
    """What rows say of their files, in the order of their bytes."""
    world.settle()
    stored = world.stored()
    return sorted(world.named(), key=lambda facts: stored[facts["storage"], facts["key"]])


def seed(world: World) -> list[dict[str, Any]]:
    with world.session() as session:
        session.add_all([Doc(id=1, file=b"one"), Doc(id=2, file=b"two")])
        session.commit()
    found = rewrite(world, "docs")
    assert [facts["v"] for facts in found] == [VERSION + 1] * 2
    return found


def to_another_row(session: Session, doc: Doc) -> None:
    session.delete(doc)
    session.add(Note(file=doc.file))


def to_another_column(session: Session, doc: Doc) -> None:
    doc.scan, doc.file = doc.file, None


def to_a_list(session: Session, doc: Doc) -> None:
    other = session.get_one(Doc, 2)
    other.pages, doc.file = [doc.file], None


def swapped(session: Session, doc: Doc) -> None:
    other = session.get_one(Doc, 2)
    doc.file, other.file = other.file, doc.file


MOVES: dict[str, Callable[[Session, Doc], None]] = {
    move.__name__: move for move in (to_another_row, to_another_column, to_a_list, swapped)
}


@on("how", MOVES)
def test_a_file_that_moves_keeps_what_a_later_version_says_of_it(world: World, how: str) -> None:
    before = seed(world)
    with world.session() as session, world.nothing_stored():
        MOVES[how](session, session.get_one(Doc, 1))
        session.commit()
    assert named(world) == before
    world.check(b"one", b"two")


def test_a_file_that_is_described_anew_keeps_what_a_later_version_says_of_it(world: World) -> None:
    one, two = seed(world)
    with world.session() as session, world.nothing_stored():
        doc = session.get_one(Doc, 1)
        assert doc.file is not None
        doc.file = doc.file.replace(filename="new.txt", metadata={"a": 1})
        session.commit()
    assert named(world) == [{**one, "filename": "new.txt", "metadata": {"a": 1}}, two]


@on("how", ["to its row", "to a new row"])
def test_a_file_that_is_restored_keeps_what_a_later_version_says_of_it(world: World, how: str) -> None:
    world.create(Base.metadata)
    with world.session() as session:
        session.add(Kept(id=1, file=b"one"))
        session.commit()
    (before,) = rewrite(world, Kept.__tablename__)
    with world.session() as session, world.nothing_stored():
        session.execute(delete(Kept) if how == "to a new row" else update(Kept).values(file=None))
        session.commit()
        restored = world.files.restore(session, Kept.file, 1)
        if how == "to a new row":
            session.add(Kept(id=2, file=restored))
        session.commit()
    assert named(world) == [before]
    world.check(b"one")
