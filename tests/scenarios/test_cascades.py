"""Rows that go because another one goes, and those of which nobody tells the session."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import Column, ForeignKey, Table, delete, insert, select
from sqlalchemy.orm import DeclarativeBase, Mapped, configure_mappers, mapped_column, relationship

from sa_attachments import Attachment, AttachmentListType, AttachmentType, AttachmentWarning

from .models import Doc, Note, files
from .world import World

on = pytest.mark.parametrize


def seed(world: World) -> int:
    """A committed document with two notes."""
    with world.session() as session:
        doc = Doc(file=b"doc", notes=[Note(file=b"one"), Note(file=b"two")])
        session.add(doc)
        session.commit()
        return doc.id


def test_children_are_saved_with_their_parent(world: World) -> None:
    seed(world)
    world.check(b"doc", b"one", b"two")


@on("end", ["commit", "rollback"])
def test_children_go_with_their_parent(world: World, end: str) -> None:
    key = seed(world)
    with world.session() as session:
        session.delete(session.get_one(Doc, key))
        session.flush()
        getattr(session, end)()
    world.check(*([] if end == "commit" else [b"doc", b"one", b"two"]))


@on("how", ["remove", "assign", "clear", "parent of None"])
def test_orphans_go(world: World, how: str) -> None:
    """They are not in ``session.deleted`` before the flush."""
    key = seed(world)
    with world.session() as session:
        doc = session.get_one(Doc, key)
        first = next(note for note in doc.notes if note.file.read() == b"one")
        match how:
            case "remove":
                doc.notes.remove(first)
            case "assign":
                doc.notes = [note for note in doc.notes if note is not first]
            case "clear":
                doc.notes.clear()
            case "parent of None":
                first.doc = None
        session.commit()
    world.check(b"doc", *([] if how == "clear" else [b"two"]))


def test_an_orphan_whose_file_was_just_replaced(world: World) -> None:
    key = seed(world)
    with world.session() as session:
        doc = session.get_one(Doc, key)
        gone = next(note for note in doc.notes if note.file.read() == b"one")
        gone.file = b"new"
        doc.notes.remove(gone)
        session.commit()
    world.check(b"doc", b"two")


def test_an_orphan_that_was_never_saved_stores_nothing(world: World) -> None:
    key = seed(world)
    with world.session() as session, world.nothing_stored():
        doc = session.get_one(Doc, key)
        note = Note(file=b"new")
        with session.no_autoflush:
            doc.notes.append(note)
            doc.notes.remove(note)
        session.commit()
    world.check(b"doc", b"one", b"two")


def test_a_child_that_changes_its_parent_keeps_its_file(world: World) -> None:
    key = seed(world)
    with world.session() as session, world.nothing_stored():
        doc = session.get_one(Doc, key)
        other = Doc(notes=list(doc.notes))
        session.add(other)
        session.flush()
        session.delete(doc)
        session.commit()
        assert len(other.notes) == 2
    world.check(b"one", b"two")


def test_the_file_of_an_orphan_moves_to_its_parent(world: World) -> None:
    key = seed(world)
    with world.session(autoflush=False) as session:
        doc = session.get_one(Doc, key)
        note = next(note for note in doc.notes if note.file.read() == b"one")
        doc.file = note.file
        doc.notes.remove(note)
        session.commit()
        assert doc.file.read() == b"one"
    world.check(b"one", b"two")


# Other relationships


class Base(DeclarativeBase):
    pass


tagged = Table(
    "tagged",
    Base.metadata,
    Column("tag_id", ForeignKey("tags.id"), primary_key=True),
    Column("parent_id", ForeignKey("parents.id"), primary_key=True),
)


class Parent(Base):
    __tablename__ = "parents"
    id: Mapped[int] = mapped_column(primary_key=True)
    file: Mapped[Attachment | None] = mapped_column(AttachmentType(files))
    loose: Mapped[list[Loose]] = relationship(back_populates="parent")
    viewed: Mapped[list[Loose]] = relationship(viewonly=True)
    tags: Mapped[list[Tag]] = relationship(secondary=tagged)
    single: Mapped[Single | None] = relationship(cascade="all, delete-orphan", back_populates="parent")


class Loose(Base):
    """A child that survives its parent."""

    __tablename__ = "loose"
    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("parents.id"))
    file: Mapped[Attachment | None] = mapped_column(AttachmentType(files))
    parent: Mapped[Parent | None] = relationship(back_populates="loose")


class Tag(Base):
    __tablename__ = "tags"
    id: Mapped[int] = mapped_column(primary_key=True)
    icon: Mapped[Attachment | None] = mapped_column(AttachmentType(files))


class Single(Base):
    __tablename__ = "singles"
    id: Mapped[int] = mapped_column(ForeignKey("parents.id"), primary_key=True)
    pages: Mapped[Sequence[Attachment]] = mapped_column(AttachmentListType(files))
    parent: Mapped[Parent] = relationship(back_populates="single", single_parent=True)


def make_family(world: World) -> None:
    """A parent with one of each."""
    world.create(Base.metadata)
    with world.session() as session:
        session.add(
            Parent(
                id=1,
                file=b"parent",
                loose=[Loose(file=b"loose")],
                tags=[Tag(icon=b"tag")],
                single=Single(pages=[b"page"]),
            )
        )
        session.commit()


def test_a_nullable_foreign_key_lets_the_child_and_its_file_stay(world: World) -> None:
    make_family(world)
    with world.session() as session, world.nothing_stored():
        session.delete(session.get_one(Parent, 1))
        session.commit()
        assert session.scalars(select(Loose)).one().parent_id is None
    world.check(b"loose", b"tag")


def test_a_view_is_not_written(world: World) -> None:
    make_family(world)
    with world.session() as session, world.nothing_stored():
        parent = session.get_one(Parent, 1)
        assert [child.file.read() for child in parent.viewed] == [b"loose"]
        parent.viewed.append(Loose(file=b"new"))
        session.commit()
    world.check(b"parent", b"loose", b"tag", b"page")


def test_a_secondary_table_takes_no_file_with_it(world: World) -> None:
    make_family(world)
    with world.session() as session:
        session.get_one(Parent, 1).tags = [Tag(icon=b"another tag")]
        session.commit()
    world.check(b"parent", b"loose", b"tag", b"page", b"another tag")


def test_a_child_for_another_with_the_same_primary_key(world: World) -> None:
    """One-to-one by primary key: SQLAlchemy updates the row that it would have to delete and insert."""
    make_family(world)
    with world.session() as session:
        parent = session.get_one(Parent, 1)
        parent.single = Single(pages=[b"new"])
        session.commit()
        assert [page.read() for page in parent.single.pages] == [b"new"]
    world.check(b"parent", b"loose", b"tag", b"new")


def test_merge_cascades(world: World) -> None:
    make_family(world)
    with world.session() as session:
        parent = session.get_one(Parent, 1)
        _ = parent.loose, parent.single
        session.expunge_all()
        parent.loose[0].file = b"new loose"
        parent.single.pages = [*parent.single.pages, b"new page"]
    with world.session() as session:
        session.merge(parent)
        session.commit()
    world.check(b"parent", b"new loose", b"tag", b"page", b"new page")


def test_a_relationship_is_unloaded(world: World) -> None:
    make_family(world)
    with world.session() as session:
        parent = session.get_one(Parent, 1)
        assert "single" not in parent.__dict__
        session.delete(parent)
        session.commit()
    world.check(b"loose", b"tag")


# ON DELETE CASCADE


def cascading() -> tuple[Any, Any, Any]:
    """Models of which the database deletes rows by itself; made anew: mapping them warns."""

    class Own(DeclarativeBase):
        pass

    class Album(Own):
        __tablename__ = "albums"
        id: Mapped[int] = mapped_column(primary_key=True)
        cover: Mapped[Attachment | None] = mapped_column(AttachmentType(files))

    class Photo(Own):
        __tablename__ = "photos"
        id: Mapped[int] = mapped_column(primary_key=True)
        album_id: Mapped[int] = mapped_column(ForeignKey("albums.id", ondelete="CASCADE"))
        file: Mapped[Attachment | None] = mapped_column(AttachmentType(files))
        small: Mapped[Attachment | None] = mapped_column(AttachmentType(files))

    Album.photos = relationship(Photo, cascade="all, delete", passive_deletes=True)
    return Own, Album, Photo


@pytest.mark.filterwarnings("ignore::sa_attachments.AttachmentWarning")
@on("world", ["sqlite", "postgres", "mariadb", "aiosqlite", "asyncpg"], indirect=True)
@on("loaded", [True, False])
def test_what_the_database_deletes_by_itself_is_found_by_verify(world: World, loaded: bool) -> None:
    """Hole 13. What the session has loaded it deletes itself."""
    Own, Album, Photo = cascading()
    world.create(Own.metadata)
    with world.session() as session:
        session.add(Album(id=1, cover=b"cover", photos=[Photo(file=b"one", small=b"1"), Photo(file=b"two")]))
        session.commit()
        album = session.get_one(Album, 1)
        if loaded:
            assert len(album.photos) == 2
        session.delete(album)
        session.commit()
        assert session.scalars(select(Photo)).all() == []
    world.settle()
    assert sorted(world.stored().values()) == ([] if loaded else [b"1", b"one", b"two"])
    report = world.files.verify(world.engine)
    assert report.counts == ({} if loaded else {"unnamed": 3})
    world.files.verify(world.engine, repair=True)
    world.sweep()
    assert world.files.verify(world.engine).ok
    world.check()


def test_a_cascade_of_the_database_is_warned_of_once() -> None:
    _, _, Photo = cascading()
    with pytest.warns(AttachmentWarning, match=r"photos\.album_id is ON DELETE CASCADE") as caught:
        configure_mappers()
    assert len([each for each in caught if each.category is AttachmentWarning]) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", AttachmentWarning)

        class Special(Photo):
            pass

        configure_mappers()
        assert Photo(file=b"x").file is not None
        assert Special(file=b"x").file is not None


def test_a_cascade_without_files_is_not_warned_of() -> None:
    class Own(DeclarativeBase):
        pass

    class Album(Own):
        __tablename__ = "albums"
        id: Mapped[int] = mapped_column(primary_key=True)
        cover: Mapped[Attachment | None] = mapped_column(AttachmentType(files))

    class Plain(Own):
        __tablename__ = "plain"
        id: Mapped[int] = mapped_column(primary_key=True)
        album_id: Mapped[int] = mapped_column(ForeignKey("albums.id", ondelete="CASCADE"))

    class Kept(Own):
        __tablename__ = "kept"
        id: Mapped[int] = mapped_column(primary_key=True)
        album_id: Mapped[int | None] = mapped_column(ForeignKey("albums.id", ondelete="SET NULL"))
        file: Mapped[Attachment | None] = mapped_column(AttachmentType(files))

    with warnings.catch_warnings():
        warnings.simplefilter("error", AttachmentWarning)
        configure_mappers()
        Kept(file=b"x"), Plain(), Album(cover=b"x")


@pytest.mark.filterwarnings("ignore::sa_attachments.AttachmentWarning")
@on("world", ["sqlite", "postgres", "asyncpg"], indirect=True)
def test_a_bulk_delete_of_parents_leaves_the_children_to_verify(world: World) -> None:
    Own, Album, Photo = cascading()
    world.create(Own.metadata)
    with world.session() as session:
        session.add(Album(id=1, cover=b"cover", photos=[Photo(file=b"one")]))
        session.commit()
        session.execute(delete(Album))
        session.execute(insert(Album), {"id": 2, "cover": b"new cover"})
        session.commit()
    assert world.files.verify(world.engine, repair=True).counts == {"unnamed": 1}
    world.sweep()
    world.check(b"new cover")
