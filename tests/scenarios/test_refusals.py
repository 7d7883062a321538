"""Ways into the database on which nobody can prove whose file it is: refused, with the reason, and nothing breaks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, String, event, insert, select, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, make_transient, mapped_column

from sa_attachments import Attachment, AttachmentType, NotStored, OwnershipLost

from .models import Doc, Note, files
from .world import World

on = pytest.mark.parametrize
docs: Any = Doc.__table__
notes: Any = Note.__table__


def seed(world: World) -> Attachment:
    """The file of a committed document."""
    with world.session() as session:
        doc = Doc(file=b"old")
        session.add(doc)
        session.commit()
        assert doc.file is not None
        return doc.file


WAYS: dict[str, Callable[[Session, Attachment], Any]] = {
    "Core insert": lambda session, file: session.execute(insert(docs), {"file": file}),
    "Core insert of many": lambda session, file: session.execute(insert(docs), [{"file": file}, {"file": file}]),
    "Core insert of values": lambda session, file: session.execute(insert(docs).values(file=file)),
    "Core update": lambda session, file: session.execute(update(docs).values(scan=file)),
    "connection": lambda session, file: session.connection().execute(insert(Doc), {"file": file}),
    "bulk_save_objects": lambda session, file: session.bulk_save_objects([Doc(file=file), Doc(file=file)]),
    "bulk_insert_mappings": lambda session, file: session.bulk_insert_mappings(Doc, [{"file": file}]),  # type: ignore[arg-type]
    "bulk_update_mappings": lambda session, file: session.bulk_update_mappings(Doc, [{"id": 1, "scan": file}]),  # type: ignore[arg-type]
    "list": lambda session, file: session.execute(insert(docs), {"pages": [file]}),
}


@on("way", WAYS)
@on("world", ["sqlite", "postgres", "mariadb", "asyncpg"], indirect=True)
def test_a_stored_file_is_refused(world: World, way: str) -> None:
    """Hole 6: two rows would name one file."""
    file = seed(world)
    column = {"list": "pages", "Core update": "scan", "bulk_update_mappings": "scan"}.get(way, "file")
    with world.session() as session:
        session.add(Note(file=b"note"))
        with world.nothing_stored(), session.no_autoflush, pytest.raises(OwnershipLost) as caught:
            WAYS[way](session, file)
        assert f"docs.{column}" in str(caught.value)
        assert "a file has one owner" in str(caught.value)
        session.rollback() if way.startswith("bulk_") else None
        session.add(Doc(title="usable", file=b"new"))
        session.commit()
    world.check(b"old", b"new", *([] if way.startswith("bulk_") else [b"note"]))


@on("way", WAYS)
@on("world", ["sqlite", "postgres", "mariadb", "asyncpg"], indirect=True)
def test_a_new_file_is_refused(world: World, way: str) -> None:
    seed(world)
    column = {"list": "pages", "Core update": "scan", "bulk_update_mappings": "scan"}.get(way, "file")
    with world.session() as session:
        with world.nothing_stored(), pytest.raises(NotStored) as caught:
            WAYS[way](session, Attachment.upload(b"new", "new.txt"))
        assert f"'new.txt'> reached docs.{column} before it was stored" in str(caught.value)
        session.rollback() if way.startswith("bulk_") else None
        session.add(Doc(title="usable", file=b"usable"))
        session.commit()
    world.check(b"old", b"usable")


def test_a_file_that_another_flush_proved_is_refused(world: World) -> None:
    """The proof ends with the flush."""
    seed(world)
    with world.session() as session:
        doc = Doc(file=b"new")
        session.add(doc)
        session.flush()
        with pytest.raises(OwnershipLost, match=r"docs\.scan"):
            session.execute(update(docs).where(docs.c.id == 1).values(scan=doc.file))
        session.commit()
    world.check(b"old", b"new")


@on("world", ["sqlite", "postgres"], indirect=True)
@on("when", ["after_insert", "after_update"])
def test_a_file_that_this_flush_proves_is_refused_for_another_column(world: World, when: str) -> None:
    """What a hook writes into a log: the row and the log would name one file."""
    seed(world)

    def log(_mapper: object, connection: Connection, doc: Doc) -> None:
        connection.execute(insert(notes), {"file": doc.file})

    event.listen(Doc, when, log)
    try:
        with world.session() as session:
            doc = Doc() if when == "after_insert" else session.get_one(Doc, 1)
            session.add(doc)
            doc.file = Attachment.upload(b"new")
            with pytest.raises(OwnershipLost, match=r"notes\.file"):
                session.commit()
    finally:
        event.remove(Doc, when, log)
    world.check(b"old")


def test_a_file_that_an_earlier_statement_proved_is_refused(world: World) -> None:
    seed(world)
    with world.session() as session:
        session.execute(update(Doc).values(scan=b"new"))
        file = session.scalar(select(Doc.scan))
        with pytest.raises(OwnershipLost, match=r"docs\.file"):
            session.execute(insert(docs), {"file": file})
        session.commit()
    world.check(b"old", b"new")


@on("value", [{"key": "x", "storage": "default"}, "text", 7], ids=["dict", "str", "int"])
def test_json_is_no_attachment(world: World, value: object) -> None:
    """Nothing rebuilds an attachment from JSON, not even Core."""
    with world.session() as session:
        with pytest.raises(TypeError, match=r"docs\.file holds attachments, not"):
            session.execute(insert(docs), {"file": value})
        session.add(Doc(file=b"new"))
        session.commit()
    world.check(b"new")


class Base(DeclarativeBase):
    pass


class Defaulted(Base):
    """The column's default is a file, which comes when nobody can store it any more."""

    __tablename__ = "defaulted"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str | None] = mapped_column(String(10), unique=True)
    file: Mapped[Attachment | None] = mapped_column(
        AttachmentType(files), insert_default=lambda: Attachment.upload(b"default", "default.txt")
    )


@on("world", ["sqlite", "postgres", "asyncpg"], indirect=True)
def test_a_columns_default_comes_too_late_and_says_so(world: World) -> None:
    world.create(Base.metadata)
    with world.session() as session:
        session.add(Defaulted(title="lost"))
        with pytest.raises(NotStored, match=r"'default\.txt'> reached defaulted\.file .* column defaults"):
            session.flush()
        session.rollback()
        with pytest.raises(NotStored, match=r"defaulted\.file"):
            session.execute(insert(Defaulted), [{"title": "lost"}])
        session.rollback()
        session.add(Defaulted(title="own", file=b"own"))
        session.commit()
    world.check(b"own")


def test_nothing_is_written_by_core_as_ever(world: World) -> None:
    """Rows without files need no proof."""
    seed(world)
    with world.session() as session:
        session.execute(insert(docs), [{"title": "core", "file": None, "pages": []}])
        session.bulk_save_objects([Doc(title="bulk")])
        session.bulk_insert_mappings(Doc, [{"title": "mapping"}])  # type: ignore[arg-type]
        session.commit()
        assert session.scalars(select(Doc.pages).where(Doc.title.is_not(None))).all() == [(), (), ()]
    world.check(b"old")


def test_bulk_save_objects_of_a_loaded_object_writes_other_columns(world: World) -> None:
    file = seed(world)
    with world.session() as session:
        doc = session.get_one(Doc, 1)
        session.expunge(doc)
        doc.title = "saved"
        session.bulk_save_objects([doc])
        session.commit()
        assert session.get_one(Doc, 1).title == "saved"
        assert session.get_one(Doc, 1).file == file
    world.check(b"old")


def test_bulk_save_objects_of_a_copied_object_is_refused(world: World) -> None:
    """Hole 6: reproduced with an object that was made transient."""
    seed(world)
    with world.session() as session:
        doc = session.get_one(Doc, 1)
        make_transient(doc)
        doc.id, doc.title = 2, "copy"
        with pytest.raises(OwnershipLost, match=r"docs\.file"):
            session.bulk_save_objects([doc])
        session.rollback()
        session.add(doc)
        session.commit()
    world.check(b"old", b"old")


def test_files_that_core_takes_from_rows_are_found_by_verify(world: World) -> None:
    """Without triggers, nobody sees it; nothing is lost, and ``verify`` tidies up."""
    seed(world)
    with world.session() as session:
        session.execute(update(docs).values(file=None))
        session.commit()
    world.settle()
    assert list(world.stored().values()) == [b"old"]
    report = world.files.verify(world.engine)
    assert [(finding.kind, finding.repaired) for finding in report.findings] == [("unnamed", False)]
    report = world.files.verify(world.engine, repair=True)
    assert [(finding.kind, finding.repaired) for finding in report.findings] == [("unnamed", True)]
    world.sweep()
    assert world.files.verify(world.engine).ok
    world.check()


def test_bulk_update_mappings_leak_and_are_found_by_verify(world: World) -> None:
    seed(world)
    with world.session() as session:
        session.bulk_update_mappings(Doc, [{"id": 1, "file": None}])  # type: ignore[arg-type]
        session.commit()
    assert world.files.verify(world.engine, repair=True).counts == {"unnamed": 1}
    world.sweep()
    world.check()
