"""What happens to one row, and what then becomes of its file."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import inspect, select, update
from sqlalchemy.orm import Session, defer, load_only, make_transient, make_transient_to_detached
from sqlalchemy.orm.exc import StaleDataError

from sa_attachments import Attachment, OwnershipLost

from .models import Doc
from .world import World

on = pytest.mark.parametrize
KEYS = ["file", "scan", "pages"]


def seed(world: World, data: bytes = b"old", **values: object) -> int:
    """A committed document."""
    with world.session() as session:
        doc = Doc(file=data, **values)
        session.add(doc)
        session.commit()
        return doc.id


def test_replace(world: World) -> None:
    key = seed(world)
    with world.session() as session:
        doc = session.get_one(Doc, key)
        doc.file = b"new"
        session.commit()
        assert doc.file is not None
        assert doc.file.read() == b"new"
    world.check(b"new")


def test_an_unchanged_row_is_left_alone(world: World) -> None:
    key = seed(world, pages=[b"page"])
    with world.session() as session, world.nothing_stored():
        doc = session.get_one(Doc, key)
        doc.title = "new"
        session.commit()
        doc.file = doc.file
        doc.pages = list(doc.pages)
        session.commit()
    world.check(b"old", b"page")


@on("flushed", [False, True])
def test_replace_twice(world: World, flushed: bool) -> None:
    key = seed(world)
    with world.session() as session:
        doc = session.get_one(Doc, key)
        doc.file = b"first"
        if flushed:
            session.flush()
        doc.file = b"second"
        session.commit()
    assert world.puts == (3 if flushed else 2), "what no flush saw is never stored"
    world.check(b"second")


@on("flushed", [False, True])
def test_replace_twice_in_a_row_that_is_new(world: World, flushed: bool) -> None:
    with world.session() as session:
        doc = Doc(file=b"first", pages=[b"page"])
        session.add(doc)
        if flushed:
            session.flush()
        doc.file = b"second"
        doc.pages = [*doc.pages, b"another"]
        session.commit()
    world.check(b"second", b"page", b"another")


@on("flushed", [False, True])
def test_change_and_change_back(world: World, flushed: bool) -> None:
    key = seed(world)
    with world.session() as session:
        doc = session.get_one(Doc, key)
        old = doc.file
        doc.file = b"new"
        if flushed:
            session.flush()
        doc.file = old
        session.commit()
        assert doc.file == old
    world.check(b"old")


def test_change_back_in_a_third_flush(world: World) -> None:
    """Dropped, then named again: the line is condemned, and owned once more."""
    key = seed(world)
    with world.session() as session:
        doc = session.get_one(Doc, key)
        old = doc.file
        for value in (None, b"new", old, None, old):
            doc.file = value
            session.flush()
        session.commit()
    world.check(b"old")


def test_change_back_after_a_savepoint_was_rolled_back(world: World) -> None:
    key = seed(world)
    with world.session() as session:
        doc = session.get_one(Doc, key)
        old = doc.file
        nested = session.begin_nested()
        doc.file = b"new"
        session.flush()
        nested.rollback()
        doc.file = old
        session.commit()
    world.check(b"old")


@on("flushed", [False, True])
def test_set_to_none(world: World, flushed: bool) -> None:
    key = seed(world, scan=b"scan")
    with world.session() as session:
        doc = session.get_one(Doc, key)
        if flushed:
            doc.file = b"new"
            session.flush()
        doc.file = None
        session.commit()
        assert doc.file is None
    world.check(b"scan")


def test_delete(world: World) -> None:
    key = seed(world, scan=b"scan", pages=[b"one", b"two"])
    seed(world, b"other")
    with world.session() as session:
        session.delete(session.get_one(Doc, key))
        session.commit()
    world.check(b"other")


def test_delete_in_the_transaction_that_added(world: World) -> None:
    with world.session() as session:
        doc = Doc(file=b"one")
        session.add(doc)
        session.flush()
        session.delete(doc)
        session.commit()
    world.check()


def test_delete_an_object_that_was_changed(world: World) -> None:
    """A file that was assigned and never flushed is never stored."""
    key = seed(world)
    with world.session(autoflush=False) as session, world.nothing_stored():
        doc = session.get_one(Doc, key)
        doc.file = b"new"
        session.delete(doc)
        session.commit()
    world.check()


def test_delete_after_a_replacement(world: World) -> None:
    key = seed(world)
    with world.session() as session:
        doc = session.get_one(Doc, key)
        doc.file = b"new"
        session.flush()
        session.delete(doc)
        session.commit()
    world.check()


def test_delete_is_taken_back_before_the_flush(world: World) -> None:
    key = seed(world)
    with world.session() as session:
        doc = session.get_one(Doc, key)
        session.delete(doc)
        session.add(doc)
        session.commit()
    world.check(b"old")


@on("end", ["commit", "rollback"])
def test_delete_and_add_the_same_object_again(world: World, end: str) -> None:
    """Its file was dropped, and is named again."""
    key = seed(world, pages=[b"page"])
    with world.session() as session:
        doc = session.get_one(Doc, key)
        session.delete(doc)
        session.flush()
        make_transient(doc)
        session.add(doc)
        session.flush()
        getattr(session, end)()
    world.check(b"old", b"page")


@on("world", ["sqlite", "postgres", "mariadb", "aiosqlite", "asyncpg"], indirect=True)
def test_an_object_added_again_after_its_deletion_was_committed_has_lost_its_file(world: World) -> None:
    """Nothing is resurrected: the bytes are gone, and the row may not name them."""
    key = seed(world)
    with world.session() as session:
        doc = session.get_one(Doc, key)
        assert doc.file is not None
        session.delete(doc)
        session.commit()
        world.check()
        make_transient(doc)
        session.add(doc)
        with pytest.raises(OwnershipLost, match=r"Doc\.file may not name a file that is gone"):
            session.flush()
        session.rollback()
        session.add(Doc(file=b"new"))
        session.commit()
    world.check(b"new")


# What the session does not know


def expire(session: Session, key: int) -> Doc:
    doc = session.get_one(Doc, key)
    session.expire(doc)
    return doc


def deferred(session: Session, key: int) -> Doc:
    return session.scalars(select(Doc).where(Doc.id == key).options(defer(Doc.file), defer(Doc.pages))).one()


def partial(session: Session, key: int) -> Doc:
    return session.scalars(select(Doc).where(Doc.id == key).options(load_only(Doc.title))).one()


def never_loaded(session: Session, key: int) -> Doc:
    doc = Doc(id=key)
    make_transient_to_detached(doc)
    session.add(doc)
    return doc


UNKNOWN: dict[str, Callable[[Session, int], Doc]] = {
    each.__name__: each for each in (expire, deferred, partial, never_loaded)
}


@on("how", UNKNOWN)
@on("what", ["replace", "none", "delete"])
def test_an_old_file_that_the_session_never_saw_is_dropped(world: World, how: str, what: str) -> None:
    key = seed(world, pages=[b"page"])
    with world.session() as session:
        doc = UNKNOWN[how](session, key)
        assert "file" not in inspect(doc).dict
        match what:
            case "replace":
                doc.file, doc.pages = b"new", [b"new page"]
            case "none":
                doc.file, doc.pages = None, []
            case "delete":
                session.delete(doc)
        session.commit()
    world.check(*([b"new", b"new page"] if what == "replace" else []))


@on("what", ["replace", "none", "delete"])
@on("world", ["sqlite", "postgres", "mariadb"], indirect=True)
def test_an_old_file_that_was_exchanged_since_it_was_loaded_is_dropped(world: World, what: str) -> None:
    """Hole 5: what the object holds is not what the row names."""
    key = seed(world)
    with world.session(expire_on_commit=False) as session:
        doc = session.get_one(Doc, key)
        session.commit()
        with world.session() as other:
            other.get_one(Doc, key).file = b"changed meanwhile"
            other.commit()
        match what:
            case "replace":
                doc.file = b"new"
            case "none":
                doc.file = None
            case "delete":
                session.delete(doc)
        session.commit()
    world.check(*([b"new"] if what == "replace" else []))


def test_an_update_that_expires_the_attribute_first(world: World) -> None:
    key = seed(world)
    with world.session() as session:
        doc = session.get_one(Doc, key)
        session.execute(
            update(Doc).where(Doc.id == key).values(title="x"), execution_options={"synchronize_session": False}
        )
        session.refresh(doc)
        doc.file = b"new"
        session.commit()
    world.check(b"new")


def test_an_assignment_that_is_forgotten_is_never_stored(world: World) -> None:
    key = seed(world)
    with world.session(autoflush=False) as session, world.nothing_stored():
        doc = session.get_one(Doc, key)
        doc.file = b"new"
        session.refresh(doc)
        doc.file = b"new"
        session.expire(doc)
        doc.file = b"new"
        session.expunge(doc)
        session.commit()
    world.check(b"old")


def test_a_stored_file_is_one_attachment_of_its_row(world: World) -> None:
    """The value on the object after the flush is the one that a query finds."""
    with world.session() as session:
        doc = Doc(file=Attachment.upload(b"one", "one.txt", metadata={"a": [1]}))
        session.add(doc)
        session.flush()
        stored = doc.file
        session.expire(doc)
        assert stored is not None
        assert doc.file == stored
        assert (doc.file.filename, doc.file.metadata["a"], doc.file.size) == ("one.txt", (1,), 3)
        session.commit()
    world.check(b"one")


def test_a_row_that_is_gone_is_told_though_its_file_is_taken_away(world: World) -> None:
    with world.session(expire_on_commit=False) as session:
        doc = Doc(file=b"data")
        session.add(doc)
        session.commit()
        with world.session() as other:
            other.delete(other.get_one(Doc, doc.id))
            other.commit()
        doc.file = None
        with pytest.raises(StaleDataError):
            session.commit()
    world.check()
