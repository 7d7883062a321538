"""Savepoints at any depth, released or rolled back, inside of transactions that end either way."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from sa_attachments import SourceConsumed

from .models import Doc
from .world import World

on = pytest.mark.parametrize
ENDS = ["commit", "rollback"]


def seed(world: World, data: bytes = b"old") -> int:
    with world.session() as session:
        doc = Doc(file=data)
        session.add(doc)
        session.commit()
        return doc.id


def begin(session: Session) -> None:
    """Let the driver's own transactions of SQLite begin: a first SAVEPOINT alone would not be inside of one."""
    session.add(Doc())
    session.flush()


@on("outer", ENDS)
@on("inner", ENDS)
def test_new_files_share_the_fate_of_their_savepoint(world: World, inner: str, outer: str) -> None:
    with world.session() as session:
        session.add(Doc(file=b"outer"))
        session.flush()
        savepoint = session.begin_nested()
        session.add(Doc(file=b"inner", pages=[b"page"]))
        session.flush()
        getattr(savepoint, inner)()
        session.add(Doc(file=b"after"))
        getattr(session, outer)()
    kept = [b"outer", b"after", *([b"inner", b"page"] if inner == "commit" else [])]
    world.check(*(kept if outer == "commit" else []))


@on("outer", ENDS)
@on("inner", ENDS)
def test_drops_share_the_fate_of_their_savepoint(world: World, inner: str, outer: str) -> None:
    replaced, deleted = seed(world), seed(world, b"deleted")
    with world.session() as session:
        begin(session)
        savepoint = session.begin_nested()
        session.get_one(Doc, replaced).file = b"new"
        session.delete(session.get_one(Doc, deleted))
        session.flush()
        getattr(savepoint, inner)()
        getattr(session, outer)()
    world.check(*([b"new"] if (inner, outer) == ("commit", "commit") else [b"old", b"deleted"]))


@on("ends", list(product(ENDS, repeat=4)), ids="-".join)
@on("world", ["sqlite", "sqlite-legacy", "postgres", "mariadb", "asyncpg"], indirect=True)
def test_three_deep_and_mixed(world: World, ends: tuple[str, ...]) -> None:
    """Each level adds a file and replaces the one that all replace; what is left follows from who was rolled back."""
    key = seed(world)
    with world.session() as session:
        open_: list[tuple[str, Callable[[], None]]] = []
        names = [b"root", b"one", b"two", b"three"]
        for depth, (name, end) in enumerate(zip(names, ends, strict=True)):
            transaction = session.begin_nested() if depth else session
            session.add(Doc(file=name))
            session.get_one(Doc, key).file = b"by " + name
            session.flush()
            open_.append((end, getattr(transaction, end)))
        for _, end in reversed(open_):
            end()
    # A level is lost if it, or any level around it, was rolled back.
    stays = [all(end == "commit" for end in ends[: depth + 1]) for depth in range(4)]
    kept = [name for name, stay in zip(names, stays, strict=True) if stay]
    world.check(*kept, b"by " + kept[-1] if kept else b"old")


@on("inner", ENDS)
def test_the_outer_one_ends_while_the_inner_is_open(world: World, inner: str) -> None:
    """SQLAlchemy then says nothing of the inner one but that it ended."""
    with world.session() as session:
        session.add(Doc(file=b"root"))
        session.flush()
        outer = session.begin_nested()
        session.add(Doc(file=b"outer"))
        session.flush()
        session.begin_nested()
        session.add(Doc(file=b"inner"))
        session.flush()
        getattr(outer, inner)()
        session.commit()
    world.check(b"root", *([b"outer", b"inner"] if inner == "commit" else []))


def test_the_root_is_rolled_back_while_savepoints_are_open(world: World) -> None:
    key = seed(world)
    with world.session() as session:
        begin(session)
        for depth in range(3):
            session.begin_nested()
            session.get_one(Doc, key).file = b"%d" % depth
            session.flush()
        session.rollback()
        session.close()
    world.check(b"old")


def test_the_session_is_closed_while_savepoints_are_open(world: World) -> None:
    key = seed(world)
    with world.session() as session:
        begin(session)
        for depth in range(3):
            session.begin_nested()
            session.get_one(Doc, key).file = b"%d" % depth
            session.flush()
    world.check(b"old")


def test_an_error_inside_of_the_with_block_rolls_back_to_the_savepoint(world: World) -> None:
    key = seed(world)
    with world.session() as session:
        session.add(Doc(title="taken", file=b"root"))
        session.flush()
        with pytest.raises(IntegrityError), session.begin_nested():  # noqa: PT012 - what is in the block matters
            session.get_one(Doc, key).file = b"new"
            session.flush()
            session.add(Doc(title="taken", file=b"inner"))
        session.add(Doc(file=b"after"))
        session.commit()
    world.check(b"old", b"root", b"after")


def test_the_same_object_is_added_again_after_its_savepoint_was_rolled_back(world: World) -> None:
    """Hole 6: the retry must not name the key of the first attempt, whose line was rolled back."""
    with world.session() as session:
        session.add(Doc(title="taken"))
        session.flush()
        doc = Doc(title="taken", file=b"one", pages=[b"page"])
        with pytest.raises(IntegrityError), session.begin_nested():
            session.add(doc)
        doc.title = "free"
        with session.begin_nested():
            session.add(doc)
        session.commit()
    assert len({call.args[0] for call in world.storage.calls if call.verb == "put"}) == 1 + 4
    world.check(b"one", b"page")


def test_a_one_shot_source_can_be_read_for_one_attempt_only(world: World) -> None:
    with world.session() as session:
        session.add(Doc(title="taken"))
        session.flush()
        doc = Doc(title="taken", file=iter([b"on", b"ce"]))
        with pytest.raises(IntegrityError), session.begin_nested():
            session.add(doc)
        doc.title = "free"
        session.add(doc)
        with pytest.raises(SourceConsumed, match="assign a fresh source"), session.begin_nested():
            session.flush()
        doc.file = iter([b"tw", b"ice"])
        session.add(doc)
        session.commit()
    world.check(b"twice")


def test_a_file_dropped_before_a_savepoint_stays_dropped(world: World) -> None:
    key = seed(world)
    with world.session() as session:
        session.get_one(Doc, key).file = b"outer"
        session.flush()
        savepoint = session.begin_nested()
        session.get_one(Doc, key).file = b"inner"
        session.flush()
        savepoint.rollback()
        session.commit()
    world.check(b"outer")


def test_an_old_file_comes_back_with_the_savepoint_and_is_dropped_later(world: World) -> None:
    key = seed(world)
    with world.session() as session:
        begin(session)
        savepoint = session.begin_nested()
        session.get_one(Doc, key).file = None
        session.flush()
        savepoint.rollback()
        doc = session.get_one(Doc, key)
        assert doc.file is not None
        assert doc.file.read() == b"old"
        doc.file = b"new"
        session.commit()
    world.check(b"new")


def test_a_file_moves_inside_of_a_savepoint(world: World) -> None:
    key = seed(world)
    with world.session() as session:
        begin(session)
        for end in ENDS[::-1]:
            savepoint = session.begin_nested()
            doc = session.get_one(Doc, key)
            other = Doc(scan=doc.file)
            doc.file = None
            session.add(other)
            session.flush()
            getattr(savepoint, end)()
        session.commit()
        assert other.scan is not None
        assert other.scan.read() == b"old"
    assert len(world.storage.calls) == len([call for call in world.storage.calls if call.verb != "copy"])
    world.check(b"old")


def test_files_of_a_savepoint_are_cleaned_when_the_transaction_ends_not_before(world: World) -> None:
    """Until then its ledger lines could not be told from those of a transaction that still runs."""
    with world.session() as session:
        session.add(Doc(file=b"root"))
        session.flush()
        savepoint = session.begin_nested()
        session.add(Doc(file=b"inner"))
        session.flush()
        savepoint.rollback()
        assert sorted(world.stored().values()) == [b"inner", b"root"]
        session.commit()
    world.check(b"root")


def test_hundreds_of_savepoints(world: World) -> None:
    key = seed(world)
    with world.session() as session:
        begin(session)
        for number in range(100):
            savepoint = session.begin_nested()
            session.get_one(Doc, key).file = b"%d" % number
            session.flush()
            savepoint.rollback() if number % 2 else savepoint.commit()
        session.commit()
    world.check(b"98")


@on("outer", ENDS)
@on("world", ["sqlite-legacy"], indirect=True)
def test_a_savepoint_that_is_a_transaction_of_its_own(world: World, outer: str) -> None:
    """The driver's own transactions: a first SAVEPOINT is outside of any, and its release commits; the later rollback
    undoes nothing. The ledger knows, the events do not.
    """
    key = seed(world)
    with world.session() as session:
        with session.begin_nested():
            session.get_one(Doc, key).file = b"new"
            session.add(Doc(file=b"one"))
        getattr(session, outer)()
    world.check(b"new", b"one")
