"""A stored file has one owner: what happens when it is assigned elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy.orm import Session

from sa_attachments import Attachment, FileMissing, OwnershipLost

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


def copied(world: World) -> int:
    """How many files the storage copied by itself."""
    return sum(call.verb == "copy" for call in world.storage.calls)


# Copies


def test_a_stored_attachment_of_another_row_is_copied_in_the_storage(world: World) -> None:
    key = seed(world)
    with world.session() as session:
        doc = session.get_one(Doc, key)
        other = Doc(file=doc.file)
        session.add(other)
        session.commit()
        assert other.file != doc.file
        assert (other.file.sha256, other.file.filename) == (doc.file.sha256, doc.file.filename)
    assert copied(world) == 1
    world.check(b"old", b"old")


def test_a_copy_outlives_its_original(world: World) -> None:
    key = seed(world)
    with world.session() as session:
        doc = session.get_one(Doc, key)
        session.add(Doc(file=doc.file))
        session.commit()
        session.delete(doc)
        session.commit()
    world.check(b"old")


def test_a_copy_that_is_rolled_back_leaves_the_original(world: World) -> None:
    key = seed(world)
    with world.session() as session:
        doc = session.get_one(Doc, key)
        doc.scan = doc.file
        session.flush()
        session.rollback()
        assert doc.scan is None
    world.check(b"old")


def test_an_attachment_of_another_session_is_copied(world: World) -> None:
    with world.session() as session:
        file = session.get_one(Doc, seed(world)).file
    with world.session() as session:
        session.add(Note(file=file))
        session.commit()
    world.check(b"old", b"old")


def test_the_same_upload_for_two_rows_is_stored_once_and_copied_once(world: World) -> None:
    upload = Attachment.upload(iter([b"o", b"ne"]))
    with world.session() as session:
        docs = [Doc(file=upload), Doc(file=upload, scan=upload)]
        session.add_all(docs)
        session.commit()
        assert len({docs[0].file, docs[1].file, docs[1].scan}) == 3
    assert copied(world) == 2
    world.check(b"one", b"one", b"one")


def test_the_same_upload_in_two_transactions(world: World) -> None:
    upload = Attachment.upload(b"one")
    for _ in range(2):
        with world.session() as session:
            session.add(Doc(file=upload))
            session.commit()
    world.check(b"one", b"one")


def test_the_new_attachment_of_one_row_for_another(world: World) -> None:
    """It is stored by the time that the second row wants it."""
    with world.session() as session:
        first = Doc(file=b"one")
        session.add(first)
        session.flush()
        second = Doc(file=first.file)
        session.add(second)
        session.flush()
        session.delete(first)
        session.commit()
    world.check(b"one")


def test_an_explicit_copy(world: World) -> None:
    key = seed(world)
    with world.session() as session:
        doc = session.get_one(Doc, key)
        doc.file, doc.scan = doc.file.copy(), doc.file.copy()
        session.commit()
        assert doc.file != doc.scan
    world.check(b"old", b"old")


# Moves. ``give`` takes the file from its owner, ``take`` names it elsewhere


def delete(session: Session, doc: Doc) -> None:
    session.delete(doc)


def set_none(session: Session, doc: Doc) -> None:
    doc.file = None


def replace(session: Session, doc: Doc) -> None:
    doc.file = b"new"


GIVE: dict[str, Callable[[Session, Doc], None]] = {each.__name__: each for each in (delete, set_none, replace)}

NOTE = "another row"
COLUMN = "another column of another row"
LIST = "a list of another row"


def take(session: Session, where: str, file: Attachment | None) -> None:
    match where:
        case "another row":
            session.add(Note(file=file))
        case "another column of another row":
            session.get_one(Doc, 2).scan = file
        case "a list of another row":
            session.get_one(Doc, 2).pages = [file]


@on("give", GIVE)
@on("where", [NOTE, COLUMN, LIST])
@on("order", ["give first", "take first", "give, flush, take", "take, flush, give"])
def test_a_file_that_its_owner_gives_up_moves(world: World, give: str, where: str, order: str) -> None:
    """Moved in one flush, or copied and its original dropped: nothing is lost, nothing is left."""
    seed(world)
    seed(world, None)
    with world.session(autoflush=False) as session:
        doc = session.get_one(Doc, 1)
        session.get_one(Doc, 2)
        file = doc.file
        stored = world.puts
        steps: list[Callable[[], None]] = [lambda: GIVE[give](session, doc), lambda: take(session, where, file)]
        if order.endswith(("take first", "give")):
            steps.reverse()
        steps[0]()
        if "flush" in order:
            session.flush()
        steps[1]()
        session.commit()
    # Only a file whose owner still wants it, as far as can be known, is copied.
    copies = 1 if order == "take, flush, give" else 0
    assert world.puts - stored == copies + (give == "replace")
    world.check(b"old", *([b"new"] if give == "replace" else []))


@on("flushed", [False, True])
def test_a_move_that_is_rolled_back(world: World, flushed: bool) -> None:
    key = seed(world)
    with world.session() as session:
        doc = session.get_one(Doc, key)
        note = Note(file=doc.file)
        doc.file = None
        session.add(note)
        session.flush()
        if flushed:
            session.delete(note)
            session.flush()
        session.rollback()
    world.check(b"old")


def test_a_move_in_a_savepoint_that_is_rolled_back(world: World) -> None:
    key = seed(world)
    with world.session() as session:
        doc = session.get_one(Doc, key)
        nested = session.begin_nested()
        session.add(Note(file=doc.file))
        doc.file = None
        session.flush()
        nested.rollback()
        session.commit()
        assert doc.file.read() == b"old"
    world.check(b"old")


def test_a_chain_of_moves(world: World) -> None:
    for data in (b"one", b"two", b"three"):
        seed(world, data)
    with world.session() as session, world.nothing_stored():
        one, two, three = (session.get_one(Doc, key) for key in (1, 2, 3))
        one.file, two.file, three.file = two.file, three.file, None
        session.commit()
        assert (one.file.read(), two.file.read(), three.file) == (b"two", b"three", None)
    world.check(b"two", b"three")


def test_a_file_that_two_want_moves_to_one_and_is_copied_for_the_other(world: World) -> None:
    seed(world)
    with world.session(autoflush=False) as session:
        doc = session.get_one(Doc, 1)
        session.add_all([Note(file=doc.file), Note(file=doc.file)])
        session.delete(doc)
        session.commit()
    assert copied(world) == 1
    world.check(b"old", b"old")


@on("between", ["rows", "columns", "row and list"])
@on("flushed", [False, True])
def test_swap(world: World, between: str, flushed: bool) -> None:
    seed(world, b"one", scan=b"two", pages=[b"three"])
    seed(world, b"four")
    with world.session() as session:
        first, second = session.get_one(Doc, 1), session.get_one(Doc, 2)
        stored = world.puts
        match between:
            case "rows":
                a, b = first.file, second.file
                first.file = b
                if flushed:
                    session.flush()
                second.file = a
            case "columns":
                a, b = first.file, first.scan
                first.file = b
                if flushed:
                    session.flush()
                first.scan = a
            case "row and list":
                a, b = second.file, first.pages[0]
                second.file = b
                if flushed:
                    session.flush()
                first.pages = [a]
        session.commit()
        if not flushed:
            assert world.puts == stored, "a swap moves no bytes"
        data = [first.file.read(), first.scan.read(), first.pages[0].read(), second.file.read()]
    expected = {
        "rows": [b"four", b"two", b"three", b"one"],
        "columns": [b"two", b"one", b"three", b"four"],
        "row and list": [b"one", b"two", b"four", b"three"],
    }
    assert data == expected[between]
    world.check(*data)


# What can't be named


def test_a_file_that_was_purged_is_refused(world: World) -> None:
    key = seed(world)
    with world.session(expire_on_commit=False) as session:
        doc = session.get_one(Doc, key)
        file = doc.file
        doc.file = None
        session.commit()
        world.check()
        doc.file = file
        with pytest.raises(OwnershipLost, match=r"Doc\.file may not name a file that is gone"):
            session.commit()
        session.rollback()
        with pytest.raises(FileMissing):
            file.read()
        doc.file = b"new"
        session.commit()
    world.check(b"new")


def test_a_file_that_was_rolled_back_is_refused(world: World) -> None:
    with world.session() as session:
        doc = Doc(file=b"one")
        session.add(doc)
        session.flush()
        file = doc.file
        session.rollback()
        world.check()
        session.add(Note(file=file))
        with pytest.raises(OwnershipLost, match=r"Note\.file"):
            session.flush()
        session.rollback()
    world.check()


@on("world", ["sqlite", "postgres", "mariadb"], indirect=True)
def test_a_file_that_moved_away_meanwhile_is_not_condemned(world: World) -> None:
    """Hole 5: T2 holds row 1 (A), T1 moves A to row 2, T2 replaces on row 1."""
    seed(world)
    with world.session(expire_on_commit=False) as second:
        stale = second.get_one(Doc, 1)
        second.commit()
        with world.session() as first:
            doc = first.get_one(Doc, 1)
            first.add(Note(file=doc.file))
            doc.file = b"first"
            first.commit()
        stale.file = b"second"
        second.commit()
    world.check(b"old", b"second")


@on("world", ["sqlite", "postgres", "mariadb"], indirect=True)
def test_a_stale_move_takes_nothing_from_the_new_owner(world: World) -> None:
    """Hole 5: both want to move A away, on what they loaded; the second gets a copy."""
    seed(world)
    with world.session(expire_on_commit=False) as second:
        stale = second.get_one(Doc, 1)
        second.commit()
        with world.session() as first:
            doc = first.get_one(Doc, 1)
            first.add(Note(file=doc.file))
            doc.file = None
            first.commit()
        second.add(Note(file=stale.file))
        stale.file = None
        second.commit()
    world.check(b"old", b"old")
