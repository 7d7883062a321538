"""One primary key, several objects: row switches, changed keys, merges, detached and pickled objects."""

from __future__ import annotations

import copy
import pickle

import pytest
from sqlalchemy import inspect
from sqlalchemy.orm import make_transient

from sa_attachments import Attachment, OwnershipLost

from .models import Doc, Note
from .world import World

on = pytest.mark.parametrize


def seed(world: World, data: bytes | None = b"old", **values: object) -> int:
    """A committed document."""
    with world.session() as session:
        doc = Doc(file=data, **values)
        session.add(doc)
        session.commit()
        return doc.id


def detached(world: World, key: int) -> Doc:
    """The document, loaded by a session that is closed."""
    with world.session() as session:
        doc = session.get_one(Doc, key)
        _ = doc.file, doc.scan, doc.pages
        return doc


@on("values", [{"file": b"new"}, {}, {"file": None, "pages": [b"page"]}])
def test_row_switch(world: World, values: dict[str, object]) -> None:
    """A new object with the primary key of a deleted one becomes an UPDATE, which leaves unset columns alone."""
    key = seed(world)
    with world.session() as session:
        session.delete(session.get_one(Doc, key))
        session.add(Doc(id=key, title="switched", **values))
        session.commit()
        doc = session.get_one(Doc, key)
        left = [item.read() for item in (*([doc.file] if doc.file else []), *doc.pages)]
    expected = {"file": [b"new"], "": [b"old"], "file pages": [b"page"]}[" ".join(values)]
    assert left == expected
    world.check(*expected)


def test_row_switch_that_keeps_a_file_that_another_row_takes(world: World) -> None:
    """The column is not set, so the row goes on naming the file: the other row gets a copy."""
    key = seed(world)
    with world.session(autoflush=False) as session:
        doc = session.get_one(Doc, key)
        session.add_all([Note(file=doc.file), Doc(id=key, title="switched")])
        session.delete(doc)
        session.commit()
        assert session.get_one(Doc, key).file.read() == b"old"
    world.check(b"old", b"old")


def test_row_switch_that_hands_the_file_on(world: World) -> None:
    key = seed(world)
    with world.session() as session:
        doc = session.get_one(Doc, key)
        file = doc.file
        session.delete(doc)
        with world.nothing_stored():
            session.add(Doc(id=key, file=file))
            session.commit()
    world.check(b"old")


def test_a_new_primary_key(world: World) -> None:
    key = seed(world)
    with world.session() as session:
        doc = session.get_one(Doc, key)
        doc.id = key + 1000
        session.commit()
        doc.id = key + 2000
        doc.file = b"new"
        session.commit()
    world.check(b"new")


# Merging


def test_merge_of_what_was_loaded_changes_nothing(world: World) -> None:
    key = seed(world, pages=[b"page"])
    doc = detached(world, key)
    with world.session() as session, world.nothing_stored():
        merged = session.merge(doc)
        assert merged.file == doc.file
        session.commit()
    world.check(b"old", b"page")


@on("loaded", [True, False])
def test_merge_of_a_new_file(world: World, loaded: bool) -> None:
    key = seed(world)
    doc = detached(world, key)
    doc.file = b"new"
    with world.session() as session:
        if loaded:
            session.get_one(Doc, key)
        merged = session.merge(doc)
        session.commit()
        assert merged.file.read() == b"new"
    world.check(b"new")


def test_merge_of_an_object_that_was_never_loaded(world: World) -> None:
    """What it does not say stays; what it says replaces."""
    key = seed(world, scan=b"scan")
    with world.session() as session:
        session.merge(Doc(id=key, file=b"new"))
        session.merge(Doc(id=key + 50, file=b"another"))
        session.commit()
    world.check(b"new", b"scan", b"another")


def test_merge_of_none(world: World) -> None:
    key = seed(world, pages=[b"page"])
    with world.session() as session:
        session.merge(Doc(id=key, file=None, pages=[]))
        session.commit()
    world.check()


def test_merge_of_another_rows_file(world: World) -> None:
    key, other = seed(world), seed(world, b"other")
    doc = detached(world, key)
    with world.session() as session:
        session.merge(Doc(id=other, file=doc.file))
        session.commit()
    world.check(b"old", b"old")


def test_merge_twice_of_one_new_file(world: World) -> None:
    key = seed(world)
    doc = detached(world, key)
    doc.file = b"new"
    for _ in range(2):
        with world.session() as session:
            session.merge(doc)
            session.commit()
    world.check(b"new")


def test_merge_of_a_stale_object_takes_back_nothing_that_is_gone(world: World) -> None:
    key = seed(world)
    doc = detached(world, key)
    with world.session() as session:
        session.get_one(Doc, key).file = b"new"
        session.commit()
    world.check(b"new")
    with world.session() as session:
        session.merge(doc)
        with pytest.raises(OwnershipLost, match=r"Doc\.file may not name a file that is gone"):
            session.commit()
        session.rollback()
    world.check(b"new")


def test_merge_without_loading(world: World) -> None:
    """As caches do."""
    key = seed(world, pages=[b"page"])
    doc = detached(world, key)
    with world.session() as session, world.nothing_stored():
        merged = session.merge(doc, load=False)
        assert merged.file.read() == b"old"
        merged.title = "merged"
        session.commit()
    with world.session() as session:
        merged = session.merge(doc, load=False)
        merged.file = b"new"
        session.commit()
    world.check(b"new", b"page")


# Leaving the process


def test_a_pickled_object_comes_back_with_its_files(world: World) -> None:
    key = seed(world, pages=[b"page"])
    doc = pickle.loads(pickle.dumps(detached(world, key)))
    assert (doc.file.read(), doc.pages[0].read()) == (b"old", b"page")
    with world.session() as session, world.nothing_stored():
        session.add(doc)
        doc.title = "back"
        session.commit()
        assert session.get_one(Doc, key).file.read() == b"old"
    world.check(b"old", b"page")


def test_a_pickled_object_with_a_new_file(world: World) -> None:
    key = seed(world)
    doc = detached(world, key)
    doc.file = Attachment.upload(b"new", "new.txt", metadata={"a": 1})
    doc = pickle.loads(pickle.dumps(doc))
    assert not doc.file.is_stored
    with world.session() as session:
        merged = session.merge(doc)
        session.commit()
        assert (merged.file.read(), merged.file.filename, dict(merged.file.metadata)) == (b"new", "new.txt", {"a": 1})
    world.check(b"new")


def test_a_pickled_attachment_is_bound_again_by_assignment(world: World) -> None:
    key = seed(world)
    with world.session() as session, world.nothing_stored():
        doc = session.get_one(Doc, key)
        loaded = pickle.loads(pickle.dumps(doc.file))
        doc.file = loaded.replace(filename="renamed.txt")
        session.commit()
        assert (doc.file.read(), doc.file.filename) == (b"old", "renamed.txt")
    world.check(b"old")


def test_a_pickled_attachment_moves_and_is_copied_as_any_other(world: World) -> None:
    key = seed(world)
    with world.session() as session:
        doc = session.get_one(Doc, key)
        loaded = pickle.loads(pickle.dumps(doc.file))
        session.add(Note(file=loaded))
        session.flush()
        doc.file, doc.scan = None, pickle.loads(pickle.dumps(doc.file))
        session.commit()
    world.check(b"old", b"old")


@on("deep", [False, True])
def test_a_copied_attachment_is_the_same_value(world: World, deep: bool) -> None:
    key = seed(world)
    with world.session() as session, world.nothing_stored():
        doc = session.get_one(Doc, key)
        doc.file = copy.deepcopy(doc.file) if deep else copy.copy(doc.file)
        assert not session.is_modified(doc)
        session.commit()
    new = Attachment.upload(b"new")
    assert (copy.deepcopy(new) if deep else copy.copy(new)) is new
    world.check(b"old")


def test_an_object_is_detached_and_added_to_another_session(world: World) -> None:
    key = seed(world)
    doc = detached(world, key)
    doc.scan = b"scan"
    with world.session() as session:
        session.add(doc)
        session.commit()
        session.expunge(doc)
    with world.session() as session:
        session.add(doc)
        doc.file = None
        session.commit()
        assert doc.scan.read() == b"scan"
    world.check(b"scan")


def test_a_transient_copy_of_a_row_gets_files_of_its_own(world: World) -> None:
    key = seed(world, pages=[b"page"])
    doc = detached(world, key)
    make_transient(doc)
    del doc.id
    with world.session() as session:
        session.add(doc)
        session.commit()
        assert doc.id != key
        assert inspect(doc).persistent
    world.check(b"old", b"old", b"page", b"page")
