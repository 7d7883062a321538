"""The tracker: wired once, silent for sessions that touch no attachment, and without a state of its own."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, event, inspect, select, text
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    SessionTransaction,
    SessionTransactionOrigin,
    mapped_column,
    scoped_session,
    sessionmaker,
)
from sqlalchemy.orm.attributes import set_committed_value

from sa_attachments import (
    Attachment,
    AttachmentListType,
    AttachmentType,
    BadSource,
    Storages,
)
from sa_attachments.tracker import Frames, wire
from tests.archive import Archive

on = pytest.mark.parametrize
sqlite = on("engine", ["sqlite"], indirect=True)
EVENTS = ["before_flush", "after_flush", "after_commit", "after_transaction_end"]


@pytest.fixture
def archive(engine: Engine) -> Archive:
    return Archive(engine, budget=timedelta(seconds=30))  # on a busy machine too


# Wiring

UNMAPPED = """
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, configure_mappers, mapped_column
import sa_attachments

def listeners():
    return [len(list(getattr(Session().dispatch, name))) for name in ("before_flush", "after_flush", "after_commit")]

class Base(DeclarativeBase): pass
class Plain(Base):
    __tablename__ = "plain"
    id: Mapped[int] = mapped_column(primary_key=True)
configure_mappers()
print(listeners())
files = sa_attachments.Storages("memory:")
class Doc(Base):
    __tablename__ = "docs"
    id: Mapped[int] = mapped_column(primary_key=True)
    file: Mapped[sa_attachments.Attachment] = mapped_column(sa_attachments.AttachmentType(files))
print(listeners())
"""
# A column that a finished class gets.
LATE = (
    UNMAPPED.replace("    file: Mapped[sa_attachments.Attachment] = ", "Doc.file = ")
    + "configure_mappers(); print(listeners())"
)


def test_nothing_is_listened_to_before_an_attachment_is_mapped() -> None:
    run = subprocess.run([sys.executable, "-c", UNMAPPED], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["[0, 0, 0]", "[1, 0, 0]"]


def test_a_column_may_be_added_to_a_class() -> None:
    run = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[1, 0, 0]"


@sqlite
def test_a_session_is_listened_to_once_from_when_it_touches_an_attachment(archive: Archive) -> None:
    def count(session: Session) -> list[int]:
        # Not those of a library that another test uses, which listens to all sessions.
        return [
            sum(each.__module__ == "sa_attachments.tracker" for each in getattr(session.dispatch, name))
            for name in EVENTS
        ]

    with archive.session() as session, archive.session() as other:
        assert count(session) == count(other) == [1, 0, 0, 0]
        for data in (b"one", b"two"):
            session.add(archive.Doc(file=data))
            session.commit()
        assert count(session) == [1, 1, 1, 1]
        assert count(other) == [1, 0, 0, 0]


@sqlite
def test_wiring_twice_changes_nothing(archive: Archive) -> None:
    def count() -> list[int]:
        return [len(list(getattr(Session().dispatch, name))) for name in EVENTS]

    before = count()
    wire()
    wire()
    assert count() == before


# Frames


@sqlite
def test_a_session_that_touches_no_attachment_gets_nothing(archive: Archive) -> None:
    archive.keep(b"one")
    with archive.session() as session:
        (doc,) = session.scalars(select(archive.Doc))
        assert doc.file is not None
        assert doc.file.read() == b"one"
        session.execute(text("SELECT 1"))
        session.commit()
        with session.begin_nested():
            session.flush()
        session.rollback()
        assert session.info == {}


@sqlite
def test_frames_end_with_their_transactions(archive: Archive) -> None:
    with archive.session() as session:
        session.add(archive.Doc(file=b"one"))
        session.flush()
        frames = Frames.of(session)
        assert Frames.of(session) is frames
        root = frames.current(session)
        assert frames.current(session) is root
        with session.begin_nested():
            inner = frames.current(session)
            assert inner is not root
            session.add(archive.Doc(file=b"two"))
        assert frames.current(session) is root
        session.commit()
        assert frames._frames == {}
        assert (root.marked, root.ended, inner.marked, inner.ended) == (True, True, True, True)


@sqlite
def test_a_transaction_that_is_forgotten_while_frames_are_gone_through(archive: Archive) -> None:
    """The collector says so at any moment, and in any thread."""
    with archive.session() as session:
        frames = Frames.of(session)
        forgotten = [SessionTransaction(session, SessionTransactionOrigin.BEGIN) for _ in range(2)]
        frame = frames._of(forgotten[1])
        frames._of(forgotten[0])
        session._transaction = None  # as after a close() that failed
        walk = iter(frames._frames)
        next(walk)
        forgotten.clear()
        gc.collect()
        next(walk)
        assert frame.ended
        frames.let_go(session)
        assert frames._frames == {}


@sqlite
def test_a_savepoint_in_which_nothing_was_stored_leaves_no_frame(archive: Archive) -> None:
    with archive.session() as session:
        session.add(archive.Doc(file=b"one"))
        session.flush()
        frames = Frames.of(session)
        for _ in range(3):
            with session.begin_nested():
                session.execute(select(archive.Doc)).all()
        assert len(frames._frames) == 1
        session.rollback()


@sqlite
def test_a_savepoint_may_be_the_first_to_store_something(archive: Archive) -> None:
    with archive.session() as session:
        with session.begin_nested(), session.begin_nested():
            session.add(archive.Doc(file=b"one"))
        session.commit()
        assert Frames.of(session)._frames == {}
    assert list(archive.stored().values()) == [b"one"]


@sqlite
def test_frames_do_not_keep_their_session(archive: Archive) -> None:
    session = archive.session()
    session.add(archive.Doc(file=b"one"))
    session.flush()
    gone = weakref.ref(session)
    del session
    gc.collect()
    assert gone() is None


@sqlite
@on(
    "make",
    [sessionmaker, lambda engine: scoped_session(sessionmaker(engine)), lambda engine: type("Own", (Session,), {})],
)
def test_every_kind_of_session_is_watched(archive: Archive, make: Any) -> None:
    made = make(archive.engine)
    session = made(archive.engine) if isinstance(made, type) else made()
    session.add(archive.Doc(file=b"one"))
    session.flush()
    session.rollback()
    session.close()
    archive.settle()
    assert archive.stored() == {}


# Objects


@sqlite
def test_values_are_coerced_however_they_are_set(archive: Archive) -> None:
    doc = archive.Doc(file=b"one", pages=[b"two"])
    assert isinstance(doc.file, Attachment)
    doc.file = b"three"
    assert doc.file.read() == b"three"
    doc.pages = iter([b"four"])
    assert [page.read() for page in doc.pages] == [b"four"]
    with pytest.raises(BadSource):
        doc.file = "text"
    assert doc.file.read() == b"three"
    set_committed_value(doc, "pages", ())
    assert inspect(doc).attrs.pages.history.unchanged == [()]


@sqlite
def test_subclasses_of_a_model_are_watched_too(engine: Engine) -> None:
    files = Storages("memory:")

    class Base(DeclarativeBase):
        pass

    class Doc(Base):
        __tablename__ = "docs"
        id: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str]
        file: Mapped[Attachment | None] = mapped_column(AttachmentType(files))
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "doc"}  # noqa: RUF012

    class Scan(Doc):
        pages: Mapped[Sequence[Attachment] | None] = mapped_column(AttachmentListType(files))
        __mapper_args__ = {"polymorphic_identity": "scan"}  # noqa: RUF012

    Base.metadata.create_all(engine)
    with Session(engine) as session:
        scan = Scan(file=b"one", pages=[b"two"])
        session.add(scan)
        session.commit()
        assert scan.file is not None
        assert (scan.file.read(), scan.pages[0].read()) == (b"one", b"two")  # type: ignore[index]


# What listeners of others do


@sqlite
def test_a_listener_of_the_users_own_may_assign_files(archive: Archive) -> None:
    @event.listens_for(Session, "before_flush")
    def fill(session: Session, *_: object) -> None:
        for obj in session.new:
            if isinstance(obj, archive.Doc) and obj.file is None:
                obj.file = b"filled in"

    try:
        with archive.session() as session:
            session.add(archive.Doc())
            session.commit()
    finally:
        event.remove(Session, "before_flush", fill)
    archive.settle()
    assert list(archive.stored().values()) == [b"filled in"]
    assert list(archive.states().values()) == ["owned"]
